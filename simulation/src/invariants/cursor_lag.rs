//! I28. **Cursors keep up.** When all is quiet every client's cursor covers every change there is, each in its shard. Versions
//! may run ahead of the clocks where shards changed hands again and again; cursors follow with the clocks.

use super::Invariant;
use crate::clock::DAWN_US;
use crate::oracle::History;
use crate::world::World;

/// By as much the slowest clock may be behind the true time at the end of a run, and its owner's word on its way.
const BEHIND_US: u64 = 3_500_000;

/// See the module.
#[derive(Debug)]
pub(super) struct CursorLag;

impl Invariant for CursorLag {
    fn name(&self) -> &'static str {
        "I28"
    }

    fn look(&mut self, history: &History, world: &World) -> Option<String> {
        if !world.is_settled() {
            return None;
        }
        for client in world.clients.iter().filter(|client| !client.rogue) {
            let Some(cursor) = &history.clients[client.number].cursor else {
                return Some(format!("c{} has no cursor", client.number));
            };
            // An owner whose clock is behind closes in small steps, and holds back by as much as does not count as a lag.
            let slack_us = if history.clocks_lied { 2_000_000 } else { 0 };
            let lags = |object: &&crate::oracle::ObjectHistory| {
                object.newest_acked.is_some_and(|newest| {
                    let due = newest.0 + BEHIND_US < DAWN_US + world.now;
                    due && newest.0 > cursor.at(object.shard).0 + slack_us
                })
            };
            if let Some(object) = history.objects.iter().find(lags) {
                let (number, at) = (client.number, cursor.at(object.shard));
                return Some(format!(
                    "c{number}'s cursor stays at {at} below {} {:?}",
                    object.name, object.newest_acked
                ));
            }
        }
        None
    }
}
