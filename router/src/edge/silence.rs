//! Subscribers of shards from which nothing is heard are told so, and told again when that is over: they are not left guessing
//! whether nothing changed or nothing arrives.
//!
//! An owner that lives closes versions all the time. A shard whose closed version stands still for long is one that this edge is cut off
//! from, or one that nobody owns; which of both is not known here.

use super::Lane;
use super::subscribers::Sink;
use crate::now::{MonoUs, Now};
use tidings_protocol::codec::{self, Encoding};
use tidings_protocol::{ShardId, Version};

/// From one look to the next.
const LOOK_US: u64 = 1_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// How long a shard's closed version may stand still; `None`: nobody looks.
    after_us: Option<u64>,
    due_us: MonoUs,
    /// What each shard had closed when it last moved, and when that was seen.
    moved: Vec<(Version, MonoUs)>,
    silent: Vec<bool>,
    any: bool,
}

impl Silence {
    /// Looks at the shards' closed versions. Whether other shards are silent than before.
    fn look(&mut self, now_us: MonoUs, closed: impl Iterator<Item = Version>) -> bool {
        let Some(after_us) = self.after_us else { return false };
        // Whoever comes late slept, and so perhaps did what is to be heard: all get their time anew.
        let late = now_us.saturating_sub(self.due_us) > LOOK_US;
        self.due_us = now_us + LOOK_US;
        let before = std::mem::take(&mut self.silent);
        for (shard, closed) in closed.enumerate() {
            match self.moved.get_mut(shard) {
                Some(moved) if closed > moved.0 || late => *moved = (closed, now_us),
                Some(_) => {}
                None => self.moved.push((closed, now_us)),
            }
        }
        let silent = self
            .moved
            .iter()
            .map(|(_, since_us)| now_us.saturating_sub(*since_us) >= after_us);
        self.silent = silent.collect();
        self.any = self.silent.contains(&true);
        self.silent != before
    }

    fn is_silent(&self, shard: ShardId) -> bool {
        self.silent.get(usize::from(shard.0)).copied().unwrap_or_default()
    }
}

impl Lane {
    /// Subscribers on streams are told when nothing was heard of a shard of theirs for so long, in microseconds. Without a word
    /// about it they are not: on a node that is alone owners are always heard.
    pub fn tell_silence_after(&mut self, now: Now, after_us: u64) {
        self.silence.after_us = Some(after_us);
        self.silence.due_us = now.mono_us;
    }

    /// The newest version that the owner of any shard closed.
    pub(super) fn newest_closed(&self) -> Version {
        let shards = self.config.shards.all();
        shards
            .map(|shard| self.upstream.shard(shard).closed)
            .max()
            .unwrap_or(Version::ZERO)
    }

    pub(super) fn silence_due_us(&self) -> Option<MonoUs> {
        self.silence.after_us.map(|_| self.silence.due_us)
    }

    /// Looks which shards are silent, and has those told whom it concerns.
    pub(super) fn look_for_silence(&mut self, now: Now) {
        if self.silence_due_us().is_none_or(|due_us| now.mono_us < due_us) {
            return;
        }
        let closed = self.config.shards.all().map(|shard| self.upstream.shard(shard).closed);
        if self.silence.look(now.mono_us, closed) {
            for index in self.subscribers.indices() {
                self.concern(index);
            }
        }
    }

    /// Notes whether a subscriber watches an object of a silent shard, and has it told if that is news.
    fn concern(&mut self, index: u32) {
        let (objects, silence, shards) = (&self.objects, &self.silence, self.config.shards);
        let Some(subscriber) = self.subscribers.at_mut(index) else {
            return;
        };
        if !matches!(subscriber.sink, Sink::Stream { .. }) {
            return;
        }
        let mut stale = false;
        if silence.any {
            let of = |slot| silence.is_silent(shards.shard(objects.hash(slot)));
            subscriber.slots.for_each(|slot| stale |= of(slot));
        }
        subscriber.stale = stale;
        if subscriber.stale != subscriber.stale_told {
            self.make_ready(index);
        }
    }

    /// Writes what is to be said about it. `anew`: it may watch other objects now, or on another stream.
    pub(super) fn write_stale(&mut self, index: u32, encoding: Encoding, anew: bool, frame: &mut Vec<u8>) {
        if anew && self.silence.any {
            self.concern(index);
        }
        let Some(subscriber) = self.subscribers.at_mut(index) else {
            return;
        };
        if subscriber.stale != subscriber.stale_told {
            subscriber.stale_told = subscriber.stale;
            codec::stale(encoding, frame, subscriber.stale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    fn looking() -> Silence {
        Silence {
            after_us: Some(5 * S),
            ..Silence::default()
        }
    }

    #[test]
    fn a_shard_that_stands_still_is_silent_after_its_time_and_no_more_when_it_moves() {
        let mut silence = looking();
        let mut fast = 0;
        for second in 1..=5 {
            fast += 1;
            assert!(!silence.look(second * S, [Version(7), Version(fast)].into_iter()) || second == 1);
            assert!(!silence.any, "second {second}");
        }
        assert!(silence.look(6 * S, [Version(7), Version(9)].into_iter()));
        assert!(silence.is_silent(ShardId(0)) && !silence.is_silent(ShardId(1)));
        assert!(silence.look(7 * S, [Version(8), Version(10)].into_iter()));
        assert!(!silence.any);
    }

    #[test]
    fn whoever_slept_gives_all_their_time_anew() {
        let mut silence = looking();
        silence.look(S, [Version(7)].into_iter());
        silence.look(60 * S, [Version(7)].into_iter());
        assert!(!silence.any, "nobody could be heard meanwhile");
    }
}
