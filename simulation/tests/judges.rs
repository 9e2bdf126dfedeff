//! The judges are judged: a true story passes, and the same story with one thing wrong is objected to, by the invariant
//! that forbids it.

use simulation::oracle::Oracle;
use simulation::plan::{Mode, Plan};
use simulation::world::World;
use std::collections::BTreeSet;
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Cursor, Epoch, ShardCount, ShardId, Version};

const CEILING: Version = Version(1_000_000);

/// An oracle and a clock, which a test pushes.
struct Story {
    oracle: Oracle,
    now: u64,
    mode: Mode,
}

impl Story {
    fn new(mode: Mode) -> Self {
        let mut plan = Plan::draw(1, Some(mode));
        plan.shards = ShardCount::new(4).unwrap_or(ShardCount::DEFAULT);
        (plan.objects, plan.clients, plan.rogues, plan.threads) = (4, 2, 0, 1);
        plan.owner.idempotency_keys = 8;
        Self {
            oracle: Oracle::new(&plan),
            now: 1_000,
            mode,
        }
    }

    fn shard(&self, object: usize) -> ShardId {
        self.oracle.history.objects[object].shard
    }

    fn later(&mut self) -> u64 {
        self.now += 1_000;
        self.now
    }

    fn call(&mut self, object: usize) -> usize {
        let now = self.later();
        self.oracle.called(now, object, None, None)
    }

    fn apply(&mut self, publish: usize, epoch: u64, version: u64) {
        let object = self.oracle.history.publishes[publish].object;
        let (now, shard) = (self.later(), self.shard(object));
        self.oracle
            .applied(now, publish, shard, Epoch(epoch), Version(version), CEILING);
    }

    fn ack(&mut self, publish: usize, version: u64) {
        let now = self.later();
        let called = self.oracle.history.publishes[publish].called;
        self.oracle.acked(now, publish, Version(version), called, false);
    }

    fn publish(&mut self, object: usize, version: u64) -> usize {
        let publish = self.call(object);
        self.apply(publish, 1, version);
        self.ack(publish, version);
        publish
    }

    fn hold(&mut self, client: usize, object: usize) {
        let now = self.later();
        self.oracle.connected(now, client, true);
        self.oracle.holds(now, client, object, now);
    }

    fn tell(&mut self, client: usize, object: usize, version: u64) {
        let now = self.later();
        self.oracle
            .told(now, client, object, Version(version), None, true, true);
    }

    fn cursor(&mut self, client: usize, object: usize, version: u64) {
        let now = self.later();
        let cursor = Cursor::new(simulation::plan::CLUSTER, Version(version), Vec::new(), Vec::new());
        self.oracle
            .cursor(now, client, &cursor, false, &BTreeSet::from([object]));
    }

    fn objected(&self) -> Option<&'static str> {
        self.oracle.verdict().map(|violation| violation.invariant)
    }
}

/// One client hears of all there is.
fn true_story(mode: Mode) -> Story {
    let mut story = Story::new(mode);
    story.hold(0, 2);
    story.publish(2, 10);
    story.tell(0, 2, 10);
    story.cursor(0, 2, 12);
    story.publish(2, 20);
    story.tell(0, 2, 20);
    assert_eq!(story.objected(), None, "{:?}", story.oracle.verdict());
    story
}

#[test]
fn a_true_story_passes() {
    for mode in [Mode::Calm, Mode::Safety, Mode::Healing] {
        let mut story = true_story(mode);
        let now = story.later();
        story.oracle.settled(now);
        assert_eq!(story.objected(), None);
        assert_eq!(story.mode, mode);
    }
}

#[test]
fn i1_a_change_that_nobody_told_is_missed() {
    let mut story = true_story(Mode::Healing);
    story.publish(2, 30);
    let now = story.later();
    story.oracle.settled(now);
    assert_eq!(story.objected(), Some("I1"));
}

#[test]
fn i1_a_resync_before_the_call_excuses_nothing() {
    let mut story = true_story(Mode::Healing);
    let now = story.later();
    story
        .oracle
        .floor(now, story.shard(2), Epoch(2), Version(25), FloorCause::Lost);
    story.oracle.resynced(now, 0, 2, "versions_lost", true);
    let publish = story.call(2);
    story.apply(publish, 2, 30);
    story.ack(publish, 30);
    let now = story.later();
    story.oracle.settled(now);
    assert_eq!(story.objected(), Some("I1"));
}

#[test]
fn i2_a_cursor_that_overtakes_a_change_is_objected_to() {
    let mut story = true_story(Mode::Healing);
    story.publish(2, 30);
    story.cursor(0, 2, 31);
    assert_eq!(story.objected(), Some("I2"));
}

#[test]
fn i2_a_cursor_that_overtakes_a_change_not_yet_acknowledged_is_objected_to_then() {
    let mut story = true_story(Mode::Healing);
    let publish = story.call(2);
    story.apply(publish, 1, 30);
    story.cursor(0, 2, 31);
    assert_eq!(story.objected(), None);
    story.ack(publish, 30);
    assert_eq!(story.objected(), Some("I2"));
}

#[test]
fn i2_no_version_comes_to_lie_below_a_cursor() {
    let mut story = true_story(Mode::Healing);
    story.cursor(0, 2, 50);
    let publish = story.call(2);
    story.apply(publish, 1, 40);
    story.ack(publish, 40);
    assert_eq!(story.objected(), Some("I2"));
}

#[test]
fn i3_and_i8_versions_follow_calls() {
    let mut story = true_story(Mode::Healing);
    let publish = story.call(2);
    let now = story.later();
    // Reported for another shard, so that only the order of calls is wrong.
    let other = ShardId((story.shard(2).0 + 1) % 4);
    story
        .oracle
        .applied(now, publish, other, Epoch(1), Version(15), CEILING);
    assert_eq!(story.objected(), None);
    story.tell(1, 2, 15);
    story.oracle.history.clients[0].cursor = None;
    story.ack(publish, 15);
    assert_eq!(story.objected(), Some("I3"));
    let mut story = true_story(Mode::Healing);
    let publish = story.call(2);
    story.apply(publish, 1, 15);
    assert_eq!(story.objected(), Some("I8"));
}

#[test]
fn i4_one_version_is_one_change() {
    let mut story = true_story(Mode::Healing);
    let publish = story.call(2);
    let now = story.later();
    let other = ShardId((story.shard(2).0 + 1) % 4);
    story
        .oracle
        .applied(now, publish, other, Epoch(1), Version(20), CEILING);
    assert_eq!(story.objected(), Some("I4"));
}

#[test]
fn i4_a_key_is_answered_with_one_version() {
    let mut story = true_story(Mode::Healing);
    let now = story.later();
    let publish = story.oracle.called(now, 2, Some(7), None);
    for version in [30, 31] {
        story.apply(publish, 1, version);
        story.ack(publish, version);
    }
    assert_eq!(story.objected(), Some("I4"));
}

#[test]
fn i4_a_key_may_be_forgotten_only_when_more_were_used_since_than_are_remembered() {
    for others in 0..8 {
        let mut story = true_story(Mode::Healing);
        let keyed = |story: &mut Story, key, version| {
            let now = story.later();
            let publish = story.oracle.called(now, 2, Some(key), None);
            story.apply(publish, 1, version);
            story.ack(publish, version);
            publish
        };
        let first = keyed(&mut story, 7, 30);
        for other in 0..others {
            keyed(&mut story, 100 + u128::from(other), 31 + other);
        }
        story.apply(first, 1, 50);
        story.ack(first, 50);
        assert_eq!(story.objected(), (others < 4).then_some("I4"), "{others} others");
    }
}

#[test]
fn i5_what_never_happened_is_not_told_and_no_data_of_another_change() {
    let mut story = true_story(Mode::Healing);
    story.tell(0, 2, 21);
    assert_eq!(story.objected(), Some("I5"));
    let mut story = true_story(Mode::Healing);
    let publish = story.publish(2, 30);
    let now = story.later();
    story
        .oracle
        .told(now, 0, 2, Version(30), Some(publish as u64 + 1), true, true);
    assert_eq!(story.objected(), Some("I5"));
}

#[test]
fn i6_versions_do_not_fall_on_a_connection() {
    let mut story = true_story(Mode::Healing);
    story.tell(0, 2, 10);
    assert_eq!(story.objected(), Some("I6"));
}

#[test]
fn i7_an_old_owner_acknowledges_nothing_new() {
    let mut story = Story::new(Mode::Healing);
    let first = story.call(2);
    story.apply(first, 1, 10);
    let second = story.call(2);
    story.apply(second, 2, 30);
    story.ack(second, 30);
    // Called before the other was acknowledged: that is only late.
    story.ack(first, 10);
    assert_eq!(story.objected(), None);
    let third = story.call(2);
    let now = story.later();
    let other = ShardId((story.shard(2).0 + 1) % 4);
    story.oracle.applied(now, third, other, Epoch(1), Version(40), CEILING);
    story.ack(third, 40);
    assert_eq!(story.objected(), Some("I7"));
}

#[test]
fn i8_an_epoch_begins_above_what_was_closed_before() {
    let mut story = true_story(Mode::Healing);
    let now = story.later();
    let shard = story.shard(2);
    story.oracle.closed(now, 0, &[(shard, Epoch(1))], Version(100), CEILING);
    let publish = story.call(2);
    story.apply(publish, 2, 90);
    assert_eq!(story.objected(), Some("I8"));
}

#[test]
fn i11_a_poll_is_not_told_what_its_cursor_claims() {
    let mut story = true_story(Mode::Calm);
    story.cursor(0, 2, 25);
    story.tell(0, 2, 20);
    assert_eq!(story.objected(), Some("I11"));
}

#[test]
fn i13_subscribed_is_not_older_than_what_was_asked_for() {
    let mut story = true_story(Mode::Healing);
    let now = story.later();
    story.oracle.subscribed(now, 1, 2, Version(10), now, Some(20), false);
    assert_eq!(story.objected(), Some("I13"));
}

#[test]
fn i14_a_resync_without_a_loss_is_objected_to() {
    let mut story = true_story(Mode::Healing);
    let now = story.later();
    story.oracle.resynced(now, 0, 2, "versions_lost", true);
    assert_eq!(story.objected(), Some("I14"));
}

#[test]
fn i15_nothing_is_told_unasked() {
    let mut story = true_story(Mode::Healing);
    let now = story.later();
    story.oracle.told(now, 1, 2, Version(20), None, false, false);
    assert_eq!(story.objected(), Some("I15"));
}

#[test]
fn i18_no_version_is_above_the_ceiling() {
    let mut story = true_story(Mode::Healing);
    let publish = story.call(2);
    story.apply(publish, 1, CEILING.0 + 1);
    assert_eq!(story.objected(), Some("I18"));
}

#[test]
fn i23_no_call_hangs() {
    let mut story = true_story(Mode::Healing);
    story.oracle.call_ended(6_000_001, 1_000_000);
    assert_eq!(story.objected(), Some("I23"));
}

#[test]
fn i26_a_world_that_has_only_begun_is_not_whole() {
    let mut world = World::new(Plan::draw(3, Some(Mode::Healing)), false);
    world.run_until(10_000);
    world.settled = true;
    world.look();
    assert_eq!(world.oracle.verdict().map(|violation| violation.invariant), Some("I26"));
}
