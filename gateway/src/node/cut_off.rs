//! Watches whether this node is cut off, and says where its subscribers are to go then. What that means is decided in
//! `tidings_router::cut_off`; here are the clock, what lanes heard, and the look whether other nodes' ports are closed.

use super::Node;
use crate::clock;
use crate::control::View;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidings_protocol::{NodeId, Version};
use tidings_router::cut_off::{CutOff, Other, Seen};
use tokio::net::TcpStream;

/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Who is gone is looked for so long before it counts.
const AHEAD_US: u64 = 2_000_000;
/// A port that does not answer within this is not known to be closed.
const KNOCK_FOR: Duration = Duration::from_millis(500);
/// Nodes that are knocked at in one look. The others count as they were.
const KNOCKS: usize = 64;

/// Looks for as long as the lanes live.
pub(super) async fn watch(node: Arc<Node>) {
    let Some(control) = &node.control else { return };
    let (after_us, away_us) = (node.config.limits.stale_ms * 1000, node.config.drain.cut_off_ms * 1000);
    let mut machine = CutOff::new(clock::mono_us(), after_us, away_us);
    let mut gone = BTreeSet::new();
    loop {
        let mut closed = Version::ZERO;
        for lane in &node.lanes {
            let Some(figures) = lane.figures().await else { return };
            closed = closed.max(figures.newest_closed);
        }
        let view = control.view();
        // From one look before it counts on, whatever a look takes.
        if machine.is_silent_by(clock::mono_us() + AHEAD_US) {
            knock(&view, &mut gone).await;
        } else {
            gone.clear();
        }
        let others = others(&view, &gone);
        let seen = Seen {
            agreed: (view.map.ceiling(), view.map.revision()),
            closed,
            quorum: hears_a_quorum(&view),
            others: &others,
        };
        if machine.look(clock::mono_us(), &seen) {
            let elsewhere = machine.elsewhere().cloned();
            match &elsewhere {
                Some(to) => {
                    node.metrics.sent_away.inc();
                    tracing::warn!(
                        ?to,
                        "nothing is heard of the cluster: subscribers are sent to other nodes"
                    );
                }
                None => tracing::info!("subscribers are taken again"),
            }
            node.elsewhere.send_replace(elsewhere);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Other nodes of the last map that take subscribers.
fn others<'a>(view: &'a View, gone: &BTreeSet<NodeId>) -> Vec<Other<'a>> {
    let others = view.map.nodes().filter(|(node, _)| *node != view.me.node);
    let others = others.filter(|(_, known)| known.info.roles.edge && !known.draining);
    let others = others.map(|(node, known)| Other {
        url: &known.info.client_address,
        heard: view.peers.get(&node).is_some_and(|peer| peer.alive),
        gone: gone.contains(&node),
    });
    others.collect()
}

/// Whether this node and those it hears could agree on something.
fn hears_a_quorum(view: &View) -> bool {
    let heard = |node: &&NodeId| **node == view.me.node || view.peers.get(node).is_some_and(|peer| peer.alive);
    view.voters.iter().filter(heard).count() > view.voters.len() / 2
}

/// Looks at whose port nobody is any more.
async fn knock(view: &View, gone: &mut BTreeSet<NodeId>) {
    let silent = view.peers.iter().filter(|(_, peer)| !peer.alive).take(KNOCKS);
    let knocks = silent.map(|(node, peer)| async { (*node, is_closed(peer.address).await) });
    for (node, closed) in futures_util::future::join_all(knocks).await {
        if closed {
            gone.insert(node);
        } else {
            gone.remove(&node);
        }
    }
}

async fn is_closed(address: SocketAddr) -> bool {
    let tried = tokio::time::timeout(KNOCK_FOR, TcpStream::connect(address)).await;
    matches!(tried, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_closed_if_its_machine_says_so() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        assert!(!is_closed(address).await);
        drop(listener);
        assert!(is_closed(address).await);
    }
}
