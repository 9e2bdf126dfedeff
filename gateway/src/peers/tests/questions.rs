//! Operators ask any node about any other.

use super::world::{TestNode, World, edge, owner, until};
use crate::testing::{Answer, ask};

fn get(node: &TestNode, target: &str) -> Answer {
    ask(
        node.address,
        &format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    )
}

/// Two edges that have a link to an owner each, and none to each other; somebody watches `x` at the second.
fn two_edges() -> World {
    let mut world = World::of([edge(), owner(), edge()]);
    world.give_all(1);
    world.wait_connected(0, 1);
    world.wait_connected(2, 1);
    world
}

#[test]
fn a_subscriber_is_found_from_another_node_whichever_of_them_dialled() {
    let world = two_edges();
    let [first, owner, second] = &world.nodes[..] else {
        panic!("three nodes")
    };
    let _here = first.subscriber(&["y"]);
    let _there = second.subscriber(&["x"]);
    let id = second.process.node;
    let mut found = get(owner, &format!("/v1/connections?node={id}&watching=x")).json();
    let list = found["connections"].take();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{found}");
    let name = list[0]["connection"].as_str().expect("a name").to_owned();
    let told = get(owner, &format!("/v1/explain?connection={name}&object=x&node={id}"));
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(told.json()["subscription"]["registered"], true);
    // All nodes: each knows its own.
    let all = get(owner, "/v1/connections?node=*&order=objects").json();
    assert_eq!((&all["nodes"], &all["found"]), (&3.into(), &2.into()), "{all}");
    let nodes: Vec<_> = all["connections"].as_array().expect("a list").iter().collect();
    assert_ne!(nodes[0]["node"], nodes[1]["node"], "{all}");
    // Nobody waits for an answer any more.
    assert_eq!(owner.handle().asking().open_questions(), 0);
}

#[test]
fn two_nodes_without_a_link_say_that_they_cannot_ask_each_other() {
    let world = two_edges();
    let [first, owner, second] = &world.nodes[..] else {
        panic!("three nodes")
    };
    let target = |node: &TestNode| format!("/v1/live?newest=1&node={}", node.process.node);
    let refused = get(first, &target(second));
    assert_eq!(
        (refused.status, refused.json()["code"].as_str()),
        (503, Some("node_silent"))
    );
    assert_eq!(get(first, &target(owner)).status, 200);
    assert_eq!(get(first, &target(first)).status, 200, "itself, by its id");
    let all = get(first, "/v1/connections?node=*").json();
    assert_eq!(all["silent"].as_array().map(Vec::len), Some(1), "{all}");
}

#[test]
fn what_only_operators_of_the_node_itself_may_ask_is_not_passed_on() {
    let world = two_edges();
    let [first, owner, _] = &world.nodes[..] else {
        panic!("three nodes")
    };
    // Orders and publishes are no questions: the name is for routes that know it.
    for target in ["/v1/cluster", "/metrics", "/v1/object?object=x"] {
        let sent = first.sent("ask");
        let mark = if target.contains('?') { '&' } else { '?' };
        _ = get(first, &format!("{target}{mark}node={}", owner.process.node));
        assert_eq!(first.sent("ask"), sent, "{target}");
    }
}

#[test]
fn a_connection_that_was_cut_is_asked_over_again_when_it_is_back() {
    let world = two_edges();
    let [_, owner, second] = &world.nodes[..] else {
        panic!("three nodes")
    };
    let target = format!("/v1/live?newest=1&node={}", second.process.node);
    assert_eq!(get(owner, &target).status, 200);
    owner.relay.cut();
    until("asked again", || get(owner, &target).status == 200);
    assert_eq!(owner.handle().asking().open_questions(), 0);
}
