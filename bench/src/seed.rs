//! The everyday load: many objects, few of them watched, single changes at a steady rate; how soon subscribers hear.
//!
//! An open loop: events are due on a fixed schedule and latency counts from when they were due, so that a server (or a
//! generator) that falls behind cannot hide it. One thread does all of it without ever sleeping.

use crate::latency::Latency;
use crate::message::{self, Published};
use crate::meter::CpuMeter;
use crate::net::{Happening, Net, SocketId, Speech};
use crate::random::Random;
use crate::report::{Goal, Report};
use crate::server::Launcher;
use crate::watching::Watching;
use crate::{http, stream, swarm};
use serde_json::json;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long the last deliveries of a round may take before they count as lost.
const GRACE: Duration = Duration::from_secs(5);
/// An event sent later than this after it was due was sent late.
const LATE: Duration = Duration::from_micros(100);

/// A steady open loop of single changes, some of them watched: publish-to-receive latency and server CPU
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Seed {
    #[arg(long, default_value_t = 10_000_000)]
    pub(crate) objects: u64,
    #[arg(long, default_value_t = 2_000)]
    pub(crate) subscribers: usize,
    /// Objects each subscriber holds
    #[arg(long, default_value_t = 100)]
    pub(crate) each: usize,
    /// Events a second
    #[arg(long, default_value_t = 3_000)]
    pub(crate) rate: u32,
    /// Every n-th event is of a watched object
    #[arg(long, default_value_t = 10)]
    pub(crate) watched_every: usize,
    /// Keep-alive connections of the publisher
    #[arg(long, default_value_t = 16)]
    pub(crate) connections: usize,
    /// Seconds of a round
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) launcher: Launcher,
}

impl Seed {
    pub(crate) fn run(&self) -> io::Result<Report> {
        let parameters = json!({
            "objects": self.objects, "subscribers": self.subscribers, "objects_each": self.each,
            "events_per_second": self.rate, "watched_every": self.watched_every, "seconds": self.seconds,
            "server_threads": self.launcher.threads(), "pinned": self.launcher.pinned(),
        });
        let mut report = Report::new("seed", parameters);
        self.launcher.pin_self()?;
        let server = self.launcher.start()?;
        stream::fill(server.address, self.objects, 4)?;
        let mut random = Random::new(11);
        let watching = Watching::random(self.subscribers, self.each, self.objects, &mut random);
        let mut net = Net::new()?;
        let readers = swarm::connect(&mut net, server.address, Speech::WebSocket, self.subscribers)?;
        let first = swarm::subscribe(&mut net, &readers, self.each, 64, |at| watching.subscribe(at, None))?;
        first.note(&mut report);
        swarm::idle(&mut net, Duration::from_secs(2))?;
        // Last, because a server need not keep a connection that says nothing.
        let publishers = swarm::connect(&mut net, server.address, Speech::Http, self.connections)?;
        let mut watched = watching.watched(&mut random).into_iter().cycle();
        let mut cpu = CpuMeter::new(server.pid);
        for _ in 0..self.rounds {
            let events = self.plan(&watching, &mut watched, &mut random);
            let before = cpu.read_ns()?;
            let round = Round::new(
                &watching,
                &events,
                self.rate,
                readers[0],
                publishers.iter().copied().collect(),
                server.address,
            )?;
            let round = round.run(&mut net)?;
            let used = (cpu.read_ns()? - before) as f64 / 1e9;
            round.report(used, &mut report);
        }
        report.note("latency counts from when an event was due; the client never sleeps, so the server wakes nobody");
        Ok(report)
    }

    /// The objects of one round in order of their events; no watched object twice unless the round is very long.
    fn plan(&self, watching: &Watching, watched: &mut impl Iterator<Item = u64>, random: &mut Random) -> Vec<u64> {
        let count = (f64::from(self.rate) * self.seconds) as usize;
        (0..count)
            .map(|at| match at % self.watched_every {
                0 => watched.next().unwrap_or(0),
                _ => watching.unwatched(random),
            })
            .collect()
    }
}

/// One round of the open loop.
#[derive(Debug)]
struct Round<'a> {
    watching: &'a Watching,
    events: &'a [u64],
    rate: u32,
    first_reader: SocketId,
    host: SocketAddr,
    began: Instant,
    free: VecDeque<SocketId>,
    in_flight: HashMap<SocketId, usize>,
    /// The version each watched object was given: only the last counts if an object came twice.
    versions: HashMap<u64, u64>,
    answered: usize,
    /// When the newest event of an object was due, and whether it was sent in time.
    due: HashMap<u64, (Instant, bool)>,
    told: HashMap<(usize, u64), u64>,
    expected: usize,
    delivered: usize,
    repeated: usize,
    latency: Latency,
    /// Only of events that were sent in time: a hint at the server's part on a busy machine.
    on_time_latency: Latency,
    answer_latency: Latency,
    lateness: Latency,
    late: usize,
    failures: Vec<String>,
}

impl<'a> Round<'a> {
    fn new(
        watching: &'a Watching,
        events: &'a [u64],
        rate: u32,
        first_reader: SocketId,
        free: VecDeque<SocketId>,
        host: SocketAddr,
    ) -> io::Result<Self> {
        Ok(Self {
            watching,
            events,
            rate,
            first_reader,
            host,
            began: Instant::now(),
            free,
            in_flight: HashMap::new(),
            versions: HashMap::new(),
            answered: 0,
            due: HashMap::new(),
            told: HashMap::new(),
            expected: events.iter().map(|&object| watching.watchers(object).len()).sum(),
            delivered: 0,
            repeated: 0,
            latency: Latency::new()?,
            on_time_latency: Latency::new()?,
            answer_latency: Latency::new()?,
            lateness: Latency::new()?,
            late: 0,
            failures: Vec::new(),
        })
    }

    fn due_at(&self, event: usize) -> Instant {
        self.began + Duration::from_secs_f64(event as f64 / f64::from(self.rate))
    }

    fn run(mut self, net: &mut Net) -> io::Result<Self> {
        let (mut next, mut waiting) = (0, VecDeque::new());
        let end = self.due_at(self.events.len()) + GRACE;
        while self.answered < self.events.len() || self.delivered < self.expected {
            let now = Instant::now();
            while next < self.events.len() && self.due_at(next) <= now {
                waiting.push_back(next);
                next += 1;
            }
            while let (Some(&event), Some(&socket)) = (waiting.front(), self.free.front()) {
                waiting.pop_front();
                self.free.pop_front();
                self.publish(net, event, socket)?;
            }
            net.turn(Some(Duration::ZERO), |id, happening| self.hear(id, happening))?;
            if now > end {
                break;
            }
        }
        self.judge();
        Ok(self)
    }

    fn publish(&mut self, net: &mut Net, event: usize, socket: SocketId) -> io::Result<()> {
        let (object, due) = (self.events[event], self.due_at(event));
        if !self.watching.watchers(object).is_empty() {
            self.due.insert(object, (due, due.elapsed() <= LATE));
        }
        let body = format!(r#"{{"object":"{object}"}}"#);
        let request = http::post(self.host, "/v1/publish", body.as_bytes());
        self.in_flight.insert(socket, event);
        let late = due.elapsed();
        self.lateness.record(late);
        self.late += usize::from(late > LATE);
        net.send(socket, &request)
    }

    fn hear(&mut self, id: SocketId, happening: Happening<'_>) {
        match happening {
            Happening::Text(text) => {
                let now = Instant::now();
                let read = message::each(text, |message| {
                    self.failures.extend(message.trouble());
                    for change in &message.changes {
                        self.delivery(id - self.first_reader, &change.object, change.version, now);
                    }
                });
                self.failures.extend(read.err());
            }
            Happening::Answer { status, body } => self.answer(id, status, body),
            Happening::Closed(why) => self.failures.push(format!("connection {id}: {why}")),
            Happening::Open => {}
        }
    }

    fn delivery(&mut self, reader: usize, object: &str, version: u64, now: Instant) {
        let object: u64 = object.parse().unwrap_or(u64::MAX);
        let Some(&(due, on_time)) = self
            .due
            .get(&object)
            .filter(|_| self.watching.watchers(object).contains(&reader))
        else {
            self.failures.push(format!(
                "reader {reader} was told of {object}, which it does not hold or did not change"
            ));
            return;
        };
        match self.told.insert((reader, object), version) {
            Some(last) if last > version => self
                .failures
                .push(format!("{object} went back from {last} to {version}")),
            Some(last) if last == version => self.repeated += 1,
            _ => {
                self.delivered += 1;
                let time = now.saturating_duration_since(due);
                self.latency.record(time);
                if on_time {
                    self.on_time_latency.record(time);
                }
            }
        }
    }

    fn answer(&mut self, id: SocketId, status: u16, body: &[u8]) {
        let Some(event) = self.in_flight.remove(&id) else {
            return;
        };
        self.free.push_back(id);
        self.answered += 1;
        let time = self.due_at(event).elapsed();
        self.answer_latency.record(time);
        match serde_json::from_slice::<Published>(body) {
            Ok(published) if status == 200 => {
                let version = self.versions.entry(self.events[event]).or_default();
                *version = published.version.max(*version);
            }
            _ => self
                .failures
                .push(format!("{status} {}", String::from_utf8_lossy(body))),
        }
    }

    /// Everybody must have the newest version of each watched object.
    fn judge(&mut self) {
        let watchers = |object: u64| {
            self.watching
                .watchers(object)
                .iter()
                .map(move |&reader| (reader, object))
        };
        let lost = self.due.keys().flat_map(|&object| watchers(object));
        let lost = lost
            .filter(|key| self.told.get(key) != self.versions.get(&key.1))
            .count();
        if lost > 0 {
            self.failures
                .push(format!("{lost} of {} deliveries were lost", self.expected));
        }
        let unanswered = self.events.len() - self.answered;
        if unanswered > 0 {
            self.failures.push(format!("{unanswered} publishes were not answered"));
        }
    }

    fn report(self, cpu_seconds: f64, report: &mut Report) {
        let thousands = self.events.len() as f64 / 1e3;
        report.add("publish to receive p50", "ms", self.latency.ms(0.5));
        report.add_goal("publish to receive p99", "ms", self.latency.ms(0.99), Goal::AtMost(0.5));
        report.add(
            "p99 where the generator was on time",
            "ms",
            self.on_time_latency.ms(0.99),
        );
        report.add("publish to receive max", "ms", self.latency.ms(1.0));
        report.add_goal(
            "server CPU per 1,000 events",
            "s",
            cpu_seconds / thousands,
            Goal::AtMost(0.03),
        );
        report.add("publish to answer p50", "ms", self.answer_latency.ms(0.5));
        report.add("publish to answer p99", "ms", self.answer_latency.ms(0.99));
        report.add("generator late p99", "ms", self.lateness.ms(0.99));
        report.add("generator late max", "ms", self.lateness.ms(1.0));
        report.add("deliveries", "", self.delivered as f64);
        report.add(
            "generator late events",
            "%",
            100.0 * self.late as f64 / self.events.len() as f64,
        );
        if self.late * 100 > self.events.len() {
            report.note("the generator itself was late (see above), which is part of the latencies: a busy machine");
        }
        if self.repeated > 0 {
            report.note(format!(
                "{} deliveries were repeated with the same version",
                self.repeated
            ));
        }
        for failure in self.failures.into_iter().take(5) {
            report.fail(failure);
        }
    }
}
