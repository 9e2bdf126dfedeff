//! I9 and I10. **An acknowledgement survives or is confessed.** When all is quiet the owner knows the highest version that
//! was acknowledged of each object, or its floor is above it.

use super::Invariant;
use crate::oracle::History;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub(super) struct AckSurvives;

impl Invariant for AckSurvives {
    fn name(&self) -> &'static str {
        "I9"
    }

    fn look(&mut self, history: &History, world: &World) -> Option<String> {
        if !world.is_settled() {
            return None;
        }
        for (number, object) in history.objects.iter().enumerate() {
            let Some(acked) = object.newest_acked else { continue };
            let owner = world.agreement.map().shard(object.shard)?.owner?;
            let process = world.nodes[owner.node.0 as usize].process.as_ref()?;
            let machine = &process.owners[usize::from(object.shard.0) % world.plan.threads].machine;
            let (version, floor) = (
                machine.version(object.hash),
                machine.floor(object.shard).unwrap_or_default(),
            );
            if version < acked && floor <= acked {
                return Some(format!(
                    "object-{number} is {version} with floor {floor}, but {acked} was acknowledged"
                ));
            }
        }
        None
    }
}
