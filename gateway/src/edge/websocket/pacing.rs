//! How fast a WebSocket's requests are taken. What comes too fast waits where it is: the connection is not read meanwhile, so
//! that its sender is slowed down and nothing piles up here.

use super::Reader;
use crate::clock;
use crate::config::Limits;
use crate::telemetry::Limit;
use std::cell::Cell;
use std::time::Duration;
use tidings_protocol::Problem;
use tidings_protocol::client::Request;
use tidings_router::access::{Bucket, Rate};

/// A connection that waits is not silent: so often it is taken for heard.
const HEARD_EVERY: Duration = Duration::from_secs(1);

/// What one connection has left of its bursts.
#[derive(Debug, Default)]
pub(super) struct Pace {
    messages: Cell<Bucket>,
    subscribes: Cell<Bucket>,
}

/// How many objects a request subscribes to.
fn subscribes(request: &Result<Request, Problem>) -> u64 {
    match request {
        Ok(Request::Subscribe { objects, .. }) => objects.len() as u64,
        _ => 0,
    }
}

fn rates(limits: &Limits) -> [(Limit, Rate); 2] {
    let subscribes_burst = limits.subscribes_burst.max(limits.objects_per_connection);
    [
        (
            Limit::MessagesPerS,
            Rate::new(limits.messages_per_s, limits.messages_burst),
        ),
        (
            Limit::SubscribesPerS,
            Rate::new(limits.subscribes_per_s, subscribes_burst),
        ),
    ]
}

impl Reader {
    /// Waits until this request may be taken; `false` if the connection ended meanwhile.
    pub(super) async fn paced(&self, request: &Result<Request, Problem>) -> bool {
        self.paced_by([1, subscribes(request)]).await
    }

    /// The same for a frame that asks for nothing: a ping or a pong.
    pub(super) async fn paced_frame(&self) -> bool {
        self.paced_by([1, 0]).await
    }

    async fn paced_by(&self, counts: [u64; 2]) -> bool {
        let node = &self.shell.node;
        let buckets = [&self.pace.messages, &self.pace.subscribes];
        for (((limit, rate), bucket), count) in rates(&node.config.limits).into_iter().zip(buckets).zip(counts) {
            let mut waited = false;
            loop {
                let mut left = bucket.get();
                let taken = left.take(rate, count, clock::mono_us());
                bucket.set(left);
                let Err(wait_us) = taken else { break };
                if !waited {
                    waited = true;
                    node.metrics.refused(limit);
                }
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_micros(wait_us).min(HEARD_EVERY)) => {}
                    // It may have been sent away.
                    () = self.turn.notified() => {}
                }
                if !self.alive() {
                    return false;
                }
                self.shell.with(|lane, _| lane.heard(self.who));
            }
        }
        true
    }
}
