//! Who a member is: a node, one start of it, and where its datagrams go.
//!
//! Two identities of one node are ordered, and everybody orders them alike: the later start wins; of two processes that
//! claim the same start (a copied data directory) the higher address; of one process the one that came back last.

use serde::{Deserialize, Serialize};
use std::net::{SocketAddr, SocketAddrV6};
use tidings_protocol::NodeId;

/// Which start of a node: larger at each start of its process, kept by the gateway in the data directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl std::fmt::Display for Incarnation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A member as the SWIM library sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The node.
    #[serde(with = "fixed")]
    pub node: NodeId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Where its datagrams go.
    pub addr: SocketAddr,
    /// How often this process came back after others held it dead. A verdict of death is final for the identity it names,
    /// so who is alive after all takes the next number.
    pub revival: u16,
}

impl Identity {
    /// A process that has just started.
    #[must_use]
    pub fn new(node: NodeId, incarnation: Incarnation, addr: SocketAddr) -> Self {
        Self {
            node,
            incarnation,
            addr: plain(addr),
            revival: 0,
        }
    }

    /// Whether both are one process: the same start at the same address.
    #[must_use]
    pub fn same_process(&self, other: &Self) -> bool {
        self.node == other.node && self.process() == other.process()
    }

    /// Whether this identity replaces the other one of the same node.
    #[must_use]
    pub fn replaces(&self, other: &Self) -> bool {
        (self.process(), self.revival) > (other.process(), other.revival)
    }

    /// What orders the processes of one node.
    pub(crate) fn process(&self) -> (Incarnation, SocketAddr) {
        (self.incarnation, self.addr)
    }
}

/// An address in the one form that the wire has for it.
pub(crate) fn plain(addr: SocketAddr) -> SocketAddr {
    let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0)),
    }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        let revival = self.revival.checked_add(1)?;
        Some(Self { revival, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.replaces(adversary)
    }
}

/// Node IDs are random, so eight bytes are shorter than a variable-length number.
mod fixed {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use tidings_protocol::NodeId;

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    pub(super) fn serialize<S: Serializer>(node: &NodeId, serializer: S) -> Result<S::Ok, S::Error> {
        node.0.to_le_bytes().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeId, D::Error> {
        Ok(NodeId(u64::from_le_bytes(<[u8; 8]>::deserialize(deserializer)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(incarnation: u64, addr: &str, revival: u16) -> Identity {
        Identity {
            revival,
            ..Identity::new(NodeId(7), Incarnation(incarnation), addr.parse().unwrap())
        }
    }

    #[test]
    fn a_later_start_replaces_an_earlier_one_however_often_that_came_back() {
        assert!(identity(2, "10.0.0.1:1", 0).replaces(&identity(1, "10.0.0.9:1", 9)));
        assert!(!identity(1, "10.0.0.9:1", 9).replaces(&identity(2, "10.0.0.1:1", 0)));
    }

    #[test]
    fn of_two_processes_with_one_start_the_loser_cannot_win_by_coming_back() {
        let winner = identity(1, "10.0.0.2:1", 0);
        assert!(winner.replaces(&identity(1, "10.0.0.1:1", 500)));
        assert!(!identity(1, "10.0.0.1:1", 500).replaces(&winner));
        assert!(
            identity(1, "10.0.0.2:1", 1).replaces(&winner),
            "it may come back itself"
        );
    }

    #[test]
    fn an_address_has_one_form() {
        let mapped = identity(1, "[::ffff:10.0.0.1]:7", 0);
        assert_eq!(mapped.addr, "10.0.0.1:7".parse().unwrap());
        let scoped = SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 5, 3));
        assert_eq!(plain(scoped), "[fe80::1]:7".parse().unwrap());
    }
}
