//! The rules of copies one by one, each as a short story.

#![allow(clippy::unwrap_used, missing_docs)]

use tidings_protocol::copy::Entry;
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{ClusterId, Epoch, NodeId, ObjectHash, ShardCount, ShardId, Version};
use tidings_router::Now;
use tidings_router::control::command::{Command, Seen, With};
use tidings_router::control::map::{Map, NodeInfo, Process, Roles};
use tidings_router::copies::receiver::{Arrived, Output as Taken, Receiver};
use tidings_router::copies::sender::{self, Sender};
use tidings_router::owner::taking::Assignment;
use tidings_router::owner::{Config, Input, Output as Told, Owner, Publish, PublishExtra, Published};

const SHARD: ShardId = ShardId(0);

fn shards() -> ShardCount {
    ShardCount::new(2).unwrap()
}

fn config() -> Config {
    Config {
        shards: shards(),
        version_table_bytes: 1 << 24,
        revisions: 1 << 12,
        idempotency_keys: 1 << 12,
        idempotency_window_us: 1 << 50,
        link_window_changes: 64,
        link_hint_bytes: 1 << 16,
        closed_busy_us: 1 << 40,
        closed_idle_us: 1 << 40,
    }
}

fn sender_config() -> sender::Config {
    sender::Config {
        shards: shards(),
        window_bytes: 1,
        queue_bytes: 1 << 20,
        silence_us: 1 << 40,
        again_us: 1 << 40,
    }
}

fn process(node: u64) -> Process {
    Process {
        node: NodeId(node),
        incarnation: 1,
    }
}

const NOW: Now = Now {
    mono_us: 1_000,
    wall_us: 1_000_000,
};

/// A map in which node 1 owns the shard and node 2 is to get a copy of it.
fn map() -> Map {
    let mut map = Map::new(ClusterId(1), shards(), 2);
    map.apply(&Command::RaiseCeiling { to: Version(10) }).unwrap();
    for node in 1..=2 {
        let info = NodeInfo {
            roles: Roles {
                owner: true,
                edge: true,
            },
            zone: String::new(),
            peer_address: format!("{node}:1"),
            client_address: String::new(),
        };
        let process = process(node);
        map.apply(&Command::Register { process, info }).unwrap();
    }
    let seen = Seen::of(&map, SHARD).unwrap();
    let (to, with) = (process(1), With::Fresh);
    map.apply(&Command::Assign { seen, to, with }).unwrap();
    let seen = Seen::of(&map, SHARD).unwrap();
    let member = process(2);
    map.apply(&Command::Fill { seen, member }).unwrap();
    map
}

fn owner() -> Owner {
    let mut owner = Owner::new(config());
    let assignment = Assignment {
        shard: SHARD,
        epoch: Epoch(1),
        begins: Version(11),
        floor: Version::ZERO,
        cause: FloorCause::Lost,
    };
    assert!(owner.take_over(NOW, assignment, None, &mut Vec::new()));
    owner
}

/// An object of the shard, and a key that belongs to it.
fn object(number: u64) -> (ObjectHash, u128) {
    (ObjectHash(number << 20), u128::from(number) << 64 | 7 << 32)
}

fn publish(owner: &mut Owner, number: u64) -> Published {
    let (object, key) = object(number);
    let extra = PublishExtra {
        revision: Some((key, 1)),
        idempotency: Some(key),
        ..PublishExtra::default()
    };
    let changes = vec![Publish {
        object,
        extra: Some(Box::new(extra)),
    }];
    let mut out = Vec::new();
    owner.handle(NOW, Input::Publish { request: 1, changes }, &mut out);
    out.iter()
        .find_map(|output| match output {
            Told::Published { results, .. } => results.first().copied(),
            Told::ToEdge { .. } => None,
        })
        .unwrap()
}

#[test]
fn marks_of_a_shard_whose_table_is_replaced_are_forgotten_and_those_of_others_are_not() {
    let mut owner = owner();
    let other = Assignment {
        shard: ShardId(1),
        epoch: Epoch(1),
        begins: Version(11),
        floor: Version::ZERO,
        cause: FloorCause::Lost,
    };
    assert!(owner.take_over(NOW, other, None, &mut Vec::new()));
    assert!(matches!(publish(&mut owner, 5), Published::Accepted(_)));
    assert!(matches!(publish(&mut owner, 5), Published::Duplicate(_)));
    owner.forget_marks(ShardId(1));
    assert!(
        matches!(publish(&mut owner, 5), Published::Duplicate(_)),
        "of another shard"
    );
    owner.forget_marks(SHARD);
    assert!(matches!(publish(&mut owner, 5), Published::Accepted(_)));
}

#[test]
fn an_owner_that_is_replaced_filled_and_promoted_takes_no_change_for_done_that_only_it_knew() {
    // Its successor has given the object a higher version already, and everybody was told, when it gives its last one.
    let mut owner = owner();
    let Published::Accepted(last) = publish(&mut owner, 5) else {
        panic!("it is new");
    };
    owner.give_up(SHARD, &mut Vec::new());
    let mut receiver = Receiver::new(config());
    let (shard, epoch, newer) = (SHARD, Epoch(2), Version(last.0 + 1_000));
    let entries = vec![
        Entry::Begin {
            shard,
            epoch,
            replace: true,
            floor: Version::ZERO,
            cause: FloorCause::Lost,
        },
        Entry::Versions {
            shard,
            epoch,
            versions: vec![(object(5).0, newer)],
        },
        Entry::Complete { shard, epoch },
    ];
    let batch = Arrived {
        owner: 0,
        life: 1,
        place: 1,
        sync: false,
        entries,
    };
    let mut out = Vec::new();
    receiver.take(NOW, process(2), batch, &mut out).unwrap();
    for output in &out {
        if let Taken::Write { standings, .. } = output {
            let void = standings.iter().filter(|standing| standing.replaced);
            void.for_each(|standing| owner.forget_marks(standing.shard));
        }
    }
    let (table, _, complete) = receiver.promote(SHARD).unwrap();
    assert!(complete);
    let promoted = Assignment {
        shard: SHARD,
        epoch: Epoch(3),
        begins: Version(newer.0 + 1_000),
        floor: Version::ZERO,
        cause: FloorCause::Lost,
    };
    assert!(owner.take_over(NOW, promoted, Some(table), &mut Vec::new()));
    // Whoever fetched when it was told of the newer version did so before this change was called.
    assert!(matches!(publish(&mut owner, 5), Published::Accepted(_)));
}

#[test]
fn a_sender_forgets_processes_that_are_no_more_unless_the_map_still_names_them() {
    let (map, owner) = (map(), owner());
    let mut sender = Sender::new(process(1), sender_config());
    let mut out = Vec::new();
    sender.link(NOW, process(2), true, &mut out);
    sender.heed(NOW, SHARD, map.shard(SHARD).unwrap(), &owner, &mut out);
    sender.forget_processes(|_| false);
    assert_eq!(sender.processes().collect::<Vec<_>>(), [process(2)]);
    sender.end(SHARD, &mut out);
    sender.forget_processes(|process| process.node == NodeId(2));
    assert_eq!(sender.processes().count(), 1);
    sender.forget_processes(|_| false);
    assert_eq!(sender.processes().count(), 0);
    assert_eq!(sender.next_deadline(), None);
}

#[test]
fn a_batch_that_was_refused_is_refused_again_when_it_comes_on_the_next_connection() {
    let mut receiver = Receiver::new(config());
    let (shard, epoch) = (SHARD, Epoch(1));
    let batch = |place, entries| Arrived {
        owner: 0,
        life: 1,
        place,
        sync: false,
        entries,
    };
    let begin = Entry::Begin {
        shard,
        epoch,
        replace: true,
        floor: Version::ZERO,
        cause: FloorCause::Lost,
    };
    let versions = Entry::Versions {
        shard,
        epoch,
        versions: vec![(object(5).0, Version(20))],
    };
    let first = batch(1, vec![begin, Entry::Complete { shard, epoch }]);
    receiver.take(NOW, process(1), first, &mut Vec::new()).unwrap();
    receiver.heard_of(shard, Epoch(2));
    let refused = |receiver: &mut Receiver| {
        let mut out = Vec::new();
        let late = batch(2, vec![versions.clone()]);
        receiver.take(NOW, process(1), late, &mut out).unwrap();
        let refusal = |output: &Taken| matches!(output, Taken::Refuse { epoch: Epoch(2), .. });
        let taken = |output: &Taken| matches!(output, Taken::Write { entries, .. } if !entries.is_empty());
        assert!(!out.iter().any(taken));
        // Before the batch is confirmed.
        out.first().is_some_and(refusal)
    };
    assert!(refused(&mut receiver));
    assert!(refused(&mut receiver), "the word may be lost with its connection");
}
