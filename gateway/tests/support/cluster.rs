//! Clusters of real processes: each node a program with its own folder, on one secret, found by each other over loopback.
//!
//! With [`Plan::behind_gates`] every node tells the others the address of a forwarder instead of its own, so that tests can
//! cut and hold single directions between nodes without any privilege. Nothing here panics because a node is dead: nodes
//! die here.

mod asking;
mod faults;
mod gates;
mod life;

pub(crate) use faults::{Dice, Disk, Fault, Hand, Struck};
pub(crate) use gates::{Gate, Gates};
pub(crate) use life::{Life, Told, Try, causes};

use super::PATIENCE;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tidings_protocol::NodeId;

/// How long a cluster may take to become whole: on a loaded machine elections are lost more than once.
pub(crate) const LONG: Duration = Duration::from_secs(90);
/// Shards of a cluster here: few, so that some hundred objects are of all of them.
pub(crate) const SHARDS: usize = 32;
/// How long one node may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Lines of a log that are shown when a test fails.
const SHOWN: usize = 40;

/// An answer that may not have come.
pub(crate) type Asked = io::Result<(u16, Value)>;

/// One request on a connection of its own.
pub(crate) fn ask(address: SocketAddr, method: &str, target: &str, body: &Value, patience: Duration) -> Asked {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(cut)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        let lines = body.split("\r\n").collect::<Vec<_>>();
        lines.chunks(2).filter_map(|pair| pair.get(1).copied()).collect()
    } else {
        body.to_owned()
    };
    let value = serde_json::from_str(&body).unwrap_or(Value::String(body));
    Ok((status.ok_or_else(cut)?, value))
}

/// A port that is free for TCP and UDP, and that nobody else here is given: it is not among those that the system gives to
/// connections, because it must still be free when a node starts on it, and when it starts there again.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = (std::process::id() % 100) as u16 * 190;
    loop {
        let port = 10_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 19_000;
        if TcpListener::bind(local(port)).is_ok() && UdpSocket::bind(local(port)).is_ok() {
            return port;
        }
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A cluster before it is started.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    count: usize,
    expect: usize,
    gates: bool,
    lease_ms: u64,
    copies: usize,
    more: Vec<String>,
}

impl Plan {
    pub(crate) fn of(count: usize) -> Self {
        Self {
            count,
            expect: if count < 5 { 3 } else { 5 },
            gates: false,
            lease_ms: 2_000,
            copies: 2,
            more: Vec::new(),
        }
    }

    pub(crate) fn behind_gates(mut self) -> Self {
        self.gates = true;
        self
    }

    pub(crate) fn lease_ms(mut self, lease_ms: u64) -> Self {
        self.lease_ms = lease_ms;
        self
    }

    /// Of each shard, its owner's among them; two unless this is said.
    pub(crate) fn copies(mut self, copies: usize) -> Self {
        self.copies = copies;
        self
    }

    pub(crate) fn expect(mut self, expect: usize) -> Self {
        self.expect = expect;
        self
    }

    /// Further arguments for every node.
    pub(crate) fn with(mut self, more: &[&str]) -> Self {
        self.more.extend(more.iter().map(|&word| word.to_owned()));
        self
    }

    /// The cluster with no node running yet.
    pub(crate) fn build(self) -> Cluster {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("secret"), "a secret of the tests, long enough\n").expect("written");
        let ports: Vec<u16> = (0..self.count).map(|_| free_port()).collect();
        let gates = self
            .gates
            .then(|| Gates::new(&ports.iter().map(|port| local(*port)).collect::<Vec<_>>()));
        let members = ports.into_iter().enumerate().map(|(number, node_port)| Member {
            name: format!("n{number}"),
            child: None,
            address: local(free_port()),
            node_port,
            node_address: gates
                .as_ref()
                .map_or_else(|| local(node_port), |gates| gates.address(number)),
            more: Vec::new(),
            environment: Vec::new(),
            starts: 0,
        });
        let members = members.collect();
        Cluster {
            members,
            gates,
            folder,
            plan: self,
        }
    }

    /// All nodes at once, waited for. Each owns shards: they are first given out when all are there to take them. Every shard
    /// has its copies.
    #[track_caller]
    pub(crate) fn start(self) -> Cluster {
        let mut cluster = self.build();
        for node in 0..cluster.count() {
            cluster.launch(node);
        }
        cluster.until_whole();
        let owners: BTreeSet<usize> = cluster.owners(0).into_values().collect();
        assert_eq!(owners.len(), cluster.count(), "only {owners:?} own shards");
        cluster.until_copied(&[0]);
        cluster
    }
}

/// One node, running or not.
#[derive(Debug)]
pub(crate) struct Member {
    name: String,
    child: Option<Child>,
    address: SocketAddr,
    node_port: u16,
    /// What others are told.
    node_address: SocketAddr,
    more: Vec<String>,
    environment: Vec<(String, String)>,
    starts: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Cluster {
    members: Vec<Member>,
    gates: Option<Arc<Gates>>,
    folder: tempfile::TempDir,
    plan: Plan,
}

impl Cluster {
    pub(crate) fn count(&self) -> usize {
        self.members.len()
    }

    /// Where clients reach a node.
    pub(crate) fn address(&self, node: usize) -> SocketAddr {
        self.members[node].address
    }

    /// Where other nodes reach it.
    pub(crate) fn node_address(&self, node: usize) -> SocketAddr {
        self.members[node].node_address
    }

    pub(crate) fn name(&self, node: usize) -> &str {
        &self.members[node].name
    }

    pub(crate) fn folder(&self, node: usize) -> PathBuf {
        self.folder.path().join(&self.members[node].name)
    }

    pub(crate) fn gates(&self) -> &Gates {
        self.gates.as_deref().expect("the cluster was planned behind gates")
    }

    /// Further arguments for one node, from its next start on. Of two for one key the later counts.
    pub(crate) fn change(&mut self, node: usize, more: &[&str]) {
        self.members[node].more = more.iter().map(|&word| word.to_owned()).collect();
    }

    /// A variable of the environment of one node, from its next start on.
    pub(crate) fn environment(&mut self, node: usize, name: &str, value: &str) {
        self.members[node].environment.push((name.to_owned(), value.to_owned()));
    }

    /// What every node is started with, but for those of its own that `change` gave.
    fn arguments(&self, node: usize) -> BTreeMap<String, String> {
        let member = &self.members[node];
        let text = |path: PathBuf| path.to_str().expect("text").to_owned();
        let join: Vec<String> = self
            .members
            .iter()
            .map(|other| other.node_address.to_string())
            .collect();
        let mut arguments: BTreeMap<String, String> = [
            ("--listen", member.address.to_string()),
            ("--server.threads", "2".to_owned()),
            ("--data-dir", text(self.folder(node))),
            ("--server.name", member.name.clone()),
            ("--node-listen", local(member.node_port).to_string()),
            ("--server.node_advertise", member.node_address.to_string()),
            ("--cluster.shards", SHARDS.to_string()),
            ("--cluster.lease_ms", self.plan.lease_ms.to_string()),
            ("--cluster.copies", self.plan.copies.to_string()),
            ("--secret-file", text(self.folder.path().join("secret"))),
            ("--expect", self.plan.expect.to_string()),
            ("--cluster.join", join.join(",")),
            ("--limits.cursor_ms", "50".to_owned()),
            ("--limits.ping_ms", "200".to_owned()),
            ("--drain.spread_ms", "300".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        for pair in self.plan.more.chunks(2).chain(member.more.chunks(2)) {
            arguments.insert(pair[0].clone(), pair[1].clone());
        }
        arguments
    }

    /// Starts one node and does not wait.
    #[track_caller]
    pub(crate) fn launch(&mut self, node: usize) {
        assert!(self.members[node].child.is_none(), "it runs already");
        let arguments = self.arguments(node);
        let log = self.log_file(node);
        let member = &mut self.members[node];
        member.starts += 1;
        let log = File::options().create(true).append(true).open(log).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        command
            .arg("serve")
            .args(arguments.iter().flat_map(|(name, value)| [name, value]));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDINGS_") {
                command.env_remove(name);
            }
        }
        command.envs(self.members[node].environment.iter().cloned());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        self.members[node].child = Some(child);
    }

    fn log_file(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("{}.log", self.members[node].name))
    }

    /// What a node wrote to its log, in all its lives.
    pub(crate) fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.log_file(node)).unwrap_or_default()
    }

    pub(crate) fn is_running(&mut self, node: usize) -> bool {
        let child = self.members[node].child.as_mut();
        child.is_some_and(|child| child.try_wait().expect("its status").is_none())
    }

    pub(crate) fn signal(&self, node: usize, signal: Signal) {
        let child = self.members[node].child.as_ref().expect("it runs");
        rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).expect("the signal is sent");
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, node: usize) {
        self.signal(node, Signal::KILL);
        self.ended(node);
    }

    /// Asks it to stop and waits until it has.
    #[track_caller]
    pub(crate) fn stop(&mut self, node: usize) {
        self.signal(node, Signal::TERM);
        let since = Instant::now();
        while self.is_running(node) {
            assert!(since.elapsed() < PATIENCE, "{} does not stop", self.name(node));
            std::thread::sleep(Duration::from_millis(10));
        }
        self.ended(node);
    }

    fn ended(&mut self, node: usize) {
        if let Some(mut child) = self.members[node].child.take() {
            child.wait().expect("its end");
        }
    }

    /// It stands still until [`Self::resume`].
    pub(crate) fn pause(&self, node: usize) {
        self.signal(node, Signal::STOP);
    }

    pub(crate) fn resume(&self, node: usize) {
        self.signal(node, Signal::CONT);
    }

    /// `/v1/cluster` of one node; `None` if it does not answer.
    pub(crate) fn status(&self, node: usize) -> Option<Value> {
        let (status, value) = ask(self.address(node), "GET", "/v1/cluster", &Value::Null, ANSWER).ok()?;
        (status == 200).then_some(value)
    }

    /// Whether a node says that it is ready.
    pub(crate) fn is_ready(&self, node: usize) -> bool {
        let answer = ask(self.address(node), "GET", "/readyz", &Value::Null, ANSWER);
        answer.is_ok_and(|(status, _)| status == 200)
    }

    /// The nodes whose processes run, paused ones among them.
    pub(crate) fn running(&mut self) -> Vec<usize> {
        (0..self.count()).filter(|node| self.is_running(*node)).collect()
    }

    /// Waits until every running node is ready and knows a living owner for every shard.
    #[track_caller]
    pub(crate) fn until_whole(&mut self) {
        let running = self.running();
        self.until_these_are_whole(&running);
    }

    /// The same of these nodes.
    #[track_caller]
    pub(crate) fn until_these_are_whole(&mut self, nodes: &[usize]) {
        let since = Instant::now();
        loop {
            let not: Vec<usize> = nodes.iter().copied().filter(|node| !self.is_whole(*node)).collect();
            if not.is_empty() {
                self.name_gates(nodes[0]);
                return;
            }
            for node in nodes {
                assert!(self.is_running(*node), "{} ended by itself", self.name(*node));
            }
            assert!(
                since.elapsed() < LONG,
                "not whole after {LONG:?}: {not:?}; {:?}",
                not.iter().map(|node| self.status(*node)).collect::<Vec<_>>()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Tells the gates which node calls itself what.
    #[track_caller]
    fn name_gates(&self, asked: usize) {
        self.name_gates_as(&self.status(asked).expect("an answer"));
    }

    /// The same as a node said it to somebody who may ask.
    #[track_caller]
    pub(crate) fn name_gates_as(&self, status: &Value) {
        let Some(gates) = &self.gates else { return };
        for node in status["nodes"].as_array().expect("nodes") {
            let id = node["id"].as_str().and_then(|id| u64::from_str_radix(id, 16).ok());
            // One that was replaced is listed until it is forgotten, perhaps without a name.
            let called = node["node"].as_str().expect("a name");
            let Some(number) = self.members.iter().position(|member| member.name == called) else {
                continue;
            };
            gates.is_called(number, NodeId(id.expect("a number")));
        }
    }

    fn is_whole(&self, node: usize) -> bool {
        self.is_ready(node) && self.status(node).is_some_and(|status| all_owned(&status))
    }

    /// Waits until no shard lacks a copy, as each of these nodes knows it.
    #[track_caller]
    pub(crate) fn until_copied(&self, asked: &[usize]) {
        for &node in asked {
            self.until(node, "every shard has its copies", |status| {
                status["short_of_copies"] == 0 && all_owned(status)
            });
        }
    }

    /// Waits until every running node is whole and no shard lacks a copy.
    #[track_caller]
    pub(crate) fn until_healed(&mut self) {
        self.until_whole();
        let running = self.running();
        self.until_copied(&running);
    }

    /// Waits until one of some nodes owns each shard, as one of them knows it.
    #[track_caller]
    pub(crate) fn until_owned_by(&self, nodes: &[usize]) {
        let names: Vec<&str> = nodes.iter().map(|node| self.name(*node)).collect();
        self.until(nodes[0], "they own everything", |status| {
            let shards = status["shards"].as_array().map_or(&[][..], Vec::as_slice);
            let by_them = |shard: &Value| names.iter().any(|name| shard["owner"] == *name);
            all_owned(status) && shards.iter().all(by_them)
        });
    }

    /// Waits until this is so of what a node knows of the cluster.
    #[track_caller]
    pub(crate) fn until(&self, node: usize, what: &str, mut check: impl FnMut(&Value) -> bool) -> Value {
        let since = Instant::now();
        loop {
            let status = self.status(node);
            if let Some(status) = status.as_ref().filter(|status| check(status)) {
                return status.clone();
            }
            assert!(
                since.elapsed() < LONG,
                "{what}: still not so after {LONG:?}: {status:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Publishes at one node; the version or what went wrong.
    pub(crate) fn publish(&self, node: usize, object: &str) -> Result<u64, String> {
        publish_at(self.address(node), object, 4_000)
    }
}

/// Whether every shard has an owner that lives.
fn all_owned(status: &Value) -> bool {
    let shards = status["shards"].as_array().map_or(&[][..], Vec::as_slice);
    shards.len() == SHARDS && shards.iter().all(|shard| shard["owned"] == true)
}

/// Publishes within a deadline; the version or what went wrong.
pub(crate) fn publish_at(address: SocketAddr, object: &str, timeout_ms: u64) -> Result<u64, String> {
    let target = format!("/v1/publish?object={object}&timeout_ms={timeout_ms}");
    match ask(
        address,
        "POST",
        &target,
        &Value::Null,
        Duration::from_millis(timeout_ms) + ANSWER,
    ) {
        Ok((200, answer)) => answer["version"].as_u64().ok_or_else(|| answer.to_string()),
        Ok((status, answer)) => Err(format!("{status} {}", answer["code"])),
        Err(error) => Err(error.to_string()),
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(mut child) = member.child.take() {
                // It may have ended already.
                _ = child.kill();
                _ = child.wait();
            }
        }
        if std::thread::panicking() {
            for node in 0..self.count() {
                let log = self.log(node);
                let lines: Vec<&str> = log.lines().collect();
                println!("---- the last lines of {}:", self.name(node));
                for line in &lines[lines.len().saturating_sub(SHOWN)..] {
                    println!("{line}");
                }
            }
        }
    }
}
