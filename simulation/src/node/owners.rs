//! The shells of owners: one machine each, its outputs performed, its answers held back until the disk and the copies have what
//! was done.

use super::copies::Confirming;
use crate::disk::{Order, Record};
use crate::network::{Body, Fate, LinkName};
use crate::plan::Plan;
use crate::sabotage::Sabotage;
use crate::world::{Event, World};
use std::collections::BTreeMap;
use tidings_protocol::copy::{CopiedAnswer, CopiedRevision};
use tidings_protocol::peer::{Owned, OwnerToEdge};
use tidings_protocol::{Epoch, ObjectHash, ShardId, Version};
use tidings_router::Now;
use tidings_router::control::map::Process as Name;
use tidings_router::copies::receiver::{Receiver, halves};
use tidings_router::copies::sender::Sender;
use tidings_router::owner::keeping::{Floor, KeptAnswer, KeptRevision};
use tidings_router::owner::{Input, Output, Owner, Publish, Published};

/// A batch that was applied or is about to be.
#[derive(Debug)]
struct Waiting {
    /// The node that passed it on, and its call.
    from: usize,
    call: u64,
    durable: bool,
    /// The disk has it.
    on_disk: bool,
    /// The copies have it.
    copied: bool,
    /// Each publish, its object, and by what a repetition will be known.
    changes: Vec<Draft>,
    fates: Vec<Fate>,
}

#[derive(Clone, Copy, Debug)]
struct Draft {
    publish: usize,
    object: ObjectHash,
    revision: Option<(u128, u64)>,
    key: Option<u128>,
}

/// See the module.
#[derive(Debug)]
pub struct OwnerShell {
    /// The machine.
    pub machine: Owner,
    /// Brings copies of its shards level, and knows what they have.
    pub sender: Sender,
    /// Copies of shards that others own.
    pub receiver: Receiver,
    /// Batches whose confirmation waits for the disk, by ticket.
    pub(super) confirming: BTreeMap<u64, Confirming>,
    /// Batches that the disk could not write.
    pub(super) owed: Vec<Confirming>,
    /// Since when a shard is served in its epoch.
    pub(super) taken_us: BTreeMap<ShardId, u64>,
    /// Floors that copies were told.
    floors: BTreeMap<ShardId, Version>,
    /// The links that are up, and when something came last.
    pub links: BTreeMap<LinkName, u64>,
    /// What was closed last on which link.
    closed: BTreeMap<LinkName, Version>,
    wake_at: Option<u64>,
    waiting: BTreeMap<u64, Waiting>,
    requests: u64,
}

impl OwnerShell {
    /// An owner of nothing that may give no version yet.
    #[must_use]
    pub fn new(plan: &Plan, me: Name) -> Self {
        let mut machine = Owner::new(plan.owner);
        machine.set_ceiling(Version::ZERO);
        machine.set_lease(0);
        Self {
            machine,
            sender: Sender::new(me, plan.sender),
            receiver: Receiver::new(plan.owner),
            confirming: BTreeMap::new(),
            owed: Vec::new(),
            taken_us: BTreeMap::new(),
            floors: BTreeMap::new(),
            links: BTreeMap::new(),
            closed: BTreeMap::new(),
            wake_at: None,
            waiting: BTreeMap::new(),
            requests: 0,
        }
    }

    pub(super) fn next_ticket(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    /// Whether nobody waits for an answer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl World {
    /// The shell of an owner, if its node has a process.
    pub fn owner_shell(&mut self, owner: usize) -> Option<&mut OwnerShell> {
        let (node, thread) = (self.plan.node_of(owner), owner % self.plan.threads);
        self.nodes[node].process.as_mut()?.owners.get_mut(thread)
    }

    /// The owner of a node that has a shard's machine.
    #[must_use]
    pub fn owner_on(&self, node: usize, shard: ShardId) -> usize {
        node * self.plan.threads + usize::from(shard.0) % self.plan.threads
    }

    /// One input of an owner's machine.
    pub fn owner_input(&mut self, owner: usize, input: Input) {
        self.owner_step(owner, |machine, now, out| machine.handle(now, input, out));
    }

    /// One step of an owner's machine, and then what it asks for.
    pub fn owner_step(&mut self, owner: usize, step: impl FnOnce(&mut Owner, Now, &mut Vec<Output>)) {
        let now = self.clock(self.plan.node_of(owner));
        let Some(shell) = self.owner_shell(owner) else { return };
        let mut out = Vec::new();
        step(&mut shell.machine, now, &mut out);
        self.perform_owner(owner, out);
        self.arm_owner(owner);
    }

    pub(super) fn arm_owner(&mut self, owner: usize) {
        let node = self.plan.node_of(owner);
        let (now, incarnation) = (self.now, self.nodes[node].incarnation);
        let Some(shell) = self.owner_shell(owner) else { return };
        let deadlines = [shell.machine.next_deadline(), shell.sender.next_deadline()];
        let Some(deadline_us) = deadlines.into_iter().flatten().min() else {
            return;
        };
        let at = self.nodes[node].clock.when(deadline_us).max(now);
        let Some(shell) = self.owner_shell(owner) else { return };
        if shell.wake_at.is_none_or(|armed| at < armed) {
            shell.wake_at = Some(at);
            self.at(at, Event::WakeOwner(owner, incarnation));
        }
    }

    /// An owner's deadline.
    pub fn wake_owner(&mut self, owner: usize, incarnation: u64) {
        let node = self.plan.node_of(owner);
        if self.nodes[node].incarnation != incarnation {
            return;
        }
        let now = self.clock(node);
        let Some(shell) = self.owner_shell(owner) else { return };
        shell.wake_at = None;
        let due = |at: Option<u64>| at.is_some_and(|at| at <= now.mono_us);
        let (machine, sender) = (shell.machine.next_deadline(), shell.sender.next_deadline());
        if due(machine) {
            self.owner_step(owner, |machine, now, out| machine.handle_deadline(now, out));
        }
        if due(sender) {
            self.sender_step(owner, |sender, _, now, out| sender.handle_deadline(now, out));
        }
        self.arm_owner(owner);
    }

    fn perform_owner(&mut self, owner: usize, out: Vec<Output>) {
        let node = self.plan.node_of(owner);
        let mut frames: Vec<(LinkName, Vec<OwnerToEdge>)> = Vec::new();
        let mut told: Vec<Vec<Owned>> = Vec::new();
        for output in out {
            match output {
                Output::ToEdge {
                    link,
                    generation,
                    frame,
                } => {
                    let link = LinkName {
                        lane: link as usize,
                        owner,
                        generation,
                    };
                    match &frame {
                        OwnerToEdge::Closed { version } => self.closed(owner, link, *version),
                        OwnerToEdge::Own { shards } if !told.contains(shards) => {
                            // Every link is told of a floor; disk and oracle need to hear of it once.
                            self.floors_announced(node, owner, shards);
                            told.push(shards.clone());
                        }
                        _ => {}
                    }
                    match frames.iter_mut().find(|(other, _)| *other == link) {
                        Some((_, frames)) => frames.push(frame),
                        None => frames.push((link, vec![frame])),
                    }
                }
                Output::Published { request, results } => self.applied(owner, request, &results),
            }
        }
        for (link, frames) in frames {
            let to = self.plan.node_of(link.lane);
            self.send(node, to, None, Body::ToLane(link, frames));
        }
    }

    fn closed(&mut self, owner: usize, link: LinkName, version: Version) {
        let last = self
            .owner_shell(owner)
            .and_then(|shell| shell.closed.insert(link, version));
        if last.is_some_and(|last| version <= last) {
            self.oracle
                .object_to("R10", format!("o{owner} closes {version} again for l{}", link.lane));
        }
        let node = self.plan.node_of(owner);
        let threads = self.plan.threads;
        let ceiling = self.agreement.map().ceiling();
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let shards = process
            .serves
            .iter()
            .filter(|(shard, _)| usize::from(shard.0) % threads == owner % threads);
        let shards: Vec<(ShardId, Epoch)> = shards.map(|(shard, epoch)| (*shard, *epoch)).collect();
        self.oracle.closed(self.now, owner, &shards, version, ceiling);
    }

    /// Floors rose, or shards were taken: written down before what comes later.
    fn floors_announced(&mut self, node: usize, owner: usize, shards: &[Owned]) {
        for owned in shards {
            self.oracle
                .floor(self.now, owned.shard, owned.epoch, owned.floor, owned.cause);
        }
        if self.plan.disks {
            let records = shards
                .iter()
                .map(|owned| Record::Owned(owned.shard, owned.epoch, owned.floor, owned.cause));
            let order = Order {
                owner: owner % self.plan.threads,
                ticket: None,
                records: records.collect(),
                durable: false,
            };
            self.give_order(node, order);
        }
        if self.plan.breaks(Sabotage::FloorForgotten) {
            return;
        }
        let Some(shell) = self.owner_shell(owner) else { return };
        let mut raised = false;
        for owned in shards {
            let told = shell.floors.insert(owned.shard, owned.floor);
            if told.is_none_or(|told| told < owned.floor) {
                let (version, cause) = (owned.floor, owned.cause);
                shell.sender.floor(owned.shard, Floor { version, cause });
                raised = true;
            }
        }
        if raised {
            self.sender_step(owner, |_, _, _, _| ());
        }
    }

    /// A call from a node, perhaps this one.
    pub(super) fn publish_here(
        &mut self,
        from: usize,
        node: usize,
        call: u64,
        changes: &[(usize, Publish)],
        durable: bool,
    ) {
        if self.nodes[node].disk.fails {
            self.coverage.saw("publish refused by a failing disk");
            let fates = changes.iter().map(|(publish, _)| (*publish, Fate::StorageFails));
            self.send(node, from, None, Body::Published(call, fates.collect()));
            return;
        }
        for thread in 0..self.plan.threads {
            let owner = node * self.plan.threads + thread;
            let here = |object| usize::from(self.plan.shards.shard(object).0) % self.plan.threads == thread;
            let of_owner: Vec<(usize, Publish)> = changes
                .iter()
                .filter(|(_, publish)| here(publish.object))
                .cloned()
                .collect();
            if of_owner.is_empty() {
                continue;
            }
            let Some(shell) = self.owner_shell(owner) else { return };
            if shell.sender.is_congested() {
                self.coverage.saw("publish refused: copies are behind");
                let fates = of_owner.iter().map(|(publish, _)| (*publish, Fate::Refused));
                self.send(node, from, None, Body::Published(call, fates.collect()));
                continue;
            }
            let request = shell.next_ticket();
            let drafts = of_owner.iter().map(|(publish, change)| Draft {
                publish: *publish,
                object: change.object,
                revision: change.extra.as_ref().and_then(|extra| extra.revision),
                key: change.extra.as_ref().and_then(|extra| extra.idempotency),
            });
            let waiting = Waiting {
                from,
                call,
                durable,
                on_disk: false,
                copied: false,
                changes: drafts.collect(),
                fates: Vec::new(),
            };
            shell.waiting.insert(request, waiting);
            let changes = of_owner.into_iter().map(|(_, change)| change).collect();
            self.owner_input(owner, Input::Publish { request, changes });
        }
    }

    /// A batch was applied: it is answered, or written first.
    fn applied(&mut self, owner: usize, request: u64, results: &[Published]) {
        let node = self.plan.node_of(owner);
        let (disks, shards, ceiling) = (self.plan.disks, self.plan.shards, self.agreement.map().ceiling());
        let wall_us = self.clock(node).wall_us;
        let Some(shell) = self.owner_shell(owner) else { return };
        let Some(waiting) = shell.waiting.get_mut(&request) else {
            return;
        };
        let mut records = Vec::new();
        let mut happened = Vec::new();
        let mut copied = Vec::new();
        let mut touched = Vec::new();
        let mut paused = 0;
        for (draft, published) in waiting.changes.iter().zip(results) {
            waiting.fates.push(match *published {
                Published::Accepted(version) => {
                    records.push(Record::Version(draft.object, version));
                    let mark = |(key, revision)| KeptRevision { key, revision, version };
                    records.extend(draft.revision.map(mark).map(Record::Revision));
                    let answer = |key| KeptAnswer { key, version, wall_us };
                    records.extend(draft.key.map(|key| Record::Answer(answer(key))));
                    happened.push((draft.publish, shards.shard(draft.object), version));
                    copied.push((*draft, version));
                    touched.push(shards.shard(draft.object));
                    Fate::Accepted(version)
                }
                Published::Duplicate(version) => {
                    touched.push(shards.shard(draft.object));
                    Fate::Duplicate(version)
                }
                Published::NotOwner(_) => Fate::Refused,
                Published::Paused(_) => {
                    paused += 1;
                    Fate::Refused
                }
            });
        }
        let durable = waiting.durable;
        self.coverage.add("publish refused without a lease", paused);
        let Some(shell) = self.owner_shell(owner) else { return };
        let epochs: Vec<Epoch> = happened
            .iter()
            .map(|(_, shard, _)| shell.machine.epoch(*shard).unwrap_or_default())
            .collect();
        for ((publish, shard, version), epoch) in happened.into_iter().zip(epochs) {
            self.oracle.applied(self.now, publish, shard, epoch, version, ceiling);
            self.trace.note(self.now, format_args!("o{owner}"), || {
                format!("p{publish} is {version} in epoch {epoch} of shard {shard}")
            });
        }
        self.copy_changes(owner, request, &copied, touched, durable);
        if disks {
            let order = Order {
                owner: owner % self.plan.threads,
                ticket: Some(request),
                records,
                durable,
            };
            self.give_order(node, order);
        } else {
            self.disk_has(owner, request, true);
        }
    }

    /// Copies are told what happened, and asked whether they have it.
    fn copy_changes(
        &mut self,
        owner: usize,
        request: u64,
        changes: &[(Draft, Version)],
        mut touched: Vec<ShardId>,
        durable: bool,
    ) {
        let (shards, sabotage) = (self.plan.shards, self.plan.sabotage);
        let Now {
            mono_us: now_us,
            wall_us,
        } = self.clock(self.plan.node_of(owner));
        touched.sort_unstable();
        touched.dedup();
        let Some(shell) = self.owner_shell(owner) else { return };
        for (draft, version) in changes {
            let (shard, version) = (shards.shard(draft.object), *version);
            // The change goes before its marks: a copy that has a mark has what it is of.
            shell.sender.versions(shard, &[(draft.object, version)]);
            let revision = |(key, revision): &(u128, u64)| CopiedRevision {
                key: halves(*key),
                revision: *revision,
                version,
            };
            let revisions: Vec<_> = draft.revision.iter().map(revision).collect();
            let answer = |key: &u128| CopiedAnswer {
                key: halves(*key),
                version,
                wall_us,
            };
            let answers: Vec<_> = draft.key.iter().map(answer).collect();
            let any = !revisions.is_empty() || !answers.is_empty();
            if any && sabotage != Some(Sabotage::MarksNotCopied) {
                shell.sender.marks(shard, &revisions, &answers);
            }
        }
        let mut waits = shell.sender.request(request, &touched, durable);
        let known_before = changes.is_empty();
        let levelling = touched
            .iter()
            .any(|shard| now_us < shell.taken_us.get(shard).map_or(0, |at| at + 300_000));
        if sabotage == Some(Sabotage::NoWait)
            || (sabotage == Some(Sabotage::DuplicateAtOnce) && known_before)
            || (sabotage == Some(Sabotage::NotLevelled) && levelling)
        {
            waits = false;
        }
        if let Some(waiting) = shell.waiting.get_mut(&request) {
            waiting.copied = !waits;
        }
        self.coverage.add("publish waited for a copy", u64::from(waits));
        self.sender_step(owner, |_, _, _, _| ());
    }

    /// The disk is done with something of this owner: a batch of changes, or one of somebody else's for the copies here.
    pub(super) fn disk_has(&mut self, owner: usize, ticket: u64, fine: bool) {
        let Some(shell) = self.owner_shell(owner) else { return };
        if let Some(confirming) = shell.confirming.remove(&ticket) {
            return self.copy_written(owner, confirming, fine);
        }
        let Some(waiting) = shell.waiting.get_mut(&ticket) else {
            return;
        };
        waiting.on_disk = true;
        if waiting.copied || !fine {
            self.answer(owner, ticket, fine);
        }
    }

    /// All copies have a batch.
    pub(super) fn copies_have(&mut self, owner: usize, request: u64) {
        let waiting = self
            .owner_shell(owner)
            .and_then(|shell| shell.waiting.get_mut(&request));
        let Some(waiting) = waiting else { return };
        waiting.copied = true;
        if waiting.on_disk {
            self.answer(owner, request, true);
        }
    }

    /// What was waited for is done: the batch is answered.
    pub(super) fn answer(&mut self, owner: usize, request: u64, fine: bool) {
        let node = self.plan.node_of(owner);
        let Some(waiting) = self.owner_shell(owner).and_then(|shell| shell.waiting.remove(&request)) else {
            return;
        };
        let kept = |fate: &Fate| match fate {
            Fate::Accepted(_) | Fate::Duplicate(_) if !fine => Fate::NotStored,
            other => *other,
        };
        let fates = waiting
            .changes
            .iter()
            .zip(&waiting.fates)
            .map(|(draft, fate)| (draft.publish, kept(fate)));
        let fates = fates.collect();
        self.send(node, waiting.from, None, Body::Published(waiting.call, fates));
    }
}
