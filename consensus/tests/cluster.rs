//! Several nodes in one process, on disk, with links that can be cut: what was agreed is the same everywhere, survives, and
//! goes on with a majority.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidings_consensus::{Consensus, ConsensusError, Office, Proposal, Settings, Transport, Urgency, Voter};
use tidings_protocol::{ClusterId, NodeId, ShardCount, Version};
use tidings_router::control::command::{Command, Refusal};
use tidings_router::control::map::{Map, NodeInfo, Process, Roles};
use tokio::time::{sleep, timeout};

/// Generous: machines that run tests are busy.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Net {
    nodes: BTreeMap<u64, Consensus>,
    /// Who is cut off from everybody.
    cut: BTreeSet<u64>,
    /// Bytes of snapshots that were sent.
    bulk: usize,
}

#[derive(Clone)]
struct Wire {
    from: u64,
    net: Arc<Mutex<Net>>,
}

impl Transport for Wire {
    fn call(
        &self,
        to: u64,
        address: &str,
        urgency: Urgency,
        request: Vec<u8>,
        within: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        assert_eq!(address, format!("n{to}:7401"), "the address that was agreed on");
        let (net, from) = (Arc::clone(&self.net), self.from);
        let target = move || {
            let mut net = net.lock().unwrap();
            if net.cut.contains(&from) || net.cut.contains(&to) {
                return None;
            }
            if urgency == Urgency::Bulk {
                net.bulk += request.len();
            }
            Some((net.nodes.get(&to)?.clone(), request.clone()))
        };
        async move {
            let Some((node, request)) = target() else {
                return Err("cut off".to_owned());
            };
            timeout(within, node.answer(&request))
                .await
                .map_err(|_| "slow".to_owned())
        }
        .boxed()
    }
}

struct Cluster {
    net: Arc<Mutex<Net>>,
    folder: tempfile::TempDir,
}

fn fresh() -> Map {
    Map::new(ClusterId(9), ShardCount::new(8).unwrap(), 2)
}

fn voter(node: u64) -> Voter {
    Voter {
        address: format!("n{node}:7401"),
    }
}

fn ceiling(to: u64) -> Command {
    Command::RaiseCeiling { to: Version(to) }
}

fn register(node: u64) -> Command {
    Command::Register {
        process: Process {
            node: NodeId(node),
            incarnation: 1,
        },
        info: NodeInfo {
            roles: Roles {
                owner: true,
                edge: true,
            },
            zone: String::new(),
            peer_address: format!("n{node}:7401"),
            client_address: String::new(),
        },
    }
}

impl Cluster {
    fn new() -> Self {
        Self {
            net: Arc::default(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Voters 1, 2 and 3.
    async fn of_three() -> Self {
        let cluster = Self::new();
        for node in 1..=3 {
            cluster.start(node).await;
        }
        let voters = (1..=3).map(|node| (NodeId(node), voter(node))).collect();
        cluster.node(1).form(voters).await.unwrap();
        cluster
    }

    fn path(&self, node: u64) -> PathBuf {
        self.folder.path().join(format!("{node}.redb"))
    }

    async fn start(&self, node: u64) -> Consensus {
        let settings = Settings {
            path: Some(self.path(node)),
            snapshot_entries: 40,
            ..Settings::new(NodeId(node))
        };
        let wire = Wire {
            from: node,
            net: Arc::clone(&self.net),
        };
        let started = Consensus::start(&settings, fresh(), Arc::new(wire)).await.unwrap();
        self.net.lock().unwrap().nodes.insert(node, started.clone());
        started
    }

    /// As if its process had been killed. The file is free when this returns.
    async fn kill(&self, node: u64) {
        let killed = self.net.lock().unwrap().nodes.remove(&node).unwrap();
        killed.stop().await;
        drop(killed);
        for _ in 0..600 {
            if redb::Database::open(self.path(node)).is_ok() {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("node {node} still has its file");
    }

    fn node(&self, node: u64) -> Consensus {
        self.net.lock().unwrap().nodes[&node].clone()
    }

    fn cut(&self, node: u64, cut: bool) {
        let mut net = self.net.lock().unwrap();
        if cut {
            net.cut.insert(node);
        } else {
            net.cut.remove(&node);
        }
    }

    /// Waits until one that is not cut off leads.
    async fn leader(&self) -> (NodeId, Consensus) {
        let searching = async {
            loop {
                let found = {
                    let net = self.net.lock().unwrap();
                    let mut whole = net.nodes.iter().filter(|(node, _)| !net.cut.contains(node));
                    whole
                        .find(|(_, consensus)| consensus.office().borrow().ours)
                        .map(|(node, consensus)| (NodeId(*node), consensus.clone()))
                };
                if let Some(found) = found {
                    return found;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, searching).await.expect("somebody leads")
    }

    /// Proposes wherever the leader is, until it was applied.
    async fn agree(&self, command: Command) {
        let proposing = async {
            loop {
                let (_, leader) = self.leader().await;
                let proposal = Proposal {
                    term: None,
                    commands: vec![command.clone()],
                };
                match leader.propose(proposal).await {
                    Ok(_) => return,
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        };
        timeout(PATIENCE, proposing).await.expect("it is agreed on");
    }

    /// Waits until the node has applied this ceiling.
    async fn sees(&self, node: u64, to: u64) -> Map {
        let mut applied = self.node(node).applied();
        let seen = timeout(
            PATIENCE,
            applied.wait_for(|applied| applied.map.ceiling() >= Version(to)),
        )
        .await;
        (*seen.unwrap_or_else(|_| panic!("node {node} sees {to}")).unwrap().map).clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_agree_on_the_same_map() {
    let cluster = Cluster::of_three().await;
    for node in 1..=3 {
        cluster.agree(register(node)).await;
    }
    cluster.agree(ceiling(77)).await;
    let maps = [
        cluster.sees(1, 77).await,
        cluster.sees(2, 77).await,
        cluster.sees(3, 77).await,
    ];
    assert_eq!(maps[0].nodes().count(), 3);
    assert!(maps.iter().all(|map| *map == maps[0]));
    let again = cluster.node(2).form(BTreeMap::from([(NodeId(2), voter(2))])).await;
    assert!(
        matches!(again, Err(ConsensusError::Refused(_))),
        "it is part of a log already"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_go_on_without_the_leader_and_it_catches_up_from_its_disk() {
    let cluster = Cluster::of_three().await;
    cluster.agree(ceiling(1)).await;
    let (old, _) = cluster.leader().await;
    cluster.kill(old.0).await;
    cluster.agree(ceiling(2)).await;
    let (new, _) = cluster.leader().await;
    assert_ne!(new, old);
    let back = cluster.start(old.0).await;
    assert!(
        back.is_formed().await.unwrap(),
        "it remembers that it is part of the log"
    );
    assert_eq!(cluster.sees(old.0, 2).await, cluster.sees(new.0, 2).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_agreed_survives_the_death_of_all() {
    let cluster = Cluster::of_three().await;
    // Beyond a snapshot, so that both it and the log behind it are read again.
    for to in 1..=60 {
        cluster.agree(ceiling(to)).await;
    }
    let before = cluster.sees(1, 60).await;
    for node in 1..=3 {
        cluster.kill(node).await;
    }
    for node in 1..=3 {
        cluster.start(node).await;
    }
    for node in 1..=3 {
        assert_eq!(cluster.sees(node, 60).await, before);
    }
    cluster.agree(ceiling(61)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_confirms_and_agrees_on_nothing() {
    let cluster = Cluster::of_three().await;
    cluster.agree(ceiling(1)).await;
    let (old, cut) = cluster.leader().await;
    cut.confirm(PATIENCE).await.unwrap();
    cluster.cut(old.0, true);
    assert!(cut.confirm(Duration::from_secs(3)).await.is_err());
    let alone = Proposal {
        term: None,
        commands: vec![ceiling(1_000)],
    };
    let proposing = tokio::spawn(async move { cut.propose(alone).await });
    cluster.agree(ceiling(2)).await;
    let (new, leader) = cluster.leader().await;
    assert_ne!(new, old);
    leader.confirm(PATIENCE).await.unwrap();
    assert_eq!(cluster.sees(new.0, 2).await.ceiling(), Version(2));
    cluster.cut(old.0, false);
    let outcome = timeout(PATIENCE, proposing).await.expect("it is told").unwrap();
    assert!(outcome.is_err(), "{outcome:?}");
    cluster.agree(ceiling(3)).await;
    assert_eq!(
        cluster.sees(old.0, 3).await.ceiling(),
        Version(3),
        "what it proposed alone never was"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_of_another_term_changes_nothing_and_a_refusal_is_named() {
    let cluster = Cluster::of_three().await;
    cluster.agree(ceiling(5)).await;
    let (_, leader) = cluster.leader().await;
    let Office { term, .. } = *leader.office().borrow();
    let propose = |term| Proposal {
        term: Some(term),
        commands: vec![ceiling(4), ceiling(6)],
    };
    let outcome = leader.propose(propose(term - 1)).await.unwrap();
    assert!(outcome.outdated);
    let outcome = leader.propose(propose(term)).await.unwrap();
    assert!(!outcome.outdated);
    assert_eq!(outcome.refused, [(0, Refusal::NotHigher)]);
    assert_eq!(
        leader.applied().borrow().map.ceiling(),
        Version(6),
        "applied before it is answered"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_lead_says_who_does() {
    let cluster = Cluster::of_three().await;
    cluster.agree(ceiling(1)).await;
    let (leader, _) = cluster.leader().await;
    let other = (1..=3).find(|node| NodeId(*node) != leader).unwrap();
    cluster.sees(other, 1).await;
    let proposal = Proposal {
        term: None,
        commands: vec![ceiling(2)],
    };
    match cluster.node(other).propose(proposal).await {
        Err(ConsensusError::NotLeader { leader: named }) => assert_eq!(named, Some(leader)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_gets_a_snapshot_becomes_a_voter_and_takes_the_place_of_a_dead_one() {
    let cluster = Cluster::of_three().await;
    for to in 1..=120 {
        cluster.agree(ceiling(to)).await;
    }
    cluster.start(4).await;
    let (_, leader) = cluster.leader().await;
    leader.add_learner(NodeId(4), voter(4)).await.unwrap();
    assert_eq!(cluster.sees(4, 120).await, cluster.sees(1, 120).await);
    assert!(
        cluster.net.lock().unwrap().bulk > 0,
        "by a snapshot: the log before it is gone"
    );
    let dead = (1..=3).find(|node| NodeId(*node) != cluster_leader(&cluster)).unwrap();
    cluster.kill(dead).await;
    let voters: BTreeSet<NodeId> = (1..=4).filter(|node| *node != dead).map(NodeId).collect();
    let changing = async {
        loop {
            let (_, leader) = cluster.leader().await;
            match leader.set_voters(voters.clone(), false).await {
                Ok(()) => return,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    timeout(PATIENCE, changing).await.expect("the voters change");
    let (_, leader) = cluster.leader().await;
    assert_eq!(leader.standing().voters, voters);
    // The dead one does not count any more: one more may die.
    let next = voters.iter().find(|node| **node != cluster_leader(&cluster)).unwrap().0;
    cluster.kill(next).await;
    cluster.agree(ceiling(500)).await;
}

fn cluster_leader(cluster: &Cluster) -> NodeId {
    let net = cluster.net.lock().unwrap();
    let found = net.nodes.values().find_map(|node| node.office().borrow().leader);
    found.expect("somebody knows who leads")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_hands_over_when_it_is_asked_to() {
    let cluster = Cluster::of_three().await;
    cluster.agree(ceiling(1)).await;
    let (old, leader) = cluster.leader().await;
    let to = NodeId((1..=3).find(|node| NodeId(*node) != old).unwrap());
    cluster.sees(to.0, 1).await;
    leader.hand_over(to).await.unwrap();
    let mut office = cluster.node(to.0).office();
    timeout(PATIENCE, office.wait_for(|office| office.ours))
        .await
        .expect("it takes over")
        .unwrap();
    cluster.agree(ceiling(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_cut_off_does_not_unseat_the_leader_when_it_comes_back() {
    let cluster = Cluster::of_three().await;
    cluster.agree(ceiling(1)).await;
    let (node, leader) = cluster.leader().await;
    let before = *leader.office().borrow();
    let other = (1..=3).find(|other| NodeId(*other) != node).unwrap();
    cluster.cut(other, true);
    // Several times as long as it waits before it stands for election.
    sleep(Duration::from_secs(4)).await;
    cluster.agree(ceiling(2)).await;
    let meanwhile = *cluster.leader().await.1.office().borrow();
    cluster.cut(other, false);
    cluster.sees(other, 2).await;
    cluster.agree(ceiling(3)).await;
    cluster.sees(other, 3).await;
    let after = *cluster.leader().await.1.office().borrow();
    assert_eq!(after.term, meanwhile.term, "it was {before:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_agrees_with_itself_and_remembers() {
    let cluster = Cluster::new();
    cluster
        .start(1)
        .await
        .form(BTreeMap::from([(NodeId(1), voter(1))]))
        .await
        .unwrap();
    cluster.agree(ceiling(8)).await;
    cluster.kill(1).await;
    cluster.start(1).await;
    assert_eq!(cluster.sees(1, 8).await.ceiling(), Version(8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_do_not_share_a_log_and_a_file_that_is_none_is_named() {
    let cluster = Cluster::new();
    cluster.start(1).await;
    let settings = Settings {
        path: Some(cluster.path(1)),
        ..Settings::new(NodeId(1))
    };
    let wire = || {
        Arc::new(Wire {
            from: 1,
            net: Arc::default(),
        })
    };
    let second = Consensus::start(&settings, fresh(), wire()).await;
    let text = second.map(drop).unwrap_err().to_string();
    assert!(
        text.starts_with("cannot use the cluster's log ") && text.contains("1.redb"),
        "{text}"
    );
    std::fs::write(cluster.path(7), "not a database, but long enough to look at").unwrap();
    let settings = Settings {
        path: Some(cluster.path(7)),
        ..settings
    };
    assert!(Consensus::start(&settings, fresh(), wire()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_none_gets_an_answer_and_does_no_harm() {
    let cluster = Cluster::of_three().await;
    cluster.agree(ceiling(1)).await;
    for request in [&b""[..], b"\xc0", b"hello", &[0xff; 300]] {
        let answer = cluster.node(1).answer(request).await;
        let answer: Result<Vec<u8>, String> = rmp_serde::from_slice(&answer).unwrap();
        assert!(answer.is_err());
    }
    cluster.agree(ceiling(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_log_went_back_is_found_out_and_the_others_go_on() {
    let cluster = Cluster::of_three().await;
    cluster.agree(ceiling(1)).await;
    let (leader, led) = cluster.leader().await;
    let victim = (1..=3).find(|node| NodeId(*node) != leader).unwrap();
    cluster.kill(victim).await;
    let older = cluster.folder.path().join("older");
    std::fs::copy(cluster.path(victim), &older).unwrap();
    let had = tidings_consensus::entries(&older).unwrap();
    cluster.start(victim).await;
    for to in 2..20 {
        cluster.agree(ceiling(to)).await;
    }
    // Everything is acknowledged by all.
    let all = led.applied().borrow().entries;
    let caught_up = async {
        while cluster.node(victim).entries() < all {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, caught_up).await.expect("it has all");
    cluster.kill(victim).await;
    assert!(tidings_consensus::entries(&cluster.path(victim)).unwrap() >= all && had < all);
    std::fs::copy(&older, cluster.path(victim)).unwrap();
    cluster.start(victim).await;
    let mut went_back = led.went_back();
    let found = timeout(
        PATIENCE,
        went_back.wait_for(|found| found.contains_key(&NodeId(victim))),
    )
    .await;
    let acknowledged = found.expect("it is found out").unwrap()[&NodeId(victim)];
    assert!(acknowledged >= all, "{acknowledged} of {all}");
    assert_eq!(cluster.leader().await.0, leader);
    for to in 100..110 {
        cluster.agree(ceiling(to)).await;
    }
    assert!(led.office().borrow().ours, "the leader leads as before");
}

#[test]
fn the_file_is_closed_when_the_last_handle_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.redb");
    for round in 0..50 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let settings = Settings {
                path: Some(path.clone()),
                ..Settings::new(NodeId(1))
            };
            let wire = Wire {
                from: 1,
                net: Arc::default(),
            };
            let node = Consensus::start(&settings, fresh(), Arc::new(wire)).await.unwrap();
            if round == 0 {
                node.form([(NodeId(1), voter(1))].into()).await.unwrap();
            }
            node.stop().await;
        });
        drop(runtime);
        assert!(
            redb::Database::open(&path).is_ok(),
            "round {round}: somebody has it still"
        );
    }
}
