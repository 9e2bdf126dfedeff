//! Everybody is cut off at once and comes back with a cursor: how long until the last is subscribed again and was told
//! exactly what changed meanwhile.

use crate::http::Client;
use crate::message::{self, BatchPublished};
use crate::meter::CpuMeter;
use crate::net::{Dial, Happening, Net, SocketId, Speech};
use crate::random::Random;
use crate::report::{Goal, Report};
use crate::server::Launcher;
use crate::watching::Watching;
use crate::{frame, stream, swarm};
use serde_json::json;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// All connections are cut and return with cursors: time until the last knows what it missed
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Storm {
    #[arg(long, default_value_t = 10_000_000)]
    pub(crate) objects: u64,
    #[arg(long, default_value_t = 2_000)]
    pub(crate) subscribers: usize,
    /// Objects each subscriber holds
    #[arg(long, default_value_t = 100)]
    pub(crate) each: usize,
    /// Watched objects that change in the gap (and as many unwatched)
    #[arg(long, default_value_t = 1_000)]
    pub(crate) changed: usize,
    /// Connections being made at one time; all at once by default
    #[arg(long)]
    pub(crate) window: Option<usize>,
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) launcher: Launcher,
}

impl Storm {
    pub(crate) fn run(&self) -> io::Result<Report> {
        let parameters = json!({
            "objects": self.objects, "subscribers": self.subscribers, "objects_each": self.each,
            "changed_in_gap": self.changed, "window": self.window,
            "server_threads": self.launcher.threads(), "pinned": self.launcher.pinned(),
        });
        let mut report = Report::new("storm", parameters);
        self.launcher.pin_self()?;
        let server = self.launcher.start()?;
        stream::fill(server.address, self.objects, 4)?;
        // So that the first cursors are past the last of these changes.
        std::thread::sleep(Duration::from_secs(2));
        let mut random = Random::new(13);
        let watching = Watching::random(self.subscribers, self.each, self.objects, &mut random);
        let mut watched = watching.watched(&mut random).into_iter().cycle();
        let mut net = Net::new()?;
        let mut ids = swarm::connect(&mut net, server.address, Speech::WebSocket, self.subscribers)?;
        let first = swarm::subscribe(&mut net, &ids, self.each, 64, |at| watching.subscribe(at, None))?;
        first.note(&mut report);
        let mut cursors = first.cursors;
        let mut known = HashMap::new();
        let mut cpu = CpuMeter::new(server.pid);
        report.add("first subscribe of all", "s", first.time.as_secs_f64());
        for _ in 0..self.rounds {
            for id in ids {
                net.cut(id);
            }
            // Time enough for the server to see all ends, as in an outage of some seconds.
            std::thread::sleep(Duration::from_secs(1));
            let mut changed: Vec<_> = watched.by_ref().take(self.changed).collect();
            changed.extend((0..self.changed).map(|_| watching.unwatched(&mut random)));
            random.shuffle(&mut changed);
            let versions = publish(server.address, &changed)?;
            let before = cpu.read_ns()?;
            let mut back = Return::new(&watching, &versions, &cursors, &known);
            let time = back.run(&mut net, server.address, self.window.unwrap_or(self.subscribers))?;
            let used = (cpu.read_ns()? - before) as f64 / 1e9;
            back.listen_on(&mut net, Duration::from_millis(500))?;
            report.add_goal(
                "last is subscribed and told",
                "s",
                time.as_secs_f64(),
                Goal::AtMost(0.5),
            );
            report.add("server CPU of the return", "s", used);
            report.add("changes told", "", back.told.len() as f64);
            report.add("changes named twice", "", back.repeated as f64);
            back.judge(self.each, &mut report);
            let Return {
                ids: returned,
                readers,
                told,
                ..
            } = back;
            ids = returned;
            cursors = readers.into_iter().map(|reader| reader.cursor).collect();
            known.extend(told);
        }
        Ok(report)
    }
}

/// Publishes these objects and returns their new versions.
fn publish(server: SocketAddr, objects: &[u64]) -> io::Result<HashMap<u64, u64>> {
    let mut client = Client::connect(server)?;
    let mut versions = HashMap::new();
    for batch in objects.chunks(1000) {
        let changes: Vec<_> = batch
            .iter()
            .map(|object| json!({"object": object.to_string()}))
            .collect();
        let body = json!({"changes": changes}).to_string();
        let published: BatchPublished = client.post("/v1/publish", body.as_bytes())?.read()?;
        for (&object, result) in batch.iter().zip(published.results) {
            versions.insert(
                object,
                result.version.ok_or_else(|| io::Error::other("a change was refused"))?,
            );
        }
    }
    Ok(versions)
}

/// One subscriber on its way back.
#[derive(Debug, Clone, Default)]
struct Reader {
    answered: usize,
    /// The old one until the new one came.
    cursor: String,
    back: bool,
    told: usize,
}

/// The return of all.
#[derive(Debug)]
struct Return<'a> {
    watching: &'a Watching,
    versions: &'a HashMap<u64, u64>,
    ids: Vec<SocketId>,
    first: SocketId,
    readers: Vec<Reader>,
    frames: Vec<Vec<u8>>,
    expected: Vec<usize>,
    told: HashMap<(usize, u64), u64>,
    /// What was told in earlier rounds: to name a few of these again around a reconnect is allowed.
    known: &'a HashMap<(usize, u64), u64>,
    repeated: usize,
    failures: Vec<String>,
}

impl<'a> Return<'a> {
    fn new(
        watching: &'a Watching,
        versions: &'a HashMap<u64, u64>,
        cursors: &[String],
        known: &'a HashMap<(usize, u64), u64>,
    ) -> Self {
        let mut expected = vec![0; cursors.len()];
        for &object in versions.keys() {
            for &reader in watching.watchers(object) {
                expected[reader] += 1;
            }
        }
        let frame = |(at, cursor): (usize, &String)| frame::text(watching.subscribe(at, Some(cursor)).as_bytes());
        let reader = |cursor: &String| Reader {
            cursor: cursor.clone(),
            ..Reader::default()
        };
        Self {
            watching,
            versions,
            ids: Vec::with_capacity(cursors.len()),
            first: 0,
            readers: cursors.iter().map(reader).collect(),
            frames: cursors.iter().enumerate().map(frame).collect(),
            expected,
            told: HashMap::new(),
            known,
            repeated: 0,
            failures: Vec::new(),
        }
    }

    /// Connects and subscribes all; the time from the first connect to the last cursor.
    fn run(&mut self, net: &mut Net, to: SocketAddr, window: usize) -> io::Result<Duration> {
        let (began, mut last) = (Instant::now(), Instant::now());
        let (mut opened, mut subscribed, mut back) = (Vec::new(), 0, 0);
        while back < self.readers.len() {
            // A handful at a time, so that the first are served while the last still knock.
            let burst = (self.ids.len() + 64).min(self.readers.len()).min(subscribed + window);
            while self.ids.len() < burst {
                self.ids
                    .push(net.dial(Dial::nth(to, Speech::WebSocket, self.ids.len()))?);
                self.first = self.ids[0];
            }
            let wait = if self.ids.len() < self.readers.len() {
                Duration::ZERO
            } else {
                Duration::from_millis(20)
            };
            net.turn(Some(wait), |id, happening| match happening {
                Happening::Open => opened.push(id),
                Happening::Text(text) => {
                    if self.hear(id, text) {
                        back += 1;
                        last = Instant::now();
                    }
                }
                Happening::Closed(why) => self.failures.push(format!("connection {id}: {why}")),
                Happening::Answer { .. } => {}
            })?;
            for id in opened.drain(..) {
                net.send(id, &self.frames[id - self.first])?;
                subscribed += 1;
            }
            if last.elapsed() > Duration::from_secs(15) {
                let shown = self.failures.first().map_or("nothing was refused", String::as_str);
                return Err(io::Error::other(format!("only {back} came back ({shown})")));
            }
        }
        Ok(last - began)
    }

    /// Whether this text completes a return.
    fn hear(&mut self, id: SocketId, text: &[u8]) -> bool {
        let Some(at) = id.checked_sub(self.first).filter(|&at| at < self.readers.len()) else {
            return false;
        };
        let mut completed = false;
        let read = message::each(text, |message| {
            self.failures.extend(message.trouble());
            for change in &message.changes {
                self.change(at, &change.object, change.version);
            }
            let reader = &mut self.readers[at];
            reader.answered += message
                .subscribed
                .as_ref()
                .map_or(0, |subscribed| subscribed.objects.len());
            let Some(cursor) = message.cursor else { return };
            if reader.answered == 0 {
                return;
            }
            reader.cursor = cursor.0.into_owned();
            if !reader.back {
                reader.back = true;
                completed = true;
                if reader.told != self.expected[at] {
                    let (told, expected) = (reader.told, self.expected[at]);
                    self.failures
                        .push(format!("a cursor came after {told} of {expected} changes were told"));
                }
            }
        });
        self.failures.extend(read.err());
        completed
    }

    fn change(&mut self, at: usize, object: &str, version: u64) {
        let object = object.parse().unwrap_or(u64::MAX);
        let held = self.watching.watchers(object).contains(&at);
        match self.versions.get(&object) {
            Some(&right) if held && right == version => {
                if self.told.insert((at, object), version).is_some() {
                    self.repeated += 1;
                } else {
                    self.readers[at].told += 1;
                }
            }
            None if self.known.get(&(at, object)) == Some(&version) => self.repeated += 1,
            right => self.failures.push(format!(
                "reader {at} (holds it: {held}) was told of {object} at {version}; the gap's version is {right:?}"
            )),
        }
    }

    /// What comes late belongs to the count too.
    fn listen_on(&mut self, net: &mut Net, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            net.turn(Some(Duration::from_millis(50)), |id, happening| match happening {
                Happening::Text(text) => {
                    self.hear(id, text);
                }
                Happening::Closed(why) => self.failures.push(format!("connection {id}: {why}")),
                Happening::Open | Happening::Answer { .. } => {}
            })?;
        }
        Ok(())
    }

    fn judge(&mut self, each: usize, report: &mut Report) {
        let (expected, told) = (self.expected.iter().sum::<usize>(), self.told.len());
        if expected != told {
            report.fail(format!("{told} changes were told where {expected} were due"));
        }
        let short = self.readers.iter().filter(|reader| reader.answered != each).count();
        if short > 0 {
            report.fail(format!(
                "{short} subscribers were not answered for each of their objects"
            ));
        }
        for failure in self.failures.drain(..).take(5) {
            report.fail(failure);
        }
    }
}
