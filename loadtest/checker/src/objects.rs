//! Small numbers for objects: what the tables of a check are indexed by.
//!
//! It does not know what happened to an object, only its name and, once somebody was told, its shard.

use crate::history::Object;
use hashbrown::HashMap;

/// Numbered objects below this are found without hashing, at four bytes for each number up to the highest.
const DENSE: u64 = 1 << 25;
/// Not seen yet, in `dense`.
const NONE: u32 = u32::MAX;
/// The shard was never told, or differently.
const UNKNOWN: u16 = u16::MAX;

/// Every object of a history, numbered in the order in which they were met.
#[derive(Default)]
pub(crate) struct Objects {
    dense: Vec<u32>,
    sparse: HashMap<u64, u32>,
    texts: HashMap<String, u32>,
    shards: Vec<u16>,
}

impl Objects {
    /// The number of this object, a new one if it was not met before.
    pub(crate) fn number(&mut self, object: &Object<'_>) -> u32 {
        let next = self.shards.len() as u32;
        let found = match object {
            Object::Number(number) if *number < DENSE => {
                let at = *number as usize;
                if at >= self.dense.len() {
                    self.dense.resize((at + 1).next_power_of_two().max(1024), NONE);
                }
                if self.dense[at] == NONE {
                    self.dense[at] = next;
                }
                self.dense[at]
            }
            Object::Number(number) => *self.sparse.entry(*number).or_insert(next),
            Object::Text(text) => *self.texts.entry_ref(text.as_ref()).or_insert(next),
        };
        if found == next {
            self.shards.push(UNKNOWN);
        }
        found
    }

    /// How many were met.
    pub(crate) fn len(&self) -> usize {
        self.shards.len()
    }

    /// Somebody was told the object's shard.
    pub(crate) fn learn_shard(&mut self, object: u32, shard: u16) {
        self.shards[object as usize] = shard;
    }

    pub(crate) fn shard(&self, object: u32) -> Option<u16> {
        let shard = self.shards[object as usize];
        (shard != UNKNOWN).then_some(shard)
    }
}
