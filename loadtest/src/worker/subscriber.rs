//! One subscriber: what it holds, what it was told, and where it stands. Its connection's bytes are others' business.

use crate::net::ConnId;
use crate::population::Transport;
use tidings_client::websocket::Incoming;
use tidings_client::wire::{Chunks, EventParser};

/// Where a subscriber stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not connected; an alarm or the end of the run will bring it back.
    Away,
    /// In the queue of those to be connected.
    Queued,
    /// Being connected, or asking for its objects.
    Asking,
    /// Told everything up to its first cursor on this connection: listening.
    Live,
    /// Told by the server never to come back.
    Stopped,
}

/// What is being said on its connection.
#[derive(Debug)]
pub(super) enum Talk {
    None,
    /// The answer's head is to come.
    Head,
    WebSocket(Incoming),
    Events(Box<(Chunks, EventParser)>),
}

/// A slot of a subscriber whose object is being exchanged for another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Swap {
    pub(super) slot: u32,
    /// What it held there.
    pub(super) old: u32,
}

#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) conn: ConnId,
    /// What it holds, and the newest version it was told of each.
    pub(super) objects: Box<[u32]>,
    pub(super) told: Box<[u64]>,
    /// The last cursor it was given; empty: none yet.
    pub(super) cursor: String,
    /// Long-poll: the name of its list on the server.
    pub(super) session: Option<Box<str>>,
    pub(super) talk: Talk,
    /// Objects it was told to fetch, with when: slot and time.
    pub(super) resynced: Vec<(u32, u64)>,
    /// When it was last told to fetch everything.
    pub(super) resynced_us: u64,
    /// From when on everything is owed to it.
    pub(super) held_us: u64,
    /// When it lost its last connection; 0: it never had one.
    pub(super) lost_us: u64,
    /// When it began to connect, then when it asked.
    pub(super) asked_us: u64,
    pub(super) swap: Option<Swap>,
    /// Pages of objects that are not answered yet.
    pub(super) pages: u16,
    pub(super) phase: Phase,
    pub(super) transport: Transport,
    /// Failed attempts in a row.
    pub(super) attempts: u8,
    /// It reads slowly or not at all on purpose: what it is told late says nothing about the server.
    pub(super) dawdles: bool,
    /// Bytes it reads a second; 0: all there are.
    pub(super) bytes_per_s: u32,
    /// When it last heard anything, in seconds.
    pub(super) heard_s: u32,
    /// A poll of it is under way.
    pub(super) polls: bool,
    /// Objects that it holds although the server never confirmed them on this connection.
    pub(super) unconfirmed: bool,
}

impl Subscriber {
    pub(super) fn new(objects: Vec<u32>, transport: Transport) -> Self {
        Self {
            conn: ConnId::NONE,
            told: vec![0; objects.len()].into(),
            objects: objects.into(),
            cursor: String::new(),
            session: None,
            talk: Talk::None,
            resynced: Vec::new(),
            resynced_us: 0,
            held_us: u64::MAX,
            lost_us: 0,
            asked_us: 0,
            swap: None,
            pages: 0,
            phase: Phase::Away,
            transport,
            attempts: 0,
            dawdles: false,
            bytes_per_s: 0,
            heard_s: 0,
            polls: false,
            unconfirmed: true,
        }
    }

    #[inline]
    pub(super) fn slot_of(&self, object: u32) -> Option<usize> {
        self.objects.iter().position(|held| *held == object)
    }

    /// Whether it was told to fetch this object at or after a time.
    pub(super) fn resynced_since(&self, slot: u32, at_us: u64) -> bool {
        let of_it = self.resynced.iter().any(|(of, when)| *of == slot && *when >= at_us);
        of_it || (self.resynced_us > 0 && self.resynced_us >= at_us)
    }

    pub(super) fn was_told_to_fetch(&mut self, slot: u32, at_us: u64) {
        match self.resynced.iter_mut().find(|(of, _)| *of == slot) {
            Some((_, when)) => *when = at_us,
            None => self.resynced.push((slot, at_us)),
        }
    }

    /// Whether it holds its objects since an earlier connection, and can ask for what it missed.
    pub(super) fn resumes(&self) -> bool {
        !self.cursor.is_empty()
    }
}
