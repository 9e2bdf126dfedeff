//! What an outside observer saw: one event.
//!
//! It does not know files, nor what any event proves.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// An object as the history names it: a number where all IDs are one prefix and a number (the header names the prefix),
/// else its ID.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Object<'a> {
    /// `order:42` in a history whose prefix is `order:`.
    Number(u64),
    /// The ID itself.
    Text(Cow<'a, str>),
}

impl Object<'_> {
    /// The same without borrowing.
    #[must_use]
    pub fn into_owned(self) -> Object<'static> {
        match self {
            Self::Number(number) => Object::Number(number),
            Self::Text(text) => Object::Text(Cow::Owned(text.into_owned())),
        }
    }
}

impl From<u64> for Object<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl<'a> From<&'a str> for Object<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

/// Who gave the version: told with `?trace=1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The object's shard.
    pub shard: u16,
    /// The epoch of the shard's owner at that time.
    pub epoch: u64,
}

/// Which acknowledgement a publish asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The owner has it: a loss of the owner may lose it, so the rules of the check decide whether it counts as promised.
    Accepted,
    /// All in-sync copies have it.
    #[default]
    Replicated,
    /// All in-sync copies have it on disk.
    Durable,
}

/// One event and when it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event<'a> {
    /// Microseconds of the host's monotonic clock: [`crate::history::now_us`].
    #[serde(rename = "at")]
    pub at_us: u64,
    /// What was seen.
    #[serde(flatten, borrow)]
    pub what: What<'a>,
}

/// What was seen. `client` and `publisher` are unique in the whole run, over all files; `call` is unique per publisher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
pub enum What<'a> {
    /// A publish is about to be sent. One event for each change of a batch, each attempt with a `call` of its own.
    #[serde(rename = "pub.call")]
    PubCall {
        /// Who publishes.
        publisher: u32,
        /// Names this attempt; its outcome repeats it.
        call: u64,
        /// What changed.
        #[serde(borrow)]
        obj: Object<'a>,
        /// The idempotency key as a number (for a batch: of key and place in the batch); 0 for none. Attempts with one
        /// key are one publish.
        #[serde(default, skip_serializing_if = "is_zero")]
        key: u64,
        /// The publisher's own revision of the object.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<u64>,
        /// The acknowledgement asked for.
        #[serde(default, skip_serializing_if = "is_default")]
        level: Level,
    },
    /// The publish was acknowledged.
    #[serde(rename = "pub.ok")]
    PubOk {
        /// Who published.
        publisher: u32,
        /// Which attempt.
        call: u64,
        /// The version it was given.
        version: u64,
        /// The answer said `"duplicate":true`: the key or the revision was known already.
        #[serde(default, skip_serializing_if = "is_default")]
        duplicate: bool,
        /// Shard and epoch, with `?trace=1`.
        #[serde(flatten)]
        trace: Option<Trace>,
    },
    /// The publish was refused and surely not applied (`"applied":"no"`, or it was never sent).
    #[serde(rename = "pub.fail")]
    PubFail {
        /// Who published.
        publisher: u32,
        /// Which attempt.
        call: u64,
    },
    /// It may have been applied: time-out, broken connection, `"applied":"unknown"`. So counts a call without outcome.
    #[serde(rename = "pub.unknown")]
    PubUnknown {
        /// Who published.
        publisher: u32,
        /// Which attempt.
        call: u64,
    },
    /// A client asks for an object that it does not hold.
    #[serde(rename = "sub.call")]
    SubCall {
        /// Who asks.
        client: u32,
        /// For what.
        #[serde(borrow)]
        obj: Object<'a>,
    },
    /// The answer: from here on the client holds the object, through reconnects, until it unsubscribes.
    #[serde(rename = "sub.ok")]
    SubOk {
        /// Who asked.
        client: u32,
        /// For what.
        #[serde(borrow)]
        obj: Object<'a>,
        /// The version in the answer, 0 where it said `null`; `None` where the transport tells none.
        version: Option<u64>,
    },
    /// The subscription was refused: the client does not hold the object.
    #[serde(rename = "sub.fail")]
    SubFail {
        /// Who asked.
        client: u32,
        /// For what.
        #[serde(borrow)]
        obj: Object<'a>,
    },
    /// A client is about to unsubscribe: from here on nothing is promised for the object.
    #[serde(rename = "unsub.call")]
    UnsubCall {
        /// Who asks.
        client: u32,
        /// For what.
        #[serde(borrow)]
        obj: Object<'a>,
    },
    /// The answer: nothing more is told of the object.
    #[serde(rename = "unsub.ok")]
    UnsubOk {
        /// Who asked.
        client: u32,
        /// For what.
        #[serde(borrow)]
        obj: Object<'a>,
    },
    /// A client is about to connect or to come back. Without a cursor it starts anew: it holds nothing until `sub.ok`.
    #[serde(rename = "conn.open")]
    ConnOpen {
        /// Who.
        client: u32,
        /// Where: any name of the edge.
        #[serde(borrow)]
        edge: Cow<'a, str>,
        /// The cursor that it presents for all that it holds.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        cursor: Option<Cow<'a, str>>,
    },
    /// The connection ended, whoever ended it.
    #[serde(rename = "conn.close")]
    ConnClose {
        /// Whose.
        client: u32,
    },
    /// The catch-up that `conn.open` with a cursor asked for is complete. Its answer is `changed` and every `notify`
    /// since `conn.open`; write each change in one of the two.
    #[serde(rename = "resume.ok")]
    ResumeOk {
        /// Who came back.
        client: u32,
        /// What the answer named, if it was not written as `notify`.
        #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
        changed: Vec<(Object<'a>, u64)>,
    },
    /// The client was told to fetch objects again.
    #[serde(rename = "resync")]
    Resync {
        /// Who was told.
        client: u32,
        /// Which objects; `None` for all it holds.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        objects: Option<Vec<Object<'a>>>,
        /// The cause it named.
        #[serde(borrow)]
        cause: Cow<'a, str>,
    },
    /// A change arrived.
    #[serde(rename = "notify")]
    Notify {
        /// Who was told.
        client: u32,
        /// Of what.
        #[serde(borrow)]
        obj: Object<'a>,
        /// Its version.
        version: u64,
        /// Shard and epoch, with `?trace=1`.
        #[serde(flatten)]
        trace: Option<Trace>,
    },
    /// A cursor arrived (frame, `id` block or field of an answer), after all that was told before it.
    #[serde(rename = "cursor")]
    Cursor {
        /// Who was handed it.
        client: u32,
        /// Its text.
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
    /// The client was told whether the server is cut off from the owners of its objects.
    #[serde(rename = "stale")]
    Stale {
        /// Who was told.
        client: u32,
        /// Cut off, or whole again.
        stale: bool,
    },
    /// A fault begins.
    #[serde(rename = "nemesis.start")]
    NemesisStart {
        /// Its name; the part before the first space is its kind for coverage: `kill n2`.
        #[serde(borrow)]
        fault: Cow<'a, str>,
    },
    /// It is healed. The same name as at its start.
    #[serde(rename = "nemesis.stop")]
    NemesisStop {
        /// Its name.
        #[serde(borrow)]
        fault: Cow<'a, str>,
    },
    /// The version that the owner names for an object when all is quiet.
    #[serde(rename = "final")]
    Final {
        /// Which object.
        #[serde(borrow)]
        obj: Object<'a>,
        /// Its version; `None` where the owner knows none.
        version: Option<u64>,
    },
    /// For people: a seed, a phase.
    #[serde(rename = "note")]
    Note {
        /// What to know.
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Event<'_> {
    /// As one JSON line without its end.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Every key is a text and nothing here refuses to be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The same without borrowing.
    #[must_use]
    pub fn into_owned(self) -> Event<'static> {
        Event {
            at_us: self.at_us,
            what: self.what.into_owned(),
        }
    }
}

fn own(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

impl What<'_> {
    /// The same without borrowing.
    #[must_use]
    pub fn into_owned(self) -> What<'static> {
        match self {
            Self::PubCall {
                publisher,
                call,
                obj,
                key,
                revision,
                level,
            } => What::PubCall {
                publisher,
                call,
                obj: obj.into_owned(),
                key,
                revision,
                level,
            },
            Self::PubOk {
                publisher,
                call,
                version,
                duplicate,
                trace,
            } => What::PubOk {
                publisher,
                call,
                version,
                duplicate,
                trace,
            },
            Self::PubFail { publisher, call } => What::PubFail { publisher, call },
            Self::PubUnknown { publisher, call } => What::PubUnknown { publisher, call },
            Self::SubCall { client, obj } => What::SubCall {
                client,
                obj: obj.into_owned(),
            },
            Self::SubOk { client, obj, version } => What::SubOk {
                client,
                obj: obj.into_owned(),
                version,
            },
            Self::SubFail { client, obj } => What::SubFail {
                client,
                obj: obj.into_owned(),
            },
            Self::UnsubCall { client, obj } => What::UnsubCall {
                client,
                obj: obj.into_owned(),
            },
            Self::UnsubOk { client, obj } => What::UnsubOk {
                client,
                obj: obj.into_owned(),
            },
            Self::ConnOpen { client, edge, cursor } => What::ConnOpen {
                client,
                edge: own(edge),
                cursor: cursor.map(own),
            },
            Self::ConnClose { client } => What::ConnClose { client },
            Self::ResumeOk { client, changed } => {
                let changed = changed.into_iter().map(|(obj, version)| (obj.into_owned(), version));
                What::ResumeOk {
                    client,
                    changed: changed.collect(),
                }
            }
            Self::Resync { client, objects, cause } => {
                let objects = objects.map(|objects| objects.into_iter().map(Object::into_owned).collect());
                What::Resync {
                    client,
                    objects,
                    cause: own(cause),
                }
            }
            Self::Notify {
                client,
                obj,
                version,
                trace,
            } => What::Notify {
                client,
                obj: obj.into_owned(),
                version,
                trace,
            },
            Self::Cursor { client, text } => What::Cursor {
                client,
                text: own(text),
            },
            Self::Stale { client, stale } => What::Stale { client, stale },
            Self::NemesisStart { fault } => What::NemesisStart { fault: own(fault) },
            Self::NemesisStop { fault } => What::NemesisStop { fault: own(fault) },
            Self::Final { obj, version } => What::Final {
                obj: obj.into_owned(),
                version,
            },
            Self::Note { text } => What::Note { text: own(text) },
        }
    }
}
