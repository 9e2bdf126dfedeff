//! Credentials that were found good lately, so that a publisher's or poller's next request does not verify a signature again.
//!
//! Keyed by the hash of all of the credential, never by a part of it. Whether it still counts (time, revocation) is looked
//! at on each use; a policy that is read again empties it.

use std::collections::HashMap;
use std::sync::Arc;
use tidings_router::access::Identity;

/// How many are remembered. Beyond it those of an older half are forgotten.
pub(super) const MOST: usize = 8_192;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Cache {
    new: HashMap<[u8; 32], Arc<Identity>>,
    old: HashMap<[u8; 32], Arc<Identity>>,
}

impl Cache {
    pub(super) fn get(&mut self, hash: &[u8; 32]) -> Option<Arc<Identity>> {
        if let Some(identity) = self.new.get(hash) {
            return Some(Arc::clone(identity));
        }
        let identity = self.old.remove(hash)?;
        self.put(*hash, Arc::clone(&identity));
        Some(identity)
    }

    pub(super) fn put(&mut self, hash: [u8; 32], identity: Arc<Identity>) {
        if self.new.len() >= MOST / 2 {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(hash, identity);
    }

    pub(super) fn clear(&mut self) {
        self.new.clear();
        self.old.clear();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.new.len() + self.old.len()
    }
}
