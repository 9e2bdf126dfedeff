//! Connections between nodes: TCP, authenticated and encrypted under the cluster's key, frames in order, heartbeats.
//!
//! [`handshake`] agrees on cluster and version and makes the keys, [`sealed`] turns frames into sealed records and back,
//! [`session`] runs one connection until it ends, [`dial`] keeps one up.
//!
//! What a frame means is not known here. Nothing is repeated or resumed: a connection that ends took what was under way
//! with it, and whoever cares compares states on the next one.

pub mod dial;
pub mod handshake;
pub mod sealed;
pub mod session;
#[cfg(test)]
mod tests;

use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver as _, DefaultResolver};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tidings_protocol::mesh::{Class, Hello, VERSIONS};
use tidings_protocol::{ClusterId, NodeId};

/// What one generation of the cluster's secret gives a node for its connections. An edge has less of it than a node that may own
/// and vote, and nothing of what makes others believe that one speaks.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey {
    full: Option<Full>,
    /// Known to all nodes.
    edges: [u8; 32],
    /// Belongs to [`Full::private`].
    public: [u8; 32],
}

/// What edges do not have.
#[derive(Clone, PartialEq, Eq)]
struct Full {
    between: [u8; 32],
    private: [u8; 32],
}

impl ClusterKey {
    /// That of a node that may own and vote: the key between such nodes, the private key by which edges know them, and the key
    /// that edges have as well. Each of 256 bits, independent of the others. `None` if the library lacks Curve25519.
    #[must_use]
    pub fn full(between: [u8; 32], private: [u8; 32], edges: [u8; 32]) -> Option<Self> {
        let mut curve = DefaultResolver.resolve_dh(&DHChoice::Curve25519)?;
        curve.set(&private);
        Some(Self {
            public: curve.pubkey().try_into().ok()?,
            full: Some(Full { between, private }),
            edges,
        })
    }

    /// That of an edge: what it shares with all, and the public key of nodes that may own and vote.
    #[must_use]
    pub fn of_edge(edges: [u8; 32], public: [u8; 32]) -> Self {
        Self {
            full: None,
            edges,
            public,
        }
    }

    /// What an edge is given: see [`ClusterKey::of_edge`].
    #[must_use]
    pub fn for_edges(&self) -> ([u8; 32], [u8; 32]) {
        (self.edges, self.public)
    }

    /// Whether it is an edge's.
    #[must_use]
    pub fn is_of_edge(&self) -> bool {
        self.full.is_none()
    }

    /// One for tests: all of it follows from these bytes.
    #[cfg(test)]
    pub(crate) fn new(secret: [u8; 32]) -> Self {
        Self::full(secret, secret.map(|byte| byte ^ 0x55), secret.map(|byte| !byte)).expect("the library has the curve")
    }
}

/// The keys of a node, of one or two generations of the secret: connections are opened with the first, and accepted with both. All
/// clones change together.
#[derive(Clone, Debug)]
pub struct Keys(Arc<RwLock<(ClusterKey, Option<ClusterKey>)>>);

impl Keys {
    /// See there.
    #[must_use]
    pub fn new(first: ClusterKey, second: Option<ClusterKey>) -> Self {
        Self(Arc::new(RwLock::new((first, second))))
    }

    /// Others from now on. Connections that are open stay.
    pub fn turn(&self, first: ClusterKey, second: Option<ClusterKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = (first, second);
    }

    fn both(&self) -> (ClusterKey, Option<ClusterKey>) {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl From<ClusterKey> for Keys {
    fn from(only: ClusterKey) -> Self {
        Self::new(only, None)
    }
}

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterKey(secret)")
    }
}

/// Who this node is to others.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Of this cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub node: NodeId,
    /// Its present life.
    pub incarnation: u64,
    /// What proves that it belongs. An edge's key belongs to an edge's name, and no other.
    pub keys: Keys,
    /// The oldest and newest version of the wire it speaks.
    pub versions: (u16, u16),
}

impl Identity {
    /// One that speaks all versions known here.
    #[must_use]
    pub fn new(cluster: ClusterId, node: NodeId, incarnation: u64, keys: impl Into<Keys>) -> Self {
        Self {
            cluster,
            node,
            incarnation,
            keys: keys.into(),
            versions: VERSIONS,
        }
    }

    fn hello(&self, class: Class) -> Hello {
        Hello {
            cluster: self.cluster,
            node: self.node,
            incarnation: self.incarnation,
            oldest: self.versions.0,
            newest: self.versions.1,
            class,
        }
    }
}

/// Times and bounds of connections between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the connection to the last word of the handshake.
    pub handshake: Duration,
    /// A heartbeat is sent when nothing else was for so long.
    pub heartbeat: Duration,
    /// A connection on which nothing came for so long is cut. Some heartbeats.
    pub silence: Duration,
    /// Bytes that may wait to be sent. Beyond it the connection is cut: what it carries is compared anew on the next one.
    pub queue_bytes: usize,
    /// The first pause before dialling again, doubled each time.
    pub retry_first: Duration,
    /// The longest pause before dialling again.
    pub retry_longest: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            heartbeat: Duration::from_millis(500),
            silence: Duration::from_secs(2),
            queue_bytes: 64 * 1024 * 1024,
            retry_first: Duration::from_millis(50),
            retry_longest: Duration::from_secs(2),
        }
    }
}

/// The other end of a connection, as it proved itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub node: NodeId,
    /// Its present life.
    pub incarnation: u64,
    /// The version of the wire that both speak.
    pub version: u16,
    /// What the connection is for.
    pub class: Class,
}
