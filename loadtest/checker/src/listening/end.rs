//! After the last event: who was never told (I1, I13), and who was told something else than the last (I12, I9).

use super::Listening;
use crate::verdict::{Invariant, NO_EVENT};
use hashbrown::HashMap;

/// So many missed changes of one pair are counted one by one.
const MISSED: usize = 10_000;

/// Why a pair cannot be judged.
const AWAY: &str = "clients that were not connected at the end had not been told";
const UNSETTLED: &str = "the history ends before the settle window does";

impl Listening<'_> {
    /// Judges what only the end decides. `finals` are the owner's versions with event and stamp.
    pub(crate) fn finish(&mut self, end_us: u64, finals: &HashMap<u32, (u64, u32, u64)>) {
        self.check_closed();
        for at in 0..self.pairs.len() {
            if self.pairs[at].is_held {
                self.check_claims(NO_EVENT, end_us, at, u64::MAX);
                self.check_told(end_us, at);
                if let Some((version, number, _)) = finals.get(&self.pairs[at].object) {
                    self.check_last(end_us, at, *version, *number);
                }
            }
        }
        self.check_finals(finals);
    }

    /// Why a pair is not judged for a change acknowledged at this time.
    fn excuse(&self, end_us: u64, at: usize, ack_us: u64) -> Option<&'static str> {
        let pair = &self.pairs[at];
        let client = &self.clients[pair.client as usize];
        if !client.is_connected || client.is_resuming() {
            return Some(AWAY);
        }
        let last_us = ack_us.max(client.open_us).max(pair.held_us).max(self.faults.last_us());
        (end_us.saturating_sub(last_us) < self.rules.settle_us).then_some(UNSETTLED)
    }

    /// I1 and I13: each promised change is covered.
    fn check_told(&mut self, end_us: u64, at: usize) {
        let pair = &self.pairs[at];
        let interested = self.changes.called_after(pair.object, pair.held_us);
        self.interested += interested;
        self.found.checked(Invariant::I1, interested);
        let uncovered = self
            .changes
            .uncovered(pair.object, pair.known, u64::MAX, pair.resync_us);
        for change in uncovered.filter(|change| change.is_promised()).take(MISSED) {
            let invariant = if change.call_us > pair.held_us {
                Invariant::I1
            } else {
                Invariant::I13
            };
            if let Some(why) = self.excuse(end_us, at, change.promise_us) {
                self.found.doubt(invariant, why, 1);
                continue;
            }
            if invariant == Invariant::I1 {
                self.missed += 1;
            }
            let client = &self.clients[pair.client as usize];
            let [call, ack] = change.numbers();
            let numbers = [pair.held_number, call, ack, pair.told_number, client.open_number];
            self.found.violated(invariant, &numbers, || {
                format!(
                    "client {} was never told of version {}, nor to resync",
                    client.number, change.version
                )
            });
        }
    }

    /// I12: the last that was told is what the owner has.
    fn check_last(&mut self, end_us: u64, at: usize, version: u64, number: u32) {
        let pair = &self.pairs[at];
        if version <= pair.known {
            self.found
                .checked(Invariant::I12, (pair.told_number != NO_EVENT).into());
            return;
        }
        let change = self.changes.find(pair.object, version);
        // A change that came before the resync is in what the client fetched. One from before the run has no event.
        if change.map_or(pair.held_us, |change| change.call_us) <= pair.resync_us {
            return;
        }
        self.found.checked(Invariant::I12, 1);
        if let Some(why) = self.excuse(end_us, at, change.map_or(0, |change| change.call_us)) {
            self.found.doubt(Invariant::I12, why, 1);
            return;
        }
        let client = self.clients[pair.client as usize].number;
        let call = change.map_or(NO_EVENT, |change| change.call_number);
        let known = pair.known;
        self.found.violated(
            Invariant::I12,
            &[pair.held_number, call, pair.told_number, number],
            || format!("client {client} knows version {known}, the owner has {version}"),
        );
    }

    /// I9: the owner has what was promised.
    fn check_finals(&mut self, finals: &HashMap<u32, (u64, u32, u64)>) {
        let mut finals: Vec<_> = finals.iter().collect();
        finals.sort_unstable();
        for (object, (version, number, at_us)) in finals {
            let Some(newest) = self.changes.newest_promised(*object, *at_us) else {
                continue;
            };
            self.found.checked(Invariant::I9, 1);
            if *version >= newest.version {
                continue;
            }
            if self.rules.lost_copies {
                self.found
                    .note(Invariant::I9, "objects whose last version was lost with its copies", 1);
                continue;
            }
            let [call, ack] = newest.numbers();
            self.found.violated(Invariant::I9, &[call, ack, *number], || {
                format!(
                    "version {} was acknowledged, and the owner has {version} at the end",
                    newest.version
                )
            });
        }
    }
}
