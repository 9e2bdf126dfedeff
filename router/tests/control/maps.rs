//! Maps of clusters that nobody runs: nodes by numbers, in zones by turns.

#![allow(clippy::unwrap_used, dead_code, missing_docs, reason = "each suite uses its share")]

use tidings_protocol::{ClusterId, NodeId, ShardCount, Version};
use tidings_router::control::command::Command;
use tidings_router::control::map::{Map, NodeInfo, Process, Roles};

/// As large as those that are drawn at random, so that sizes are honest; none is only an edge.
pub(crate) fn node(number: u64) -> NodeId {
    NodeId((1 << 62) + number)
}

pub(crate) fn process(number: u64, incarnation: u64) -> Process {
    Process {
        node: node(number),
        incarnation: (1 << 62) + incarnation,
    }
}

pub(crate) fn info(zone: &str) -> NodeInfo {
    NodeInfo {
        roles: Roles {
            owner: true,
            edge: true,
        },
        zone: zone.to_owned(),
        peer_address: "10.0.0.1:7401".to_owned(),
        client_address: "http://10.0.0.1:7400".to_owned(),
    }
}

/// Nodes 1 to `nodes`, in zones by turns, and a ceiling of 1,000.
pub(crate) fn map(shards: u16, nodes: u64, zones: u64) -> Map {
    let mut map = Map::new(ClusterId(7), ShardCount::new(shards).unwrap(), 2);
    for node in 1..=nodes {
        let info = info(&format!("zone {}", node % zones));
        map.apply(&Command::Register {
            process: process(node, 1),
            info,
        })
        .unwrap();
    }
    map.apply(&Command::RaiseCeiling { to: Version(1_000) }).unwrap();
    map
}
