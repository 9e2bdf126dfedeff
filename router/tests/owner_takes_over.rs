//! How shards change hands, and how an owner falls silent without a lease: one claim a test.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

#[path = "support/lab.rs"]
mod lab;

use lab::{Lab, START_US, closed, config, frames, object, results};
use tidings_protocol::peer::{FloorCause, Owned, OwnerToEdge};
use tidings_protocol::{Epoch, ObjectHash, ShardCount, ShardId, Version};
use tidings_router::Now;
use tidings_router::owner::keeping::{Floor, KeptAnswer, KeptRevision};
use tidings_router::owner::taking::{Assignment, Table};
use tidings_router::owner::{Config, Input, Output, Owner, Publish, PublishExtra, Published};

const SECOND_US: u64 = 1_000_000;

fn shard_of(object: ObjectHash) -> ShardId {
    ShardCount::new(4).unwrap().shard(object)
}

/// Objects of one shard.
fn objects_of(shard: u16) -> impl Iterator<Item = u64> {
    (0..).filter(move |number| shard_of(object(*number)) == ShardId(shard))
}

/// A shelf with the first so many objects of shard 1, with the versions from `first` on, written in epoch 4.
fn shelf(objects: usize, first: u64, floor: u64) -> Owner {
    let mut shelf = Owner::new(config());
    let input = Input::Assign {
        shards: (0..4).map(ShardId).collect(),
        epoch: Epoch(4),
        floor: Version(floor),
        cause: FloorCause::Evicted,
    };
    shelf.handle(Now::default(), input, &mut Vec::new());
    for (version, number) in (first..).zip(objects_of(1).take(objects)) {
        assert!(shelf.restore(object(number), Version(version)));
    }
    shelf
}

fn table(objects: usize, first: u64, floor: u64) -> Option<Table> {
    shelf(objects, first, floor).take_table(ShardId(1))
}

fn begins(epoch: u64, begins: u64, floor: u64) -> Assignment {
    Assignment {
        shard: ShardId(1),
        epoch: Epoch(epoch),
        begins: Version(begins),
        floor: Version(floor),
        cause: FloorCause::Lost,
    }
}

impl Lab {
    fn bare(config: Config) -> Self {
        let now = Now {
            mono_us: 5_000_000,
            wall_us: START_US,
        };
        let owner = Owner::new(config);
        Self { owner, now }
    }

    fn take_over(&mut self, assignment: Assignment, table: Option<Table>) -> Vec<OwnerToEdge> {
        let mut out = Vec::new();
        assert!(self.owner.take_over(self.now, assignment, table, &mut out));
        frames(out)
    }

    fn publish_one(&mut self, number: u64) -> Published {
        results(&self.publish(&[number]))[0]
    }

    fn accepted(&mut self, number: u64) -> Version {
        match self.publish_one(number) {
            Published::Accepted(version) => version,
            other => panic!("{other:?}"),
        }
    }
}

fn owned(epoch: u64, floor: u64, cause: FloorCause) -> OwnerToEdge {
    let owned = Owned {
        shard: ShardId(1),
        epoch: Epoch(epoch),
        floor: Version(floor),
        cause,
    };
    OwnerToEdge::Own { shards: vec![owned] }
}

#[test]
fn a_shard_taken_over_with_a_table_answers_from_it_and_gives_versions_from_where_the_epoch_begins() {
    let mut lab = Lab::bare(config());
    lab.up(0);
    // The floor is an hour below, the first version three seconds ahead of the clock.
    let floor = START_US - 3600 * SECOND_US;
    let begin = START_US + 3 * SECOND_US;
    let said = lab.take_over(begins(5, begin, floor), table(100, START_US - 500, 7));
    assert_eq!(said[0], owned(5, floor, FloorCause::Lost));
    let numbers: Vec<u64> = objects_of(1).take(2).collect();
    let answer = vec![
        (object(numbers[0]), Version(START_US - 500)),
        (object(numbers[1]), Version(START_US - 499)),
    ];
    assert_eq!(lab.register(0, &numbers), [OwnerToEdge::Registered { objects: answer }]);
    assert_eq!(lab.accepted(numbers[0]), Version(begin));
    assert_eq!(lab.owner.highest(), Version(begin));
}

#[test]
fn a_shard_taken_over_without_a_table_is_empty_and_its_floor_is_where_the_epoch_begins() {
    let mut lab = Lab::bare(config());
    lab.up(0);
    let begin = START_US + 3 * SECOND_US;
    assert_eq!(
        lab.take_over(begins(5, begin, 0), None),
        [owned(5, begin, FloorCause::Lost)]
    );
    // Whoever fetched again because of the floor has not to do so twice: what is closed next covers it.
    assert!(closed(&lab.after(SECOND_US))[0] >= Version(begin).before());
    assert!(lab.accepted(objects_of(1).next().unwrap()) >= Version(begin));
}

#[test]
fn the_higher_of_the_two_floors_counts_with_its_cause() {
    let mut lab = Lab::bare(config());
    lab.up(0);
    let said = lab.take_over(begins(5, START_US, 1_000), table(1, 5_000, 2_000));
    assert_eq!(said[0], owned(5, 2_000, FloorCause::Evicted));
    let mut lab = Lab::bare(config());
    lab.up(0);
    let said = lab.take_over(begins(5, START_US, 3_000), table(1, 5_000, 2_000));
    assert_eq!(said[0], owned(5, 3_000, FloorCause::Lost));
}

#[test]
fn no_version_is_given_that_a_table_or_this_owner_gave_before_wherever_an_epoch_begins() {
    // The table ends above where the epoch is said to begin.
    let mut lab = Lab::bare(config());
    let ahead = START_US + 9 * SECOND_US;
    lab.take_over(begins(5, 10, 0), table(10, ahead, 0));
    let number = objects_of(1).next().unwrap();
    assert_eq!(lab.accepted(number), Version(ahead + 10));
    // Another shard went further here, and was closed.
    let mut lab = Lab::new(config());
    lab.up(0);
    lab.now.wall_us += 60 * SECOND_US;
    let other = lab.accepted(objects_of(2).next().unwrap());
    let closed = closed(&lab.after(SECOND_US))[0];
    assert!(closed > other);
    lab.now.wall_us = START_US;
    lab.give(Input::Release {
        shards: vec![ShardId(1)],
    });
    lab.take_over(begins(5, 10, 0), table(10, 20, 0));
    assert!(lab.accepted(number) > closed);
}

#[test]
fn a_shard_owned_since_the_same_epoch_keeps_what_is_known_and_only_its_floor_rises() {
    let mut lab = Lab::bare(config());
    lab.up(0);
    let number = objects_of(1).next().unwrap();
    lab.take_over(begins(5, START_US, START_US), None);
    let given = lab.accepted(number);
    let floor = START_US + 7;
    let said = lab.take_over(begins(5, START_US, floor), table(1, START_US + 500, 0));
    assert_eq!(said[0], owned(5, floor, FloorCause::Lost));
    assert_eq!(lab.owner.version(object(number)), given, "a table for it is not wanted");
    assert_eq!(lab.owner.stats().ignored, 1);
    let said = lab.take_over(begins(5, START_US, 3), None);
    assert_eq!(said[0], owned(5, floor, FloorCause::Lost), "a floor never falls");
}

#[test]
fn an_assignment_of_an_older_epoch_or_with_an_impossible_number_changes_nothing() {
    let mut lab = Lab::bare(config());
    lab.up(0);
    lab.take_over(begins(5, START_US, 0), table(3, 4_000, 0));
    let before = lab.owner.stats();
    let mut refused = |assignment| {
        let mut out = Vec::new();
        assert!(!lab.owner.take_over(lab.now, assignment, table(9, 1, 0), &mut out));
        assert_eq!(out, []);
    };
    refused(begins(4, START_US, 0));
    refused(begins(6, Version::LIMIT, 0));
    refused(begins(6, START_US, Version::LIMIT));
    refused(Assignment {
        shard: ShardId(4),
        ..begins(6, START_US, 0)
    });
    let after = lab.owner.stats();
    assert_eq!((after.bytes, after.objects), (before.bytes, before.objects));
    assert_eq!(lab.owner.epoch(ShardId(1)), Some(Epoch(5)));
}

#[test]
fn a_table_of_another_shard_or_a_later_epoch_counts_as_none() {
    let mut lab = Lab::bare(config());
    lab.up(0);
    let wrong = shelf(10, 4_000, 0).take_table(ShardId(2));
    let said = lab.take_over(begins(5, START_US, 0), wrong);
    assert_eq!(said, [owned(5, START_US, FloorCause::Lost)]);
    let mut lab = Lab::bare(config());
    lab.up(0);
    let said = lab.take_over(begins(3, START_US, 0), table(10, 4_000, 0));
    assert_eq!(said, [owned(3, START_US, FloorCause::Lost)]);
    assert_eq!((lab.owner.stats().objects, lab.owner.stats().ignored), (0, 1));
}

#[test]
fn a_later_epoch_of_a_shard_owned_here_replaces_what_is_known_and_keeps_who_wants_it() {
    let mut lab = Lab::bare(config());
    lab.up(0);
    let numbers: Vec<u64> = objects_of(1).take(50).collect();
    lab.take_over(begins(5, START_US, 0), table(50, 4_000, 0));
    lab.register(0, &numbers);
    lab.take_over(begins(6, START_US + SECOND_US, 0), None);
    assert_eq!((lab.owner.stats().objects, lab.owner.stats().bytes), (0, 0));
    assert_eq!(lab.owner.stats().interests, 50);
    assert_eq!(frames(lab.publish(&numbers[..1])).len(), 1);
    lab.give(Input::Release {
        shards: vec![ShardId(1)],
    });
    assert_eq!((lab.owner.stats().interests, lab.owner.stats().bytes), (0, 0));
}

#[test]
fn where_an_epoch_begins_holds_for_the_later_ones_too() {
    let mut lab = Lab::bare(config());
    let begin = START_US + 3600 * SECOND_US;
    lab.take_over(begins(5, begin, 0), table(1, 5_000, 0));
    lab.take_over(begins(6, START_US, 0), table(1, 5_000, 0));
    assert!(lab.accepted(objects_of(1).next().unwrap()) >= Version(begin));
}

#[test]
fn a_table_moves_with_its_bytes_and_leaves_nothing_on_the_shelf() {
    let mut shelf = shelf(10_000, 1, 0);
    let all = shelf.stats();
    let table = shelf.take_table(ShardId(1)).unwrap();
    assert_eq!((table.len(), table.bytes()), (all.objects, all.bytes));
    assert_eq!((table.shard(), table.epoch()), (ShardId(1), Epoch(4)));
    let (version, cause) = (Version(0), FloorCause::Evicted);
    assert_eq!(table.floor(), Floor { version, cause });
    assert_eq!((shelf.stats().bytes, shelf.stats().shards), (0, 3));
    assert_eq!(shelf.epoch(ShardId(1)), None);
    assert!(shelf.take_table(ShardId(1)).is_none() && shelf.take_table(ShardId(9)).is_none());
    let mut lab = Lab::bare(config());
    lab.take_over(begins(5, START_US, 0), Some(table));
    assert_eq!(
        (lab.owner.stats().objects, lab.owner.stats().bytes),
        (all.objects, all.bytes)
    );
    assert!(shelf.forget(ShardId(2)) && !shelf.forget(ShardId(2)));
    assert_eq!(shelf.stats().shards, 2);
}

#[test]
fn nothing_is_lifted_from_an_owner_whose_links_would_not_hear_of_it() {
    let mut lab = Lab::new(config());
    lab.up(0);
    assert!(lab.owner.take_table(ShardId(1)).is_none() && !lab.owner.forget(ShardId(1)));
    assert_eq!(lab.owner.epoch(ShardId(1)), Some(Epoch(1)));
    lab.give(Input::LinkDown { link: 0, generation: 1 });
    assert!(lab.owner.forget(ShardId(1)));
}

#[test]
fn tables_beyond_the_budget_are_evicted_without_a_publish() {
    const BUDGET: usize = 1 << 20;
    let mut lab = Lab::bare(Config {
        version_table_bytes: BUDGET,
        ..config()
    });
    lab.up(0);
    let mut shelf = shelf(0, 1, 0);
    for number in 0..200_000 {
        shelf.restore(object(number), Version(START_US - 200_000 + number));
    }
    for shard in 0..4 {
        let table = shelf.take_table(ShardId(shard));
        let assignment = Assignment {
            shard: ShardId(shard),
            ..begins(5, START_US + SECOND_US, 0)
        };
        lab.take_over(assignment, table);
    }
    let mut waits = 0;
    while lab.owner.stats().bytes > BUDGET {
        lab.after(1_000);
        waits += 1;
        assert!(waits < 10_000, "{} bytes are left", lab.owner.stats().bytes);
    }
    let stats = lab.owner.stats();
    assert_eq!(stats.objects as u64 + stats.evicted, 200_000);
    let newest = object(199_999);
    assert!(lab.owner.version(newest) >= lab.owner.floor(shard_of(newest)).unwrap());
    // It does not go on for ever.
    lab.after(SECOND_US);
    for _ in 0..100 {
        lab.after(1_000);
    }
    assert!(lab.owner.next_deadline().unwrap() > lab.now.mono_us, "it rests");
}

#[test]
fn after_the_lease_nothing_is_given_and_nothing_closed_and_then_both_go_on_at_once() {
    let mut lab = Lab::new(config());
    lab.up(0);
    lab.owner.set_lease(lab.now.mono_us + 1);
    assert!(matches!(lab.publish_one(1), Published::Accepted(_)));
    lab.now.mono_us += 1;
    assert_eq!(lab.publish_one(1), Published::Paused(shard_of(object(1))));
    assert_eq!(lab.after(10 * SECOND_US), []);
    lab.owner.set_lease(lab.now.mono_us + SECOND_US);
    assert!(lab.owner.next_deadline().unwrap() <= lab.now.mono_us, "it is overdue");
    assert_eq!(closed(&lab.after(0)).len(), 1);
    assert!(matches!(lab.publish_one(1), Published::Accepted(_)));
}

#[test]
fn without_a_lease_there_is_no_deadline_to_wake_up_for() {
    let mut lab = Lab::new(config());
    lab.up(0);
    // It ends before the next `Closed` is due.
    lab.owner.set_lease(lab.now.mono_us + SECOND_US);
    assert_eq!(lab.owner.next_deadline(), None);
    // It ends after, but whoever wakes the owner up is late.
    lab.owner.set_lease(lab.now.mono_us + SECOND_US + 1);
    assert_eq!(lab.owner.next_deadline(), Some(lab.now.mono_us + SECOND_US));
    assert_eq!(lab.after(2 * SECOND_US), []);
    assert_eq!(lab.owner.next_deadline(), None);
    // To be told the same again is no news.
    lab.owner.set_lease(lab.now.mono_us - SECOND_US + 1);
    assert_eq!(lab.owner.next_deadline(), None);
    lab.owner.set_lease(u64::MAX);
    assert!(lab.owner.next_deadline().unwrap() <= lab.now.mono_us, "it is overdue");
}

#[test]
fn at_the_ceiling_nothing_is_given_and_closing_goes_on_as_soon_as_it_rises() {
    let mut lab = Lab::new(config());
    lab.up(0);
    let ceiling = Version(START_US + 2 * SECOND_US);
    lab.owner.set_ceiling(ceiling);
    lab.owner.resume_above(ceiling);
    assert_eq!(lab.publish_one(1), Published::Paused(shard_of(object(1))));
    assert_eq!(lab.after(SECOND_US), []);
    lab.owner.set_ceiling(ceiling);
    assert_eq!(lab.owner.next_deadline(), None, "nothing can be done");
    lab.owner.set_ceiling(Version(ceiling.0 + 1));
    assert_eq!(closed(&lab.after(0)), [ceiling.next()]);
    assert_eq!(lab.publish_one(1), Published::Paused(shard_of(object(1))));
}

#[test]
fn what_happened_already_is_not_confirmed_after_the_lease_nor_forgotten() {
    let mut lab = Lab::new(config());
    let publish = |lab: &mut Lab, revision, idempotency| {
        let extra = PublishExtra {
            hint: None,
            revision,
            idempotency,
        };
        let changes = vec![Publish {
            object: object(1),
            extra: Some(Box::new(extra)),
        }];
        results(&lab.give(Input::Publish { request: 9, changes }))[0]
    };
    let Published::Accepted(first) = publish(&mut lab, Some((1, 7)), Some(3)) else {
        panic!("it is new")
    };
    lab.owner.set_lease(lab.now.mono_us);
    let paused = Published::Paused(shard_of(object(1)));
    assert_eq!(publish(&mut lab, None, Some(3)), paused);
    assert_eq!(publish(&mut lab, Some((1, 7)), None), paused);
    assert_eq!(publish(&mut lab, Some((1, 8)), Some(4)), paused);
    lab.owner.set_lease(u64::MAX);
    assert_eq!(publish(&mut lab, None, Some(3)), Published::Duplicate(first));
    assert_eq!(publish(&mut lab, Some((1, 7)), None), Published::Duplicate(first));
    assert!(
        matches!(publish(&mut lab, Some((1, 8)), Some(4)), Published::Accepted(_)),
        "what was refused left no mark"
    );
}

#[test]
fn a_shard_that_is_not_owned_is_told_apart_from_one_that_pauses() {
    let mut lab = Lab::new(config());
    lab.give(Input::Release {
        shards: vec![shard_of(object(1))],
    });
    lab.owner.set_lease(0);
    let other = (0..).find(|n| shard_of(object(*n)) != shard_of(object(1))).unwrap();
    assert_eq!(lab.publish_one(1), Published::NotOwner(shard_of(object(1))));
    assert_eq!(lab.publish_one(other), Published::Paused(shard_of(object(other))));
}

#[test]
fn a_registration_is_answered_without_a_lease_and_closed_only_with_one() {
    let mut lab = Lab::new(config());
    lab.owner.set_lease(0);
    assert!(matches!(&lab.up(0)[..], [OwnerToEdge::Own { .. }]));
    assert!(matches!(&lab.register(0, &[1])[..], [OwnerToEdge::Registered { .. }]));
    assert_eq!(lab.owner.next_deadline(), None);
    lab.owner.set_lease(u64::MAX);
    assert_eq!(closed(&lab.after(0)).len(), 1);
}

#[test]
fn in_the_first_epoch_of_a_shard_nothing_can_have_been_lost() {
    let mut lab = Lab::bare(config());
    lab.up(0);
    let said = lab.take_over(begins(1, START_US, 0), None);
    assert_eq!(said[0], owned(1, 0, FloorCause::Lost));
    assert!(lab.accepted(objects_of(1).next().unwrap()) >= Version(START_US));
    let said = lab.take_over(begins(2, START_US + SECOND_US, 0), None);
    assert_eq!(said[0], owned(2, START_US + SECOND_US, FloorCause::Lost));
}

#[test]
fn a_mark_whose_change_the_table_lacks_does_not_make_its_retry_a_duplicate() {
    // The copy had the mark; the table that it was filled with anew never had the change.
    let mut owner = Owner::new(config());
    let object = ObjectHash(7);
    let (key, revision_key) = (1_u128 << 64, 2_u128 << 64);
    let begins = Version(1_000);
    let assignment = Assignment {
        shard: config().shards.shard(object),
        epoch: Epoch(2),
        begins,
        floor: Version(10),
        cause: FloorCause::Lost,
    };
    let now = Now {
        mono_us: 5,
        wall_us: 2_000,
    };
    let mut shelf = Owner::new(config());
    let here = Input::Assign {
        shards: vec![assignment.shard],
        epoch: Epoch(1),
        floor: Version(10),
        cause: FloorCause::Lost,
    };
    shelf.handle(now, here, &mut Vec::new());
    assert!(shelf.restore(object, Version(500)));
    let table = shelf.take_table(assignment.shard);
    assert!(owner.take_over(now, assignment, table, &mut Vec::new()));
    let answer = |version| KeptAnswer {
        key,
        version,
        wall_us: now.wall_us,
    };
    let revision = |version| KeptRevision {
        key: revision_key,
        revision: 17,
        version,
    };
    let publish = |owner: &mut Owner, idempotency, revision| {
        let extra = PublishExtra {
            idempotency,
            revision,
            ..PublishExtra::default()
        };
        let changes = vec![Publish {
            object,
            extra: Some(Box::new(extra)),
        }];
        let mut out = Vec::new();
        owner.handle(now, Input::Publish { request: 1, changes }, &mut out);
        out.iter().find_map(|output| match output {
            Output::Published { results, .. } => results.first().copied(),
            Output::ToEdge { .. } => None,
        })
    };
    // Known to the table, or older than all that it vouches for: it had happened.
    for version in [Version(500), Version(9)] {
        owner.restore_answer(answer(version), now);
        assert_eq!(
            publish(&mut owner, Some(key), None),
            Some(Published::Duplicate(version))
        );
        owner.restore_revision(revision(version));
        let again = publish(&mut owner, None, Some((revision_key, 17)));
        assert_eq!(again, Some(Published::Duplicate(Version(500))));
    }
    // Newer than what the table knows: the change died with another table, and its retry brings it back.
    owner.restore_answer(answer(Version(600)), now);
    let accepted = publish(&mut owner, Some(key), None);
    assert!(
        matches!(accepted, Some(Published::Accepted(version)) if version >= begins),
        "{accepted:?}"
    );
    assert_eq!(
        publish(&mut owner, Some(key), None).map(|again| matches!(again, Published::Duplicate(_))),
        Some(true)
    );
    owner.restore_revision(revision(Version(5_000)));
    let accepted = publish(&mut owner, None, Some((revision_key, 17)));
    assert!(matches!(accepted, Some(Published::Accepted(_))), "{accepted:?}");
}
