//! When subscribers want to be looked at again: heartbeats, cursors, pongs, stuck sinks.
//!
//! A coarse wheel: a subscriber stands in it once for its earliest wish (and for a few later ones, which are then found
//! stale). What is due is decided by the subscriber's own fields, not by the wheel.

use super::subscribers::{Sink, Subscriber, SubscriberKey};
use super::{Lane, Output};
use crate::now::{MonoUs, Now};
use std::collections::BTreeMap;
use tidings_protocol::close::CloseCode;
use tidings_protocol::codec::Encoding;

/// How far apart two looks are, at least.
const TICK_US: u64 = 50_000;

#[derive(Debug, Default)]
pub(super) struct Wheel {
    /// By tick: the subscribers to look at.
    ticks: BTreeMap<u64, Vec<SubscriberKey>>,
}

impl Wheel {
    /// Asks for a look at `at_us` or a little later, unless an earlier one is due anyway.
    pub(super) fn schedule(&mut self, subscriber: &mut Subscriber, index: u32, at_us: MonoUs) {
        if at_us >= subscriber.wheel_us {
            return;
        }
        let tick = at_us.div_ceil(TICK_US);
        let stands = std::mem::replace(&mut subscriber.wheel_us, tick * TICK_US);
        if subscriber.wheel_us == subscriber.wheel_later_us {
            // The place it took before something more urgent came is still its own.
            subscriber.wheel_later_us = MonoUs::MAX;
            return;
        }
        if stands != MonoUs::MAX {
            subscriber.wheel_later_us = stands;
        }
        let who = SubscriberKey {
            index,
            generation: subscriber.generation,
        };
        self.ticks.entry(tick).or_default().push(who);
    }

    pub(super) fn next_deadline(&self) -> Option<MonoUs> {
        self.ticks.keys().next().map(|tick| tick * TICK_US)
    }

    fn pop(&mut self, now_us: MonoUs) -> Option<Vec<SubscriberKey>> {
        let entry = self.ticks.first_entry()?;
        (entry.key() * TICK_US <= now_us).then(|| entry.remove())
    }
}

impl Lane {
    /// The first heartbeat of a new stream.
    pub(super) fn schedule_heartbeat(&mut self, now: Now, who: SubscriberKey) {
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        let every_us = match subscriber.sink.encoding() {
            None => return,
            Some(Encoding::EventStream) => self.config.comment_us,
            Some(Encoding::WebSocketJson | Encoding::WebSocketMessagePack) => self.config.ping_us,
        };
        subscriber.heartbeat_due_us = now.mono_us + every_us;
        let due_us = subscriber.heartbeat_due_us;
        self.wheel.schedule(subscriber, who.index, due_us);
    }

    pub(super) fn run_wheel(&mut self, now: Now, out: &mut Vec<Output>) {
        while let Some(due) = self.wheel.pop(now.mono_us) {
            for who in due {
                self.look_at(now, who, out);
            }
        }
        self.expire_sessions(now);
    }

    fn look_at(&mut self, now: Now, who: SubscriberKey, out: &mut Vec<Output>) {
        let now_us = now.mono_us;
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        if subscriber.wheel_later_us <= now_us {
            subscriber.wheel_later_us = MonoUs::MAX;
        }
        if subscriber.wheel_us > now_us {
            return;
        }
        subscriber.wheel_us = MonoUs::MAX;
        if subscriber
            .page
            .as_ref()
            .and_then(|p| p.at_least_until_us)
            .is_some_and(|at| at <= now_us)
        {
            self.at_least_over(now, who, out);
        }
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        if subscriber.sink.busy() {
            // Silence is not the client's fault while our own output is in the way: no ping, no pong deadline.
            let stuck_us = subscriber.stuck_since_us + self.config.stuck_us;
            if stuck_us <= now_us {
                self.counters.stuck += 1;
                out.push(Output::Cut {
                    who,
                    code: CloseCode::NoProgress,
                });
                self.forget(now, who.index);
                return;
            }
            self.wheel.schedule(subscriber, who.index, stuck_us);
        } else if subscriber.pong_due_us.is_some_and(|at| at <= now_us) {
            self.counters.no_pong += 1;
            self.counters.refusals.no_pong += 1;
            subscriber.pong_due_us = None;
            self.dismiss(now, who, CloseCode::NoPong, "no_pong", None, out);
            return;
        }
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        if subscriber.cursor_due_us <= now_us {
            // A cursor that says no more than the last one is not worth a write.
            if self.upstream.place.base > subscriber.last_cursor {
                subscriber.cursor_due_us = MonoUs::MAX;
                subscriber.cursor_owed = true;
            } else {
                subscriber.cursor_due_us = now_us + self.config.cursor_us;
            }
        }
        if subscriber.heartbeat_due_us <= now_us {
            subscriber.ping_owed = true;
            subscriber.cursor_owed = true;
            subscriber.heartbeat_due_us = MonoUs::MAX;
            self.schedule_heartbeat(now, who);
        }
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return;
        };
        let page_us = subscriber.page.as_ref().and_then(|p| p.at_least_until_us);
        let wishes = [
            Some(subscriber.cursor_due_us),
            Some(subscriber.heartbeat_due_us),
            if matches!(subscriber.sink, Sink::Stream { busy: false, .. }) {
                subscriber.pong_due_us
            } else {
                None
            },
            page_us,
        ];
        if let Some(next_us) = wishes.into_iter().flatten().min().filter(|&us| us != MonoUs::MAX) {
            self.wheel.schedule(subscriber, who.index, next_us);
        }
        if subscriber.cursor_owed || subscriber.ping_owed {
            self.make_ready(who.index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::subscribers::SinkKind;
    use crate::edge::{Config, Page};
    use tidings_protocol::client::Entry;
    use tidings_protocol::peer::{Changed, FloorCause, Owned, OwnerToEdge};
    use tidings_protocol::{ClusterId, Epoch, HashKey, ShardCount, ShardId, Version};

    fn lane() -> Lane {
        Lane::new(Config {
            cluster: ClusterId(1),
            key: HashKey::new([0; 16]),
            shards: ShardCount::new(1).expect("a power of two"),
            owners: 1,
            objects_per_subscriber: 10,
            subscriptions: 1000,
            batch_bytes: 1000,
            hint_bytes: 1000,
            cursor_us: 100_000,
            ping_us: 25_000_000,
            comment_us: 15_000_000,
            pong_us: 10_000_000,
            stuck_us: 60_000_000,
            linger_us: 1_000_000,
            lingering_objects: 10,
            session_us: 1_000_000,
            idle_sessions: 10,
            at_least_us: 1_000_000,
            handled_every: 100,
        })
    }

    #[test]
    fn a_busy_subscriber_stands_in_the_wheel_only_a_few_times() {
        let mut lane = lane();
        let object = lane.config.key.object("a");
        let mut now = Now {
            mono_us: 1_000_000,
            wall_us: 1_000_000,
        };
        let mut out = Vec::new();
        let owned = Owned {
            shard: ShardId(0),
            epoch: Epoch(1),
            floor: Version::ZERO,
            cause: FloorCause::Lost,
        };
        lane.owner_up(now, 0, 1, &mut out);
        lane.owner_frames(now, 0, 1, vec![OwnerToEdge::Own { shards: vec![owned] }], &mut out);
        let who = lane.connect(now, SinkKind::Stream(Encoding::WebSocketJson), false);
        let entry = Entry {
            object: "a".into(),
            version: None,
            at_least: None,
        };
        let page = Page {
            entries: vec![Ok(entry)],
            ..Page::default()
        };
        lane.subscribe(now, who, page, &mut out).expect("known");
        let answer = OwnerToEdge::Registered {
            objects: vec![(object, Version::ZERO)],
        };
        lane.owner_frames(
            now,
            0,
            1,
            vec![answer, OwnerToEdge::Closed { version: Version(9) }],
            &mut out,
        );
        for round in 1..=100 {
            now.mono_us += 200_000;
            let version = Version(10 + round);
            let changes = vec![Changed {
                object,
                version,
                hint: None,
            }];
            let frames = vec![OwnerToEdge::Changed { changes }, OwnerToEdge::Closed { version }];
            lane.owner_frames(now, 0, 1, frames, &mut out);
            while lane.next_write(now, &mut out).is_some() {}
            lane.handle_deadline(now, &mut out);
            let standing: usize = lane.wheel.ticks.values().map(Vec::len).sum();
            assert!(standing <= 3, "{standing} times after {round} changes");
        }
    }
}
