//! The owner's shards on their way to those who hold copies of them: what the machine of copies wants done is done here.
//!
//! It does not know disks, or who waits for an answer.

use super::CopyStats;
use super::draft::Copied;
use crate::control::{self, ProposeError, View};
use crate::peers::CopyRoad;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use tidings_protocol::copy::Frame;
use tidings_protocol::mesh::AckLevel;
use tidings_protocol::peer::Owned;
use tidings_protocol::{Epoch, NodeId, ShardCount, ShardId};
use tidings_router::control::command::{Command, Seen};
use tidings_router::control::map::{Map, Process};
use tidings_router::copies::sender::{Config, Output, Sender, Wish};
use tidings_router::owner::Owner;
use tidings_router::owner::keeping::Floor;
use tidings_router::{MonoUs, Now};

/// Rounds of proposals under way at most. What is left out is proposed again.
const PROPOSING: usize = 16;

/// After so long a copy that confirms nothing is to be taken out.
fn silence_us(lease_us: u64) -> u64 {
    lease_us / 2
}

/// What came of it for others.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// Every copy that the request waited for has it.
    Confirmed(u64),
    /// The shard went elsewhere while it waited.
    Lost(u64),
    /// There is a newer epoch of the shard: it is owned here no more.
    Deposed(ShardId, Epoch),
}

/// See the module.
pub(super) struct Copying {
    thread: usize,
    me: Process,
    control: control::Handle,
    sender: Sender,
    lease_us: u64,
    /// The map that the sender has heeded: what it wishes is meant on that.
    heeded: Arc<Map>,
    roads: HashMap<Process, CopyRoad>,
    proposing: Rc<Cell<usize>>,
    /// A proposal was not made, or nobody knows what became of it.
    failed: Rc<Cell<bool>>,
    out: Vec<Output>,
}

impl Copying {
    pub(super) fn new(
        thread: usize,
        shards: ShardCount,
        config: &crate::config::Config,
        control: &control::Handle,
    ) -> Self {
        let view = control.view();
        let lease_us = config.cluster.lease_ms * 1_000;
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let config = Config {
            shards,
            window_bytes: bytes(config.owner.copy_window_bytes),
            queue_bytes: bytes(config.owner.copy_queue_bytes),
            silence_us: silence_us(lease_us),
            // Silence is found out at the next look: that must not add much to it, because publishers wait.
            again_us: lease_us / 16,
        };
        Self {
            thread,
            me: view.me,
            control: control.clone(),
            sender: Sender::new(view.me, config),
            lease_us,
            heeded: Arc::clone(&view.map),
            roads: HashMap::new(),
            proposing: Rc::default(),
            failed: Rc::default(),
            out: Vec::new(),
        }
    }

    /// Acts on a map. To be called when the machine owns what that gives it, and before anything is acknowledged because of it.
    pub(super) fn heed(&mut self, now: Now, shards: &[ShardId], view: &View, machine: &mut Owner) {
        self.heeded = Arc::clone(&view.map);
        self.sender.forget_processes(|process| view.map.is_current(process));
        for id in shards {
            let Some(agreed) = view.map.shard(*id) else { continue };
            if agreed.owner == Some(self.me) && machine.epoch(*id) == Some(agreed.epoch) {
                self.sender.heed(now, *id, agreed, machine, &mut self.out);
                machine.set_paused(*id, self.sender.is_leaving(*id));
            }
        }
    }

    /// The shard is owned here no more.
    pub(super) fn end(&mut self, shard: ShardId) {
        self.sender.end(shard, &mut self.out);
    }

    /// Whether nobody is to be told of changes.
    pub(super) fn is_idle(&self) -> bool {
        self.sender.is_idle()
    }

    /// Tells copies of a request's changes. Whether the request has to wait for them.
    pub(super) fn tell(&mut self, request: u64, ack: AckLevel, copied: &BTreeMap<ShardId, Copied>) -> bool {
        for (shard, of) in copied {
            if !of.versions.is_empty() {
                self.sender.versions(*shard, &of.versions);
            }
            if !of.revisions.is_empty() || !of.answers.is_empty() {
                self.sender.marks(*shard, &of.revisions, &of.answers);
            }
        }
        if ack == AckLevel::Accepted {
            return false;
        }
        let shards: Vec<ShardId> = copied.keys().copied().collect();
        self.sender.request(request, &shards, ack == AckLevel::Durable)
    }

    /// Floors rose.
    pub(super) fn floors(&mut self, shards: &[Owned]) {
        for owned in shards {
            let floor = Floor {
                version: owned.floor,
                cause: owned.cause,
            };
            self.sender.floor(owned.shard, floor);
        }
    }

    /// There is a way to a process, or none any more.
    pub(super) fn link(&mut self, now: Now, to: Process, road: Option<CopyRoad>) {
        let up = road.is_some();
        match road {
            Some(road) => _ = self.roads.insert(to, road),
            None => _ = self.roads.remove(&to),
        }
        self.sender.link(now, to, up, &mut self.out);
    }

    /// A process that holds copies said something.
    pub(super) fn answered(&mut self, now: Now, from: Process, frame: &Frame, machine: &Owner) {
        match *frame {
            Frame::Confirmed {
                life, written, synced, ..
            } => {
                let fine = self.sender.confirmed(now, from, life, (written, synced), &mut self.out);
                if let (false, Some(road)) = (fine, self.roads.get(&from)) {
                    tracing::error!(node = %from.node, "a copy confirms what was never sent: the connection is cut");
                    road.cut();
                }
            }
            Frame::Lacks {
                life,
                place,
                shard,
                epoch,
                ..
            } => self.sender.lacks(from, (life, place), (shard, epoch), machine),
            Frame::Refused { shard, epoch, .. } => self.sender.refused(shard, epoch, &mut self.out),
            Frame::Owners { .. } | Frame::Batch { .. } => {}
        }
    }

    /// Whether no more changes should be taken, because copies are behind.
    pub(super) fn is_congested(&self) -> bool {
        self.sender.is_congested()
    }

    pub(super) fn next_deadline(&self) -> Option<MonoUs> {
        self.sender.next_deadline()
    }

    /// Does what is due, and sends what was gathered. What came of it for others.
    pub(super) fn flush(&mut self, now: Now, machine: &Owner) -> Vec<Came> {
        if self.failed.take() {
            self.sender.retry(now);
        }
        if self.sender.next_deadline().is_some_and(|at| at <= now.mono_us) {
            self.sender.handle_deadline(now, &mut self.out);
        }
        self.sender.flush(now, machine, &mut self.out);
        let mut came = Vec::new();
        let wishes = self.perform(&mut came);
        self.propose(now, &wishes);
        came
    }

    fn perform(&mut self, came: &mut Vec<Came>) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for output in self.out.drain(..) {
            match output {
                Output::Send { to, batch } => {
                    if let Some(road) = self.roads.get(&to) {
                        road.send(self.thread, batch);
                    }
                }
                Output::Propose(wish) => wishes.push(wish),
                Output::Confirmed { request } => came.push(Came::Confirmed(request)),
                Output::Lost { request } => came.push(Came::Lost(request)),
                Output::Deposed { shard, epoch } => came.push(Came::Deposed(shard, epoch)),
            }
        }
        wishes
    }

    /// Has wishes agreed. They are repeated as long as the map does not show what became of them.
    fn propose(&self, now: Now, wishes: &[Wish]) {
        let hears = self.hears(now);
        let wishes = wishes
            .iter()
            .filter(|wish| hears || !matches!(wish, Wish::Remove { .. }));
        let wishes: Vec<Wish> = wishes.copied().collect();
        let silent = wishes.iter().filter_map(|wish| match wish {
            Wish::Remove { member, .. } => Some(member.node),
            Wish::Join { .. } | Wish::HandOver { .. } => None,
        });
        let silent: BTreeSet<NodeId> = silent.collect();
        for node in silent {
            tracing::info!(%node, "a node with copies does not answer: it is to be taken out");
        }
        let commands: Vec<Command> = wishes.iter().filter_map(|wish| self.command(*wish)).collect();
        if commands.is_empty() || self.proposing.get() >= PROPOSING {
            return;
        }
        let (control, proposing, failed) = (
            self.control.clone(),
            Rc::clone(&self.proposing),
            Rc::clone(&self.failed),
        );
        proposing.set(proposing.get() + 1);
        tokio::task::spawn_local(async move {
            if let Err(error) = control.propose_all(commands).await {
                tracing::debug!(%error, "what an owner wants agreed about copies is not, yet");
                // What the map has otherwise by now shows there.
                failed.set(!matches!(error, ProposeError::Changed(_)));
            }
            proposing.set(proposing.get() - 1);
        });
    }

    /// Whether the control plane was heard since those who are silent now were. Who hears nobody may still be heard, and must not
    /// have others taken out: they may be all that is left when its own lease has ended.
    fn hears(&self, now: Now) -> bool {
        self.control.view().until_us >= now.mono_us.saturating_add(self.lease_us - silence_us(self.lease_us))
    }

    fn command(&self, wish: Wish) -> Option<Command> {
        let (Wish::Join { shard, epoch, .. } | Wish::Remove { shard, epoch, .. } | Wish::HandOver { shard, epoch, .. }) =
            wish;
        let seen = Seen::of(&self.heeded, shard).filter(|seen| seen.epoch == epoch)?;
        Some(match wish {
            Wish::Join { member, .. } => Command::Join { seen, member },
            Wish::Remove { member, .. } => Command::Remove { seen, member },
            Wish::HandOver { to, .. } => Command::Release {
                seen,
                from: self.me,
                to,
            },
        })
    }

    /// What is counted, but for copies here.
    pub(super) fn stats(&self) -> CopyStats {
        let (behind, unconfirmed_bytes) = self.sender.behind();
        CopyStats {
            behind,
            unconfirmed_bytes,
            ..CopyStats::default()
        }
    }
}
