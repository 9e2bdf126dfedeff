//! A stream of lines, one change each, of any length in bounded memory: lines become chunks, and at most two chunks are on
//! their way to the owners while the next is read.

use super::answer::{ChangeError, LineError, Sum};
use super::batch::no_owner;
use super::clustered::worse;
use super::dispatch::Dispatch;
use super::lines::{Lines, TooLong};
use super::{Terms, body, failed, hashed};
use crate::auth::Caller;
use crate::control;
use crate::owner::{Begun, PublishFailure, count_failure};
use crate::problem::Refusal;
use crate::server::App;
use crate::telemetry::Limit;
use axum::response::Response;
use futures_util::poll;
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::pin::pin;
use std::task::Poll;
use tidings_protocol::client::parse_publish_line;
use tidings_protocol::error::{Applied, Code};
use tidings_protocol::{Problem, Version};
use tidings_router::access::Action;
use tidings_router::owner::{Publish, Published};
use tokio::time::Instant;

/// Changes in one chunk, over all owners.
const CHUNK: usize = 2_500;
/// Bytes of kind and data after which a chunk is sent although it has few changes.
const CHUNK_HINT_BYTES: usize = 1 << 20;
/// Chunks on their way at once.
const UNDER_WAY: usize = 2;
/// How many refused lines are named.
const NAMED_ERRORS: usize = 100;

/// Publishes line by line and answers with the sum.
pub(super) async fn answer(app: &App, caller: &Caller, terms: &Terms, mut body: Incoming) -> Result<Response, Refusal> {
    let longest = usize::try_from(app.node.live().limits.publish_line_bytes).unwrap_or(usize::MAX);
    let mut lines = Lines::new(longest);
    let mut stream = Stream::new(app, caller, terms);
    loop {
        let mut next = pin!(body::piece(app, &mut body));
        let piece = match poll!(next.as_mut()) {
            Poll::Ready(piece) => piece,
            Poll::Pending => {
                // Nothing more has come: what has come is not kept waiting for it.
                if stream.gathered > 0 {
                    stream.send().await?;
                }
                next.await
            }
        };
        let piece = piece.map_err(|refusal| stream.broken(refusal))?;
        let Some(piece) = piece else { break };
        if let Err(denial) = caller.still_counts(app.node.auth.as_deref()) {
            return Err(stream.broken(denial.refusal().closing()));
        }
        let mut rest = &piece[..];
        while let Some(line) = lines.next(&mut rest) {
            stream.line(line);
            if stream.full() {
                stream.send().await?;
            }
        }
    }
    if let Some(line) = lines.last() {
        stream.line(line);
    }
    stream.send().await?;
    while !stream.under_way.is_empty() {
        stream.settle().await?;
    }
    Ok(terms.format.response(&stream.sum))
}

/// Changes on their way, and how they are waited for.
enum UnderWay {
    /// To an owner of this node, which is alone.
    Owner(Begun),
    /// To owners anywhere.
    Cluster(Box<Dispatch>),
}

/// The changes of one chunk for one owner, in a cluster for all, and the lines they came from.
#[derive(Default)]
struct Share {
    changes: Vec<Publish>,
    lines: Vec<u64>,
}

struct Stream<'a> {
    app: &'a App,
    caller: &'a Caller,
    terms: &'a Terms,
    line: u64,
    shares: Vec<Share>,
    gathered: usize,
    hint_bytes: usize,
    under_way: VecDeque<(UnderWay, Vec<u64>, Instant)>,
    sum: Sum,
}

impl<'a> Stream<'a> {
    fn new(app: &'a App, caller: &'a Caller, terms: &'a Terms) -> Self {
        let shares = match app.node.control {
            None => app.node.owners.iter().map(|_| Share::default()).collect(),
            Some(_) => vec![Share::default()],
        };
        Self {
            app,
            caller,
            terms,
            line: 0,
            shares,
            gathered: 0,
            hint_bytes: 0,
            under_way: VecDeque::new(),
            sum: Sum::default(),
        }
    }

    fn line(&mut self, line: Result<&[u8], TooLong>) {
        self.line += 1;
        let line = match line {
            Ok(line) if line.iter().all(u8::is_ascii_whitespace) => return,
            Ok(line) => line,
            Err(TooLong) => {
                self.app.node.metrics.refused(Limit::PublishLineBytes);
                let most = self.app.node.live().limits.publish_line_bytes;
                let detail = format!("a line has at most {most} bytes (limits.publish_line_bytes)");
                return self.refuse(self.line, Problem::new(Code::TooLarge, detail));
            }
        };
        let granted = parse_publish_line(line).and_then(|change| {
            self.caller
                .check(Action::Publish, &change.object, &self.app.node.metrics)?;
            Ok(change)
        });
        match granted {
            Ok(change) => {
                self.hint_bytes += change.hint.as_ref().map_or(0, tidings_protocol::Hint::bytes);
                let change = hashed(&self.app.node.key, change, self.terms.key.as_deref(), self.line);
                let share = match self.app.node.control {
                    None => self.app.node.owner_of(change.object),
                    Some(_) => 0,
                };
                let share = &mut self.shares[share];
                if share.changes.capacity() == 0 {
                    share.changes.reserve_exact(CHUNK);
                    share.lines.reserve_exact(CHUNK);
                }
                share.changes.push(change);
                share.lines.push(self.line);
                self.gathered += 1;
            }
            Err(problem) => self.refuse(self.line, problem),
        }
    }

    fn refuse(&mut self, line: u64, problem: Problem) {
        self.app.node.metrics.rejected.inc();
        self.sum.rejected += 1;
        if self.sum.errors.len() < NAMED_ERRORS {
            self.sum.errors.push(LineError {
                line,
                error: ChangeError::new(problem, Applied::No),
            });
        }
    }

    fn full(&self) -> bool {
        self.gathered >= CHUNK || self.hint_bytes >= CHUNK_HINT_BYTES
    }

    /// Gives what was gathered to the owners; waits while too much is on its way.
    async fn send(&mut self) -> Result<(), Refusal> {
        if let Some(control) = &self.app.node.control {
            return self.send_anywhere(control).await;
        }
        let owners = self.shares.len();
        while self.under_way.len() >= UNDER_WAY * owners {
            self.settle().await?;
        }
        let deadline = Instant::now() + self.terms.timeout;
        for thread in 0..owners {
            let share = std::mem::take(&mut self.shares[thread]);
            if share.changes.is_empty() {
                continue;
            }
            let begun = self.app.node.owners[thread]
                .begin(share.changes, self.terms.ack_level(), deadline)
                .await;
            match begun {
                Ok(begun) => self
                    .under_way
                    .push_back((UnderWay::Owner(begun), share.lines, deadline)),
                Err(failure) => return Err(self.failed(failure).await),
            }
        }
        self.gathered = 0;
        self.hint_bytes = 0;
        Ok(())
    }

    /// The same in a cluster. Changes that are refused are routed again, so a chunk goes when all before it have their
    /// fate: else a later change of an object could overtake an earlier one.
    async fn send_anywhere(&mut self, control: &control::Handle) -> Result<(), Refusal> {
        while !self.under_way.is_empty() {
            self.settle().await?;
        }
        let share = std::mem::take(&mut self.shares[0]);
        if share.changes.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + self.terms.timeout;
        let dispatch = Dispatch::begin(&self.app.node, control, share.changes, self.terms.ack_level(), deadline).await;
        let under_way = UnderWay::Cluster(Box::new(dispatch));
        self.under_way.push_back((under_way, share.lines, deadline));
        self.gathered = 0;
        self.hint_bytes = 0;
        Ok(())
    }

    /// Waits for the oldest chunk under way.
    async fn settle(&mut self) -> Result<(), Refusal> {
        let Some((under_way, lines, deadline)) = self.under_way.pop_front() else {
            return Ok(());
        };
        match self.wait(under_way, lines, deadline).await {
            None => Ok(()),
            Some(failure) => Err(self.failed(failure).await),
        }
    }

    /// Waits for a chunk and counts what became of it. The failure that casts the most doubt, if any change failed.
    async fn wait(&mut self, under_way: UnderWay, lines: Vec<u64>, deadline: Instant) -> Option<PublishFailure> {
        match under_way {
            UnderWay::Owner(begun) => match begun.wait(deadline).await {
                Ok(results) => {
                    self.count(results.into_iter().zip(lines));
                    None
                }
                Err(failure) => Some(failure),
            },
            UnderWay::Cluster(dispatch) => {
                let mut worst = None;
                let fates = dispatch.settle().await.into_iter().zip(lines);
                self.count(fates.filter_map(|(fate, line)| match fate {
                    Ok(published) => Some((published, line)),
                    Err(failure) => {
                        worst = worse(worst, failure);
                        None
                    }
                }));
                worst
            }
        }
    }

    fn count(&mut self, results: impl Iterator<Item = (Published, u64)>) {
        let (mut accepted, mut duplicates, mut newest) = (0, 0, Version::ZERO);
        for (published, line) in results {
            match published {
                Published::Accepted(version) => {
                    accepted += 1;
                    newest = newest.max(version);
                }
                Published::Duplicate(version) => {
                    duplicates += 1;
                    newest = newest.max(version);
                }
                Published::NotOwner(shard) | Published::Paused(shard) => self.refuse(line, no_owner(shard)),
            }
        }
        self.app.node.metrics.published.inc_by(accepted);
        self.app.node.metrics.duplicates.inc_by(duplicates);
        self.sum.accepted += accepted + duplicates;
        self.sum.duplicates += duplicates;
        self.sum.version = self.sum.version.max(newest.known());
    }

    /// What is said when a chunk failed. Those under way behind it are waited for, so that no more doubt is cast than there
    /// is.
    async fn failed(&mut self, failure: PublishFailure) -> Refusal {
        count_failure(&self.app.node.metrics, failure);
        let (problem, mut applied) = failed(failure);
        while let Some((under_way, lines, deadline)) = self.under_way.pop_front() {
            let failure = self.wait(under_way, lines, deadline).await;
            if failure.is_some_and(|failure| super::failed(failure).1 == Applied::Unknown) {
                applied = Applied::Unknown;
            }
        }
        self.ended(Refusal::from(problem).closing(), applied)
    }

    /// The stream breaks off while it is read: what is under way may have happened.
    fn broken(&self, refusal: Refusal) -> Refusal {
        let applied = if self.under_way.is_empty() {
            Applied::No
        } else {
            Applied::Unknown
        };
        self.ended(refusal, applied)
    }

    /// `others`: whether lines that were not acknowledged may have been applied.
    fn ended(&self, refusal: Refusal, others: Applied) -> Refusal {
        let (accepted, line) = (self.sum.accepted, self.line);
        if (accepted, others) == (0, Applied::No) {
            return refusal.applied(Applied::No);
        }
        let others = match others {
            Applied::No => "none of the others was applied",
            Applied::Unknown => "others may have been applied",
        };
        refusal
            .adding(&format!(
                "; of {line} lines read, {accepted} were acknowledged and {others}"
            ))
            .applied(Applied::Unknown)
    }
}
