//! I5. **No phantoms.** Whatever a client is told of was published with exactly that version, called before, and carries
//! the data of that very publish or none.

use super::Invariant;
use crate::oracle::{Fact, History};

/// See the module.
#[derive(Debug)]
pub(super) struct NoPhantoms;

impl Invariant for NoPhantoms {
    fn name(&self) -> &'static str {
        "I5"
    }

    fn see(&mut self, history: &History, _now: u64, fact: &Fact<'_>) -> Option<String> {
        let Fact::Told(told) = fact else { return None };
        let Some(applied) = history.objects[told.object].applied.get(&told.version) else {
            return Some(format!(
                "c{} hears of object-{}@{}, which never happened",
                told.client, told.object, told.version
            ));
        };
        let data = told.data.filter(|data| *data != applied.publish as u64)?;
        Some(format!(
            "c{} hears of object-{}@{}, which is p{}, with the data of p{data}",
            told.client, told.object, told.version, applied.publish
        ))
    }
}
