//! Starts the server under test and ends it.

use crate::http;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How to start a server, and where this program itself may run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Launcher {
    /// The server's release binary
    #[arg(long, default_value = "target/release/tidings")]
    server_bin: PathBuf,
    /// A further argument for the server; repeatable
    #[arg(long = "server-arg", allow_hyphen_values = true)]
    server_args: Vec<String>,
    /// Threads of the server, and of the bare server it is compared with
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Leave the placement to the kernel; else the server gets core 0 and this program the other cores
    #[arg(long)]
    no_pin: bool,
    /// A server that runs already (tests: in this very process)
    #[arg(skip)]
    running: Option<SocketAddr>,
}

/// A server that ends when this value does.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    child: Option<Child>,
    directory: Option<TempDir>,
}

impl Launcher {
    /// For tests: a server inside this process.
    #[cfg(test)]
    pub(crate) fn running(address: SocketAddr) -> Self {
        let (server_bin, server_args) = (PathBuf::new(), Vec::new());
        Self {
            server_bin,
            server_args,
            threads: 1,
            no_pin: true,
            running: Some(address),
        }
    }

    /// These settings as they are typed.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--server-bin={}", self.server_bin.display()),
            format!("--threads={}", self.threads),
        ];
        arguments.extend(
            self.server_args
                .iter()
                .map(|argument| format!("--server-arg={argument}")),
        );
        arguments.extend(self.no_pin.then(|| "--no-pin".to_owned()));
        arguments
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    pub(crate) fn pinned(&self) -> bool {
        !self.no_pin
    }

    /// The command for a program that plays the server's part, on the server's core.
    pub(crate) fn command(&self, program: &std::path::Path) -> Command {
        if self.no_pin {
            return Command::new(program);
        }
        let mut command = Command::new("taskset");
        command.arg("-c").arg("0").arg(program);
        command
    }

    /// Starts a server with an empty directory of its own and waits until it is ready.
    pub(crate) fn start(&self) -> io::Result<Server> {
        if let Some(address) = self.running {
            return Ok(Server {
                address,
                pid: std::process::id(),
                child: None,
                directory: None,
            });
        }
        let program = fs::canonicalize(&self.server_bin).map_err(|error| {
            io::Error::other(format!(
                "{}: {error} (build it with cargo build --release)",
                self.server_bin.display()
            ))
        })?;
        let directory = TempDir::new()?;
        let log = File::create(directory.path().join("server.log"))?;
        let address = free_address()?;
        let child = self
            .command(&program)
            .arg("--listen")
            .arg(address.to_string())
            .arg("--threads")
            .arg(self.threads.to_string())
            .args(&self.server_args)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        // `taskset` becomes the server: the process keeps its id.
        let pid = child.id();
        let mut server = Server {
            address,
            pid,
            child: Some(child),
            directory: Some(directory),
        };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Keeps this program off the server's core. Threads started later inherit it.
    pub(crate) fn pin_self(&self) -> io::Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if self.no_pin || cores < 2 {
            return Ok(());
        }
        let status = Command::new("taskset")
            .args([
                "-a",
                "-c",
                "-p",
                &format!("1-{}", cores - 1),
                &std::process::id().to_string(),
            ])
            .stdout(Stdio::null())
            .status()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other("taskset failed (try --no-pin)"))
        }
    }
}

impl Server {
    fn wait_until_ready(&mut self) -> io::Result<()> {
        let began = Instant::now();
        loop {
            let answer = http::Client::connect(self.address).and_then(|mut client| client.get("/readyz"));
            if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || began.elapsed() > Duration::from_secs(20) {
                let why = ended.map_or_else(|| format!("not ready: {answer:?}"), |status| format!("ended: {status}"));
                return Err(io::Error::other(format!("the server {why}\n{}", self.log_tail())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of what the server wrote, to go with a failure.
    pub(crate) fn log_tail(&self) -> String {
        let path = self
            .directory
            .as_ref()
            .map(|directory| directory.path().join("server.log"));
        let text = path.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let log = self.log_tail();
        if let Some(child) = &mut self.child {
            if let Ok(Some(status)) = child.try_wait() {
                eprintln!("the server ended by itself: {status}\n{log}");
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An address nobody listens on at this moment.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
