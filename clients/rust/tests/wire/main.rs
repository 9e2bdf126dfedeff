//! The lower layers against the golden frames of `protocol/vectors`, cut wherever bytes can be cut, and against what the
//! protocol's own encoders write.

mod frames;
mod golden;
mod requests;
mod streams;
mod value;
