//! I13 and P7. **No gap at subscribe, and reading what was published.** `subscribed` carries a version at least as new as
//! what was acknowledged before it was asked, and at least what was asked for, unless that was lost and is below a floor.
//! (What is published from then on is I1's.)

use super::Invariant;
use crate::oracle::{Fact, History};
use tidings_protocol::Version;

/// See the module.
#[derive(Debug)]
pub(super) struct SubscribeGap;

impl Invariant for SubscribeGap {
    fn name(&self) -> &'static str {
        "I13"
    }

    fn see(&mut self, history: &History, _now: u64, fact: &Fact<'_>) -> Option<String> {
        let Fact::Subscribed(answer) = fact else { return None };
        let wanted = Version(answer.at_least.unwrap_or_default());
        let excused = |version| history.lost_above(answer.object, version).is_some();
        if answer.version < wanted && !excused(wanted) {
            return Some(format!(
                "c{} asked for object-{} at least at {wanted} and is answered {}",
                answer.client, answer.object, answer.version
            ));
        }
        None
    }
}
