//! A WebSocket's client side as pure functions over bytes (RFC 6455): the opening handshake, frames in, frames out.
//!
//! | to | use |
//! | --- | --- |
//! | open | [`Key`] from 16 random bytes, [`handshake`] appends the request, [`read_handshake`] reads the answer |
//! | read | [`Incoming::feed`]: bytes as they came from the socket in, whole [`Message`]s out, borrowed from those bytes |
//! | write | [`write_text`], [`write_pong`], [`write_close`], each with a mask of 4 random bytes |
//!
//! An [`Incoming`] takes 40 bytes, and more only while a message has come in part: one buffer of the caller can serve any
//! number of sockets. Compression is neither offered nor read.
//!
//! It does not know sockets, time or randomness, nor what the messages mean: for that see [`crate::wire`].

mod frame;
mod handshake;

pub use frame::{FrameError, Incoming, Message, write_close, write_ping, write_pong, write_text};
pub use handshake::{Accepted, HandshakeError, Key, MAX_HEAD_BYTES, SUBPROTOCOL, handshake, read_handshake};
