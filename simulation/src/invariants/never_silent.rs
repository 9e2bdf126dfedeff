//! I1. **Never silent.** For each acknowledged publish and each client that holds its object from before the call to the
//! end: it was told that version or a newer one, or told at or after the call to fetch the object.

use super::Invariant;
use crate::oracle::{Fact, History};
use tidings_protocol::Version;

/// See the module.
#[derive(Debug)]
pub(super) struct NeverSilent;

impl Invariant for NeverSilent {
    fn name(&self) -> &'static str {
        "I1"
    }

    fn see(&mut self, history: &History, _now: u64, fact: &Fact<'_>) -> Option<String> {
        let Fact::Settled = fact else { return None };
        for (client, knowledge) in history.clients.iter().enumerate() {
            for object in knowledge.held.keys() {
                if let Some(missing) = history.missing(client, *object, Version(u64::MAX)) {
                    return Some(format!("c{client} was never told of object-{object}@{missing}"));
                }
            }
        }
        None
    }
}
