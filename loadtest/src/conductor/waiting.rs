//! The time in between: taking in what workers report, looking at processes once a second, showing how far it is.

use super::Conductor;
use crate::clock;
use crate::crew::Crew;
use crate::messages::{Order, Report, Tick, Word};
use crate::progress::Figures;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use tidings_report::record::kind;

const SECOND_US: u64 = 1_000_000;
const NAP: Duration = Duration::from_millis(10);
/// A worker that is on a processor for more than this share of an interval had no time to spare.
const BUSY: f64 = 0.9;

impl Conductor {
    /// Until a moment; whoever fails meanwhile ends the run.
    pub(super) fn wait_until(&mut self, crew: &mut Crew, until_us: u64) -> Result<(), String> {
        while clock::now_us() < until_us && !self.ceased {
            self.turn(crew)?;
        }
        Ok(())
    }

    /// Until workers have said enough, at most until a moment.
    pub(super) fn wait(
        &mut self,
        crew: &mut Crew,
        until_us: u64,
        enough: impl Fn(&super::Heard) -> bool,
    ) -> Result<(), String> {
        while !enough(&self.heard) {
            self.turn(crew)?;
            if clock::now_us() > until_us {
                return Err(format!("the phase `{}` does not end: a worker hangs", self.phase));
            }
        }
        Ok(())
    }

    /// Faults end, and the server is fit again.
    pub(super) fn heal(&mut self, crew: &mut Crew) -> Result<(), String> {
        if let Some(faults) = &mut self.faults {
            faults.heal();
        }
        while self.faults.as_ref().is_some_and(|faults| !faults.is_quiet()) {
            self.turn(crew)?;
        }
        Ok(())
    }

    fn turn(&mut self, crew: &mut Crew) -> Result<(), String> {
        match crew.reports().recv_timeout(NAP) {
            Ok(report) => self.take(report)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err("all workers are gone".to_owned()),
        }
        while let Ok(report) = crew.reports().try_recv() {
            self.take(report)?;
        }
        self.disturb()?;
        if self.interrupted.load(Ordering::Relaxed) && !self.ceased {
            if self.start_us == u64::MAX {
                return Err("interrupted before the load began".to_owned());
            }
            self.ceased = true;
            self.record.warn("interrupted: the load ended before its time");
            self.progress
                .say("interrupted: the load ends here (once more to give up at once)");
            crew.order(&Order::Cease)?;
        }
        let now = clock::now_us();
        if now - self.looked_us >= SECOND_US {
            self.look(now);
        }
        Ok(())
    }

    fn take(&mut self, report: Report) -> Result<(), String> {
        let heard = &mut self.heard;
        match report.word {
            Word::Ready => heard.ready += 1,
            Word::Tick(tick) => self.tick(report.worker, *tick),
            Word::Published { acks, unversioned } => {
                heard.published += 1;
                for ack in acks {
                    let newest = heard.acks.entry(ack.object).or_insert(ack);
                    if ack.version > newest.version {
                        *newest = ack;
                    }
                }
                for (object, called_us) in unversioned {
                    let newest = heard.unversioned.entry(object).or_insert(called_us);
                    *newest = called_us.max(*newest);
                }
            }
            Word::Judged(judgement) => heard.judgements.push(judgement),
            Word::Ended { history_error } => {
                heard.ended += 1;
                heard.history_errors.extend(history_error);
            }
            Word::Failed(why) => return Err(why),
        }
        Ok(())
    }

    fn tick(&mut self, worker: u32, tick: Tick) {
        let Tick {
            mut interval,
            late_us,
            busy,
            warnings,
        } = tick;
        let heard = &mut self.heard;
        heard.connections.insert(worker, interval.connections);
        interval.connections = heard.connections.values().sum();
        heard.counts.add(&interval.counts);
        if let Some(latency) = interval.latency.get(kind::DELIVER) {
            heard.latency.add(latency);
        }
        heard.late_us = heard.late_us.max(late_us);
        if self.phase == "load" {
            heard.load_ticks += 1;
            heard.busy_ticks += u64::from(busy > BUSY);
        }
        let is_expected = |warning: &String| {
            // Where the run itself ends servers, connections end, and are counted.
            !self.wanted.scenario.faults.kinds.is_empty() && warning.contains("connection ended")
        };
        for warning in warnings.into_iter().filter(|warning| !is_expected(warning)) {
            self.record.warn(warning);
        }
        self.record.push(interval);
    }

    /// Looks at all processes, and shows what the last second brought.
    fn look(&mut self, now: u64) {
        let past_s = (now - self.looked_us) as f64 / 1e6;
        self.looked_us = now;
        let counts = std::mem::take(&mut self.heard.counts);
        let latency = std::mem::take(&mut self.heard.latency);
        let late_us = std::mem::take(&mut self.heard.late_us);
        let mut seen = None;
        for watch in &mut self.servers {
            if let Some(found) = watch.look(self.epoch_us, now) {
                let sum: &mut crate::watching::Seen = seen.get_or_insert_default();
                sum.cpu_cores += found.cpu_cores;
                sum.memory_bytes += found.memory_bytes;
            }
        }
        let generators = self.generators.len().max(1) as f64;
        for watch in &mut self.generators {
            if watch.look(self.epoch_us, now).is_some() {
                watch.add(counts.delivered as f64 / past_s / generators, late_us);
            }
        }
        let (at_us, of_us) = match self.start_us {
            u64::MAX => (now - self.epoch_us, 0),
            start_us => (now.saturating_sub(start_us), self.wanted.scenario.run.duration.us()),
        };
        self.progress.show(&Figures {
            at_s: at_us / SECOND_US,
            of_s: of_us / SECOND_US,
            phase: self.phase,
            published_per_s: counts.published as f64 / past_s,
            delivered_per_s: counts.delivered as f64 / past_s,
            p50_us: latency.percentile_us(50.0),
            p99_us: latency.percentile_us(99.0),
            connections: self.heard.connections.values().sum(),
            server_cores: seen.map(|seen| seen.cpu_cores),
            server_bytes: seen.map(|seen| seen.memory_bytes),
        });
    }
}
