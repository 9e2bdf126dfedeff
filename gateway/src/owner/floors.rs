//! Tells the cluster of floors that rose here, one after the other and never in a hurry: until it knows, this process vouches
//! for them, and so does its disk.

use crate::control;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tidings_router::control::command::Command;

/// The pause after each round. Evictions raise floors all the time, and each one told is an entry of the cluster's log.
const PAUSE: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Floors {
    telling: Rc<Cell<bool>>,
}

impl Floors {
    /// Proposes these, unless an earlier round is not over. Whoever calls again later has what was left out.
    pub(super) fn tell(&self, control: &control::Handle, floors: Vec<Command>) {
        if floors.is_empty() || self.telling.replace(true) {
            return;
        }
        let (control, telling) = (control.clone(), Rc::clone(&self.telling));
        tokio::task::spawn_local(async move {
            for floor in floors {
                if let Err(error) = control.propose(floor).await {
                    tracing::debug!(%error, "the cluster does not know of a floor yet; told again later");
                }
            }
            tokio::time::sleep(PAUSE).await;
            telling.set(false);
        });
    }
}
