//! A system's server as a process of its own on loopback, with an empty directory that goes with it.
//!
//! It knows how each is started and stopped, not what is said to it.

use crate::system::System;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where Debian puts nchan's module.
const NCHAN_MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
/// How long a server may take to listen.
const START: Duration = Duration::from_secs(20);
/// How long it may take to go.
const STOP: Duration = Duration::from_secs(5);

/// Why there is no server. Nothing was left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program is not on this machine.
    #[error("{program} is not installed: {how}")]
    NotInstalled {
        /// What was looked for.
        program: String,
        /// How to get it.
        how: &'static str,
    },
    /// It ended, or never listened.
    #[error("{program} did not start: {why}")]
    Failed {
        /// What was started.
        program: String,
        /// What it said.
        why: String,
    },
    /// The system refused a file, a port or a process.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A running server; it is stopped when this goes.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
    version: String,
    // Removed after the process has ended, not before.
    _directory: TempDir,
}

impl Server {
    /// Starts it on a free port and waits until it listens. `program` overrides where the server's program is.
    ///
    /// # Errors
    /// When it is not installed, does not start, or the machine has no room.
    pub fn start(system: System, program: Option<&Path>) -> Result<Self, StartError> {
        let program = find(system, program)?;
        let directory = TempDir::new()?;
        let address = free_address()?;
        let log = File::create(directory.path().join("log"))?;
        let mut command = command(system, &program, address, directory.path())?;
        command.current_dir(directory.path()).stdin(Stdio::null());
        let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut server = Self {
            child,
            address,
            version: version(system, &program),
            _directory: directory,
        };
        server.wait_until_it_listens(&program)?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process; it may have children.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Name and version as it says itself.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    fn wait_until_it_listens(&mut self, program: &Path) -> Result<(), StartError> {
        let began = Instant::now();
        loop {
            if TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || began.elapsed() > START {
                let log = fs::read_to_string(self._directory.path().join("log")).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(5)..].join("; ");
                let what = ended.map_or_else(|| "it does not listen".to_owned(), |status| status.to_string());
                return Err(StartError::Failed {
                    program: program.display().to_string(),
                    why: format!("{what}: {tail}"),
                });
            }
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked first: nginx would leave its worker behind.
        if let Ok(Some(pid)) = i32::try_from(self.child.id()).map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < STOP {
            sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Daemons live where an ordinary user's path does not reach.
fn find(system: System, program: Option<&Path>) -> Result<PathBuf, StartError> {
    let missing = |program: String| StartError::NotInstalled {
        program,
        how: system.how_to_install(),
    };
    if let Some(program) = program {
        let there = program.is_file().then(|| std::path::absolute(program));
        return Ok(there.ok_or_else(|| missing(program.display().to_string()))??);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let mut places: Vec<PathBuf> = folders.map(|folder| folder.join(system.program())).collect();
    if system == System::Tidings {
        places.insert(0, PathBuf::from("target/release/tidings"));
    }
    let found = places.into_iter().find(|place| place.is_file());
    let found = found.ok_or_else(|| missing(system.program().to_owned()))?;
    if system == System::Nchan && !Path::new(NCHAN_MODULE).is_file() {
        return Err(missing(NCHAN_MODULE.to_owned()));
    }
    // Not its canonical name: Debian's redis-server is a link to a program that asks what it was called.
    Ok(std::path::absolute(found)?)
}

fn command(system: System, program: &Path, address: SocketAddr, directory: &Path) -> io::Result<Command> {
    let mut command = Command::new(program);
    let port = address.port().to_string();
    match system {
        System::Nats => command.args(["--addr", "127.0.0.1", "--port", &port]),
        System::Redis => command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--save",
            "",
            "--appendonly",
            "no",
        ]),
        System::Nchan => {
            let file = directory.join("nginx.conf");
            fs::write(&file, nginx_configuration(address, directory))?;
            command.arg("-p").arg(directory).arg("-c").arg(file)
        }
        System::Tidings => {
            let node = free_address()?.to_string();
            let listen = address.to_string();
            command.args([
                "--listen",
                &listen,
                "--node-listen",
                &node,
                "--data-dir",
                "none",
                "--threads",
                "1",
            ])
        }
    };
    Ok(command)
}

fn nginx_configuration(address: SocketAddr, directory: &Path) -> String {
    let folder = directory.display();
    format!(
        "load_module {NCHAN_MODULE};
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
error_log stderr warn;
pid {folder}/pid;
events {{ worker_connections 19000; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  tcp_nodelay on;
  large_client_header_buffers 8 32k;
  nchan_shared_memory_size 512m;
  server {{
    listen {address} backlog=4096;
    location ~ ^/pub/(.+)$ {{
      nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 10; nchan_message_timeout 1h;
    }}
    location ~ ^/sub/(.+)$ {{
      nchan_subscriber websocket; nchan_channel_id $1; nchan_channel_id_split_delimiter \",\";
      nchan_subscriber_first_message oldest;
    }}
  }}
}}
"
    )
}

/// `nats-server 2.9.10`, out of whatever the program says of itself.
fn version(system: System, program: &Path) -> String {
    let flag = if system == System::Nchan { "-v" } else { "--version" };
    let said = Command::new(program).arg(flag).output().map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
    );
    let number = said
        .split(|c: char| !(c.is_ascii_digit() || c == '.'))
        .find(|part| part.contains('.') && part.starts_with(|c: char| c.is_ascii_digit()));
    let name = match system {
        System::Nchan => "nchan, nginx",
        System::Redis => "redis",
        System::Nats | System::Tidings => system.program(),
    };
    format!("{name} {}", number.unwrap_or("of unknown version"))
}

/// A port that was free a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_not_there_is_named_with_the_way_to_get_it() {
        for system in System::ALL {
            let nowhere = Path::new("/nonexistent/program");
            let said = Server::start(system, Some(nowhere)).unwrap_err().to_string();
            assert!(
                said.contains("/nonexistent/program") && said.contains(system.how_to_install()),
                "{said}"
            );
        }
    }

    #[test]
    fn a_server_that_ends_at_once_is_reported_with_its_end() {
        let said = Server::start(System::Nats, Some(Path::new("/bin/false"))).unwrap_err();
        assert!(matches!(said, StartError::Failed { .. }), "{said}");
    }
}
