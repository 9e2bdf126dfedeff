//! The online check of I1, in every run: at the end each subscriber has been told the newest acknowledged version of each
//! object that it holds, or told to fetch it since that version's publish was called.

use super::subscriber::Phase;
use super::{Alarm, Stage, Worker};
use crate::messages::{Ack, Judgement, Word};
use std::collections::HashMap;

/// How often it is looked.
const LOOK_US: u64 = 50_000;
/// So many of the lost are told of.
const EXAMPLES: usize = 5;

/// What this worker published of watched objects.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Each object's newest acknowledged version, and when its publish was called.
    acks: HashMap<u32, (u64, u64)>,
    /// Objects taken in streams, with when the stream began.
    unversioned: HashMap<u32, u64>,
}

impl Ledger {
    pub(super) fn acknowledge(&mut self, object: u32, version: u64, called_us: u64) {
        let newest = self.acks.entry(object).or_insert((version, called_us));
        if version > newest.0 {
            *newest = (version, called_us);
        }
    }

    pub(super) fn took_in_stream(&mut self, object: u32, called_us: u64) {
        let newest = self.unversioned.entry(object).or_insert(called_us);
        *newest = called_us.max(*newest);
    }

    pub(super) fn published(&self) -> Word {
        let acks = self.acks.iter().map(|(object, (version, called_us))| Ack {
            object: *object,
            version: *version,
            called_us: *called_us,
        });
        Word::Published {
            acks: acks.collect(),
            unversioned: self.unversioned.iter().map(|(object, at)| (*object, *at)).collect(),
        }
    }
}

/// A pair that is not told yet.
#[derive(Clone, Copy, Debug)]
struct Owed {
    number: u32,
    slot: u32,
    version: u64,
    called_us: u64,
}

#[derive(Debug, Default)]
pub(super) struct Judging {
    owed: Vec<Owed>,
    pairs: u64,
    resynced: u64,
    since_us: u64,
}

impl Worker {
    pub(super) fn judge(&mut self, acks: Vec<Ack>) {
        let now = crate::clock::now_us();
        self.stage = Stage::Judging;
        self.hurry_all();
        self.bring_all_back(now);
        let acks: HashMap<u32, Ack> = acks.into_iter().map(|ack| (ack.object, ack)).collect();
        let mut judging = Judging {
            since_us: now,
            ..Judging::default()
        };
        for (number, one) in (0..).zip(&self.subscribers) {
            for (slot, object) in (0..).zip(&one.objects) {
                let Some(ack) = acks.get(object) else { continue };
                let is_new = one.swap.is_some_and(|swap| swap.slot == slot);
                // What changed before it listened, it learned when it began to.
                if is_new || ack.called_us <= one.held_us {
                    continue;
                }
                judging.pairs += 1;
                judging.owed.push(Owed {
                    number,
                    slot,
                    version: ack.version,
                    called_us: ack.called_us,
                });
            }
        }
        self.judging = judging;
        self.look(now);
    }

    /// Whether all are told by now; the verdict if so, or if the time is up.
    pub(super) fn look(&mut self, now: u64) {
        let Judging { owed, resynced, .. } = &mut self.judging;
        let subscribers = &self.subscribers;
        owed.retain(|owed| {
            let one = &subscribers[owed.number as usize];
            if one.told[owed.slot as usize] >= owed.version {
                return false;
            }
            let fetches = one.resynced_since(owed.slot, owed.called_us);
            *resynced += u64::from(fetches);
            !fetches
        });
        let is_late = now - self.judging.since_us > self.scenario.run.settle.us();
        let away = self.subscribers.iter().filter(|one| one.phase != Phase::Live).count();
        if (self.judging.owed.is_empty() && away == 0) || is_late {
            self.verdict(away as u64, now);
        } else {
            self.alarm(now + LOOK_US, Alarm::Judge);
        }
    }

    fn verdict(&mut self, away: u64, now: u64) {
        let owed = std::mem::take(&mut self.judging.owed);
        self.tally.counts.lost += owed.len() as u64;
        let examples = owed.iter().take(EXAMPLES).map(|owed| {
            let one = &self.subscribers[owed.number as usize];
            let stand = if one.phase == Phase::Live {
                "connected"
            } else {
                "not connected"
            };
            format!(
                "subscriber {} ({stand}) was never told version {} of {}: the newest it knows is {}",
                self.first + owed.number,
                owed.version,
                self.names.text(one.objects[owed.slot as usize]),
                one.told[owed.slot as usize],
            )
        });
        let judgement = Judgement {
            pairs: self.judging.pairs,
            resynced: self.judging.resynced,
            lost: owed.len() as u64,
            away,
            examples: examples.collect(),
            took_us: now - self.judging.since_us,
        };
        self.stage = Stage::Resting;
        self.tick(now);
        self.say(Word::Judged(judgement));
    }
}
