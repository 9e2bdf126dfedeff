//! What is typed, and what is printed.

use crate::conductor::{self, Conductor, Wanted};
use crate::scenario::{self, Scenario};
use crate::{crew, judge, target};
use clap::{Parser, Subcommand};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidings_report::record::{Record, Status};
use tidings_report::thresholds::Thresholds;
use tidings_report::{html, table};

/// Puts a Tidings server under load and judges from outside whether it kept its promises.
///
/// Exit code: 0 all is fine, 1 a promise was broken or a threshold missed, 2 too little was seen to say so, 3 nothing could be
/// run.
#[derive(Debug, Parser)]
#[command(name = "tidings-loadtest", version)]
struct Program {
    #[command(subcommand)]
    word: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run a scenario
    Run(Box<Run>),
    /// List the scenarios that come with this program
    List,
    /// Print one of them: a start for one of your own
    Show {
        /// Its name
        name: String,
    },
    /// Judge a history that a run has written
    Check {
        /// The folder that was given as --history
        folder: PathBuf,
        /// The scenario it was written by, for what it allows [default: faults of any kind]
        #[arg(long)]
        scenario: Option<String>,
    },
    /// A part of another one's run: does what standard input says
    #[command(hide = true)]
    Crew,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// A scenario's name (see `list`) or file
    scenario: String,
    /// A server to drive, e.g. http://127.0.0.1:7400; may be repeated
    #[arg(long, value_name = "URL", required_unless_present = "start_server")]
    target: Vec<String>,
    /// Start a server in an empty folder for this run: the program beside this one, or PATH
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true)]
    start_server: Option<Option<PathBuf>>,
    /// Change a value of the scenario, e.g. publishers.rate=500; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// How long the load lasts, e.g. 30s: short for --set run.duration=…
    #[arg(long, value_name = "TIME")]
    duration: Option<String>,
    /// Generate the load from so many processes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    processes: u32,
    /// Write the history of everything that was seen to this folder, and judge it
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    /// Write the report as one HTML page
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compare with an earlier run's JSON
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
}

/// Why nothing could be run.
const COULD_NOT: u8 = 3;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let program = match Program::try_parse() {
        Ok(program) => program,
        Err(error) => {
            // Help and version are told in the same way, and are no failure.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(COULD_NOT)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let done = match program.word {
        What::Run(run) => run.go(),
        What::List => list(),
        What::Show { name } => show(&name),
        What::Check { folder, scenario } => check(&folder, scenario.as_deref()),
        What::Crew => crew::serve().map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|why| {
        eprintln!("tidings-loadtest: {why}");
        ExitCode::from(COULD_NOT)
    })
}

/// A reader that has left is an error, not a panic.
fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| error.to_string())
}

fn list() -> Result<ExitCode, String> {
    let mut text = String::new();
    for built_in in scenario::built_ins() {
        let scenario = scenario::parse(built_in.name, built_in.text, &[]).map_err(|error| error.to_string())?;
        text.push_str(&format!("{:<9} {}\n", built_in.name, scenario.about));
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn show(name: &str) -> Result<ExitCode, String> {
    print(built_in(name)?.text)?;
    Ok(ExitCode::SUCCESS)
}

fn built_in(name: &str) -> Result<&'static scenario::BuiltIn, String> {
    scenario::built_in(name).ok_or_else(|| {
        let names: Vec<_> = scenario::built_ins().iter().map(|one| one.name).collect();
        format!(
            "there is no scenario `{name}`, neither as a file nor among: {}",
            names.join(", ")
        )
    })
}

/// A scenario by name or file, with what the command line changes in it.
fn read(name: &str, sets: &[String]) -> Result<Scenario, String> {
    let path = Path::new(name);
    if !path.is_file() {
        let built_in = built_in(name)?;
        return scenario::parse(built_in.name, built_in.text, sets).map_err(|error| error.to_string());
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let stem = path.file_stem().map_or(name.into(), |stem| stem.to_string_lossy());
    scenario::parse(&stem, &text, sets).map_err(|error| error.to_string())
}

fn check(folder: &Path, scenario: Option<&str>) -> Result<ExitCode, String> {
    let files = conductor::history_files(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    if files.is_empty() {
        return Err(format!(
            "{}: there is no history (files that end with .tidings)",
            folder.display()
        ));
    }
    let rules = match scenario {
        Some(name) => judge::rules(&read(name, &[])?),
        None => judge::rules(&Scenario::default()),
    };
    let (report, _) = judge::history(&files, &rules)?;
    print(&report.to_string())?;
    Ok(ExitCode::from(report.exit_code()))
}

impl Run {
    fn go(&self) -> Result<ExitCode, String> {
        let before = self.compare.as_deref().map(read_record).transpose()?;
        let wanted = self.wanted()?;
        // Said before an hour of load, not after it.
        for path in [&self.report, &self.json].into_iter().flatten() {
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let interrupted = Arc::new(AtomicBool::new(false));
        listen_for_interrupts(Arc::clone(&interrupted));
        let finished = Conductor::run(wanted, interrupted)?;
        self.write(&finished.record, before.as_ref())?;
        let style = table::Style {
            colours: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            ..table::Style::default()
        };
        let mut text = table::render(&finished.record, before.as_ref(), style);
        text.push_str(&format!("\n{}\n", finished.headline));
        print(&text)?;
        Ok(ExitCode::from(match finished.record.outcome() {
            Status::Held | Status::NotChecked => 0,
            Status::Violated => 1,
            Status::Inconclusive => 2,
        }))
    }

    fn wanted(&self) -> Result<Wanted, String> {
        let mut sets = self.set.clone();
        sets.extend(
            self.duration
                .as_ref()
                .map(|duration| format!("run.duration=\"{duration}\"")),
        );
        let scenario = read(&self.scenario, &sets)?;
        let table: toml::Table = scenario.thresholds.clone().into_iter().collect();
        let thresholds: Thresholds = toml::Value::Table(table)
            .try_into()
            .map_err(|error: toml::de::Error| format!("{}: {}", scenario.name, error.message()))?;
        conductor::check_thresholds(&thresholds).map_err(|why| format!("{}: {why}", scenario.name))?;
        let targets: Result<Vec<_>, _> = self.target.iter().map(|text| target::parse(text)).collect();
        let command: Vec<_> = std::env::args().map(|word| shown(&word)).collect();
        Ok(Wanted {
            scenario,
            thresholds,
            targets: targets?,
            start_server: self.start_server.clone(),
            processes: self.processes,
            history: self.history.clone(),
            command: command.join(" "),
            quiet: self.quiet,
        })
    }

    fn write(&self, record: &Record, before: Option<&Record>) -> Result<(), String> {
        if let Some(path) = &self.json {
            let text = record.to_json().map_err(|error| error.to_string())?;
            std::fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
        }
        if let Some(path) = &self.report {
            std::fs::write(path, html::page(record, before)).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }
}

fn read_record(path: &Path) -> Result<Record, String> {
    let wrong = |why: String| format!("--compare {}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    Record::from_json(text.trim()).map_err(|error| wrong(error.to_string()))
}

/// A word of a command line as it may be typed again.
fn shown(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+%@".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// The first interrupt ends the load in order, the second ends this program.
fn listen_for_interrupts(interrupted: Arc<AtomicBool>) {
    let listen = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if interrupted.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    };
    // Without it an interrupt ends the program at once, as it does everywhere.
    let _ = std::thread::Builder::new().name("interrupts".to_owned()).spawn(listen);
}
