//! I18. **Clocks may lie.** Whatever wall clocks show, no version is given or closed above the ceiling agreed on.

use super::Invariant;
use crate::oracle::{Fact, History};

/// See the module.
#[derive(Debug)]
pub(super) struct ClocksMayLie;

impl Invariant for ClocksMayLie {
    fn name(&self) -> &'static str {
        "I18"
    }

    fn see(&mut self, _history: &History, _now: u64, fact: &Fact<'_>) -> Option<String> {
        let (what, version, ceiling) = match fact {
            Fact::Applied(publish, _, _, version, ceiling) => (format!("p{publish} is"), *version, *ceiling),
            Fact::Closed(owner, _, version, ceiling) => (format!("o{owner} closes"), *version, *ceiling),
            _ => return None,
        };
        (version > ceiling).then(|| format!("{what} {version}, above the ceiling {ceiling}"))
    }
}
