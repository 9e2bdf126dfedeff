//! What a person sees while a run goes on: one line that renews itself on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use tidings_report::words;

/// Away from a terminal a line of figures comes this often.
const PLAIN_EVERY_S: u64 = 5;

/// Everything that a line of progress tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) at_s: u64,
    pub(crate) of_s: u64,
    pub(crate) phase: &'static str,
    pub(crate) published_per_s: f64,
    pub(crate) delivered_per_s: f64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) connections: u64,
    pub(crate) server_cores: Option<f64>,
    pub(crate) server_bytes: Option<u64>,
}

/// Standard error, used with manners.
#[derive(Debug)]
pub(crate) struct Progress {
    quiet: bool,
    terminal: bool,
    pending: bool,
    said_s: u64,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            quiet,
            terminal: io::stderr().is_terminal(),
            pending: false,
            said_s: 0,
        }
    }

    /// A line that stays.
    pub(crate) fn say(&mut self, text: &str) {
        if !self.quiet {
            let clear = if std::mem::take(&mut self.pending) {
                "\r\x1b[K"
            } else {
                ""
            };
            // Nobody reads it any more: no reason to stop.
            let _ = writeln!(io::stderr(), "{clear}{text}");
        }
    }

    /// How far it is.
    pub(crate) fn show(&mut self, figures: &Figures) {
        if self.quiet || (!self.terminal && figures.at_s < self.said_s + PLAIN_EVERY_S) {
            return;
        }
        self.said_s = figures.at_s;
        let line = line(figures);
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K{line}");
            let _ = io::stderr().flush();
            self.pending = true;
        } else {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

fn line(figures: &Figures) -> String {
    let mut line = format!(
        "{:>3}/{} s {:<6} published {}, delivered {}",
        figures.at_s,
        figures.of_s,
        figures.phase,
        words::rate(figures.published_per_s),
        words::rate(figures.delivered_per_s),
    );
    if figures.p99_us > 0 {
        line.push_str(&format!(
            ", p50 {}, p99 {}",
            words::duration_us(figures.p50_us as f64),
            words::duration_us(figures.p99_us as f64)
        ));
    }
    line.push_str(&format!(", {} connections", words::count(figures.connections as f64)));
    if let (Some(cores), Some(bytes)) = (figures.server_cores, figures.server_bytes) {
        line.push_str(&format!(
            ", server {}, {}",
            words::cores(cores),
            words::bytes(bytes as f64)
        ));
    }
    line
}
