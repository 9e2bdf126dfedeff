//! The systems there are: what each is called, where it comes from, and what it leaves open.

use std::fmt;
use std::str::FromStr;

/// A system that tells subscribers of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum System {
    /// The NATS server, core publish and subscribe.
    Nats,
    /// Redis, publish and subscribe.
    Redis,
    /// nginx with the nchan module, over WebSocket.
    Nchan,
    /// A Tidings node, over WebSocket: the same generator, for a fair comparison.
    Tidings,
}

impl System {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tidings, Self::Nats, Self::Redis, Self::Nchan];

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::Nchan => "nchan",
            Self::Tidings => "tidings",
        }
    }

    /// The server's program.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Nats => "nats-server",
            Self::Redis => "redis-server",
            Self::Nchan => "nginx",
            Self::Tidings => "tidings",
        }
    }

    /// How to get it on Debian.
    #[must_use]
    pub fn how_to_install(self) -> &'static str {
        match self {
            Self::Nats => "apt-get install nats-server",
            Self::Redis => "apt-get install redis-server",
            Self::Nchan => "apt-get install nginx libnginx-mod-nchan",
            Self::Tidings => "cargo build --release -p tidings",
        }
    }

    /// What the system, as it is measured here, does not promise; and what it does besides.
    #[must_use]
    pub fn caveats(self) -> &'static [&'static str] {
        match self {
            Self::Nats => &[
                "Core NATS tells whoever is connected, once at most: what is published while a subscriber is away is gone, and \
                 it is not told that anything is. JetStream, not measured here, keeps streams for those who come back.",
                "It queues every message for a slow subscriber up to 64 MB, then cuts it off; nothing is coalesced.",
                "An acknowledged publish (`verbose`) was parsed by the server, no more: nobody promises that it reaches anybody.",
                "It carries content of up to 1 MB and subjects with wildcards, request and reply, and clusters.",
            ],
            Self::Redis => &[
                "Redis pub/sub tells whoever is connected, once at most: what is published while a subscriber is away is gone, \
                 and it is not told that anything is. Streams, not measured here, keep entries for those who come back.",
                "It queues every message for a slow subscriber up to 32 MB (8 MB for a minute), then cuts it off; nothing is \
                 coalesced.",
                "The answer to a publish is the number of subscribers it was queued for, not that they were told.",
                "One thread does the work of a server; a cluster sends each publish to every node unless it is sharded.",
            ],
            Self::Nchan => &[
                "nchan keeps the last messages of each channel (10 for an hour, as configured here) and replays them to a \
                 subscriber that comes back with its message ID. What fell out of the buffer is skipped without a word.",
                "A subscriber listens to at most 255 channels; its message ID grows with their number.",
                "Messages live in one nginx's shared memory (512 MB here) unless Redis is put behind it.",
                "It speaks WebSocket, SSE and long-poll to browsers, as Tidings does.",
            ],
            Self::Tidings => &[
                "Tidings tells the newest version of each object, not every one: versions may be skipped (coalesced), content \
                 is a hint that may be absent.",
                "Here it keeps versions in memory only, with one serving thread, as the others keep nothing on disk either.",
            ],
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No system of that name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no adaptor for `{0}`; there are: tidings, nats, redis, nchan")]
pub struct UnknownSystem(String);

impl FromStr for System {
    type Err = UnknownSystem;

    fn from_str(name: &str) -> Result<Self, UnknownSystem> {
        let found = Self::ALL.into_iter().find(|system| system.name() == name);
        found.ok_or_else(|| UnknownSystem(name.to_owned()))
    }
}
