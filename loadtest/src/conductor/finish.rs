//! The end of a run: final versions, verdicts, thresholds, and whether the figures can be trusted.

use super::{Conductor, PHASES, Wanted};
use crate::clock;
use crate::http::Client;
use crate::judge;
use crate::machine;
use crate::messages::{Ack, Judgement};
use crate::names::Names;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidings_checker::history::{Object, What};
use tidings_client::wire::ObjectState;
use tidings_report::record::{Record, Status, ThresholdResult, Verdict, kind};
use tidings_report::words;

const PATIENCE: Duration = Duration::from_secs(10);
/// Requests on their way at a time while final versions are read.
const PIPELINE: usize = 50;
/// Final versions of so many objects are read for a history.
const FINALS: usize = 50_000;
/// More sends than this share being late makes latencies doubtful.
const LATE_SHARE: f64 = 0.01;
/// So does a worker without time to spare in more than this share of the load.
const BUSY_SHARE: f64 = 0.5;

/// A run that came to its end.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) record: Record,
    /// How many pairs of a subscriber and an object were lost, in a sentence.
    pub(crate) headline: String,
}

/// What a record says of the run before it began.
pub(super) fn describe(record: &mut Record, wanted: &Wanted, limit: u64) {
    let scenario = &wanted.scenario;
    record.about.clone_from(&scenario.about);
    record.command.clone_from(&wanted.command);
    record.machine = machine::here(limit);
    if let Ok(toml::Value::Table(table)) = toml::Value::try_from(scenario) {
        for (section, value) in table {
            if ["name", "about", "thresholds"].contains(&section.as_str()) {
                continue;
            }
            show(record, &section, &value);
        }
    }
    record.set("processes", wanted.processes);
}

/// Settings flat, as `--set` takes them.
fn show(record: &mut Record, name: &str, value: &toml::Value) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                show(record, &format!("{name}.{key}"), value);
            }
        }
        toml::Value::String(text) => record.set(name, text),
        other => record.set(name, other),
    }
}

/// The files of a history, in order.
pub(crate) fn history_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "tidings" || extension == "jsonl")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

impl Conductor {
    /// What streams published has versions only on the server.
    pub(super) fn read_stream_versions(&mut self) -> Result<(), String> {
        let objects: Vec<u32> = self.heard.unversioned.keys().copied().collect();
        let versions = self
            .versions(&objects)
            .map_err(|error| format!("final versions cannot be read: {error}"))?;
        for (object, version) in versions {
            let called_us = self.heard.unversioned.get(&object).copied().unwrap_or(0);
            let version = version.unwrap_or(0);
            let ack = Ack {
                object,
                version,
                called_us,
            };
            self.heard.acks.insert(object, ack);
        }
        Ok(())
    }

    /// For the history: what the server names as the newest of what was published.
    pub(super) fn read_finals(&mut self) {
        if !self.witness.is_on() {
            return;
        }
        // The history goes on until here even if nobody was told anything any more.
        let text = "the settle window is over".into();
        self.witness.see(clock::now_us(), What::Note { text });
        let mut objects: Vec<u32> = self.heard.acks.keys().copied().collect();
        objects.sort_unstable();
        objects.truncate(FINALS);
        match self.versions(&objects) {
            Ok(versions) => {
                for (object, version) in versions {
                    let obj = Object::Number(u64::from(object));
                    let version = version.filter(|version| *version > 0);
                    self.witness.see(clock::now_us(), What::Final { obj, version });
                }
            }
            Err(error) => self.record.warn(format!("final versions cannot be read: {error}")),
        }
    }

    fn versions(&self, objects: &[u32]) -> io::Result<Vec<(u32, Option<u64>)>> {
        let mut versions = Vec::with_capacity(objects.len());
        let Some(target) = self.targets.first().filter(|_| !objects.is_empty()) else {
            return Ok(versions);
        };
        let names = Names::new(&self.wanted.scenario.objects.prefix);
        let mut client = Client::connect(target.address, &target.host, PATIENCE)?;
        for page in objects.chunks(PIPELINE) {
            let path = |object: &u32| format!("/v1/object?object={}", escape(&names.text(*object)));
            let paths: Vec<_> = page.iter().map(path).collect();
            let mut trouble = Ok(());
            client.get_all(&paths, |at, status, body| match ObjectState::read(body) {
                Ok(state) if status == 200 => versions.push((page[at], state.version.map(|version| version.0))),
                Ok(_) | Err(_) => trouble = Err(io::Error::other(format!("GET {} gave status {status}", paths[at]))),
            })?;
            trouble?;
        }
        Ok(versions)
    }

    pub(super) fn finish(&mut self) -> Result<Finished, String> {
        let history_error = self.witness.finish();
        self.heard.history_errors.extend(history_error);
        let at_ms = self.now_ms();
        self.end_phase(at_ms);
        let mut record = std::mem::take(&mut self.record);
        record.duration_ms = at_ms;
        record.servers = std::mem::take(&mut self.servers)
            .into_iter()
            .map(|watch| watch.process)
            .collect();
        record.servers.retain(|process| !process.samples.is_empty());
        record.generators = std::mem::take(&mut self.generators)
            .into_iter()
            .map(|watch| watch.process)
            .collect();
        let judgement = sum(&self.heard.judgements);
        let headline = headline(&judgement);
        online(&mut record, &self.wanted, &judgement, &headline);
        for error in std::mem::take(&mut self.heard.history_errors) {
            record.verdicts.push(Verdict {
                name: "history".to_owned(),
                title: "The history is whole".to_owned(),
                status: Status::Inconclusive,
                text: error,
                ..Verdict::default()
            });
        }
        if let Some(folder) = &self.wanted.history {
            self.progress.say("judging the history");
            let files = history_files(folder).map_err(|error| error.to_string())?;
            let (report, verdicts) = judge::history(&files, &judge::rules(&self.wanted.scenario))?;
            record.set("history", format!("{} events", words::count(report.events as f64)));
            record.verdicts.extend(verdicts);
        }
        record.thresholds = self.wanted.thresholds.evaluate(&record);
        let doubts = self.doubts(&record);
        doubt(&mut record, &doubts);
        Ok(Finished { record, headline })
    }

    /// Why the generator itself may have been the bottleneck.
    fn doubts(&self, record: &Record) -> Vec<String> {
        let mut doubts = Vec::new();
        let (late, intended) = (record.counts.late_sends as f64, record.counts.intended.max(1) as f64);
        if late / intended > LATE_SHARE {
            let p99 = record
                .latency
                .get(kind::LATENESS)
                .map_or(0, |late| late.percentile_us(99.0));
            doubts.push(format!(
                "the generator itself sent {} of all changes more than {} late (p99 {}), which latencies include",
                words::percent(100.0 * late / intended),
                self.wanted.scenario.publishers.tolerance,
                words::duration_us(p99 as f64),
            ));
        }
        let (busy, ticks) = (self.heard.busy_ticks as f64, self.heard.load_ticks.max(1) as f64);
        if busy / ticks > BUSY_SHARE {
            doubts.push(format!(
                "the generator was itself the bottleneck: its threads had no time to spare in {} of the load; use more \
                 threads (--set run.threads=N) or --processes",
                words::percent(100.0 * busy / ticks)
            ));
        }
        doubts
    }
}

/// A latency that missed its threshold while the generator was late says nothing about the server: inconclusive.
fn doubt(record: &mut Record, doubts: &[String]) {
    for text in doubts {
        record.warn(text.clone());
    }
    if doubts.is_empty() {
        return;
    }
    let is_doubtful = |result: &ThresholdResult| !result.passed && result.metric.starts_with("latency");
    let (doubtful, sure) = std::mem::take(&mut record.thresholds)
        .into_iter()
        .partition(is_doubtful);
    record.thresholds = sure;
    let doubtful: Vec<ThresholdResult> = doubtful;
    for result in doubtful {
        let measured = result
            .measured
            .map_or_else(|| "nothing".to_owned(), |value| format!("{value:.3}"));
        record.verdicts.push(Verdict {
            name: result.metric.clone(),
            title: format!("{} {}", result.metric, result.limit),
            status: Status::Inconclusive,
            text: format!("measured {measured}, but {}", doubts.join("; and ")),
            ..Verdict::default()
        });
    }
}

fn sum(judgements: &[Judgement]) -> Judgement {
    let mut sum = Judgement::default();
    for one in judgements {
        sum.pairs += one.pairs;
        sum.resynced += one.resynced;
        sum.lost += one.lost;
        sum.away += one.away;
        sum.examples.extend(one.examples.iter().cloned());
        sum.took_us = sum.took_us.max(one.took_us);
    }
    sum
}

fn headline(judgement: &Judgement) -> String {
    let count = |value: u64| words::count(value as f64);
    let mut text = format!("lost: {} of {} pairs", count(judgement.lost), count(judgement.pairs));
    if judgement.resynced > 0 {
        text.push_str(&format!(" ({} were told to fetch instead)", count(judgement.resynced)));
    }
    if judgement.away > 0 {
        text.push_str(&format!("; {} subscribers did not get back in", count(judgement.away)));
    }
    text
}

/// What is known without a history: I1 for the newest of each object, I6.
fn online(record: &mut Record, wanted: &Wanted, judgement: &Judgement, headline: &str) {
    let scenario = &wanted.scenario;
    let is_asked = scenario.subscribers.count > 0 && scenario.publishes() && scenario.publishers.watched > 0.0;
    let status = match judgement {
        Judgement { lost: 1.., .. } | Judgement { away: 1.., .. } => Status::Violated,
        Judgement { pairs: 1.., .. } => Status::Held,
        _ if is_asked => Status::Inconclusive,
        _ => Status::NotChecked,
    };
    let mut text = headline.to_owned();
    if judgement.pairs > 0 && judgement.lost == 0 {
        text.push_str(&format!(
            "; all were told {} after the load",
            words::duration_us(judgement.took_us as f64)
        ));
    }
    let mut verdict = Verdict {
        name: "I1 online".to_owned(),
        title: "everybody is told the newest".to_owned(),
        status,
        text,
        violations: judgement.lost.max(judgement.away),
        excerpt: judgement.examples.clone(),
        ..Verdict::default()
    };
    verdict.coverage.insert("pairs".to_owned(), judgement.pairs);
    record.verdicts.push(verdict);
    let counts = &record.counts;
    let (went_back, delivered) = (counts.went_back, counts.delivered);
    let mut verdict = Verdict {
        name: "I6 online".to_owned(),
        title: "no travel back".to_owned(),
        status: match (went_back, delivered) {
            (1.., _) => Status::Violated,
            (0, 0) if is_asked => Status::Inconclusive,
            (0, 0) => Status::NotChecked,
            _ => Status::Held,
        },
        text: format!(
            "{} of {} went back",
            words::count(went_back as f64),
            words::count(delivered as f64)
        ),
        violations: went_back,
        ..Verdict::default()
    };
    verdict.coverage.insert("deliveries".to_owned(), delivered);
    record.verdicts.push(verdict);
}

/// Percent-encodes what a query may not hold as it is.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Refuses thresholds of phases that no run has.
pub(crate) fn check_thresholds(thresholds: &tidings_report::thresholds::Thresholds) -> Result<(), String> {
    thresholds.check_phases(&PHASES).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            scenario: crate::scenario::Scenario::default(),
            thresholds: tidings_report::thresholds::Thresholds::default(),
            targets: Vec::new(),
            start_server: None,
            processes: 1,
            history: None,
            command: String::new(),
            quiet: true,
        }
    }

    fn outcome(judgement: &Judgement, went_back: u64) -> Status {
        let mut record = Record::new("x", "y", 0, 1_000);
        record.counts.delivered = 10;
        record.counts.went_back = went_back;
        online(&mut record, &wanted(), judgement, &headline(judgement));
        record.outcome()
    }

    #[test]
    fn a_run_that_put_nothing_to_the_test_is_not_green() {
        let judgement = |pairs, lost, away| Judgement {
            pairs,
            lost,
            away,
            ..Judgement::default()
        };
        assert_eq!(outcome(&judgement(5, 0, 0), 0), Status::Held);
        assert_eq!(outcome(&judgement(5, 1, 0), 0), Status::Violated);
        assert_eq!(outcome(&judgement(5, 0, 1), 0), Status::Violated);
        assert_eq!(outcome(&judgement(5, 0, 0), 1), Status::Violated);
        assert_eq!(outcome(&judgement(0, 0, 0), 0), Status::Inconclusive);
    }

    #[test]
    fn a_missed_latency_of_a_late_generator_is_inconclusive_and_any_other_miss_is_not() {
        let missed = |metric: &str| ThresholdResult {
            metric: metric.to_owned(),
            limit: "<= 1".to_owned(),
            measured: Some(2.0),
            passed: false,
        };
        let mut record = Record::new("x", "y", 0, 1_000);
        record.thresholds = vec![missed("latency.p99_ms")];
        doubt(&mut record, &["late".to_owned()]);
        assert_eq!(record.outcome(), Status::Inconclusive);
        record.thresholds = vec![missed("latency.p99_ms"), missed("publish_failed")];
        doubt(&mut record, &["late".to_owned()]);
        assert_eq!(record.outcome(), Status::Violated);
    }
}
