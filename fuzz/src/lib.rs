//! What strangers, peers and chance may do to the decoders and machines, as functions of some bytes.
//!
//! A target panics if and only if something is wrong: not only where code panics, but also where an answer contradicts
//! itself or an oracle. `fuzz/run TARGET SECONDS` searches with coverage; the tests run the corpus and some thousands of its
//! mutations each.

mod copies;
mod decoders;
mod machines;
mod random;

// Tests of another crate: its manners are judged there.
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used
)]
mod world_of_lanes;
// The names by which those modules know each other.
use world_of_lanes::{clients, wire, world};

/// Something that panics if it finds something wrong.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("client_requests", decoders::client_requests),
    ("packed_requests", decoders::packed_requests),
    ("publish_bodies", decoders::publish_bodies),
    ("poll_bodies", decoders::poll_bodies),
    ("queries", decoders::queries),
    ("cursors", decoders::cursors),
    ("hints", decoders::hints),
    ("access_tokens", decoders::access_tokens),
    ("mesh_frames", decoders::mesh_frames),
    ("copy_frames", copies::copy_frames),
    ("server_messages", decoders::server_messages),
    ("event_streams", decoders::event_streams),
    ("websocket_frames", decoders::websocket_frames),
    ("owner", machines::owner),
    ("lanes", machines::lanes),
    ("control_map", machines::control_map),
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, target)| *target)
}
