//! The watching machine without sockets: rule by rule, and in random lives against a small model of servers.

mod behaviour;
mod lives;
mod world;
