//! Rounds of faults on a cluster of real processes, drawn from a seed, while an application writes and reads. After each round
//! all is healed, and every reader must have the database's last state: of each change it was told, or told to fetch. As long
//! as one node that was in sync lives through a round, nobody may be told to fetch.
//!
//! `TIDINGS_ROUNDS=200 TIDINGS_SEED=7 cargo test -p tidings --test e2e_cluster_faults rounds -- --nocapture` runs many;
//! `TIDINGS_FAULT=KillTwo` only those of one kind. A round that fails says with which seed it comes again.

#[path = "support/support.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use support::*;

/// Nodes, all of which vote: two may be gone.
const NODES: usize = 5;
/// Between two changes of one writer.
const PACE: Duration = Duration::from_millis(10);
/// How many rounds there are unless somebody says so.
const ROUNDS: u64 = 5;
/// The same of the seed.
const SEED: u64 = 0;

fn said<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Sums over all rounds.
#[derive(Debug, Default)]
struct Sums {
    rounds: usize,
    acknowledged: usize,
    tries: usize,
    resyncs: usize,
    /// Rounds in which some shard had no survivor, and there may be resyncs.
    without_survivor: usize,
    frozen: usize,
    gaps: Vec<Duration>,
    heals: Vec<Duration>,
}

fn ranks(mut list: Vec<Duration>) -> String {
    list.sort_unstable();
    match (list.get(list.len() / 2), list.get(list.len() * 99 / 100), list.last()) {
        (Some(median), Some(slow), Some(last)) => {
            format!(
                "p50 {median:.2?}, p99 {slow:.2?}, longest {last:.2?}, of {}",
                list.len()
            )
        }
        _ => "none".to_owned(),
    }
}

impl Sums {
    fn print(self) {
        println!(
            "{} rounds, {} changes acknowledged, 0 lost, {} tries in vain, {} frozen readers exact",
            self.rounds, self.acknowledged, self.tries, self.frozen
        );
        println!(
            "{} resyncs, all in the {} rounds in which all copies of some shard were gone",
            self.resyncs, self.without_survivor
        );
        println!("from a kill to accepting again (lease 2 s): {}", ranks(self.gaps));
        println!(
            "from the end of a fault to a whole cluster with all copies: {}",
            ranks(self.heals)
        );
    }
}

/// Subscribed, and then its socket is read no more until the end of the round.
struct Frozen {
    ws: Ws,
    node: usize,
    objects: Vec<String>,
}

impl Frozen {
    #[track_caller]
    fn at(cluster: &Cluster, node: usize, objects: &[String]) -> Self {
        let mut ws = Ws::open(cluster.address(node));
        ws.subscribe(objects);
        Self {
            ws,
            node,
            objects: objects.to_vec(),
        }
    }

    /// It reads everything, on another connection where its own has ended: now it knows each object as it is, or was told to
    /// fetch.
    #[track_caller]
    fn thaws(mut self, cluster: &Cluster, last: &BTreeMap<String, u64>) {
        let newest = last.values().copied().max().expect("a change");
        let mut heard = Heard::default();
        let since = Instant::now();
        while !covers(&heard.cursor, newest) {
            assert!(since.elapsed() < LONG, "node {}: {heard:?}", self.node);
            match self.ws.next() {
                Some(told) => heard.add(&told),
                None => break,
            }
        }
        if heard.cursor.is_empty() {
            // It was cut off before it had one: as any client it begins anew, and fetches.
            return;
        }
        let more = if covers(&heard.cursor, newest) {
            Heard::default()
        } else {
            let poll = Poll::of(cluster.address(self.node), &self.objects);
            Poller::resume(poll, &heard.cursor).up_to(newest)
        };
        let resynced = !heard.resyncs.is_empty() || !more.resyncs.is_empty();
        for (object, version) in last {
            let told = heard.newest.get(object).max(more.newest.get(object));
            assert!(
                resynced || told >= Some(version),
                "a reader that was frozen at node {} was told {told:?} of {object}, which is at {version}",
                self.node
            );
        }
    }
}

/// The newest version of each object that anybody was told of.
fn last_versions(told: &[Told]) -> BTreeMap<String, u64> {
    let mut last = BTreeMap::new();
    for (object, version) in told.iter().flat_map(|told| &told.versions) {
        let known: &mut u64 = last.entry(object.clone()).or_default();
        *known = (*known).max(*version);
    }
    last
}

/// Waits until the cluster is whole with all copies, and every node votes.
#[track_caller]
fn until_all_vote(cluster: &mut Cluster) {
    cluster.until_healed();
    cluster.until(0, "all vote", |status| {
        let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        let votes = nodes
            .iter()
            .filter(|node| node["voter"] == true && node["alive"] == true);
        votes.count() == NODES
    });
}

/// One round on a cluster that is whole.
#[track_caller]
fn round(
    cluster: &mut Cluster,
    fault: Fault,
    seed: u64,
    probes: &[(String, u64)],
    disk: Option<&Disk>,
    sums: &mut Sums,
) {
    let mut dice = Dice::new(seed ^ 0x5eed);
    let objects = names(&format!("of-{seed:x}-"), 60);
    let all: Vec<usize> = (0..cluster.count()).collect();
    let mut life = Life::begin(cluster, &objects, &all);
    let frozen = Frozen::at(cluster, dice.below(NODES), &objects);
    let mut writers = all.clone();
    dice.shuffle(&mut writers);
    life.write(&objects, &writers[..3], PACE);
    std::thread::sleep(Duration::from_millis(500 + dice.next() % 1_000));
    let holders = cluster.holders(0);
    let struck = Hand::new(cluster, seed, probes, disk).strike(fault);
    let since = Instant::now();
    until_all_vote(cluster);
    let healed = since.elapsed();
    std::thread::sleep(Duration::from_millis(500));
    let (acknowledged, longest) = life.acknowledged();
    let tries = life.failures();
    let told = life.end();
    let resyncs: usize = told.iter().map(|told| told.resyncs.len()).sum();
    let survives = |of: &BTreeSet<usize>| !of.is_subset(&struck.gone);
    let is_survived = holders.values().all(survives);
    println!(
        "    {acknowledged} changes, {} tries in vain, the slowest took {longest:.2?}, {resyncs} resyncs{}, healed in {healed:.2?}",
        tries.len(),
        if is_survived {
            ""
        } else {
            " (of some shard all copies were gone)"
        }
    );
    assert!(
        resyncs == 0 || !is_survived,
        "{resyncs} resyncs although a copy of each shard survived {:?}: {:?}",
        struck.gone,
        told.iter().flat_map(|told| &told.resyncs).next()
    );
    frozen.thaws(cluster, &last_versions(&told));
    sums.rounds += 1;
    sums.acknowledged += acknowledged;
    sums.tries += tries.len();
    sums.resyncs += resyncs;
    sums.without_survivor += usize::from(!is_survived);
    sums.frozen += 1;
    sums.gaps.extend(struck.gaps);
    sums.heals.push(healed);
}

/// Says with what a round that fails comes again.
struct Saying(String);

impl Drop for Saying {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("this round comes again with {}", self.0);
        }
    }
}

#[test]
fn rounds_of_faults_lose_nothing_and_make_nobody_fetch_while_a_copy_survives() {
    let rounds = said("TIDINGS_ROUNDS").unwrap_or(ROUNDS);
    let first: u64 = said("TIDINGS_SEED").unwrap_or(SEED);
    let only: Option<String> = said("TIDINGS_FAULT");
    // Whose disk is gone votes no more; another has to before the next round takes two.
    let soon = ["--cluster.replace_voter_ms", "5000"];
    let mut cluster = Plan::of(NODES).with(&soon).behind_gates().build();
    let disk = Disk::small(&cluster, NODES - 1);
    if let Err(why) = &disk {
        println!("no node has a disk that can be full: {why}");
    }
    (0..NODES).for_each(|node| cluster.launch(node));
    until_all_vote(&mut cluster);
    let objects = names("probe", 200);
    let shards = cluster.shards_of(0, &objects);
    let probes: Vec<(String, u64)> = objects.into_iter().zip(shards).collect();
    let mut sums = Sums::default();
    let faults: Vec<Fault> = Fault::ALL
        .into_iter()
        .filter(|fault| only.as_ref().is_none_or(|only| format!("{fault:?}") == *only))
        .collect();
    assert!(!faults.is_empty(), "there is no fault of this name");
    for number in 0..rounds {
        let seed = first + number;
        // Every kind as often as every other.
        let fault = faults[usize::try_from(seed).expect("small") % faults.len()];
        println!("round {number}, seed {seed}: {fault:?}");
        let _saying = Saying(format!("TIDINGS_ROUNDS=1 TIDINGS_SEED={seed}"));
        round(&mut cluster, fault, seed, &probes, disk.as_ref().ok(), &mut sums);
    }
    sums.print();
}
