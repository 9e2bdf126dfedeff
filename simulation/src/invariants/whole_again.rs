//! I26. **Whole again.** After faults have stopped and time has passed, with nobody's help: each shard has one owner, which
//! is the one that everybody knows, and as many copies as it should have; every edge is linked with every owner; every client is connected and waits for nothing.

use super::Invariant;
use crate::node::LinkState;
use crate::oracle::History;
use crate::world::World;

/// For how long a client may be on its way.
const PATIENCE_US: u64 = 3_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct WholeAgain;

fn part_missing(world: &World) -> Option<String> {
    if let Some(what) = world.not_level() {
        return Some(what);
    }
    for (number, node) in world.nodes.iter().enumerate() {
        let Some(process) = &node.process else { continue };
        for lane in &process.lanes {
            let is_down = |(owner, link): (usize, &LinkState)| {
                let there = !world.gone[world.plan.node_of(owner)];
                (there && !matches!(link, LinkState::Up { .. })).then_some(owner)
            };
            if let Some(owner) = lane.links.iter().enumerate().find_map(is_down) {
                return Some(format!(
                    "a lane of n{number} has no link to o{owner}: {:?}",
                    lane.links[owner]
                ));
            }
        }
    }
    // A session that gave place to others is opened again at once.
    let since = |client: &crate::clients::Client| world.now - client.changed_at;
    let waits = |client: &&crate::clients::Client| !client.rogue && !client.is_settled() && since(client) > PATIENCE_US;
    let waiting = world.clients.iter().find(waits);
    waiting.map(|client| {
        format!(
            "c{} is not connected, or waits for an answer: {:?}",
            client.number, client.side
        )
    })
}

impl Invariant for WholeAgain {
    fn name(&self) -> &'static str {
        "I26"
    }

    fn look(&mut self, _history: &History, world: &World) -> Option<String> {
        if world.is_settled() { part_missing(world) } else { None }
    }
}
