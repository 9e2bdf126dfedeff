//! The map as the log's state machine: applies what was agreed, in order, and shows it to whoever watches.
//!
//! It is kept in memory and rebuilt at a start from the last snapshot and the log behind it.

use crate::store::Store;
use crate::types::{LogId, Outcome, Proposal, Snapshot, SnapshotMeta, StoredMembership, Types};
use futures_util::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use std::io;
use std::sync::Arc;
use tidings_router::control::map::Map;
use tokio::sync::watch;

/// What has been agreed, as far as it was applied here.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The map.
    pub map: Arc<Map>,
    /// How many entries of the log it is made of.
    pub entries: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Machine {
    store: Store,
    map: Arc<Map>,
    applied: Option<LogId>,
    membership: StoredMembership,
    shown: watch::Sender<Applied>,
}

/// A map at one moment, about to be written.
#[derive(Debug)]
pub(crate) struct Builder {
    store: Store,
    map: Arc<Map>,
    meta: SnapshotMeta,
}

fn failed(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl Machine {
    /// The map of a cluster of which nothing is known yet is `fresh`.
    pub(crate) fn new(store: Store, fresh: Map) -> (Self, watch::Receiver<Applied>) {
        let map = Arc::new(fresh);
        let (shown, watched) = watch::channel(Applied {
            map: Arc::clone(&map),
            entries: 0,
        });
        let machine = Self {
            store,
            map,
            applied: None,
            membership: StoredMembership::default(),
            shown,
        };
        (machine, watched)
    }

    fn show(&self) {
        self.shown.send_replace(Applied {
            map: Arc::clone(&self.map),
            entries: self.applied.as_ref().map_or(0, |id| id.index + 1),
        });
    }

    fn apply_one(&mut self, id: &LogId, proposal: &Proposal) -> Outcome {
        let mut outcome = Outcome::default();
        if proposal.term.is_some_and(|term| term != id.leader_id.term) {
            outcome.outdated = true;
            return outcome;
        }
        let map = Arc::make_mut(&mut self.map);
        for (place, command) in (0..).zip(&proposal.commands) {
            if let Err(refusal) = map.apply(command) {
                outcome.refused.push((place, refusal));
            }
        }
        outcome
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + Send,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let outcome = match &entry.payload {
                EntryPayload::Blank => Outcome::default(),
                EntryPayload::Normal(proposal) => self.apply_one(&entry.log_id, proposal),
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                    Outcome::default()
                }
            };
            self.applied = Some(entry.log_id);
            // Shown before it is answered: who hears that its proposal was applied finds it applied.
            self.show();
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            store: self.store.clone(),
            map: Arc::clone(&self.map),
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Vec<u8>) -> io::Result<()> {
        let map: Map = rmp_serde::from_slice(&data).map_err(failed)?;
        map.check().map_err(failed)?;
        self.store.put_snapshot(meta, &data).await?;
        self.map = Arc::new(map);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.show();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let kept = self.store.snapshot()?;
        Ok(kept.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let snapshot = rmp_serde::to_vec(&*self.map).map_err(failed)?;
        self.store.put_snapshot(&self.meta, &snapshot).await?;
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot,
        })
    }
}
