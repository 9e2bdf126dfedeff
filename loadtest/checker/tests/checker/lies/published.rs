//! Lies about what publishers were told.

use super::{Events, notices, pick, set_version};
use crate::witness::{has_unknown, number, publishes};
use crate::world::{Random, object};
use tidings_checker::Invariant::{self, I3, I4, I5, I7, I8, I9};
use tidings_checker::history::{Event, Level, What};

pub(crate) fn one_version(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let acked = publishes(events);
    let mut fit = Vec::new();
    for a in acked.iter().filter(|a| !a.is_duplicate) {
        for b in acked
            .iter()
            .filter(|b| !b.is_duplicate && b.object == a.object && b.version > a.version)
        {
            // Attempts with one key are one publish.
            if a.key == 0 && b.key == 0 || a.key != b.key {
                fit.push((a.version, b.ack));
            }
        }
    }
    let (version, at) = pick(random, fit)?;
    set_version(&mut events[at], version);
    Some(vec![I4])
}

pub(crate) fn two_for_a_key(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let keyed = publishes(events)
        .into_iter()
        .filter(|publish| publish.key != 0)
        .collect();
    let publish = pick(random, keyed)?;
    let at_us = events[publish.ack].at_us;
    let (publisher, call) = (99, 1);
    let call_again = What::PubCall {
        publisher,
        call,
        obj: object(publish.object),
        key: publish.key,
        revision: None,
        level: Level::Replicated,
    };
    let ok = What::PubOk {
        publisher,
        call,
        version: publish.version + 1,
        duplicate: true,
        trace: None,
    };
    events.insert(
        publish.ack + 1,
        Event {
            at_us,
            what: call_again,
        },
    );
    events.insert(publish.ack + 2, Event { at_us, what: ok });
    Some(vec![I4])
}

pub(crate) fn invert(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let acked = publishes(events);
    let mut fit = Vec::new();
    for a in acked.iter().filter(|a| !a.is_duplicate) {
        for b in acked
            .iter()
            .filter(|b| !b.is_duplicate && b.object == a.object && b.key == 0 && b.version > a.version)
        {
            if a.ack_us < b.call_us {
                fit.push((a.clone(), b.clone()));
            }
        }
    }
    let (a, b) = pick(random, fit)?;
    set_version(&mut events[a.ack], b.version);
    set_version(&mut events[b.ack], a.version);
    Some(vec![I3])
}

/// Acknowledgements by shard: place, time of the call, time of the acknowledgement, epoch.
fn reigns(events: &Events) -> Vec<(usize, u64, u64, u16, u64)> {
    let traced = publishes(events)
        .into_iter()
        .filter(|publish| !publish.is_duplicate && publish.key == 0)
        .filter_map(|publish| {
            let What::PubOk { trace: Some(trace), .. } = events[publish.ack].what else {
                return None;
            };
            Some((publish.ack, publish.call_us, publish.ack_us, trace.shard, trace.epoch))
        });
    traced.collect()
}

pub(crate) fn old_epoch(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let reigns = reigns(events);
    let fit = reigns.iter().filter(|(_, call_us, _, shard, epoch)| {
        *epoch > 1
            && reigns
                .iter()
                .any(|other| other.3 == *shard && other.4 == *epoch && other.2 < *call_us)
    });
    let (at, ..) = *pick(random, fit.collect())?;
    let What::PubOk { trace: Some(trace), .. } = &mut events[at].what else {
        unreachable!()
    };
    trace.epoch -= 1;
    Some(vec![I7])
}

pub(crate) fn low_epoch(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let reigns = reigns(events);
    let acked = publishes(events);
    let version = |at: usize| {
        acked
            .iter()
            .find(|publish| publish.ack == at)
            .map_or(0, |publish| publish.version)
    };
    let mut fit = Vec::new();
    for (at, _, _, shard, epoch) in &reigns {
        let older = reigns
            .iter()
            .filter(|other| other.3 == *shard && other.4 < *epoch)
            .map(|other| version(other.0))
            .max();
        fit.extend(older.map(|older| (*at, older - 1)));
    }
    let (at, version) = pick(random, fit)?;
    set_version(&mut events[at], version);
    // The version may be taken already: then one version names two publishes.
    Some(vec![I8, I4])
}

pub(crate) fn forget(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let acked = publishes(events);
    let mut fit = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let What::Final { obj, .. } = &event.what else { continue };
        let promised = acked
            .iter()
            .filter(|publish| publish.object == number(obj) && publish.is_promised);
        fit.extend(promised.map(|publish| publish.version).max().map(|newest| (at, newest)));
    }
    let (at, newest) = pick(random, fit)?;
    set_version(&mut events[at], newest - 1);
    Some(vec![I9])
}

pub(crate) fn false_failure(events: &mut Events, random: &mut Random) -> Option<Vec<Invariant>> {
    let told = notices(events);
    let fit = publishes(events).into_iter().filter(|publish| {
        let is_told = told
            .iter()
            .any(|notice| (notice.2, notice.3) == (publish.object, publish.version));
        is_told && publish.key == 0 && !has_unknown(events, publish.object)
    });
    let publish = pick(random, fit.collect())?;
    let What::PubOk { publisher, call, .. } = events[publish.ack].what else {
        unreachable!()
    };
    events[publish.ack].what = What::PubFail { publisher, call };
    Some(vec![I5])
}
