//! What is written next, and to whom: answers first, then resyncs and changes, then a cursor that vouches for them.

use super::subscribers::{Farewell, Sink, Subscriber, SubscriberKey};
use super::{Lane, Leave, Output, Write};
use crate::id_set::IdSet;
use crate::now::{MonoUs, Now};
use bytes::Bytes;
use std::sync::Arc;
use tidings_protocol::close::CloseCode;
use tidings_protocol::codec::{self, ChangeView, Encoding};
use tidings_protocol::{Cursor, Version};

/// Frames kept for the other subscribers of the same object.
const CACHED: usize = 64;

/// The newest frames, encoded once and shared by all who are told the same.
#[derive(Debug)]
pub(super) struct FrameCache {
    changes: Vec<Option<CachedChange>>,
    cursors: Vec<(Encoding, Bytes)>,
}

#[derive(Debug)]
struct CachedChange {
    slot: u32,
    version: Version,
    encoding: Encoding,
    trace: bool,
    bytes: Bytes,
}

impl Default for FrameCache {
    fn default() -> Self {
        Self {
            changes: (0..CACHED).map(|_| None).collect(),
            cursors: Vec::new(),
        }
    }
}

impl FrameCache {
    /// The lane's place is another one now, and so is its cursor.
    pub(super) fn place_moved(&mut self) {
        self.cursors.clear();
    }

    /// The slot gets another object.
    pub(super) fn forget(&mut self, slot: u32) {
        let place = &mut self.changes[slot as usize % CACHED];
        if place.as_ref().is_some_and(|cached| cached.slot == slot) {
            *place = None;
        }
    }
}

impl Lane {
    /// The next write to make, if any. Long-polls with news are answered on the way, through `out`.
    ///
    /// Call it until it says `None`, with pauses for other work; what is not yet taken coalesces.
    pub fn next_write(&mut self, now: Now, out: &mut Vec<Output>) -> Option<Write> {
        loop {
            let index = self.ready.pop_front()?;
            let Some(who) = self.subscribers.key(index) else {
                continue;
            };
            let Some(subscriber) = self.subscribers.at_mut(index) else {
                continue;
            };
            subscriber.queued = false;
            let encoding = match subscriber.sink {
                Sink::Stream { busy: false, encoding } => encoding,
                Sink::Poll(_) => {
                    self.answer_poll(now, who, None, out);
                    continue;
                }
                Sink::Stream { busy: true, .. } | Sink::Idle => continue,
            };
            if let Some(slot) = lone_change(subscriber) {
                subscriber.pending = IdSet::new();
                let bytes = self.change_frame(slot, encoding, who.index);
                self.told(now, who.index, &[slot]);
                self.objects.hints.told(slot);
                return Some(Write {
                    who,
                    bytes,
                    last: false,
                });
            }
            if let Some(write) = self.compose(now, who, encoding, out) {
                return Some(write);
            }
        }
    }

    /// Whether [`Lane::next_write`] has something to look at.
    #[must_use]
    pub fn has_writes(&self) -> bool {
        !self.ready.is_empty()
    }

    /// About how many bytes a change takes on the wire.
    pub(super) fn change_bytes(&self, slot: u32) -> usize {
        let hint = self.objects.hints.get(slot).map_or(0, |hint| hint.bytes());
        self.objects.slot(slot).id.len() + 64 + hint
    }

    fn view(&self, slot: u32, trace: bool) -> ChangeView<'_> {
        let entry = self.objects.slot(slot);
        ChangeView {
            object: entry.id.as_str(),
            version: entry.version(),
            hint: self.objects.hints.get(slot).map(|hint| &**hint),
            trace: trace.then(|| {
                let shard = self.config.shards.shard(self.objects.hash(slot));
                (shard, self.upstream.shard(shard).epoch)
            }),
        }
    }

    /// The frame that tells of one object's newest version, shared.
    fn change_frame(&mut self, slot: u32, encoding: Encoding, index: u32) -> Bytes {
        let trace = self.subscribers.at(index).is_some_and(|s| s.trace);
        let version = self.objects.slot(slot).version();
        let place = slot as usize % CACHED;
        if let Some(cached) = &self.frames.changes[place]
            && (cached.slot, cached.version, cached.encoding, cached.trace) == (slot, version, encoding, trace)
        {
            return cached.bytes.clone();
        }
        let mut frame = Vec::with_capacity(96);
        codec::changes(encoding, &mut frame, std::iter::once(self.view(slot, trace)));
        let bytes = Bytes::from(frame);
        self.frames.changes[place] = Some(CachedChange {
            slot,
            version,
            encoding,
            trace,
            bytes: bytes.clone(),
        });
        bytes
    }

    /// Notes that changes were told; a cursor follows soon.
    fn told(&mut self, now: Now, index: u32, slots: &[u32]) {
        let changes = slots.len() as u64;
        self.counters.told += changes;
        let told_to = slots
            .iter()
            .map(|&slot| self.objects.slot(slot).version())
            .max()
            .unwrap_or_default();
        let Some(subscriber) = self.subscribers.at_mut(index) else {
            return;
        };
        // What happened before it came is caught up with, however late that is.
        let came_us = now
            .wall_us
            .saturating_sub(now.mono_us.saturating_sub(subscriber.since_us));
        for &slot in slots {
            let version = self.objects.slot(slot).version().0;
            if version >= came_us {
                self.counters.delays.record(now.wall_us.saturating_sub(version));
            }
        }
        subscriber.told += changes;
        subscriber.told_to = subscriber.told_to.max(told_to);
        if subscriber.cursor_due_us == MonoUs::MAX && !subscriber.cursor_owed {
            subscriber.cursor_due_us = now.mono_us + self.config.cursor_us;
            let due_us = subscriber.cursor_due_us;
            self.wheel.schedule(subscriber, index, due_us);
        }
    }

    /// Everything one subscriber is due, up to a batch.
    fn compose(&mut self, now: Now, who: SubscriberKey, encoding: Encoding, out: &mut Vec<Output>) -> Option<Write> {
        let index = who.index;
        let subscriber = self.subscribers.at_mut(index)?;
        let mut frame = std::mem::take(&mut subscriber.reply);
        let answered = !frame.is_empty();
        self.write_resync(index, encoding, &mut frame);
        let more = self.write_changes(now, index, encoding, &mut frame);
        self.write_stale(index, encoding, answered, &mut frame);
        self.write_cursor(now, index, encoding, &mut frame);
        let subscriber = self.subscribers.at_mut(index)?;
        let last = subscriber.farewell.is_some();
        if let Some(farewell) = subscriber.farewell.take() {
            write_farewell(&farewell, index, encoding, &mut frame);
        }
        if last {
            self.forget(now, index);
        } else {
            if more {
                self.make_ready(index);
            }
            if answered {
                self.offer_request(who, out);
            }
            if frame.is_empty() {
                return None;
            }
        }
        Some(Write {
            who,
            bytes: Bytes::from(frame),
            last,
        })
    }

    fn write_resync(&mut self, index: u32, encoding: Encoding, frame: &mut Vec<u8>) {
        let Some(subscriber) = self.subscribers.at_mut(index) else {
            return;
        };
        let mut all = std::mem::take(&mut subscriber.resync);
        if let Some(page) = &subscriber.page {
            // What concerns a page is told after the page's answer.
            subscriber.resync = all
                .iter_mut()
                .filter_map(|resync| resync.split_off(&page.slots))
                .collect();
            all.retain(|resync| !resync.slots.is_empty());
        }
        let total: usize = all.iter().map(|r| r.slots.len()).sum();
        for resync in &all {
            if total == subscriber.slots.len() && all.len() == 1 {
                codec::resync_all(encoding, frame, resync.cause);
            } else {
                let slots = resync.slots.to_vec();
                let objects = &self.objects;
                codec::resync(
                    encoding,
                    frame,
                    slots.iter().map(|&slot| objects.slot(slot).id.as_str()),
                    resync.cause,
                );
            }
        }
    }

    /// Writes the pending changes that may be told, up to a batch; says whether some are left for another write.
    fn write_changes(&mut self, now: Now, index: u32, encoding: Encoding, frame: &mut Vec<u8>) -> bool {
        let Some(subscriber) = self.subscribers.at(index) else {
            return false;
        };
        if subscriber.pending.is_empty() {
            return false;
        }
        let page = subscriber.page.as_ref();
        let mut left = self.config.batch_bytes;
        let mut slots = Vec::new();
        let mut more = false;
        let mut from = 0;
        while let Some(slot) = subscriber.pending.first_from(from) {
            from = slot + 1;
            if page.is_some_and(|page| page.slots.contains(slot)) {
                continue;
            }
            let bytes = self.change_bytes(slot);
            if bytes > left && !slots.is_empty() {
                more = true;
                break;
            }
            left = left.saturating_sub(bytes);
            slots.push(slot);
        }
        if slots.is_empty() {
            return false;
        }
        let trace = subscriber.trace;
        codec::changes(encoding, frame, slots.iter().map(|&slot| self.view(slot, trace)));
        if let Some(subscriber) = self.subscribers.at_mut(index) {
            if slots.len() == subscriber.pending.len() {
                subscriber.pending = IdSet::new();
            } else {
                slots.iter().for_each(|&slot| {
                    subscriber.pending.remove(slot);
                });
            }
        }
        slots.iter().for_each(|&slot| self.objects.hints.told(slot));
        self.told(now, index, &slots);
        more
    }

    /// Writes the cursor that is owed if it vouches for everything (rule R4), and the heartbeat.
    fn write_cursor(&mut self, now: Now, index: u32, encoding: Encoding, frame: &mut Vec<u8>) {
        let (pong_us, cursor_us, base) = (self.config.pong_us, self.config.cursor_us, self.upstream.place.base);
        let Some(subscriber) = self.subscribers.at_mut(index) else {
            return;
        };
        if subscriber.cursor_owed && subscriber.drained() && base > Version::ZERO {
            subscriber.cursor_owed = false;
            subscriber.cursor_due_us = MonoUs::MAX;
            subscriber.last_cursor = base;
            if base < subscriber.told_to {
                // It does not vouch for all that was told yet: another one will.
                subscriber.cursor_due_us = now.mono_us + cursor_us;
                let due_us = subscriber.cursor_due_us;
                self.wheel.schedule(subscriber, index, due_us);
            }
            let bytes = self.cursor_frame(encoding);
            frame.extend_from_slice(&bytes);
        }
        let Some(subscriber) = self.subscribers.at_mut(index) else {
            return;
        };
        if subscriber.ping_owed {
            subscriber.ping_owed = false;
            match encoding {
                Encoding::EventStream => codec::comment(frame),
                Encoding::WebSocketJson | Encoding::WebSocketMessagePack => {
                    codec::ws_ping(frame);
                    let due_us = now.mono_us + pong_us;
                    subscriber.pong_due_us = Some(due_us);
                    self.wheel.schedule(subscriber, index, due_us);
                }
            }
        }
    }

    /// The cursor of everyone who was told everything, shared.
    fn cursor_frame(&mut self, encoding: Encoding) -> Bytes {
        if let Some((_, bytes)) = self.frames.cursors.iter().find(|(e, _)| *e == encoding) {
            return bytes.clone();
        }
        let mut frame = Vec::new();
        codec::cursor(encoding, &mut frame, &self.place_text());
        let bytes = Bytes::from(frame);
        self.frames.cursors.push((encoding, bytes.clone()));
        bytes
    }

    /// The text of the lane's place as a cursor.
    pub(super) fn place_text(&self) -> String {
        let cursor: Cursor = self.upstream.place.cursor(self.config.cluster, Vec::new());
        cursor
            .encode()
            .or_else(|_| cursor.coarser().encode())
            .unwrap_or_default()
    }

    /// Sends a subscriber away: it is told what is pending (one batch), then why, then closed.
    pub fn dismiss(
        &mut self,
        now: Now,
        who: SubscriberKey,
        code: CloseCode,
        reason: &'static str,
        after_ms: Option<u64>,
        out: &mut Vec<Output>,
    ) {
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        match subscriber.sink {
            Sink::Poll(_) => self.poll_over(now, who, after_ms, out),
            Sink::Idle => self.forget(now, who.index),
            Sink::Stream { .. } => {
                subscriber.farewell = Some(Box::new(Farewell {
                    code,
                    reason,
                    after_ms,
                    to: None,
                }));
                self.make_ready(who.index);
            }
        }
    }

    /// The client ended the connection: it gets what was answered, and no other farewell.
    pub fn end(&mut self, now: Now, who: SubscriberKey, out: &mut Vec<Output>) {
        self.dismiss(now, who, CloseCode::Ended, "", None, out);
    }

    /// Sends one away, to come back elsewhere after this delay.
    pub fn send_away(&mut self, now: Now, who: SubscriberKey, leave: &Leave, after_ms: u64, out: &mut Vec<Output>) {
        self.dismiss(now, who, leave.code, leave.reason, Some(after_ms), out);
        let farewell = self.subscribers.get_mut(who).and_then(|gone| gone.farewell.as_mut());
        if let Some(farewell) = farewell {
            farewell.to = Some(Arc::clone(&leave.to));
        }
    }

    /// Sends everyone away; `after_ms` is asked for each one's delay.
    pub fn send_all_away(&mut self, now: Now, leave: &Leave, mut after_ms: impl FnMut() -> u64, out: &mut Vec<Output>) {
        for index in self.subscribers.indices() {
            if let Some(who) = self.subscribers.key(index) {
                self.send_away(now, who, leave, after_ms(), out);
            }
        }
    }
}

/// The common case: one pending change and nothing else to say.
fn lone_change(subscriber: &Subscriber) -> Option<u32> {
    let plain = subscriber.reply.is_empty()
        && subscriber.page.is_none()
        && subscriber.resync.is_empty()
        && subscriber.farewell.is_none()
        && !subscriber.cursor_owed
        && subscriber.stale == subscriber.stale_told
        && !subscriber.ping_owed;
    match subscriber.pending {
        IdSet::One(slot) if plain => Some(slot),
        _ => None,
    }
}

/// Each is named the same places, and another of them first: they spread.
fn write_farewell(farewell: &Farewell, index: u32, encoding: Encoding, frame: &mut Vec<u8>) {
    if let Some(after_ms) = farewell.after_ms {
        let mut to: Vec<&str> = farewell.to.iter().flat_map(|to| to.iter().map(|url| &**url)).collect();
        if !to.is_empty() {
            let first = index as usize % to.len();
            to.rotate_left(first);
        }
        codec::reconnect(encoding, frame, after_ms, farewell.reason, &to);
    }
    if encoding != Encoding::EventStream && farewell.code != CloseCode::Ended {
        codec::ws_close(frame, farewell.code.number(), farewell.reason);
    }
}
