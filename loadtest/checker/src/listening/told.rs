//! A change arrives: I5, I6, what a resume may name (I11), and cursors that came too early (I2).

use super::Listening;
use crate::changes::Change;
use crate::claims::Claimed;
use crate::coverage::Counter;
use crate::verdict::{Invariant, NO_EVENT};

impl Listening<'_> {
    /// A client was told of a version.
    pub(super) fn told(&mut self, number: u32, at_us: u64, client: usize, object: u32, version: u64) {
        self.deliveries += 1;
        self.found.checked(Invariant::I5, 1);
        let change = self.changes.find(object, version);
        let is_real = change.is_some_and(|change| change.call_us <= at_us);
        if !is_real {
            let call = change.map_or(NO_EVENT, |change| change.call_number);
            self.phantom(number, at_us, client, object, version, call);
        }
        let at = self.pair(client, object);
        let pair = &self.pairs[at];
        if !pair.is_held && pair.held_number != NO_EVENT {
            self.after_unsubscribe += 1;
        }
        self.forward(number, client, at, version);
        if let Some(change) = change
            && self.clients[client].is_resuming()
        {
            self.named_by_resume(number, at_us, client, at, change);
        }
        let pair = &self.pairs[at];
        if version > pair.known && is_real {
            // Were there versions between, the client skipped them.
            let below = self
                .changes
                .uncovered(object, pair.known, version - 1, pair.resync_us)
                .next();
            if below.is_some() && pair.is_held && pair.held_us < below.map_or(0, |change| change.call_us) {
                self.coverage.saw(Counter::Coalesced, at_us, at_us);
            }
            self.check_claims(number, at_us, at, version);
            self.pairs[at].known = version;
        }
        let connection = self.clients[client].connection;
        let pair = &mut self.pairs[at];
        pair.told_number = number;
        pair.connection = connection + 1;
        pair.told_version = version;
        pair.is_answer = false;
        self.clients[client].told.add(version);
    }

    /// I5: nobody published this version before it was told.
    #[cold]
    fn phantom(&mut self, number: u32, at_us: u64, client: usize, object: u32, version: u64, call: u32) {
        // A publish that a fault interrupted inside the cluster may have been applied twice: P6 allows to be told again.
        let again = self.changes.of(object).iter().find(|change| {
            change.version > version && change.call_us <= at_us && self.faults.overlap(change.call_us, change.ack_us)
        });
        if call == NO_EVENT && again.is_some() {
            self.found
                .note(Invariant::I5, "a publish that a fault interrupted was applied twice", 1);
            return;
        }
        let client = self.clients[client].number;
        self.found.violated(Invariant::I5, &[call, number], || {
            if call == NO_EVENT {
                format!("client {client} was told of version {version}, which no publish was given")
            } else {
                format!("client {client} was told of version {version} before it was published")
            }
        });
    }

    /// I6: versions never fall, and repeat only around a reconnect.
    #[inline]
    fn forward(&mut self, number: u32, client: usize, at: usize, version: u64) {
        self.found.checked(Invariant::I6, 1);
        let (pair, client) = (&self.pairs[at], &self.clients[client]);
        let is_same_connection = pair.connection == client.connection + 1;
        let here = if is_same_connection { pair.told_version } else { 0 };
        if version > pair.known.max(here) {
            return;
        }
        let numbers = [pair.held_number, pair.told_number, client.open_number, number];
        let (client_number, is_resuming) = (client.number, client.is_resuming());
        if version < here {
            self.found.violated(Invariant::I6, &numbers, || {
                format!("client {client_number} was told of version {here} and then of {version}")
            });
        } else if version == here && !is_resuming && !pair.is_answer {
            self.found.violated(Invariant::I6, &numbers, || {
                format!("client {client_number} was told of version {version} twice on one connection")
            });
        } else if version == here || version == pair.known {
            self.found.note(
                Invariant::I6,
                "versions that were repeated around a reconnect or subscription",
                1,
            );
        } else if self.rules.raw_clients {
            self.found
                .note(Invariant::I6, "versions that went back across connections", 1);
        } else {
            let known = pair.known;
            self.found.violated(Invariant::I6, &numbers, || {
                format!(
                    "client {client_number} knew version {known} from before it came back, and was told of {version}"
                )
            });
        }
    }

    /// I11, no invention: what a resume names is newer than its cursor, or so new that its edge may not have known.
    fn named_by_resume(&mut self, number: u32, at_us: u64, client: usize, at: usize, change: &Change) {
        let version = change.version;
        let (pair, client) = (&self.pairs[at], &self.clients[client]);
        let Some(place) = client.resume.as_ref().and_then(|resume| resume.place.as_ref()) else {
            return;
        };
        // A version that the client does not know is no invention: if the cursor covers it, I2 fails.
        if version > pair.known || place.claims(version, self.objects.shard(pair.object)) != Claimed::Yes {
            return;
        }
        let is_fresh = client.open_us.saturating_sub(change.ack_us) <= self.rules.repeat_window_us;
        if is_fresh || self.faults.overlap(change.call_us, at_us) {
            self.found
                .note(Invariant::I11, "versions named although the cursor covers them", 1);
            return;
        }
        let (client_number, numbers) = (
            client.number,
            [change.call_number, client.open_number, pair.told_number, number],
        );
        self.found.violated(Invariant::I11, &numbers, || {
            format!("client {client_number} came back and was told of version {version}, which its cursor covers")
        });
    }
}
