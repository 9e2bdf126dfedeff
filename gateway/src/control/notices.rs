//! What the operator was told lately, so that the same is not said again each second.

use crate::clock;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tidings_router::MonoUs;

/// The same is said again after so long.
const AGAIN_US: u64 = 60_000_000;
/// So many different notices are told apart; beyond that they are only counted.
const MOST: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<BTreeMap<String, MonoUs>>);

impl Notices {
    /// Whether this was not said within the last minute; from now on it was.
    pub(super) fn is_news(&self, text: &str) -> bool {
        let now_us = clock::mono_us();
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, at_us| now_us < *at_us + AGAIN_US);
        if said.contains_key(text) || said.len() >= MOST {
            return false;
        }
        said.insert(text.to_owned(), now_us);
        true
    }
}
