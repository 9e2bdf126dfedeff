//! What the checker says of a history, as a record tells it.

use crate::scenario::{FaultKind, Scenario};
use std::path::PathBuf;
use tidings_checker::history::Files;
use tidings_checker::rules::CAUSES;
use tidings_checker::verdict::Tally;
use tidings_checker::{Invariant, Report, Rules, check};
use tidings_report::record::{Status, Verdict};

/// Lines of an excerpt.
const EXCERPT: usize = 40;

/// What a scenario allows itself.
pub(crate) fn rules(scenario: &Scenario) -> Rules {
    let mut rules = Rules {
        settle_us: scenario.run.settle.us(),
        // One node, and no loss of power.
        accepted_is_promised: true,
        ..Rules::default()
    };
    let restarts = scenario.faults.kinds.iter().any(|kind| *kind != FaultKind::Pause);
    if scenario.server.in_memory && restarts {
        // Such a server forgets everything and says so.
        rules.lost_copies = true;
        rules.allowed_resyncs = CAUSES.iter().map(|cause| (*cause).to_owned()).collect();
    }
    if scenario.subscribers.count == 0 || !scenario.publishes() || scenario.publishers.watched <= 0.0 {
        rules.required.clear();
    }
    // Nobody is promised to publish one object twice, one after the other.
    rules.required.remove(&Invariant::I3);
    rules
}

/// Judges the files of one history.
pub(crate) fn history(files: &[PathBuf], rules: &Rules) -> Result<(Report, Vec<Verdict>), String> {
    let files = Files::open(files).map_err(|error| error.to_string())?;
    let report = check(&files, rules).map_err(|error| error.to_string())?;
    let verdicts = report
        .verdicts
        .iter()
        .map(|(invariant, verdict, tally)| told(*invariant, verdict, tally));
    let mut verdicts: Vec<_> = verdicts.collect();
    if !report.short.is_empty() {
        verdicts.push(Verdict {
            name: "coverage".to_owned(),
            title: "enough was seen".to_owned(),
            status: Status::Inconclusive,
            text: report.short.join("; "),
            ..Verdict::default()
        });
    }
    Ok((report, verdicts))
}

fn told(invariant: Invariant, verdict: &tidings_checker::Verdict, tally: &Tally) -> Verdict {
    use tidings_checker::Verdict as Said;
    let (status, text) = match verdict {
        Said::Holds => (Status::Held, format!("held {} times", tally.checked)),
        Said::Violated(times) => {
            let first = tally.samples.first().map_or("", |sample| &sample.what);
            (Status::Violated, format!("violated {times} times: {first}"))
        }
        Said::Inconclusive(why) => (Status::Inconclusive, why.join("; ")),
        Said::NotChecked(why) => (Status::NotChecked, (*why).to_owned()),
    };
    let lines = tally.samples.iter().flat_map(|sample| {
        let what = std::iter::once(format!("{}:", sample.what));
        what.chain(sample.lines.iter().cloned())
    });
    let mut told = Verdict {
        name: invariant.to_string(),
        title: invariant.says().split(": ").next().unwrap_or_default().to_owned(),
        status,
        text,
        violations: tally.violations,
        excerpt: lines.take(EXCERPT).collect(),
        ..Verdict::default()
    };
    told.coverage.insert("checked".to_owned(), tally.checked);
    for (what, times) in &tally.notes {
        told.coverage.insert((*what).to_owned(), *times);
    }
    told
}
