//! Cursors: what they claim is remembered (I2), and their lists of what was told are compared.

use super::{Listening, TheTold};
use crate::claims::{Claimed, Place};
use crate::coverage::Counter;
use crate::verdict::Invariant;
use std::rc::Rc;

/// So many versions of one client are kept to compare; more were never told above one closed version.
const VERSIONS: usize = 8192;

impl Listening<'_> {
    /// A client was handed a cursor.
    pub(super) fn handed(&mut self, number: u32, at_us: u64, client: usize, text: &str) {
        self.coverage.saw(Counter::Cursors, at_us, at_us);
        self.found.checked(Invariant::I2, 1);
        let Some(place) = self.places.read(text) else {
            let client = self.clients[client].number;
            self.found.violated(Invariant::I2, &[number], || {
                format!("client {client} was handed a cursor that cannot be read")
            });
            return;
        };
        self.closed.hand(at_us, number, &place);
        self.check_resume(at_us, client, &place, number);
        let client = &mut self.clients[client];
        if let Some(version) = client.told.compare(&place) {
            let (open_number, client_number) = (client.open_number, client.number);
            self.found.violated(Invariant::I2, &[open_number, number], || {
                format!(
                    "client {client_number} was handed a cursor that lists version {version} as told, and it was not"
                )
            });
        }
        if !client.claims.hand(number, place) {
            self.found.doubt(
                Invariant::I2,
                "a client was handed more kinds of cursors than are kept",
                1,
            );
        }
    }

    /// I2, the second half: what was called after somebody was handed a cursor has a version above it. After the last
    /// event.
    pub(super) fn check_closed(&mut self) {
        if self.closed.is_empty() {
            return;
        }
        for change in self.changes.all().iter().filter(|change| !change.is_guess) {
            match self
                .closed
                .claimed(change.call_us, change.version, self.objects.shard(change.object))
            {
                (Claimed::No, _) => {}
                (Claimed::Unknown, _) => {
                    self.found
                        .doubt(Invariant::I2, "a shard lags and the shard of a publish is unknown", 1);
                }
                (Claimed::Yes, cursor) => {
                    let [call, ack] = change.numbers();
                    self.found.violated(Invariant::I2, &[cursor, call, ack], || {
                        format!(
                            "version {} was given to a publish that was called after a cursor covered it",
                            change.version
                        )
                    });
                }
            }
        }
    }
}

impl TheTold {
    /// The client knows this version of something.
    #[inline]
    pub(super) fn add(&mut self, version: u64) {
        self.highest = self.highest.max(version);
        if self.is_used {
            self.versions.push(version);
            if self.versions.len() > VERSIONS {
                self.since = self.highest;
                self.versions.clear();
            }
        }
    }

    /// A resync stands for any versions.
    pub(super) fn resync(&mut self) {
        self.is_resynced = true;
    }

    /// A version that the cursor lists as told and that was not.
    fn compare(&mut self, place: &Rc<Place>) -> Option<u64> {
        let list = &place.cursor.told;
        if list.is_empty() && !self.is_used {
            return None;
        }
        if !self.is_used {
            // What was told before was not kept.
            self.is_used = true;
            self.since = self.highest;
        }
        if self.is_resynced {
            self.is_resynced = false;
            self.since = list
                .iter()
                .map(|(_, version)| version.0)
                .fold(self.since.max(place.base()), u64::max);
        }
        let wrong = list
            .iter()
            .find(|(_, version)| version.0 > self.since && !self.versions.contains(&version.0));
        let wrong = wrong.map(|(_, version)| version.0);
        let certain = place.certain;
        self.versions.retain(|version| *version > certain);
        wrong
    }
}
