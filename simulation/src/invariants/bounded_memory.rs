//! I21. **Bounded memory.** A lane keeps at most one mark a subscription; a link at most one change an interest; the tables
//! stay near their budget; and when everybody has left, nothing is left.

use super::Invariant;
use crate::oracle::History;
use crate::world::World;

/// What tables may hold beyond their budget: what one page of changes adds before a sweep has gone round, and the least
/// that a shard in use takes.
const SLACK_BYTES: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct BoundedMemory;

impl Invariant for BoundedMemory {
    fn name(&self) -> &'static str {
        "I21"
    }

    fn look(&mut self, _history: &History, world: &World) -> Option<String> {
        let processes = || {
            world
                .nodes
                .iter()
                .enumerate()
                .filter_map(|(n, node)| Some((n, node.process.as_ref()?)))
        };
        for (node, process) in processes() {
            for lane in &process.lanes {
                let stats = lane.machine.stats();
                if stats.pending > stats.subscriptions || stats.subscriptions > world.plan.lane.subscriptions {
                    return Some(format!(
                        "a lane of n{node} has more marks than subscriptions, or too many: {stats:?}"
                    ));
                }
                let left = stats.objects + stats.subscriptions + stats.pending + stats.hint_bytes + stats.lingering;
                if world.everybody_left && left + lane.machine.subscribers() > 0 {
                    return Some(format!("everybody left n{node}, and something stayed: {stats:?}"));
                }
            }
        }
        for (node, process) in processes() {
            for owner in &process.owners {
                let stats = owner.machine.stats();
                if stats.pending > stats.interests || stats.bytes > world.plan.owner.version_table_bytes + SLACK_BYTES {
                    return Some(format!("an owner of n{node} keeps too much: {stats:?}"));
                }
                if world.everybody_left && stats.interests + stats.pending > 0 {
                    return Some(format!(
                        "everybody left, and an owner of n{node} still has interests: {stats:?}"
                    ));
                }
            }
        }
        None
    }
}
