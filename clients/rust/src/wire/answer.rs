//! The bodies of HTTP answers.

use super::WireError;
use super::message::{Change, Failure, Refused, Resync, check, or_default};
use super::text::Text;
use serde::Deserialize;
use tidings_protocol::error::Applied;
use tidings_protocol::{Epoch, ShardId, Version};

/// The answer to a poll.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PollAnswer<'a> {
    /// What is newer than the poll's cursor.
    #[serde(borrow, deserialize_with = "or_default")]
    pub changes: Vec<Change<'a>>,
    /// What the server cannot vouch for.
    #[serde(borrow)]
    pub resync: Option<Resync<'a>>,
    /// Objects that will not be heard of.
    #[serde(borrow, deserialize_with = "or_default")]
    pub refused: Vec<Refused<'a>>,
    /// For the next poll.
    #[serde(borrow)]
    pub cursor: Option<Text<'a>>,
    /// Saves sending the list again.
    #[serde(borrow)]
    pub session: Option<Text<'a>>,
    /// The answer was cut: poll again at once.
    #[serde(deserialize_with = "or_default")]
    pub more: bool,
    /// Wait so long before the next poll, in milliseconds.
    pub poll_after_ms: Option<u64>,
}

impl<'a> PollAnswer<'a> {
    /// From a body in JSON.
    ///
    /// # Errors
    /// If it makes no sense.
    pub fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let answer: Self = serde_json::from_slice(body)?;
        check(answer.changes.iter().filter_map(|change| change.version))?;
        Ok(answer)
    }
}

/// The answer to the making of a session.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Session<'a> {
    /// Its name.
    #[serde(borrow)]
    pub session: Text<'a>,
    /// Objects that will not be heard of.
    #[serde(borrow, default)]
    pub refused: Vec<Refused<'a>>,
}

impl<'a> Session<'a> {
    /// From a body in JSON.
    ///
    /// # Errors
    /// If it makes no sense.
    pub fn read(body: &'a [u8]) -> Result<Self, WireError> {
        Ok(serde_json::from_slice(body)?)
    }
}

/// Why a request was refused, as RFC 9457 has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProblemDocument<'a> {
    /// A stable word; empty if the answer came from something that is no Tidings server.
    #[serde(borrow)]
    pub code: Text<'a>,
    /// What kind of failure, for people.
    #[serde(borrow)]
    pub title: Option<Text<'a>>,
    /// What was wrong, for people.
    #[serde(borrow)]
    pub detail: Option<Text<'a>>,
    /// The HTTP status, once more.
    pub status: Option<u16>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Of a publish: whether it may have happened nevertheless.
    pub applied: Option<Applied>,
}

impl<'a> ProblemDocument<'a> {
    /// From a body. One that is no problem document, e.g. a proxy's page, gives an empty one.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }
}

/// What became of one change that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Told {
    /// Its version; of a duplicate, the object's.
    pub version: Option<Version>,
    /// It was known already: nobody is told again.
    #[serde(default)]
    pub duplicate: bool,
    /// The object's shard, with `trace=1`.
    #[serde(default)]
    pub shard: Option<ShardId>,
    /// Of which owner, with `trace=1`.
    #[serde(default)]
    pub epoch: Option<Epoch>,
}

impl Told {
    /// From the answer to one change, in JSON.
    ///
    /// # Errors
    /// If it makes no sense. **The change was taken all the same.**
    pub fn read(body: &[u8]) -> Result<Self, WireError> {
        let told: Self = serde_json::from_slice(body)?;
        check(told.version.into_iter())?;
        Ok(told)
    }
}

/// What became of one change of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It was taken.
    Told(Told),
    /// It was refused.
    Refused {
        /// Why.
        error: Failure<'a>,
        /// Whether it may have happened nevertheless; `None`: the server does not say.
        applied: Option<Applied>,
    },
}

/// The answer to several changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Results<'a> {
    /// In the order of the changes.
    pub results: Vec<Outcome<'a>>,
}

impl<'a> Results<'a> {
    /// From a body in JSON.
    ///
    /// # Errors
    /// If it makes no sense. **The changes may have been taken all the same.**
    pub fn read(body: &'a [u8]) -> Result<Self, WireError> {
        #[derive(Deserialize)]
        struct All<'a> {
            #[serde(borrow)]
            results: Vec<One<'a>>,
        }
        #[derive(Deserialize)]
        struct One<'a> {
            version: Option<Version>,
            #[serde(default)]
            duplicate: bool,
            shard: Option<ShardId>,
            epoch: Option<Epoch>,
            #[serde(borrow)]
            error: Option<Refusal<'a>>,
        }
        let All { results } = serde_json::from_slice(body)?;
        check(results.iter().filter_map(|one: &One<'_>| one.version))?;
        let outcome = |one: One<'a>| match one.error {
            Some(refusal) => Outcome::Refused {
                applied: refusal.applied,
                error: refusal.failure(),
            },
            None => Outcome::Told(Told {
                version: one.version,
                duplicate: one.duplicate,
                shard: one.shard,
                epoch: one.epoch,
            }),
        };
        Ok(Self {
            results: results.into_iter().map(outcome).collect(),
        })
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Refusal<'a> {
    #[serde(borrow)]
    code: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
    retryable: bool,
    applied: Option<Applied>,
}

impl<'a> Refusal<'a> {
    fn failure(self) -> Failure<'a> {
        Failure {
            code: self.code,
            message: self.message,
            retryable: self.retryable,
        }
    }
}

/// The answer to a stream of lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Sum<'a> {
    /// Lines that were taken.
    pub accepted: u64,
    /// Lines that were refused.
    pub rejected: u64,
    /// Lines that were known already, among those taken.
    pub duplicates: u64,
    /// The first hundred refusals.
    #[serde(borrow)]
    pub errors: Vec<LineFailure<'a>>,
    /// The highest version.
    pub version: Option<Version>,
}

impl<'a> Sum<'a> {
    /// From a body in JSON.
    ///
    /// # Errors
    /// If it makes no sense. **The lines may have been taken all the same.**
    pub fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let sum: Self = serde_json::from_slice(body)?;
        check(sum.version.into_iter())?;
        Ok(sum)
    }
}

/// Why one line of a stream was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LineFailure<'a> {
    /// Which line, counted from 1.
    pub line: u64,
    /// A stable word.
    #[serde(borrow)]
    pub code: Text<'a>,
    /// For people.
    #[serde(borrow)]
    pub message: Text<'a>,
    /// Whether the same may succeed later.
    pub retryable: bool,
    /// Whether it may have happened nevertheless.
    pub applied: Option<Applied>,
}

/// The answer to `GET /v1/object`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ObjectState<'a> {
    /// Its ID.
    #[serde(borrow)]
    pub object: Text<'a>,
    /// Its newest version; `None`: none is known.
    pub version: Option<Version>,
    /// Its shard.
    #[serde(default)]
    pub shard: Option<ShardId>,
    /// Of which owner.
    #[serde(default)]
    pub epoch: Option<Epoch>,
    /// Below this version the owner cannot vouch for the shard.
    #[serde(default)]
    pub floor: Option<Version>,
    /// The owner's name.
    #[serde(borrow, default)]
    pub owner: Option<Text<'a>>,
    /// How many watch it there.
    #[serde(default)]
    pub subscribers: Option<u64>,
}

impl<'a> ObjectState<'a> {
    /// From a body in JSON.
    ///
    /// # Errors
    /// If it makes no sense.
    pub fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let state: Self = serde_json::from_slice(body)?;
        check(state.version.into_iter())?;
        Ok(state)
    }
}
