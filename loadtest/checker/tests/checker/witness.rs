//! What a history says, found the slow way: by reading it from end to end for one question.

use crate::world::{object, shard};
use std::collections::BTreeMap;
use tidings_checker::history::{Event, Level, Object, What};
use tidings_protocol::{Cursor, ShardId};

/// One acknowledged publish.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    pub(crate) object: usize,
    pub(crate) key: u64,
    pub(crate) version: u64,
    pub(crate) call_us: u64,
    pub(crate) ack_us: u64,
    pub(crate) ack: usize,
    pub(crate) is_promised: bool,
    pub(crate) is_duplicate: bool,
}

/// The number of the world's object.
pub(crate) fn number(obj: &Object<'_>) -> usize {
    (0..crate::world::OBJECTS)
        .find(|number| object(*number) == *obj)
        .unwrap()
}

pub(crate) fn publishes(events: &[Event<'_>]) -> Vec<Publish> {
    let (mut calls, mut firsts) = (BTreeMap::new(), BTreeMap::new());
    let mut publishes = Vec::new();
    for (ack, event) in events.iter().enumerate() {
        match &event.what {
            What::PubCall {
                publisher,
                call,
                obj,
                key,
                level,
                ..
            } => {
                // A retried publish was called when it was tried first.
                let own = if *key == 0 {
                    (*publisher, *call)
                } else {
                    (u32::MAX, *key)
                };
                let first_us = *firsts.entry(own).or_insert(event.at_us);
                calls.insert((*publisher, *call), (number(obj), *key, *level, first_us));
            }
            What::PubOk {
                publisher,
                call,
                version,
                duplicate,
                ..
            } => {
                let (object, key, level, call_us) = calls[&(*publisher, *call)];
                publishes.push(Publish {
                    object,
                    key,
                    version: *version,
                    call_us,
                    ack_us: event.at_us,
                    ack,
                    is_promised: level != Level::Accepted,
                    is_duplicate: *duplicate,
                });
            }
            _ => {}
        }
    }
    publishes
}

/// Objects with a publish whose outcome nobody knows: it may explain a version that was seen.
pub(crate) fn has_unknown(events: &[Event<'_>], object: usize) -> bool {
    let mut open = std::collections::BTreeSet::new();
    for event in events {
        match &event.what {
            What::PubCall {
                publisher, call, obj, ..
            } if number(obj) == object => {
                open.insert((*publisher, *call));
            }
            What::PubOk { publisher, call, .. } | What::PubFail { publisher, call } => {
                open.remove(&(*publisher, *call));
            }
            _ => {}
        }
    }
    !open.is_empty()
}

/// What a client knows of an object before an event: version, and whether it holds the object.
pub(crate) fn known(events: &[Event<'_>], before: usize, client: u32, object: usize) -> (u64, bool) {
    let (mut known, mut is_held) = (0, false);
    for event in &events[..before] {
        match &event.what {
            What::Notify {
                client: c,
                obj,
                version,
                ..
            } if *c == client && number(obj) == object => {
                known = known.max(*version);
            }
            What::SubOk {
                client: c,
                obj,
                version,
            } if *c == client && number(obj) == object => {
                known = known.max(version.unwrap_or(0));
                is_held = true;
            }
            What::UnsubCall { client: c, obj } if *c == client && number(obj) == object => is_held = false,
            What::ConnOpen {
                client: c,
                cursor: None,
                ..
            } if *c == client => is_held = false,
            _ => {}
        }
    }
    (known, is_held)
}

/// Whether something told the client between two events to fetch the object.
pub(crate) fn is_resynced(events: &[Event<'_>], client: u32, object: usize, from_us: u64, to: usize) -> bool {
    events[..to]
        .iter()
        .filter(|event| event.at_us >= from_us)
        .any(|event| covers(event, client, object))
}

fn covers(event: &Event<'_>, client: u32, object: usize) -> bool {
    match &event.what {
        What::Resync { client: c, objects, .. } if *c == client => objects
            .as_ref()
            .is_none_or(|objects| objects.iter().any(|obj| number(obj) == object)),
        // Who is told no version when it subscribes fetches.
        What::SubOk {
            client: c,
            obj,
            version: None,
        } => *c == client && number(obj) == object,
        _ => false,
    }
}

/// What becomes of a version that a client was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// This cursor claims that it was.
    Claimed(usize),
    /// It never is, to the end.
    Silence,
    /// It makes no difference: why.
    Excused(&'static str),
}

/// Reads on from an event for a version that the client does not know.
pub(crate) fn fate(events: &[Event<'_>], from: usize, client: u32, object: usize, version: u64) -> Fate {
    for (at, event) in events.iter().enumerate().skip(from) {
        if covers(event, client, object) {
            return Fate::Excused("a resync came before any cursor that claims it");
        }
        match &event.what {
            What::Notify {
                client: c,
                obj,
                version: told,
                ..
            } if *c == client && number(obj) == object && *told >= version => {
                return Fate::Excused("a newer version came before any cursor that claims it");
            }
            What::SubOk {
                client: c,
                obj,
                version: Some(told),
            } if *c == client && number(obj) == object && *told >= version => {
                return Fate::Excused("a newer answer came before any cursor that claims it");
            }
            What::UnsubCall { client: c, obj } if *c == client && number(obj) == object => {
                return Fate::Excused("the client let go of the object");
            }
            What::ConnOpen {
                client: c,
                cursor: None,
                ..
            } if *c == client => {
                return Fate::Excused("the client let go of the object");
            }
            What::Cursor { client: c, text } if *c == client => {
                let cursor = Cursor::decode(text).unwrap();
                if cursor.at(ShardId(shard(object) as u16)).0 >= version {
                    return Fate::Claimed(at);
                }
            }
            _ => {}
        }
    }
    Fate::Silence
}

/// Whether the checker can know the object's shard.
pub(crate) fn is_shard_known(events: &[Event<'_>], object: usize) -> bool {
    let acked = publishes(events).iter().any(|publish| publish.object == object);
    acked
        || events
            .iter()
            .any(|event| matches!(&event.what, What::Notify { obj, trace: Some(_), .. } if number(obj) == object))
}

/// When the client began to hold the object, as known at an event.
pub(crate) fn held_since(events: &[Event<'_>], before: usize, client: u32, object: usize) -> u64 {
    let subscribed = events[..before].iter().rev().find(
        |event| matches!(&event.what, What::SubOk { client: c, obj, .. } if *c == client && number(obj) == object),
    );
    subscribed.map_or(0, |event| event.at_us)
}

/// Whether copies may be lost in this life: its first event says so.
pub(crate) fn is_lossy(events: &[Event<'_>]) -> bool {
    events
        .first()
        .is_some_and(|event| matches!(&event.what, What::Note { text } if text == "lossy"))
}
