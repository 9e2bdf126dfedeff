//! One run from its first connection to its record: starts the workers, gives them their times, watches, disturbs the
//! server, and asks for the verdict.
//!
//! It touches no subscriber and no publisher itself.

mod finish;
mod waiting;

use crate::clock;
use crate::crew::Crew;
use crate::faults::{Faults, Turn};
use crate::messages::{Ack, Judgement, Order, Setup, Target};
use crate::plan::Part;
use crate::progress::Progress;
use crate::scenario::Scenario;
use crate::server::{self, Server};
use crate::watching::Watch;
use crate::worker::Witness;
use crate::{fill, limits, meter, target};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tidings_checker::history::What;
use tidings_report::record::{Counts, Distribution, Event, Phase, Record};
use tidings_report::thresholds::Thresholds;

pub(crate) use finish::{Finished, check_thresholds, history_files};

/// Intervals of the timeline.
const INTERVAL_MS: u64 = 1_000;
/// Everybody hears of the start before it.
const LEAD_US: u64 = 200_000;
const AFTER_FILL: Duration = Duration::from_secs(2);
/// The phases that thresholds may name.
pub(crate) const PHASES: [&str; 4] = ["ramp", "warm-up", "load", "settle"];

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) scenario: Scenario,
    pub(crate) thresholds: Thresholds,
    pub(crate) targets: Vec<Target>,
    /// Start a server: this program, or the one that is found.
    pub(crate) start_server: Option<Option<PathBuf>>,
    pub(crate) processes: u32,
    pub(crate) history: Option<PathBuf>,
    pub(crate) command: String,
    pub(crate) quiet: bool,
}

pub(crate) struct Conductor {
    wanted: Wanted,
    record: Record,
    progress: Progress,
    targets: Vec<Target>,
    server: Option<Server>,
    faults: Option<Faults>,
    servers: Vec<Watch>,
    generators: Vec<Watch>,
    witness: Witness,
    interrupted: Arc<AtomicBool>,
    ceased: bool,
    epoch_us: u64,
    start_us: u64,
    looked_us: u64,
    phase: &'static str,
    heard: Heard,
}

/// What came from the workers so far.
#[derive(Debug, Default)]
struct Heard {
    workers: usize,
    ready: usize,
    published: usize,
    ended: usize,
    acks: HashMap<u32, Ack>,
    unversioned: HashMap<u32, u64>,
    judgements: Vec<Judgement>,
    connections: BTreeMap<u32, u64>,
    /// Since the last look.
    counts: Counts,
    latency: Distribution,
    late_us: u64,
    /// Of each worker: intervals of the load, and those in which it was hardly ever idle.
    load_ticks: u64,
    busy_ticks: u64,
    history_errors: Vec<String>,
}

impl Conductor {
    /// Runs it all.
    ///
    /// # Errors
    /// Why there is no result at all: the exit code is 3.
    pub(crate) fn run(wanted: Wanted, interrupted: Arc<AtomicBool>) -> Result<Finished, String> {
        let limit = limits::descriptors();
        let connections =
            u64::from(wanted.scenario.subscribers.count) + u64::from(wanted.scenario.publishers.connections);
        limits::check(connections, u64::from(wanted.processes), limit)?;
        let mut progress = Progress::new(wanted.quiet);
        let (server, targets) = Self::servers(&wanted, &mut progress)?;
        let systems: Result<Vec<_>, _> = targets.iter().map(target::ask).collect();
        let system = systems?.into_iter().next().unwrap_or_default();
        targets.iter().for_each(target::settle);
        if let Some(folder) = &wanted.history {
            prepare_history(folder)?;
        }
        let now = clock::now_us();
        let mut record = Record::new(&wanted.scenario.name, &system, clock::unix_us() / 1_000, INTERVAL_MS);
        finish::describe(&mut record, &wanted, limit);
        let path = wanted.history.as_ref().map(|folder| folder.join("conductor.tidings"));
        let mut conductor = Self {
            witness: Witness::new(path.as_deref(), &wanted.scenario.objects.prefix)?,
            record,
            progress,
            servers: watch_servers(&targets, server.as_ref(), now),
            targets,
            server,
            faults: None,
            generators: Vec::new(),
            interrupted,
            ceased: false,
            epoch_us: now,
            start_us: u64::MAX,
            looked_us: now,
            phase: "fill",
            heard: Heard::default(),
            wanted,
        };
        conductor.conduct()
    }

    fn servers(wanted: &Wanted, progress: &mut Progress) -> Result<(Option<Server>, Vec<Target>), String> {
        let Some(program) = &wanted.start_server else {
            if !wanted.scenario.faults.kinds.is_empty() {
                return Err(format!(
                    "the scenario `{}` has faults, and those are done only to a server that the run started itself: \
                     use --start-server, or --set faults.kinds=[]",
                    wanted.scenario.name
                ));
            }
            return Ok((None, wanted.targets.clone()));
        };
        let program = server::find(program.as_deref())?;
        let server = Server::start(&program, &wanted.scenario.server)?;
        let target = server.target();
        progress.say(&format!("started {} at http://{}", program.display(), target.host));
        let mut targets = wanted.targets.clone();
        targets.insert(0, target);
        Ok((Some(server), targets))
    }

    fn conduct(&mut self) -> Result<Finished, String> {
        self.fill()?;
        self.epoch_us = clock::now_us();
        self.looked_us = self.epoch_us;
        let mut crew = self.crew()?;
        self.generators = (1..)
            .zip(crew.pids())
            .map(|(nth, pid)| {
                let name = if self.wanted.processes > 1 {
                    format!("generator {nth}")
                } else {
                    "generator".to_owned()
                };
                Watch::new(name, Some(pid), self.epoch_us)
            })
            .collect();
        let scenario = self.wanted.scenario.clone();

        self.begin_phase("ramp");
        self.progress.say(&format!(
            "connecting {} subscribers of {} objects each",
            scenario.subscribers.count, scenario.subscribers.objects
        ));
        self.wait(&mut crew, u64::MAX, |heard| heard.ready == heard.workers)?;
        let ramp_us = clock::now_us() - self.epoch_us;
        self.progress.say(&format!(
            "everybody is connected and subscribed after {:.2} s",
            ramp_us as f64 / 1e6
        ));

        self.start_us = clock::now_us() + LEAD_US;
        crew.order(&Order::Start { at_us: self.start_us })?;
        self.faults = self.server.is_some().then(|| Faults::new(&scenario, self.start_us));
        self.begin_phase("warm-up");
        let warm_us = self.start_us + scenario.run.warm_up.us();
        self.wait_until(&mut crew, warm_us)?;
        self.begin_phase("load");
        let publishers = &scenario.publishers;
        let patience_us = publishers.give_up.us() + publishers.timeout.us() + scenario.run.patience.us();
        let end_us = self.start_us + scenario.run.duration.us() + patience_us;
        self.wait(&mut crew, end_us, |heard| heard.published == heard.workers)?;

        self.begin_phase("settle");
        self.heal(&mut crew)?;
        self.read_stream_versions()?;
        let acks: Vec<_> = self.heard.acks.values().copied().collect();
        self.progress
            .say("the load is over: is everybody told the newest of everything?");
        crew.order(&Order::Judge { acks })?;
        let end_us = clock::now_us() + scenario.run.settle.us() + scenario.run.patience.us();
        self.wait(&mut crew, end_us, |heard| heard.judgements.len() == heard.workers)?;
        self.read_finals();
        crew.order(&Order::Quit)?;
        let end_us = clock::now_us() + scenario.run.patience.us();
        self.wait(&mut crew, end_us, |heard| heard.ended == heard.workers)?;
        drop(crew);
        self.finish()
    }

    fn fill(&mut self) -> Result<(), String> {
        let objects = &self.wanted.scenario.objects;
        if !objects.fill {
            return Ok(());
        }
        self.progress.say(&format!("filling in {} objects", objects.count));
        let began = clock::now_us();
        fill::fill(&self.targets, &objects.prefix, objects.count)?;
        let ended = clock::now_us();
        // First cursors should be past what was filled in.
        std::thread::sleep(AFTER_FILL);
        let took_s = (ended - began) as f64 / 1e6;
        let rate = tidings_report::words::rate(f64::from(objects.count) / took_s);
        self.progress.say(&format!("filled in after {took_s:.1} s ({rate})"));
        self.record.set(
            "filled in",
            format!("{} objects in {took_s:.1} s ({rate})", objects.count),
        );
        Ok(())
    }

    fn crew(&mut self) -> Result<Crew, String> {
        let scenario = &self.wanted.scenario;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let processes = self.wanted.processes.max(1);
        let threads = match scenario.run.threads {
            0 if processes > 1 => 1,
            0 => (cores / 2).max(1),
            threads => threads,
        };
        let of = processes * threads as u32;
        self.heard.workers = of as usize;
        let setups = (0..processes).map(|process| Setup {
            scenario: scenario.clone(),
            targets: self.targets.clone(),
            workers: (0..threads as u32)
                .map(|thread| Part {
                    index: process * threads as u32 + thread,
                    of,
                })
                .collect(),
            epoch_us: self.epoch_us,
            history: self.wanted.history.clone(),
        });
        let setups: Vec<_> = setups.collect();
        match setups.as_slice() {
            [alone] => Crew::of_threads(alone),
            several => Crew::of_processes(several),
        }
    }

    fn begin_phase(&mut self, name: &'static str) {
        let at_ms = self.now_ms();
        self.end_phase(at_ms);
        self.phase = name;
        self.record.phases.push(Phase {
            name: name.to_owned(),
            from_ms: at_ms,
            to_ms: at_ms,
        });
    }

    fn end_phase(&mut self, at_ms: u64) {
        if let Some(phase) = self.record.phases.last_mut() {
            phase.to_ms = at_ms;
        }
    }

    fn now_ms(&self) -> u64 {
        (clock::now_us() - self.epoch_us) / 1_000
    }

    /// Takes the next step of the fault that is under way, or begins one.
    fn disturb(&mut self) -> Result<(), String> {
        let (Some(faults), Some(server)) = (&mut self.faults, &mut self.server) else {
            return Ok(());
        };
        let now = clock::now_us();
        let turn = faults.step(server, now)?;
        let pid = server.pid();
        if let Some(watch) = self.servers.first_mut() {
            watch.follow(pid, now);
        }
        let at_ms = (now - self.epoch_us) / 1_000;
        match turn {
            Some(Turn::Began(name)) => {
                self.progress.say(&format!("fault: {name}"));
                let fault = name.as_str().into();
                self.witness.see(now, What::NemesisStart { fault });
                self.record.events.push(Event {
                    at_ms,
                    until_ms: None,
                    fault: true,
                    text: name,
                });
            }
            Some(Turn::Healed(name)) => {
                let fault = name.as_str().into();
                self.witness.see(now, What::NemesisStop { fault });
                if let Some(event) = self.record.events.iter_mut().rfind(|event| event.text == name) {
                    event.until_ms = Some(at_ms);
                    let took_ms = at_ms - event.at_ms;
                    self.progress.say(&format!("healed: {name} after {took_ms} ms"));
                }
            }
            None => {}
        }
        Ok(())
    }
}

/// The folder must not hold an older history, which would be taken for part of this one.
fn prepare_history(folder: &std::path::Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("--history {}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(failed)?;
    match finish::history_files(folder).map_err(failed)?.is_empty() {
        true => Ok(()),
        false => Err(format!("--history {}: there is a history already", folder.display())),
    }
}

fn watch_servers(targets: &[Target], server: Option<&Server>, now: u64) -> Vec<Watch> {
    let mut watches = Vec::new();
    for (nth, target) in targets.iter().enumerate() {
        let pid = match server {
            Some(server) if nth == 0 => server.pid(),
            _ if target.is_here() => meter::listener(target.address),
            _ => None,
        };
        let name = if targets.len() == 1 {
            "server".to_owned()
        } else {
            format!("server {}", nth + 1)
        };
        watches.push(Watch::new(name, pid, now));
    }
    watches
}
