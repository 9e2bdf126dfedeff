//! The task that drives the machine: what reaches the owner goes in, what the machine wants done is done.
//!
//! On a member of a cluster it follows the control plane: the map first, then the permission that came with it.

mod copies;
#[cfg(test)]
mod tests;

use super::copying::{Came, Copying};
use super::floors::Floors;
use super::holdings::{Holdings, Step};
use super::journal::Journal;
use super::source::{Kept, Piece};
use super::{Batch, Command, CopyStats, GENERATION, Inspection, OwnerReceiver, PublishFailure, Report, machine_config};
use crate::node::{Node, spawn_vital};
use crate::peers::{CopyReply, RemoteLane};
use crate::{clock, control, storage};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidings_protocol::peer::{FloorCause, OwnerToEdge};
use tidings_protocol::{Epoch, ShardId, Version};
use tidings_router::Now;
use tidings_router::control::map::Process;
use tidings_router::owner::taking::Assignment;
use tidings_router::owner::{Input, Output, Owner};
use tokio::sync::watch;
use tokio::time::Instant;

/// How many commands one burst handles before its answers go out.
const BURST: usize = 256;

/// How long an owner whose disk is behind waits before it looks again.
const CATCH_UP: Duration = Duration::from_millis(2);

/// What an owner starts with.
#[derive(Debug)]
pub struct Begin {
    /// Its ends of the channels.
    pub receiver: OwnerReceiver,
    /// Its machine and its end of the storage; `None` in memory only.
    pub kept: Option<(Owner, storage::Handle)>,
    /// What a member of a cluster found of its shards on its disk.
    pub shelf: Option<storage::Shelf>,
    /// What all owners of the node have on their shelves yet, as the cluster is told.
    pub offered: Offered,
}

impl Begin {
    /// One that keeps nothing on a disk.
    #[must_use]
    pub fn in_memory(receiver: OwnerReceiver) -> Self {
        Self {
            receiver,
            kept: None,
            shelf: None,
            offered: Offered::default(),
        }
    }
}

/// Shards on shelves, with their epochs.
pub type Offered = Arc<Mutex<BTreeMap<ShardId, Epoch>>>;

/// Starts the owner of `thread` on the `LocalSet` it is called in.
pub fn start(thread: usize, node: &Arc<Node>, begin: Begin) {
    let threads = node.owners.len();
    let shards: Vec<ShardId> = node
        .shards
        .all()
        .filter(|shard| usize::from(shard.0) % threads == thread)
        .collect();
    let (machine, disk) = match begin.kept {
        Some((machine, disk)) => (Some(machine), Some(disk)),
        None => (None, None),
    };
    let is_new = machine.is_none();
    let config = machine_config(&node.config, node.shards, threads);
    let mut shell = Shell {
        thread,
        machine: machine.unwrap_or_else(|| Owner::new(config)),
        holdings: begin
            .shelf
            .map_or_else(|| Holdings::none(config), |shelf| Holdings::new(config, shelf)),
        following: node
            .control
            .as_ref()
            .map(|control| Following::new(control, begin.offered)),
        shards: shards.clone(),
        node: Arc::clone(node),
        output: Vec::new(),
        to_lanes: node.lanes.iter().map(|_| Vec::new()).collect(),
        remote: HashMap::new(),
        journal: Journal::new(thread, disk, node.control.is_some()),
        copying: node
            .control
            .as_ref()
            .map(|control| Copying::new(thread, node.shards, &node.config, control)),
        replies: HashMap::new(),
        newest_epoch_us: 0,
        confirmed: HashMap::new(),
    };
    let now = clock::now();
    shell.heed();
    if is_new && shell.following.is_none() {
        // A table that starts empty cannot vouch for anything before now.
        let assign = Input::Assign {
            shards,
            epoch: Epoch(1),
            floor: node.first_version,
            cause: FloorCause::Lost,
        };
        shell.handle(now, assign);
    }
    for lane in 0..node.lanes.len() {
        shell.handle(
            now,
            Input::LinkUp {
                link: lane as u32,
                generation: GENERATION,
            },
        );
    }
    shell.flush();
    spawn_vital("owner", shell.run(begin.receiver));
}

/// What ties the owner of a member of a cluster to the control plane.
struct Following {
    control: control::Handle,
    view: watch::Receiver<Arc<control::View>>,
    /// The revision of the map that was acted on, and whether it was confirmed.
    done: Option<(u64, bool)>,
    offered: Offered,
    floors: Floors,
}

impl Following {
    fn new(control: &control::Handle, offered: Offered) -> Self {
        let mut view = control.watch();
        view.mark_changed();
        Self {
            control: control.clone(),
            view,
            done: None,
            offered,
            floors: Floors::default(),
        }
    }

    /// What was offered of the shard is in use now, or of no use.
    fn withdraw(&self, shard: ShardId) {
        let mut offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        if offered.remove(&shard).is_some() {
            let left = offered.iter().map(|(shard, epoch)| (*shard, *epoch));
            self.control.set_on_disk(left.collect());
        }
    }

    /// The view, if it is another than the last time.
    fn news(&mut self) -> Option<Arc<control::View>> {
        // An error: the process ends, and nothing changes any more.
        let has_changed = self.view.has_changed().unwrap_or(false);
        has_changed.then(|| Arc::clone(&self.view.borrow_and_update()))
    }

    /// Pending for ever on a node that is alone, and where the control plane is gone.
    async fn changed(following: &mut Option<Self>) {
        if let Some(following) = following
            && following.view.changed().await.is_ok()
        {
            return following.view.mark_changed();
        }
        std::future::pending().await
    }
}

struct Shell {
    thread: usize,
    machine: Owner,
    holdings: Holdings,
    following: Option<Following>,
    shards: Vec<ShardId>,
    node: Arc<Node>,
    output: Vec<Output>,
    to_lanes: Vec<Vec<OwnerToEdge>>,
    /// Lanes of other nodes, by link.
    remote: HashMap<u32, (u32, RemoteLane)>,
    journal: Journal,
    /// On its way to those who hold copies of what is owned here; `None` on a node that is alone.
    copying: Option<Copying>,
    /// The way back to owners whose shards are copied here.
    replies: HashMap<StreamName, CopyReply>,
    /// Where the newest epoch of any shard of the cluster began, as a time: versions are microseconds.
    newest_epoch_us: u64,
    /// How far their streams are written and synced: the life, and the places.
    confirmed: HashMap<StreamName, (u32, u64, u64)>,
}

/// One owner of one process.
type StreamName = (Process, u16);

impl Shell {
    async fn run(mut self, mut receiver: OwnerReceiver) {
        // One timer, moved only when it has to ring earlier or has rung: a deadline that moves out costs nothing.
        let timer = tokio::time::sleep(Duration::from_secs(3600));
        tokio::pin!(timer);
        loop {
            match self.next_deadline() {
                Some(at) if clock::instant(at) < timer.deadline() || timer.is_elapsed() => {
                    timer.as_mut().reset(clock::instant(at));
                }
                None if timer.is_elapsed() => timer.as_mut().reset(Instant::now() + Duration::from_secs(3600)),
                Some(_) | None => {}
            }
            let mut handled = 0_usize;
            tokio::select! {
                biased;
                Some(command) = receiver.commands.recv() => { self.command(command); handled += 1; }
                () = Following::changed(&mut self.following) => handled += 1,
                done = self.journal.done() => self.settle(&done),
                batch = receiver.batches.recv(), if !self.is_congested() => match batch {
                    Some(batch) => { self.batch(batch); handled += 1; }
                    None => return,
                },
                // The disk is behind, or a copy. Nobody says when it has caught up.
                () = tokio::time::sleep(CATCH_UP), if self.is_congested() => {}
                () = &mut timer => {}
            }
            while handled < BURST {
                // Registrations go before publishes: subscribers wait for them, and they are few.
                if let Ok(command) = receiver.commands.try_recv() {
                    self.command(command);
                } else if let Some(done) = self.journal.try_done() {
                    self.settle(&done);
                } else if self.is_congested() {
                    break;
                } else if let Ok(batch) = receiver.batches.try_recv() {
                    self.batch(batch);
                } else {
                    break;
                }
                handled += 1;
            }
            self.heed();
            let now = self.now();
            if self.machine.next_deadline().is_some_and(|at| at <= now.mono_us) {
                self.machine.handle_deadline(now, &mut self.output);
                self.perform();
            }
            if let Some(following) = &self.following {
                following.control.saw(self.machine.highest());
            }
            self.flush();
            if handled > 0 {
                self.node.metrics.owner_burst.observe(handled as f64);
            }
            if handled >= BURST {
                // Whoever shares the thread gets a turn.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes note of what it may do now. On a node that is alone the disk says that. On a member of a cluster the map goes
    /// before the permission that was granted with it; the disk's ceiling does not count there, because a process that
    /// starts again owns nothing before the cluster gives it an epoch that begins above all that was ever allowed.
    fn heed(&mut self) {
        let Some(following) = &mut self.following else {
            if let Some(ceiling) = self.journal.ceiling() {
                self.machine.set_ceiling(ceiling);
            }
            return;
        };
        let Some(view) = following.news() else { return };
        let state = (view.map.revision(), view.confirmed);
        if following.done.replace(state) != Some(state) {
            for step in self.holdings.steps(&self.machine, &self.shards, &view) {
                self.act(step);
            }
            self.heed_copies(&view);
            let begins = view.map.shards().map(|(_, shard)| shard.begins.0).max();
            self.newest_epoch_us = self.newest_epoch_us.max(begins.unwrap_or_default());
        }
        self.machine.set_ceiling(view.ceiling);
        self.machine.set_lease(view.until_us);
        if let Some(following) = &self.following {
            let higher = self.holdings.floors_above(&self.machine, &view);
            following.floors.tell(&following.control, higher);
        }
    }

    /// The time, which for versions is at least where the newest epoch of any shard began: epochs begin ahead of clocks, and shards
    /// that all go on from there do not lag behind each other.
    fn now(&self) -> Now {
        let now = clock::now();
        Now {
            wall_us: now.wall_us.max(self.newest_epoch_us),
            ..now
        }
    }

    fn act(&mut self, step: Step) {
        let (now, machine, out) = (clock::now(), &mut self.machine, &mut self.output);
        if let (Some(following), Step::Take(Assignment { shard, .. }) | Step::Forget(shard)) = (&self.following, step) {
            following.withdraw(shard);
        }
        let tenure = match step {
            Step::Take(assignment) => self.holdings.take(machine, now, assignment, out),
            Step::Release(shard) => return self.let_go(shard),
            Step::Forget(shard) => self.holdings.forget(shard),
        };
        // Before what the machine says of it.
        if let Some(tenure) = tenure {
            self.journal.tenure(tenure);
        }
        self.perform();
    }

    fn batch(&mut self, batch: Batch) {
        if self.journal.is_failing() {
            _ = batch.reply.send(Err(PublishFailure::StorageFails));
            return;
        }
        self.heed();
        let now = clock::now();
        let request = self.journal.begin(now, &batch.changes, batch.ack, batch.reply);
        self.handle(
            self.now(),
            Input::Publish {
                request,
                changes: batch.changes,
            },
        );
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::FromLane {
                lane,
                generation,
                frames,
            } => {
                let now = clock::now();
                for frame in frames {
                    self.handle(
                        now,
                        Input::FromEdge {
                            link: lane as u32,
                            generation,
                            frame,
                        },
                    );
                }
            }
            Command::LinkUp { link, generation, lane } => {
                self.remote.insert(link, (generation, lane));
                self.handle(clock::now(), Input::LinkUp { link, generation });
            }
            Command::LinkDown { link, generation } => {
                if self.remote.get(&link).is_some_and(|(known, _)| *known == generation) {
                    self.remote.remove(&link);
                }
                self.handle(clock::now(), Input::LinkDown { link, generation });
            }
            Command::CopiesLink { to, road } => {
                if let Some(copying) = &mut self.copying {
                    copying.link(clock::now(), to, road);
                }
            }
            Command::CopiesAnswered { from, frame } => {
                if let Some(copying) = &mut self.copying {
                    copying.answered(clock::now(), from, &frame, &self.machine);
                }
            }
            Command::CopiesCame { from, reply, batch } => self.take_copies(from, &reply, batch),
            Command::Inspect { object, reply } => {
                let shard = self.node.shards.shard(object);
                // Whoever asked may have gone; so everywhere below.
                _ = reply.send(Inspection {
                    version: self.machine.version(object),
                    epoch: self.machine.epoch(shard),
                    floor: self.machine.floor(shard).unwrap_or(Version::ZERO),
                    watchers: self
                        .machine
                        .watchers(object)
                        .into_iter()
                        .map(|link| link as usize)
                        .collect(),
                });
            }
            Command::Keep { piece, reply } => {
                _ = reply.send(self.keep(piece));
            }
            Command::Report { reply } => {
                let shards = self
                    .shards
                    .iter()
                    .filter_map(|shard| Some((*shard, self.machine.epoch(*shard)?, self.machine.floor(*shard)?)));
                _ = reply.send(Report {
                    shards: shards.collect(),
                    stats: self.machine.stats(),
                    copies: self.copy_stats(),
                });
            }
        }
    }

    fn keep(&self, piece: Piece) -> Kept {
        match piece {
            Piece::Versions { shard, piece } => Kept::Versions(self.holdings.share(&self.machine, shard, piece)),
            Piece::Marks { piece } => {
                let machine = &self.machine;
                Kept::Marks((machine.kept_revisions(piece), machine.kept_answers(piece, clock::now())))
            }
        }
    }

    fn handle(&mut self, now: Now, input: Input) {
        self.machine.handle(now, input, &mut self.output);
        self.perform();
    }

    fn perform(&mut self) {
        for output in self.output.drain(..) {
            match output {
                Output::ToEdge {
                    link,
                    generation,
                    frame,
                } => {
                    // Each lane is told of a floor; the disk needs to hear of it once.
                    if let (0, OwnerToEdge::Own { shards }) = (link, &frame) {
                        self.journal.owned(shards);
                        if let Some(copying) = &mut self.copying {
                            copying.floors(shards);
                        }
                    }
                    if let Some(frames) = self.to_lanes.get_mut(link as usize) {
                        frames.push(frame);
                    } else if let Some((known, lane)) = self.remote.get(&link)
                        && *known == generation
                    {
                        lane.send(frame);
                    }
                }
                Output::Published { request, results } => {
                    let drafted = self.journal.applied(request, results);
                    let copying = self.copying.as_mut().filter(|copying| !copying.is_idle());
                    if let (Some((draft, ack)), Some(copying)) = (drafted, copying) {
                        let copied = draft.copied(self.journal.results(request), self.node.shards);
                        if copying.tell(request, ack, &copied) {
                            self.journal.wait_for_copies(request);
                        }
                    }
                    self.journal.answer_if_done(request);
                }
            }
        }
    }

    fn flush(&mut self) {
        self.flush_copies();
        self.journal.flush();
        for (frames, lane) in self.to_lanes.iter_mut().zip(&self.node.lanes) {
            if !frames.is_empty() {
                lane.from_owner(self.thread, GENERATION, std::mem::take(frames));
            }
        }
    }
}
