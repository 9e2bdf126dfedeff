//! Lies about what clients were told.

use super::{Events, news, noticed, notices, pick, set_version};
use crate::witness::{Fate, fate, has_unknown, held_since, is_resynced, is_shard_known, known, number, publishes};
use crate::world::{OBJECTS, Random, object};
use tidings_checker::Invariant::{self, I2, I5, I6, I11, I12, I13, I14};
use tidings_checker::history::{Event, Object, What};
use tidings_protocol::{ClusterId, Cursor, ObjectHash, Version};

pub(crate) fn drop_notice(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let (at, client, object, version) = pick(random, news(events))?;
    events.remove(at);
    noticed(events, at, client, object, version)
}

/// Two notices of one pair on one connection, the second newer: places and versions.
fn pairs_on_one_connection(events: &Events) -> Vec<(usize, usize, u64, u64)> {
    let notices = notices(events);
    let mut found = Vec::new();
    for (place, (first, client, object, low)) in notices.iter().enumerate() {
        let mut later = notices[place + 1..]
            .iter()
            .filter(|later| (later.1, later.2) == (*client, *object));
        let Some((second, _, _, high)) = later.next() else {
            continue;
        };
        let between = &events[*first..*second];
        let is_one = !between
            .iter()
            .any(|event| matches!(&event.what, What::ConnOpen { client: c, .. } if c == client));
        if is_one && high > low {
            found.push((*first, *second, *low, *high));
        }
    }
    found
}

pub(crate) fn swap_told(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let (first, second, low, high) = pick(random, pairs_on_one_connection(events))?;
    set_version(&mut events[first], high);
    set_version(&mut events[second], low);
    Some(vec![I6])
}

pub(crate) fn go_back(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let (first, second, ..) = pick(random, pairs_on_one_connection(events))?;
    let again = Event {
        at_us: events[second].at_us,
        what: events[first].what.clone(),
    };
    events.insert(second + 1, again);
    Some(vec![I6])
}

pub(crate) fn tell_twice(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let mut fit = notices(events);
    // In the answer of a resume an equal version may come twice.
    fit.retain(|(at, client, ..)| {
        let before = events[..*at].iter().rev().find_map(|event| match &event.what {
            What::ConnOpen { client: c, cursor, .. } if c == client => Some(cursor.is_none()),
            What::ResumeOk { client: c, .. } if c == client => Some(true),
            _ => None,
        });
        before == Some(true)
    });
    let (at, ..) = pick(random, fit)?;
    let again = events[at].clone();
    events.insert(at + 1, again);
    Some(vec![I6])
}

pub(crate) fn advance_cursor(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let mut fit = Vec::new();
    for (at, client, object, version) in news(events) {
        let call_us = publishes(events)
            .iter()
            .find(|publish| publish.version == version)?
            .call_us;
        let cursor = events[..at]
            .iter()
            .rposition(|event| matches!(&event.what, What::Cursor { client: c, .. } if *c == client));
        let Some(cursor) = cursor else { continue };
        let is_held = known(events, cursor, client, object).1;
        if is_held
            && !is_resynced(events, client, object, call_us, at)
            && fate(events, cursor + 1, client, object, version)
                == Fate::Excused("a newer version came before any cursor that claims it")
        {
            fit.push((cursor, version));
        }
    }
    let (at, version) = pick(random, fit)?;
    let What::Cursor { text, .. } = &mut events[at].what else {
        unreachable!()
    };
    let told = Cursor::decode(text).unwrap().told;
    *text = Cursor::new(ClusterId(9), Version(version), Vec::new(), told)
        .encode()
        .unwrap()
        .into();
    Some(vec![I2])
}

pub(crate) fn phantom(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let of = random.below(OBJECTS);
    let at = random.below(events.len());
    let most = notices(events).iter().map(|notice| notice.3).max()?;
    let obj = if has_unknown(events, of) {
        Object::Text("never published".into())
    } else {
        object(of)
    };
    let what = What::Notify {
        client: random.below(6) as u32,
        obj,
        version: most + 1_000_000_000,
        trace: None,
    };
    events.insert(
        at,
        Event {
            at_us: events[at].at_us,
            what,
        },
    );
    Some(vec![I5])
}

pub(crate) fn drop_resync(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let acked = publishes(events);
    let mut fit = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let What::Resync { client, objects, .. } = &event.what else {
            continue;
        };
        for publish in acked
            .iter()
            .filter(|publish| publish.is_promised && !publish.is_duplicate)
        {
            let (object, call_us) = (publish.object, publish.call_us);
            let in_scope = objects
                .as_ref()
                .is_none_or(|objects| objects.iter().any(|obj| number(obj) == object));
            let (known, is_held) = known(events, at, *client, object);
            // What was published before the client held it, it fetched; what an earlier resync covers as well.
            let is_missed = is_held
                && publish.version > known
                && call_us < event.at_us
                && call_us > held_since(events, at, *client, object)
                && !is_resynced(events, *client, object, call_us, at);
            if in_scope && is_missed && is_shard_known(events, object) {
                fit.extend(noticed(events, at + 1, *client, object, publish.version).map(|right| (at, right)));
            }
        }
    }
    let (at, right) = pick(random, fit)?;
    events.remove(at);
    Some(right)
}

/// Every resume: places of its connection and the end of its answer, and its client.
fn resumes(events: &Events) -> Vec<(usize, usize, u32)> {
    let mut found = Vec::new();
    for (end, event) in events.iter().enumerate() {
        let What::ResumeOk { client, .. } = event.what else {
            continue;
        };
        let open = events[..end]
            .iter()
            .rposition(|event| matches!(&event.what, What::ConnOpen { client: c, .. } if *c == client));
        found.push((open.unwrap(), end, client));
    }
    found
}

pub(crate) fn omit(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let (acked, resumes) = (publishes(events), resumes(events));
    let fit = news(events).into_iter().filter(|(at, client, object, version)| {
        let resume = resumes
            .iter()
            .find(|(open, end, c)| c == client && open < at && at < end);
        resume.is_some_and(|(open, ..)| {
            let publish = acked
                .iter()
                .find(|publish| (publish.object, publish.version) == (*object, *version) && !publish.is_duplicate);
            publish.is_some_and(|publish| {
                publish.is_promised && publish.ack < *open && publish.ack_us < events[*open].at_us
            })
        })
    });
    let (at, client, object, version) = pick(random, fit.collect())?;
    events.remove(at);
    let first =
        (at..events.len()).find(|at| matches!(&events[*at].what, What::Cursor { client: c, .. } if *c == client))?;
    (fate(events, at, client, object, version) == Fate::Claimed(first)).then(|| vec![I11])
}

pub(crate) fn invent(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let acked = publishes(events);
    let mut fit = Vec::new();
    for (open, end, client) in resumes(events) {
        let What::ConnOpen { cursor: Some(text), .. } = &events[open].what else {
            continue;
        };
        let cursor = Cursor::decode(text).unwrap();
        for object in 0..OBJECTS {
            let (known, is_held) = known(events, end, client, object);
            let publish = acked
                .iter()
                .find(|publish| (publish.object, publish.version) == (object, known));
            // When a version was made that only a duplicate's answer names, nobody can know.
            let is_old = publish
                .is_some_and(|publish| !publish.is_duplicate && publish.ack_us + 10_000_000 < events[open].at_us);
            if is_held && is_old && known <= cursor.base.0 && cursor.lagging.is_empty() {
                fit.push((end, client, object, known));
            }
        }
    }
    let (end, client, of, version) = pick(random, fit)?;
    let what = What::Notify {
        client,
        obj: object(of),
        version,
        trace: None,
    };
    events.insert(
        end,
        Event {
            at_us: events[end].at_us,
            what,
        },
    );
    Some(vec![I11])
}

pub(crate) fn stale_answer(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let acked = publishes(events);
    let mut fit = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let What::SubOk {
            client,
            obj,
            version: Some(version),
        } = &event.what
        else {
            continue;
        };
        let object = number(obj);
        let call = events[..at].iter().rposition(
            |event| matches!(&event.what, What::SubCall { client: c, obj } if c == client && number(obj) == object),
        )?;
        let (known, _) = known(events, at, *client, object);
        let before = acked.iter().filter(|publish| {
            publish.object == object
                && publish.is_promised
                && publish.ack_us < events[call].at_us
                && publish.version > known
        });
        let newest = before
            .filter(|publish| publish.version <= *version)
            .map(|publish| publish.version)
            .max();
        if let Some(newest) = newest
            && noticed(events, at + 1, *client, object, newest).is_some()
            && is_shard_known(events, object)
        {
            fit.push((at, newest));
        }
    }
    let (at, newest) = pick(random, fit)?;
    set_version(&mut events[at], newest - 1);
    Some(vec![I13])
}

pub(crate) fn lose_last(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let finals = events.iter().filter_map(|event| match &event.what {
        What::Final { obj, version } => Some((number(obj), version.unwrap_or(0))),
        _ => None,
    });
    let finals: Vec<_> = finals.collect();
    let fit = news(events).into_iter().filter(|(at, client, object, version)| {
        let mut gone = events.clone();
        gone.remove(*at);
        let holds = known(events, events.len(), *client, *object).1;
        let is_covered = is_resynced(events, *client, *object, events[*at].at_us, events.len())
            || held_since(events, events.len(), *client, *object) > events[*at].at_us;
        finals.contains(&(*object, *version))
            && holds
            && !is_covered
            && known(&gone, gone.len(), *client, *object).0 < *version
    });
    let (at, ..) = pick(random, fit.collect())?;
    events.remove(at);
    Some(vec![I12])
}

pub(crate) fn needless_resync(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let at = random.below(events.len());
    let cause = ["because", "versions_evicted", "versions_lost", ""][random.below(4)];
    let what = What::Resync {
        client: random.below(6) as u32,
        objects: None,
        cause: cause.into(),
    };
    events.insert(
        at,
        Event {
            at_us: events[at].at_us,
            what,
        },
    );
    Some(vec![I14])
}

pub(crate) fn false_list(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let most = notices(events).iter().map(|notice| notice.3).max()?;
    let fit = (0..events.len()).filter(|at| match &events[*at].what {
        // After a resync any list is taken: it may name what was fetched.
        What::Cursor { client, .. } => !events[..*at]
            .iter()
            .any(|event| matches!(&event.what, What::Resync { client: c, .. } if c == client)),
        _ => false,
    });
    let at = pick(random, fit.collect())?;
    let What::Cursor { text, .. } = &mut events[at].what else {
        unreachable!()
    };
    let Cursor {
        base,
        lagging,
        mut told,
        ..
    } = Cursor::decode(text).unwrap();
    told.push((ObjectHash(random.below(1 << 30) as u64), Version(most + 1_000_000_000)));
    *text = Cursor::new(ClusterId(9), base, lagging, told).encode().unwrap().into();
    Some(vec![I2])
}
