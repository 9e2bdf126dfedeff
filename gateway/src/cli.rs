//! The words of the command line that talk to a server as any other client would: `publish`, `watch` and `cluster`; and
//! `dev`, which starts some.
//!
//! They use the public HTTP and WebSocket surface only and know nothing of the inside of a node. Exit codes: 0 done,
//! 1 something failed (the message says what happened to state), 2 the words on the command line make no sense.

use std::io::Write;
use std::path::PathBuf;

mod backoff;
pub mod cluster;
pub mod dev;
pub mod doctor;
pub mod health;
pub mod publish;
mod server;
mod signals;
pub mod token;
pub mod watch;

/// Where the server is and how to be let in.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// The server to talk to: plain `http://` (or `ws://`) only; put TLS in front with a proxy on this machine
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7400")]
    pub server: String,
    /// A file that holds the token to be let in with; read again for every connection
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Something failed; the message has been printed.
const FAILED: u8 = 1;
/// The command line makes no sense; the message has been printed.
const USAGE: u8 = 2;

/// Prints a line for the person, apart from the results.
fn note(text: &str) {
    // Standard error that is gone must not end the work.
    let _ = writeln!(std::io::stderr().lock(), "tidings: {text}");
}

/// Prints a line of results. `false` when nobody reads them any more.
fn print_line(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

/// A text from outside as one harmless line: control characters (line breaks, terminal escapes) are shown as escapes.
fn one_line(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| {
            if c.is_control() {
                c.escape_default().to_string()
            } else {
                c.to_string()
            }
        })
        .collect()
}

/// "1 change", "2 changes".
fn count(number: u64, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_outside_cannot_break_the_line_or_steer_the_terminal() {
        assert_eq!(one_line("Straße 7"), "Straße 7");
        assert_eq!(one_line("a\nb\u{1b}[2J"), "a\\nb\\u{1b}[2J");
    }
}
