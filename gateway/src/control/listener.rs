//! Who dials this node: shakes hands, answers questions, hands links out.
//!
//! Bounded: handshakes at a time, connections, questions of one connection at a time. It does not know the answers.

use super::Plane;
use super::words::{self, Frame};
use crate::mesh::dial::answer;
use crate::mesh::handshake::{Connection, HandshakeError};
use crate::mesh::session::{Outbox, run};
use crate::mesh::{Identity, Limits, Peer};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidings_protocol::mesh::Class;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Handshakes under way at one time.
const SHAKING: usize = 64;
/// Connections that are answered at one time.
const CONNECTIONS: usize = 16_384;
/// Questions of one connection under way at one time.
const QUESTIONS: usize = 256;

/// Answers whoever dials, for ever.
pub(super) async fn listen(
    listener: TcpListener,
    (us, limits): (Identity, Limits),
    plane: Arc<Plane>,
    links: mpsc::UnboundedSender<Connection>,
) {
    let (shaking, connections) = (Arc::new(Semaphore::new(SHAKING)), Arc::new(Semaphore::new(CONNECTIONS)));
    let us = Arc::new(us);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a node that dialled could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Nobody closes a semaphore here; so both fail never.
        let Ok(turn) = Arc::clone(&shaking).acquire_owned().await else {
            return;
        };
        let Ok(place) = Arc::clone(&connections).try_acquire_owned() else {
            plane.metrics.refused_peers.inc();
            continue;
        };
        let (us, plane, links) = (Arc::clone(&us), Arc::clone(&plane), links.clone());
        tokio::spawn(async move {
            let connection = shake(stream, &us, &limits, &plane, turn).await;
            match connection {
                Some(connection) if matches!(connection.peer.class, Class::Links | Class::Copies) => {
                    hand_out(connection, &plane, &links)
                }
                Some(connection) => serve(connection, limits, plane).await,
                None => {}
            }
            drop(place);
        });
    }
}

async fn shake(
    stream: TcpStream,
    us: &Identity,
    limits: &Limits,
    plane: &Plane,
    turn: OwnedSemaphorePermit,
) -> Option<Connection> {
    let from = stream.peer_addr().ok()?;
    let shaken = answer(stream, us, limits).await;
    drop(turn);
    match shaken {
        Ok(connection) => Some(connection),
        Err(error) => {
            // Who hangs up was a port scan, a probe, or a node that stopped.
            if !matches!(error, HandshakeError::Io(_) | HandshakeError::Slow) {
                plane.metrics.refused_peers.inc();
                if plane.notices.is_news(&format!("{} {error}", from.ip())) {
                    tracing::warn!(%from, %error, "whoever dialled was refused");
                }
            }
            None
        }
    }
}

fn hand_out(connection: Connection, plane: &Plane, links: &mpsc::UnboundedSender<Connection>) {
    let peer = connection.peer;
    if peer.node.is_edge() && peer.class == Class::Copies {
        return plane.claims_too_much(peer.node, "to own shards, and sends copies");
    }
    if plane.is_bound() {
        // Nobody takes them any more when the node stops.
        _ = links.send(connection);
    }
}

/// Answers questions while the connection lasts.
async fn serve(connection: Connection, limits: Limits, plane: Arc<Plane>) {
    let outbox = Outbox::new(limits.queue_bytes);
    let under_way = Arc::new(AtomicUsize::new(0));
    let hear = {
        let outbox = outbox.clone();
        move |peer: Peer, bytes: &[u8]| {
            let Frame::Ask(number, request) = words::decode(bytes)? else {
                return Err("an answer from who dialled".to_owned());
            };
            if under_way.fetch_add(1, Ordering::Relaxed) >= QUESTIONS {
                return Err("too many questions at one time".to_owned());
            }
            let (plane, outbox, under_way) = (Arc::clone(&plane), outbox.clone(), Arc::clone(&under_way));
            tokio::spawn(async move {
                let answer = plane.answer(peer, request).await;
                under_way.fetch_sub(1, Ordering::Relaxed);
                match words::encode(&Frame::Answer(number, answer)) {
                    // A connection that is over tells so itself.
                    Ok(bytes) => _ = outbox.push(bytes),
                    Err(why) => tracing::error!(%why, "an answer to another node cannot be written"),
                }
            });
            Ok(())
        }
    };
    let peer = connection.peer;
    let end = run(connection, &limits, &outbox, hear).await;
    tracing::debug!(node = %peer.node, %end, "a connection from another node's control plane ended");
}
