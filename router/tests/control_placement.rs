//! Where the coordinator puts shards and copies, and what stays where it is.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "control/maps.rs"]
mod maps;

use maps::{info, map, node, process};
use tidings_protocol::ShardId;
use tidings_protocol::peer::FloorCause;
use tidings_router::control::command::{Command, Seen, With};
use tidings_router::control::map::{Map, Process};
use tidings_router::control::placement::Loads;

fn usable(nodes: std::ops::RangeInclusive<u64>) -> Vec<Process> {
    nodes.map(|node| process(node, 1)).collect()
}

fn owned_by(map: &Map, node: u64) -> usize {
    let owned = map.shards().filter(|(_, shard)| shard.owner == Some(process(node, 1)));
    owned.count()
}

/// A map all of whose shards were given out.
fn placed(nodes: u64, zones: u64) -> Map {
    let mut map = map(256, nodes, zones);
    let mut loads = Loads::new(&map, usable(1..=nodes));
    for shard in 0..256 {
        let (seen, to) = (
            Seen::of(&map, ShardId(shard)).unwrap(),
            loads.take_owner(|_| true).unwrap(),
        );
        let with = With::Fresh;
        map.apply(&Command::Assign { seen, to, with }).unwrap();
    }
    map
}

#[test]
fn shards_are_given_out_evenly() {
    let map = placed(5, 1);
    for node in 1..=5 {
        assert!([51, 52].contains(&owned_by(&map, node)));
    }
}

#[test]
fn a_copy_stands_in_another_zone_than_the_owner_and_copies_are_even() {
    let mut map = placed(6, 3);
    let mut loads = Loads::new(&map, usable(1..=6));
    for shard in 0..256 {
        let known = map.shard(ShardId(shard)).unwrap().clone();
        let member = loads.take_copy(&map, &known).unwrap();
        let zone = |process: Process| map.node(process.node).unwrap().info.zone.clone();
        assert_ne!(zone(member), zone(known.owner.unwrap()), "shard {shard}");
        let seen = Seen::of(&map, ShardId(shard)).unwrap();
        map.apply(&Command::Fill { seen, member }).unwrap();
    }
    let copies = |node| {
        map.shards()
            .filter(|(_, shard)| shard.filling.contains(&process(node, 1)))
            .count()
    };
    for node in 1..=6 {
        assert!((41..=45).contains(&copies(node)), "node {node}: {}", copies(node));
    }
}

#[test]
fn a_node_that_joins_gets_its_share_with_as_few_moves_as_that_takes() {
    let mut map = placed(4, 1);
    map.apply(&Command::Register {
        process: process(5, 1),
        info: info(""),
    })
    .unwrap();
    let mut loads = Loads::new(&map, usable(1..=5));
    let mut moved = Vec::new();
    while let Some((id, to)) = loads.take_move(&map, |id, _| !moved.contains(&id)) {
        assert_eq!(to, process(5, 1), "only to the new one");
        moved.push(id);
    }
    assert_eq!(moved.len(), 51, "256 shards, five nodes");
}

#[test]
fn a_node_that_may_not_be_used_loses_everything_and_nothing_else_moves() {
    let map = placed(4, 1);
    let mut loads = Loads::new(&map, usable(2..=4));
    let mut moved = Vec::new();
    while let Some((id, _)) = loads.take_move(&map, |id, _| !moved.contains(&id)) {
        assert_eq!(map.shard(id).unwrap().owner, Some(process(1, 1)));
        moved.push(id);
    }
    assert_eq!(moved.len(), 64);
}

#[test]
fn what_an_operator_put_somewhere_does_not_move_for_even_shares_and_others_make_up_for_it() {
    let mut map = placed(4, 1);
    let owner = |map: &Map, id: ShardId| map.shard(id).unwrap().owner.unwrap();
    // Twenty shards are put on node 1.
    let put: Vec<ShardId> = map
        .shards()
        .map(|(id, _)| id)
        .filter(|id| owner(&map, *id) != process(1, 1))
        .take(20)
        .collect();
    for id in &put {
        let seen = Seen::of(&map, *id).unwrap();
        let (to, with) = (process(1, 1), With::Nothing(FloorCause::Lost));
        map.apply(&Command::Assign { seen, to, with }).unwrap();
        map.apply(&Command::Pin {
            shard: *id,
            to: Some(node(1)),
        })
        .unwrap();
    }
    let moves = |usable: Vec<Process>| {
        let mut loads = Loads::new(&map, usable);
        let mut moved = Vec::new();
        while let Some((id, _)) = loads.take_move(&map, |id, _| !moved.contains(&id)) {
            moved.push(id);
        }
        moved
    };
    let evened = moves(usable(1..=4));
    assert!(
        evened
            .iter()
            .all(|id| !put.contains(id) && owner(&map, *id) == process(1, 1))
    );
    assert!(
        (19..=20).contains(&evened.len()),
        "as many others leave: {}",
        evened.len()
    );
    let emptied = moves(usable(2..=4));
    assert!(
        put.iter().all(|id| emptied.contains(id)),
        "a node that drains keeps nothing"
    );
}
