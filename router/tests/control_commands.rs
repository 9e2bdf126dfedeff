//! The map's commands one by one: what each changes, and that it changes nothing where what it takes for granted is no
//! longer so.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "control/maps.rs"]
mod maps;

use maps::{info, map, node, process};
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Epoch, ShardId, Version};
use tidings_router::control::command::{Command, Refusal, Seen, With};
use tidings_router::control::map::{MOST_NODES, Map, NodeInfo, Process, Roles};

const S: ShardId = ShardId(3);

fn seen(map: &Map) -> Seen {
    Seen::of(map, S).unwrap()
}

fn assign(map: &mut Map, to: Process, with: With) -> Result<(), Refusal> {
    let seen = seen(map);
    let applied = map.apply(&Command::Assign { seen, to, with });
    map.check().unwrap();
    applied
}

fn fill_and_join(map: &mut Map, member: Process) {
    let seen = seen(map);
    map.apply(&Command::Fill {
        seen: seen.clone(),
        member,
    })
    .unwrap();
    let seen = self::seen(map);
    map.apply(&Command::Join { seen, member }).unwrap();
    map.check().unwrap();
}

/// Node 1 owns the shard, node 2 is in sync.
fn with_copy() -> Map {
    let mut map = map(8, 3, 1);
    assign(&mut map, process(1, 1), With::Fresh).unwrap();
    fill_and_join(&mut map, process(2, 1));
    map
}

/// Refused, and nothing changed.
#[track_caller]
fn refused(map: &mut Map, command: &Command, why: Refusal) {
    let before = map.clone();
    assert_eq!(map.apply(command), Err(why));
    assert_eq!(*map, before, "a refused command changes nothing");
}

#[test]
fn a_fresh_shard_has_a_floor_of_zero_and_begins_above_the_ceiling() {
    let mut map = map(8, 3, 1);
    assign(&mut map, process(1, 1), With::Fresh).unwrap();
    let shard = map.shard(S).unwrap();
    assert_eq!(
        (shard.epoch, shard.begins, shard.floor),
        (Epoch(1), Version(1_001), Version::ZERO)
    );
    assert_eq!(assign(&mut map, process(2, 1), With::Fresh), Err(Refusal::NotItsPart));
}

#[test]
fn a_copy_takes_over_without_a_new_floor() {
    let mut map = with_copy();
    map.apply(&Command::RaiseCeiling { to: Version(2_000) }).unwrap();
    assert_eq!(assign(&mut map, process(3, 1), With::Copy), Err(Refusal::NotItsPart));
    assign(&mut map, process(2, 1), With::Copy).unwrap();
    let shard = map.shard(S).unwrap();
    assert_eq!(
        (shard.epoch, shard.begins, shard.floor),
        (Epoch(2), Version(2_001), Version::ZERO)
    );
    assert_eq!((shard.owner, shard.in_sync.len()), (Some(process(2, 1)), 0));
}

#[test]
fn an_owner_with_nothing_raises_the_floor_to_its_first_version() {
    let mut map = with_copy();
    assign(&mut map, process(3, 1), With::Nothing(FloorCause::Lost)).unwrap();
    let shard = map.shard(S).unwrap();
    assert_eq!(
        (shard.begins, shard.floor, shard.in_sync.len()),
        (Version(1_001), Version(1_001), 0)
    );
}

#[test]
fn only_a_later_process_of_a_node_that_had_everything_begins_with_its_disk() {
    let mut map = with_copy();
    assert_eq!(assign(&mut map, process(1, 1), With::Disk), Err(Refusal::NotItsPart));
    for node in [1, 3] {
        map.apply(&Command::Register {
            process: process(node, 2),
            info: info(""),
        })
        .unwrap();
    }
    assert_eq!(assign(&mut map, process(3, 2), With::Disk), Err(Refusal::NotItsPart));
    assert_eq!(assign(&mut map, process(1, 1), With::Disk), Err(Refusal::NotCurrent));
    assign(&mut map, process(1, 2), With::Disk).unwrap();
    let shard = map.shard(S).unwrap();
    assert_eq!((shard.epoch, shard.floor), (Epoch(2), Version::ZERO));
    assert_eq!(shard.in_sync, [process(2, 1)]);
}

#[test]
fn a_command_decided_on_another_epoch_or_in_sync_set_changes_nothing() {
    let mut map = with_copy();
    let (now, me) = (seen(&map), process(1, 1));
    let old_epoch = Seen {
        epoch: Epoch(0),
        ..now.clone()
    };
    let old_set = Seen {
        in_sync: vec![],
        ..now.clone()
    };
    let old_turn = Seen {
        turn: now.turn - 1,
        ..now.clone()
    };
    for seen in [old_epoch, old_set, old_turn] {
        let to = process(2, 1);
        let commands = [
            Command::Assign {
                seen: seen.clone(),
                to,
                with: With::Nothing(FloorCause::Lost),
            },
            Command::Fill {
                seen: seen.clone(),
                member: process(3, 1),
            },
            Command::Join {
                seen: seen.clone(),
                member: to,
            },
            Command::Remove {
                seen: seen.clone(),
                member: to,
            },
            Command::Move {
                seen: seen.clone(),
                to: Some(to),
            },
            Command::Release {
                seen: seen.clone(),
                from: me,
                to,
            },
        ];
        for command in &commands {
            refused(&mut map, command, Refusal::Changed);
        }
    }
    let nowhere = Seen {
        shard: ShardId(8),
        ..now
    };
    let command = Command::Remove {
        seen: nowhere,
        member: me,
    };
    refused(&mut map, &command, Refusal::NoSuchShard);
}

#[test]
fn a_late_word_about_the_first_time_a_copy_was_filled_does_not_count_for_the_second() {
    let mut map = map(8, 3, 1);
    assign(&mut map, process(1, 1), With::Fresh).unwrap();
    let member = process(2, 1);
    let fill = |map: &mut Map| {
        let seen = seen(map);
        map.apply(&Command::Fill { seen, member }).unwrap();
    };
    fill(&mut map);
    let late = Command::Join {
        seen: seen(&map),
        member,
    };
    let gone = Command::Remove {
        seen: seen(&map),
        member,
    };
    map.apply(&gone).unwrap();
    fill(&mut map);
    // Epoch, in-sync set and who is on the way there are as they were; what is on the way now is another copy.
    refused(&mut map, &late, Refusal::Changed);
}

#[test]
fn a_process_that_is_not_current_or_not_there_to_own_gets_nothing() {
    let mut map = with_copy();
    let edge = NodeInfo {
        roles: Roles {
            owner: false,
            edge: true,
        },
        ..info("")
    };
    map.apply(&Command::Register {
        process: process(4, 1),
        info: edge,
    })
    .unwrap();
    for (member, why) in [
        (process(9, 1), Refusal::NotCurrent),
        (process(3, 2), Refusal::NotCurrent),
        (process(4, 1), Refusal::NotAnOwner),
    ] {
        let seen = seen(&map);
        refused(
            &mut map,
            &Command::Fill {
                seen: seen.clone(),
                member,
            },
            why,
        );
        refused(
            &mut map,
            &Command::Join {
                seen: seen.clone(),
                member,
            },
            why,
        );
        let (to, with) = (member, With::Nothing(FloorCause::Lost));
        refused(&mut map, &Command::Assign { seen, to, with }, why);
    }
}

#[test]
fn only_who_is_filling_joins() {
    let mut map = with_copy();
    let (seen, member) = (seen(&map), process(3, 1));
    refused(
        &mut map,
        &Command::Join {
            seen: seen.clone(),
            member,
        },
        Refusal::NotItsPart,
    );
    map.apply(&Command::Fill {
        seen: seen.clone(),
        member,
    })
    .unwrap();
    let seen = self::seen(&map);
    refused(
        &mut map,
        &Command::Fill {
            seen: seen.clone(),
            member,
        },
        Refusal::NotItsPart,
    );
    map.apply(&Command::Join { seen, member }).unwrap();
    assert_eq!(map.shard(S).unwrap().in_sync, [process(2, 1), member]);
}

#[test]
fn filling_a_node_anew_takes_its_earlier_process_out_of_the_in_sync_set() {
    let mut map = with_copy();
    map.apply(&Command::Register {
        process: process(2, 2),
        info: info(""),
    })
    .unwrap();
    let seen = seen(&map);
    map.apply(&Command::Fill {
        seen,
        member: process(2, 2),
    })
    .unwrap();
    map.check().unwrap();
    let shard = map.shard(S).unwrap();
    assert_eq!((shard.in_sync.len(), &shard.filling[..]), (0, &[process(2, 2)][..]));
}

#[test]
fn a_hand_over_leaves_the_old_owner_in_sync() {
    let mut map = with_copy();
    let (seen, from, to) = (seen(&map), process(1, 1), process(2, 1));
    let wrong = Command::Release {
        seen: seen.clone(),
        from: to,
        to: from,
    };
    refused(&mut map, &wrong, Refusal::NotItsPart);
    let wrong = Command::Release {
        seen: seen.clone(),
        from,
        to: process(3, 1),
    };
    refused(&mut map, &wrong, Refusal::NotItsPart);
    map.apply(&Command::Release { seen, from, to }).unwrap();
    map.check().unwrap();
    let shard = map.shard(S).unwrap();
    assert_eq!((shard.owner, &shard.in_sync[..]), (Some(to), &[from][..]));
    assert_eq!((shard.epoch, shard.begins), (Epoch(2), Version(1_001)));
}

#[test]
fn an_owner_that_takes_its_shard_anew_makes_its_earlier_release_void() {
    let mut map = with_copy();
    let (seen, from) = (seen(&map), process(1, 1));
    let retake = Command::Release {
        seen: seen.clone(),
        from,
        to: from,
    };
    map.apply(&retake).unwrap();
    map.check().unwrap();
    assert_eq!(map.shard(S).unwrap().in_sync, [process(2, 1)]);
    let late = Command::Release {
        seen,
        from,
        to: process(2, 1),
    };
    refused(&mut map, &late, Refusal::Changed);
}

#[test]
fn a_floor_only_rises_and_only_by_the_owner_of_the_epoch() {
    let mut map = with_copy();
    let raise = |by, epoch, floor| Command::RaiseFloor {
        shard: S,
        epoch: Epoch(epoch),
        by,
        floor: Version(floor),
        cause: FloorCause::Evicted,
    };
    refused(&mut map, &raise(process(2, 1), 1, 500), Refusal::Changed);
    refused(&mut map, &raise(process(1, 1), 2, 500), Refusal::Changed);
    refused(&mut map, &raise(process(1, 1), 1, 1_002), Refusal::NoVersions);
    map.apply(&raise(process(1, 1), 1, 500)).unwrap();
    refused(&mut map, &raise(process(1, 1), 1, 500), Refusal::NotHigher);
    assign(&mut map, process(2, 1), With::Copy).unwrap();
    let shard = map.shard(S).unwrap();
    assert_eq!((shard.floor, shard.cause), (Version(500), FloorCause::Evicted));
}

#[test]
fn the_ceiling_only_rises_and_ends_where_versions_end() {
    let mut map = map(8, 1, 1);
    let revision = map.revision();
    refused(
        &mut map,
        &Command::RaiseCeiling { to: Version(1_000) },
        Refusal::NotHigher,
    );
    let over = Version(Version::LIMIT);
    refused(&mut map, &Command::RaiseCeiling { to: over }, Refusal::NoVersions);
    map.apply(&Command::RaiseCeiling { to: over.before() }).unwrap();
    assert_eq!(map.revision(), revision, "the ceiling is no news of the map");
    assert_eq!(assign(&mut map, process(1, 1), With::Fresh), Err(Refusal::NoVersions));
}

#[test]
fn a_node_is_forgotten_only_when_no_shard_names_it() {
    let mut map = with_copy();
    for number in [1, 2] {
        refused(&mut map, &Command::Forget { node: node(number) }, Refusal::StillNamed);
    }
    map.apply(&Command::Forget { node: node(3) }).unwrap();
    refused(&mut map, &Command::Forget { node: node(3) }, Refusal::NotCurrent);
}

#[test]
fn an_older_process_does_not_register_over_a_newer_and_a_restart_ends_a_drain() {
    let mut map = map(8, 2, 1);
    let node = node(1);
    let register = |incarnation| Command::Register {
        process: process(1, incarnation),
        info: info("zone 0"),
    };
    map.apply(&Command::Drain { node, draining: true }).unwrap();
    map.apply(&register(2)).unwrap();
    assert!(!map.node(node).unwrap().draining);
    refused(&mut map, &register(1), Refusal::NotCurrent);
    refused(&mut map, &register(2), Refusal::Same);
    assert!(map.is_superseded(process(1, 1)) && map.is_current(process(1, 2)));
}

#[test]
fn the_number_of_nodes_and_of_copies_has_its_limit() {
    let mut map = map(1, MOST_NODES as u64, 1);
    let one_more = Command::Register {
        process: process(MOST_NODES as u64 + 1, 1),
        info: info(""),
    };
    refused(&mut map, &one_more, Refusal::Limit);
    refused(&mut map, &Command::SetCopies { copies: 0 }, Refusal::Limit);
    refused(&mut map, &Command::SetCopies { copies: 4 }, Refusal::Limit);
    map.apply(&Command::SetCopies { copies: 3 }).unwrap();
}

#[test]
fn the_map_of_1000_nodes_and_4096_shards_is_under_a_megabyte_and_a_change_a_few_hundred_bytes() {
    let mut map = map(4096, 1_000, 3);
    for shard in 0..4096 {
        let at = |by: u64| process(1 + (u64::from(shard) + by) % 1_000, 1);
        let seen = Seen::of(&map, ShardId(shard)).unwrap();
        let with = With::Fresh;
        map.apply(&Command::Assign { seen, to: at(0), with }).unwrap();
        for by in [1, 2] {
            let (seen, member) = (Seen::of(&map, ShardId(shard)).unwrap(), at(by));
            map.apply(&Command::Fill {
                seen: seen.clone(),
                member,
            })
            .unwrap();
            let seen = Seen::of(&map, ShardId(shard)).unwrap();
            map.apply(&Command::Join { seen, member }).unwrap();
        }
    }
    map.check().unwrap();
    let bytes = rmp_serde::to_vec(&map).unwrap();
    assert!(bytes.len() < 1_000_000, "{} bytes", bytes.len());
    assert_eq!(rmp_serde::from_slice::<Map>(&bytes).unwrap(), map);
    let (seen, from) = (seen(&map), map.shard(S).unwrap().owner.unwrap());
    let to = seen.in_sync[0];
    let change = rmp_serde::to_vec(&Command::Release { seen, from, to }).unwrap();
    assert!(change.len() < 300, "{} bytes", change.len());
    println!("map {} bytes, change {} bytes", bytes.len(), change.len());
}

#[test]
fn a_shard_that_an_operator_put_somewhere_stays_there_until_it_gets_another_owner() {
    let mut map = with_copy();
    let pin = |shard, node| Command::Pin {
        shard: ShardId(shard),
        to: Some(node),
    };
    refused(&mut map, &pin(99, node(2)), Refusal::NoSuchShard);
    refused(&mut map, &pin(S.0, node(9)), Refusal::NotCurrent);
    map.apply(&pin(S.0, node(2))).unwrap();
    refused(&mut map, &pin(S.0, node(2)), Refusal::Same);
    let seen = Seen::of(&map, S).unwrap();
    let (from, to) = (process(1, 1), process(2, 1));
    map.apply(&Command::Release { seen, from, to }).unwrap();
    assert_eq!(map.shard(S).unwrap().pinned, Some(node(2)), "it is there now");
    assign(&mut map, process(1, 1), With::Copy).unwrap();
    assert_eq!(map.shard(S).unwrap().pinned, None, "its node was lost");
    map.apply(&pin(S.0, node(3))).unwrap();
    map.apply(&Command::Forget { node: node(3) }).unwrap();
    assert_eq!(map.shard(S).unwrap().pinned, None);
}

#[test]
fn a_shard_that_is_handed_over_has_room_at_once_and_many_in_a_row_stay_close() {
    let mut map = with_copy();
    let before = map.ceiling();
    for turn in 0..20 {
        let (from, to) = if turn % 2 == 0 { (1, 2) } else { (2, 1) };
        let release = Command::Release {
            seen: seen(&map),
            from: process(from, 1),
            to: process(to, 1),
        };
        let begins = map.ceiling().next();
        map.apply(&release).unwrap();
        map.check().unwrap();
        assert_eq!(map.shard(S).unwrap().begins, begins);
        assert!(map.ceiling() > Version(begins.0 + 1_000), "there is room");
    }
    let ran_ahead = map.ceiling().0 - before.0;
    assert!(ran_ahead < 500_000, "{ran_ahead} microseconds after twenty moves");
}
