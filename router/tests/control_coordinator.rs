//! The coordinator's rules one by one, each as a short story on a clock that is pushed by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use tidings_protocol::peer::FloorCause;
use tidings_protocol::{ClusterId, Epoch, NodeId, ShardCount, ShardId, Version};
use tidings_router::Now;
use tidings_router::control::command::{Command, Seen, With};
use tidings_router::control::coordinator::{Config, Coordinator, Input, Output, Verdict};
use tidings_router::control::lease::{Grant, Renewal};
use tidings_router::control::map::{Map, NodeInfo, Process, Roles};

const S: ShardId = ShardId(0);
const LEASE: u64 = 2_000_000;

fn process(node: u64, incarnation: u64) -> Process {
    Process {
        node: NodeId(node),
        incarnation,
    }
}

/// A coordinator in office over one shard, and its map.
struct Stage {
    us: u64,
    map: Map,
    coordinator: Coordinator,
    number: u64,
    /// Whether a quorum hears the leader.
    quorum: bool,
}

impl Stage {
    /// Node 1 owns the shard in epoch 1; `copies` are in sync; all three nodes are registered.
    fn new(copies: &[u64]) -> Self {
        let mut map = Map::new(ClusterId(1), ShardCount::new(1).unwrap(), 1 + copies.len() as u8);
        for node in 1..=3 {
            map.apply(&register(process(node, 1))).unwrap();
        }
        let raise = |map: &mut Map, to| map.apply(&Command::RaiseCeiling { to: Version(to) }).unwrap();
        raise(&mut map, u64::MAX >> 12);
        let assign = Command::Assign {
            seen: Seen::of(&map, S).unwrap(),
            to: process(1, 1),
            with: With::Fresh,
        };
        map.apply(&assign).unwrap();
        raise(&mut map, (u64::MAX >> 12) + (1 << 40));
        for copy in copies {
            let (seen, member) = (Seen::of(&map, S).unwrap(), process(*copy, 1));
            map.apply(&Command::Fill {
                seen: seen.clone(),
                member,
            })
            .unwrap();
            let seen = Seen::of(&map, S).unwrap();
            map.apply(&Command::Join { seen, member }).unwrap();
        }
        let mut stage = Self {
            us: 1_000_000,
            map,
            coordinator: Coordinator::new(Config::default()),
            number: 0,
            quorum: true,
        };
        assert_eq!(stage.tell(Input::Elected { term: 1 }), []);
        stage
    }

    fn now(&self) -> Now {
        Now {
            mono_us: self.us,
            wall_us: self.us,
        }
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.coordinator.handle(self.now(), &self.map, input, &mut out);
        out
    }

    fn renewal(&mut self, from: Process) -> Renewal {
        self.number += 1;
        Renewal {
            from,
            number: self.number,
            highest: Version::ZERO,
            on_disk: Vec::new(),
        }
    }

    /// A renewal and its confirmation.
    fn renew(&mut self, from: Process) -> Vec<Output> {
        let renewal = self.renewal(from);
        self.renew_with(renewal)
    }

    fn renew_with(&mut self, renewal: Renewal) -> Vec<Output> {
        let out = self.tell(Input::Renew(renewal));
        let [Output::Confirm { token, .. }] = out[..] else {
            panic!("{out:?}")
        };
        self.tell(Input::Confirmed { token })
    }

    /// What is due; a quorum confirms at once where it is there. The proposals.
    fn deadline(&mut self) -> Vec<(u64, u64, Vec<Command>)> {
        let mut out = Vec::new();
        self.coordinator.handle_deadline(self.now(), &self.map, &mut out);
        let mut proposals = Vec::new();
        for output in out {
            match output {
                Output::Confirm { token, .. } if self.quorum => _ = self.tell(Input::Confirmed { token }),
                Output::Confirm { token, .. } => _ = self.tell(Input::Unconfirmed { token }),
                Output::Propose {
                    term,
                    proposal,
                    commands,
                } => proposals.push((term, proposal, commands)),
                Output::Grant { .. } => panic!("{output:?}"),
            }
        }
        proposals
    }

    /// Lets time pass; what is proposed on the way is returned and, if it is about the shard, ends the passing.
    fn pass(&mut self, us: u64) -> Option<(u64, Command)> {
        let until = self.us + us;
        loop {
            let due = self.coordinator.next_deadline().unwrap();
            if due > until {
                self.us = until;
                return None;
            }
            self.us = self.us.max(due);
            for (term, proposal, commands) in self.deadline() {
                assert_eq!(term, 1);
                if let Some(command) = commands
                    .into_iter()
                    .find(|c| !matches!(c, Command::RaiseCeiling { .. }))
                {
                    return Some((proposal, command));
                }
                self.tell(Input::Settled { proposal });
            }
        }
    }

    /// The same with nodes that renew all the while.
    fn pass_renewing(&mut self, us: u64, nodes: &[Process]) -> Option<(u64, Command)> {
        let until = self.us + us;
        while self.us < until {
            for node in nodes {
                self.renew(*node);
            }
            let proposed = self.pass(250_000.min(until - self.us));
            if proposed.is_some() {
                return proposed;
            }
        }
        None
    }
}

fn register(process: Process) -> Command {
    let info = NodeInfo {
        roles: Roles {
            owner: true,
            edge: true,
        },
        zone: String::new(),
        peer_address: format!("n{}:7401", process.node.0),
        client_address: String::new(),
    };
    Command::Register { process, info }
}

fn grants(out: &[Output]) -> Vec<(Process, Grant)> {
    let grant = |output: &Output| match output {
        Output::Grant { to, grant } => Some((*to, *grant)),
        Output::Confirm { .. } | Output::Propose { .. } => None,
    };
    out.iter().filter_map(grant).collect()
}

fn assigned(command: &Command) -> (Process, With) {
    match command {
        Command::Assign { to, with, .. } => (*to, *with),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_renewal_is_answered_only_after_a_quorum_confirmed_the_leadership() {
    let mut stage = Stage::new(&[]);
    let first = stage.renewal(process(1, 1));
    let out = stage.tell(Input::Renew(first.clone()));
    let [Output::Confirm { token, term: 1 }] = out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(stage.tell(Input::Confirmed { token: token + 1 }), []);
    let out = grants(&stage.tell(Input::Confirmed { token }));
    let grant = Grant {
        number: first.number,
        revision: stage.map.revision(),
        ceiling: stage.map.ceiling(),
        valid_us: LEASE,
    };
    assert_eq!(out, [(process(1, 1), grant)]);
    assert_eq!(stage.tell(Input::Confirmed { token }), [], "a confirmation counts once");
}

#[test]
fn a_renewal_that_comes_while_a_confirmation_is_under_way_waits_for_the_next() {
    let mut stage = Stage::new(&[]);
    let (first, second) = (stage.renewal(process(1, 1)), stage.renewal(process(2, 1)));
    let out = stage.tell(Input::Renew(first));
    let [Output::Confirm { token, .. }] = out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(stage.tell(Input::Renew(second)), []);
    let out = stage.tell(Input::Confirmed { token });
    assert_eq!(grants(&out).len(), 1);
    let [_, Output::Confirm { token, .. }] = out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(grants(&stage.tell(Input::Confirmed { token }))[0].0, process(2, 1));
}

#[test]
fn who_does_not_lead_and_whose_leadership_is_not_confirmed_answers_nothing() {
    let mut stage = Stage::new(&[]);
    let renewal = stage.renewal(process(1, 1));
    let out = stage.tell(Input::Renew(renewal.clone()));
    let [Output::Confirm { token, .. }] = out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(stage.tell(Input::Unconfirmed { token }), []);
    assert_eq!(stage.tell(Input::Confirmed { token }), []);
    stage.tell(Input::Deposed);
    assert_eq!(stage.tell(Input::Renew(renewal)), []);
}

#[test]
fn an_earlier_process_of_a_node_is_not_renewed() {
    let mut stage = Stage::new(&[]);
    stage.map.apply(&register(process(1, 2))).unwrap();
    assert_eq!(grants(&stage.renew(process(1, 1))), []);
    assert_eq!(grants(&stage.renew(process(1, 2))).len(), 1);
}

#[test]
fn without_a_copy_nobody_takes_over_before_the_lease_is_surely_over() {
    let mut stage = Stage::new(&[]);
    let others = [process(2, 1), process(3, 1)];
    stage.pass_renewing(1_500_000, &[process(1, 1), others[0], others[1]]);
    stage.renew(process(1, 1));
    let dead = Input::Heard {
        process: process(1, 1),
        verdict: Verdict::Dead,
    };
    stage.tell(dead);
    let last = stage.us;
    let (_, command) = stage.pass_renewing(3 * LEASE, &others).expect("somebody takes over");
    assert!(stage.us >= last + LEASE + LEASE / 10, "{} µs later", stage.us - last);
    assert!(stage.us < last + 3 * LEASE / 2);
    assert_eq!(assigned(&command), (process(2, 1), With::Nothing(FloorCause::Lost)));
}

#[test]
fn an_owner_that_renews_is_not_replaced_whatever_gossip_says() {
    for copies in [&[][..], &[2]] {
        let mut stage = Stage::new(copies);
        let all = [process(1, 1), process(2, 1), process(3, 1)];
        let dead = Input::Heard {
            process: process(1, 1),
            verdict: Verdict::Dead,
        };
        stage.tell(dead);
        assert_eq!(stage.pass_renewing(10 * LEASE, &all), None);
    }
}

#[test]
fn a_copy_takes_over_when_the_owner_is_silent_for_a_lease_and_sooner_if_gossip_holds_it_dead() {
    for (verdict, within) in [(Verdict::Alive, LEASE), (Verdict::Dead, LEASE / 2)] {
        let mut stage = Stage::new(&[2]);
        let all = [process(1, 1), process(2, 1), process(3, 1)];
        stage.pass_renewing(1_500_000, &all);
        stage.renew(all[0]);
        stage.tell(Input::Heard {
            process: all[0],
            verdict,
        });
        let last = stage.us;
        let (_, command) = stage.pass_renewing(2 * LEASE, &all[1..]).unwrap();
        let after = stage.us - last;
        assert!((within..within + 200_000).contains(&after), "{after} µs");
        assert_eq!(assigned(&command), (process(2, 1), With::Copy));
    }
}

#[test]
fn an_owner_is_not_renewed_while_its_replacement_is_under_way() {
    let mut stage = Stage::new(&[]);
    let others = [process(2, 1), process(3, 1)];
    stage.pass_renewing(1_500_000, &[process(1, 1), others[0], others[1]]);
    let (proposal, command) = stage.pass_renewing(3 * LEASE, &others).unwrap();
    assert_eq!(
        grants(&stage.renew(process(1, 1))),
        [],
        "it would have a lease beside the next owner"
    );
    stage.map.apply(&command).unwrap();
    stage.tell(Input::Settled { proposal });
    assert_eq!(grants(&stage.renew(process(1, 1)))[0].1.revision, stage.map.revision());
}

#[test]
fn a_new_leader_counts_from_its_election() {
    let mut stage = Stage::new(&[]);
    stage.pass_renewing(1_500_000, &[process(1, 1), process(2, 1)]);
    stage.us += 10 * LEASE;
    stage.tell(Input::Deposed);
    stage.tell(Input::Elected { term: 1 });
    let elected = stage.us;
    stage
        .pass_renewing(3 * LEASE, &[process(2, 1)])
        .expect("the silent owner is replaced");
    assert!(stage.us >= elected + LEASE + LEASE / 10);
}

#[test]
fn a_new_leader_that_few_have_asked_yet_gives_up_no_copy_for_that() {
    let mut stage = Stage::new(&[2]);
    let own = process(1, 1);
    assert_eq!(stage.pass_renewing(LEASE - 100_000, &[own]), None, "nobody is gone");
}

#[test]
fn a_process_that_restarted_is_replaced_at_once_by_a_copy() {
    let mut stage = Stage::new(&[2]);
    let all = [process(1, 1), process(2, 1), process(3, 1)];
    stage.pass_renewing(1_500_000, &all);
    stage.renew(all[0]);
    stage.map.apply(&register(process(1, 2))).unwrap();
    let (_, command) = stage.pass_renewing(300_000, &all[1..]).unwrap();
    assert_eq!(assigned(&command), (process(2, 1), With::Copy));
}

#[test]
fn a_disk_that_is_complete_is_waited_for_and_used() {
    let mut stage = Stage::new(&[]);
    let others = [process(2, 1), process(3, 1)];
    stage.pass_renewing(1_500_000, &[process(1, 1), others[0], others[1]]);
    stage.map.apply(&register(process(1, 2))).unwrap();
    assert_eq!(stage.pass_renewing(1_500_000, &others), None, "patience");
    let renewal = Renewal {
        on_disk: vec![(S, Epoch(1))],
        ..stage.renewal(process(1, 2))
    };
    assert_eq!(grants(&stage.renew_with(renewal)).len(), 1);
    let (_, command) = stage.pass(200_000).unwrap();
    assert_eq!(assigned(&command), (process(1, 2), With::Disk));
}

#[test]
fn a_disk_of_another_epoch_is_not_used() {
    let mut stage = Stage::new(&[]);
    let others = [process(2, 1), process(3, 1)];
    stage.pass_renewing(1_500_000, &[process(1, 1), others[0], others[1]]);
    stage.map.apply(&register(process(1, 2))).unwrap();
    let renewal = Renewal {
        on_disk: vec![(S, Epoch(0))],
        ..stage.renewal(process(1, 2))
    };
    stage.renew_with(renewal);
    let (_, command) = stage.pass_renewing(3 * LEASE, &others).unwrap();
    assert_eq!(assigned(&command).1, With::Nothing(FloorCause::Lost));
}

#[test]
fn a_proposal_whose_fate_is_unknown_is_not_made_again() {
    let mut stage = Stage::new(&[]);
    let others = [process(2, 1), process(3, 1)];
    stage.pass_renewing(1_500_000, &[process(1, 1), others[0], others[1]]);
    let (proposal, _) = stage.pass_renewing(3 * LEASE, &others).unwrap();
    assert_eq!(stage.pass_renewing(3 * LEASE, &others), None);
    stage.tell(Input::Settled { proposal });
    assert!(stage.pass_renewing(300_000, &others).is_some());
}

#[test]
fn the_ceiling_is_kept_ahead_of_the_clock_and_of_versions_in_use() {
    let mut map = Map::new(ClusterId(1), ShardCount::new(1).unwrap(), 1);
    map.apply(&register(process(1, 1))).unwrap();
    let mut coordinator = Coordinator::new(Config::default());
    let mut out = Vec::new();
    let mut now = Now {
        mono_us: 5,
        wall_us: 1_000_000_000,
    };
    coordinator.handle(now, &map, Input::Elected { term: 1 }, &mut out);
    let mut raised = Vec::new();
    for _ in 0..100 {
        now.mono_us += 100_000;
        now.wall_us += 100_000;
        coordinator.handle_deadline(now, &map, &mut out);
        for output in out.split_off(0) {
            let (proposal, commands) = match output {
                Output::Propose { proposal, commands, .. } => (proposal, commands),
                Output::Confirm { token, .. } => {
                    coordinator.handle(now, &map, Input::Confirmed { token }, &mut out);
                    continue;
                }
                Output::Grant { .. } => panic!("{output:?}"),
            };
            for command in &commands {
                map.apply(command).unwrap();
            }
            raised.push(map.ceiling());
            coordinator.handle(now, &map, Input::Settled { proposal }, &mut Vec::new());
        }
        assert!(map.ceiling().0 >= now.wall_us + 3_900_000, "ahead of the clock");
    }
    assert!((8..=12).contains(&raised.len()), "about once a second: {raised:?}");
}

#[test]
fn a_hand_over_leaves_little_room_below_the_ceiling_and_the_next_look_raises_it() {
    let mut stage = Stage::new(&[2]);
    stage.map = {
        let mut map = Map::new(ClusterId(1), ShardCount::new(1).unwrap(), 1);
        for node in 1..=2 {
            map.apply(&register(process(node, 1))).unwrap();
        }
        map
    };
    let apply = |map: &mut Map, command: Command| map.apply(&command).unwrap();
    // A clock was an hour ahead once.
    apply(
        &mut stage.map,
        Command::RaiseCeiling {
            to: Version(3_600_000_000),
        },
    );
    let seen = Seen::of(&stage.map, S).unwrap();
    let from = process(1, 1);
    apply(
        &mut stage.map,
        Command::Assign {
            seen,
            to: from,
            with: With::Fresh,
        },
    );
    let seen = Seen::of(&stage.map, S).unwrap();
    apply(&mut stage.map, Command::Release { seen, from, to: from });
    let begins = stage.map.shard(S).unwrap().begins;
    let room = stage.map.ceiling().0 - begins.0;
    assert!((1_000..100_000).contains(&room), "{room} versions may be given at once");
    let mut raised = Vec::new();
    for _ in 0..30 {
        stage.us += 100_000;
        for (_, proposal, commands) in stage.deadline() {
            for command in commands
                .into_iter()
                .filter(|c| matches!(c, Command::RaiseCeiling { .. }))
            {
                apply(&mut stage.map, command);
                raised.push(stage.map.ceiling());
            }
            stage.tell(Input::Settled { proposal });
        }
    }
    // A twentieth of what the ceiling is kept ahead of clocks.
    assert!(stage.map.ceiling().0 >= begins.0 + 250_000, "{raised:?} for {begins}");
    assert_eq!(raised.len(), 1, "once is enough");
}

#[test]
fn what_is_planned_to_even_out_shares_is_not_planned_again_while_its_fate_is_unknown() {
    let mut stage = Stage::new(&[]);
    let mut map = Map::new(ClusterId(1), ShardCount::new(4).unwrap(), 1);
    for node in 1..=2 {
        map.apply(&register(process(node, 1))).unwrap();
    }
    for shard in (0..4).map(ShardId) {
        let (seen, to) = (Seen::of(&map, shard).unwrap(), process(1, 1));
        map.apply(&Command::Assign {
            seen,
            to,
            with: With::Fresh,
        })
        .unwrap();
    }
    stage.map = map;
    let (mut moves, mut first) = (Vec::new(), None);
    for _ in 0..30 {
        stage.us += 100_000;
        for node in 1..=2 {
            stage.renew(process(node, 1));
        }
        let mut out = Vec::new();
        stage.coordinator.handle_deadline(stage.now(), &stage.map, &mut out);
        for output in out {
            let Output::Propose { proposal, commands, .. } = output else {
                panic!("{output:?}")
            };
            let about_moves = commands.iter().filter(|c| matches!(c, Command::Move { .. })).count();
            if about_moves > 0 {
                moves.push(about_moves);
                first.get_or_insert(proposal);
            }
        }
    }
    assert_eq!(moves, [2], "two of four shards, once");
    // It was lost.
    stage.tell(Input::Settled {
        proposal: first.unwrap(),
    });
    let mut out = Vec::new();
    stage.coordinator.handle_deadline(stage.now(), &stage.map, &mut out);
    assert!(matches!(out[..], [Output::Propose { .. }]), "{out:?}");
}

#[test]
fn a_node_is_heard_from_its_first_grant_until_its_lease_is_over_and_only_in_its_present_life() {
    let mut stage = Stage::new(&[]);
    let hears = |stage: &Stage, node| stage.coordinator.hears(stage.now().mono_us, &stage.map, NodeId(node));
    assert!(!hears(&stage, 1), "it is in the map, which is not enough");
    stage.renew(process(1, 1));
    assert!(hears(&stage, 1) && !hears(&stage, 2));
    stage.us += LEASE - 1;
    assert!(hears(&stage, 1));
    stage.us += 1;
    assert!(!hears(&stage, 1), "silent for a lease");
    stage.renew(process(1, 1));
    stage.map.apply(&register(process(1, 2))).unwrap();
    assert!(!hears(&stage, 1), "another process of it");
    stage.renew(process(1, 2));
    assert!(hears(&stage, 1));
    stage.tell(Input::Deposed);
    assert!(!hears(&stage, 1), "who does not lead hears nobody");
}

#[test]
fn a_coordinator_that_may_fill_nothing_fills_nothing() {
    let mut stage = Stage::new(&[]);
    stage.map.apply(&Command::SetCopies { copies: 2 }).unwrap();
    let config = Config {
        fills: 0,
        moves: 0,
        ..Config::default()
    };
    stage.coordinator = Coordinator::new(config);
    stage.tell(Input::Elected { term: 1 });
    let all = [process(1, 1), process(2, 1), process(3, 1)];
    assert_eq!(stage.pass_renewing(3_000_000, &all), None);
    stage.coordinator = Coordinator::new(Config { fills: 1, ..config });
    stage.tell(Input::Elected { term: 1 });
    let (_, command) = stage.pass_renewing(3_000_000, &all).expect("a copy is wanted");
    assert!(matches!(command, Command::Fill { .. }), "{command:?}");
}

#[test]
fn a_leader_that_no_quorum_hears_takes_nobody_for_gone_and_counts_anew_when_it_is_heard() {
    let mut stage = Stage::new(&[2]);
    assert_eq!(
        stage.pass_renewing(3_000_000, &[process(1, 1), process(2, 1), process(3, 1)]),
        None
    );
    // Nothing can be granted any more, to the leader's own node neither; that says nothing about who is there.
    stage.quorum = false;
    assert_eq!(
        stage.pass(20_000_000),
        None,
        "what is proposed now would be applied when a quorum is there again"
    );
    // They are back, and the copy with them: all have their time anew.
    stage.quorum = true;
    assert_eq!(stage.pass(600_000), None);
    assert_eq!(
        stage.pass_renewing(5_000_000, &[process(1, 1), process(2, 1), process(3, 1)]),
        None
    );
    // Who stays silent from here on is gone.
    let proposed = stage.pass_renewing(6_000_000, &[process(1, 1), process(3, 1)]);
    assert!(
        matches!(&proposed, Some((_, Command::Remove { member, .. })) if *member == process(2, 1)),
        "{proposed:?}"
    );
}
