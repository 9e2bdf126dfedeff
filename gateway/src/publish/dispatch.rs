//! Changes on their way to their owners in a cluster: on this node or another, found by the newest map, and found again
//! when the map was wrong.
//!
//! What was surely not applied is routed again until the deadline: as soon as there is a newer view, or a moment later.
//! Changes of one object stay in their order: a change is sent only after all before it of its shard are answered, or in
//! one frame with them. It does not know HTTP.

use crate::control::{self, View};
use crate::node::Node;
use crate::owner::{Begun, PublishFailure};
use crate::peers::route::{Route, route};
use crate::peers::{FORWARD_BYTES, Forwarded, NotSent, forwarded_bytes};
use crate::telemetry::Limit;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidings_protocol::mesh::{AckLevel, ForwardedResult, MAX_ENTRIES};
use tidings_router::owner::{Publish, Published};
use tokio::sync::watch;
use tokio::time::Instant;

/// How soon changes are routed again if no newer view comes.
const PAUSE: Duration = Duration::from_millis(25);

/// The most of a deadline that is kept for the way back: another node answers "not in time" before it is asked no more.
const WAY_BACK: Duration = Duration::from_millis(50);

/// What became of a change. `Ok(Published::NotOwner)`: until the deadline nobody was found to give it a version, and it was
/// surely not applied.
pub(super) type Fate = Result<Published, PublishFailure>;

/// What an owner said of one change.
enum Said {
    Fate(Fate),
    /// Not applied: the owner is elsewhere, or gives no versions now.
    Again,
}

/// Changes of one owner or node with the answer they wait for.
struct Settled {
    places: Vec<usize>,
    /// Changes that may go only when these are answered.
    behind: Vec<usize>,
    said: Vec<Said>,
}

/// Changes that have one way.
#[derive(Default)]
struct Group {
    places: Vec<usize>,
    behind: Vec<usize>,
    bytes: usize,
}

impl Group {
    fn takes(&self, bytes: usize) -> bool {
        let fits = self.bytes + bytes <= FORWARD_BYTES && self.places.len() < MAX_ENTRIES;
        self.behind.is_empty() && (fits || self.places.is_empty())
    }
}

/// See the module.
pub(super) struct Dispatch {
    node: Arc<Node>,
    view: watch::Receiver<Arc<View>>,
    ack: AckLevel,
    deadline: Instant,
    changes: Vec<Publish>,
    fates: Vec<Option<Fate>>,
    under_way: FuturesUnordered<BoxFuture<'static, Settled>>,
    /// Changes to be routed again, and when.
    again: Vec<usize>,
    again_at: Instant,
    /// Some of them could not be sent because too much was under way.
    full: bool,
}

impl Dispatch {
    /// Routes the changes and sends them off. All are on their way when this returns, or wait to be routed again.
    pub(super) async fn begin(
        node: &Arc<Node>,
        control: &control::Handle,
        changes: Vec<Publish>,
        ack: AckLevel,
        deadline: Instant,
    ) -> Self {
        let places = (0..changes.len()).collect();
        let mut new = Self {
            node: Arc::clone(node),
            view: control.watch(),
            ack,
            deadline,
            fates: vec![None; changes.len()],
            changes,
            under_way: FuturesUnordered::new(),
            again: Vec::new(),
            again_at: deadline,
            full: false,
        };
        new.send(places).await;
        new
    }

    /// What became of each change, in their order. Ends soon after the deadline at the latest.
    pub(super) async fn settle(mut self) -> Vec<Fate> {
        loop {
            if self.again.is_empty() && self.under_way.is_empty() {
                break;
            }
            if !self.again.is_empty() && Instant::now() >= self.deadline {
                self.give_up();
                continue;
            }
            let again = !self.again.is_empty();
            tokio::select! {
                Some(settled) = self.under_way.next() => self.hear(settled),
                Ok(()) = self.view.changed(), if again => self.send_again().await,
                () = tokio::time::sleep_until(self.again_at.min(self.deadline)), if again => self.send_again().await,
                else => break,
            }
        }
        let fates = self.fates.into_iter();
        fates
            .map(|fate| fate.unwrap_or(Err(PublishFailure::OutcomeUnknown)))
            .collect()
    }

    /// Routes what was not applied once more, in the order of the request.
    async fn send_again(&mut self) {
        if Instant::now() >= self.deadline {
            return;
        }
        let mut places = std::mem::take(&mut self.again);
        places.sort_unstable();
        self.again_at = self.deadline;
        self.full = false;
        if let Some(peers) = &self.node.peers {
            peers.count_again(places.len());
        }
        self.send(places).await;
    }

    async fn send(&mut self, places: Vec<usize>) {
        let view = Arc::clone(&self.view.borrow_and_update());
        let mut groups: BTreeMap<Route, Group> = BTreeMap::new();
        for place in places {
            let change = &self.changes[place];
            let route = route(&view, self.node.owners.len(), self.node.shards.shard(change.object));
            let group = groups.entry(route).or_default();
            let bytes = forwarded_bytes(change);
            if group.takes(bytes) {
                group.bytes += bytes;
                group.places.push(place);
            } else {
                group.behind.push(place);
            }
        }
        for (route, group) in groups {
            match route {
                Route::Local(thread) => self.send_here(thread, group).await,
                Route::Remote(node) => self.send_there(node, group),
                Route::Nobody => self.hold(group.places.into_iter().chain(group.behind), PAUSE),
            }
        }
    }

    async fn send_here(&mut self, thread: usize, mut group: Group) {
        // Nothing is cut on the way to an owner of this node.
        group.places.append(&mut group.behind);
        if self.ack == AckLevel::Durable && self.node.storage.is_none() {
            return self.fail(&group.places, PublishFailure::NoDisk);
        }
        let changes = group.places.iter().map(|place| self.changes[*place].clone()).collect();
        match self.node.owners[thread].begin(changes, self.ack, self.deadline).await {
            Ok(begun) => self.under_way.push(Box::pin(here(begun, self.deadline, group))),
            Err(failure) => self.fail(&group.places, failure),
        }
    }

    fn send_there(&mut self, node: tidings_protocol::NodeId, group: Group) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let within = left - WAY_BACK.min(left / 10);
        let within_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX).max(1);
        let changes = group.places.iter().map(|place| &self.changes[*place]);
        let sent = match &self.node.peers {
            Some(peers) => peers.publish(node, self.ack, within_ms, changes),
            None => Err(NotSent::NoWay),
        };
        match sent {
            Ok(forwarded) => self.under_way.push(Box::pin(there(forwarded, self.deadline, group))),
            Err(why) => {
                self.full |= why == NotSent::Full;
                self.hold(group.places.into_iter().chain(group.behind), PAUSE);
            }
        }
    }

    /// Changes that were not applied wait to be routed again.
    fn hold(&mut self, places: impl IntoIterator<Item = usize>, pause: Duration) {
        self.again.extend(places);
        self.again_at = self.again_at.min(Instant::now() + pause);
    }

    fn fail(&mut self, places: &[usize], failure: PublishFailure) {
        for place in places {
            self.fates[*place] = Some(Err(failure));
        }
    }

    fn hear(&mut self, settled: Settled) {
        let mut again = Vec::new();
        for (place, said) in settled.places.into_iter().zip(settled.said) {
            match said {
                Said::Fate(fate) => self.fates[place] = Some(fate),
                Said::Again => again.push(place),
            }
        }
        let pause = if again.is_empty() { Duration::ZERO } else { PAUSE };
        again.extend(settled.behind);
        if !again.is_empty() {
            self.hold(again, pause);
        }
    }

    /// The deadline has passed.
    fn give_up(&mut self) {
        if self.full {
            self.node.metrics.refused(Limit::ForwardBytes);
        }
        for place in std::mem::take(&mut self.again) {
            let shard = self.node.shards.shard(self.changes[place].object);
            self.fates[place] = Some(if self.full {
                Err(PublishFailure::Overloaded)
            } else {
                Ok(Published::NotOwner(shard))
            });
        }
    }
}

async fn here(begun: Begun, deadline: Instant, group: Group) -> Settled {
    let said = match begun.wait(deadline).await {
        Ok(results) => results.into_iter().map(heard).collect(),
        Err(failure) => group.places.iter().map(|_| Said::Fate(Err(failure))).collect(),
    };
    Settled {
        places: group.places,
        behind: group.behind,
        said,
    }
}

fn heard(published: Published) -> Said {
    match published {
        Published::Accepted(_) | Published::Duplicate(_) => Said::Fate(Ok(published)),
        Published::NotOwner(_) | Published::Paused(_) => Said::Again,
    }
}

async fn there(forwarded: Forwarded, deadline: Instant, group: Group) -> Settled {
    let said = match forwarded.wait(deadline).await {
        Some(results) => results.into_iter().map(heard_from_afar).collect(),
        None => {
            let unknown = |_| Said::Fate(Err(PublishFailure::OutcomeUnknown));
            group.places.iter().map(unknown).collect()
        }
    };
    Settled {
        places: group.places,
        behind: group.behind,
        said,
    }
}

fn heard_from_afar(result: ForwardedResult) -> Said {
    Said::Fate(match result {
        ForwardedResult::Accepted(version) => Ok(Published::Accepted(version)),
        ForwardedResult::Duplicate(version) => Ok(Published::Duplicate(version)),
        ForwardedResult::NotOwner { .. } | ForwardedResult::Unavailable => return Said::Again,
        ForwardedResult::Overloaded => Err(PublishFailure::Overloaded),
        ForwardedResult::NoStorage => Err(PublishFailure::StorageFails),
        ForwardedResult::NoDisk => Err(PublishFailure::NoDisk),
        ForwardedResult::Unknown => Err(PublishFailure::OutcomeUnknown),
    })
}
