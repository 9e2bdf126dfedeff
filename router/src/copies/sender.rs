//! The owner's side: brings copies level, sends them every change, and knows who has confirmed what.
//!
//! An acknowledgement that is to survive the owner waits for everyone in the in-sync set, and for everyone who was or may be
//! proposed to it, until the map tells otherwise (rule R6). So a part in a shard begins and ends only by what the map says.

use super::pieces::MARKS_AT_ONCE;
pub use super::stream::Batch;
use super::stream::Stream;
use crate::control::map::{Process, Shard};
use crate::now::{MonoUs, Now};
use crate::owner::Owner;
use crate::owner::keeping::Floor;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tidings_protocol::copy::{CopiedAnswer, CopiedRevision, Entry};
use tidings_protocol::{Epoch, ObjectHash, ShardCount, ShardId};

/// Bounds and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many shards there are.
    pub shards: ShardCount,
    /// While more bytes than this wait to be confirmed on a stream, it is given no more pieces of what a copy lacks.
    pub window_bytes: usize,
    /// While more bytes than this wait on any stream, no more changes should be taken.
    pub queue_bytes: usize,
    /// A copy that confirms nothing for so long, in microseconds, while something waits for it, is to be taken out.
    pub silence_us: u64,
    /// From one proposal to its repetition while the map does not show what became of it, in microseconds.
    pub again_us: u64,
}

/// What should be agreed. It counts when it was applied, on the condition of the epoch and set it was seen with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// This one has everything, and is waited for from here on.
    Join {
        /// The shard.
        shard: ShardId,
        /// Its epoch.
        epoch: Epoch,
        /// Who.
        member: Process,
    },
    /// This one does not answer.
    Remove {
        /// The shard.
        shard: ShardId,
        /// Its epoch.
        epoch: Epoch,
        /// Who.
        member: Process,
    },
    /// Everything acknowledged is on this one, and nothing more will be: it may own the shard.
    HandOver {
        /// The shard.
        shard: ShardId,
        /// Its epoch.
        epoch: Epoch,
        /// To whom.
        to: Process,
    },
}

/// What a sender wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a batch. Batches to one process stay in order.
    Send {
        /// To whom.
        to: Process,
        /// This.
        batch: Batch,
    },
    /// Everybody whom this request waited for has confirmed.
    Confirmed {
        /// The request.
        request: u64,
    },
    /// The shard went elsewhere while this request waited: whether its changes are known there is not known here.
    Lost {
        /// The request.
        request: u64,
    },
    /// Have this agreed.
    Propose(Wish),
    /// A copy knows of a newer epoch: the shard is owned here no more.
    Deposed {
        /// The shard.
        shard: ShardId,
        /// The newer epoch.
        epoch: Epoch,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Marks, then versions, from this piece on are still to be sent.
    Sending(usize),
    /// Everything was sent up to this batch.
    Sent(u64),
    /// It has everything that was known when it was waited for, and all since as far as the stream is confirmed.
    Reached,
}

/// One process's part in one shard.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) epoch: Epoch,
    pub(super) level: Level,
    /// The batch with the last `Begin`.
    begun: u64,
    /// The last batch that says anything of the shard, pieces of what a copy lacks apart.
    pub(super) last: u64,
    pub(super) in_sync: bool,
    /// Acknowledgements wait for it.
    pub(super) waited_for: bool,
    /// Requests that wait, with the batch and whether it is to be synced.
    waits: VecDeque<(u64, bool, u64)>,
    proposed_us: Option<MonoUs>,
}

/// See the module.
#[derive(Debug)]
pub struct Sender {
    pub(super) config: Config,
    pub(super) me: Process,
    connected: BTreeSet<Process>,
    pub(super) epochs: BTreeMap<ShardId, Epoch>,
    /// The newest epoch that a copy named when it refused an older one.
    pub(super) newer: BTreeMap<ShardId, Epoch>,
    /// How often something was agreed about the shard, as far as was heeded.
    turns: BTreeMap<ShardId, u64>,
    pub(super) parts: BTreeMap<(ShardId, Process), Part>,
    pub(super) streams: BTreeMap<Process, Stream>,
    /// How many parts a request still waits for.
    requests: BTreeMap<u64, usize>,
    /// Parts whose copy lacks pieces.
    pub(super) sending: BTreeSet<(ShardId, Process)>,
    /// Shards that are being handed over, to whom, and when that was proposed.
    pub(super) leaving: BTreeMap<ShardId, (Process, Option<MonoUs>)>,
    pub(super) look_us: MonoUs,
}

impl Sender {
    /// One without copies.
    #[must_use]
    pub fn new(me: Process, config: Config) -> Self {
        Self {
            config,
            me,
            connected: BTreeSet::new(),
            epochs: BTreeMap::new(),
            newer: BTreeMap::new(),
            turns: BTreeMap::new(),
            parts: BTreeMap::new(),
            streams: BTreeMap::new(),
            requests: BTreeMap::new(),
            sending: BTreeSet::new(),
            leaving: BTreeMap::new(),
            look_us: 0,
        }
    }

    /// The map as it is now, of a shard that is owned here. Called before anything is acknowledged in a new epoch, and
    /// whenever the map has changed.
    pub fn heed(&mut self, now: Now, id: ShardId, shard: &Shard, owner: &Owner, out: &mut Vec<Output>) {
        if self.epochs.get(&id).is_some_and(|epoch| *epoch > shard.epoch) {
            return;
        }
        let begins = self.epochs.insert(id, shard.epoch) != Some(shard.epoch);
        if begins {
            self.leaving.remove(&id);
        } else {
            self.reconsider(id, shard.moving);
        }
        if self.turns.insert(id, shard.turn) != Some(shard.turn) {
            self.propose_anew(id);
        }
        let named = |process: &Process| shard.in_sync.contains(process) || shard.filling.contains(process);
        let gone: Vec<Process> = self.members(id).filter(|process| !named(process)).collect();
        for process in gone {
            self.end_part(id, process, out);
        }
        for process in &shard.in_sync {
            self.tend(id, shard, *process, true, begins, owner);
        }
        for process in &shard.filling {
            self.tend(id, shard, *process, false, begins, owner);
        }
        if let Some(to) = shard.moving.filter(|to| shard.in_sync.contains(to)) {
            self.leaving.entry(id).or_insert((to, None));
        }
        self.look_us = now.mono_us;
    }

    /// Some proposals came to nothing, or nobody knows what became of them: all are made again at the next look.
    pub fn retry(&mut self, now: Now) {
        let shards: Vec<ShardId> = self.epochs.keys().copied().collect();
        shards.into_iter().for_each(|id| self.propose_anew(id));
        self.look_us = now.mono_us;
    }

    /// Something was agreed about the shard: what was proposed before was applied with it or never will be, because it took the
    /// turn before for granted.
    fn propose_anew(&mut self, id: ShardId) {
        for (_, part) in range_mut(&mut self.parts, id) {
            part.proposed_us = None;
        }
        if let Some((_, proposed_us)) = self.leaving.get_mut(&id) {
            *proposed_us = None;
        }
    }

    fn tend(&mut self, id: ShardId, shard: &Shard, process: Process, in_sync: bool, begins: bool, owner: &Owner) {
        let known = self.parts.get_mut(&(id, process)).filter(|_| !begins);
        if let Some(part) = known {
            if part.in_sync != in_sync {
                part.proposed_us = None;
            }
            part.in_sync = in_sync;
            return;
        }
        let Some(floor) = owner.kept_floor(id) else { return };
        let up = self.connected.contains(&process);
        let stream = self.streams.entry(process).or_insert_with(|| Stream::new(up));
        stream.push(begin(id, shard.epoch, !in_sync, floor));
        // Requests of the epoch before wait on: what they wait for goes out again with the rest.
        let waits = self.parts.remove(&(id, process)).map(|part| part.waits);
        let part = Part {
            epoch: shard.epoch,
            level: Level::Sending(0),
            begun: stream.last_place(),
            last: stream.last_place(),
            in_sync,
            // Whom the map names in sync is waited for from the first word of the epoch on (rule R5).
            waited_for: in_sync,
            waits: waits.unwrap_or_default(),
            proposed_us: None,
        };
        self.parts.insert((id, process), part);
        self.sending.insert((id, process));
    }

    /// The shard is owned here no more. Requests that waited for its copies are never confirmed.
    pub fn end(&mut self, id: ShardId, out: &mut Vec<Output>) {
        self.epochs.remove(&id);
        self.newer.remove(&id);
        self.turns.remove(&id);
        self.leaving.remove(&id);
        let members: Vec<Process> = self.members(id).collect();
        for process in members {
            if let Some(part) = self.parts.remove(&(id, process)) {
                for (_, _, request) in part.waits {
                    if self.requests.remove(&request).is_some() {
                        out.push(Output::Lost { request });
                    }
                }
            }
            self.sending.remove(&(id, process));
        }
        self.drop_idle_streams();
    }

    /// The connection to a process came up or broke. What was not confirmed is sent again.
    pub fn link(&mut self, now: Now, to: Process, up: bool, out: &mut Vec<Output>) {
        if up {
            self.connected.insert(to);
        } else {
            self.connected.remove(&to);
        }
        let Some(stream) = self.streams.get_mut(&to) else {
            return;
        };
        stream.up = up;
        if up {
            out.extend(stream.again().map(|batch| Output::Send { to, batch }));
        } else {
            self.drop_idle_streams();
        }
        self.look_us = now.mono_us;
    }

    /// Whom this owner sends to.
    pub fn processes(&self) -> impl Iterator<Item = Process> {
        self.streams.keys().copied()
    }

    /// Forgets processes that are no more, except those that have a part in some shard still.
    pub fn forget_processes(&mut self, lives: impl Fn(Process) -> bool) {
        let used: BTreeSet<Process> = self.parts.keys().map(|(_, process)| *process).collect();
        self.streams
            .retain(|process, _| used.contains(process) || lives(*process));
        self.connected
            .retain(|process| used.contains(process) || lives(*process));
    }

    /// Whether nobody has, or is to have, a copy of anything.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.parts.is_empty()
    }

    /// Copies that have not everything yet, and the bytes that are not confirmed.
    #[must_use]
    pub fn behind(&self) -> (usize, usize) {
        let behind = self
            .parts
            .values()
            .filter(|part| part.level != Level::Reached || !part.in_sync);
        (behind.count(), self.streams.values().map(Stream::bytes).sum())
    }

    /// Whether anybody has, or is to have, a copy of the shard.
    #[must_use]
    pub fn is_copied(&self, id: ShardId) -> bool {
        self.members(id).next().is_some()
    }

    /// Objects of a shard got these versions.
    pub fn versions(&mut self, shard: ShardId, versions: &[(ObjectHash, tidings_protocol::Version)]) {
        self.tell(shard, |epoch| Entry::Versions {
            shard,
            epoch,
            versions: versions.to_vec(),
        });
    }

    /// Revisions and answers to idempotency keys of a shard.
    pub fn marks(&mut self, shard: ShardId, revisions: &[CopiedRevision], answers: &[CopiedAnswer]) {
        for revisions in revisions.chunks(MARKS_AT_ONCE) {
            self.tell(shard, |epoch| Entry::Marks {
                shard,
                epoch,
                revisions: revisions.to_vec(),
                answers: Vec::new(),
            });
        }
        for answers in answers.chunks(MARKS_AT_ONCE) {
            self.tell(shard, |epoch| Entry::Marks {
                shard,
                epoch,
                revisions: Vec::new(),
                answers: answers.to_vec(),
            });
        }
    }

    /// The floor of a shard rose.
    pub fn floor(&mut self, shard: ShardId, floor: Floor) {
        self.tell(shard, |epoch| Entry::Floor {
            shard,
            epoch,
            floor: floor.version,
            cause: floor.cause,
        });
    }

    fn tell(&mut self, shard: ShardId, entry: impl Fn(Epoch) -> Entry) {
        for ((_, process), part) in range_mut(&mut self.parts, shard) {
            if let Some(stream) = self.streams.get_mut(process) {
                stream.push(entry(part.epoch));
                part.last = stream.last_place();
            }
        }
    }

    /// A request touched these shards (each once), with changes or with words about earlier ones ("duplicate"): whether it has
    /// to wait for copies. If so, [`Output::Confirmed`] follows, unless the shard goes elsewhere first.
    pub fn request(&mut self, request: u64, shards: &[ShardId], sync: bool) -> bool {
        let mut waits = 0;
        for shard in shards {
            let deposed = self.is_deposed(*shard);
            for ((_, process), part) in range_mut(&mut self.parts, *shard) {
                let Some(stream) = self.streams.get_mut(process).filter(|_| part.waited_for || deposed) else {
                    continue;
                };
                // What was said of other shards since is nothing to wait for, but a sync comes with the batch that asks for it.
                let reached = if sync { stream.synced } else { stream.written };
                if part.level == Level::Reached && part.last <= reached && !deposed {
                    continue;
                }
                if sync {
                    stream.want_sync();
                }
                let place = if sync { stream.last_place() } else { part.last };
                part.waits.push_back((place, sync, request));
                waits += 1;
            }
        }
        if waits > 0 {
            self.requests.insert(request, waits);
        }
        waits > 0
    }

    /// A copy has confirmed its stream up to these places. `false` if that makes no sense.
    pub fn confirmed(
        &mut self,
        now: Now,
        from: Process,
        life: u32,
        (written, synced): (u64, u64),
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(stream) = self.streams.get_mut(&from).filter(|stream| stream.life == life) else {
            // It was given up meanwhile.
            return true;
        };
        if !stream.confirmed(now.mono_us, written, synced) {
            return false;
        }
        let (written, synced) = (stream.written, stream.synced);
        let (newer, epochs) = (&self.newer, &self.epochs);
        for ((shard, process), part) in &mut self.parts {
            // What a copy refuses it confirms as well: the batch was read, and nothing of it taken.
            if *process != from || newer.get(shard) > epochs.get(shard) {
                continue;
            }
            if matches!(part.level, Level::Sent(place) if place <= written) {
                part.level = Level::Reached;
                self.look_us = now.mono_us;
            }
            while let Some((place, sync, request)) = part.waits.front().copied() {
                if part.level != Level::Reached || place > if sync { synced } else { written } {
                    break;
                }
                part.waits.pop_front();
                settle(&mut self.requests, request, out);
            }
        }
        if !self.leaving.is_empty() {
            self.look_us = now.mono_us;
        }
        true
    }

    /// A process has no copy of what this batch spoke of: everything is sent again.
    pub fn lacks(&mut self, from: Process, (life, place): (u32, u64), (shard, epoch): (ShardId, Epoch), owner: &Owner) {
        let key = (shard, from);
        let (Some(part), Some(stream)) = (self.parts.get_mut(&key), self.streams.get_mut(&from)) else {
            return;
        };
        let Some(floor) = owner.kept_floor(shard) else { return };
        if stream.life == life && part.epoch == epoch && part.begun <= place {
            stream.push(begin(shard, epoch, true, floor));
            part.begun = stream.last_place();
            part.last = stream.last_place();
            part.level = Level::Sending(0);
            self.sending.insert(key);
        }
    }

    /// Whether no more changes should be taken, because copies are behind.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        let counts = |process: &Process| self.parts.keys().any(|(_, other)| other == process);
        // Of one that has no part any more nobody waits for anything.
        self.streams
            .iter()
            .any(|(process, stream)| stream.bytes() > self.config.queue_bytes && counts(process))
    }

    /// Sends what was gathered, and pieces of what copies lack.
    pub fn flush(&mut self, now: Now, owner: &Owner, out: &mut Vec<Output>) {
        self.send_pieces(now, owner);
        for (to, stream) in &mut self.streams {
            let batches = stream.flush(now.mono_us).into_iter();
            out.extend(batches.map(|batch| Output::Send { to: *to, batch }));
        }
    }

    /// When [`Sender::handle_deadline`] wants to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoUs> {
        (!self.streams.is_empty()).then_some(self.look_us)
    }

    /// Proposes what is due.
    pub fn handle_deadline(&mut self, now: Now, out: &mut Vec<Output>) {
        if now.mono_us < self.look_us {
            return;
        }
        self.look_us = now.mono_us + self.config.again_us;
        let silent: BTreeSet<Process> = self
            .streams
            .iter()
            .filter(|(_, stream)| {
                let waits_us = stream.waits_since_us.map(|since| now.mono_us.saturating_sub(since));
                waits_us.is_some_and(|waits_us| waits_us >= self.config.silence_us)
            })
            .map(|(process, _)| *process)
            .collect();
        for ((shard, member), part) in &mut self.parts {
            let (shard, member, epoch) = (*shard, *member, part.epoch);
            let wish = if silent.contains(&member) {
                Wish::Remove { shard, epoch, member }
            } else if part.level == Level::Reached && !part.in_sync {
                Wish::Join { shard, epoch, member }
            } else {
                continue;
            };
            if part
                .proposed_us
                .is_none_or(|at| now.mono_us >= at + self.config.again_us)
            {
                part.proposed_us = Some(now.mono_us);
                out.push(Output::Propose(wish));
            }
        }
        self.propose_handovers(now, out);
    }

    fn members(&self, id: ShardId) -> impl Iterator<Item = Process> {
        range(&self.parts, id).map(|((_, process), _)| *process)
    }

    fn end_part(&mut self, id: ShardId, process: Process, out: &mut Vec<Output>) {
        self.sending.remove(&(id, process));
        if let Some(part) = self.parts.remove(&(id, process)) {
            if let Some(stream) = self.streams.get_mut(&process) {
                let (shard, epoch) = (id, part.epoch);
                stream.push(Entry::End { shard, epoch });
            }
            for (_, _, request) in part.waits {
                if !self.is_deposed(id) {
                    settle(&mut self.requests, request, out);
                } else if self.requests.remove(&request).is_some() {
                    out.push(Output::Lost { request });
                }
            }
        }
        self.drop_idle_streams();
    }

    fn drop_idle_streams(&mut self) {
        let parts = &self.parts;
        let used: BTreeSet<Process> = parts.keys().map(|(_, process)| *process).collect();
        // A stream goes on where it ended: its numbers must not begin anew for a process that counts them.
        for (process, stream) in &mut self.streams {
            if !used.contains(process) && !stream.up {
                stream.void();
            }
        }
    }
}

fn begin(shard: ShardId, epoch: Epoch, replace: bool, floor: Floor) -> Entry {
    Entry::Begin {
        shard,
        epoch,
        replace,
        floor: floor.version,
        cause: floor.cause,
    }
}

fn settle(requests: &mut BTreeMap<u64, usize>, request: u64, out: &mut Vec<Output>) {
    let Some(left) = requests.get_mut(&request) else { return };
    *left -= 1;
    if *left == 0 {
        requests.remove(&request);
        out.push(Output::Confirmed { request });
    }
}

fn bounds(shard: ShardId) -> std::ops::RangeInclusive<(ShardId, Process)> {
    let process = |node, incarnation| Process {
        node: tidings_protocol::NodeId(node),
        incarnation,
    };
    (shard, process(0, 0))..=(shard, process(u64::MAX, u64::MAX))
}

pub(super) fn range(
    parts: &BTreeMap<(ShardId, Process), Part>,
    shard: ShardId,
) -> impl Iterator<Item = (&(ShardId, Process), &Part)> {
    parts.range(bounds(shard))
}

fn range_mut(
    parts: &mut BTreeMap<(ShardId, Process), Part>,
    shard: ShardId,
) -> impl Iterator<Item = (&(ShardId, Process), &mut Part)> {
    parts.range_mut(bounds(shard))
}
