//! One object, thousands of subscribers, one version in flight: CPU of the server per delivery against a bare loop of
//! `send()` over as many sockets, with the same receivers.

use crate::bare::Bare;
use crate::message::{self, Published};
use crate::meter::CpuMeter;
use crate::net::{Happening, Net, SocketId, Speech};
use crate::report::{Goal, Report};
use crate::server::Launcher;
use crate::{frame, http, swarm};
use serde_json::json;
use std::io;
use std::time::{Duration, Instant};

const OBJECT: &str = "fanout:1";

/// One object, thousands of subscribers: server CPU per delivery against a bare loop of send()
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Fanout {
    #[arg(long, default_value_t = 5_000)]
    pub(crate) subscribers: usize,
    /// Seconds of each half of a round
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) launcher: Launcher,
}

impl Fanout {
    pub(crate) fn run(&self) -> io::Result<Report> {
        let parameters = json!({
            "subscribers": self.subscribers, "seconds": self.seconds,
            "server_threads": self.launcher.threads(), "pinned": self.launcher.pinned(),
        });
        let mut report = Report::new("fanout", parameters);
        self.launcher.pin_self()?;
        let time = Duration::from_secs_f64(self.seconds);
        let server = self.launcher.start()?;
        let mut net = Net::new()?;
        let watching = swarm::connect(&mut net, server.address, Speech::WebSocket, self.subscribers)?;
        swarm::subscribe(&mut net, &watching, 1, 500, |_| message::subscribe([OBJECT], None))?;
        let mut told = Deliveries::new(&watching);
        let publish = format!(r#"{{"object":"{OBJECT}"}}"#);
        let request = http::post(server.address, "/v1/publish", publish.as_bytes());

        let mut bare = Bare::start(&self.launcher, &["bare-send".to_owned(), self.subscribers.to_string()])?;
        let bare_watching = swarm::connect(&mut net, bare.address, Speech::Frames, self.subscribers)?;
        bare.wait_until_accepted()?;
        let mut bare_told = Deliveries::new(&bare_watching);
        let mut bare_version = 1_795_170_000_000_000;

        // Last, because a server need not keep a connection that says nothing.
        let publisher = swarm::connect(&mut net, server.address, Speech::Http, 1)?[0];
        let (mut server_cpu, mut bare_cpu) = (CpuMeter::new(server.pid), CpuMeter::new(bare.pid));
        // One uncounted round each: first-touch costs are not the subject.
        told.round(&mut net, true, |net| net.send(publisher, &request))?;
        bare_told.round(&mut net, false, |_| send_bare(&mut bare, &mut bare_version))?;
        for _ in 0..self.rounds {
            let ours = measure(&mut server_cpu, time, || {
                told.round(&mut net, true, |net| net.send(publisher, &request))
            })?;
            let floor = measure(&mut bare_cpu, time, || {
                bare_told.round(&mut net, false, |_| send_bare(&mut bare, &mut bare_version))
            })?;
            let each = |half: &Half| half.cpu_ns / (half.turns * self.subscribers) as f64 / 1e3;
            report.add_goal("ratio", "x", each(&ours) / each(&floor), Goal::AtMost(1.5));
            report.add("server CPU per delivery", "us", each(&ours));
            report.add("bare send CPU per delivery", "us", each(&floor));
            report.add(
                "server deliveries",
                "1/s",
                (ours.turns * self.subscribers) as f64 / ours.seconds,
            );
            report.add(
                "bare deliveries",
                "1/s",
                (floor.turns * self.subscribers) as f64 / floor.seconds,
            );
        }
        report.add(
            "server frames per delivery",
            "frames",
            told.frames as f64 / told.delivered.max(1) as f64,
        );
        for failure in told.failures.into_iter().chain(bare_told.failures) {
            report.fail(failure);
        }
        report.note("server CPU includes the publish request of each version and any cursor frames");
        Ok(report)
    }
}

/// Has the bare loop send a frame of the same form and length as the server's.
fn send_bare(bare: &mut Bare, version: &mut u64) -> io::Result<()> {
    *version += 1;
    let text = format!(r#"{{"changes":[{{"object":"{OBJECT}","version":{version}}}]}}"#);
    bare.send_to_all(&frame::server_text(text.as_bytes()))
}

/// Half a round: how often all were told, and what it cost.
#[derive(Debug)]
struct Half {
    turns: usize,
    cpu_ns: f64,
    seconds: f64,
}

fn measure(cpu: &mut CpuMeter, time: Duration, mut turn: impl FnMut() -> io::Result<()>) -> io::Result<Half> {
    let (before, began) = (cpu.read_ns()?, Instant::now());
    let mut turns = 0;
    while began.elapsed() < time {
        turn()?;
        turns += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(Half {
        turns,
        cpu_ns: (cpu.read_ns()? - before) as f64,
        seconds,
    })
}

/// What each receiver has been told last.
#[derive(Debug)]
struct Deliveries {
    first: SocketId,
    versions: Vec<u64>,
    delivered: usize,
    frames: usize,
    failures: Vec<String>,
}

impl Deliveries {
    fn new(ids: &[SocketId]) -> Self {
        let first = ids.first().copied().unwrap_or(0);
        Self {
            first,
            versions: vec![0; ids.len()],
            delivered: 0,
            frames: 0,
            failures: Vec::new(),
        }
    }

    /// Begins one version and waits until every receiver (and the publisher, if there is one) has it.
    fn round(
        &mut self,
        net: &mut Net,
        publishes: bool,
        mut begin: impl FnMut(&mut Net) -> io::Result<()>,
    ) -> io::Result<()> {
        let (mut left, began, mut answered) = (self.versions.len(), Instant::now(), None);
        let mut trouble = None;
        let mut newest = 0;
        begin(net)?;
        while left > 0 || (publishes && answered.is_none()) {
            net.turn(Some(Duration::from_millis(100)), |id, happening| match happening {
                Happening::Text(text) => match self.hear(id, text) {
                    Ok(Some(version)) => {
                        left -= 1;
                        newest = newest.max(version);
                    }
                    Ok(None) => {}
                    Err(why) => trouble = Some(why),
                },
                Happening::Answer { status, body } => match serde_json::from_slice::<Published>(body) {
                    Ok(published) if status == 200 => answered = Some(published.version),
                    _ => trouble = Some(format!("{status} {}", String::from_utf8_lossy(body))),
                },
                Happening::Closed(why) => trouble = Some(format!("connection {id}: {why}")),
                Happening::Open => {}
            })?;
            if let Some(trouble) = trouble {
                return Err(io::Error::other(trouble));
            }
            if began.elapsed() > Duration::from_secs(10) {
                return Err(io::Error::other(format!(
                    "{left} subscribers were not told within 10 s: a lost version"
                )));
            }
        }
        if answered.is_some_and(|version| version != newest) {
            self.failures
                .push(format!("published {answered:?}, but {newest} was told"));
        }
        Ok(())
    }

    /// The version a frame told, which must be newer than the last.
    fn hear(&mut self, id: SocketId, text: &[u8]) -> Result<Option<u64>, String> {
        // The other half's receivers may hear a heartbeat meanwhile.
        let Some(last) = id.checked_sub(self.first).and_then(|at| self.versions.get_mut(at)) else {
            return Ok(None);
        };
        let (mut told, mut trouble) = (None, None);
        self.frames += 1;
        message::each(text, |message| {
            trouble = trouble.take().or_else(|| message.trouble());
            for change in &message.changes {
                if change.object != OBJECT || change.version <= *last || told.is_some() {
                    trouble = Some(format!("told {change:?} after {last} and {told:?}"));
                }
                *last = change.version;
                told = Some(change.version);
            }
        })?;
        self.delivered += usize::from(told.is_some());
        trouble.map_or(Ok(told), Err)
    }
}
