//! `tidings-check`: judges files of a history, converts them, or makes one up.

use clap::Parser;
use std::error::Error;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use tidings_checker::generate::generate;
use tidings_checker::history::{Event, Files, Header, History as _, NotRecorded, Writer};
use tidings_checker::rules::Floor;
use tidings_checker::{Invariant, Rules, check};

/// Judges a recorded history: exit code 0 if all holds, 1 if anything is violated, 2 if too little was seen, 3 if the
/// history or the command line cannot be read.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// The files of one run, in either form.
    #[arg(required_unless_present = "generate")]
    files: Vec<PathBuf>,
    /// Write the history as JSON lines to standard output, merged by stamp, and judge nothing.
    #[arg(long, conflicts_with_all = ["to_binary", "generate"])]
    to_json: bool,
    /// Write the history in the compact form to this new file, merged by stamp, and judge nothing.
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    to_binary: Option<PathBuf>,
    /// Make up a history of about so many events for timing, write it in the compact form to this new file, and judge
    /// it.
    #[arg(long, num_args = 2, value_names = ["EVENTS", "FILE"])]
    generate: Option<Vec<String>>,
    /// How long a client may take to be told after an acknowledgement, a reconnect or the last fault.
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    settle_ms: u64,
    /// All copies of some shard were lost: resyncs that say so are right.
    #[arg(long)]
    lost_copies: bool,
    /// Acknowledgements of level `accepted` count as promises.
    #[arg(long)]
    accepted_is_promised: bool,
    /// A cause of resync that the run provoked. May be repeated.
    #[arg(long, value_name = "CAUSE")]
    allow_resync: Vec<String>,
    /// The clients do not drop what is older than what they know.
    #[arg(long)]
    raw_clients: bool,
    /// An invariant that must have been put to the test, besides I1 to I6. May be repeated.
    #[arg(long, value_name = "I")]
    require: Vec<Invariant>,
    /// The least that must have been seen: kill.acks=100 during faults of a kind, run.resumes=10 in the run.
    #[arg(long, value_name = "FAULT.COUNTER=N")]
    floor: Vec<Floor>,
    /// How many violations of each invariant are shown.
    #[arg(long, value_name = "N", default_value_t = 3)]
    samples: usize,
}

impl Options {
    fn rules(&self) -> Rules {
        let mut rules = Rules {
            settle_us: self.settle_ms.saturating_mul(1_000),
            lost_copies: self.lost_copies,
            accepted_is_promised: self.accepted_is_promised,
            allowed_resyncs: self.allow_resync.iter().cloned().collect(),
            raw_clients: self.raw_clients,
            floors: self.floor.clone(),
            samples: self.samples,
            ..Rules::default()
        };
        rules.required.extend(&self.require);
        rules
    }
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // `--help` and `--version` come here as well.
            let code = if error.use_stderr() { 3 } else { 0 };
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    match run(&options) {
        Ok(code) => ExitCode::from(code),
        // Who reads our output may have seen enough.
        Err(error) if is_broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidings-check: {error}");
            ExitCode::from(3)
        }
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run(options: &Options) -> Result<u8, Box<dyn Error>> {
    let mut files = options.files.clone();
    if let Some([events, file]) = options.generate.as_deref() {
        let events = events
            .parse()
            .map_err(|_| format!("{events} is not a number of events"))?;
        make_up(events, Path::new(file))?;
        files.push(file.into());
    }
    let history = Files::open(&files)?;
    if options.to_json {
        to_json(&history)?;
        return Ok(0);
    }
    if let Some(path) = &options.to_binary {
        to_binary(&history, path)?;
        return Ok(0);
    }
    let started = Instant::now();
    let report = check(&history, &options.rules())?;
    let mut out = BufWriter::new(io::stdout().lock());
    write!(out, "{report}")?;
    writeln!(out, "checked in {:.2} s", started.elapsed().as_secs_f64())?;
    out.flush()?;
    Ok(report.exit_code())
}

fn to_json(history: &Files) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::new(io::stdout().lock());
    let header = Header::new(history.prefix());
    writeln!(out, "{}", header.to_json())?;
    let mut result = Ok(());
    history.replay(&mut |_, event| {
        if result.is_ok() {
            result = writeln!(out, "{}", event.to_json());
        }
    })?;
    result?;
    out.flush()?;
    Ok(())
}

fn to_binary(history: &Files, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut writer = Writer::create(path, &Header::new(history.prefix()))?;
    let mut result = Ok(());
    history.replay(&mut |_, event| record(&mut writer, event, &mut result))?;
    result?;
    writer.finish()?;
    Ok(())
}

fn make_up(events: u64, path: &Path) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let mut writer = Writer::create(path, &Header::new("order:"))?;
    let mut result = Ok(());
    generate(events, &mut |event| record(&mut writer, event, &mut result));
    result?;
    let events = writer.events();
    writer.finish()?;
    eprintln!(
        "{events} events made up and written in {:.2} s",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

fn record(writer: &mut Writer, event: &Event<'_>, result: &mut Result<(), NotRecorded>) {
    if result.is_ok() {
        *result = writer.record_blocking(event);
    }
}
