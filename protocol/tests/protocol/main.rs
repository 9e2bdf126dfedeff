//! The wires of Tidings, tested from outside: what is written reads back, what makes no sense is refused in words.
#![allow(clippy::unwrap_used, missing_docs)]

mod bad_input;
mod client_requests;
mod cursors;
mod documents;
mod encoders;
mod mesh;
mod publishing;

mod vectors;
mod wire;
