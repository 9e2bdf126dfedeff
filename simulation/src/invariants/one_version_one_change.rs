//! I4. **One version, one change; one key, one version.** No version of an object names two publishes, and a repeated publish
//! under its idempotency key is answered with the same version, while the shard has lost nothing
//! and no wall clock jumped (by which a window that outlives a process is counted).

use super::Invariant;
use crate::oracle::{Fact, History};
use std::collections::BTreeMap;
use tidings_protocol::Version;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OneVersionOneChange {
    /// By publish: the version it was acknowledged with first.
    keys: BTreeMap<usize, Version>,
}

impl Invariant for OneVersionOneChange {
    fn name(&self) -> &'static str {
        "I4"
    }

    fn see(&mut self, history: &History, _now: u64, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Applied(publish, _, _, version, _) => {
                let object = history.publishes[*publish].object;
                let other = history.objects[object].applied.get(version)?;
                Some(format!(
                    "{version} of object-{object} names p{} and p{publish}",
                    other.publish
                ))
            }
            Fact::Acked(ack) if !ack.duplicate && ack.given_to != ack.publish => Some(format!(
                "p{} is acknowledged with {}, which is p{}",
                ack.publish, ack.version, ack.given_to
            )),
            Fact::Acked(ack) if history.publishes[ack.publish].key.is_some() => {
                let first = *self.keys.entry(ack.publish).or_insert(ack.version);
                let lost = history.lost_above(ack.object, first).is_some();
                let revised = history.publishes[ack.publish].revision.is_some();
                (first != ack.version && !lost && !revised && !history.clocks_lied).then(|| {
                    format!(
                        "the key of p{} is answered with {first} and with {}",
                        ack.publish, ack.version
                    )
                })
            }
            _ => None,
        }
    }
}
