//! Who is alive: SWIM, wrapped.
