//! The shells of copies: beside each owner a sender, whose batches go to other processes, and a receiver, which holds copies of
//! shards that others own. What a receiver takes is written to the disk before it is confirmed.

use super::owners::OwnerShell;
use crate::disk::{Order, Record};
use crate::network::{StreamName, StreamWord};
use crate::sabotage::Sabotage;
use crate::world::World;
use std::collections::VecDeque;
use tidings_protocol::copy::{Entry, Frame};
use tidings_protocol::{Epoch, ShardId, Version};
use tidings_router::Now;
use tidings_router::control::command::{Command, Seen};
use tidings_router::control::map::Process as Name;
use tidings_router::copies::receiver::{self, Arrived, Standing, wide};
use tidings_router::copies::sender::{self, Sender, Wish};
use tidings_router::owner::Owner;
use tidings_router::owner::keeping::{KeptAnswer, KeptRevision};

/// A batch that is confirmed when the disk has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confirming {
    from: Name,
    owner: u16,
    life: u32,
    place: u64,
    sync: bool,
}

impl World {
    /// One step of a sender, and then what it asks for.
    pub(super) fn sender_step(
        &mut self,
        owner: usize,
        step: impl FnOnce(&mut Sender, &Owner, Now, &mut Vec<sender::Output>),
    ) {
        let now = self.clock(self.plan.node_of(owner));
        let Some(shell) = self.owner_shell(owner) else { return };
        let mut out = Vec::new();
        step(&mut shell.sender, &shell.machine, now, &mut out);
        shell.sender.flush(now, &shell.machine, &mut out);
        for output in out {
            self.perform_sender(owner, output);
        }
        self.arm_owner(owner);
    }

    fn perform_sender(&mut self, owner: usize, output: sender::Output) {
        let node = self.plan.node_of(owner);
        match output {
            sender::Output::Send { to, batch } => {
                if let Some(stream) = self.stream_to(node, to) {
                    let frame = Frame::Batch {
                        owner: (owner % self.plan.threads) as u16,
                        life: batch.life,
                        place: batch.place,
                        sync: batch.sync,
                        entries: batch.entries,
                    };
                    self.say_to_copy(stream, StreamWord::Frame(frame));
                }
            }
            sender::Output::Confirmed { request } => self.copies_have(owner, request),
            sender::Output::Lost { request } => {
                self.coverage.saw("publish lost sight of when its shard went elsewhere");
                self.answer(owner, request, false);
            }
            sender::Output::Propose(wish) => self.propose_wish(node, wish),
            sender::Output::Deposed { shard, epoch } => {
                self.coverage.saw("owner deposed by a copy");
                self.trace.note(self.now, format_args!("o{owner}"), || {
                    format!("hears from a copy that {shard} is in epoch {epoch}")
                });
                self.release_shard(node, shard);
                if let Some(shell) = self.owner_shell(owner) {
                    // The map here may be late: it must not give the shard back under the old epoch.
                    shell.receiver.heard_of(shard, epoch);
                }
            }
        }
    }

    fn propose_wish(&mut self, node: usize, wish: Wish) {
        let (shard, epoch) = match wish {
            Wish::Join { shard, epoch, .. }
            | Wish::Remove { shard, epoch, .. }
            | Wish::HandOver { shard, epoch, .. } => (shard, epoch),
        };
        let from = self.process_name(node);
        let map = self.nodes[node].process.as_ref().map(|process| &process.seat.map);
        let seen = map.and_then(|map| Seen::of(map, shard));
        let Some(seen) = seen.filter(|seen| seen.epoch == epoch) else {
            return;
        };
        let command = match wish {
            Wish::Join { member, .. } => Command::Join { seen, member },
            Wish::Remove { member, .. } => {
                self.coverage.saw("silent copy proposed for removal");
                Command::Remove { seen, member }
            }
            Wish::HandOver { to, .. } => Command::Release { seen, from, to },
        };
        self.ask_leader(node, command);
    }

    /// A frame of a copy reaches its owner.
    pub(super) fn copy_answers(&mut self, node: usize, from: Name, frame: &Frame) {
        let first = node * self.plan.threads;
        match *frame {
            Frame::Confirmed {
                owner,
                life,
                written,
                synced,
            } => {
                let mut sense = true;
                self.sender_step(first + usize::from(owner), |sender, _, now, out| {
                    sense = sender.confirmed(now, from, life, (written, synced), out);
                });
                if !sense {
                    self.oracle
                        .object_to("wire", format!("{from:?} confirms what was never sent: {frame:?}"));
                }
            }
            Frame::Lacks {
                owner,
                life,
                place,
                shard,
                epoch,
            } => {
                self.coverage.saw("copy lacks what its owner speaks of");
                self.sender_step(first + usize::from(owner), |sender, machine, _, _| {
                    sender.lacks(from, (life, place), (shard, epoch), machine);
                });
            }
            Frame::Refused { owner, shard, epoch } => {
                self.sender_step(first + usize::from(owner), |sender, _, _, out| {
                    sender.refused(shard, epoch, out);
                });
            }
            Frame::Batch { .. } | Frame::Owners { .. } => {}
        }
    }

    /// A batch reaches a process that holds copies.
    pub(super) fn batch_arrived(&mut self, node: usize, stream: StreamName, arrived: Arrived) {
        let owner = node * self.plan.threads + usize::from(arrived.owner);
        let arrived = self.tampered(owner, arrived);
        for entry in &arrived.entries {
            let (shard, epoch) = entry.of();
            let process = self.nodes[node].process.as_ref();
            if process.is_some_and(|process| process.serves.get(&shard).is_some_and(|owned| *owned < epoch)) {
                self.coverage.saw("owner deposed by a newer owner's word");
                self.release_shard(node, shard);
            }
        }
        let now = self.clock(node);
        let Some(shell) = self.owner_shell(owner) else { return };
        let mut out = Vec::new();
        if shell.receiver.take(now, stream.from, arrived, &mut out).is_err() {
            self.coverage.saw("copy's stream had a gap");
            self.say_from_copy(stream, StreamWord::Reset);
            if let Some(process) = self.nodes[node].process.as_mut() {
                process.guests.remove(&stream.from);
            }
        }
        for output in out {
            self.perform_receiver(owner, stream, output);
        }
    }

    /// What a broken copy makes of a batch.
    fn tampered(&mut self, owner: usize, mut arrived: Arrived) -> Arrived {
        let Some(sabotage) = self.plan.sabotage else {
            return arrived;
        };
        let Some(shell) = self.owner_shell(owner) else {
            return arrived;
        };
        match sabotage {
            Sabotage::MarksNotCopied => arrived.entries.retain(|entry| !matches!(entry, Entry::Marks { .. })),
            Sabotage::FloorForgotten => {
                arrived.entries.retain(|entry| !matches!(entry, Entry::Floor { .. }));
                for entry in &mut arrived.entries {
                    if let Entry::Begin { floor, .. } = entry {
                        *floor = Version::ZERO;
                    }
                }
            }
            Sabotage::OlderEpochTaken => {
                for entry in &mut arrived.entries {
                    let newest = shell.receiver.newest(entry.of().0);
                    match entry {
                        Entry::Begin { epoch, .. }
                        | Entry::Versions { epoch, .. }
                        | Entry::Marks { epoch, .. }
                        | Entry::Floor { epoch, .. }
                        | Entry::Complete { epoch, .. }
                        | Entry::End { epoch, .. } => *epoch = newest.max(*epoch),
                    }
                }
            }
            _ => {}
        }
        arrived
    }

    fn perform_receiver(&mut self, at: usize, stream: StreamName, output: receiver::Output) {
        match output {
            receiver::Output::Write {
                from,
                owner,
                life,
                place,
                sync,
                entries,
                standings,
            } => {
                let records = self.take_entries(at, &entries, standings.into());
                let confirming = Confirming {
                    from,
                    owner,
                    life,
                    place,
                    sync,
                };
                self.write_copy(at, confirming, records);
            }
            receiver::Output::Lack {
                owner,
                life,
                place,
                shard,
                epoch,
                ..
            } => {
                let frame = Frame::Lacks {
                    owner,
                    life,
                    place,
                    shard,
                    epoch,
                };
                self.say_from_copy(stream, StreamWord::Frame(frame));
            }
            receiver::Output::Refuse {
                owner, shard, epoch, ..
            } => {
                self.coverage.saw("copy refused an older epoch");
                let frame = Frame::Refused { owner, shard, epoch };
                self.say_from_copy(stream, StreamWord::Frame(frame));
            }
            receiver::Output::Newer { shard, epoch } => {
                let node = self.plan.node_of(at);
                let served = self.nodes[node]
                    .process
                    .as_ref()
                    .and_then(|process| process.serves.get(&shard).copied());
                if served.is_some_and(|served| served < epoch) {
                    self.release_shard(node, shard);
                }
            }
            receiver::Output::Dropped { shard, .. } => self.copy_dropped(at, shard),
        }
    }

    /// What was taken of a batch: marks are kept with those of the shards owned here; all of it goes to the disk.
    fn take_entries(&mut self, at: usize, entries: &[Entry], mut standings: VecDeque<Standing>) -> Vec<Record> {
        let now = self.clock(self.plan.node_of(at));
        let thread = at % self.plan.threads;
        let keeps_stale_marks = self.plan.breaks(Sabotage::StaleMarksKept);
        let (mut records, mut keys) = (Vec::new(), 0);
        let Some(shell) = self.owner_shell(at) else {
            return records;
        };
        for entry in entries {
            match entry {
                Entry::Begin {
                    shard,
                    epoch,
                    floor,
                    cause,
                    ..
                } => {
                    let replaced = standings.pop_front().is_none_or(|standing| standing.replaced);
                    if replaced && !keeps_stale_marks {
                        // Marks of changes that only this process knew go with them.
                        shell.machine.forget_marks(*shard);
                    }
                    records.push(Record::CopyBegun(*shard, *epoch, *floor, *cause, replaced));
                }
                Entry::Versions { versions, .. } => {
                    let versions = versions.iter();
                    records.extend(versions.map(|(object, version)| Record::Version(*object, *version)));
                }
                Entry::Marks { revisions, answers, .. } => {
                    for mark in revisions {
                        let kept = KeptRevision {
                            key: wide(mark.key),
                            revision: mark.revision,
                            version: mark.version,
                        };
                        shell.machine.restore_revision(kept);
                        records.push(Record::Revision(kept));
                    }
                    for answer in answers {
                        let kept = KeptAnswer {
                            key: wide(answer.key),
                            version: answer.version,
                            wall_us: answer.wall_us,
                        };
                        shell.machine.restore_answer(kept, now);
                        records.push(Record::Answer(kept));
                    }
                    keys += answers.len();
                }
                Entry::Floor {
                    shard,
                    epoch,
                    floor,
                    cause,
                } => records.push(Record::CopyFloor(*shard, *epoch, *floor, *cause)),
                Entry::Complete { shard, epoch } => {
                    standings.pop_front();
                    records.push(Record::CopyComplete(*shard, *epoch));
                }
                Entry::End { shard, .. } => {
                    standings.pop_front();
                    records.push(Record::CopyEnded(*shard));
                }
            }
        }
        self.oracle.keys_moved(thread, keys);
        records
    }

    fn write_copy(&mut self, at: usize, confirming: Confirming, records: Vec<Record>) {
        if self.plan.breaks(Sabotage::ConfirmedUnwritten) {
            self.confirm(at, confirming);
        }
        if !self.plan.disks {
            return self.confirm(at, confirming);
        }
        let Some(shell) = self.owner_shell(at) else { return };
        let ticket = shell.next_ticket();
        shell.confirming.insert(ticket, confirming);
        let order = Order {
            owner: at % self.plan.threads,
            ticket: Some(ticket),
            records,
            durable: confirming.sync,
        };
        self.give_order(self.plan.node_of(at), order);
    }

    /// The disk is done with a batch. What it could not write it owes, and is asked again.
    pub(super) fn copy_written(&mut self, at: usize, confirming: Confirming, fine: bool) {
        if fine {
            return self.confirm(at, confirming);
        }
        if let Some(shell) = self.owner_shell(at) {
            shell.owed.push(confirming);
        }
    }

    /// Batches that a disk could not write are asked for again.
    pub(super) fn ask_disk_again(&mut self, node: usize) {
        let threads = self.plan.threads;
        for at in node * threads..(node + 1) * threads {
            let owed = self
                .owner_shell(at)
                .map(|shell| std::mem::take(&mut shell.owed))
                .unwrap_or_default();
            for confirming in owed {
                self.write_copy(at, confirming, Vec::new());
            }
        }
    }

    fn confirm(&mut self, at: usize, confirming: Confirming) {
        let Confirming {
            from,
            owner,
            life,
            place,
            sync,
        } = confirming;
        // Without a connection nobody is told: what was not confirmed comes again.
        if let Some(stream) = self.stream_from(self.plan.node_of(at), from) {
            let frame = Frame::Confirmed {
                owner,
                life,
                written: place,
                synced: if sync { place } else { 0 },
            };
            self.say_from_copy(stream, StreamWord::Frame(frame));
        }
    }

    /// A copy is of no use any more.
    pub(super) fn copy_dropped(&mut self, at: usize, shard: ShardId) {
        self.coverage.saw("copy dropped");
        if self.plan.disks {
            let order = Order {
                owner: at % self.plan.threads,
                ticket: None,
                records: vec![Record::CopyEnded(shard)],
                durable: false,
            };
            self.give_order(self.plan.node_of(at), order);
        }
    }
}

impl OwnerShell {
    /// What is here of a shard: since which epoch, whether owned, whether complete.
    pub(super) fn standing(&self, shard: ShardId) -> Option<(Epoch, bool, bool)> {
        if let Some(epoch) = self.machine.epoch(shard) {
            return Some((epoch, true, true));
        }
        let mut copies = self.receiver.copies();
        let copy = copies.find(|(id, ..)| *id == shard);
        copy.map(|(_, epoch, complete)| (epoch, false, complete))
    }

    /// What a copy or an owner here knows of an object, and from which floor.
    #[must_use]
    pub fn knows(&self, object: tidings_protocol::ObjectHash, shard: ShardId) -> (Version, Version) {
        let held = if self.machine.epoch(shard).is_some() {
            &self.machine
        } else {
            self.receiver.shelf()
        };
        (held.version(object), held.floor(shard).unwrap_or_default())
    }
}
