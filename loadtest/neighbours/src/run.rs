//! One run of one system: server, subscribers, publisher and clock brought together into a record.

use crate::load::Load;
use crate::machine::{Watch, machine, raise_descriptors};
use crate::publisher::{Published, micros, publish};
use crate::server::{Server, StartError};
use crate::swarm::{Outcome, Shared, subscribe};
use crate::system::System;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidings_report::metric::Metric;
use tidings_report::record::{Event, Interval, Phase, Process, Record};
use tidings_report::words;

/// Nothing more is expected once nothing came for so long.
const QUIET: Duration = Duration::from_secs(1);
/// However much still comes.
const SETTLE: Duration = Duration::from_secs(15);
/// Descriptors that a run needs besides its subscribers'.
const SPARE_DESCRIPTORS: u64 = 64;
/// A thread busier than this has no room for the unexpected.
const BUSY: f64 = 0.9;

/// Why there is no record. The server was stopped.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no server to measure.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The load could not be put on.
    #[error("{system} could not be put under load: {source}")]
    Load {
        /// Which.
        system: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The load is no load.
    #[error("{0}")]
    Settings(String),
}

/// Measures one system under a load; takes the load's length and some seconds more. `program` says where the server's
/// program is, if not where the system usually keeps it.
///
/// # Errors
/// When the server is not there or the load cannot be put on; what goes wrong later is in the record.
pub fn run(system: System, load: &Load, program: Option<&Path>) -> Result<Record, Failure> {
    check(load)?;
    let server = Server::start(system, program)?;
    let began = Instant::now();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let started_ms = u64::try_from(started.as_millis()).unwrap_or(0);
    let mut record = Record::new(&load.scenario, server.version(), started_ms, 1_000);
    describe(&mut record, system, load);
    let shared = Shared::default();
    let latest_us = AtomicU64::new(0);
    let watching = AtomicBool::new(true);
    let failed = |source| Failure::Load {
        system: system.to_string(),
        source,
    };

    let (outcome, published, first_us) = thread::scope(|scope| {
        let watched = scope.spawn(|| watch(server.pid(), began, &watching, &shared, &latest_us));
        let loaded = put_under_load(scope, system, &server, load, began, &shared, &latest_us);
        watching.store(false, Ordering::Release);
        if let Ok((servers, generators)) = watched.join() {
            record.servers = servers;
            record.generators = generators;
        }
        loaded
    })
    .map_err(failed)?;

    record.duration_ms = micros(began) / 1_000;
    fill(&mut record, load, &outcome, &published, first_us);
    judge(&mut record);
    Ok(record)
}

fn check(load: &Load) -> Result<(), Failure> {
    let wrong = |what: &str| Err(Failure::Settings(what.to_owned()));
    if load.subscribers == 0 || load.topics == 0 || load.objects == 0 {
        return wrong("a load needs at least one subscriber, one topic and one object");
    }
    if !(load.rate.is_finite() && load.rate > 0.0) || load.length.is_zero() {
        return wrong("a load needs a rate above 0 and a length above 0");
    }
    let needed = u64::from(load.subscribers) + SPARE_DESCRIPTORS;
    let allowed = raise_descriptors();
    if needed > allowed {
        return Err(Failure::Settings(format!(
            "{} subscribers need {needed} descriptors and this process may have {allowed}: `ulimit -n {needed}`",
            load.subscribers
        )));
    }
    Ok(())
}

/// Subscribers first; once all are ready, the publisher from the next full second on; then quiet.
fn put_under_load<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    system: System,
    server: &Server,
    load: &'scope Load,
    began: Instant,
    shared: &'scope Shared,
    latest_us: &AtomicU64,
) -> io::Result<(Outcome, Published, u64)> {
    let (ready, is_ready) = mpsc::channel();
    let address = server.address();
    let swarm = scope.spawn(move || subscribe(system, address, load, began, shared, &ready));
    let published = if is_ready.recv().is_ok() {
        let first_us = (micros(began) / 1_000_000 + 1) * 1_000_000;
        if load.cut_off() > 0 {
            let after_us = u64::try_from(load.cut_after().as_micros()).unwrap_or(0);
            shared.cut_us.store(first_us + after_us, Ordering::Release);
        }
        let watched: BTreeSet<u32> = (0..load.subscribers).flat_map(|number| load.watches(number)).collect();
        let watched = watched.into_iter().collect();
        let published = publish(system, address, load, watched, (began, first_us), latest_us);
        wait_for_quiet(shared, load);
        published.map(|published| (published, first_us))
    } else {
        Err(io::Error::other("no subscribers"))
    };
    shared.stop.store(true, Ordering::Release);
    // Why the subscribers gave up says more than that there are none.
    let outcome = swarm
        .join()
        .map_err(|_| io::Error::other("the subscribers' thread died"))??;
    let (published, first_us) = published?;
    Ok((outcome, published, first_us))
}

fn wait_for_quiet(shared: &Shared, load: &Load) {
    let began = Instant::now();
    let (mut seen, mut since) = (0, Instant::now());
    // Whoever was cut off late still has to come back.
    let least = load.away.max(QUIET).min(SETTLE);
    while began.elapsed() < least || since.elapsed() < QUIET {
        if began.elapsed() > SETTLE {
            return;
        }
        let delivered = shared.delivered.load(Ordering::Acquire);
        if delivered != seen {
            (seen, since) = (delivered, Instant::now());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Looks at the server and at this process once a second.
fn watch(
    pid: u32,
    began: Instant,
    go_on: &AtomicBool,
    shared: &Shared,
    latest_us: &AtomicU64,
) -> (Vec<Process>, Vec<Process>) {
    let (mut server, mut own) = (Watch::new(pid, began), Watch::new(std::process::id(), began));
    let process = |name: &str| Process {
        name: name.to_owned(),
        ..Process::default()
    };
    let (mut servers, mut generators) = (process("server"), process("generator"));
    let mut delivered = (0, Instant::now());
    let mut n = 0;
    while go_on.load(Ordering::Acquire) {
        servers.samples.extend(server.look());
        if let Some(mut sample) = own.look() {
            let (now, moment) = (shared.delivered.load(Ordering::Acquire), Instant::now());
            let seconds = moment.duration_since(delivered.1).as_secs_f64().max(1e-3);
            sample.delivered_per_s = Some((now - delivered.0) as f64 / seconds);
            sample.late_us = Some(latest_us.swap(0, Ordering::Relaxed));
            delivered = (now, moment);
            generators.samples.push(sample);
        }
        n += 1;
        while go_on.load(Ordering::Acquire) && began.elapsed() < Duration::from_secs(n) {
            thread::sleep(Duration::from_millis(20));
        }
    }
    (vec![servers], vec![generators])
}

fn describe(record: &mut Record, system: System, load: &Load) {
    record.about = format!(
        "{} subscribers of {} out of {} objects each; {} changes a second, {:.0} % of them of a watched object.",
        words::count(f64::from(load.subscribers)),
        load.topics.min(load.objects),
        words::count(f64::from(load.objects)),
        words::count(load.rate),
        load.watched * 100.0
    );
    if load.cut_off() > 0 {
        record.about.push_str(&format!(
            " After {:.0} s, {} subscribers are cut off for {:.0} s.",
            load.cut_after().as_secs_f64(),
            words::count(f64::from(load.cut_off())),
            load.away.as_secs_f64()
        ));
    }
    record.set("subscribers", load.subscribers);
    record.set("objects of each", load.topics.min(load.objects));
    record.set("objects in all", load.objects);
    record.set("changes a second", load.rate);
    record.set("share watched", load.watched);
    record.set("seconds", load.length.as_secs_f64());
    record.set("share cut off", load.cut);
    record.set("seconds away", load.away.as_secs_f64());
    record.set("seed", load.seed);
    record.machine = machine();
    record.caveats = system.caveats().iter().map(|caveat| (*caveat).to_owned()).collect();
}

fn fill(record: &mut Record, load: &Load, outcome: &Outcome, published: &Published, first_us: u64) {
    let first_ms = first_us / 1_000;
    let warm = |interval: &Interval| Interval {
        warm_up: interval.at_ms < first_ms,
        ..interval.clone()
    };
    // The subscribers' last: they know how many connections there are.
    for interval in published.intervals.iter().chain(&outcome.intervals) {
        record.push(warm(interval));
    }
    record.counts.add(&outcome.settle(&published.ledger));
    let end_ms = first_ms + u64::try_from(load.length.as_millis()).unwrap_or(0);
    let cut_ms = first_ms + u64::try_from(load.cut_after().as_millis()).unwrap_or(0);
    let mut phase = |name: &str, from_ms, to_ms| {
        record.phases.push(Phase {
            name: name.to_owned(),
            from_ms,
            to_ms,
        });
    };
    phase("ramp", 0, first_ms);
    if load.cut_off() > 0 {
        phase("steady", first_ms, cut_ms);
        phase("cut", cut_ms, end_ms);
        record.events.push(Event {
            at_ms: cut_ms,
            until_ms: Some(cut_ms + u64::try_from(load.away.as_millis()).unwrap_or(0)),
            fault: true,
            text: format!("{} subscribers cut off", words::count(f64::from(load.cut_off()))),
        });
    } else {
        phase("steady", first_ms, end_ms);
    }
    for warning in published.warnings.iter().chain(&outcome.warnings) {
        record.warn(warning.as_str());
    }
}

/// Says where the generator was itself what was measured.
fn judge(record: &mut Record) {
    let counts = &record.counts;
    if counts.late_sends * 100 > counts.intended {
        record.warn(format!(
            "The generator sent {} of {} changes more than 1 ms late: latencies are partly its own.",
            counts.late_sends, counts.intended
        ));
    }
    let cores = Metric::parse("generator.cpu_cores")
        .ok()
        .and_then(|metric| metric.of(record));
    if let Some(cores) = cores.filter(|cores| *cores > BUSY) {
        record.warn(format!(
            "The generator used {cores:.2} cores, most of it in the one thread of all subscribers: latencies are partly \
             its own."
        ));
    }
    let doubt = record.counts.publish_unknown;
    if doubt > 0 {
        record.warn(format!("{doubt} publishes were never answered."));
    }
}
