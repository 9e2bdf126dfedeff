//! Connections to nodes that hold copies of shards owned here: one each, kept up as long as the map names the node in such a
//! shard.

use super::super::Stage;
use super::super::dialled::{other_target, sense, superseded, target};
use super::{CopyRoad, put};
use crate::control::View;
use crate::mesh::dial::{Backoff, connect};
use crate::mesh::handshake::Connection;
use crate::mesh::session::{self, End, Outbox};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use tidings_protocol::NodeId;
use tidings_protocol::copy::{Frame, decode};
use tidings_protocol::mesh::{Class, MAX_OWNERS_OF_NODE};
use tidings_router::control::map::Process;
use tokio::sync::watch;

/// The nodes that have copies of shards owned here, or are to have them.
pub(in super::super) fn holders(view: &View) -> BTreeSet<NodeId> {
    let ours = view.map.shards().filter(|(_, shard)| shard.owner == Some(view.me));
    let members = ours.flat_map(|(_, shard)| shard.in_sync.iter().chain(&shard.filling));
    members.map(|process| process.node).collect()
}

/// Keeps a connection to a node up until the map names it in no shard that is owned here.
pub(in super::super) async fn keep(stage: Rc<Stage>, node: NodeId) {
    let mut view = stage.control.watch();
    let mut backoff = Backoff::new(&stage.limits);
    loop {
        let seen = Arc::clone(&view.borrow_and_update());
        let Some(target) = target(&seen, node).filter(|_| holders(&seen).contains(&node)) else {
            break;
        };
        let connected = connect(
            &target.address,
            &stage.identity,
            Class::Copies,
            Some(node),
            &stage.limits,
        );
        match connected.await {
            Ok(connection) if connection.peer.incarnation >= target.process.incarnation => {
                let end = hold(&stage, connection, &mut view).await;
                tracing::info!(%node, %end, "the connection to a node with copies ended");
            }
            Ok(connection) => {
                let incarnation = connection.peer.incarnation;
                tracing::info!(%node, incarnation, "a node answers that has started again since");
            }
            Err(error) => tracing::info!(%node, address = target.address, %error, "a node with copies is not reached"),
        }
        stage.handle.counts().reconnects.inc();
        let pause = backoff.pause(getrandom::u32().unwrap_or(u32::MAX / 2));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = other_target(&mut view, node, &target) => backoff.reset(),
        }
    }
    stage.copied.borrow_mut().remove(&node);
}

/// Runs a connection until it ends.
async fn hold(stage: &Rc<Stage>, connection: Connection, view: &mut watch::Receiver<Arc<View>>) -> End {
    let process = Process {
        node: connection.peer.node,
        incarnation: connection.peer.incarnation,
    };
    let outbox = Outbox::new(stage.limits.queue_bytes);
    let counts = Arc::clone(stage.handle.counts());
    let owners = (stage.node.owners.len() as u16).min(MAX_OWNERS_OF_NODE);
    _ = put(&outbox, &counts, &Frame::Owners { owners });
    let road = CopyRoad {
        outbox: outbox.clone(),
        counts: Arc::clone(&counts),
    };
    for owner in &stage.node.owners {
        owner.copies_up(process, road.clone());
    }
    counts.copies_to.inc();
    let hear = |_, bytes: &[u8]| hear(stage, process, bytes);
    let end = tokio::select! {
        end = session::run(connection, &stage.limits, &outbox, hear) => end,
        () = superseded(view, process) => End::Dismissed,
    };
    outbox.dismiss();
    counts.copies_to.dec();
    for owner in &stage.node.owners {
        owner.copies_down(process);
    }
    end
}

fn hear(stage: &Stage, process: Process, bytes: &[u8]) -> Result<(), String> {
    let frame = decode(bytes).map_err(|error| error.to_string())?;
    stage.handle.counts().copies_came.inc_by(bytes.len() as u64);
    let owner = match &frame {
        Frame::Confirmed { owner, .. } | Frame::Lacks { owner, .. } | Frame::Refused { owner, .. } => *owner,
        Frame::Owners { .. } | Frame::Batch { .. } => return Err("a frame of the other direction".to_owned()),
    };
    let known = stage.node.owners.get(usize::from(owner));
    sense(known.is_some(), "there is no such owner")?;
    known
        .into_iter()
        .for_each(|known| known.copies_answered(process, frame.clone()));
    Ok(())
}
