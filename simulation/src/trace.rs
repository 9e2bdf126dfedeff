//! What happened, line by line, for whoever replays a seed.
//!
//! Words are made only if somebody reads them: a run among thousands keeps none.

use std::fmt::Display;

/// See the module.
#[derive(Debug, Default)]
pub struct Trace {
    lines: Option<Vec<String>>,
}

impl Trace {
    /// One that keeps lines, or none.
    #[must_use]
    pub fn new(keeps: bool) -> Self {
        Self {
            lines: keeps.then(Vec::new),
        }
    }

    /// Whether it keeps lines.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.lines.is_some()
    }

    /// Notes what somebody did at a true time, in microseconds.
    pub fn note<T: Display>(&mut self, at: u64, who: impl Display, words: impl FnOnce() -> T) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!(
                "{:>6}.{:06} {who:>8}  {}",
                at / 1_000_000,
                at % 1_000_000,
                words()
            ));
        }
    }

    /// The lines so far.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
