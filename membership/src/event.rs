//! What goes in, what comes out, and what is counted.

use crate::identity::{Identity, Incarnation};
use crate::metadata::Metadata;
use crate::seal::{KeyRing, Refusal};
use std::net::SocketAddr;
use tidings_protocol::NodeId;

/// Microseconds on a clock that never jumps and whose zero means nothing.
pub type MonoUs = u64;

/// What the shell tells the machine.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A datagram came. From whom is only used to tell the operator about strangers: who sent it stands inside.
    Datagram {
        /// Where it came from.
        from: SocketAddr,
        /// All of it.
        bytes: &'a [u8],
    },
    /// Where members may be found: replaces what was said before. Dead ones and ourselves among them do no harm.
    Seeds(Vec<SocketAddr>),
    /// Our own metadata changed.
    Metadata(Metadata),
    /// Other keys from now on.
    Keys(KeyRing),
    /// A link to this member broke, or cannot be opened: look whether it lives rather sooner than later.
    Unreachable(NodeId),
    /// Say good-bye. Nothing is heard or said afterwards.
    Leave,
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram; if that fails, it is lost, as datagrams are.
    Send {
        /// To there.
        to: SocketAddr,
        /// These bytes.
        datagram: Vec<u8>,
    },
    /// Something became known.
    Event(Event),
}

/// A member as it is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Where its gossip goes.
    pub gossip_addr: SocketAddr,
    /// What it says of itself.
    pub metadata: Metadata,
}

/// What became known about members, as seen from here.
///
/// For each node: `Joined` comes first; then any of `Changed`, `Suspected`, `Refuted`, `Restarted`; then `Down` or `Left`;
/// and from the beginning again. Gossip suggests, it does not decide: a member that is down here may be alive elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A member is alive.
    Joined(Peer),
    /// It says something else of itself now.
    Changed(Peer),
    /// Somebody found no way to it. It is a member still.
    Suspected {
        /// The member.
        node: NodeId,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// It spoke up.
    Refuted {
        /// The member.
        node: NodeId,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// It is held dead.
    Down {
        /// The member.
        node: NodeId,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// It runs again, and nobody had noticed that it was gone: what it held before is lost all the same.
    Restarted {
        /// As it is now.
        peer: Peer,
        /// Which start it was before.
        before: Incarnation,
    },
    /// It said good-bye. May come after `Down`, where the good-bye was slower than the news.
    Left {
        /// The member.
        node: NodeId,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// At least one other member is in reach.
    Connected,
    /// No other member is in reach any more.
    Alone,
    /// Others held us dead, and we came back. Their links to us may be cut, our leases given to others.
    Revived {
        /// How often since the start.
        times: u16,
    },
    /// Another process runs as our node, and it is the one that counts: this one fell silent and must stop. The data
    /// directory was copied, or restored from a backup, or this process is the past of one that was started after it.
    Superseded {
        /// The other one.
        by: Identity,
    },
    /// Two processes claim what only one can have.
    Conflict(Conflict),
    /// A datagram was dropped. Told once a minute for each sender and reason.
    Refused {
        /// Where it came from.
        from: SocketAddr,
        /// Why.
        why: Refusal,
    },
    /// A newcomer was not let in, because `Config::max_members` are known. Told once a minute.
    Full {
        /// One of those refused.
        node: NodeId,
    },
}

/// Two processes claim what only one can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Two processes run as one node: a data directory was copied. The first of the two counts.
    TwoProcesses {
        /// The one that counts.
        counts: Identity,
        /// The other one, which was heard nevertheless.
        other: Identity,
    },
    /// Two nodes name one address as theirs: one of them has it wrong, or has gone.
    SharedAddress {
        /// The address.
        addr: SocketAddr,
        /// The node that named it first.
        first: NodeId,
        /// The node that names it now.
        second: NodeId,
    },
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams sent.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Datagrams that came, whatever they were.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Not ours: `Refusal::Garbage`.
    pub garbage: u64,
    /// Longer than allowed.
    pub oversized: u64,
    /// Of another cluster.
    pub other_cluster: u64,
    /// Under an unknown key.
    pub unknown_key: u64,
    /// Sealed with another secret, or damaged.
    pub unsealed: u64,
    /// Opened and not understood.
    pub malformed: u64,
    /// Seen before, or too old to know.
    pub copies: u64,
    /// For somebody else: another node, or an earlier start of ours.
    pub misdirected: u64,
    /// From a past start of a member.
    pub outdated: u64,
    /// Newcomers not let in for want of room.
    pub refused_members: u64,
    /// Times we spoke up against a suspicion.
    pub refutations: u64,
    /// Members suspected by us.
    pub suspicions: u64,
    /// Members told that they are held dead.
    pub death_notices: u64,
    /// Members told of deaths that they had missed.
    pub reminders: u64,
    /// Pauses of our own process.
    pub stalls: u64,
    /// Packets that the library refused.
    pub rejected: u64,
}
