//! The real program.

use super::PATIENCE;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A running `tidings`.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    errors: mpsc::Receiver<String>,
}

impl Program {
    /// Starts it with these arguments and nothing from the environment that could change its configuration.
    #[track_caller]
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_tidings")), arguments)
    }

    /// The same by way of another program that becomes it, with `arguments` behind its own.
    #[track_caller]
    pub(crate) fn start_by(mut command: Command, arguments: &[&str]) -> Self {
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDINGS_") {
                command.env_remove(name);
            }
        }
        let mut child = command.spawn().expect("the program starts");
        let stdin = child.stdin.take();
        let lines = follow(child.stdout.take().expect("its output"));
        let errors = follow(child.stderr.take().expect("its errors"));
        Self {
            child,
            stdin,
            lines,
            errors,
        }
    }

    /// Serves on a free port; gives the address that it says it listens on, once every thread knows all owners.
    #[track_caller]
    pub(crate) fn serve(arguments: &[&str]) -> (Self, SocketAddr) {
        Self::serve_by(Command::new(env!("CARGO_BIN_EXE_tidings")), arguments)
    }

    /// The same by way of another program that becomes it.
    #[track_caller]
    pub(crate) fn serve_by(command: Command, arguments: &[&str]) -> (Self, SocketAddr) {
        let mut all = vec!["--listen", "127.0.0.1:0", "--threads", "2"];
        if !arguments.contains(&"--data-dir") {
            all.extend(["--data-dir", "none"]);
        }
        all.extend(arguments);
        let program = Self::start_by(command, &all);
        let line = program.line();
        let address = line
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next());
        let address = address.and_then(|text| text.parse().ok());
        let address = address.unwrap_or_else(|| panic!("the first line names no address: {line:?}"));
        super::settle(address);
        (program, address)
    }

    /// Serves on a free port, without asking it anything yet.
    #[track_caller]
    pub(crate) fn serve_quietly(arguments: &[&str]) -> (Self, SocketAddr) {
        let mut all = vec!["--listen", "127.0.0.1:0", "--threads", "2", "--data-dir", "none"];
        all.extend(arguments);
        let program = Self::start(&all);
        let line = program.line();
        let address = line
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next());
        let address = address.and_then(|text| text.parse().ok());
        let address = address.unwrap_or_else(|| panic!("the first line names no address: {line:?}"));
        (program, address)
    }

    /// The next line on its standard output.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.line_within(PATIENCE)
    }

    /// The same of one that takes its time.
    #[track_caller]
    pub(crate) fn line_within(&self, patience: Duration) -> String {
        match self.lines.recv_timeout(patience) {
            Ok(line) => line,
            Err(_) => panic!(
                "no line came; on standard error: {:?}",
                self.errors.try_iter().collect::<Vec<_>>()
            ),
        }
    }

    /// The next line on its standard error.
    #[track_caller]
    pub(crate) fn error_line(&self) -> String {
        self.errors.recv_timeout(PATIENCE).expect("a line on standard error")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the signal is sent");
    }

    pub(crate) fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Waits for its end; gives the status and what it wrote since.
    #[track_caller]
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<String>, Vec<String>) {
        let since = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                break status;
            }
            assert!(since.elapsed() < PATIENCE, "the program does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        // Its ends of the pipes are closed, so both iterators end.
        (status, self.lines.iter().collect(), self.errors.iter().collect())
    }

    /// Waits for its end, where others that it started may still hold its pipes.
    pub(crate) fn end_quietly(mut self) -> ExitStatus {
        self.child.wait().expect("its status")
    }

    #[track_caller]
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its status").is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn follow(output: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
