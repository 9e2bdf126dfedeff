//! A stream of lines, one change each, of any length in bounded memory: lines become chunks, and at most two chunks are on
//! their way to the owners while the next is read.

use super::answer::{ChangeError, LineError, Sum};
use super::batch::no_owner;
use super::lines::{Lines, TooLong};
use super::{Terms, body, failed, hashed};
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
pub(super) async fn answer(app: &App, terms: &Terms, mut body: Incoming) -> Result<Response, Refusal> {
    let longest = usize::try_from(app.node.config.limits.publish_line_bytes).unwrap_or(usize::MAX);
    let mut lines = Lines::new(longest);
    let mut stream = Stream::new(app, terms);
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

/// The changes of one chunk for one owner, and the lines they came from.
#[derive(Default)]
struct Share {
    changes: Vec<Publish>,
    lines: Vec<u64>,
}

struct Stream<'a> {
    app: &'a App,
    terms: &'a Terms,
    line: u64,
    shares: Vec<Share>,
    gathered: usize,
    hint_bytes: usize,
    under_way: VecDeque<(Begun, Vec<u64>, Instant)>,
    sum: Sum,
}

impl<'a> Stream<'a> {
    fn new(app: &'a App, terms: &'a Terms) -> Self {
        let shares = app.node.owners.iter().map(|_| Share::default()).collect();
        Self {
            app,
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
                let most = self.app.node.config.limits.publish_line_bytes;
                let detail = format!("a line has at most {most} bytes (limits.publish_line_bytes)");
                return self.refuse(self.line, Problem::new(Code::TooLarge, detail));
            }
        };
        match parse_publish_line(line) {
            Ok(change) => {
                self.hint_bytes += change.hint.as_ref().map_or(0, tidings_protocol::Hint::bytes);
                let change = hashed(&self.app.node.key, change, self.terms.key.as_deref(), self.line);
                let share = &mut self.shares[self.app.node.owner_of(change.object)];
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
                .begin(share.changes, self.terms.is_durable(), deadline)
                .await;
            match begun {
                Ok(begun) => self.under_way.push_back((begun, share.lines, deadline)),
                Err(failure) => return Err(self.failed(failure).await),
            }
        }
        self.gathered = 0;
        self.hint_bytes = 0;
        Ok(())
    }

    /// Waits for the oldest chunk under way.
    async fn settle(&mut self) -> Result<(), Refusal> {
        let Some((begun, lines, deadline)) = self.under_way.pop_front() else {
            return Ok(());
        };
        match begun.wait(deadline).await {
            Ok(results) => self.count(results, lines),
            Err(failure) => return Err(self.failed(failure).await),
        }
        Ok(())
    }

    fn count(&mut self, results: Vec<Published>, lines: Vec<u64>) {
        let (mut accepted, mut duplicates, mut newest) = (0, 0, Version::ZERO);
        for (published, line) in results.into_iter().zip(lines) {
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
        while let Some((begun, lines, deadline)) = self.under_way.pop_front() {
            match begun.wait(deadline).await {
                Ok(results) => self.count(results, lines),
                Err(failure) if failed(failure).1 == Applied::Unknown => applied = Applied::Unknown,
                Err(_) => {}
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
