//! One change a request over keep-alive connections: CPU of the server per request against a bare hyper server that
//! answers a constant.

use crate::bare::{self, Bare};
use crate::latency::Latency;
use crate::message::Published;
use crate::meter::CpuMeter;
use crate::net::{Happening, Net, SocketId, Speech};
use crate::random::Random;
use crate::report::{Goal, Report};
use crate::server::Launcher;
use crate::{http, swarm};
use serde_json::json;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What the bare server answers: as long as a real answer.
const CONSTANT: &str = r#"{"version":1795170000000000}"#;

/// Single-change publishes over keep-alive connections: server CPU per request against a bare hyper server
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Single {
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Seconds of each half of a round
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) launcher: Launcher,
}

impl Single {
    pub(crate) fn run(&self) -> io::Result<Report> {
        let parameters = json!({
            "connections": self.connections, "seconds": self.seconds,
            "server_threads": self.launcher.threads(), "pinned": self.launcher.pinned(),
        });
        let mut report = Report::new("single", parameters);
        self.launcher.pin_self()?;
        let time = Duration::from_secs_f64(self.seconds);
        let server = self.launcher.start()?;
        let arguments = [
            "bare-hyper".to_owned(),
            self.launcher.threads().to_string(),
            CONSTANT.to_owned(),
        ];
        let bare = Bare::start(&self.launcher, &arguments)?;
        bare::probe(bare.address)?;
        let (mut net, mut bare_net) = (Net::new()?, Net::new()?);
        let ours = swarm::connect(&mut net, server.address, Speech::Http, self.connections)?;
        let theirs = swarm::connect(&mut bare_net, bare.address, Speech::Http, self.connections)?;
        let (mut server_cpu, mut bare_cpu) = (CpuMeter::new(server.pid), CpuMeter::new(bare.pid));

        let warm = Duration::from_millis(300).min(time);
        self.measure(&mut net, &ours, server.address, &mut server_cpu, warm)?;
        self.measure(&mut bare_net, &theirs, bare.address, &mut bare_cpu, warm)?;
        for _ in 0..self.rounds {
            let real = self.measure(&mut net, &ours, server.address, &mut server_cpu, time)?;
            let floor = self.measure(&mut bare_net, &theirs, bare.address, &mut bare_cpu, time)?;
            report.add_goal("ratio", "x", real.cpu_us / floor.cpu_us, Goal::AtMost(2.0));
            report.add("server CPU per request", "us", real.cpu_us);
            report.add("bare hyper CPU per request", "us", floor.cpu_us);
            report.add("server requests", "1/s", real.rate);
            report.add("bare hyper requests", "1/s", floor.rate);
            report.add("server p50", "ms", real.latency.ms(0.5));
            report.add("server p99", "ms", real.latency.ms(0.99));
        }
        Ok(report)
    }

    /// Keeps one request outstanding on each connection for `time`.
    fn measure(
        &self,
        net: &mut Net,
        ids: &[SocketId],
        host: SocketAddr,
        cpu: &mut CpuMeter,
        time: Duration,
    ) -> io::Result<Half> {
        let (mut random, mut sent_at) = (Random::new(7), vec![Instant::now(); ids.len()]);
        let mut latency = Latency::new()?;
        let (mut free, mut answered, mut outstanding) = (ids.to_vec(), 0_u64, 0_usize);
        let mut trouble = None;
        let (before, began) = (cpu.read_ns()?, Instant::now());
        loop {
            let over = began.elapsed() >= time;
            if over && outstanding == 0 {
                break;
            }
            if !over {
                for id in free.drain(..) {
                    let body = format!(r#"{{"object":"order:{}"}}"#, 1_000_000 + random.below(1_000_000));
                    sent_at[id] = Instant::now();
                    net.send(id, &http::post(host, "/v1/publish", body.as_bytes()))?;
                    outstanding += 1;
                }
            }
            net.turn(Some(Duration::from_secs(1)), |id, happening| match happening {
                Happening::Answer { status, body } => {
                    latency.record(sent_at[id].elapsed());
                    outstanding -= 1;
                    answered += 1;
                    free.push(id);
                    match serde_json::from_slice::<Published>(body) {
                        Ok(published) if status == 200 && published.version > 0 => {}
                        _ => trouble = Some(format!("{status} {}", String::from_utf8_lossy(body))),
                    }
                }
                Happening::Closed(why) => trouble = Some(format!("connection {id}: {why}")),
                Happening::Open | Happening::Text(_) => {}
            })?;
            if let Some(trouble) = trouble {
                return Err(io::Error::other(trouble));
            }
            if began.elapsed() > time + Duration::from_secs(10) {
                return Err(io::Error::other(format!("{outstanding} requests were never answered")));
            }
        }
        let used = (cpu.read_ns()? - before) as f64;
        let rate = answered as f64 / began.elapsed().as_secs_f64();
        Ok(Half {
            cpu_us: used / answered.max(1) as f64 / 1e3,
            rate,
            latency,
        })
    }
}

/// Half a round.
#[derive(Debug)]
struct Half {
    cpu_us: f64,
    rate: f64,
    latency: Latency,
}
