//! The server under test as a process of ours: found, started, killed, paused, restarted, and ended with the run.
//!
//! It does not know why, nor when.

use crate::http::Client;
use crate::messages::Target;
use crate::scenario;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a server may take to become ready.
const START: Duration = Duration::from_secs(30);
/// Lines of its log that go with a failure.
const TAIL: usize = 15;

/// A server that ends when this value does.
#[derive(Debug)]
pub(crate) struct Server {
    program: PathBuf,
    arguments: Vec<String>,
    directory: TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

/// The server's program: as given, else beside this one, else as cargo builds it.
pub(crate) fn find(given: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = given {
        return match path.is_file() {
            true => Ok(path.to_owned()),
            false => Err(format!("--start-server={}: there is no such program", path.display())),
        };
    }
    let mut places = Vec::new();
    if let Ok(this) = std::env::current_exe() {
        places.extend(this.parent().map(|folder| folder.join("tidings")));
    }
    places.extend(["target/release/tidings", "target/debug/tidings"].map(PathBuf::from));
    let found = places.iter().find(|place| place.is_file()).cloned();
    found.ok_or_else(|| {
        let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        format!(
            "no server to start: looked for {}. Build it (cargo build --release -p tidings) or name it: \
             --start-server=PATH",
            places.join(", ")
        )
    })
}

impl Server {
    /// Starts a server on a free port with an empty folder of its own, and waits until it is ready.
    pub(crate) fn start(program: &Path, settings: &scenario::Server) -> Result<Self, String> {
        let directory = TempDir::with_prefix("tidings-loadtest-").map_err(|error| error.to_string())?;
        let address = free_address().map_err(|error| error.to_string())?;
        let data = match settings.in_memory {
            true => "none".to_owned(),
            false => directory.path().join("data").display().to_string(),
        };
        let mut arguments = vec![
            "--listen".to_owned(),
            address.to_string(),
            "--data-dir".to_owned(),
            data,
        ];
        if settings.threads > 0 {
            arguments.extend(["--threads".to_owned(), settings.threads.to_string()]);
        }
        arguments.extend(settings.arguments.iter().cloned());
        let mut server = Self {
            program: fs::canonicalize(program).map_err(|error| format!("{}: {error}", program.display()))?,
            arguments,
            directory,
            address,
            child: None,
        };
        server.spawn()?;
        let began = Instant::now();
        while !server.is_ready() {
            if let Some(why) = server.ended() {
                return Err(format!("the server {why}\n{}", server.log_tail()));
            }
            if began.elapsed() > START {
                return Err(format!(
                    "the server is not ready after {START:?}\n{}",
                    server.log_tail()
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Begins to run; whether it is ready is another question.
    pub(crate) fn spawn(&mut self) -> Result<(), String> {
        let path = self.log();
        let open = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
        let log: File = open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // An interrupt from the terminal is for us.
            .process_group(0);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDINGS_") {
                command.env_remove(name);
            }
        }
        let child = command.spawn();
        self.child = Some(child.map_err(|error| format!("{}: {error}", self.program.display()))?);
        Ok(())
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            address: self.address,
            host: self.address.to_string(),
        }
    }

    /// Its process, while there is one.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it answers that it is fit to serve.
    pub(crate) fn is_ready(&self) -> bool {
        is_ready(&self.target(), Duration::from_millis(200))
    }

    /// Why it runs no more; `None` while it does.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(format!("ended by itself: {status}"))
    }

    /// Whether it runs no more, as it was asked.
    pub(crate) fn is_gone(&mut self) -> bool {
        self.ended().is_some() || self.child.is_none()
    }

    /// `kill -9`; it is gone when this returns.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), String> {
        let Some(child) = &self.child else { return Ok(()) };
        kill_process(Pid::from_child(child), signal).map_err(|error| error.to_string())
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    /// The end of what it wrote, to go with a failure.
    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A paused process is not killed before it runs again on some systems.
        let _ = self.signal(Signal::CONT);
        self.kill();
    }
}

/// Whether a server answers that it is fit to serve.
pub(crate) fn is_ready(target: &Target, patience: Duration) -> bool {
    let answer = Client::connect(target.address, &target.host, patience).and_then(|mut client| client.get("/readyz"));
    answer.is_ok_and(|(status, _)| status == 200)
}

/// An address that nobody listens on at this moment.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
