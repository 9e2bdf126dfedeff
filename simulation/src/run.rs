//! One run from its seed to its verdict.

use crate::coverage::Coverage;
use crate::oracle::{Oracle, Violation};
use crate::plan::{Mode, Plan};
use crate::world::World;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Within this time everything must be whole after faults have stopped: ten seconds, and twice the time for which the last
/// fault's victims may wait for a lease, a hand-over or a silent connection.
const HEALING_US: u64 = 22_000_000;
/// How long the last changes may take to reach everybody.
const SETTLING_US: u64 = 8_000_000;
/// How often the oracle looks at the world.
const LOOK_US: u64 = 500_000;

/// What a run showed.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it was made of.
    pub summary: String,
    /// What was objected to.
    pub violation: Option<Violation>,
    /// What happened, if it was kept.
    pub trace: Vec<String>,
    /// How often what happened.
    pub coverage: Coverage,
    /// Seconds of all nodes together.
    pub node_seconds: u64,
    /// Events.
    pub events: u64,
}

impl World {
    /// Everything was quiet for long, and everybody must know everything.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Lets the oracle look at the world.
    pub fn look(&mut self) {
        let mut oracle = std::mem::replace(&mut self.oracle, Oracle::new(&Plan::draw(0, None)));
        oracle.look(self);
        self.oracle = oracle;
    }

    fn go_on(&mut self, us: u64) {
        let until = self.now + us;
        while self.now < until && self.oracle.verdict().is_none() {
            let next = (self.now + LOOK_US).min(until);
            self.run_until(next);
            self.look();
        }
    }

    /// The whole run.
    fn live(&mut self) {
        let storm_us = self.plan.stormy_us;
        self.go_on(storm_us);
        if self.plan.mode == Mode::Safety || self.oracle.verdict().is_some() {
            return;
        }
        if self.plan.mode != Mode::Calm {
            self.stop_faults();
        }
        self.healing = true;
        self.go_on(HEALING_US);
        self.quiet = true;
        self.go_on(SETTLING_US);
        if self.oracle.verdict().is_some() {
            return;
        }
        self.settled = true;
        self.coverage.saw("healed");
        self.oracle.settled(self.now);
        self.look();
        self.settled = false;
        if self.oracle.verdict().is_some() {
            return;
        }
        self.everybody_leaves();
    }

    /// Everybody goes, and takes all memory along.
    fn everybody_leaves(&mut self) {
        self.deaf = true;
        for client in 0..self.clients.len() {
            if self.clients[client].side.is_some() {
                self.request(client, crate::wire::Request::Bye);
                self.leave_silently(client);
            }
        }
        // Sessions, lingering objects and connections that nobody closed have their own times.
        self.go_on(20_000_000);
        self.everybody_left = true;
        self.look();
    }

    fn count_machines(&mut self) {
        let mut totals = [0; 4];
        for process in self.nodes.iter().filter_map(|node| node.process.as_ref()) {
            for owner in &process.owners {
                let stats = owner.machine.stats();
                totals[0] += stats.coalesced;
                totals[2] += stats.evicted;
            }
            for lane in &process.lanes {
                let stats = lane.machine.stats();
                totals[1] += stats.coalesced;
                totals[3] += stats.ignored_frames;
            }
        }
        self.coverage.add("changes coalesced on a link", totals[0]);
        self.coverage.add("changes coalesced at an edge", totals[1]);
        self.coverage.add("versions evicted", totals[2]);
        self.coverage.add("frames ignored by a lane's machine", totals[3]);
    }
}

/// Runs a seed. A panic of a machine is a violation like any other.
#[must_use]
pub fn run(seed: u64, mode: Option<Mode>, keeps_trace: bool) -> Report {
    run_plan(Plan::draw(seed, mode), keeps_trace)
}

/// Runs a plan.
#[must_use]
pub fn run_plan(plan: Plan, keeps_trace: bool) -> Report {
    let summary = plan.summary();
    let nodes = plan.nodes as u64;
    let mut world = World::new(plan, keeps_trace);
    let ended = catch_unwind(AssertUnwindSafe(|| world.live()));
    let mut violation = world.oracle.verdict().cloned();
    if let Err(panic) = ended {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        violation = Some(Violation {
            invariant: "panic",
            at: world.now,
            what: words.unwrap_or_default(),
        });
    }
    world.count_machines();
    Report {
        summary,
        violation,
        trace: world.trace.lines().to_vec(),
        node_seconds: nodes * world.now / 1_000_000,
        events: world.events,
        coverage: world.coverage,
    }
}

/// The seeds of a list: one a line, `#` begins a comment.
#[must_use]
pub fn listed(text: &str) -> Vec<u64> {
    let words = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    words.filter_map(|word| word.parse().ok()).collect()
}
