//! What arrives on the roads between the nodes of the world, and what comes of it.

use super::world::{Word, World};
use std::collections::VecDeque;
use tidings_protocol::copy::Entry;
use tidings_router::control::map::Process;
use tidings_router::copies::receiver;
use tidings_router::owner::keeping::KeptAnswer;

impl World {
    /// A word arrives.
    pub fn deliver(&mut self) {
        let due: Vec<(usize, usize)> = self
            .roads
            .iter()
            .filter(|(_, road)| road.front().is_some_and(|(at, ..)| *at <= self.now.mono_us))
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            let Some((_, from, to, word)) = self.roads.get_mut(&key).and_then(VecDeque::pop_front) else {
                continue;
            };
            let fits = self.nodes[key.1]
                .as_ref()
                .is_some_and(|node| node.me == to && node.open);
            if fits {
                self.hear(key.1, from, word);
            }
        }
    }

    fn hear(&mut self, index: usize, from: Process, word: Word) {
        match word {
            Word::Batch(arrived) => {
                let mut out = Vec::new();
                let now = self.now;
                for entry in &arrived.entries {
                    let (shard, epoch) = entry.of();
                    let owned = self.nodes[index]
                        .as_ref()
                        .and_then(|node| node.owns.get(&shard).copied());
                    if owned.is_some_and(|owned| owned < epoch) {
                        self.tally.deposed += 1;
                        self.release(index, shard);
                    }
                }
                let Some(node) = &mut self.nodes[index] else { return };
                let gap = node.receiver.take(now, from, arrived, &mut out).is_err();
                if gap {
                    self.cut(index, Self::index(from));
                }
                for output in out {
                    self.receiver_says(index, &output);
                }
            }
            Word::Confirmed(life, written, synced) => self.on(index, |node, now, out| {
                assert!(node.sender.confirmed(now, from, life, (written, synced), out));
            }),
            Word::Lacks(batch, of) => {
                self.tally.lacked += 1;
                self.on(index, |node, _, _| node.sender.lacks(from, batch, of, &node.owner));
            }
            Word::Refused(shard, epoch) => {
                self.on(index, |node, _, out| node.sender.refused(shard, epoch, out));
            }
        }
    }

    fn receiver_says(&mut self, index: usize, output: &receiver::Output) {
        match *output {
            receiver::Output::Write {
                from,
                life,
                place,
                sync,
                ref entries,
                ..
            } => {
                for entry in entries {
                    self.keep_marks(index, entry);
                }
                let synced = if sync { place } else { 0 };
                self.send(index, from, Word::Confirmed(life, place, synced));
            }
            receiver::Output::Lack {
                to,
                life,
                place,
                shard,
                epoch,
                ..
            } => self.send(index, to, Word::Lacks((life, place), (shard, epoch))),
            receiver::Output::Refuse { to, shard, epoch, .. } => self.send(index, to, Word::Refused(shard, epoch)),
            receiver::Output::Newer { shard, epoch } => {
                let owned = self.nodes[index]
                    .as_ref()
                    .and_then(|node| node.owns.get(&shard).copied());
                if owned.is_some_and(|owned| owned < epoch) {
                    self.release(index, shard);
                }
            }
            receiver::Output::Dropped { .. } => {}
        }
    }

    fn keep_marks(&mut self, index: usize, entry: &Entry) {
        let (Entry::Marks { answers, .. }, Some(node)) = (entry, &mut self.nodes[index]) else {
            return;
        };
        for answer in answers {
            let kept = KeptAnswer {
                key: receiver::wide(answer.key),
                version: answer.version,
                wall_us: answer.wall_us,
            };
            node.owner.restore_answer(kept, self.now);
        }
    }
}
