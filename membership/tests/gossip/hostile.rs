//! Whatever comes at the socket, from those without the key and from those who have it: no panic, bounded memory, and the
//! cluster goes on.

use crate::world::{Dice, S, World, addr, key, node};
use foca::{Codec as _, Header, Member, Message, PostcardCodec, State};
use std::net::SocketAddr;
use tidings_membership::{Config, Event, Identity, Incarnation, Input, KeyRing, Membership};

fn cluster(seed: u64, size: usize) -> World {
    let mut world = World::cluster(seed, size);
    world.until(20 * S, World::agreed).unwrap();
    world.run(2 * S);
    world
}

fn stranger() -> SocketAddr {
    "203.0.113.9:4242".parse().unwrap()
}

/// A cluster's traffic while nodes come, crash, leave and return: from, to, bytes.
fn taped(seed: u64) -> (World, Vec<(usize, SocketAddr, Vec<u8>)>) {
    let mut world = World::new(seed);
    world.loss = 0.05;
    world.tape = Some(Vec::new());
    world.grow(5);
    world.run(10 * S);
    world.crash(4);
    world.run(10 * S);
    world.start(4);
    world.input(4, Input::Seeds(vec![addr(0)]));
    world.run(10 * S);
    world.loss = 0.0;
    let tape = world.tape.take().unwrap();
    assert!(tape.len() > 300);
    (world, tape)
}

#[test]
fn random_truncated_flipped_and_huge_datagrams_are_dropped_and_counted() {
    let (mut world, tape) = taped(1);
    let mut dice = Dice::new(2);
    let before = world.machine(0).counters();
    let mut sent = 0;
    for round in 0..20_000_usize {
        let (_, _, bytes) = &tape[dice.below(tape.len() as u64) as usize];
        let mut bytes = bytes.clone();
        match round % 4 {
            0 => bytes = (0..dice.below(1_400)).map(|_| dice.next() as u8).collect(),
            1 => bytes.truncate(dice.below(bytes.len() as u64) as usize),
            2 => {
                let at = dice.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << dice.below(8);
            }
            _ => bytes.resize(1_351 + dice.below(64_000) as usize, 7),
        }
        sent += 1;
        world.input(
            0,
            Input::Datagram {
                from: stranger(),
                bytes: &bytes,
            },
        );
    }
    let after = world.machine(0).counters();
    let dropped =
        |c: tidings_membership::Counters| c.garbage + c.oversized + c.other_cluster + c.unknown_key + c.unsealed;
    assert_eq!(dropped(after) - dropped(before), sent);
    assert_eq!(after.sent, before.sent, "strangers get no answer");
    assert_eq!(world.machine(0).remembered(), 4);
    let told = world.events(|event| matches!(event, Event::Refused { .. }));
    assert!(told.len() <= 5, "one for each reason: {told:?}");
    world.run(20 * S);
    assert!(world.agreed());
}

#[test]
fn a_flood_from_many_addresses_is_told_of_a_bounded_number_of_times() {
    let mut world = cluster(3, 3);
    for i in 0..100_000_u32 {
        let from = SocketAddr::new(std::net::Ipv4Addr::from(0xc000_0000 + i).into(), 9);
        world.input(0, Input::Datagram { from, bytes: b"hello" });
    }
    let told = world.events(|event| matches!(event, Event::Refused { .. }));
    assert_eq!(told.len(), 64);
    assert_eq!(world.machine(0).counters().garbage, 100_000);
}

#[test]
fn replays_to_those_they_were_meant_for_change_nothing() {
    let (mut world, tape) = taped(4);
    let mine: Vec<_> = tape.iter().filter(|(_, to, _)| *to == addr(0)).collect();
    let replay = |world: &mut World| {
        for (from, _, bytes) in &mine {
            let from = addr(*from);
            world.input(0, Input::Datagram { from, bytes });
        }
    };
    // Some were lost the first time: each arrives at least once now.
    replay(&mut world);
    world.run(5 * S);
    assert!(world.agreed());
    let log = world.log.len();
    let before = world.machine(0).counters();
    for _ in 0..3 {
        replay(&mut world);
    }
    let after = world.machine(0).counters();
    let known = |c: tidings_membership::Counters| c.copies + c.outdated + c.misdirected;
    let refused = known(after) - known(before);
    assert_eq!(refused, 3 * mine.len() as u64, "each of them is known to be old");
    let answers = after.sent - before.sent;
    assert!(answers <= 5, "hardly any is answered: {answers}");
    world.run(60 * S);
    assert!(world.agreed());
    assert_eq!(world.log[log..], [], "nothing was concluded from them");
}

#[test]
fn replays_to_everybody_else_and_to_those_who_restarted_change_nothing_for_long() {
    let (mut world, tape) = taped(5);
    // Node 3 is gone for good; the attacker would like to keep it alive. Node 0 starts anew and remembers nobody.
    world.crash(3);
    world.run(10 * S);
    world.crash(0);
    world.start(0);
    world.input(0, Input::Seeds(vec![addr(1)]));
    world.run(5 * S);
    let log = world.log.len();
    for _ in 0..10 {
        for (from, _, bytes) in &tape {
            for to in [0, 1, 2, 4] {
                world.input(
                    to,
                    Input::Datagram {
                        from: addr(*from),
                        bytes,
                    },
                );
            }
        }
        world.run(S);
    }
    assert!(world.until(15 * S, World::agreed).is_some());
    for (_, by, event) in &world.log[log..] {
        let fine = match event {
            Event::Joined(peer) => peer.node != node(3),
            Event::Suspected { .. } | Event::Refuted { .. } | Event::Refused { .. } => true,
            _ => false,
        };
        assert!(fine, "told by {by}: {event:?}");
    }
    assert!(world.unseen(3), "the dead stay dead");
}

#[test]
fn what_was_recorded_of_the_dead_does_not_make_them_look_alive() {
    // The attacker answers probes of a dead node with all answers it ever gave.
    let (mut world, tape) = taped(6);
    world.crash(2);
    let answers: Vec<_> = tape.iter().filter(|(from, _, _)| *from == 2).cloned().collect();
    let mut gone = None;
    for step in 0..100 {
        for (from, to, bytes) in &answers {
            for i in [0, 1, 3, 4] {
                if *to == addr(i) {
                    world.input(
                        i,
                        Input::Datagram {
                            from: addr(*from),
                            bytes,
                        },
                    );
                }
            }
        }
        world.run(S / 10);
        if gone.is_none() && world.unseen(2) {
            gone = Some(step);
        }
    }
    assert!(
        gone.is_some_and(|step| step < 60),
        "held dead after {gone:?} tenths of a second"
    );
    assert!(world.unseen(2));
}

#[test]
fn datagrams_of_ones_own_that_come_back_are_ignored() {
    let (mut world, tape) = taped(7);
    let own: Vec<_> = tape.iter().filter(|(from, _, _)| *from == 1).collect();
    let before = world.machine(1).counters().sent;
    for (_, _, bytes) in own {
        world.input(1, Input::Datagram { from: addr(1), bytes });
    }
    assert_eq!(world.machine(1).counters().sent, before);
    world.run(10 * S);
    assert!(world.agreed());
    assert_eq!(
        world.events(|event| matches!(event, Event::Superseded { .. } | Event::Conflict(_))),
        []
    );
}

/// A member with the key that introduces itself under one invented name after the other.
fn invent(world: &mut World, victim: usize, count: u64) {
    for i in 0..count {
        let mut setup = world.setup(0);
        setup.node = tidings_protocol::NodeId(0xdead_0000_0000 + i);
        setup.addr = SocketAddr::new(std::net::Ipv4Addr::from(0x0b00_0000 + i as u32).into(), 7_946);
        setup.incarnation = Incarnation(u64::MAX - i);
        let mut machine = Membership::new(world.now, setup).unwrap();
        let mut out = Vec::new();
        // The answer to its question makes it announce itself.
        machine.handle(world.now, Input::Seeds(vec![addr(victim)]), &mut out);
        let mut answers = exchange(world, victim, &mut out);
        for bytes in answers.drain(..) {
            machine.handle(
                world.now,
                Input::Datagram {
                    from: addr(victim),
                    bytes: &bytes,
                },
                &mut out,
            );
        }
        exchange(world, victim, &mut out);
    }
}

fn exchange(world: &mut World, victim: usize, out: &mut Vec<tidings_membership::Output>) -> Vec<Vec<u8>> {
    world.tape = Some(Vec::new());
    for output in out.drain(..) {
        if let tidings_membership::Output::Send { to, datagram } = output
            && to == addr(victim)
        {
            world.input(
                victim,
                Input::Datagram {
                    from: stranger(),
                    bytes: &datagram,
                },
            );
        }
    }
    let taped = world.tape.take().unwrap();
    taped
        .into_iter()
        .filter(|(from, _, _)| *from == victim)
        .map(|(_, _, bytes)| bytes)
        .collect()
}

#[test]
fn invented_members_fill_the_list_to_its_limit_and_no_further_and_are_gone_soon() {
    let mut world = World::new(8);
    world.config = Config {
        max_members: 50,
        ..Config::default()
    };
    world.grow(4);
    world.until(10 * S, World::agreed).unwrap();
    invent(&mut world, 0, 500);
    assert_eq!(world.machine(0).remembered(), 50);
    let refused = world.machine(0).counters().refused_members;
    assert!(refused >= 400, "{refused}");
    let told = world.events(|event| matches!(event, Event::Full { .. }));
    assert_eq!(told.iter().filter(|(_, by, _)| *by == 0).count(), 1, "{told:?}");
    world.run(120 * S);
    assert!((0..4).all(|i| world.machine(i).remembered() <= 50));
    assert!(
        world.agreed(),
        "the real ones stay, the invented ones never were shown for long"
    );
    // Once they are held dead, a real newcomer takes the place of one.
    world.start(4);
    world.input(4, Input::Seeds(vec![addr(0)]));
    assert!(world.until(20 * S, World::agreed).is_some());
}

#[test]
fn a_member_with_the_key_that_sends_nonsense_in_sealed_datagrams_is_not_understood() {
    // Another release of the wire would look like this: sealed well, and meaning nothing to us.
    let (mut world, _) = taped(9);
    let mut dice = Dice::new(10);
    let before = world.machine(0).counters();
    for _ in 0..20_000 {
        let mut text: Vec<u8> = (0..dice.below(300)).map(|_| dice.next() as u8).collect();
        if let Some(first) = text.first_mut() {
            *first = dice.below(3) as u8;
        }
        let bytes = sealed(&text, dice.next());
        world.input(
            0,
            Input::Datagram {
                from: stranger(),
                bytes: &bytes,
            },
        );
    }
    let after = world.machine(0).counters();
    assert_eq!(after.unsealed, before.unsealed, "they are sealed well");
    assert!(
        after.malformed - before.malformed > 19_000,
        "{}",
        after.malformed - before.malformed
    );
    assert_eq!(world.machine(0).remembered(), 4);
    world.run(20 * S);
    assert!(world.agreed());
}

/// Seals a text as the format says, apart from the code under test.
fn sealed(text: &[u8], count: u64) -> Vec<u8> {
    use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
    let mut head = vec![1, 1];
    head.extend(crate::world::CLUSTER.0.to_be_bytes());
    let mut nonce = [0xee; 24];
    nonce[16..].copy_from_slice(&count.to_le_bytes());
    let mut text = text.to_vec();
    let cipher = chacha20poly1305::XChaCha20Poly1305::new(&key(1).secret.into());
    let tag = cipher
        .encrypt_inout_detached(&nonce.into(), &head, text.as_mut_slice().into())
        .unwrap();
    [&head[..], &nonce, &text, &tag].concat()
}

/// A packet of the library as somebody with the key could forge it: from one member to another, saying this of a third.
fn forged(world: &World, from: usize, to: usize, message: Message<Identity>, says: &[Member<Identity>]) -> Vec<u8> {
    forged_as(world, (from, to), message, says, world.now)
}

/// The same as the how-many-eth of its sender.
fn forged_as(
    world: &World,
    (from, to): (usize, usize),
    message: Message<Identity>,
    says: &[Member<Identity>],
    count: u64,
) -> Vec<u8> {
    let header = Header {
        src: world.machine(from).me(),
        src_incarnation: 0,
        dst: world.machine(to).me(),
        message,
    };
    // A packet, from one whose metadata has revision 0 and who knows nobody.
    let mut text = vec![0, 0, 0, 0];
    PostcardCodec.encode_header(&header, &mut text).unwrap();
    text.extend(u16::try_from(says.len()).unwrap().to_be_bytes());
    for member in says {
        PostcardCodec.encode_member(member, &mut text).unwrap();
    }
    sealed(&text, count)
}

#[test]
fn a_hundred_thousand_invented_members_in_forged_news_fill_the_list_to_its_limit_and_no_further() {
    const INVENTED: u64 = 100_000;
    const A_PACKET: u64 = 20;
    let mut world = cluster(14, 4);
    for packet in 0..INVENTED / A_PACKET {
        let says: Vec<_> = (0..A_PACKET)
            .map(|i| {
                let i = packet * A_PACKET + i;
                let at = SocketAddr::new(std::net::Ipv4Addr::from(0x0b00_0000 + i as u32).into(), 7_946);
                let name = tidings_protocol::NodeId(0xdead_0000_0000 + i);
                let state = [State::Alive, State::Suspect, State::Down][i as usize % 3];
                Member::new(Identity::new(name, Incarnation(u64::MAX), at), u16::MAX, state)
            })
            .collect();
        let bytes = forged_as(&world, (1, 0), Message::Gossip, &says, 1 + packet);
        assert!(bytes.len() <= 1_350, "{}", bytes.len());
        let from = stranger();
        world.input(0, Input::Datagram { from, bytes: &bytes });
    }
    let most = Config::default().max_members;
    let heard = world.machine(0).counters();
    assert_eq!((heard.malformed, heard.unsealed), (0, 0), "they were understood");
    assert!(world.machine(0).remembered() <= most);
    assert!(heard.refused_members >= INVENTED / 2, "{}", heard.refused_members);
    world.run(60 * S);
    assert!((0..4).all(|i| world.machine(i).remembered() <= most));
    assert!(
        world.until(120 * S, World::agreed).is_some(),
        "the real ones stay members"
    );
    let down =
        world.events(|event| matches!(event, Event::Down { node: gone, .. } if (0..4).any(|i| node(i) == *gone)));
    assert_eq!(down, []);
}

#[test]
fn forged_suspicions_and_deaths_cost_time_only() {
    let mut world = cluster(12, 5);
    for round in 0..120_u16 {
        let victim = world.machine(3).me();
        let state = if round % 3 == 0 { State::Down } else { State::Suspect };
        let refutation = if round % 2 == 0 { u16::MAX } else { round };
        let lie = Member::new(victim, refutation, state);
        for to in [0, 1, 2, 4] {
            let bytes = forged(&world, (to + 1) % 3, to, Message::Gossip, std::slice::from_ref(&lie));
            world.input(
                to,
                Input::Datagram {
                    from: stranger(),
                    bytes: &bytes,
                },
            );
        }
        world.run(S);
    }
    let revived = world.events(|event| matches!(event, Event::Revived { .. }));
    assert!(revived.len() >= 20, "the lies were heard: {}", revived.len());
    assert!(world.until(5 * S, World::agreed).is_some());
    let others = world.events(|event| matches!(event, Event::Down { node: gone, .. } if *gone != node(3)));
    assert_eq!(others, [], "nobody else is concerned");
}

#[test]
fn a_member_is_not_made_to_send_to_addresses_that_nobody_has() {
    let mut world = cluster(13, 4);
    let victim: SocketAddr = "198.51.100.1:53".parse().unwrap();
    world.tape = Some(Vec::new());
    for (i, node) in [(0, 4_711), (1, node(3).0)] {
        // Once under an unknown name, once under that of a member who is elsewhere.
        let target = Identity::new(tidings_protocol::NodeId(node), Incarnation(1), victim);
        for message in [
            Message::PingReq {
                target,
                probe_number: i,
            },
            Message::IndirectAck {
                target,
                probe_number: i,
            },
        ] {
            world.run(S / 10);
            let bytes = forged(&world, 1, 0, message, &[]);
            world.input(
                0,
                Input::Datagram {
                    from: stranger(),
                    bytes: &bytes,
                },
            );
        }
    }
    world.run(5 * S);
    assert_eq!(world.machine(0).counters().malformed, 4);
    let tape = world.tape.take().unwrap();
    assert!(tape.iter().all(|(_, to, _)| *to != victim));
    assert!(world.agreed());
}

#[test]
fn after_the_last_word_nothing_is_heard_or_said() {
    let (mut world, tape) = taped(11);
    world.input(2, Input::Leave);
    let sent = world.machine(2).counters().sent;
    for (from, _, bytes) in &tape {
        world.input(
            2,
            Input::Datagram {
                from: addr(*from),
                bytes,
            },
        );
    }
    world.input(2, Input::Seeds(vec![addr(0)]));
    world.input(2, Input::Keys(KeyRing::new(key(3), None).unwrap()));
    world.input(2, Input::Unreachable(node(0)));
    world.input(2, Input::Leave);
    world.run(10 * S);
    assert_eq!(world.machine(2).counters().sent, sent);
    assert_eq!(world.machine(2).next_deadline(), None);
}
