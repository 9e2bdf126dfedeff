//! The client against a scripted stand-in: servers that close, go silent, refuse, or are none.

mod endings;
mod fallback;
mod publishing;
mod server;
