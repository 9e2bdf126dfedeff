//! `curl`, which every first trial of the server uses.

use super::PATIENCE;
use super::ear::Ear;
use super::events::Blocks;
use serde_json::Value;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A `curl` that reads an event stream.
#[derive(Debug)]
pub(crate) struct Curl {
    child: Child,
    output: ChildStdout,
    text: Blocks,
}

fn command() -> Command {
    let mut command = Command::new("curl");
    // No settings or proxy of whoever runs the tests.
    command.args([
        "-q",
        "--noproxy",
        "*",
        "-sS",
        "--max-time",
        &PATIENCE.as_secs().to_string(),
    ]);
    command
}

const MISSING: &str = "this test needs the program `curl` in PATH (package `curl`)";

impl Curl {
    /// Runs `curl` with these arguments to its end; gives what it wrote.
    #[track_caller]
    pub(crate) fn run(arguments: &[&str]) -> String {
        let output = command().args(arguments).output().expect(MISSING);
        assert!(
            output.status.success(),
            "curl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    /// `curl -N` of an event stream.
    #[track_caller]
    pub(crate) fn events(address: SocketAddr, query: &str) -> Self {
        let url = format!("http://{address}/v1/events?{query}");
        let mut child = command()
            .args(["-N", &url])
            .stdout(Stdio::piped())
            .spawn()
            .expect(MISSING);
        let output = child.stdout.take().expect("its output");
        Self {
            child,
            output,
            text: Blocks::default(),
        }
    }
}

impl Ear for Curl {
    fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(told) = self.text.next() {
                return Some(told);
            }
            let mut piece = [0; 4096];
            match self.output.read(&mut piece).expect("curl's output") {
                0 => return None,
                count => self.text.feed(&piece[..count]),
            }
        }
    }
}

impl Drop for Curl {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
