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

use std::time::Duration;
use tidings_protocol::mesh::{Class, Hello, VERSIONS};
use tidings_protocol::{ClusterId, NodeId};

/// The secret that all nodes of a cluster share, and nobody else knows.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; 32]);

impl ClusterKey {
    /// A key of 256 bits from a secure source.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(secret)
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
    /// What proves that it belongs.
    pub key: ClusterKey,
    /// The oldest and newest version of the wire it speaks.
    pub versions: (u16, u16),
}

impl Identity {
    /// One that speaks all versions known here.
    #[must_use]
    pub fn new(cluster: ClusterId, node: NodeId, incarnation: u64, key: ClusterKey) -> Self {
        Self {
            cluster,
            node,
            incarnation,
            key,
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
