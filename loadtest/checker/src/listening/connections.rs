//! Connections, resumes (I11) and resyncs (I14).

use super::{Listening, Resume};
use crate::claims::{Claimed, Place};
use crate::coverage::Counter;
use crate::rules::{CAUSES, LOSSES};
use crate::verdict::Invariant;

impl Listening<'_> {
    /// A client connects. Without a cursor it starts anew.
    pub(super) fn opened(&mut self, number: u32, at_us: u64, client: usize, cursor: Option<&str>) {
        if cursor.is_none() {
            let mut given_up = 0;
            for pair in self.clients[client].pairs.clone() {
                if self.pairs[pair as usize].is_held {
                    self.let_go(number, at_us, pair as usize);
                    given_up += 1;
                }
            }
            self.found.note(
                Invariant::I1,
                "objects that a client no longer held because it came back without cursor",
                given_up,
            );
        }
        let place = cursor.map(|text| self.places.read(text));
        let client = &mut self.clients[client];
        client.is_connected = true;
        client.connection += 1;
        client.open_us = at_us;
        client.open_number = number;
        client.resume = place.map(|place| Resume { place, answered: None });
    }

    pub(super) fn ended(&mut self, at_us: u64, client: usize) {
        let client = &mut self.clients[client];
        if client.resume.take().is_some() {
            self.found.note(Invariant::I11, "resumes that broke off", 1);
        }
        client.is_connected = false;
        self.coverage.saw(Counter::Closes, at_us, at_us);
    }

    /// The answer of a resume is complete.
    pub(super) fn resumed(&mut self, number: u32, at_us: u64, client: usize) {
        let client = &mut self.clients[client];
        let open_us = client.open_us;
        if let Some(resume) = &mut client.resume {
            resume.answered = Some(number);
            self.coverage.saw(Counter::Resumes, open_us, at_us);
        }
    }

    /// I11: the first cursor after a resume was handed. What was promised before the resume was asked is named by its
    /// answer; an edge that had not heard of it yet says so by its cursor, but only for a while.
    pub(super) fn check_resume(&mut self, at_us: u64, client: usize, handed: &Place, number: u32) {
        let client = &mut self.clients[client];
        if client.resume.as_ref().is_none_or(|resume| resume.answered.is_none()) {
            return;
        }
        let (open_us, open_number, client_number) = (client.open_us, client.open_number, client.number);
        let Some(Resume { place, answered }) = client.resume.take() else {
            return;
        };
        let Some(place) = place else {
            self.found.note(Invariant::I11, "resumes with a cursor that is none", 1);
            return;
        };
        self.found.checked(Invariant::I11, 1);
        for pair in &client.pairs {
            let pair = &self.pairs[*pair as usize];
            let newest = self.changes.newest_promised(pair.object, open_us);
            let Some(newest) = newest.filter(|newest| pair.is_held && newest.version > pair.known) else {
                continue;
            };
            let shard = self.objects.shard(pair.object);
            let missing = self
                .changes
                .uncovered(pair.object, pair.known, newest.version, pair.resync_us);
            for change in missing.filter(|change| change.promise_us < open_us) {
                let is_old = open_us - change.promise_us > self.rules.settle_us;
                match (
                    place.claims(change.version, shard),
                    handed.claims(change.version, shard),
                ) {
                    // Then the cursor that it came with was false, which I2 sees.
                    (Claimed::Yes, _) => {}
                    (Claimed::Unknown, _) | (_, Claimed::Unknown) => {
                        self.found
                            .doubt(Invariant::I11, "a shard lags and the object's shard is unknown", 1);
                    }
                    (Claimed::No, Claimed::No) if !is_old || self.faults.overlap(change.promise_us, at_us) => {
                        self.found
                            .note(Invariant::I11, "changes of which the edge had not heard yet", 1);
                    }
                    (Claimed::No, _) => {
                        let [call, ack] = change.numbers();
                        let answered = answered.unwrap_or(number);
                        let numbers = [pair.held_number, call, ack, open_number, answered, number];
                        self.found.violated(Invariant::I11, &numbers, || {
                            format!(
                                "client {client_number} came back and was not told of version {}",
                                change.version
                            )
                        });
                        break;
                    }
                }
            }
        }
    }

    /// A client was told to fetch these.
    pub(super) fn resync(&mut self, number: u32, at_us: u64, client: usize, pairs: &[u32], cause: &str) {
        self.coverage.saw(Counter::Resyncs, at_us, at_us);
        self.found.checked(Invariant::I14, 1);
        *self.resyncs.entry(cause.to_owned()).or_default() += 1;
        let client_number = self.clients[client].number;
        let is_loss = LOSSES.contains(&cause);
        let why = if !CAUSES.contains(&cause) {
            Some("a cause that nobody knows")
        } else if self.rules.allowed_resyncs.contains(cause) {
            None
        } else if !is_loss || !self.rules.lost_copies {
            Some("which this run does not allow")
        } else if self.faults.first_us().is_none_or(|first_us| at_us < first_us) {
            Some("before there was any fault")
        } else {
            None
        };
        if let Some(why) = why {
            let open_number = self.clients[client].open_number;
            self.found.violated(Invariant::I14, &[open_number, number], || {
                format!("client {client_number} was told to resync because of {cause}, {why}")
            });
        }
        for pair in pairs {
            // From now on the resync covers what was missing: judge the cursors before.
            self.check_claims(number, at_us, *pair as usize, u64::MAX);
            self.pairs[*pair as usize].resync_us = at_us;
        }
        self.clients[client].told.resync();
    }
}
