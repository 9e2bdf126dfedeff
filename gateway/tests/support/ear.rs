//! Hearing, whatever the transport: each thing heard is a map with one name, as on the WebSocket.

use super::PATIENCE;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Instant;
use tidings_protocol::{Cursor, Version};

/// Gives up in time, however much else is told meanwhile.
struct Watch(Instant);

impl Watch {
    fn new() -> Self {
        Self(Instant::now())
    }

    #[track_caller]
    fn look(&self, wanted: &dyn Debug, heard: &dyn Debug) {
        assert!(
            self.0.elapsed() < PATIENCE,
            "{wanted:?} was not told within {PATIENCE:?}; heard: {heard:?}"
        );
    }
}

/// A client that is told things.
pub(crate) trait Ear {
    /// The next thing told; `None` once the server has ended the connection or stream.
    fn next(&mut self) -> Option<Value>;

    /// The next thing told, which must come.
    #[track_caller]
    fn hear(&mut self) -> Value {
        self.next()
            .expect("the server ended the connection instead of telling more")
    }

    /// Passes over everything before the next thing of this name, and gives what it says.
    #[track_caller]
    fn hear_of(&mut self, name: &str) -> Value {
        let watch = Watch::new();
        loop {
            let mut told = self.hear();
            watch.look(&name, &told);
            if let Some(said) = told.get_mut(name) {
                return said.take();
            }
        }
    }

    /// Everything told until a cursor vouches for all changes up to this version.
    #[track_caller]
    fn up_to(&mut self, version: u64) -> Heard {
        let (mut heard, watch) = (Heard::default(), Watch::new());
        while !covers(&heard.cursor, version) {
            let told = self.hear();
            watch.look(&version, &heard);
            heard.add(&told);
        }
        heard
    }

    /// Everything told until these objects have been told of with at least these versions.
    #[track_caller]
    fn until_told(&mut self, wanted: &[(&str, u64)]) -> Heard {
        let (mut heard, watch) = (Heard::default(), Watch::new());
        while !wanted
            .iter()
            .all(|(object, version)| heard.newest.get(*object).is_some_and(|known| known >= version))
        {
            let told = self.hear();
            watch.look(&wanted, &heard);
            heard.add(&told);
        }
        heard
    }
}

/// Whether a cursor vouches for all changes up to a version.
pub(crate) fn covers(cursor: &str, version: u64) -> bool {
    // Behind a dot stands the proof of a ticket's stream.
    let cursor = cursor.split('.').next().unwrap_or_default();
    Cursor::decode(cursor).is_ok_and(|cursor| cursor.lagging.is_empty() && cursor.base >= Version(version))
}

/// What was told, in order.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// The changes, each a map with `object` and `version`.
    pub(crate) changes: Vec<Value>,
    /// The newest version of each object that was told of.
    pub(crate) newest: BTreeMap<String, u64>,
    pub(crate) resyncs: Vec<Value>,
    pub(crate) refused: Vec<Value>,
    /// The last cursor.
    pub(crate) cursor: String,
    /// Everything else.
    pub(crate) others: Vec<Value>,
}

impl Heard {
    /// Adds one thing told. Versions of one object must never go back.
    #[track_caller]
    pub(crate) fn add(&mut self, told: &Value) {
        let map = told.as_object().expect("a map");
        for (name, said) in map {
            match name.as_str() {
                "changes" => said
                    .as_array()
                    .expect("a list of changes")
                    .iter()
                    .for_each(|change| self.change(change)),
                "resync" if !said.is_null() => self.resyncs.push(said.clone()),
                "refused" => self
                    .refused
                    .extend(said.as_array().expect("a list of refused objects").clone()),
                "cursor" => said.as_str().expect("a cursor is text").clone_into(&mut self.cursor),
                "resync" | "comment" => {}
                _ => self.others.push(told.clone()),
            }
        }
    }

    #[track_caller]
    fn change(&mut self, change: &Value) {
        let object = change["object"].as_str().expect("an object").to_owned();
        let version = change["version"].as_u64().expect("a version");
        let before = self.newest.insert(object, version);
        assert!(
            before.is_none_or(|before| before < version),
            "told twice or backwards after {before:?}: {change}"
        );
        self.changes.push(change.clone());
    }

    /// These objects were told of, each last with this version, no other, and nothing had to be fetched.
    #[track_caller]
    pub(crate) fn is_exactly<O: AsRef<str>>(&self, expected: &[(O, u64)]) {
        let expected: BTreeMap<String, u64> = expected
            .iter()
            .map(|(object, version)| (object.as_ref().to_owned(), *version))
            .collect();
        assert_eq!(self.newest, expected, "{self:?}");
        assert!(self.resyncs.is_empty(), "{self:?}");
        assert!(self.refused.is_empty(), "{self:?}");
    }

    /// The change told last.
    #[track_caller]
    pub(crate) fn last(&self) -> &Value {
        self.changes.last().expect("a change")
    }
}
