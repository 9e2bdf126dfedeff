//! What a subscriber is told, and whether that can be right.

use super::Worker;
use super::subscriber::Phase;
use super::tally::Timed;
use crate::population::Transport;
use std::cmp::Ordering;
use tidings_checker::history::{Object, Trace, What};
use tidings_client::wire::{Answered, Change, Failure, Resync, ServerMessage};

impl Worker {
    /// Takes one message; an error ends the connection.
    pub(super) fn hear(&mut self, number: u32, message: ServerMessage<'_>, now: u64) -> Result<(), String> {
        match message {
            ServerMessage::Changes(changes) => {
                for change in changes {
                    self.change(number, &change, now);
                }
            }
            ServerMessage::Cursor(cursor) => self.cursor(number, &cursor, now),
            ServerMessage::Subscribed { objects, .. } => self.subscribed(number, &objects, now),
            ServerMessage::Unsubscribed { .. } => self.unsubscribed(number, now),
            ServerMessage::Resync(resync) => self.resync(number, &resync, now),
            ServerMessage::Stale(stale) => {
                self.tally.extra(if stale { "stale" } else { "whole_again" });
                let client = self.client(number);
                self.witness.see(now, What::Stale { client, stale });
            }
            ServerMessage::Reconnect(reconnect) => self.sent_away(number, reconnect.after_ms, now),
            ServerMessage::Error { error, .. } => {
                let client = self.client(number);
                self.tally
                    .error(|| format!("subscriber {client}: {}: {}", error.code, error.message));
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn change(&mut self, number: u32, change: &Change<'_>, now: u64) {
        let one = &mut self.subscribers[number as usize];
        let object = self.names.read(&change.object);
        let Some((object, slot)) = object.and_then(|object| Some((object, one.slot_of(object)?))) else {
            // What it has just given up may still be on its way.
            if one.swap.is_none_or(|swap| Some(swap.old) != object) {
                let client = self.client(number);
                self.tally.error(|| {
                    format!(
                        "subscriber {client} was told of {:?}, which it does not hold",
                        &*change.object
                    )
                });
            }
            return;
        };
        let Some(version) = change.version.map(|version| version.0) else {
            // No version: to be fetched, like a resync.
            one.was_told_to_fetch(slot as u32, now);
            self.tally.counts.resynced_objects += 1;
            return;
        };
        self.tally.counts.delivered += 1;
        let last = std::mem::replace(&mut one.told[slot], version);
        let (live, dawdles, held_us) = (one.phase == Phase::Live, one.dawdles, one.held_us);
        match last.cmp(&version) {
            Ordering::Less => {}
            Ordering::Equal => self.tally.counts.duplicates += 1,
            Ordering::Greater => {
                one.told[slot] = last;
                let client = self.first + number;
                self.tally.counts.went_back += 1;
                self.tally
                    .warn(|| format!("subscriber {client}: object {object} went back from {last} to {version}"));
            }
        }
        if self.witness.is_on() {
            let trace = change.shard.zip(change.epoch).map(|(shard, epoch)| Trace {
                shard: shard.0,
                epoch: epoch.0,
            });
            let what = What::Notify {
                client: self.first + number,
                obj: Object::Number(u64::from(object)),
                version,
                trace,
            };
            self.witness.see(now, what);
        }
        // What one missed by being away or by not reading is no latency of the server's.
        // Nor is what changed before it listened.
        let before = version < held_us.saturating_add(self.unix_offset_us);
        if live && !dawdles && last < version && !before {
            self.time_delivery(change.kind.as_deref(), version, now);
        }
    }

    #[inline]
    fn time_delivery(&mut self, stamp: Option<&str>, version: u64, now: u64) {
        let due = stamp.and_then(|stamp| u64::from_str_radix(stamp, 16).ok());
        match due {
            Some(due_us) => self.tally.time(Timed::Deliver, now.saturating_sub(due_us)),
            // Without a stamp the version itself tells the time, on this machine's clock.
            None if self.targets.iter().all(crate::messages::Target::is_here) => {
                let us = (now + self.unix_offset_us).saturating_sub(version);
                self.tally.time(Timed::FromVersion, us);
            }
            None => {}
        }
    }

    pub(super) fn cursor(&mut self, number: u32, cursor: &str, now: u64) {
        let one = &self.subscribers[number as usize];
        let answered = one.transport != Transport::WebSocket || (one.pages == 0 && !one.unconfirmed);
        if one.phase == Phase::Asking && answered {
            self.is_live(number, now);
        }
        let client = self.client(number);
        let one = &mut self.subscribers[number as usize];
        if one.cursor != cursor {
            one.cursor.clear();
            one.cursor.push_str(cursor);
        }
        if self.witness.is_on() {
            self.witness.see(
                now,
                What::Cursor {
                    client,
                    text: cursor.into(),
                },
            );
        }
    }

    fn subscribed(&mut self, number: u32, objects: &[Answered<'_>], now: u64) {
        let client = self.client(number);
        for answered in objects {
            if let Some(failure) = &answered.error {
                self.refused(number, &answered.object, failure, now);
                continue;
            }
            let one = &mut self.subscribers[number as usize];
            let Some(slot) = self.names.read(&answered.object).and_then(|object| one.slot_of(object)) else {
                continue;
            };
            self.tally.counts.subscribes += 1;
            let is_swap = one.swap.is_some_and(|swap| swap.slot as usize == slot);
            if is_swap {
                one.swap = None;
            }
            // Who comes back with a cursor is owed the news itself, not only its version in the answer.
            if is_swap || !one.resumes() {
                let version = answered.version.map_or(0, |version| version.0);
                one.told[slot] = one.told[slot].max(version);
                let what = What::SubOk {
                    client,
                    obj: Object::Number(u64::from(one.objects[slot])),
                    version: Some(version),
                };
                self.witness.see(now, what);
            }
        }
        let one = &mut self.subscribers[number as usize];
        one.pages = one.pages.saturating_sub(1);
        if one.pages == 0 {
            one.unconfirmed = false;
            if !one.resumes() {
                one.held_us = one.held_us.min(now);
            }
        }
    }

    fn unsubscribed(&mut self, number: u32, now: u64) {
        let client = self.client(number);
        if let Some(swap) = self.subscribers[number as usize].swap {
            let obj = Object::Number(u64::from(swap.old));
            self.witness.see(now, What::UnsubOk { client, obj });
        }
    }

    /// The server will not tell of an object: nothing is owed.
    pub(super) fn refused(&mut self, number: u32, object: &str, failure: &Failure<'_>, now: u64) {
        let client = self.client(number);
        let (code, message) = (&*failure.code, &*failure.message);
        self.tally
            .error(|| format!("subscriber {client} was refused {object}: {code}: {message}"));
        let one = &mut self.subscribers[number as usize];
        if let Some(slot) = self.names.read(object).and_then(|object| one.slot_of(object)) {
            one.told[slot] = u64::MAX;
            let obj = Object::Number(u64::from(one.objects[slot]));
            self.witness.see(now, What::SubFail { client, obj });
        }
    }

    pub(super) fn resync(&mut self, number: u32, resync: &Resync<'_>, now: u64) {
        let client = self.client(number);
        self.tally.counts.resyncs += 1;
        self.tally.extra(&format!("resync.{}", &*resync.cause));
        let one = &mut self.subscribers[number as usize];
        let mut objects = None;
        match &resync.objects {
            None => {
                one.resynced_us = now;
                self.tally.counts.resynced_objects += one.objects.len() as u64;
            }
            Some(named) => {
                let known = named.iter().filter_map(|object| self.names.read(object));
                let known: Vec<_> = known.filter_map(|object| one.slot_of(object)).collect();
                for slot in &known {
                    one.was_told_to_fetch(*slot as u32, now);
                }
                self.tally.counts.resynced_objects += known.len() as u64;
                let numbers = known
                    .into_iter()
                    .map(|slot| Object::Number(u64::from(one.objects[slot])));
                objects = Some(numbers.collect());
            }
        }
        if self.witness.is_on() {
            let cause = (&*resync.cause).into();
            self.witness.see(now, What::Resync { client, objects, cause });
        }
    }
}
