//! Measures the whole server from outside, next to bare loops of the same system calls on the same machine.
//!
//! Each scenario starts the server it needs, checks all that its clients are told (a lost or older version fails the
//! run), and prints a table and one line of JSON.

mod bare;
mod fanout;
mod firehose;
mod frame;
mod http;
mod latency;
mod machine;
mod message;
mod meter;
mod net;
mod random;
mod report;
mod seed;
mod server;
mod single;
mod slow;
#[cfg(test)]
mod stand_in;
mod storm;
mod stream;
mod subscriptions;
mod swarm;
mod watching;

use clap::{Parser, Subcommand};
use machine::Machine;
use report::Report;
use server::Launcher;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The bare loops should not pay for a slower allocator than the server's.
#[global_allocator]
static ALLOCATOR: jemallocator::Jemalloc = jemallocator::Jemalloc;

#[derive(Debug, Parser)]
#[command(
    name = "tidings-bench",
    about = "Measures a Tidings server against bare loops of the same system calls"
)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
    /// Exit with 2 if a goal is missed (a wrong answer always exits with 1)
    #[arg(long, global = true)]
    strict: bool,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    Fanout(fanout::Fanout),
    Firehose(firehose::Firehose),
    Single(single::Single),
    Subscriptions(subscriptions::Subscriptions),
    Seed(seed::Seed),
    Storm(storm::Storm),
    Slow(slow::Slow),
    /// Every scenario with its defaults; writes results.json and results.md
    All {
        /// Directory for the two files
        #[arg(long, default_value = ".")]
        out: PathBuf,
        /// Rounds of each scenario; its own default if not given
        #[arg(long)]
        rounds: Option<usize>,
        #[command(flatten)]
        launcher: Launcher,
    },
    /// The floor of `fanout`: accepts connections and sends each what it reads from standard input
    BareSend {
        connections: usize,
    },
    /// The floor of `single`: answers every request with a constant
    BareHyper {
        threads: usize,
        answer: String,
    },
}

impl Scenario {
    fn run(&self) -> io::Result<Report> {
        match self {
            Self::Fanout(scenario) => scenario.run(),
            Self::Firehose(scenario) => scenario.run(),
            Self::Single(scenario) => scenario.run(),
            Self::Subscriptions(scenario) => scenario.run(),
            Self::Seed(scenario) => scenario.run(),
            Self::Storm(scenario) => scenario.run(),
            Self::Slow(scenario) => scenario.run(),
            Self::All { .. } | Self::BareSend { .. } | Self::BareHyper { .. } => {
                Err(io::Error::other("not a scenario with a report of its own"))
            }
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let machine = Machine::here();
    let done = match arguments.scenario {
        Scenario::All { out, rounds, launcher } => all(&machine, &out, rounds, &launcher),
        Scenario::BareSend { connections } => bare::send(connections).map(|()| Verdict::default()),
        Scenario::BareHyper { threads, answer } => bare::hyper_server(threads, &answer).map(|()| Verdict::default()),
        scenario => scenario.run().and_then(|report| one(&machine, &report)),
    };
    match done {
        Ok(verdict) if verdict.wrong => ExitCode::from(1),
        Ok(verdict) if verdict.missed && arguments.strict => ExitCode::from(2),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidings-bench: {error}");
            ExitCode::from(1)
        }
    }
}

/// What decides the exit code.
#[derive(Debug, Clone, Copy, Default)]
struct Verdict {
    wrong: bool,
    missed: bool,
}

impl Verdict {
    fn of(report: &Report) -> Self {
        Self {
            wrong: !report.failures().is_empty(),
            missed: report.goals_missed(),
        }
    }
}

/// A line on standard output; a reader that has left is an error, not a panic.
fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

fn one(machine: &Machine, report: &Report) -> io::Result<Verdict> {
    say(&format!(
        "{}\nOn {}.\n\n{}",
        report.table(),
        machine.line(),
        report.json(machine)
    ))?;
    Ok(Verdict::of(report))
}

/// Runs everything; a scenario that breaks off is reported and the next one runs.
fn all(machine: &Machine, out: &Path, rounds: Option<usize>, launcher: &Launcher) -> io::Result<Verdict> {
    let names = ["single", "fanout", "subscriptions", "slow", "seed", "storm", "firehose"];
    let mut verdict = Verdict::default();
    let (mut markdown, mut json) = (format!("On {}.\n", machine.line()), Vec::new());
    for name in names {
        eprintln!("running {name} ...");
        let report = by_name(name, rounds, launcher).unwrap_or_else(|error| {
            let mut report = Report::new(name, serde_json::Value::Null);
            report.fail(error.to_string());
            report
        });
        let this = Verdict::of(&report);
        verdict = Verdict {
            wrong: verdict.wrong || this.wrong,
            missed: verdict.missed || this.missed,
        };
        say(&report.table())?;
        markdown.push_str(&format!("\n{}", report.table()));
        json.push(report.json(machine));
        // Written after each scenario: hours of measuring are not lost with the last one.
        std::fs::write(out.join("results.json"), serde_json::to_string_pretty(&json)?)?;
        std::fs::write(out.join("results.md"), &markdown)?;
    }
    say(&serde_json::Value::Array(json).to_string())?;
    Ok(verdict)
}

/// Runs one scenario with its defaults, which live with its arguments.
fn by_name(name: &'static str, rounds: Option<usize>, launcher: &Launcher) -> io::Result<Report> {
    let mut line = vec!["tidings-bench".to_owned(), name.to_owned()];
    line.extend(rounds.map(|rounds| format!("--rounds={rounds}")));
    line.extend(launcher.arguments());
    Arguments::try_parse_from(line)
        .map_err(io::Error::other)?
        .scenario
        .run()
}
