//! I9 and I26 of copies. **Every copy has everything.** When all is quiet each process that the map names in sync holds a whole
//! copy: of each object the highest version that was acknowledged, or a floor above it.

use super::Invariant;
use crate::oracle::History;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub(super) struct CopiesLevel;

impl Invariant for CopiesLevel {
    fn name(&self) -> &'static str {
        "I9"
    }

    fn look(&mut self, history: &History, world: &World) -> Option<String> {
        if !world.is_settled() {
            return None;
        }
        let map = world.agreement.map();
        for (number, object) in history.objects.iter().enumerate() {
            let Some(acked) = object.newest_acked else { continue };
            for copy in &map.shard(object.shard)?.in_sync {
                let node = copy.node.0 as usize;
                let process = world.nodes[node].process.as_ref()?;
                let shell = &process.owners[usize::from(object.shard.0) % world.plan.threads];
                let (version, floor) = shell.knows(object.hash, object.shard);
                let whole = shell.receiver.is_complete(object.shard);
                if whole != Some(true) || (version < acked && floor <= acked) {
                    return Some(format!(
                        "n{node}'s copy of object-{number} is {version} with floor {floor} (whole: {whole:?}), but {acked} was \
                         acknowledged"
                    ));
                }
            }
        }
        None
    }
}
