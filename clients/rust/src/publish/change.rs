//! What is published.

use crate::wire::ChangeRequest;
use serde::Serialize;
use serde_json::value::RawValue;
use tidings_protocol::id::check_object_id;
use tidings_protocol::limits::{MAX_DATA_BYTES, MAX_KIND_BYTES, REVISION_LIMIT};

/// When a change counts as published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ack {
    /// The owner has it, and what it writes survives its process.
    Accepted,
    /// So have all in-sync copies.
    #[default]
    Replicated,
    /// Synced to disk everywhere.
    Durable,
}

impl Ack {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Replicated => "replicated",
            Self::Durable => "durable",
        }
    }
}

/// A change to be published.
#[derive(Clone, Debug)]
pub struct NewChange {
    pub(crate) object: String,
    pub(crate) kind: Option<String>,
    pub(crate) data: Option<Result<Box<RawValue>, String>>,
    pub(crate) revision: Option<u64>,
}

impl NewChange {
    /// "This object changed."
    #[must_use]
    pub fn new(object: impl Into<String>) -> Self {
        Self {
            object: object.into(),
            kind: None,
            data: None,
            revision: None,
        }
    }

    /// A tag of at most 32 bytes: a hint that subscribers may miss.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// What becomes at most 64 KiB of JSON: a hint that subscribers may miss.
    #[must_use]
    pub fn data(mut self, data: impl IntoData) -> Self {
        self.data = Some(data.into_data());
        self
    }

    /// The number that the source gave this state of the object, below 2^53: an older or repeated one changes nothing.
    #[must_use]
    pub fn revision(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }

    /// What the server would refuse anyway.
    pub(crate) fn check(&self) -> Result<ChangeRequest<'_>, String> {
        check_object_id(&self.object).map_err(|error| error.to_string())?;
        if self.kind.as_ref().is_some_and(|kind| kind.len() > MAX_KIND_BYTES) {
            return Err(format!("a kind has at most {MAX_KIND_BYTES} bytes"));
        }
        if self.revision.is_some_and(|revision| revision >= REVISION_LIMIT) {
            return Err(format!("a revision is below {REVISION_LIMIT}"));
        }
        let data = match &self.data {
            None => None,
            Some(Err(why)) => return Err(format!("the data does not become JSON: {why}")),
            Some(Ok(data)) if data.get().len() > MAX_DATA_BYTES => {
                return Err(format!("data has at most {MAX_DATA_BYTES} bytes of JSON"));
            }
            Some(Ok(data)) => Some(&**data),
        };
        Ok(ChangeRequest {
            object: &self.object,
            kind: self.kind.as_deref(),
            data,
            revision: self.revision,
        })
    }
}

impl From<&str> for NewChange {
    fn from(object: &str) -> Self {
        Self::new(object)
    }
}

impl From<String> for NewChange {
    fn from(object: String) -> Self {
        Self::new(object)
    }
}

/// What can become the data of a change: everything that serde can write as JSON.
pub trait IntoData {
    /// One JSON value, or why there is none.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    fn into_data(self) -> Result<Box<RawValue>, String>;
}

impl<T: Serialize> IntoData for T {
    fn into_data(self) -> Result<Box<RawValue>, String> {
        serde_json::value::to_raw_value(&self).map_err(|error| error.to_string())
    }
}
