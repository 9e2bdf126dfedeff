//! What followers acknowledged to this node while it leads: pure bookkeeping, by which one is found out whose log went back.
//!
//! In one term of office a follower never loses what it acknowledged: it acknowledges what is on its disk. If it says
//! otherwise, its disk is not the one that it had. Counting it for what it no longer has, or sending it the rest, would be
//! wrong; so it is not spoken to any more. It does not know what is sent.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tidings_protocol::NodeId;
use tokio::sync::watch;

/// What one follower acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Acknowledged {
    /// In this term of office.
    term: u64,
    /// So many entries.
    entries: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Promises {
    acknowledged: Mutex<BTreeMap<u64, Acknowledged>>,
    went_back: watch::Sender<BTreeMap<NodeId, u64>>,
}

impl Promises {
    pub(crate) fn new() -> Self {
        Self {
            acknowledged: Mutex::default(),
            went_back: watch::Sender::new(BTreeMap::new()),
        }
    }

    /// Followers whose logs went back, with how many entries each had acknowledged.
    pub(crate) fn went_back(&self) -> watch::Receiver<BTreeMap<NodeId, u64>> {
        self.went_back.subscribe()
    }

    /// How many entries the follower has acknowledged in this term.
    pub(crate) fn before(&self, follower: u64, term: u64) -> u64 {
        let known = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(&follower).filter(|known| known.term == term);
        known.map_or(0, |known| known.entries)
    }

    /// The follower has so many entries.
    pub(crate) fn acknowledged(&self, follower: u64, term: u64, entries: u64) {
        {
            let mut known = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
            let known = known.entry(follower).or_insert(Acknowledged { term, entries });
            if (known.term, known.entries) < (term, entries) {
                *known = Acknowledged { term, entries };
            }
        }
        let node = NodeId(follower);
        self.went_back.send_if_modified(|went_back| {
            // Its disk is the one that it had, after all.
            let fits = went_back.get(&node).is_some_and(|had| entries >= *had);
            fits && went_back.remove(&node).is_some()
        });
    }

    /// The follower does not have the entry that is the `wanted`th. `before`: what it had acknowledged in this term when it was
    /// asked. Whether its log went back.
    pub(crate) fn conflict(&self, follower: u64, wanted: u64, before: u64) -> bool {
        let is = wanted <= before;
        if is {
            self.went_back
                .send_if_modified(|went_back| went_back.insert(NodeId(follower), before) != Some(before));
        }
        is
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_that_lacks_what_it_acknowledged_in_this_term_went_back() {
        let promises = Promises::new();
        promises.acknowledged(2, 5, 10);
        promises.acknowledged(2, 5, 8);
        assert_eq!(
            (promises.before(2, 5), promises.before(2, 6), promises.before(3, 5)),
            (10, 0, 0)
        );
        assert!(!promises.conflict(2, 11, 10), "it never said that it had the eleventh");
        assert!(promises.went_back().borrow().is_empty());
        assert!(promises.conflict(2, 10, 10));
        assert_eq!(*promises.went_back().borrow(), [(NodeId(2), 10)].into());
        promises.acknowledged(2, 5, 9);
        assert_eq!(promises.went_back().borrow().len(), 1);
        promises.acknowledged(2, 6, 10);
        assert!(
            promises.went_back().borrow().is_empty(),
            "the disk that it had is there again"
        );
    }

    #[test]
    fn another_term_begins_anew() {
        let promises = Promises::new();
        promises.acknowledged(2, 5, 10);
        promises.acknowledged(2, 6, 3);
        assert_eq!((promises.before(2, 5), promises.before(2, 6)), (0, 3));
        promises.acknowledged(2, 5, 20);
        assert_eq!(
            promises.before(2, 6),
            3,
            "a late word of an earlier term counts no more"
        );
    }
}
