//! I24, first half. **A minority acknowledges nothing new.** A node whose lease is over gives no version: a version that is
//! given in an epoch is given before the next epoch gives its first one, or by a process that could not know better and
//! whose acknowledgement is fenced (I7). Looked at from inside: no two processes serve a shard in the same epoch.

use super::Invariant;
use crate::oracle::History;
use crate::world::World;
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug)]
pub(super) struct Minority;

impl Invariant for Minority {
    fn name(&self) -> &'static str {
        "I24"
    }

    fn look(&mut self, _history: &History, world: &World) -> Option<String> {
        let mut serving = BTreeMap::new();
        for (node, process) in world
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(n, node)| Some((n, node.process.as_ref()?)))
        {
            for (shard, epoch) in &process.serves {
                if let Some(other) = serving.insert((*shard, *epoch), node) {
                    return Some(format!(
                        "n{other} and n{node} both serve shard {shard} in epoch {epoch}"
                    ));
                }
            }
        }
        None
    }
}
