//! From a history to a report: two or three readings, and one more if there is something to show.

use crate::changes::{Changes, NEVER};
use crate::coverage::{Counter, Coverage, Handover};
use crate::faults::Faults;
use crate::history::{Event, History, HistoryError};
use crate::listening::Listening;
use crate::objects::Objects;
use crate::order;
use crate::publishes::{Outcomes, Publishes};
use crate::report::Report;
use crate::rules::Rules;
use crate::sightings::{Sightings, promises};
use crate::verdict::{Findings, NO_EVENT};
use hashbrown::{HashMap, HashSet};

/// Judges a history.
///
/// Memory: about 130 bytes a publish while they are joined and 90 after it, 64 to 90 bytes for each client and object
/// that it asked for, four bytes for each number up to the highest numbered object, and little else; events themselves
/// are not kept.
///
/// # Errors
/// If the history cannot be read, or has 2^32 events or more.
pub fn check(history: &dyn History, rules: &Rules) -> Result<Report, HistoryError> {
    let mut found = Findings::new(rules.samples);
    let mut publishes = Publishes::default();
    let replayed = history.replay(&mut |number, event| publishes.see(event_number(number), event, rules))?;
    if replayed.events >= u64::from(NO_EVENT) {
        return Err(HistoryError::TooLong {
            events: replayed.events,
        });
    }
    publishes.faults.settle();
    let mut outcomes = publishes.outcomes(rules, &mut found);
    let Publishes {
        mut objects,
        faults,
        finals,
        end_us,
        has_traces,
        strays,
        ..
    } = publishes;
    let changes = join(history, rules, &mut outcomes, &mut objects, &faults, &mut found)?;

    let mut coverage = Coverage::new(&faults);
    coverage.saw_changes(changes.all());
    for possible in &outcomes.possibles {
        coverage.saw(Counter::Unknown, possible.call_us, possible.call_us);
    }
    order::real_time(&changes, &mut found);
    for Handover { at_us } in order::epochs(&changes, &mut found) {
        coverage.saw(Counter::Handovers, at_us, at_us);
    }

    let mut listening = Listening::new(&changes, &mut objects, &faults, rules, &mut found, &mut coverage);
    history.replay(&mut |number, event| listening.see(event_number(number), event))?;
    listening.finish(end_us, &finals);
    let mut report = Report {
        events: replayed.events,
        cut: replayed.cut,
        interested: listening.interested,
        missed: listening.missed,
        deliveries: listening.deliveries,
        resyncs: std::mem::take(&mut listening.resyncs),
        after_unsubscribe: listening.after_unsubscribe,
        publishes: changes.all().iter().filter(|change| change.ack_us != NEVER).count() as u64,
        unknown: outcomes.unknown,
        failed: outcomes.failed,
        objects: objects.len() as u64,
        strays,
        short: Vec::new(),
        verdicts: Vec::new(),
        coverage,
    };
    excerpts(history, &mut found)?;
    let have = Have {
        traces: has_traces,
        finals: !finals.is_empty(),
    };
    report.judge(&found, rules, &have);
    Ok(report)
}

/// What there is to check by.
pub(crate) struct Have {
    pub(crate) traces: bool,
    pub(crate) finals: bool,
}

/// Numbers of events fit, or the check ends with an error after the first reading.
fn event_number(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(NO_EVENT)
}

/// The table of changes, with those that were only seen.
fn join(
    history: &dyn History,
    rules: &Rules,
    outcomes: &mut Outcomes,
    objects: &mut Objects,
    faults: &Faults,
    found: &mut Findings,
) -> Result<Changes, HistoryError> {
    let mut changes = Changes::new(std::mem::take(&mut outcomes.changes), objects.len());
    if !outcomes.possibles.is_empty() {
        let mut sightings = Sightings::new(&changes, outcomes);
        history.replay(&mut |number, event| sightings.see(event_number(number), event, objects))?;
        let seen = sightings.explain(&outcomes.possibles, faults, rules, found);
        changes = changes.with(seen, objects.len());
    }
    let promised = promises(&changes, outcomes);
    if !promised.is_empty() {
        changes = changes.with(promised, objects.len());
    }
    Ok(changes)
}

/// Reads the history once more for the events that show the violations.
fn excerpts(history: &dyn History, found: &mut Findings) -> Result<(), HistoryError> {
    let wanted: HashSet<u64> = found.samples_mut().flat_map(|sample| sample.numbers.clone()).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut lines = HashMap::new();
    history.replay(&mut |number, event| {
        if wanted.contains(&number) {
            lines.insert(number, line(event));
        }
    })?;
    for sample in found.samples_mut() {
        sample.lines = sample
            .numbers
            .iter()
            .filter_map(|number| lines.get(number).cloned())
            .collect();
    }
    Ok(())
}

/// The event as a line, long lists cut.
fn line(event: &Event<'_>) -> String {
    const MOST: usize = 2_000;
    let mut line = event.to_json();
    if line.len() > MOST {
        let cut = (0..=MOST).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(cut);
        line.push('…');
    }
    line
}
