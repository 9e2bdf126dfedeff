//! What is told of a made-up cluster of three, the third of which is gone and a fourth on its way in.

use super::names::Lost;
use super::*;
use crate::control::{Member, Peer, View};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use tidings_protocol::{ClusterId, ShardCount};
use tidings_router::control::command::{Command, Seen, With};
use tidings_router::control::map::{Map, NodeInfo, Roles};

fn process(node: u64) -> Process {
    Process {
        node: NodeId(node),
        incarnation: 5,
    }
}

fn agreed_map() -> Map {
    let mut map = Map::new(ClusterId(0xab), ShardCount::new(4).expect("a power of two"), 1);
    for node in 1..=3 {
        let info = NodeInfo {
            roles: Roles {
                owner: true,
                edge: node != 3,
            },
            zone: format!("z{node}"),
            peer_address: format!("10.0.0.{node}:7401"),
            client_address: format!("http://10.0.0.{node}:7400"),
        };
        map.apply(&Command::Register {
            process: process(node),
            info,
        })
        .expect("registered");
    }
    map.apply(&Command::RaiseCeiling { to: Version(1000) }).expect("raised");
    for shard in 0..3 {
        let seen = Seen::of(&map, ShardId(shard)).expect("a shard");
        let to = process(u64::from(shard) + 1);
        map.apply(&Command::Assign {
            seen,
            to,
            with: With::Fresh,
        })
        .expect("assigned");
    }
    map
}

fn on_its_way() -> Member {
    Member {
        incarnation: 1,
        verdict: Verdict::Alive,
        address: Some(([10, 0, 0, 4], 7401).into()),
        formed: None,
        name: "fourth".to_owned(),
        client_url: "https://n4.example".to_owned(),
        willing: true,
        release: String::new(),
    }
}

/// A status with three nodes: this one, one that lives and is called `second`, and a third that is gone.
fn status() -> Status {
    let peer = |node: u64, alive: bool| Peer {
        process: process(node),
        name: if node == 2 { "second".to_owned() } else { String::new() },
        address: ([10, 0, 0, node as u8], 7401).into(),
        client_url: format!("https://n{node}.example"),
        alive,
    };
    let view = View {
        me: process(1),
        map: Arc::new(agreed_map()),
        until_us: 3_500_000,
        ceiling: Version(1000),
        confirmed: true,
        peers: Arc::new(
            [(2, true), (3, false)]
                .map(|(n, alive)| (NodeId(n), peer(n, alive)))
                .into(),
        ),
        leader: Some(NodeId(2)),
        voters: [1, 2, 3].map(NodeId).into(),
    };
    let gone = Member {
        verdict: Verdict::Dead,
        ..on_its_way()
    };
    Status {
        view: Arc::new(view),
        term: 9,
        learners: BTreeSet::new(),
        members: [(NodeId(4), on_its_way()), (NodeId(5), gone)].into(),
        lease_left_us: 1_500_000,
    }
}

fn told_of(status: &Status) -> Value {
    let mine = Mine {
        name: "first",
        roles: tidings_membership::Roles {
            edge: true,
            owner: true,
            voter: true,
        },
        zone: "here",
        client_url: "http://127.0.0.1:1".to_owned(),
        draining: false,
        own: Own {
            threads: 2,
            uptime_ms: 3,
        },
    };
    serde_json::to_value(describe(&mine, "dev", status)).expect("JSON")
}

fn told() -> Value {
    told_of(&status())
}

fn row(told: &Value, id: u64) -> Value {
    let id = NodeId(id).to_string();
    let nodes = told["nodes"].as_array().expect("nodes");
    nodes.iter().find(|node| node["id"] == id).expect("the node").clone()
}

#[test]
fn what_was_agreed_and_how_long_this_node_may_act_is_told() {
    let told = told();
    let of = |field: &str| told[field].clone();
    assert_eq!(
        (of("cluster"), of("name"), of("node")),
        (json!("00000000000000ab"), json!("dev"), json!("first"))
    );
    assert_eq!((of("term"), of("leader")), (json!(9), json!(NodeId(2).to_string())));
    assert_eq!(
        (of("ceiling"), of("lease_left_ms"), of("confirmed")),
        (json!(1000), json!(1500), json!(true))
    );
    assert_eq!(of("shard_count"), 4);
}

#[test]
fn every_node_is_told_with_what_is_known_of_it() {
    let told = told();
    assert_eq!(told["nodes"].as_array().expect("nodes").len(), 4);
    let me = row(&told, 1);
    assert_eq!(
        (&me["node"], &me["zone"], &me["threads"]),
        (&json!("first"), &json!("here"), &json!(2))
    );
    let second = row(&told, 2);
    assert_eq!(
        (&second["node"], &second["leader"], &second["alive"]),
        (&json!("second"), &json!(true), &json!(true))
    );
    assert_eq!(
        (&second["address"], &second["node_address"]),
        (&json!("n2.example"), &json!("10.0.0.2:7401"))
    );
    assert_eq!(
        (&second["roles"], &second["zone"]),
        (&json!(["edge", "owner", "voter"]), &json!("z2"))
    );
    let third = row(&told, 3);
    assert_eq!(
        (&third["node"], &third["alive"]),
        (&json!(NodeId(3).to_string()), &json!(false))
    );
    assert_eq!(third["roles"], json!(["owner", "voter"]));
    let fourth = row(&told, 4);
    assert_eq!(
        (&fourth["member"], &fourth["voter"], &fourth["alive"]),
        (&json!(false), &json!(false), &json!(true))
    );
}

#[test]
fn a_shard_is_owned_while_its_owner_lives() {
    let told = told();
    let shards = told["shards"].as_array().expect("shards");
    let owned: Vec<_> = shards.iter().map(|shard| shard["owned"].clone()).collect();
    // The fourth was never owned by anybody.
    assert_eq!(owned, [json!(true), json!(true), json!(false)]);
    assert_eq!(
        (&shards[1]["owner"], &shards[1]["epoch"]),
        (&json!("second"), &json!(1))
    );
    assert_eq!(shards[1]["cause"], "versions_lost");
}

#[test]
fn a_node_is_found_by_name_or_id_and_not_where_several_are_meant() {
    let mut status = status();
    let find = |status: &Status, text: &str| Names::of_status(status, "first").find(text);
    assert_eq!(find(&status, "first"), Ok(NodeId(1)));
    assert_eq!(find(&status, "second"), Ok(NodeId(2)));
    assert_eq!(
        find(&status, &NodeId(3).to_string()),
        Ok(NodeId(3)),
        "it never said its name"
    );
    assert_eq!(
        find(&status, "fourth"),
        Err(Lost::Unknown),
        "it is not of the cluster yet"
    );
    assert_eq!(find(&status, ""), Err(Lost::Unknown));
    let twin = Member {
        name: "second".to_owned(),
        ..on_its_way()
    };
    status.members.insert(NodeId(3), twin);
    assert_eq!(
        find(&status, "second"),
        Err(Lost::Ambiguous(vec![NodeId(2), NodeId(3)]))
    );
}

#[test]
fn copies_what_is_on_the_way_and_what_is_missing_are_told() {
    let mut map = agreed_map();
    map.apply(&Command::SetCopies { copies: 2 }).expect("set");
    let told_of_map = |map: &Map| {
        let mut status = status();
        let view = View {
            map: Arc::new(map.clone()),
            ..View::clone(&status.view)
        };
        status.view = Arc::new(view);
        told_of(&status)
    };
    let seen = |map: &Map| Seen::of(map, ShardId(0)).expect("a shard");
    let (filled, member) = (seen(&map), process(2));
    map.apply(&Command::Fill { seen: filled, member }).expect("filled");
    let (moved, to) = (seen(&map), Some(process(2)));
    map.apply(&Command::Move { seen: moved, to }).expect("moved");
    let told = told_of_map(&map);
    assert_eq!((&told["copies"], &told["short_of_copies"]), (&json!(2), &json!(3)));
    let shard = &told["shards"][0];
    assert_eq!(
        (&shard["filling"], &shard["moving"]),
        (&json!(["second"]), &json!("second"))
    );
    assert_eq!((&shard["copies"], &shard["missing"]), (&json!([]), &json!(1)));
    let second = row(&told, 2);
    assert_eq!(
        (&second["owned"], &second["copies"], &second["filling"]),
        (&json!(1), &json!(0), &json!(1))
    );
    let joined = seen(&map);
    map.apply(&Command::Join { seen: joined, member }).expect("joined");
    let told = told_of_map(&map);
    assert_eq!(
        (&told["shards"][0]["copies"], &told["shards"][0]["missing"]),
        (&json!(["second"]), &json!(0))
    );
    // The owner of the third is gone: its copy would count, the dead one does not.
    assert_eq!(
        (&told["shards"][2]["missing"], &told["short_of_copies"]),
        (&json!(2), &json!(2))
    );
}
