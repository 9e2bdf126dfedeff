//! I3. **Real-time order.** If one publish of an object was acknowledged before another one of it was called, its version is
//! the lower one.

use super::Invariant;
use crate::oracle::{Fact, History};
use std::collections::BTreeMap;
use tidings_protocol::Version;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RealTimeOrder {
    /// By object: when an acknowledgement with a higher version came, and which.
    acked: BTreeMap<usize, Vec<(u64, Version)>>,
}

impl Invariant for RealTimeOrder {
    fn name(&self) -> &'static str {
        "I3"
    }

    fn see(&mut self, _history: &History, now: u64, fact: &Fact<'_>) -> Option<String> {
        let Fact::Acked(ack) = fact else { return None };
        let acked = self.acked.entry(ack.object).or_default();
        let before = acked.partition_point(|(at, _)| *at < ack.first_called);
        let earlier = before.checked_sub(1).map(|last| acked[last].1);
        if acked.last().is_none_or(|(_, version)| *version < ack.version) {
            acked.push((now, ack.version));
        }
        let earlier = earlier.filter(|earlier| !ack.duplicate && *earlier >= ack.version)?;
        Some(format!(
            "p{} of object-{} is {}, though {earlier} was acknowledged before it was called",
            ack.publish, ack.object, ack.version
        ))
    }
}
