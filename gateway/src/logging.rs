//! What the server says about itself on standard error: which lines, in which form, and how many of one cause.
//!
//! A *cause* is one place in the program that logs. Of each cause so many lines a second are written as
//! `log.lines_per_second` says; the rest is counted, and one line a second says how many were left out.

use crate::config::{ConfigError, Log};
use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, filter::FilterExt as _, fmt, reload};

/// Under it stands what was left out. It is always written.
const TARGET: &str = "tidings::log";
/// Characters of a message that stand in the line about those left out.
const MESSAGE_CHARS: usize = 120;

/// What may change while the process runs.
struct Running {
    filter: reload::Handle<EnvFilter, Registry>,
    limiter: Arc<Limiter>,
}

static RUNNING: OnceLock<Running> = OnceLock::new();

/// Starts logging to standard error. A second call in one process changes nothing.
///
/// # Errors
/// If the filter cannot be read.
pub fn start(log: &Log) -> Result<(), ConfigError> {
    let (filter, handle) = reload::Layer::new(filter(&log.filter)?);
    let limiter = Arc::new(Limiter::new(log.lines_per_second));
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = if log.format == "json" {
        lines.json().boxed()
    } else {
        lines.boxed()
    };
    let lines = lines.with_filter(filter.and(Limited(Arc::clone(&limiter))));
    // Fails only if a subscriber is set already, as in tests with several nodes.
    if tracing_subscriber::registry().with(lines).try_init().is_ok() {
        let summing = Arc::clone(&limiter);
        // Without it nobody hears how many were left out, which is no reason not to serve.
        _ = std::thread::Builder::new()
            .name("tidings-log".to_owned())
            .spawn(move || {
                loop {
                    std::thread::sleep(Duration::from_secs(1));
                    summing.sum_up(false);
                }
            });
        let filter = handle;
        // Nothing was there: the subscriber could be set.
        _ = RUNNING.set(Running { filter, limiter });
    }
    Ok(())
}

/// Checks a filter.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn check_filter(text: &str) -> Result<(), ConfigError> {
    filter(text).map(drop)
}

/// Prepares another filter and number of lines; what comes back makes them count.
///
/// # Errors
/// If the filter cannot be read.
pub(crate) fn prepare(log: &Log) -> Result<impl FnOnce() + Send + use<>, ConfigError> {
    let (filter, lines) = (filter(&log.filter)?, log.lines_per_second);
    Ok(move || {
        if let Some(running) = RUNNING.get() {
            running.limiter.most.store(lines, Relaxed);
            // Fails only if the subscriber is gone, and with it all lines.
            _ = running.filter.reload(filter);
        }
    })
}

/// Says at once what was left out: before the end of the process.
pub fn finish() {
    if let Some(running) = RUNNING.get() {
        running.limiter.sum_up(true);
    }
}

fn filter(text: &str) -> Result<EnvFilter, ConfigError> {
    let invalid = |error: &dyn std::fmt::Display| ConfigError::Invalid {
        key: "log.filter",
        reason: format!("{error}: write a level such as `info`, or `info,tidings=debug`"),
    };
    let mut filter = EnvFilter::try_new(text).map_err(|error| invalid(&error))?;
    // The WebSocket library traces whole messages, and with them tokens: whatever is asked for, that is not logged.
    for always in ["tungstenite=info", "tidings::log=info"] {
        filter = filter.add_directive(always.parse().map_err(|error| invalid(&error))?);
    }
    Ok(filter)
}

/// Counts lines by cause.
#[derive(Debug)]
struct Limiter {
    /// Lines of one cause in one second; 0: as many as come.
    most: AtomicU64,
    begun: Instant,
    causes: Mutex<HashMap<Identifier, Cause>>,
}

/// One cause in one second.
#[derive(Debug)]
struct Cause {
    second: u64,
    lines: u64,
    left_out: u64,
    message: String,
    level: Level,
}

impl Limiter {
    fn new(most: u64) -> Self {
        Self {
            most: AtomicU64::new(most),
            begun: Instant::now(),
            causes: Mutex::default(),
        }
    }

    /// Whether a line is written, at so many seconds since the beginning.
    fn admits(&self, second: u64, metadata: &Metadata<'_>, message: impl FnOnce() -> String) -> bool {
        let most = self.most.load(Relaxed);
        if most == 0 || metadata.target() == TARGET {
            return true;
        }
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let cause = causes.entry(metadata.callsite()).or_insert_with(|| Cause {
            second,
            lines: 0,
            left_out: 0,
            message: String::new(),
            level: *metadata.level(),
        });
        if cause.second != second {
            (cause.second, cause.lines) = (second, 0);
        }
        cause.lines += 1;
        let admitted = cause.lines <= most;
        if !admitted {
            if cause.left_out == 0 {
                cause.message = message();
            }
            cause.left_out += 1;
        }
        admitted
    }

    fn second(&self) -> u64 {
        self.begun.elapsed().as_secs()
    }

    /// Takes what was left out, in seconds that are over unless `all`.
    fn left_out(&self, second: u64, all: bool) -> Vec<(Level, String, u64)> {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let due = |cause: &&mut Cause| cause.left_out > 0 && (all || cause.second < second);
        let mut taken: Vec<_> = causes
            .values_mut()
            .filter(due)
            .map(|cause| {
                let message = std::mem::take(&mut cause.message);
                (cause.level, message, std::mem::take(&mut cause.left_out))
            })
            .collect();
        taken.sort();
        taken
    }

    fn sum_up(&self, all: bool) {
        for (level, like, left_out) in self.left_out(self.second(), all) {
            match level {
                Level::ERROR => {
                    tracing::error!(target: TARGET, left_out, like, "more lines of one cause were left out")
                }
                Level::WARN => tracing::warn!(target: TARGET, left_out, like, "more lines of one cause were left out"),
                _ => tracing::info!(target: TARGET, left_out, like, "more lines of one cause were left out"),
            }
        }
    }
}

/// The limiter as a filter of lines.
struct Limited(Arc<Limiter>);

impl<S: Subscriber> Filter<S> for Limited {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.0.admits(self.0.second(), event.metadata(), || {
            let mut message = Message(String::new());
            event.record(&mut message);
            message.0.chars().take(MESSAGE_CHARS).collect()
        })
    }
}

/// The words of an event, without its fields.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Writing to a String does not fail.
            _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one place in the program logs, as often as asked.
    fn written(limiter: &Arc<Limiter>, times: u64) -> String {
        #[derive(Clone, Default)]
        struct Sink(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().expect("unpoisoned").extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::default();
        let writer = sink.clone();
        let lines = fmt::layer().with_writer(move || writer.clone()).with_ansi(false);
        let lines = lines.with_filter(Limited(Arc::clone(limiter)));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            for n in 0..times {
                tracing::info!(n, "something is wrong");
            }
            tracing::info!("something else");
            limiter.sum_up(true);
        });
        let bytes = sink.0.lock().expect("unpoisoned").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn of_one_cause_so_many_lines_are_written_and_the_rest_is_counted() {
        // However slow the machine, a second that begins anew allows as many again: the sum is what counts.
        let limiter = Arc::new(Limiter::new(10));
        let text = written(&limiter, 1_000);
        let lines = text
            .lines()
            .filter(|line| line.contains("something is wrong n="))
            .count();
        assert!((10..1_000).contains(&lines), "{text}");
        assert!(text.contains("something else"), "another cause is not touched: {text}");
        let left_out = text
            .lines()
            .filter_map(|line| line.split("left_out=").nth(1)?.split(' ').next());
        let left_out: usize = left_out.map(|n| n.parse::<usize>().expect("a number")).sum();
        assert_eq!(lines + left_out, 1_000, "{text}");
        assert!(text.contains(r#"like="something is wrong""#), "{text}");
    }

    #[test]
    fn exactly_at_the_bound_nothing_is_left_out_and_none_means_no_bound() {
        let limiter = Arc::new(Limiter::new(10));
        assert!(!written(&limiter, 10).contains("left_out"));
        let limiter = Arc::new(Limiter::new(0));
        let text = written(&limiter, 100);
        assert_eq!(text.matches("something is wrong").count(), 100, "{text}");
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused_by_its_key() {
        assert!(check_filter("info,tidings=debug").is_ok());
        let error = check_filter("tidings=loud").expect_err("refused").to_string();
        assert!(error.starts_with("log.filter: "), "{error}");
    }
}
