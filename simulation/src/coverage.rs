//! How often what matters happened. A simulation that never met a fault has shown nothing.

use std::collections::BTreeMap;

/// Counters by name, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<&'static str, u64>,
}

/// What some three hundred runs must have met, each at least once; a few of them in far larger numbers.
pub const REQUIRED: &[(&str, u64)] = &[
    ("publish acknowledged", 10_000),
    ("publish called durable", 1_000),
    ("publish outcome unknown", 100),
    ("publish retried under its key", 100),
    ("publish duplicate by key", 10),
    ("publish duplicate by revision", 10),
    ("publish sent to a node that is not the owner", 100),
    ("publish refused without a lease", 10),
    ("publish refused by a failing disk", 5),
    ("publish acknowledged after its shard had a newer owner", 1),
    ("change told", 20_000),
    ("change told again", 100),
    ("change told late, older than known elsewhere", 1),
    ("changes coalesced on a link", 100),
    ("changes coalesced at an edge", 100),
    ("cursor handed", 10_000),
    ("cursor names lagging shards", 100),
    ("cursor lists told changes", 100),
    ("cursor went back", 10),
    ("poll answered with more", 5),
    ("poll superseded", 10),
    ("session streamed", 10),
    ("at_least refused", 5),
    ("resync: versions_lost", 100),
    ("resync: versions_evicted", 5),
    ("resync: cursor_unreadable", 5),
    ("resync: cursor_foreign", 5),
    ("resync: cursor_future", 5),
    ("subscriber blocked", 100),
    ("subscriber cut: no progress", 1),
    ("subscriber dismissed: no pong", 1),
    ("subscriber's road went dead", 50),
    ("fault: kill", 50),
    ("fault: kill with publishes under way", 10),
    ("fault: power loss", 20),
    ("fault: power loss of several", 5),
    ("fault: power loss tore unsynced records off", 5),
    ("fault: disk lost", 5),
    ("fault: disk fails", 5),
    ("fault: disk slow", 5),
    ("fault: pause shorter than a lease", 10),
    ("fault: pause longer than a lease", 10),
    ("fault: partition", 10),
    ("fault: cut one way", 10),
    ("fault: link reset", 20),
    ("fault: clock jumped ahead", 10),
    ("fault: clock jumped back", 10),
    ("fault: hostile verdict on links", 5),
    ("fault: hostile verdict on an owner", 5),
    ("fault: slow roads", 5),
    ("link taken for dead by an edge", 50),
    ("link taken for dead by an owner", 10),
    ("frames of an older link reached an edge", 10),
    ("frames of an older link reached an owner", 10),
    ("frames between nodes went as bytes", 10_000),
    ("frames ignored by a lane's machine", 100),
    ("proposal lost", 5),
    ("renewal refused: replacement proposed", 5),
    ("election", 50),
    ("leader learnt that it was deposed", 10),
    ("leadership not confirmed", 50),
    ("proposal of a deposed leader refused", 5),
    ("proposal outlived its leader", 10),
    ("proposal agreed on late", 50),
    ("command refused when applied", 100),
    ("command sent to a node that does not lead", 20),
    ("lease granted for a map not yet known", 10),
    ("map taken from a snapshot", 50),
    ("ceiling raised", 1_000),
    ("floor raised in the map", 50),
    ("shard assigned for the first time", 100),
    ("shard assigned to a copy", 3),
    ("shard assigned to its disk", 20),
    ("shard assigned with nothing", 100),
    ("shard handed over", 50),
    ("shard taken back from a move", 5),
    ("shard in doubt after a restart", 20),
    ("node drained", 20),
    ("node filled again", 20),
    ("fault: election without need", 10),
    ("fault: gossip holds whoever is dead alive", 5),
    ("shard replaced empty", 100),
    ("shard continued from disk", 20),
    ("snapshot taken", 20),
    ("restart from a snapshot", 5),
    ("publish waited for a copy", 10_000),
    ("publish lost sight of when its shard went elsewhere", 5),
    ("publish refused: copies are behind", 20),
    ("retry answered 'duplicate' after its shard had a newer owner", 10),
    ("copy to be filled", 1_000),
    ("copy joined", 1_000),
    ("copy promoted", 300),
    ("copy dropped", 20),
    ("copy found that was being filled", 5),
    ("copy refused an older epoch", 5),
    ("copy taken out that lives", 20),
    ("copy taken out that is gone", 100),
    ("silent copy proposed for removal", 100),
    ("copy's connection taken for dead", 20),
    ("words of an older connection reached a copy", 20),
    ("owner deposed by a newer owner's word", 1),
    ("shard goes on in a new epoch", 2),
    ("number of copies changed", 50),
    ("node is to leave for good", 10),
    ("node left for good", 3),
    ("owner and copies fail together", 30),
    ("copy fails", 30),
    ("fault while all copies were whole", 15),
    ("fault: copy's connection reset", 20),
    ("healed", 100),
];

impl Coverage {
    /// It happened.
    pub fn saw(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    /// It happened so many times.
    pub fn add(&mut self, what: &'static str, times: u64) {
        if times > 0 {
            *self.counts.entry(what).or_default() += times;
        }
    }

    /// How often it happened.
    #[must_use]
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Adds what happened in another run.
    pub fn merge(&mut self, other: &Self) {
        for (what, times) in &other.counts {
            self.add(what, *times);
        }
    }

    /// What was counted.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.iter().map(|(what, times)| (*what, *times))
    }

    /// What is required and did not happen often enough: name, wanted, got.
    #[must_use]
    pub fn missing(&self) -> Vec<(&'static str, u64, u64)> {
        let got = |what| self.count(what);
        let short = REQUIRED.iter().filter(|(what, wanted)| got(what) < *wanted);
        short.map(|(what, wanted)| (*what, *wanted, got(what))).collect()
    }
}
