//! One reader stops reading while its objects change thousands of times a second: what that costs the server and the
//! neighbours, and whether the reader then gets the newest of everything.

use crate::latency::Latency;
use crate::message::{self, BatchPublished};
use crate::meter;
use crate::net::{Dial, Happening, Net, SocketId, Speech};
use crate::report::{Goal, Report};
use crate::server::Launcher;
use crate::{http, swarm};
use serde_json::json;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Small, so that the kernel of the reader does not take the backlog in the server's stead.
const SLOW_RECEIVE_BUFFER: usize = 16 * 1024;
const MIB: f64 = 1_048_576.0;

/// One reader stops reading: growth of the server, delay of the neighbours, and what the reader gets afterwards
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Slow {
    #[arg(long, default_value_t = 100)]
    pub(crate) objects: usize,
    /// Healthy readers, each of all objects
    #[arg(long, default_value_t = 50)]
    pub(crate) readers: usize,
    /// Changes a second in all
    #[arg(long, default_value_t = 5_000)]
    pub(crate) rate: u32,
    /// Changes in one publish request
    #[arg(long, default_value_t = 50)]
    pub(crate) batch: usize,
    /// Seconds before the reader stops
    #[arg(long, default_value_t = 10.0)]
    pub(crate) before: f64,
    /// Seconds the reader does not read
    #[arg(long, default_value_t = 20.0)]
    pub(crate) stalled: f64,
    #[arg(long, default_value_t = 1)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) launcher: Launcher,
}

impl Slow {
    pub(crate) fn run(&self) -> io::Result<Report> {
        let parameters = json!({
            "objects": self.objects, "readers": self.readers, "changes_per_second": self.rate,
            "batch": self.batch, "stalled_seconds": self.stalled,
            "server_threads": self.launcher.threads(), "pinned": self.launcher.pinned(),
        });
        let mut report = Report::new("slow", parameters);
        self.launcher.pin_self()?;
        for _ in 0..self.rounds {
            self.round(&mut report)?;
        }
        report
            .note("latency counts from when a batch was due; versions replaced by newer ones before sending have none");
        Ok(report)
    }

    fn round(&self, report: &mut Report) -> io::Result<()> {
        let server = self.launcher.start()?;
        let mut net = Net::new()?;
        let ids = swarm::connect_each(&mut net, self.readers + 1, |index| {
            let receive_buffer = (index == self.readers).then_some(SLOW_RECEIVE_BUFFER);
            Dial {
                receive_buffer,
                ..Dial::nth(server.address, Speech::WebSocket, index)
            }
        })?;
        let names: Vec<_> = (0..self.objects).map(|object| format!("slow:{object}")).collect();
        let text = message::subscribe(names.iter().map(String::as_str), None);
        swarm::subscribe(&mut net, &ids, self.objects, 8, |_| text.clone())?;
        let slow = ids[self.readers];
        let publisher = swarm::connect(&mut net, server.address, Speech::Http, 1)?[0];
        let mut flow = Flow::new(self, server.address, publisher, ids[0])?;

        flow.run(&mut net, self.before, |_| false)?;
        let rss = meter::rss_bytes(server.pid)?;
        net.pause(slow);
        flow.during = true;
        let mut highest = rss;
        let (began, published) = (Instant::now(), flow.published);
        while began.elapsed().as_secs_f64() < self.stalled {
            flow.run(&mut net, 0.5, |_| false)?;
            highest = highest.max(meter::rss_bytes(server.pid)?);
        }
        flow.during = false;
        let missed = flow.published - published;
        let (newest, heard) = (flow.newest(), flow.heard_by_slow);
        let resumed = Instant::now();
        net.resume(slow)?;
        flow.run(&mut net, 10.0, |flow| flow.slow_has(&newest))?;
        let caught_up = resumed.elapsed().as_secs_f64();
        let catching_up = flow.heard_by_slow - heard;
        flow.run(&mut net, 2.0, |_| false)?;
        flow.finish(&mut net)?;

        let grown = (highest as f64 - rss as f64) / MIB;
        report.add_goal("server RSS growth while stalled", "MiB", grown, Goal::AtMost(1.0));
        report.add("server RSS before", "MiB", rss as f64 / MIB);
        report.add("neighbours p50 before", "ms", flow.before_latency.ms(0.5));
        report.add("neighbours p99 before", "ms", flow.before_latency.ms(0.99));
        report.add("neighbours p50 during", "ms", flow.during_latency.ms(0.5));
        report.add("neighbours p99 during", "ms", flow.during_latency.ms(0.99));
        report.add("slow reader caught up after", "s", caught_up);
        report.add("changes told to catch up", "", catching_up as f64);
        report.add("changes missed while stalled", "", missed as f64);
        report.add("changes published", "", flow.published as f64);
        report.add("changes told per reader", "", flow.heard as f64 / self.readers as f64);
        report.add("generator late p99", "ms", flow.lateness.ms(0.99));
        if catching_up >= missed {
            report.note("the kernel's buffers held all that the stalled reader missed: the server was not tested");
        }
        if flow.repeated > 0 {
            report.note(format!("{} changes were repeated with the same version", flow.repeated));
        }
        for failure in flow.failures.into_iter().take(5) {
            report.fail(failure);
        }
        Ok(())
    }
}

/// A change told before its publish was answered: its version names no batch yet.
#[derive(Debug, Clone, Copy)]
struct Early {
    object: usize,
    version: u64,
    at: Instant,
}

/// The open loop and all that is known of what was published and told.
#[derive(Debug)]
struct Flow<'a> {
    plan: &'a Slow,
    host: SocketAddr,
    publisher: SocketId,
    first: SocketId,
    began: Instant,
    sent: usize,
    /// When the outstanding request was due and where in the round of objects it began.
    outstanding: Option<(Instant, usize)>,
    published: usize,
    /// Per object its versions in order, with when each was due.
    versions: Vec<Vec<(u64, Instant)>>,
    /// Per reader and object the last version told.
    told: Vec<Vec<u64>>,
    early: VecDeque<Early>,
    during: bool,
    before_latency: Latency,
    during_latency: Latency,
    lateness: Latency,
    heard: usize,
    heard_by_slow: usize,
    repeated: usize,
    failures: Vec<String>,
}

impl<'a> Flow<'a> {
    fn new(plan: &'a Slow, host: SocketAddr, publisher: SocketId, first: SocketId) -> io::Result<Self> {
        Ok(Self {
            plan,
            host,
            publisher,
            first,
            began: Instant::now(),
            sent: 0,
            outstanding: None,
            published: 0,
            versions: vec![Vec::new(); plan.objects],
            told: vec![vec![0; plan.objects]; plan.readers + 1],
            early: VecDeque::new(),
            during: false,
            before_latency: Latency::new()?,
            during_latency: Latency::new()?,
            lateness: Latency::new()?,
            heard: 0,
            heard_by_slow: 0,
            repeated: 0,
            failures: Vec::new(),
        })
    }

    /// Goes on publishing and listening for `seconds`, or until `enough`.
    fn run(&mut self, net: &mut Net, seconds: f64, enough: impl Fn(&Self) -> bool) -> io::Result<()> {
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < until && !enough(self) {
            let due = self.due();
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() && self.outstanding.is_none() {
                self.publish(net, due)?;
                continue;
            }
            // The poll sleeps in whole milliseconds: the last one is spent awake.
            let wait = left.saturating_sub(Duration::from_millis(1));
            net.turn(Some(wait), |id, happening| self.hear(id, happening))?;
            if self.failures.len() > 20 {
                return Err(io::Error::other(self.failures[0].clone()));
            }
        }
        Ok(())
    }

    fn due(&self) -> Instant {
        self.began + Duration::from_secs_f64(self.sent as f64 / f64::from(self.plan.rate))
    }

    fn publish(&mut self, net: &mut Net, due: Instant) -> io::Result<()> {
        let at = |nth: usize| (self.sent + nth) % self.plan.objects;
        let changes: Vec<_> = (0..self.plan.batch)
            .map(|nth| format!(r#"{{"object":"slow:{}"}}"#, at(nth)))
            .collect();
        let body = format!(r#"{{"changes":[{}]}}"#, changes.join(","));
        self.outstanding = Some((due, self.sent));
        self.sent += self.plan.batch;
        self.lateness.record(due.elapsed());
        net.send(self.publisher, &http::post(self.host, "/v1/publish", body.as_bytes()))
    }

    fn hear(&mut self, id: SocketId, happening: Happening<'_>) {
        match happening {
            Happening::Text(text) => {
                let at = Instant::now();
                let read = message::each(text, |message| {
                    self.failures.extend(message.trouble());
                    for change in &message.changes {
                        self.change(id - self.first, &change.object, change.version, at);
                    }
                });
                self.failures.extend(read.err());
            }
            Happening::Answer { status, body } => self.answer(status, body),
            Happening::Closed(why) => self.failures.push(format!("connection {id}: {why}")),
            Happening::Open => {}
        }
    }

    fn change(&mut self, reader: usize, name: &str, version: u64, at: Instant) {
        let object = name.strip_prefix("slow:").and_then(|number| number.parse().ok());
        let Some(object) = object.filter(|&object| object < self.plan.objects) else {
            self.failures.push(format!("told of {name:?}, which nobody subscribed"));
            return;
        };
        let last = std::mem::replace(&mut self.told[reader][object], version);
        match last.cmp(&version) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => self.repeated += 1,
            std::cmp::Ordering::Greater => {
                self.failures
                    .push(format!("reader {reader}: {name} went back from {last} to {version}"));
            }
        }
        if reader == self.plan.readers {
            self.heard_by_slow += 1;
            return;
        }
        self.heard += 1;
        let early = Early { object, version, at };
        if !self.resolve(early) {
            self.early.push_back(early);
        }
    }

    /// Records the latency of a told change if its version is known by now.
    fn resolve(&mut self, told: Early) -> bool {
        let versions = &self.versions[told.object];
        let Ok(found) = versions.binary_search_by_key(&told.version, |&(version, _)| version) else {
            if versions.last().is_some_and(|&(last, _)| last > told.version) {
                self.failures.push(format!(
                    "version {} of {} was never published",
                    told.version, told.object
                ));
                return true;
            }
            return false;
        };
        let time = told.at.saturating_duration_since(versions[found].1);
        let latency = if self.during {
            &mut self.during_latency
        } else {
            &mut self.before_latency
        };
        latency.record(time);
        true
    }

    fn answer(&mut self, status: u16, body: &[u8]) {
        let Some((due, first)) = self.outstanding.take() else {
            return;
        };
        let Ok(published) = serde_json::from_slice::<BatchPublished>(body) else {
            self.failures
                .push(format!("{status} {}", String::from_utf8_lossy(body)));
            return;
        };
        for (nth, result) in published.results.iter().enumerate() {
            let object = (first + nth) % self.plan.objects;
            match result.version {
                Some(version) => self.versions[object].push((version, due)),
                None => self
                    .failures
                    .push(format!("a change was refused: {}", String::from_utf8_lossy(body))),
            }
            self.published += 1;
        }
        for _ in 0..self.early.len() {
            if let Some(early) = self.early.pop_front()
                && !self.resolve(early)
            {
                self.early.push_back(early);
            }
        }
    }

    /// The newest version of each object.
    fn newest(&self) -> Vec<u64> {
        self.versions
            .iter()
            .map(|versions| versions.last().map_or(0, |last| last.0))
            .collect()
    }

    fn slow_has(&self, newest: &[u64]) -> bool {
        self.told[self.plan.readers]
            .iter()
            .zip(newest)
            .all(|(told, newest)| told >= newest)
    }

    /// Publishes no more and waits until everybody has the newest of everything.
    fn finish(&mut self, net: &mut Net) -> io::Result<()> {
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            let newest = self.newest();
            if self.outstanding.is_none() && self.told.iter().all(|told| *told == newest) {
                return Ok(());
            }
            net.turn(Some(Duration::from_millis(20)), |id, happening| {
                self.hear(id, happening)
            })?;
        }
        let newest = self.newest();
        for (reader, told) in self.told.iter().enumerate().filter(|(_, told)| **told != newest) {
            let lost = told.iter().zip(&newest).filter(|(told, newest)| told != newest).count();
            self.failures
                .push(format!("reader {reader} lacks the newest version of {lost} objects"));
        }
        Ok(())
    }
}
