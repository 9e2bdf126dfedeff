//! The shell of an owner: one task on each thread drives the machine that assigns versions for that thread's shards.
//!
//! Everything that waits is handled before anything is passed on, so that a busy owner tells each lane once a burst and
//! not once a change. It does not know HTTP or subscribers.

mod copying;
pub(crate) mod draft;
mod floors;
pub(crate) mod holdings;
mod journal;
mod shell;
mod source;

pub use shell::{Begin, Offered, start};
pub use source::OwnerSource;

use crate::config::Config;
use crate::peers::{CopyReply, CopyRoad, RemoteLane};
use crate::telemetry::{Limit, Metrics};
use source::{Kept, Piece};
use tidings_protocol::copy;
use tidings_protocol::mesh::AckLevel;
use tidings_protocol::peer::EdgeToOwner;
use tidings_protocol::{Epoch, ObjectHash, ShardCount, ShardId, Version};
use tidings_router::control::map::Process;
use tidings_router::copies::receiver::Arrived;
use tidings_router::owner::{self, Publish, Published};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// A batch of changes on its way to the owner of their shards.
#[derive(Debug)]
struct Batch {
    changes: Vec<Publish>,
    ack: AckLevel,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<Vec<Published>, PublishFailure>>;

/// What reaches an owner beside publishes.
#[derive(Debug)]
enum Command {
    /// Frames of a lane, in order.
    FromLane {
        lane: usize,
        generation: u32,
        frames: Vec<EdgeToOwner>,
    },
    /// A lane of another node has a link here now.
    LinkUp {
        link: u32,
        generation: u32,
        lane: RemoteLane,
    },
    /// It has it no more.
    LinkDown { link: u32, generation: u32 },
    /// There is a way to a process that holds copies, or is to; or there is none any more.
    CopiesLink { to: Process, road: Option<CopyRoad> },
    /// A process that holds copies said something.
    CopiesAnswered { from: Process, frame: copy::Frame },
    /// An owner elsewhere sent a batch for copies here.
    CopiesCame {
        from: Process,
        reply: CopyReply,
        batch: Arrived,
    },
    /// A question about one object.
    Inspect {
        object: ObjectHash,
        reply: oneshot::Sender<Inspection>,
    },
    /// A piece of what is to be kept.
    Keep {
        piece: Piece,
        reply: std::sync::mpsc::Sender<Kept>,
    },
    /// A question about the owner as a whole.
    Report { reply: oneshot::Sender<Report> },
}

/// What an owner knows of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its newest version, `Version::ZERO` where none is known.
    pub version: Version,
    /// Of its shard, if it is owned here.
    pub epoch: Option<Epoch>,
    /// Below which the owner cannot vouch for the shard.
    pub floor: Version,
    /// The lanes that want to hear of it.
    pub watchers: Vec<usize>,
}

/// What an owner knows of its shards, and its counters.
#[derive(Clone, Debug)]
pub struct Report {
    /// Shard, epoch, floor.
    pub shards: Vec<(ShardId, Epoch, Version)>,
    /// Counters.
    pub stats: owner::Stats,
    /// Copies.
    pub copies: CopyStats,
}

/// Copies as one owner sees them: of its own shards elsewhere, and of others' shards here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyStats {
    /// Copies of shards owned here that have not everything yet.
    pub behind: usize,
    /// Bytes for them that are not confirmed.
    pub unconfirmed_bytes: usize,
    /// Whole copies here.
    pub held: usize,
    /// Copies here that are being filled.
    pub filling: usize,
    /// Bytes of both.
    pub held_bytes: usize,
}

/// Why a batch has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishFailure {
    /// The owner's queue stayed full. Nothing was changed.
    Overloaded,
    /// The owner took the batch and did not answer in time. It may have been applied.
    OutcomeUnknown,
    /// The disk fails, which was known before the batch was looked at. Nothing was changed.
    StorageFails,
    /// It was to be durable, and the owner keeps everything in memory. Nothing was changed.
    NoDisk,
    /// The disk failed under the batch. It was applied in memory and may be lost with the process.
    NotStored,
}

/// A way to reach the owner of one thread from any thread.
#[derive(Clone, Debug)]
pub struct OwnerHandle {
    batches: mpsc::Sender<Batch>,
    commands: mpsc::UnboundedSender<Command>,
}

impl OwnerHandle {
    /// Hands changes over and waits for what became of them, in their order.
    ///
    /// Batches of one caller that begin one after the other are applied in that order.
    ///
    /// # Errors
    /// Says whether the batch may have been applied.
    pub async fn publish(
        &self,
        changes: Vec<Publish>,
        ack: AckLevel,
        deadline: Instant,
    ) -> Result<Vec<Published>, PublishFailure> {
        self.begin(changes, ack, deadline).await?.wait(deadline).await
    }

    /// The first half of [`Self::publish`]: the batch is in the owner's queue when this returns. The answer waits for what its
    /// level asks for.
    ///
    /// # Errors
    /// [`PublishFailure::Overloaded`] if the queue stayed full until the deadline.
    pub async fn begin(
        &self,
        changes: Vec<Publish>,
        ack: AckLevel,
        deadline: Instant,
    ) -> Result<Begun, PublishFailure> {
        let (reply, answer) = oneshot::channel();
        let batch = match self.batches.try_send(Batch { changes, ack, reply }) {
            Ok(()) => return Ok(Begun(answer)),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(PublishFailure::Overloaded),
            Err(mpsc::error::TrySendError::Full(batch)) => batch,
        };
        match tokio::time::timeout_at(deadline, self.batches.send(batch)).await {
            Ok(Ok(())) => Ok(Begun(answer)),
            Ok(Err(_)) | Err(_) => Err(PublishFailure::Overloaded),
        }
    }

    /// Asks for a piece of what is to be kept. If the process is ending, `reply` is dropped.
    fn keep(&self, piece: Piece, reply: std::sync::mpsc::Sender<Kept>) {
        _ = self.commands.send(Command::Keep { piece, reply });
    }

    /// Passes frames of a lane on. Bounded by design: a lane has at most one page of requests under way for each of its
    /// connections.
    pub fn from_lane(&self, lane: usize, generation: u32, frames: Vec<EdgeToOwner>) {
        // A closed channel means that the process is ending.
        _ = self.commands.send(Command::FromLane {
            lane,
            generation,
            frames,
        });
    }

    /// A lane of another node has a link from now on. Links from `node.lanes.len()` on are those of other nodes; a link that
    /// comes again has a higher generation.
    pub fn link_up(&self, link: u32, generation: u32, lane: RemoteLane) {
        _ = self.commands.send(Command::LinkUp { link, generation, lane });
    }

    /// The link is over.
    pub fn link_down(&self, link: u32, generation: u32) {
        _ = self.commands.send(Command::LinkDown { link, generation });
    }

    /// A process that holds copies, or is to, can be reached from now on.
    pub(crate) fn copies_up(&self, to: Process, road: CopyRoad) {
        let road = Some(road);
        _ = self.commands.send(Command::CopiesLink { to, road });
    }

    /// It cannot any more.
    pub(crate) fn copies_down(&self, to: Process) {
        _ = self.commands.send(Command::CopiesLink { to, road: None });
    }

    /// It said something.
    pub(crate) fn copies_answered(&self, from: Process, frame: copy::Frame) {
        _ = self.commands.send(Command::CopiesAnswered { from, frame });
    }

    /// An owner elsewhere sent a batch for copies on this thread. Bounded by what that owner may have unconfirmed.
    pub(crate) fn copies_came(&self, from: Process, reply: CopyReply, batch: Arrived) {
        _ = self.commands.send(Command::CopiesCame { from, reply, batch });
    }

    /// What the owner knows of one object; `None` if the process is ending.
    pub async fn inspect(&self, object: ObjectHash) -> Option<Inspection> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Inspect { object, reply }).ok()?;
        answer.await.ok()
    }

    /// What the owner knows of its shards, and its counters; `None` if the process is ending.
    pub async fn report(&self) -> Option<Report> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Report { reply }).ok()?;
        answer.await.ok()
    }
}

/// A batch that the owner has in its queue.
#[derive(Debug)]
pub struct Begun(oneshot::Receiver<Result<Vec<Published>, PublishFailure>>);

impl Begun {
    /// What became of the changes.
    ///
    /// # Errors
    /// [`PublishFailure::OutcomeUnknown`] if no answer came in time; what the owner says if its disk fails.
    pub async fn wait(mut self, deadline: Instant) -> Result<Vec<Published>, PublishFailure> {
        // Usually the answer is there within microseconds: no timer is armed before it turned out not to be.
        match tokio::time::timeout_at(deadline, &mut self.0).await {
            Ok(Ok(results)) => results,
            Ok(Err(_)) | Err(_) => Err(PublishFailure::OutcomeUnknown),
        }
    }
}

/// The owner's ends of the channels.
#[derive(Debug)]
pub struct OwnerReceiver {
    batches: mpsc::Receiver<Batch>,
    commands: mpsc::UnboundedReceiver<Command>,
}

/// The two ends of the way to one owner, whose queue holds `queue` batches.
#[must_use]
pub fn channel(queue: usize) -> (OwnerHandle, OwnerReceiver) {
    let (batches, batches_end) = mpsc::channel(queue);
    let (commands, commands_end) = mpsc::unbounded_channel();
    (
        OwnerHandle { batches, commands },
        OwnerReceiver {
            batches: batches_end,
            commands: commands_end,
        },
    )
}

/// Links inside one process never break, so they have one generation.
pub const GENERATION: u32 = 1;

/// How the machine of one of `threads` owners is configured.
#[must_use]
pub fn machine_config(config: &Config, shards: ShardCount, threads: usize) -> owner::Config {
    let share = |total: u64| usize::try_from(total).unwrap_or(usize::MAX) / threads;
    owner::Config {
        shards,
        version_table_bytes: share(config.owner.version_table_bytes),
        revisions: share(config.owner.revisions),
        idempotency_keys: share(config.owner.idempotency_keys),
        idempotency_window_us: config.cluster.idempotency_window_ms * 1000,
        link_window_changes: u32::try_from(config.owner.link_window_changes).unwrap_or(u32::MAX),
        link_hint_bytes: usize::try_from(config.owner.link_hint_bytes).unwrap_or(usize::MAX),
        closed_busy_us: config.owner.closed_busy_ms * 1000,
        closed_idle_us: config.owner.closed_idle_ms * 1000,
    }
}

/// Counts why a batch has no answer.
pub(crate) fn count_failure(metrics: &Metrics, failure: PublishFailure) {
    match failure {
        PublishFailure::Overloaded => metrics.refused(Limit::OwnerQueue),
        PublishFailure::OutcomeUnknown => {
            metrics.refused(Limit::PublishTimeout);
            metrics.outcome_unknown.inc();
        }
        PublishFailure::StorageFails => _ = metrics.storage_refused.inc(),
        PublishFailure::NoDisk => _ = metrics.rejected.inc(),
        PublishFailure::NotStored => {
            metrics.storage_refused.inc();
            metrics.outcome_unknown.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn change() -> Vec<Publish> {
        vec![Publish {
            object: ObjectHash(7),
            extra: None,
        }]
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    #[tokio::test]
    async fn an_owner_that_took_a_batch_and_is_silent_leaves_its_outcome_unknown() {
        let (handle, _receiver) = channel(1);
        assert_eq!(
            handle.publish(change(), AckLevel::Replicated, soon()).await,
            Err(PublishFailure::OutcomeUnknown)
        );
    }

    #[tokio::test]
    async fn a_queue_that_stays_full_refuses_and_nothing_was_applied() {
        let (handle, _receiver) = channel(1);
        let _held = handle
            .begin(change(), AckLevel::Replicated, soon())
            .await
            .expect("room for one");
        let begin = Instant::now();
        assert_eq!(
            handle.publish(change(), AckLevel::Replicated, soon()).await,
            Err(PublishFailure::Overloaded)
        );
        assert!(begin.elapsed() >= Duration::from_millis(40), "it waited for room");
    }

    #[tokio::test]
    async fn a_queue_that_empties_in_time_takes_the_batch() {
        let (handle, mut receiver) = channel(1);
        let _held = handle
            .begin(change(), AckLevel::Replicated, soon())
            .await
            .expect("room for one");
        let (begun, _) = tokio::join!(
            handle.begin(change(), AckLevel::Replicated, soon()),
            receiver.batches.recv()
        );
        assert!(begun.is_ok());
    }

    #[tokio::test]
    async fn an_owner_that_is_gone_leaves_the_outcome_unknown_if_it_had_the_batch() {
        let (handle, mut receiver) = channel(1);
        let begun = handle
            .begin(change(), AckLevel::Replicated, soon())
            .await
            .expect("room for one");
        drop(receiver.batches.recv().await);
        drop(receiver);
        assert_eq!(begun.wait(soon()).await, Err(PublishFailure::OutcomeUnknown));
        assert_eq!(
            handle.publish(change(), AckLevel::Replicated, soon()).await,
            Err(PublishFailure::Overloaded)
        );
        assert_eq!(handle.inspect(ObjectHash(7)).await, None);
    }
}
