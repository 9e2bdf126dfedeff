//! Subscribers on one node, owners on another.

use super::world::{World, edge, owner, until};
use std::time::Duration;
use tidings_router::control::map::Process;

fn edge_and_owner() -> World {
    let mut world = World::of([edge(), owner()]);
    world.give_all(1);
    world.wait_connected(0, 1);
    world
}

#[test]
fn who_subscribes_on_one_node_hears_what_the_owner_on_another_is_told() {
    let world = edge_and_owner();
    let (a, b) = (&world.nodes[0], &world.nodes[1]);
    let mut subscriber = a.subscriber(&["x", "y"]);
    for object in ["x", "y", "x"] {
        let version = b.version_of(object);
        subscriber.hear(object, version);
    }
    assert_eq!(a.metric("tidings_peer_links{way=\"out\"}"), 4);
    assert_eq!(b.metric("tidings_peer_links{way=\"in\"}"), 4);
}

#[test]
fn a_node_whose_subscribers_watch_other_objects_is_told_of_nothing() {
    let mut world = World::of([edge(), owner(), edge()]);
    world.give_all(1);
    world.wait_connected(0, 1);
    world.wait_connected(2, 1);
    let (a, b, c) = (&world.nodes[0], &world.nodes[1], &world.nodes[2]);
    let (mut here, _elsewhere) = (a.subscriber(&["x"]), c.subscriber(&["y"]));
    for _ in 0..20 {
        let version = b.version_of("x");
        here.hear("x", version);
    }
    assert_eq!(c.metric("tidings_peer_frames_total{way=\"in\",kind=\"changed\"}"), 0);
    assert!(a.metric("tidings_peer_frames_total{way=\"in\",kind=\"changed\"}") > 0);
    assert_eq!(
        b.sent("changed"),
        a.metric("tidings_peer_frames_total{way=\"in\",kind=\"changed\"}")
    );
}

#[test]
fn what_changed_while_the_connection_was_cut_is_told_when_it_is_back() {
    let world = edge_and_owner();
    let (a, b) = (&world.nodes[0], &world.nodes[1]);
    let mut subscriber = a.subscriber(&["x"]);
    let mut last = b.version_of("x");
    subscriber.hear("x", last);
    for _ in 0..3 {
        b.relay.close(true);
        b.relay.cut();
        until("cut", || !a.handle().is_connected(b.process.node));
        until("told", || b.metric("tidings_peer_links{way=\"in\"}") == 0);
        last = b.version_of("x");
        b.relay.close(false);
        subscriber.hear("x", last);
    }
    assert!(a.metric("tidings_peer_reconnects_total") >= 3);
    assert_eq!(a.metric("tidings_peer_links{way=\"out\"}"), 4);
}

#[test]
fn who_subscribes_while_the_owner_is_cut_off_hears_when_it_is_back() {
    let world = edge_and_owner();
    let (a, b) = (&world.nodes[0], &world.nodes[1]);
    b.relay.close(true);
    b.relay.cut();
    until("cut", || !a.handle().is_connected(b.process.node));
    let mut subscriber = a.subscriber(&["x"]);
    let version = b.version_of("x");
    b.relay.close(false);
    subscriber.hear("x", version);
}

#[test]
fn a_connection_that_stands_still_ends_and_its_interests_with_it() {
    let mut plans = [edge(), owner()];
    plans
        .iter_mut()
        .for_each(|plan| plan.limits.silence = Duration::from_millis(1_500));
    let mut world = World::of(plans);
    world.give_all(1);
    world.wait_connected(0, 1);
    let (a, b) = (&world.nodes[0], &world.nodes[1]);
    let mut subscriber = a.subscriber(&["x"]);
    b.relay.still(true);
    until("noticed", || !a.handle().is_connected(b.process.node));
    until("noticed there", || {
        b.metric("tidings_peer_connections{way=\"in\"}") == 0
    });
    let version = b.version_of("x");
    b.relay.still(false);
    subscriber.hear("x", version);
}

#[test]
fn a_node_that_the_map_does_not_name_is_not_served() {
    let mut world = World::of([edge(), owner()]);
    // The owners' node does not hear of the other one.
    let stranger = world.nodes[0].process;
    world.map = {
        let mut map = world.map.clone();
        map.apply(&tidings_router::control::command::Command::Forget { node: stranger.node })
            .unwrap();
        map
    };
    world.show(1);
    let (a, b) = (&world.nodes[0], &world.nodes[1]);
    until("refused", || b.metric("tidings_peer_strangers_total") > 0);
    assert!(!a.handle().is_connected(b.process.node));
    assert_eq!(b.sent("welcome"), 0);
    world.register(stranger, false);
    world.show(1);
    world.wait_connected(0, 1);
}

#[test]
fn a_node_that_started_again_is_not_served_in_its_old_life() {
    let mut world = edge_and_owner();
    let old = world.nodes[0].process;
    world.register(
        Process {
            incarnation: old.incarnation + 1,
            ..old
        },
        false,
    );
    world.show(1);
    let (a, b) = (&world.nodes[0], &world.nodes[1]);
    until("cut", || b.metric("tidings_peer_connections{way=\"in\"}") == 0);
    until("refused", || b.metric("tidings_peer_strangers_total") > 0);
    until("down", || !a.handle().is_connected(b.process.node));
}
