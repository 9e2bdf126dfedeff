//! What an owner says, and when: one claim a test.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

#[path = "support/lab.rs"]
mod lab;

use lab::{Lab, START_US, closed, config, frames, object, results};
use std::sync::Arc;
use tidings_protocol::peer::{Changed, EdgeToOwner, FloorCause, Owned, OwnerToEdge};
use tidings_protocol::{Epoch, Hint, ShardCount, ShardId, Version};
use tidings_router::owner::{Config, Input, LinkId, Output, Publish, PublishExtra, Published};

#[test]
fn a_new_link_is_told_every_shard_and_then_closed_at_once() {
    let mut lab = Lab::new(config());
    let frames = lab.up(3);
    let [OwnerToEdge::Own { shards }, OwnerToEdge::Closed { version }] = &frames[..] else {
        panic!("{frames:?}")
    };
    let (epoch, floor, cause) = (Epoch(1), Version(START_US), FloorCause::Lost);
    assert_eq!(
        shards[2],
        Owned {
            shard: ShardId(2),
            epoch,
            floor,
            cause
        }
    );
    assert_eq!(shards.len(), 4);
    assert_eq!(*version, Version(START_US));
}

#[test]
fn a_clock_above_the_ceiling_does_not_use_up_all_versions_at_once() {
    let mut lab = Lab::new(config());
    lab.owner.set_ceiling(Version(START_US + 5_000_000));
    lab.now.wall_us += 3_600_000_000;
    lab.up(0);
    let accepted =
        |out: &[Output]| matches!(results(out)[0], Published::Accepted(version) if version.0 <= START_US + 5_000_000);
    for number in 0..1_000 {
        assert!(accepted(&lab.publish(&[number])), "change {number}");
    }
    assert!(!closed(&lab.after(1_000_000)).is_empty());
}

#[test]
fn all_changes_of_a_publish_go_to_a_link_in_one_frame_before_the_answer() {
    let mut lab = Lab::new(config());
    lab.up(0);
    lab.up(1);
    lab.register(0, &[1, 2, 3]);
    lab.register(1, &[2]);
    let out = lab.publish(&[1, 2, 3, 4, 2]);
    let told: Vec<_> = out[..out.len() - 1]
        .iter()
        .map(|output| match output {
            Output::ToEdge {
                link,
                frame: OwnerToEdge::Changed { changes },
                ..
            } => (*link, changes.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [(0, 4), (1, 2)]);
    assert_eq!(results(&out).len(), 5);
}

#[test]
fn hints_go_with_the_change_and_revisions_and_keys_are_recognised() {
    let mut lab = Lab::new(config());
    lab.up(0);
    lab.register(0, &[1]);
    let hint = Some(Arc::new(Hint {
        kind: Some("updated".into()),
        data: None,
    }));
    let mut publish = |revision: u64, key: u128| {
        let extra = PublishExtra {
            hint: hint.clone(),
            revision: Some((77, revision)),
            idempotency: Some(key),
        };
        let changes = vec![Publish {
            object: object(1),
            extra: Some(Box::new(extra)),
        }];
        lab.give(Input::Publish { request: 1, changes })
    };
    let first = publish(5, 1);
    let Published::Accepted(version) = results(&first)[0] else {
        panic!("{first:?}")
    };
    let changes = vec![Changed {
        object: object(1),
        version,
        hint: hint.clone(),
    }];
    assert_eq!(frames(first)[0], OwnerToEdge::Changed { changes });
    for out in [publish(5, 2), publish(4, 3), publish(6, 1)] {
        assert_eq!(out.len(), 1, "a duplicate notifies nobody");
        assert_eq!(results(&out), [Published::Duplicate(version)]);
    }
    assert_ne!(results(&publish(6, 4)), [Published::Duplicate(version)]);
}

#[test]
fn closed_comes_every_second_on_a_silent_link_and_every_50_ms_on_a_busy_one() {
    let mut lab = Lab::new(config());
    let mut last = closed(&lab.up(0))[0];
    for wait_us in [1_000_000, 1_000_000] {
        assert_eq!(lab.after(wait_us - 1), []);
        let now = closed(&lab.after(1))[0];
        assert!(now > last);
        last = now;
    }
    lab.register(0, &[1]);
    for _ in 0..3 {
        lab.publish(&[1]);
        assert_eq!(lab.after(49_999), []);
        let now = closed(&lab.after(1))[0];
        assert!(now > last && now >= lab.owner.version(object(1)));
        last = now;
    }
}

#[test]
fn closed_waits_until_a_slow_link_has_drained_and_is_then_a_fresh_one() {
    let mut lab = Lab::new(Config {
        link_window_changes: 1,
        ..config()
    });
    lab.up(0);
    lab.up(1);
    lab.register(0, &[1, 2]);
    lab.publish(&[1, 2]);
    let of_other = closed(&lab.after(2_000_000));
    assert_eq!(of_other.len(), 1, "only the link with nothing pending");
    assert_eq!(lab.owner.stats().pending, 1);
    assert!(matches!(
        &lab.say(0, EdgeToOwner::Handled { changes: 1 })[..],
        [OwnerToEdge::Changed { .. }]
    ));
    assert!(lab.owner.next_deadline().unwrap() <= lab.now.mono_us, "it is due now");
    assert!(closed(&lab.after(0))[0] > of_other[0]);
}

#[test]
fn versions_increase_when_the_clock_goes_back() {
    let mut lab = Lab::new(config());
    lab.now.wall_us += 10_000_000;
    lab.publish(&[1]);
    let first = lab.owner.version(object(1));
    lab.now.wall_us -= 9_000_000;
    lab.publish(&[1]);
    assert_eq!(lab.owner.version(object(1)), first.next());
}

#[test]
fn a_clock_gone_wild_leaves_versions_to_give_and_none_is_ever_too_large() {
    let mut lab = Lab::new(config());
    lab.up(0);
    lab.now.wall_us = u64::MAX;
    lab.publish(&[1, 1]);
    assert!(lab.owner.version(object(1)) < Version(Version::LIMIT - (1 << 39)));
    // The last version there is was closed: nothing is left to give, and silence shows it.
    lab.assign(&[0, 1, 2, 3], 2, Version::LIMIT - 1);
    let out = lab.publish(&[1]);
    assert_eq!(results(&out), [Published::Accepted(Version(Version::LIMIT - 1))]);
    let out = lab.publish(&[1]);
    assert!(matches!(results(&out), [Published::Paused(_)]));
    assert_eq!(closed(&lab.after(2_000_000)), [Version(Version::LIMIT - 1)]);
    assert_eq!(lab.after(2_000_000), []);
}

#[test]
fn a_registration_that_crossed_gone_leaves_no_interest() {
    let mut lab = Lab::new(config());
    lab.up(0);
    let shards = (0..4).map(ShardId).collect();
    assert!(
        matches!(&frames(lab.give(Input::Release { shards }))[..], [OwnerToEdge::Gone { shards }] if shards.len() == 4)
    );
    let objects = vec![(object(1), Version::ZERO)];
    assert_eq!(lab.register(0, &[1]), [OwnerToEdge::Registered { objects }]);
    assert_eq!(lab.owner.watchers(object(1)), [] as [LinkId; 0]);
    assert_eq!(lab.publish(&[1]).len(), 1);
    assert_eq!(lab.owner.stats().ignored, 1);
}

#[test]
fn a_late_unregister_of_an_older_generation_erases_nothing() {
    let mut lab = Lab::new(config());
    lab.up(0);
    lab.register(0, &[1]);
    let objects = vec![object(1)];
    lab.give(Input::LinkUp { link: 0, generation: 2 });
    lab.give(Input::FromEdge {
        link: 0,
        generation: 2,
        frame: EdgeToOwner::Register {
            objects: objects.clone(),
        },
    });
    lab.give(Input::FromEdge {
        link: 0,
        generation: 1,
        frame: EdgeToOwner::Unregister { objects },
    });
    lab.give(Input::LinkDown { link: 0, generation: 1 });
    for _ in 0..100 {
        lab.after(1_000);
    }
    assert_eq!(lab.owner.watchers(object(1)), [0]);
    assert_eq!(lab.publish(&[1]).len(), 2);
    assert_eq!(lab.owner.stats().ignored, 2);
}

#[test]
fn a_link_that_went_down_leaves_no_memory_behind() {
    let mut lab = Lab::new(config());
    for generation in 1..20 {
        lab.give(Input::LinkUp { link: 0, generation });
        let frame = EdgeToOwner::Register {
            objects: (0..1_000).map(object).collect(),
        };
        lab.give(Input::FromEdge {
            link: 0,
            generation,
            frame,
        });
        assert_eq!(lab.owner.stats().interests, 1_000);
    }
    lab.give(Input::LinkDown {
        link: 0,
        generation: 19,
    });
    assert_eq!(lab.owner.stats().interests, 0);
    while lab.owner.next_deadline().is_some() {
        lab.after(1_000);
    }
    assert_eq!(lab.owner.stats().interest_bytes, 0);
}

#[test]
fn a_table_over_its_budget_drops_the_oldest_and_stays_near_it_under_fire() {
    const BUDGET: usize = 2 << 20;
    let mut lab = Lab::new(Config {
        version_table_bytes: BUDGET,
        ..config()
    });
    lab.up(0);
    let mut evicted_floors = 0;
    for batch in 0..200_u64 {
        let changes: Vec<_> = (batch * 2_500..(batch + 1) * 2_500).collect();
        for frame in frames(lab.publish(&changes)) {
            let OwnerToEdge::Own { shards } = frame else {
                panic!("{frame:?}")
            };
            assert!(shards.iter().all(|owned| owned.cause == FloorCause::Evicted));
            evicted_floors += 1;
        }
        lab.now.wall_us += 5_000;
        assert!(
            lab.owner.stats().bytes < BUDGET * 5 / 4,
            "{} bytes",
            lab.owner.stats().bytes
        );
    }
    for _ in 0..100 {
        lab.after(1_000);
    }
    let stats = lab.owner.stats();
    assert!(evicted_floors > 3);
    assert!(
        stats.bytes <= BUDGET && stats.bytes > BUDGET * 3 / 4,
        "{} bytes",
        stats.bytes
    );
    assert_eq!(stats.objects as u64 + stats.evicted, 500_000);
    let newest = object(499_999);
    assert!(lab.owner.version(newest) > lab.owner.floor(ShardCount::new(4).unwrap().shard(newest)).unwrap());
}
