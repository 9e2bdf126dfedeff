//! The processes of `tidings dev`: what each is started with, and what becomes of it.

use super::super::{count, note};
use super::{DevArgs, LOOK};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// More nodes than anybody tries out on one machine.
const MOST: usize = 15;
/// Ports for nodes are chosen among these: below what systems give to connections.
const NODE_PORTS: std::ops::Range<u16> = 20_000..30_000;

/// The first port for clients, if it and those behind it are free.
const FIRST_PORT: u16 = 7400;
/// How long a node may take to stop in order.
const STOP: Duration = Duration::from_secs(15);

/// What is started: everything but the processes.
#[derive(Debug)]
pub(super) struct Plan {
    program: PathBuf,
    folder: PathBuf,
    /// The folder was made for this run and goes with it.
    temporary: bool,
    /// Where each node serves clients and other nodes.
    ports: Vec<(u16, u16)>,
}

impl Plan {
    /// Chooses ports and makes the folder with the secret.
    pub(super) fn new(args: &DevArgs) -> Result<Self, String> {
        if !(args.nodes == 1 || (3..=MOST).contains(&args.nodes)) {
            return Err(format!(
                "--nodes {}: 1, or 3 to {MOST}. Two nodes would be no better than one: if either failed, the other could \
                 not know that it may go on",
                args.nodes
            ));
        }
        let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let ports = ports(args.nodes, args.port)?;
        let folder = match &args.dir {
            Some(folder) => folder.clone(),
            None => std::env::temp_dir().join(format!("tidings-dev-{}", hexadecimal(8)?)),
        };
        let plan = Self {
            program,
            folder,
            temporary: args.dir.is_none() && !args.keep,
            ports,
        };
        plan.prepare()
            .map_err(|error| format!("cannot use the folder {}: {error}", plan.folder.display()))?;
        Ok(plan)
    }

    fn prepare(&self) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(text)?;
        let secret = self.secret_file();
        if !secret.exists() {
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&secret)
                .map_err(text)?;
            writeln!(file, "{}", hexadecimal(32)?).map_err(text)?;
        }
        Ok(())
    }

    fn secret_file(&self) -> PathBuf {
        self.folder.join("secret")
    }

    pub(super) fn count(&self) -> usize {
        self.ports.len()
    }

    pub(super) fn name(&self, node: usize) -> String {
        format!("n{}", node + 1)
    }

    pub(super) fn url(&self, node: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[node].0)
    }

    fn arguments(&self, node: usize) -> Vec<String> {
        let (clients, nodes) = self.ports[node];
        let name = self.name(node);
        let mut arguments = vec![
            "serve".to_owned(),
            "--server.name".to_owned(),
            name.clone(),
            "--listen".to_owned(),
            format!("127.0.0.1:{clients}"),
            "--data-dir".to_owned(),
            path(&self.folder.join(name)),
        ];
        if self.count() == 1 {
            return arguments;
        }
        arguments.extend([
            "--node-listen".to_owned(),
            format!("127.0.0.1:{nodes}"),
            "--cluster.name".to_owned(),
            "dev".to_owned(),
            "--secret-file".to_owned(),
            path(&self.secret_file()),
            "--expect".to_owned(),
            if self.count() < 5 { "3" } else { "5" }.to_owned(),
        ]);
        for (_, port) in &self.ports {
            arguments.extend(["--join".to_owned(), format!("127.0.0.1:{port}")]);
        }
        arguments
    }

    /// What a person types to start this node again.
    pub(super) fn command_line(&self, node: usize) -> String {
        let words = std::iter::once(path(&self.program)).chain(self.arguments(node));
        words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
    }

    /// What there is, and what to try.
    pub(super) fn invitation(&self, nodes: &Nodes) -> String {
        let mut text = match self.count() {
            1 => "One node serves:\n\n".to_owned(),
            several => format!("{} are a cluster:\n\n", count(several as u64, "node")),
        };
        // Writing to a String does not fail; so everywhere below.
        for node in 0..self.count() {
            let process = nodes.process(node);
            _ = writeln!(text, "  {}  {}  process {process}", self.name(node), self.url(node));
        }
        let last = self.count() - 1;
        let (here, there) = (self.url(last.min(1)), self.url(last));
        _ = write!(
            text,
            "\nTry, each in a terminal of its own:\n\n\
             \x20 curl -N '{here}/v1/events?object=order:42'\n\
             \x20 curl -X POST '{there}/v1/publish?object=order:42'\n\
             \x20 tidings cluster status --server {}\n",
            self.url(0)
        );
        if last > 0 {
            _ = write!(
                text,
                "\x20 tidings cluster drain {} --wait --server {}\n\
                 \x20 kill -9 {}\n\nand publish and look at the status again.\n",
                self.name(last),
                self.url(0),
                nodes.process(last)
            );
        }
        let fate = if self.temporary { ", removed at the end" } else { "" };
        _ = write!(text, "\nData: {}{fate}  Stop: Ctrl-C\n", self.folder.display());
        text
    }

    /// Removes what was made for this run.
    pub(super) fn clean(&self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.folder)
        {
            note(&format!("cannot remove {}: {error}", self.folder.display()));
        }
    }
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,@=+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn hexadecimal(bytes: usize) -> Result<String, String> {
    let mut drawn = vec![0; bytes];
    getrandom::fill(&mut drawn).map_err(|error| format!("no randomness: {error}"))?;
    let mut text = String::new();
    for byte in drawn {
        _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// A port for clients and one for other nodes, for each node. All are held until all are chosen.
fn ports(count: usize, first: Option<u16>) -> Result<Vec<(u16, u16)>, String> {
    let listen = |port: u16| TcpListener::bind(("127.0.0.1", port));
    let in_row = |first: u16| -> Result<Vec<TcpListener>, String> {
        (0..count)
            .map(|node| {
                let port = u16::try_from(usize::from(first) + node).map_err(|_| format!("no port {first} + {node}"))?;
                listen(port).map_err(|error| format!("cannot listen on port {port}: {error}"))
            })
            .collect()
    };
    let any = |what: &dyn Fn(std::io::Error) -> String| (0..count).map(|_| listen(0).map_err(what)).collect();
    let failed = |error: std::io::Error| format!("no port is free: {error}");
    let clients: Vec<TcpListener> = match first {
        Some(0) => any(&failed)?,
        Some(first) => in_row(first)?,
        None => in_row(FIRST_PORT).or_else(|_| any(&failed))?,
    };
    let mut others: Vec<(TcpListener, UdpSocket)> = Vec::new();
    // The same number is wanted for both protocols; some are taken for one of them. Not one that the system would choose:
    // those it gives to connections, too, and a node's port must still be free when the node starts, and when it starts again.
    let mut drawn = [0; 2];
    getrandom::fill(&mut drawn).map_err(|error| format!("no randomness: {error}"))?;
    let start = NODE_PORTS.start + u16::from_le_bytes(drawn) % (NODE_PORTS.end - NODE_PORTS.start);
    for candidate in (start..NODE_PORTS.end).chain(NODE_PORTS.start..start) {
        if others.len() == count {
            break;
        }
        let Ok(stream) = listen(candidate) else { continue };
        let datagrams = stream.local_addr().and_then(UdpSocket::bind);
        others.extend(datagrams.ok().map(|datagrams| (stream, datagrams)));
    }
    if others.len() < count {
        return Err("no ports are free for both TCP and UDP".to_owned());
    }
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port()).map_err(failed);
    let pairs = clients.iter().zip(&others);
    pairs
        .map(|(clients, (nodes, _))| Ok((port(clients)?, port(nodes)?)))
        .collect()
}

/// The running processes. Dropping it kills those that are left.
#[derive(Debug)]
pub(super) struct Nodes {
    /// Each with the number of its process, and whether its end was told.
    children: Vec<(Child, u32, bool)>,
}

impl Nodes {
    pub(super) fn start(plan: &Plan) -> Result<Self, String> {
        let mut nodes = Self { children: Vec::new() };
        for node in 0..plan.count() {
            let mut command = Command::new(&plan.program);
            // A group of their own: Ctrl-C in the terminal is for this process, which then asks them.
            command
                .args(plan.arguments(node))
                .args([
                    "--until-stdin-ends",
                    "--drain.spread_ms",
                    "500",
                    "--server.threads",
                    "2",
                ])
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            for (name, _) in std::env::vars_os() {
                // Meant for a node that is started by hand: all would get the same.
                if name.to_string_lossy().starts_with("TIDINGS_") {
                    command.env_remove(name);
                }
            }
            let mut child = command
                .spawn()
                .map_err(|error| format!("cannot start {}: {error}", plan.program.display()))?;
            if let Some(errors) = child.stderr.take() {
                let name = plan.name(node);
                std::thread::spawn(move || {
                    for line in BufReader::new(errors).split(b'\n').map_while(Result::ok) {
                        let line = String::from_utf8_lossy(&line);
                        // Nobody may be reading any more. The node must still be able to write.
                        _ = writeln!(std::io::stderr().lock(), "{name} | {line}");
                    }
                });
            }
            let process = child.id();
            nodes.children.push((child, process, false));
        }
        Ok(nodes)
    }

    pub(super) fn process(&self, node: usize) -> u32 {
        self.children[node].1
    }

    /// Who ended since the last call, and how.
    pub(super) fn ended(&mut self) -> Vec<(usize, String)> {
        let mut ended = Vec::new();
        for (node, (child, _, told)) in self.children.iter_mut().enumerate() {
            if *told {
                continue;
            }
            match child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => {
                    *told = true;
                    ended.push((node, format!("ended ({status})")));
                }
                Err(error) => {
                    *told = true;
                    ended.push((node, format!("cannot be asked for any more ({error})")));
                }
            }
        }
        ended
    }

    /// Whether none is left, as far as [`Self::ended`] told.
    pub(super) fn are_gone(&self) -> bool {
        self.children.iter().all(|(_, _, told)| *told)
    }

    pub(super) fn ask_to_stop(&mut self) {
        for (child, _, _) in &mut self.children {
            drop(child.stdin.take());
        }
    }

    /// Waits until all have ended, but not for ever.
    pub(super) async fn stopped(&mut self) {
        let since = Instant::now();
        loop {
            _ = self.ended();
            if self.are_gone() || since.elapsed() > STOP {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for (child, _, told) in &mut self.children {
            if !*told {
                // It may end by itself just now.
                _ = child.kill();
                _ = child.wait();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(nodes: usize, port: Option<u16>) -> (tempfile::TempDir, Result<Plan, String>) {
        let folder = tempfile::tempdir().expect("a folder");
        let args = DevArgs {
            nodes,
            dir: Some(folder.path().join("it's here")),
            port,
            keep: false,
        };
        (folder, Plan::new(&args))
    }

    #[test]
    fn one_node_or_three_to_fifteen_are_planned() {
        for (nodes, expect) in [
            (1, None),
            (3, Some("3")),
            (4, Some("3")),
            (5, Some("5")),
            (15, Some("5")),
        ] {
            let (_folder, plan) = plan(nodes, Some(0));
            let plan = plan.expect("a plan");
            assert_eq!(plan.count(), nodes);
            for node in 0..nodes {
                let arguments = plan.arguments(node);
                let behind = |word: &str| {
                    let place = arguments.iter().position(|argument| argument == word)?;
                    arguments.get(place + 1).map(String::as_str)
                };
                assert_eq!(behind("--expect"), expect);
                assert_eq!(behind("--join").is_some(), nodes > 1);
            }
        }
        for nodes in [0, 2, 16] {
            let (_folder, plan) = plan(nodes, Some(0));
            assert!(plan.expect_err("refused").contains("1, or 3 to 15"));
        }
    }

    #[test]
    fn all_ports_are_different_and_a_secret_is_made_once() {
        let (_folder, plan) = plan(5, Some(0));
        let plan = plan.expect("a plan");
        let mut all: Vec<u16> = plan.ports.iter().flat_map(|(a, b)| [*a, *b]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 10);
        let secret = || std::fs::read_to_string(plan.secret_file()).expect("a secret");
        let first = secret();
        assert_eq!(first.trim_end().len(), 64);
        plan.prepare().expect("again");
        assert_eq!(secret(), first);
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("its number").port();
        let (_folder, plan) = plan(1, Some(port));
        assert!(plan.expect_err("refused").contains(&format!("port {port}")));
    }

    #[test]
    fn the_command_line_of_a_node_survives_a_shell() {
        let (_folder, plan) = plan(3, Some(0));
        let line = plan.expect("a plan").command_line(1);
        assert!(line.contains(r"it'\''s here"), "{line}");
        let said = Command::new("sh")
            .args(["-c", &format!("printf '%s\n' {line}")])
            .output();
        let said = String::from_utf8(said.expect("a shell").stdout).expect("text");
        assert!(said.lines().any(|word| word.ends_with("it's here/n2")), "{said}");
    }

    #[test]
    fn a_folder_made_for_the_run_goes_with_it() {
        let args = DevArgs {
            nodes: 1,
            dir: None,
            port: Some(0),
            keep: false,
        };
        let plan = Plan::new(&args).expect("a plan");
        assert!(plan.secret_file().exists());
        plan.clean();
        assert!(!plan.folder.exists());
    }
}
