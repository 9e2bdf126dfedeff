//! What is told of a made-up cluster of three, the third of which is gone and a fourth on its way in.

use super::*;
use crate::control::Peer;
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
        release: String::new(),
    }
}

fn told() -> Value {
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
    let gone = Member {
        verdict: Verdict::Dead,
        ..on_its_way()
    };
    let status = Status {
        view: Arc::new(view),
        term: 9,
        learners: BTreeSet::new(),
        members: [(NodeId(4), on_its_way()), (NodeId(5), gone)].into(),
        lease_left_us: 1_500_000,
    };
    serde_json::to_value(describe(&mine, "dev", &status)).expect("JSON")
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
