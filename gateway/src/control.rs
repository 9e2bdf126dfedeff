//! The shell of the control plane: who is there, what was agreed, and what this node may do because of it.
//!
//! It runs on a thread of its own: gossip, the replicated log, the coordinator where this node leads, the lease where it owns
//! shards. What comes of it is one watched [`View`]; whoever acts on it acts on a map and a permission that belong
//! together. It does not know owners, lanes or publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidings_protocol::{NodeId, Version};
use tidings_router::MonoUs;
use tidings_router::control::map::{Map, Process};
use tokio::sync::watch;

/// Another node as it is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its present life.
    pub process: Process,
    /// Where other nodes reach it.
    pub address: SocketAddr,
    /// Where clients reach it: the base of a URL; empty if nowhere.
    pub client_url: String,
    /// Whether gossip holds it alive.
    pub alive: bool,
}

/// What a node knows at one moment: a map, and what it may do under that map.
#[derive(Clone, Debug)]
pub struct View {
    /// This life of this node.
    pub me: Process,
    /// What was agreed, as far as it was applied here.
    pub map: Arc<Map>,
    /// Until when versions may be given and closed here, on the clock of [`crate::clock::now`]; zero before the first grant.
    pub until_us: MonoUs,
    /// No version above may be given or closed here.
    pub ceiling: Version,
    /// A quorum confirmed, in this life of the node, a map at most as new as `map`: before, shards must not be taken (the
    /// map may be of the time before a crash).
    pub confirmed: bool,
    /// The other nodes.
    pub peers: Arc<BTreeMap<NodeId, Peer>>,
    /// Who leads the log, as far as known.
    pub leader: Option<NodeId>,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
}

/// The way to the control plane from any thread.
#[derive(Clone, Debug)]
pub struct Handle {
    view: watch::Receiver<Arc<View>>,
    highest: Arc<AtomicU64>,
}

impl Handle {
    /// What is known now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// To be told when it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// One that shows whatever views a test sends.
    #[cfg(test)]
    pub(crate) fn for_tests(view: watch::Receiver<Arc<View>>) -> Self {
        Self {
            view,
            highest: Arc::default(),
        }
    }

    /// A version was given or closed here: the ceiling has to stay above it.
    pub fn saw(&self, version: Version) {
        self.highest.fetch_max(version.0, Ordering::Relaxed);
    }
}
