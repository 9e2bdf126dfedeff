//! Registrations that are under way while their shard changes hands.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

#[path = "support/stage.rs"]
mod stage;
#[path = "support/wire.rs"]
mod wire;

use stage::{Stage, config};
use tidings_protocol::peer::EdgeToOwner;
use tidings_router::edge::Config;

fn stage(owners: usize) -> Stage {
    let mut stage = Stage::new(Config {
        lingering_objects: 0,
        ..config(1, owners)
    });
    stage.own(0, &[0], 1, 0);
    stage
}

#[test]
fn an_interest_that_reaches_its_owner_after_the_lane_lost_it_is_given_up_again() {
    let mut stage = stage(2);
    let who = stage.web_socket();
    stage.subscribe(who, &["a"], None);
    // The question is on its way for long. Meanwhile the shard goes elsewhere, where the object is given up ...
    stage.gone(0, &[0]);
    stage.lane.disconnect(stage.now, who);
    stage.own(1, &[0], 2, 0);
    stage.answer(1, &[]);
    stage.wait(1);
    assert!(matches!(stage.heard(1)[..], [EdgeToOwner::Unregister { .. }]));
    assert_eq!(stage.lane.stats().objects, 0);
    // ... and comes back, and only then is the question read.
    stage.own(0, &[0], 3, 0);
    stage.answer(0, &[]);
    assert!(
        matches!(&stage.heard(0)[..], [EdgeToOwner::Unregister { objects }] if *objects == [stage.config.key.object("a")])
    );
}

/// Else it could be asked for a third time, and be taken for live because of the second answer though its interest had
/// been erased after that.
#[test]
fn an_object_that_is_asked_for_again_is_live_and_may_be_given_up_only_after_the_second_answer() {
    let mut stage = stage(1);
    let who = stage.web_socket();
    stage.subscribe(who, &["a"], None);
    // A new epoch of the same owner overtakes the answer.
    stage.own(0, &[0], 2, 0);
    stage.answer(0, &[("a", 5_000_000)]);
    assert_eq!(stage.told(who), [""; 0], "not live yet");
    stage.lane.disconnect(stage.now, who);
    stage.wait(1);
    assert!(
        matches!(stage.to_owner[&0][..], [EdgeToOwner::Register { .. }]),
        "{:?}",
        stage.to_owner
    );
    stage.answer(0, &[("a", 5_000_000)]);
    stage.wait(1);
    assert!(matches!(stage.heard(0)[..], [EdgeToOwner::Unregister { .. }]));
    assert_eq!(stage.lane.stats().objects, 0);
}
