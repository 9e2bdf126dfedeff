//! Forming by itself, and in random lives: messages that are lost and late, nodes that pause, crash and start again, networks
//! that fall apart. No node is ever part of two clusters that both go on.

use super::*;
use proptest::prelude::*;

const SECOND: MonoUs = 1_000_000;

fn node(number: u64) -> NodeId {
    NodeId(number)
}

fn wish(me: u64, expect: usize) -> Wish {
    Wish {
        me: node(me),
        address: format!("n{me}:1"),
        expect,
        voter: true,
        belongs: None,
    }
}

fn forming(me: u64) -> Forming {
    Forming::new(0, wish(me, 3), Kept::default())
}

fn sighting(number: u64, formed: Option<u64>) -> (NodeId, Sighting) {
    let sighting = Sighting {
        address: format!("n{number}:1"),
        willing: formed.is_none(),
        formed,
    };
    (node(number), sighting)
}

fn see<const N: usize>(forming: &mut Forming, others: [(u64, Option<u64>); N]) {
    let seen = others
        .into_iter()
        .map(|(number, formed)| sighting(number, formed))
        .collect();
    forming.handle(0, Input::Seen(seen), &mut Vec::new());
}

fn tick(forming: &mut Forming, at: MonoUs) -> Vec<Output> {
    let mut out = Vec::new();
    let fresh = Founding::named(at + 1);
    forming.handle(at, Input::Tick { fresh, chance: 0 }, &mut out);
    out
}

fn answered(forming: &mut Forming, at: MonoUs, from: u64, cluster: u64, answer: Option<Answer>) {
    let from = node(from);
    forming.handle(at, Input::Answered { from, cluster, answer }, &mut Vec::new());
}

fn proposal(proposer: u64, cluster: u64) -> Proposal {
    Proposal {
        founding: Founding::named(cluster),
        proposer: node(proposer),
        voters: (1..=3).map(|number| (node(number), format!("n{number}:1"))).collect(),
    }
}

#[test]
fn only_the_lowest_of_enough_proposes_to_the_lowest() {
    let mut lowest = forming(1);
    see(&mut lowest, [(2, None)]);
    assert_eq!(tick(&mut lowest, 0), [], "two are too few");
    see(&mut lowest, [(4, None), (3, None), (2, None)]);
    let asked: Vec<_> = tick(&mut lowest, 0)
        .into_iter()
        .map(|output| match output {
            Output::Ask {
                to,
                request: Request::Promise(_),
                ..
            } => to,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(asked, [node(2), node(3)]);
    let mut other = forming(2);
    see(&mut other, [(1, None), (3, None), (4, None)]);
    assert_eq!(tick(&mut other, 0), []);
    assert!(
        other
            .waits_for()
            .starts_with("waits for node 0000000000000001 to propose")
    );
}

#[test]
fn whoever_sees_a_cluster_joins_it_and_proposes_nothing() {
    let mut newcomer = forming(1);
    see(&mut newcomer, [(2, None), (3, None), (9, Some(77))]);
    let address = "n9:1".to_owned();
    assert_eq!(tick(&mut newcomer, 0), [Output::Join { to: node(9), address }]);
    assert_eq!(tick(&mut newcomer, SECOND / 2), [], "not at every step");
    assert!(newcomer.joined(Founding::named(77)));
    assert_eq!(newcomer.kept().bound(), Some(77));
    assert!(!newcomer.joined(Founding::named(78)), "and no other, ever");
    assert_eq!((newcomer.heed(77), newcomer.heed(78)), (Heed::Ours, Heed::Foreign));
}

#[test]
fn a_cluster_is_there_when_all_have_promised() {
    let mut lowest = forming(1);
    see(&mut lowest, [(2, None), (3, None)]);
    tick(&mut lowest, 0);
    answered(&mut lowest, 1, 2, 1, Some(Answer::Promised));
    answered(&mut lowest, 1, 2, 1, Some(Answer::Promised));
    assert_eq!(lowest.kept().bound(), None, "one of them twice is not both");
    answered(&mut lowest, 1, 3, 99, Some(Answer::Promised));
    assert_eq!(lowest.kept().bound(), None, "a promise for something else");
    answered(&mut lowest, 1, 3, 1, Some(Answer::Promised));
    assert_eq!(lowest.kept().bound(), Some(1));
    assert_eq!(lowest.kept().begins().map(|own| own.voters.len()), Some(3));
}

#[test]
fn a_promise_is_for_one_proposal_and_its_log() {
    let mut held = forming(2);
    assert_eq!(held.promise(0, &proposal(1, 7)), Answer::Promised);
    assert_eq!(held.promise(0, &proposal(1, 7)), Answer::Promised, "asked again");
    assert!(matches!(held.promise(0, &proposal(1, 8)), Answer::Refused(_)));
    assert!(!held.joined(Founding::named(9)), "nor does it join another");
    assert_eq!(held.heed(8), Heed::Foreign);
    assert_eq!(held.kept().bound(), None);
    assert_eq!(held.heed(7), Heed::Ours);
    assert_eq!(held.kept().bound(), Some(7));
    assert!(matches!(held.promise(0, &proposal(1, 8)), Answer::Refused(_)));
}

#[test]
fn a_proposal_with_another_number_of_nodes_or_from_nobody_is_refused() {
    let mut five = Forming::new(0, wish(2, 5), Kept::default());
    assert!(matches!(five.promise(0, &proposal(1, 7)), Answer::Refused(why) if why.contains("cluster.expect is 5")));
    let mut stranger = forming(8);
    assert!(matches!(stranger.promise(0, &proposal(1, 7)), Answer::Refused(_)));
    let mut joiner = Forming::new(0, wish(2, 1), Kept::default());
    assert!(matches!(joiner.promise(0, &proposal(1, 7)), Answer::Refused(_)));
}

#[test]
fn a_promise_ends_when_its_proposer_gave_up() {
    let mut held = forming(2);
    held.promise(0, &proposal(1, 7));
    assert_eq!(tick(&mut held, SECOND / 2), [], "it is given time");
    let asked = tick(&mut held, SECOND);
    assert!(matches!(&asked[..], [Output::Ask { to, request: Request::Fate { cluster: 7 }, .. }] if *to == node(1)));
    answered(&mut held, SECOND, 3, 7, Some(Answer::Fate(Fate::Dropped)));
    assert!(held.kept().promise.is_some(), "only its proposer's word counts");
    answered(&mut held, SECOND, 1, 7, Some(Answer::Fate(Fate::Open)));
    assert!(held.kept().promise.is_some());
    answered(&mut held, SECOND, 1, 7, Some(Answer::Fate(Fate::Dropped)));
    assert!(held.kept().promise.is_none());
}

#[test]
fn a_proposer_that_is_gone_is_given_up_by_a_majority_that_renounces() {
    let mut held = forming(2);
    held.promise(0, &proposal(1, 7));
    let asked = tick(&mut held, 31 * SECOND);
    let renounce = |output: &&Output| {
        matches!(
            output,
            Output::Ask {
                request: Request::Renounce { cluster: 7 },
                ..
            }
        )
    };
    assert_eq!(asked.iter().filter(renounce).count(), 2);
    assert!(held.kept().promise.is_some(), "alone it may not");
    assert_eq!(held.heed(7), Heed::Foreign, "but it takes no part any more");
    let mut other = forming(3);
    other.promise(0, &proposal(1, 7));
    let answer = other.asked_to_renounce(7);
    assert_eq!(answer, Answer::Renounced);
    assert_eq!(other.heed(7), Heed::Foreign);
    answered(&mut held, 31 * SECOND, 3, 7, Some(answer));
    assert!(held.kept().promise.is_none());
    let mut bound = forming(3);
    bound.promise(0, &proposal(1, 7));
    bound.heed(7);
    assert_eq!(bound.asked_to_renounce(7), Answer::Bound { cluster: 7 });
}

#[test]
fn after_a_restart_promises_hold_and_own_proposals_do_not() {
    let mut held = forming(2);
    held.promise(0, &proposal(1, 7));
    let kept = held.kept().after_a_restart(node(2));
    let mut again = Forming::new(0, wish(2, 3), kept);
    assert!(matches!(again.promise(0, &proposal(1, 8)), Answer::Refused(_)));
    assert_eq!(again.heed(7), Heed::Ours);
    let mut proposer = forming(1);
    see(&mut proposer, [(2, None), (3, None)]);
    tick(&mut proposer, 0);
    assert_eq!(proposer.fate(1), Fate::Open);
    let again = Forming::new(0, wish(1, 3), proposer.kept().after_a_restart(node(1)));
    assert_eq!(again.fate(1), Fate::Dropped);
}

/// Some nodes and a network between them.
struct World {
    now: MonoUs,
    random: u64,
    nodes: Vec<Forming>,
    /// Where a node stands: only those of one side hear each other.
    sides: Vec<u64>,
    paused_until: Vec<MonoUs>,
    /// When, from, to, what.
    questions: Vec<(MonoUs, usize, usize, u64, Request)>,
    answers: Vec<(MonoUs, usize, usize, u64, Answer)>,
    proposals: BTreeMap<u64, Proposal>,
    clusters: u64,
    faults: bool,
}

impl World {
    fn new(count: usize, seed: u64) -> Self {
        let nodes = (1..=count as u64).map(forming).collect();
        Self {
            now: 0,
            random: seed | 1,
            nodes,
            sides: vec![0; count],
            paused_until: vec![0; count],
            questions: Vec::new(),
            answers: Vec::new(),
            proposals: BTreeMap::new(),
            clusters: 0,
            faults: true,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below
    }

    fn hear(&self, one: usize, other: usize) -> bool {
        self.sides[one] == self.sides[other]
    }

    /// When a message arrives; `None` if never.
    fn arrives(&mut self) -> Option<MonoUs> {
        if !self.faults {
            return Some(self.now + 20_000);
        }
        match self.draw(10) {
            0 => None,
            1 => Some(self.now + self.draw(60 * SECOND)),
            _ => Some(self.now + self.draw(300_000)),
        }
    }

    fn bound(&self, cluster: u64) -> BTreeSet<NodeId> {
        let voters = &self.proposals[&cluster].voters;
        let bound = self.nodes.iter().filter(|node| node.kept().bound() == Some(cluster));
        bound
            .map(|node| node.wish.me)
            .filter(|me| voters.contains_key(me))
            .collect()
    }

    /// A majority of its voters is part of it: it goes on.
    fn goes_on(&self, cluster: u64) -> bool {
        let voters = self.proposals[&cluster].voters.len();
        self.bound(cluster).len() > voters / 2
    }

    fn perform(&mut self, from: usize, out: Vec<Output>) {
        let own = self.nodes[from]
            .kept()
            .promise
            .clone()
            .or(self.nodes[from].kept().begins.clone());
        if let Some(own) = own {
            self.proposals.entry(own.founding.cluster).or_insert(own);
        }
        for output in out {
            match output {
                Output::Ask {
                    to, cluster, request, ..
                } => {
                    let to = to.0 as usize - 1;
                    if self.hear(from, to)
                        && let Some(at) = self.arrives()
                    {
                        self.questions.push((at, from, to, cluster, request));
                    }
                }
                Output::Join { to, .. } => {
                    let to = to.0 as usize - 1;
                    let cluster = self.nodes[to].kept().bound();
                    let only = self.nodes[from].only();
                    if let Some(cluster) = cluster.filter(|cluster| only.is_none_or(|only| only == *cluster))
                        && self.hear(from, to)
                        && self.goes_on(cluster)
                    {
                        self.nodes[from].joined(Founding::named(cluster));
                    }
                }
                Output::Failed { .. } => {}
            }
        }
    }

    fn step(&mut self) {
        self.now += 50_000;
        if self.faults {
            self.fault();
        }
        for me in 0..self.nodes.len() {
            if self.now < self.paused_until[me] {
                continue;
            }
            let others = (0..self.nodes.len()).filter(|other| *other != me && self.hear(me, *other));
            let seen = others.map(|other| sighting(other as u64 + 1, self.nodes[other].kept().bound()));
            let seen = Input::Seen(seen.collect());
            let mut out = Vec::new();
            self.nodes[me].handle(self.now, seen, &mut out);
            self.clusters += 1;
            let fresh = Founding::named(self.clusters);
            let chance = self.draw(1 << 32) as u32;
            self.nodes[me].handle(self.now, Input::Tick { fresh, chance }, &mut out);
            self.perform(me, out);
            self.word(me);
        }
        self.deliver();
        self.check();
    }

    /// A part of a log speaks to the others of it.
    fn word(&mut self, me: usize) {
        let Some(cluster) = self.nodes[me].kept().bound() else {
            return;
        };
        let begins = self.nodes[me].kept().begins().is_some();
        if !begins && !self.goes_on(cluster) {
            return;
        }
        let voters: Vec<_> = self.proposals[&cluster]
            .voters
            .keys()
            .map(|node| node.0 as usize - 1)
            .collect();
        for to in voters {
            if to != me && self.hear(me, to) && self.now >= self.paused_until[to] && self.arrives().is_some() {
                self.nodes[to].heed(cluster);
            }
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.questions)
            .into_iter()
            .partition(|question| question.0 <= now);
        self.questions = later;
        let due: Vec<(MonoUs, usize, usize, u64, Request)> = due;
        for (_, from, to, cluster, request) in due {
            if now < self.paused_until[to] {
                self.questions.push((self.paused_until[to], from, to, cluster, request));
                continue;
            }
            let answer = match request {
                Request::Promise(proposal) => self.nodes[to].promise(now, &proposal),
                Request::Fate { cluster } => Answer::Fate(self.nodes[to].fate(cluster)),
                Request::Renounce { cluster } => self.nodes[to].asked_to_renounce(cluster),
                other => panic!("{other:?}"),
            };
            if let Some(at) = self.arrives() {
                self.answers.push((at, to, from, cluster, answer));
            }
        }
        let (due, later) = std::mem::take(&mut self.answers)
            .into_iter()
            .partition(|answer| answer.0 <= now);
        self.answers = later;
        let due: Vec<(MonoUs, usize, usize, u64, Answer)> = due;
        for (_, from, to, cluster, answer) in due {
            let mut out = Vec::new();
            let from = node(from as u64 + 1);
            let answer = Some(answer);
            self.nodes[to].handle(now, Input::Answered { from, cluster, answer }, &mut out);
            self.perform(to, out);
        }
    }

    fn fault(&mut self) {
        let count = self.nodes.len() as u64;
        let who = self.draw(count) as usize;
        match self.draw(100) {
            0 => {
                let kept = self.nodes[who].kept().after_a_restart(node(who as u64 + 1));
                self.nodes[who] = Forming::new(self.now, wish(who as u64 + 1, 3), kept);
            }
            1 => self.paused_until[who] = self.now + self.draw(50 * SECOND),
            2 | 3 => self.sides[who] = self.draw(3),
            _ => {}
        }
    }

    /// Of clusters that go on, no two have a voter in common.
    fn check(&self) {
        let alive: Vec<u64> = self
            .proposals
            .keys()
            .copied()
            .filter(|cluster| self.goes_on(*cluster))
            .collect();
        for (at, one) in alive.iter().enumerate() {
            for other in &alive[..at] {
                let (one, other) = (&self.proposals[one], &self.proposals[other]);
                let common = one.voters.keys().find(|voter| other.voters.contains_key(voter));
                assert_eq!(common, None, "{one:?} and {other:?} go on, at {}", self.now);
            }
        }
    }

    /// All faults end; enough time goes by.
    fn heal(&mut self) {
        self.faults = false;
        self.sides.fill(0);
        self.paused_until.fill(0);
        for _ in 0..3_000 {
            self.step();
        }
    }
}

fn lives() -> u32 {
    let lives = std::env::var("TIDINGS_FORMING_LIVES").ok();
    lives.and_then(|lives| lives.parse().ok()).unwrap_or(150)
}

#[test]
fn nodes_that_start_together_form_one_cluster_and_the_others_join_it() {
    let mut world = World::new(6, 9);
    world.heal();
    let clusters: BTreeSet<_> = world.nodes.iter().map(|node| node.kept().bound()).collect();
    assert_eq!(clusters.len(), 1);
    assert!(!clusters.contains(&None));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: lives(), ..ProptestConfig::default() })]

    #[test]
    fn in_random_lives_no_two_clusters_that_go_on_share_a_voter_and_all_end_in_one(
        seed in any::<u64>(),
        count in 3_usize..7,
        steps in 100_usize..2_500,
    ) {
        let mut world = World::new(count, seed);
        for _ in 0..steps {
            world.step();
        }
        world.heal();
        // Who slept between the last promise and the first word may be bound to what can never be: it needs its operator,
        // and so do those who see it.
        let bound: BTreeSet<u64> = world.nodes.iter().filter_map(|node| node.kept().bound()).collect();
        if bound.iter().all(|cluster| world.goes_on(*cluster)) {
            for node in &world.nodes {
                prop_assert!(node.kept().bound().is_some(), "{} is left: {}", node.wish.me, node.waits_for());
            }
        }
    }
}
