//! How members find one another.

use crate::world::{CLUSTER, S, World, addr, key, node};
use std::net::SocketAddr;
use tidings_membership::{ConfigError, Event, Input, KeyRing, Membership, Refusal};
use tidings_protocol::ClusterId;

fn agree(world: &mut World, within: u64) -> u64 {
    let took = world.until(within * S, World::agreed);
    took.unwrap_or_else(|| panic!("not agreed after {within} s"))
}

#[test]
fn nodes_that_start_together_all_see_one_another() {
    for (size, within) in [(2, 4), (3, 4), (5, 4), (10, 5), (30, 6), (100, 12)] {
        for seed in 0..3 {
            let mut world = World::new(seed);
            world.loss = 0.05;
            world.grow(size);
            agree(&mut world, within);
        }
    }
}

#[test]
fn any_member_is_a_door() {
    let mut world = World::cluster(1, 6);
    agree(&mut world, 10);
    for door in 0..6 {
        let i = world.slots.len();
        world.start(i);
        world.input(i, Input::Seeds(vec![addr(door)]));
        agree(&mut world, 3);
    }
}

#[test]
fn dead_seeds_and_ourselves_among_them_do_no_harm() {
    let mut world = World::cluster(2, 3);
    agree(&mut world, 10);
    world.start(3);
    // Nobody is there; a name for ourselves that we do not know as ours; nobody; ourselves; a member at last.
    let alias: SocketAddr = "192.0.2.7:7946".parse().unwrap();
    world.listen(alias, 3);
    let nobody: SocketAddr = "192.0.2.8:7946".parse().unwrap();
    let unusable: SocketAddr = "0.0.0.0:0".parse().unwrap();
    world.input(3, Input::Seeds(vec![nobody, alias, unusable, nobody, addr(3), addr(1)]));
    agree(&mut world, 8);
    assert_eq!(
        world.events(|event| matches!(event, Event::Conflict(_) | Event::Superseded { .. })),
        []
    );
}

#[test]
fn a_node_that_only_knows_itself_waits_quietly() {
    let mut world = World::new(3);
    world.start(0);
    let alias: SocketAddr = "192.0.2.7:7946".parse().unwrap();
    world.listen(alias, 0);
    world.input(0, Input::Seeds(vec![addr(0), alias]));
    world.run(60 * S);
    assert_eq!(world.log, []);
    assert!(world.sent <= 3, "{} datagrams to itself", world.sent);
}

#[test]
fn seeds_may_be_learned_later_and_change() {
    let mut world = World::new(4);
    for i in 0..3 {
        world.start(i);
    }
    world.run(5 * S);
    assert_eq!(world.sent, 0, "nobody knows anybody");
    world.input(1, Input::Seeds(vec![addr(77)]));
    world.run(5 * S);
    world.input(1, Input::Seeds(vec![addr(0)]));
    world.input(2, Input::Seeds(vec![addr(1)]));
    agree(&mut world, 5);
}

#[test]
fn two_halves_that_formed_apart_become_one_when_one_learns_of_the_other() {
    let mut world = World::new(5);
    for i in 0..8 {
        world.start(i);
        world.input(i, Input::Seeds(vec![addr(if i < 4 { 0 } else { 4 })]));
    }
    world.run(10 * S);
    assert!(world.agreed_among(&[0, 1, 2, 3]) && world.agreed_among(&[4, 5, 6, 7]));
    world.input(6, Input::Seeds(vec![addr(0)]));
    agree(&mut world, 90);
}

#[test]
fn a_node_of_another_cluster_is_not_let_in_and_the_operator_is_told() {
    let mut world = World::cluster(6, 3);
    agree(&mut world, 10);
    let mut setup = world.setup(3);
    setup.cluster = ClusterId(0xbad);
    world.start_as(3, setup);
    world.input(3, Input::Seeds(vec![addr(0)]));
    world.run(30 * S);
    assert!(world.agreed_among(&[0, 1, 2]));
    assert_eq!(world.view(3).len(), 0);
    let why = Refusal::OtherCluster(ClusterId(0xbad));
    let told = world.events(|event| matches!(event, Event::Refused { .. }));
    assert_eq!(told.len(), 1, "once a minute: {told:?}");
    assert_eq!((told[0].1, &told[0].2), (0, &Event::Refused { from: addr(3), why }));
    let refused = world.machine(0).counters().other_cluster;
    assert!(refused >= 10, "{refused}");
    world.run(60 * S);
    assert_eq!(world.events(|event| matches!(event, Event::Refused { .. })).len(), 2);
}

#[test]
fn a_wrong_key_is_told_apart_from_an_unknown_one() {
    let mut world = World::cluster(7, 3);
    agree(&mut world, 10);
    let mut wrong = world.setup(3);
    let mut secret = key(1);
    secret.secret[0] ^= 1;
    wrong.keys = KeyRing::new(secret, None).unwrap();
    world.start_as(3, wrong);
    let mut unknown = world.setup(4);
    unknown.keys = KeyRing::new(key(9), None).unwrap();
    world.start_as(4, unknown);
    for i in [3, 4] {
        world.input(i, Input::Seeds(vec![addr(1)]));
    }
    world.run(5 * S);
    let told: Vec<_> = world
        .events(|_| true)
        .into_iter()
        .filter(|(_, by, event)| *by == 1 && matches!(event, Event::Refused { .. }))
        .collect();
    let told: Vec<_> = told.into_iter().map(|(_, _, event)| event).collect();
    assert!(
        told.contains(&Event::Refused {
            from: addr(3),
            why: Refusal::Unsealed
        }),
        "{told:?}"
    );
    assert!(
        told.contains(&Event::Refused {
            from: addr(4),
            why: Refusal::UnknownKey(9)
        }),
        "{told:?}"
    );
    assert!(world.agreed_among(&[0, 1, 2]));
}

#[test]
fn keys_are_changed_under_way_without_anybody_being_missed() {
    let mut world = World::cluster(8, 6);
    agree(&mut world, 10);
    let rings = [(1, Some(2)), (2, Some(1)), (2, None)];
    for (first, second) in rings {
        for i in 0..6 {
            let keys = KeyRing::new(key(first), second.map(key)).unwrap();
            world.input(i, Input::Keys(keys));
            world.run(2 * S);
        }
    }
    world.run(20 * S);
    assert!(world.agreed());
    assert_eq!(world.downs(), []);
    assert_eq!(world.events(|event| matches!(event, Event::Refused { .. })), []);
    let mut late = world.setup(6);
    late.keys = KeyRing::new(key(1), None).unwrap();
    world.start_as(6, late);
    world.input(6, Input::Seeds(vec![addr(0)]));
    world.run(5 * S);
    assert_eq!(world.view(6).len(), 0, "the old key opens nothing any more");
    assert_eq!(CLUSTER, world.setup(0).cluster);
}

#[test]
fn an_address_that_nobody_could_send_to_is_refused_at_the_start() {
    let mut world = World::new(9);
    for bad in ["0.0.0.0:7946", "[::]:7946", "10.0.0.1:0"] {
        let mut setup = world.setup(0);
        setup.addr = bad.parse().unwrap();
        assert_eq!(Membership::new(0, setup).err(), Some(ConfigError::Address));
    }
}

#[test]
fn a_newcomer_to_a_large_cluster_sees_everybody_soon() {
    let mut world = World::cluster(10, 100);
    agree(&mut world, 20);
    world.run(10 * S);
    world.start(100);
    world.input(100, Input::Seeds(vec![addr(50)]));
    let took = world.until(5 * S, |world| world.view(100).len() == 100);
    assert!(took.is_some(), "sees {} of 100 after 5 s", world.view(100).len());
    agree(&mut world, 5);
    assert_eq!(world.slots[100].node, node(100));
}

#[test]
fn who_missed_the_news_of_newcomers_notices_within_seconds() {
    let mut took = Vec::new();
    for seed in 0..8 {
        // Rumours end after ten transmissions: with so much loss some do not reach everybody.
        let mut world = World::new(seed);
        world.loss = 0.5;
        world.grow(90);
        world.run(4 * S);
        world.loss = 0.0;
        took.push(agree(&mut world, 60));
    }
    took.sort_unstable();
    assert!(took[7] < 10 * S, "{took:?} µs");
}
