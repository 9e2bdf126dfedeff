//! Connections of nodes whose shards are copied here: their batches are dealt out to the threads that have the shards.
//!
//! Only nodes of the map are served, in their present life, and only once this node has read a map that a quorum confirmed
//! (rule R2). Of one node the newest connection counts.

use super::super::Stage;
use super::super::accepted::{gone, is_current, take_over};
use super::super::dialled::sense;
use super::{CopyReply, thread_of, threads_of};
use crate::mesh::handshake::Connection;
use crate::mesh::session::{self, End, Outbox};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tidings_protocol::copy::{Entry, Frame, decode};
use tidings_protocol::mesh::MAX_OWNERS_OF_NODE;
use tidings_router::control::map::Process;
use tidings_router::copies::receiver::Arrived;

/// How long a node may wait here until this one has read a confirmed map.
const PATIENCE: Duration = Duration::from_secs(1);

/// Serves a connection until it ends.
pub(in super::super) async fn serve(stage: Rc<Stage>, connection: Connection) {
    // It was accepted on another thread.
    let connection = match connection.here() {
        Ok(connection) => connection,
        Err(error) => return tracing::warn!(%error, "a connection of a node cannot be taken over"),
    };
    let process = Process {
        node: connection.peer.node,
        incarnation: connection.peer.incarnation,
    };
    let counts = Arc::clone(stage.handle.counts());
    let mut view = stage.control.watch();
    if !is_current(&mut view, process).await {
        counts.strangers.inc();
        return;
    }
    // Who waits dials again.
    if !matches!(
        tokio::time::timeout(PATIENCE, view.wait_for(|view| view.confirmed)).await,
        Ok(Ok(_))
    ) {
        return;
    }
    let outbox = Outbox::new(stage.limits.queue_bytes);
    let serial = stage.next_generation();
    if !take_over(&stage.copying, process, serial, &outbox) {
        counts.strangers.inc();
        return;
    }
    counts.copies_from.inc();
    let mut reply = None;
    let hear = |_, bytes: &[u8]| {
        counts.copies_came.inc_by(bytes.len() as u64);
        let frame = decode(bytes).map_err(|error| error.to_string())?;
        match (frame, &reply) {
            (Frame::Owners { owners }, None) => {
                sense((1..=MAX_OWNERS_OF_NODE).contains(&owners), "no node has so many owners")?;
                let threads = stage.node.owners.len();
                let new = CopyReply::new(outbox.clone(), Arc::clone(&counts), owners, threads);
                reply = Some((owners, new));
                Ok(())
            }
            (
                Frame::Batch {
                    owner,
                    life,
                    place,
                    sync,
                    entries,
                },
                Some((owners, reply)),
            ) => {
                sense(owner < *owners, "there is no such owner")?;
                let batch = Arrived {
                    owner,
                    life,
                    place,
                    sync,
                    entries: Arc::unwrap_or_clone(entries),
                };
                deal(&stage, process, *owners, reply, batch)
            }
            (Frame::Batch { .. }, None) => Err("the first word is not how many owners there are".to_owned()),
            _ => Err("a frame of the other direction".to_owned()),
        }
    };
    let end = tokio::select! {
        end = session::run(connection, &stage.limits, &outbox, hear) => end,
        () = gone(&mut view, process) => End::Dismissed,
    };
    outbox.dismiss();
    counts.copies_from.dec();
    let mut copying = stage.copying.borrow_mut();
    if copying.get(&process.node).is_some_and(|newest| newest.serial == serial) {
        copying.remove(&process.node);
    }
    tracing::info!(node = %process.node, %end, "the connection of a node whose shards are copied here ended");
}

/// Gives each thread its part. Each that may have one gets one, empty or not, so that numbers have no gap.
fn deal(stage: &Stage, process: Process, owners: u16, reply: &CopyReply, batch: Arrived) -> Result<(), String> {
    let threads = stage.node.owners.len();
    let concerned: Vec<usize> = threads_of(batch.owner, owners, threads).collect();
    if let [only] = concerned[..] {
        stage.node.owners[only].copies_came(process, reply.clone(), batch);
        return Ok(());
    }
    let mut parts: Vec<Vec<Entry>> = concerned.iter().map(|_| Vec::new()).collect();
    for entry in batch.entries {
        let thread = thread_of(entry.of().0, threads);
        let part = concerned.iter().position(|known| *known == thread);
        let part = part.ok_or("a shard that this owner cannot have")?;
        parts[part].push(entry);
    }
    for (thread, entries) in concerned.into_iter().zip(parts) {
        let part = Arrived { entries, ..batch };
        stage.node.owners[thread].copies_came(process, reply.clone(), part);
    }
    Ok(())
}
