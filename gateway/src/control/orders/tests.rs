//! Orders one by one: what each proposes, when it is none, and why it is refused.

use super::*;
use tidings_protocol::{ClusterId, ShardCount, Version};
use tidings_router::control::command::With;
use tidings_router::control::map::{NodeInfo, Roles};

const S: ShardId = ShardId(1);

fn process(node: u64) -> Process {
    Process {
        node: NodeId(node),
        incarnation: 7,
    }
}

fn apply(map: &mut Map, command: &Command) {
    map.apply(command)
        .unwrap_or_else(|refusal| panic!("{command:?}: {refusal}"));
}

fn fill_and_join(map: &mut Map, shard: ShardId, member: Process) {
    let seen = Seen::of(map, shard).expect("a shard");
    apply(map, &Command::Fill { seen, member });
    let seen = Seen::of(map, shard).expect("a shard");
    apply(map, &Command::Join { seen, member });
}

/// Nodes 1 to 4, of which 4 owns nothing by its roles; node 1 owns both shards, node 2 has copies.
fn map() -> Map {
    let mut map = Map::new(ClusterId(1), ShardCount::new(2).expect("a power of two"), 2);
    for node in 1..=4 {
        let info = NodeInfo {
            roles: Roles {
                owner: node != 4,
                edge: true,
            },
            zone: String::new(),
            peer_address: String::new(),
            client_address: String::new(),
        };
        let process = process(node);
        apply(&mut map, &Command::Register { process, info });
    }
    apply(&mut map, &Command::RaiseCeiling { to: Version(10) });
    for shard in [ShardId(0), S] {
        let seen = Seen::of(&map, shard).expect("a shard");
        let (to, with) = (process(1), With::Fresh);
        apply(&mut map, &Command::Assign { seen, to, with });
        fill_and_join(&mut map, shard, process(2));
    }
    map
}

fn set<const N: usize>(nodes: [u64; N]) -> BTreeSet<NodeId> {
    nodes.into_iter().map(NodeId).collect()
}

fn scene<const N: usize>(map: &Map, alive: [u64; N]) -> Scene<'_> {
    Scene {
        map,
        alive: set(alive),
        voters: set([1, 2, 3]),
        willing: set([1, 2, 3, 4]),
    }
}

/// The order is carried out: whatever it proposes fits the map.
fn carried_out(map: &Map, commands: Vec<Command>) -> Map {
    let mut map = map.clone();
    for command in commands {
        apply(&mut map, &command);
    }
    map.check().expect("a map");
    map
}

#[test]
fn a_node_drains_once_and_takes_part_again_once() {
    let map = map();
    let drains = scene(&map, [1, 2, 3, 4]).drain(NodeId(1), true).expect("ordered");
    let drained = carried_out(&map, drains);
    let scene = scene(&drained, [1, 2, 3, 4]);
    assert_eq!(scene.drain(NodeId(1), true), Ok(Vec::new()), "it does already");
    let undone = carried_out(&drained, scene.drain(NodeId(1), false).expect("ordered"));
    assert!(!undone.node(NodeId(1)).expect("known").draining);
    assert_eq!(scene.drain(NodeId(9), true), Err(No::NoSuchNode));
}

#[test]
fn a_node_does_not_drain_if_nobody_could_take_its_shards() {
    let map = map();
    assert_eq!(scene(&map, [1, 4]).drain(NodeId(1), true), Err(No::NobodyElse));
    assert_eq!(
        scene(&map, [1, 4]).drain(NodeId(4), true).map(|some| some.len()),
        Ok(1),
        "it has none"
    );
    let commands = scene(&map, [1, 2, 4]).drain(NodeId(2), true).expect("ordered");
    let drained = carried_out(&map, commands);
    assert_eq!(
        scene(&drained, [1, 2, 4]).drain(NodeId(1), true),
        Err(No::NobodyElse),
        "the other one drains too"
    );
}

#[test]
fn a_shard_moves_to_one_in_sync_and_elsewhere_by_way_of_a_copy() {
    let map = map();
    let all = [1, 2, 3, 4];
    let to_copy = carried_out(&map, scene(&map, all).relocate(S, NodeId(2)).expect("ordered"));
    let shard = to_copy.shard(S).expect("a shard");
    assert_eq!((shard.moving, shard.pinned), (Some(process(2)), Some(NodeId(2))));
    let elsewhere = carried_out(&map, scene(&map, all).relocate(S, NodeId(3)).expect("ordered"));
    let shard = elsewhere.shard(S).expect("a shard");
    assert_eq!(
        (shard.moving, &shard.filling[..]),
        (Some(process(3)), &[process(3)][..])
    );
    assert_eq!(
        scene(&elsewhere, all).relocate(S, NodeId(3)),
        Ok(Vec::new()),
        "it is on its way"
    );
    let stays = carried_out(&map, scene(&map, all).relocate(S, NodeId(1)).expect("ordered"));
    assert_eq!(stays.shard(S).expect("a shard").moving, None, "it is there, and stays");
}

#[test]
fn a_shard_does_not_move_to_who_may_not_have_it_or_from_who_is_gone() {
    let map = map();
    let all = [1, 2, 3, 4];
    let ordered = |map: &Map, node| scene(map, all).relocate(S, NodeId(node));
    assert_eq!(
        scene(&map, all).relocate(ShardId(2), NodeId(2)),
        Err(No::NoSuchShard(ShardId(2)))
    );
    assert_eq!(ordered(&map, 9), Err(No::NoSuchNode));
    assert_eq!(ordered(&map, 4), Err(No::NotAnOwner));
    assert_eq!(scene(&map, [1, 2, 4]).relocate(S, NodeId(3)), Err(No::NotAlive));
    assert_eq!(scene(&map, [2, 3, 4]).relocate(S, NodeId(3)), Err(No::NoOwner(S)));
    let drained = carried_out(&map, scene(&map, all).drain(NodeId(3), true).expect("ordered"));
    assert_eq!(ordered(&drained, 3), Err(No::Draining));
}

#[test]
fn a_node_that_is_gone_gives_its_vote_to_another_and_its_copies_up() {
    let map = map();
    let removal = scene(&map, [1, 3, 4]).remove(NodeId(2), false).expect("ordered");
    assert_eq!(removal.voters, Some(set([1, 3, 4])));
    assert_eq!(removal.left, 0);
    let without = carried_out(&map, removal.commands);
    assert!(without.node(NodeId(2)).is_none());
    assert_eq!(Share::of(&without, NodeId(2)).shards(), 0);
    assert_eq!(scene(&without, [1, 3, 4]).remove(NodeId(2), false), Err(No::NoSuchNode));
}

#[test]
fn what_a_gone_node_owns_has_to_get_another_owner_before_it_is_forgotten() {
    let map = map();
    let removal = scene(&map, [2, 3, 4]).remove(NodeId(1), false).expect("a copy lives");
    assert_eq!((removal.left, removal.commands), (2, Vec::new()));
}

#[test]
fn a_node_that_lives_is_not_removed_and_one_whose_shards_nobody_else_has_only_by_force() {
    let map = map();
    assert_eq!(scene(&map, [1, 2, 3, 4]).remove(NodeId(1), true), Err(No::Alive));
    let alone = scene(&map, [3, 4]);
    let alone = Scene {
        voters: set([1, 3, 4]),
        ..alone
    };
    let refused = alone.remove(NodeId(1), false).expect_err("refused");
    assert_eq!(refused, No::OnlyCopy(vec![ShardId(0), S]));
    let said = refused.to_string();
    for words in [
        "2 shards",
        ": 0, 1.",
        "`force`",
        "begin empty",
        "told to fetch it again",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(alone.remove(NodeId(1), true).map(|removal| removal.left), Ok(2));
}

#[test]
fn voters_are_not_taken_away_from_a_cluster_that_can_agree_on_nothing() {
    let map = map();
    assert_eq!(scene(&map, [3, 4]).remove(NodeId(2), true), Err(No::Majority));
    let nobody_else = Scene {
        willing: set([1, 2, 3]),
        ..scene(&map, [1, 3])
    };
    let removal = nobody_else.remove(NodeId(2), false).expect("ordered");
    assert_eq!(
        removal.voters,
        Some(set([1, 3])),
        "two that live are as good as three of which one is dead"
    );
}

#[test]
fn a_shard_is_short_of_what_lives_and_is_complete() {
    let mut map = map();
    let lacks = |map: &Map, alive: &[u64]| {
        let alive = |node: NodeId| alive.contains(&node.0);
        short(map, map.shard(S).expect("a shard"), alive)
    };
    assert_eq!(lacks(&map, &[1, 2, 3]), 0);
    assert_eq!(lacks(&map, &[1, 3]), 1);
    apply(&mut map, &Command::SetCopies { copies: 3 });
    assert_eq!(lacks(&map, &[1, 2, 3]), 1);
    let (seen, member) = (Seen::of(&map, S).expect("a shard"), process(3));
    apply(&mut map, &Command::Fill { seen, member });
    assert_eq!(lacks(&map, &[1, 2, 3]), 1, "a copy on the way is none yet");
    let (node, draining) = (NodeId(3), true);
    apply(&mut map, &Command::Drain { node, draining });
    assert_eq!(wanted(&map), 2, "no more than there are nodes to have them");
}
