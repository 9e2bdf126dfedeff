//! What a backend wants done with the connections and sessions of one of its subjects, and what was done.

use crate::id::check_object_id;
use crate::mesh::MAX_ENTRIES;
use serde::{Deserialize, Serialize};

/// The longest name of a subject or issuer, in bytes.
pub const MAX_NAME_BYTES: usize = 1_024;

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectOrder {
    /// Who vouches for the subject. `None`: whoever does.
    pub issuer: Option<String>,
    /// Whose connections and sessions are meant.
    pub subject: String,
    /// What is to be done with each.
    pub deed: Deed,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    /// They watch these as well, as far as it is granted to them.
    #[serde(rename = "s")]
    Subscribe(Vec<Box<str>>),
    /// They watch these no more.
    #[serde(rename = "u")]
    Unsubscribe(Vec<Box<str>>),
    /// They end.
    #[serde(rename = "d")]
    Disconnect {
        /// Their clients are asked to come back.
        come_back: bool,
    },
}

/// What one node did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectTally {
    /// WebSockets and event streams that it was done with.
    pub connections: u64,
    /// Sessions of long-polls that it was done with.
    pub sessions: u64,
    /// Objects that they were subscribed to, or that were taken from them, counted for each.
    pub objects: u64,
    /// Objects that are not granted to them, counted likewise. They do not watch these.
    pub refused: u64,
    /// Connections that were busy with requests of their own for too long. Nothing was done with them.
    pub busy: u64,
}

impl SubjectOrder {
    /// What is wrong with it, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        let name = |name: &str| !name.is_empty() && name.len() <= MAX_NAME_BYTES;
        if !name(&self.subject) {
            return Some("name of a subject");
        }
        if self.issuer.as_ref().is_some_and(|issuer| issuer.len() > MAX_NAME_BYTES) {
            return Some("name of an issuer");
        }
        match &self.deed {
            Deed::Disconnect { .. } => None,
            Deed::Subscribe(objects) | Deed::Unsubscribe(objects) => {
                if objects.is_empty() || objects.len() > MAX_ENTRIES {
                    return Some("number of entries");
                }
                let all = objects.iter().all(|object| check_object_id(object).is_ok());
                (!all).then_some("object ID")
            }
        }
    }
}

impl SubjectTally {
    /// Adds what was done elsewhere.
    pub fn add(&mut self, other: Self) {
        let Self {
            connections,
            sessions,
            objects,
            refused,
            busy,
        } = other;
        for (mine, theirs) in [
            (&mut self.connections, connections),
            (&mut self.sessions, sessions),
            (&mut self.objects, objects),
            (&mut self.refused, refused),
            (&mut self.busy, busy),
        ] {
            *mine = mine.saturating_add(theirs);
        }
    }
}
