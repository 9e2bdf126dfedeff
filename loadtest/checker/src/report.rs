//! What is said of a run: for people, and as an exit code.

use crate::check::Have;
use crate::coverage::{Counts, Coverage, NAMES};
use crate::rules::Rules;
use crate::verdict::{Findings, Invariant, Tally, Verdict};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Everything that is said of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Events in all files.
    pub events: u64,
    /// Files that end before their writer ended them.
    pub cut: Vec<PathBuf>,
    /// Changes times clients that had to be told of them: acknowledged, and held from before the call to the end.
    pub interested: u64,
    /// How many of these were neither told nor resynced.
    pub missed: u64,
    /// Changes that clients were told.
    pub deliveries: u64,
    /// Changes that were acknowledged.
    pub publishes: u64,
    /// Attempts with unknown outcome.
    pub unknown: u64,
    /// Attempts that surely were not applied.
    pub failed: u64,
    /// Objects that were published, told or asked for.
    pub objects: u64,
    /// Resyncs by cause.
    pub resyncs: BTreeMap<String, u64>,
    /// Deliveries of objects that the client had unsubscribed: I15 is not judged here, the count is for people.
    pub after_unsubscribe: u64,
    /// Outcomes of publishes whose call is not in the history.
    pub strays: u64,
    /// What was seen, in the run and during each fault.
    pub coverage: Coverage,
    /// Floors of the rules that were not reached.
    pub short: Vec<String>,
    /// What is said of each invariant, and what that rests on.
    pub verdicts: Vec<(Invariant, Verdict, Tally)>,
}

impl Report {
    pub(crate) fn judge(&mut self, found: &Findings, rules: &Rules, have: &Have) {
        self.short = self.below_floors(rules);
        for invariant in Invariant::ALL {
            let tally = found.of(invariant).clone();
            let verdict = self.verdict(invariant, &tally, rules, have);
            self.verdicts.push((invariant, verdict, tally));
        }
    }

    fn verdict(&self, invariant: Invariant, tally: &Tally, rules: &Rules, have: &Have) -> Verdict {
        if tally.violations > 0 {
            return Verdict::Violated(tally.violations);
        }
        let mut why: Vec<_> = tally
            .doubts
            .iter()
            .map(|(why, times)| format!("{why}: {times} times"))
            .collect();
        if matches!(invariant, Invariant::I1 | Invariant::I12 | Invariant::I13) && !self.cut.is_empty() {
            why.push("a file of the history was cut short, so its clients' end is unknown".to_owned());
        }
        if self.strays > 0 && matches!(invariant, Invariant::I1 | Invariant::I3 | Invariant::I4) {
            why.push(format!("{} outcomes of publishes have no call", self.strays));
        }
        // No resync is what I14 is about.
        let is_untested = tally.checked == 0 && invariant != Invariant::I14;
        if is_untested && rules.required.contains(&invariant) {
            why.push(format!("it was never put to the test: {}", missing(invariant, have)));
        }
        if !why.is_empty() {
            Verdict::Inconclusive(why)
        } else if is_untested {
            Verdict::NotChecked(missing(invariant, have))
        } else {
            Verdict::Holds
        }
    }

    /// The floors that were not reached.
    fn below_floors(&self, rules: &Rules) -> Vec<String> {
        let count = |floor: &crate::rules::Floor| {
            let counts = if floor.fault == "run" {
                Some(&self.coverage.run)
            } else {
                self.coverage.faults.get(&floor.fault)
            };
            counts.map_or(0, |counts| counts.of(&floor.what))
        };
        let short = rules.floors.iter().filter(|floor| count(floor) < floor.least);
        short
            .map(|floor| {
                format!(
                    "{}.{} was {}, the floor is {}",
                    floor.fault,
                    floor.what,
                    count(floor),
                    floor.least
                )
            })
            .collect()
    }

    /// What is said of one invariant.
    #[must_use]
    pub fn of(&self, invariant: Invariant) -> &Verdict {
        &self.verdicts[invariant as usize].1
    }

    /// The headline: changes that somebody had to be told of and never was, for each million.
    #[must_use]
    pub fn missed_per_million(&self) -> f64 {
        if self.interested == 0 {
            0.0
        } else {
            self.missed as f64 * 1e6 / self.interested as f64
        }
    }

    /// 0 if all that was checked holds, 1 if anything is violated, 2 if anything is inconclusive or a floor not reached.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let has = |is: fn(&Verdict) -> bool| self.verdicts.iter().any(|(_, verdict, _)| is(verdict));
        if has(|verdict| matches!(verdict, Verdict::Violated(_))) {
            1
        } else if !self.short.is_empty() || has(|verdict| matches!(verdict, Verdict::Inconclusive(_))) {
            2
        } else {
            0
        }
    }
}

/// What the history lacks.
fn missing(invariant: Invariant, have: &Have) -> &'static str {
    match invariant {
        Invariant::I1 => "no client held an object from before a publish to the end",
        Invariant::I2 => "no cursor was handed",
        Invariant::I3 => "no object was published twice, one after the other",
        Invariant::I4 => "nothing was acknowledged",
        Invariant::I5 | Invariant::I6 => "nothing was told",
        Invariant::I7 if !have.traces => "no acknowledgement says shard and epoch (trace=1)",
        Invariant::I7 => "nothing was acknowledged",
        Invariant::I8 => "no shard was seen in two epochs",
        Invariant::I9 | Invariant::I12 if !have.finals => "there are no final versions",
        Invariant::I9 | Invariant::I12 => "no final version is of an object that was told",
        Invariant::I11 => "nobody came back with a cursor",
        Invariant::I13 => "nobody asked for an object after it was published",
        Invariant::I14 => "",
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} events: {} publishes acknowledged, {} unknown, {} failed; {} deliveries; {} objects",
            self.events, self.publishes, self.unknown, self.failed, self.deliveries, self.objects
        )?;
        writeln!(
            f,
            "missed: {:.3} per million ({} of {} acknowledged changes x clients that hold the object)",
            self.missed_per_million(),
            self.missed,
            self.interested
        )?;
        for path in &self.cut {
            writeln!(f, "cut short: {}", path.display())?;
        }
        if self.after_unsubscribe > 0 {
            writeln!(f, "told after unsubscribing: {}", self.after_unsubscribe)?;
        }
        for (cause, times) in &self.resyncs {
            writeln!(f, "resyncs because of {cause}: {times}")?;
        }
        write_counts(f, "the run", &self.coverage.run)?;
        for (fault, counts) in &self.coverage.faults {
            write_counts(f, fault, counts)?;
        }
        for short in &self.short {
            writeln!(f, "TOO LITTLE SEEN: {short}")?;
        }
        for (invariant, verdict, tally) in &self.verdicts {
            write_verdict(f, *invariant, verdict, tally)?;
        }
        Ok(())
    }
}

fn write_counts(f: &mut fmt::Formatter<'_>, name: &str, counts: &Counts) -> fmt::Result {
    let counts: Vec<_> = NAMES.iter().map(|what| format!("{what} {}", counts.of(what))).collect();
    writeln!(f, "seen in {name}: {}", counts.join(", "))
}

fn write_verdict(f: &mut fmt::Formatter<'_>, invariant: Invariant, verdict: &Verdict, tally: &Tally) -> fmt::Result {
    let word = match verdict {
        Verdict::Holds => format!("holds ({} times)", tally.checked),
        Verdict::Violated(times) => format!("VIOLATED {times} times"),
        Verdict::Inconclusive(_) => "INCONCLUSIVE".to_owned(),
        Verdict::NotChecked(why) => format!("not checked: {why}"),
    };
    writeln!(f, "{invariant:?} {word}: {}", invariant.says())?;
    if let Verdict::Inconclusive(why) = verdict {
        for why in why {
            writeln!(f, "    {why}")?;
        }
    }
    for (what, times) in &tally.notes {
        writeln!(f, "    {what}: {times}")?;
    }
    for sample in &tally.samples {
        writeln!(f, "    {}:", sample.what)?;
        for line in &sample.lines {
            writeln!(f, "        {line}")?;
        }
    }
    Ok(())
}
