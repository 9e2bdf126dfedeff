//! Roads between nodes: they take time, can be cut one way, hold back what was under way, and keep order only where a
//! connection does.
//!
//! It does not know what packets mean, or who is alive.

use crate::node::Lead;
use crate::random::Random;
use tidings_protocol::Version;
use tidings_protocol::copy;
use tidings_protocol::mesh::{self, Frame};
use tidings_protocol::peer::{EdgeToOwner, OwnerToEdge};
use tidings_router::control::command::Command;
use tidings_router::control::lease::{Grant, Renewal};
use tidings_router::control::map::Process;
use tidings_router::owner::Publish;

/// One connection between a lane and an owner, in one life of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkName {
    /// The lane, counted over the cluster.
    pub lane: usize,
    /// The owner, counted over the cluster.
    pub owner: usize,
    /// Which life of the link (rule R9). Never used twice, also not by another life of the lane's process.
    pub generation: u32,
}

/// One connection from a process that owns to a process that holds copies, in one life of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamName {
    /// The process that dialled: its owners send batches.
    pub from: Process,
    /// The process that holds copies, or is to.
    pub to: Process,
    /// Which life. Never used twice.
    pub generation: u32,
}

/// What passes on a connection for copies.
#[derive(Clone, Debug)]
pub enum StreamWord {
    /// "Let us have a connection."
    Dial,
    /// "We have."
    Accepted,
    /// "I am there."
    Ping,
    /// "So am I."
    Pong,
    /// "There is no such connection."
    Reset,
    /// A frame: batches to the copy, everything else to the owner.
    Frame(copy::Frame),
}

/// What becomes of one change at an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has this version, and is kept as was asked for.
    Accepted(Version),
    /// It had happened, and is kept.
    Duplicate(Version),
    /// Not owned, no versions left, or no lease. Nothing was changed.
    Refused,
    /// The disk fails, which was known before. Nothing was changed.
    StorageFails,
    /// The disk failed meanwhile. It may be lost or not.
    NotStored,
}

/// What one node says to another.
#[derive(Clone, Debug)]
pub enum Body {
    /// "Let us have a link."
    Dial(LinkName),
    /// "We have."
    Accepted(LinkName),
    /// "The process at this end is gone."
    Reset(LinkName, Side),
    /// "I am there."
    Ping(LinkName),
    /// Frames of an owner.
    ToLane(LinkName, Vec<OwnerToEdge>),
    /// Frames of a lane.
    ToOwner(LinkName, Vec<EdgeToOwner>),
    /// To the leader.
    Renew(Renewal),
    /// From the leader.
    Granted(Grant),
    /// From the leader: it leads, and so far goes the log.
    Lead(Lead),
    /// To the leader: "put this into the log".
    Ask(Command),
    /// Changes for shards that the receiver is thought to own: number of the call, then publishes.
    Publish(u64, Vec<(usize, Publish)>, bool),
    /// What became of them.
    Published(u64, Vec<(usize, Fate)>),
    /// On a connection for copies, to the process that holds them.
    ToCopy(StreamName, StreamWord),
    /// On a connection for copies, to the process that owns.
    FromCopy(StreamName, StreamWord),
}

/// No packet takes longer than this.
const LONGEST_US: u64 = 2_000_000;

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The lane's.
    Lane,
    /// The owner's.
    Owner,
}

/// A connection that keeps the order of what passes on it, one way.
#[derive(Clone, Copy, Debug)]
enum Ordered {
    Link(LinkName, usize),
    Stream(StreamName, usize),
}

impl Body {
    /// Where packets keep their order: connection and direction.
    fn ordered(&self) -> Option<Ordered> {
        match self {
            Self::Dial(link) | Self::Ping(link) | Self::ToOwner(link, _) | Self::Reset(link, Side::Lane) => {
                Some(Ordered::Link(*link, 0))
            }
            Self::Accepted(link) | Self::ToLane(link, _) | Self::Reset(link, Side::Owner) => {
                Some(Ordered::Link(*link, 1))
            }
            Self::ToCopy(stream, _) => Some(Ordered::Stream(*stream, 0)),
            Self::FromCopy(stream, _) => Some(Ordered::Stream(*stream, 1)),
            Self::Renew(_)
            | Self::Granted(_)
            | Self::Lead(_)
            | Self::Ask(_)
            | Self::Publish(..)
            | Self::Published(..) => None,
        }
    }
}

fn copy_over_the_wire(word: StreamWord) -> Result<StreamWord, String> {
    let StreamWord::Frame(frame) = &word else {
        return Ok(word);
    };
    let mut bytes = Vec::new();
    copy::encode(frame, &mut bytes).map_err(|error| format!("{frame:?}: {error}"))?;
    let read = copy::decode(&bytes).map_err(|error| format!("{frame:?}: {error}"))?;
    if read == *frame {
        Ok(StreamWord::Frame(read))
    } else {
        Err(format!("{frame:?} comes back as {read:?}"))
    }
}

/// Writes a link's frames into the bytes that travel between nodes, and reads them again.
///
/// # Errors
/// If a frame cannot be written, or comes back as another one.
pub fn over_the_wire(body: Body) -> Result<Body, String> {
    let through = |frame: &Frame| {
        let mut bytes = Vec::new();
        mesh::encode(frame, &mut bytes).map_err(|error| format!("{frame:?}: {error}"))?;
        let read = mesh::decode(&bytes).map_err(|error| format!("{frame:?}: {error}"))?;
        if read == *frame {
            Ok(read)
        } else {
            Err(format!("{frame:?} comes back as {read:?}"))
        }
    };
    let name = |link: &LinkName| mesh::LinkName {
        lane: link.lane as u16,
        owner: link.owner as u16,
    };
    Ok(match body {
        Body::ToLane(link, frames) => {
            let mut read = Vec::with_capacity(frames.len());
            for frame in frames {
                let (name, generation) = (name(&link), link.generation);
                if let Frame::FromOwner { frame, .. } = through(&Frame::FromOwner {
                    link: name,
                    generation,
                    frame,
                })? {
                    read.push(frame);
                }
            }
            Body::ToLane(link, read)
        }
        Body::ToOwner(link, frames) => {
            let mut read = Vec::with_capacity(frames.len());
            for frame in frames {
                let (name, generation) = (name(&link), link.generation);
                if let Frame::FromEdge { frame, .. } = through(&Frame::FromEdge {
                    link: name,
                    generation,
                    frame,
                })? {
                    read.push(frame);
                }
            }
            Body::ToOwner(link, read)
        }
        Body::ToCopy(stream, word) => Body::ToCopy(stream, copy_over_the_wire(word)?),
        Body::FromCopy(stream, word) => Body::FromCopy(stream, copy_over_the_wire(word)?),
        other => other,
    })
}

/// What is under way.
#[derive(Clone, Debug)]
pub struct Packet {
    /// From this node.
    pub from: usize,
    /// To this one.
    pub to: usize,
    /// To this life of its process; `None`: to whichever lives.
    pub incarnation: Option<u64>,
    /// What it says.
    pub body: Body,
}

/// What the road does with a packet.
#[derive(Debug)]
pub enum Carried {
    /// It arrives then.
    At(u64, Packet),
    /// It waits until the road is open, or is lost.
    Not,
}

/// See the module.
#[derive(Debug)]
pub struct Network {
    nodes: usize,
    machines: usize,
    road_us: (u64, u64),
    /// Connections hang now and then.
    pub stalls: bool,
    /// Everything takes so many times longer.
    pub slowness: u64,
    blocked: Vec<bool>,
    held: Vec<Vec<Packet>>,
    /// By way: until when what owners say to copies does not pass.
    hanging: Vec<u64>,
    last: Vec<[(u32, u64); 2]>,
    generations: Vec<u32>,
    streams: u32,
}

impl Network {
    /// Open roads between so many nodes, with so many lanes and owners in all.
    #[must_use]
    pub fn new(nodes: usize, machines: usize, road_us: (u64, u64)) -> Self {
        Self {
            nodes,
            machines,
            road_us,
            stalls: false,
            slowness: 1,
            blocked: vec![false; nodes * nodes],
            held: vec![Vec::new(); nodes * nodes],
            hanging: vec![0; nodes * nodes],
            last: vec![[(0, 0); 2]; machines * machines + nodes * nodes],
            generations: vec![0; machines * machines],
            streams: 0,
        }
    }

    /// A name for the next life of a link.
    pub fn next_link(&mut self, lane: usize, owner: usize) -> LinkName {
        let generation = &mut self.generations[lane * self.machines + owner];
        *generation += 1;
        LinkName {
            lane,
            owner,
            generation: *generation,
        }
    }

    /// A name for the next connection for copies.
    pub fn next_stream(&mut self, from: Process, to: Process) -> StreamName {
        self.streams += 1;
        StreamName {
            from,
            to,
            generation: self.streams,
        }
    }

    /// Whether nothing gets through this way.
    #[must_use]
    pub fn is_blocked(&self, from: usize, to: usize) -> bool {
        from != to && self.blocked[from * self.nodes + to]
    }

    /// Cuts one way.
    pub fn block(&mut self, from: usize, to: usize) {
        self.blocked[from * self.nodes + to] = true;
    }

    /// What owners say to copies on this way hangs until then, while everything else passes.
    pub fn hang_copies(&mut self, from: usize, to: usize, until: u64) {
        self.hanging[from * self.nodes + to] = until;
    }

    /// Opens one way again and gives back what waited for that, in its order.
    pub fn open(&mut self, from: usize, to: usize) -> Vec<Packet> {
        self.blocked[from * self.nodes + to] = false;
        std::mem::take(&mut self.held[from * self.nodes + to])
    }

    /// Of a machine that lost its power nothing is left to be sent again.
    pub fn forget_from(&mut self, node: usize) {
        for to in 0..self.nodes {
            self.held[node * self.nodes + to].clear();
        }
    }

    /// How long a packet takes.
    pub fn delay_us(&self, random: &mut Random, from: usize, to: usize) -> u64 {
        if from == to {
            return random.range(5, 80);
        }
        let spike = if self.stalls && random.in_ten_thousand(30) {
            10
        } else {
            1
        };
        (random.range(self.road_us.0, self.road_us.1) * self.slowness * spike).min(LONGEST_US)
    }

    /// Takes a packet.
    pub fn carry(&mut self, random: &mut Random, now: u64, packet: Packet) -> Carried {
        let keeps_order = packet.body.ordered();
        if self.is_blocked(packet.from, packet.to) {
            // A connection's bytes are sent again later; what has no connection may be lost.
            if keeps_order.is_some() || random.percent(50) {
                self.held[packet.from * self.nodes + packet.to].push(packet);
            }
            return Carried::Not;
        }
        let mut at = now + self.delay_us(random, packet.from, packet.to);
        if let Some(ordered) = keeps_order {
            if self.stalls && random.in_ten_thousand(8) {
                // A connection, or the task behind it, hangs. Its next life may well overtake it.
                at += random.range(500_000, 5_000_000);
            }
            let (place, generation, way) = match ordered {
                Ordered::Link(link, way) => (link.lane * self.machines + link.owner, link.generation, way),
                Ordered::Stream(stream, way) => {
                    let pair = stream.from.node.0 as usize * self.nodes + stream.to.node.0 as usize;
                    if packet.to == stream.to.node.0 as usize {
                        at = at.max(self.hanging[pair]);
                    }
                    (self.machines * self.machines + pair, stream.generation, way)
                }
            };
            let last = &mut self.last[place][way];
            // Another life is another connection.
            if last.0 <= generation {
                at = if last.0 == generation { at.max(last.1) } else { at };
                *last = (generation, at);
            }
        }
        Carried::At(at, packet)
    }
}
