//! One record of what several processes of one load generator found.
//!
//! Counts and latencies add up, whatever two processes both say of the run as a whole is kept once. Their clocks are taken
//! for equal: they run on one machine, or on machines that agree to well under an interval.

use super::{Event, Phase, Process, Record, Status, Verdict, add_latencies};

/// An excerpt keeps at most this many lines when several processes bring one.
const MAX_EXCERPT_LINES: usize = 40;

/// Why two records are not of one run. The record that was to grow is unchanged.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MergeError {
    /// They ran different scenarios.
    #[error("`{this}` and `{other}` are different scenarios, not parts of one run")]
    Scenario {
        /// Of the record that was to grow.
        this: String,
        /// Of the other.
        other: String,
    },
    /// They measured different systems.
    #[error("`{this}` and `{other}` are different systems: list one as a neighbour of the other")]
    System {
        /// Of the record that was to grow.
        this: String,
        /// Of the other.
        other: String,
    },
    /// No doubling makes their intervals equally long.
    #[error("intervals of {this_ms} ms and of {other_ms} ms do not fit each other")]
    Interval {
        /// Of the record that was to grow.
        this_ms: u64,
        /// Of the other.
        other_ms: u64,
    },
}

impl Record {
    /// Adds what another process of the same run found.
    ///
    /// Thresholds are dropped: evaluate them on the whole.
    ///
    /// # Errors
    /// When the two are not parts of one run.
    pub fn merge(&mut self, mut other: Self) -> Result<(), MergeError> {
        self.must_fit(&other)?;
        while self.interval_ms < other.interval_ms {
            self.double();
        }
        while other.interval_ms < self.interval_ms {
            other.double();
        }
        if other.started_unix_ms < self.started_unix_ms {
            std::mem::swap(self, &mut other);
        }
        // Whole intervals, so that two processes started a moment apart still share theirs one by one.
        let length = self.interval_ms.max(1);
        let apart = other.started_unix_ms - self.started_unix_ms;
        let shift = (apart + length / 2) / length * length;

        self.duration_ms = self.duration_ms.max(other.duration_ms + apart);
        self.counts.add(&other.counts);
        add_latencies(&mut self.latency, &other.latency);
        for mut interval in other.timeline {
            interval.at_ms += shift;
            self.place(interval, |one, two| one.saturating_add(two));
        }
        self.thin();
        merge_phases(&mut self.phases, other.phases, shift);
        merge_events(&mut self.events, other.events, apart);
        merge_processes(&mut self.servers, other.servers, apart);
        merge_processes(&mut self.generators, other.generators, apart);
        merge_verdicts(&mut self.verdicts, other.verdicts);
        self.thresholds.clear();
        for warning in other.warnings {
            self.warn(warning);
        }
        for caveat in other.caveats {
            if !self.caveats.contains(&caveat) {
                self.caveats.push(caveat);
            }
        }
        for setting in other.settings {
            if !self.settings.iter().any(|known| known.name == setting.name) {
                self.settings.push(setting);
            }
        }
        self.neighbours.extend(other.neighbours);
        Ok(())
    }

    fn must_fit(&self, other: &Self) -> Result<(), MergeError> {
        if self.scenario != other.scenario {
            return Err(MergeError::Scenario {
                this: self.scenario.clone(),
                other: other.scenario.clone(),
            });
        }
        if self.system != other.system {
            return Err(MergeError::System {
                this: self.system.clone(),
                other: other.system.clone(),
            });
        }
        let (short, long) = (
            self.interval_ms.min(other.interval_ms).max(1),
            self.interval_ms.max(other.interval_ms).max(1),
        );
        if !(long.is_multiple_of(short) && (long / short).is_power_of_two()) {
            return Err(MergeError::Interval {
                this_ms: self.interval_ms,
                other_ms: other.interval_ms,
            });
        }
        Ok(())
    }
}

fn merge_phases(into: &mut Vec<Phase>, from: Vec<Phase>, shift: u64) {
    for phase in from {
        let (from_ms, to_ms) = (phase.from_ms + shift, phase.to_ms + shift);
        match into.iter_mut().find(|known| known.name == phase.name) {
            Some(known) => {
                known.from_ms = known.from_ms.min(from_ms);
                known.to_ms = known.to_ms.max(to_ms);
            }
            None => into.push(Phase {
                from_ms,
                to_ms,
                ..phase
            }),
        }
    }
    into.sort_by_key(|phase| (phase.from_ms, phase.to_ms));
}

fn merge_events(into: &mut Vec<Event>, from: Vec<Event>, apart: u64) {
    for event in from {
        let event = Event {
            at_ms: event.at_ms + apart,
            until_ms: event.until_ms.map(|until| until + apart),
            ..event
        };
        if !into.contains(&event) {
            into.push(event);
        }
    }
    into.sort_by_key(|event| event.at_ms);
}

/// A process that two watched is kept as the one saw it who looked more often.
fn merge_processes(into: &mut Vec<Process>, from: Vec<Process>, apart: u64) {
    for mut process in from {
        process.samples.iter_mut().for_each(|sample| sample.at_ms += apart);
        match into.iter_mut().find(|known| known.name == process.name) {
            Some(known) if known.samples.len() < process.samples.len() => *known = process,
            Some(_) => {}
            None => into.push(process),
        }
    }
}

/// The worse of two verdicts speaks; coverage and violations add up.
fn merge_verdicts(into: &mut Vec<Verdict>, from: Vec<Verdict>) {
    for verdict in from {
        let Some(known) = into.iter_mut().find(|known| known.name == verdict.name) else {
            into.push(verdict);
            continue;
        };
        known.violations = known.violations.saturating_add(verdict.violations);
        for (what, n) in verdict.coverage {
            let sum = known.coverage.entry(what).or_default();
            *sum = sum.saturating_add(n);
        }
        known.excerpt.extend(verdict.excerpt);
        known.excerpt.truncate(MAX_EXCERPT_LINES);
        if worse(verdict.status, known.status) {
            known.status = verdict.status;
            known.text = verdict.text;
        }
    }
}

/// One part that was put to the test speaks for the whole where another was not: held beats inconclusive and not checked.
fn worse(new: Status, old: Status) -> bool {
    let rank = |status| match status {
        Status::NotChecked => 0,
        Status::Inconclusive => 1,
        Status::Held => 2,
        Status::Violated => 3,
    };
    rank(new) > rank(old)
}
