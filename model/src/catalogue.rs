//! The models by name, with the bounds that the tests use.

mod copies;
mod front;

use crate::copies::Copies;
use crate::disk::Disk;
use crate::rule::Rules;
use crate::scripted::Scripted;
use crate::search::{Limits, Report, walk};
use crate::whole::Whole;
use stateright::{Checker, Model};
use std::fmt::Debug;
use std::hash::Hash;

/// One model with its bounds.
#[derive(Clone, Copy, Debug)]
pub enum AnyModel {
    /// Edges and clients under scripted owners.
    Scripted(Scripted),
    /// Copies, leases and the control plane.
    Copies(Copies),
    /// One node and its disk.
    Disk(Disk),
    /// Everything at once.
    Whole(Whole),
}

/// A model and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// It.
    pub model: AnyModel,
    /// Walked to its end by the tests. The others take long; they are walked by command.
    pub in_tests: bool,
}

/// Models that take longer than a test may.
const LONG: &[&str] = &[
    "edges",
    "edges-loss",
    "loss-twice",
    "three",
    "three-join",
    "disks-power",
    "whole-leaves",
];

impl AnyModel {
    /// The same with other rules.
    #[must_use]
    pub fn with(mut self, rules: Rules) -> Self {
        match &mut self {
            Self::Scripted(model) => model.shape.rules = rules,
            Self::Copies(model) => model.rules = rules,
            Self::Disk(model) => model.rules = rules,
            Self::Whole(model) => {
                model.copies.rules = rules;
                model.shape.rules = rules;
            }
        }
        self
    }
}

/// What a walk found, whatever the model.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Different states.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// Steps to the farthest.
    pub depth: usize,
    /// All were looked at.
    pub complete: bool,
    /// What fell, and the shortest way there.
    pub violations: Vec<(&'static str, Vec<String>)>,
    /// What should be possible and was not reached.
    pub unreached: Vec<&'static str>,
}

impl AnyModel {
    /// Walks its states.
    #[must_use]
    pub fn walk(&self, limits: Limits) -> Summary {
        match self {
            Self::Scripted(model) => summary(&walk(model, limits)),
            Self::Copies(model) => summary(&walk(model, limits)),
            Self::Disk(model) => summary(&walk(model, limits)),
            Self::Whole(model) => summary(&walk(model, limits)),
        }
    }
}

/// What stateright's own checker found.
#[derive(Clone, Debug)]
pub struct SecondOpinion {
    /// Different states.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// What fell.
    pub violations: Vec<&'static str>,
}

impl AnyModel {
    /// Has stateright's own checker walk the states. It stops once everything possible was reached and something fell.
    #[must_use]
    pub fn walk_by_library(&self) -> SecondOpinion {
        match *self {
            Self::Scripted(model) => second_opinion(model),
            Self::Copies(model) => second_opinion(model),
            Self::Disk(model) => second_opinion(model),
            Self::Whole(model) => second_opinion(model),
        }
    }
}

fn second_opinion<M>(model: M) -> SecondOpinion
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Clone + PartialEq + Send + Sync + Debug,
    M::Action: Clone + PartialEq + Debug,
{
    let begins = model.init_states().len();
    let checker = model.checker().threads(1).spawn_bfs().join();
    let fell = |name: &&str| checker.discovery_classification(name).to_string() == "counterexample";
    SecondOpinion {
        states: checker.unique_state_count(),
        steps: checker.state_count() - begins,
        violations: checker.discoveries().into_keys().filter(fell).collect(),
    }
}

fn summary<A: Debug>(report: &Report<A>) -> Summary {
    let violations = report.violations.iter().map(|violation| {
        let steps = violation.trace.iter().map(|step| format!("{step:?}"));
        (violation.property, steps.collect())
    });
    Summary {
        states: report.states,
        steps: report.steps,
        depth: report.depth,
        complete: report.complete,
        violations: violations.collect(),
        unreached: report.unreached.clone(),
    }
}

/// All models.
#[must_use]
pub fn all() -> Vec<Entry> {
    let entry = |name, about, model| Entry {
        name,
        about,
        model,
        in_tests: !LONG.contains(&name),
    };
    let mut entries = Vec::new();
    entries.extend(
        front::front()
            .into_iter()
            .map(|(name, about, model)| entry(name, about, AnyModel::Scripted(model))),
    );
    entries.extend(
        copies::copies()
            .into_iter()
            .map(|(name, about, model)| entry(name, about, AnyModel::Copies(model))),
    );
    let disk = Disk {
        publishes: 2,
        starts: 2,
        room: 1,
        raises: 2,
        rules: Rules::all(),
    };
    entries.push(entry(
        "disk",
        "one node: written, synced, killed, powered off, started",
        AnyModel::Disk(disk),
    ));
    entries.extend(
        copies::whole()
            .into_iter()
            .map(|(name, about, model)| entry(name, about, AnyModel::Whole(model))),
    );
    entries
}

/// One model by its name.
#[must_use]
pub fn named(name: &str) -> Option<Entry> {
    all().into_iter().find(|entry| entry.name == name)
}
