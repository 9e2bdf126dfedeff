//! Revoked tokens in the replicated map.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use serde::Serialize;
use tidings_protocol::{ClusterId, NodeId, ShardCount, Version};
use tidings_router::access::revocations::{Bounds, MOST_REVOCATIONS, Target, Whom};
use tidings_router::control::command::{Command, Refusal};
use tidings_router::control::map::{Map, Node, NodeInfo, Process, Roles, Shard};

/// One node and a ceiling.
fn map() -> Map {
    let mut map = Map::new(ClusterId(7), ShardCount::new(8).unwrap(), 2);
    let info = NodeInfo {
        roles: Roles {
            owner: true,
            edge: true,
        },
        zone: String::new(),
        peer_address: "10.0.0.1:7401".to_owned(),
        client_address: String::new(),
    };
    let process = Process {
        node: NodeId(1),
        incarnation: 1,
    };
    map.apply(&Command::Register { process, info }).unwrap();
    map.apply(&Command::RaiseCeiling { to: Version(1_000) }).unwrap();
    map
}

fn revoke(map: &mut Map, subject: &str, at: u64) -> Result<(), Refusal> {
    map.apply(&Command::Revoke {
        target: Target {
            issuer: None,
            whom: Whom::Subject(subject.into()),
        },
        bounds: Bounds {
            issued_to_s: at,
            until_s: at + 100,
        },
        now_s: at,
    })
}

#[test]
fn what_is_revoked_is_part_of_the_map_and_no_news_of_nodes_or_shards() {
    let mut map = map();
    let revision = map.revision();
    revoke(&mut map, "alice", 1_000).unwrap();
    assert_eq!((map.revocations().len(), map.revision()), (1, revision));
    assert_eq!(revoke(&mut map, "alice", 1_000), Err(Refusal::Same));
    assert_eq!(revoke(&mut map, "", 1_000), Err(Refusal::NoSuchName));
    revoke(&mut map, "bob", 1_200).unwrap();
    assert_eq!(map.revocations().len(), 1, "alice's had its time");
    map.check().unwrap();
}

#[test]
fn there_are_as_many_as_the_limit_and_not_one_more() {
    let mut map = map();
    for number in 0..MOST_REVOCATIONS {
        revoke(&mut map, &format!("s{number}"), 1_000).unwrap();
    }
    let before = map.clone();
    assert_eq!(revoke(&mut map, "one more", 1_000), Err(Refusal::Limit));
    assert_eq!(map, before);
}

#[test]
fn a_map_keeps_them_through_a_snapshot() {
    let mut map = map();
    revoke(&mut map, "alice", 1_000).unwrap();
    let bytes = rmp_serde::to_vec(&map).unwrap();
    assert_eq!(rmp_serde::from_slice::<Map>(&bytes).unwrap(), map);
}

/// The map as it was written before there were revocations.
#[derive(Serialize)]
struct Before<'a> {
    cluster: ClusterId,
    revision: u64,
    ceiling: Version,
    copies: u8,
    nodes: std::collections::BTreeMap<NodeId, &'a Node>,
    shards: Vec<&'a Shard>,
}

#[test]
fn a_snapshot_of_before_there_were_any_is_read() {
    let map = map();
    let before = Before {
        cluster: map.cluster(),
        revision: map.revision(),
        ceiling: map.ceiling(),
        copies: map.copies(),
        nodes: map.nodes().collect(),
        shards: map.shards().map(|(_, shard)| shard).collect(),
    };
    let bytes = rmp_serde::to_vec(&before).unwrap();
    assert_eq!(rmp_serde::from_slice::<Map>(&bytes).unwrap(), map);
    assert_eq!(map.nodes().count(), 1);
}
