//! `tidings-neighbours nats redis nchan`: the same load on each, and a report that shows them side by side.

use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tidings_neighbours::{Failure, Load, System, run, server::StartError};
use tidings_report::record::Record;
use tidings_report::{html, table};

/// Puts other systems under the load of a scenario, one after the other, and shows them side by side.
///
/// Each server is started on loopback with an empty directory and stopped again; it must be installed.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Systems: tidings, nats, redis, nchan, or all.
    #[arg(required = true)]
    systems: Vec<String>,
    /// Where to start from: `seed` (2,000 subscribers of 100 out of 10 million objects, 300 changes a second, 10 % watched)
    /// or `hot` (one object, all subscribers, 20 changes a second).
    #[arg(long, default_value = "seed", value_parser = ["seed", "hot"])]
    scenario: String,
    /// Connections that listen.
    #[arg(long)]
    subscribers: Option<u32>,
    /// Objects that each of them watches.
    #[arg(long)]
    topics: Option<u32>,
    /// Objects there are.
    #[arg(long)]
    objects: Option<u32>,
    /// Changes published a second.
    #[arg(long)]
    rate: Option<f64>,
    /// Share of the changes that concern a watched object, 0 to 1.
    #[arg(long)]
    watched: Option<f64>,
    /// How long to publish.
    #[arg(long)]
    seconds: Option<f64>,
    /// Share of the subscribers that are cut off after six tenths of the time, 0 to 1.
    #[arg(long)]
    cut: Option<f64>,
    /// How long they stay away.
    #[arg(long)]
    away_seconds: Option<f64>,
    /// Of the choices that look like chance.
    #[arg(long)]
    seed: Option<u64>,
    /// The program of a Tidings node (otherwise target/release/tidings).
    #[arg(long)]
    tidings: Option<PathBuf>,
    /// Writes the report as one HTML page.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Writes the record as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Arguments {
    fn load(&self) -> Load {
        let mut load = if self.scenario == "hot" {
            Load::hot()
        } else {
            Load::seed()
        };
        let set = |to: &mut u32, from: Option<u32>| *to = from.unwrap_or(*to);
        set(&mut load.subscribers, self.subscribers);
        set(&mut load.topics, self.topics);
        set(&mut load.objects, self.objects);
        load.rate = self.rate.unwrap_or(load.rate);
        load.watched = self.watched.unwrap_or(load.watched);
        load.cut = self.cut.unwrap_or(load.cut);
        load.seed = self.seed.unwrap_or(load.seed);
        let seconds = |from: Option<f64>, or: Duration| {
            from.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .unwrap_or(or)
        };
        load.length = seconds(self.seconds, load.length);
        load.away = seconds(self.away_seconds, load.away);
        load
    }

    fn systems(&self) -> Result<Vec<System>, String> {
        let mut systems = Vec::new();
        for name in &self.systems {
            if name == "all" {
                systems.extend(System::ALL);
            } else {
                systems.push(
                    name.parse()
                        .map_err(|error: tidings_neighbours::system::UnknownSystem| error.to_string())?,
                );
            }
        }
        Ok(systems)
    }
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether every system was measured.
fn measure(arguments: &Arguments) -> Result<bool, String> {
    let load = arguments.load();
    let mut records: Vec<Record> = Vec::new();
    let mut complete = true;
    for system in arguments.systems()? {
        eprintln!("{system}: {} s …", load.length.as_secs());
        let program = arguments.tidings.as_deref().filter(|_| system == System::Tidings);
        match run(system, &load, program) {
            Ok(record) => records.push(record),
            // The others can still be compared.
            Err(failure @ (Failure::Start(StartError::NotInstalled { .. }) | Failure::Load { .. })) => {
                eprintln!("{system}: left out: {failure}");
                complete = false;
            }
            Err(failure) => return Err(failure.to_string()),
        }
    }
    if records.is_empty() {
        return Err("nothing was measured".to_owned());
    }
    let mut record = records.remove(0);
    record.command = std::env::args().collect::<Vec<_>>().join(" ");
    record.neighbours = records;
    let style = table::Style {
        colours: std::io::IsTerminal::is_terminal(&std::io::stdout()),
        ..table::Style::default()
    };
    print!("{}", table::render(&record, None, style));
    if let Some(file) = &arguments.html {
        write(file, &html::page(&record, None))?;
    }
    if let Some(file) = &arguments.json {
        write(file, &record.to_json().map_err(|error| error.to_string())?)?;
    }
    Ok(complete)
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}
