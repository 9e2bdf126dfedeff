//! Replays one seed with its trace, or runs many and says what failed.
//!
//! `--seed 42` replays; `--seeds 1000 [--from 0] [--jobs 2]` runs many; `--mode calm|safety|healing` overrides what the seed
//! says; `--list FILE` runs the seeds of a file; `--quiet` prints no trace and no counters; `--first` stops at the first failure.
//! `--break RULE` runs shells that do not keep a rule (`simulation::sabotage`), which must be caught.
//! `--cut-polls` and `--failovers` make the worlds of the seeds narrower or denser: see `Plan::cut_polls`, `Plan::failovers`.

use simulation::coverage::Coverage;
use simulation::plan::{Mode, Plan};
use simulation::run::{Report, run_plan};
use simulation::sabotage::Sabotage;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

#[derive(Debug, Default)]
struct Options {
    seed: Option<u64>,
    seeds: u64,
    from: u64,
    jobs: usize,
    mode: Option<Mode>,
    list: Option<String>,
    quiet: bool,
    first: bool,
    cut_polls: bool,
    failovers: bool,
    sabotage: Option<Sabotage>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
        seeds: 300,
        ..Options::default()
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--cut-polls" {
            options.cut_polls = true;
            continue;
        }
        if word == "--failovers" {
            options.failovers = true;
            continue;
        }
        if word == "--first" {
            options.first = true;
            continue;
        }
        if word == "--quiet" {
            options.quiet = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{word}: {value} is no number"))
        };
        match word.as_str() {
            "--seed" => options.seed = Some(number()?),
            "--seeds" => options.seeds = number()?,
            "--from" => options.from = number()?,
            "--jobs" => options.jobs = number()?.max(1) as usize,
            "--break" => {
                let known = Sabotage::ALL.iter().find(|(name, _)| *name == value);
                let (_, sabotage) = known.ok_or_else(|| format!("no rule is called {value}"))?;
                options.sabotage = Some(*sabotage);
            }
            "--list" => options.list = Some(value),
            "--mode" => {
                options.mode = Some(match value.as_str() {
                    "calm" => Mode::Calm,
                    "safety" => Mode::Safety,
                    "healing" => Mode::Healing,
                    other => return Err(format!("no mode is called {other}")),
                });
            }
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!(
                "{error}\nusage: simulation [--seed N | --seeds N [--from N] [--jobs N] | --list FILE] [--mode M] [--quiet] [--first] [--cut-polls | --failovers] [--break RULE]"
            );
            return ExitCode::from(2);
        }
    };
    if let Some(seed) = options.seed {
        return replay(seed, &options);
    }
    let seeds = match &options.list {
        None => (options.from..options.from + options.seeds).collect(),
        Some(file) => match std::fs::read_to_string(file) {
            Ok(text) => simulation::run::listed(&text),
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::from(2);
            }
        },
    };
    many(&seeds, &options)
}

fn live(seed: u64, options: &Options, keeps_trace: bool) -> Report {
    let plan = Plan {
        sabotage: options.sabotage,
        ..Plan::draw(seed, options.mode)
    };
    let plan = if options.cut_polls { plan.cut_polls() } else { plan };
    run_plan(if options.failovers { plan.failovers() } else { plan }, keeps_trace)
}

fn replay(seed: u64, options: &Options) -> ExitCode {
    let report = live(seed, options, !options.quiet);
    for line in &report.trace {
        println!("{line}");
    }
    println!("{}", report.summary);
    for (what, times) in report.coverage.iter() {
        println!("{times:>10}  {what}");
    }
    println!("{} node-seconds, {} events", report.node_seconds, report.events);
    match report.violation {
        None => {
            println!("nothing is wrong");
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!("{} at {} us: {}", violation.invariant, violation.at, violation.what);
            ExitCode::FAILURE
        }
    }
}

fn many(seeds: &[u64], options: &Options) -> ExitCode {
    // A machine's panic is reported with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let begin = Instant::now();
    let (next, node_seconds, events) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let sum = Mutex::new((Coverage::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = live(*seed, options, false);
                    node_seconds.fetch_add(report.node_seconds, Ordering::Relaxed);
                    events.fetch_add(report.events, Ordering::Relaxed);
                    let Ok(mut sum) = sum.lock() else { return };
                    sum.0.merge(&report.coverage);
                    if report.violation.is_some() {
                        println!("{}", failure(*seed, &report, options));
                        sum.1.push(*seed);
                        if options.first {
                            next.store(seeds.len(), Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let Ok((coverage, failed)) = sum.into_inner() else {
        return ExitCode::FAILURE;
    };
    if !options.quiet {
        for (what, times) in coverage.iter() {
            println!("{times:>12}  {what}");
        }
    }
    for (what, wanted, got) in coverage.missing() {
        println!("seen too rarely: {what}: {got} of {wanted}");
    }
    let (seconds, node_seconds) = (begin.elapsed().as_secs_f64(), node_seconds.into_inner());
    let rate = node_seconds as f64 / seconds / options.jobs as f64;
    println!(
        "{} seeds, {} failed, {node_seconds} node-seconds in {seconds:.1} s with {} jobs: {rate:.0} node-seconds a second and \
         job, {} events",
        seeds.len(),
        failed.len(),
        options.jobs,
        events.into_inner(),
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn failure(seed: u64, report: &Report, options: &Options) -> String {
    let Some(violation) = &report.violation else {
        return String::new();
    };
    let narrower = match (options.cut_polls, options.failovers) {
        (_, true) => " --failovers",
        (true, false) => " --cut-polls",
        (false, false) => "",
    };
    format!(
        "seed {seed} fails {}: {}\n    replay: cargo run -p simulation -- --seed {seed}{narrower}",
        violation.invariant, violation.what
    )
}
