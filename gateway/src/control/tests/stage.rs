//! Nodes' control planes, with folders of their own.

use crate::control::seeds::Names;
use crate::control::{Formed, Settings, Starting, View, start};
use crate::storage::Identity;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidings_protocol::ShardCount;
use tokio::time::{sleep, timeout};

/// Generous: machines that run tests are busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// One node, in whatever state it is.
pub(super) enum Node {
    Starting(Starting),
    Formed(Formed),
    Gone,
}

pub(super) struct Stage {
    pub(super) folder: tempfile::TempDir,
    pub(super) nodes: Vec<Node>,
    pub(super) settings: Vec<Settings>,
}

pub(super) fn settings(expect: usize) -> Settings {
    Settings {
        node_name: String::new(),
        name: "test".to_owned(),
        secret: "a secret that is long enough for a test".to_owned(),
        join: Vec::new(),
        names: Names::of_the_system(),
        expect,
        shards: ShardCount::new(16).expect("a power of two"),
        copies: 1,
        moves: 0,
        fills: 0,
        lease: Duration::from_secs(2),
        node_listen: "127.0.0.1:0".parse().expect("an address"),
        node_advertise: None,
        client_url: "http://127.0.0.1:1".to_owned(),
        owner: true,
        edge: true,
        voter: true,
        zone: String::new(),
        data_dir: None,
        identity: None,
        replace_voter: Duration::from_secs(60),
        forget_node: Duration::from_secs(3_600),
    }
}

impl Stage {
    pub(super) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            nodes: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Three nodes that are a cluster.
    pub(super) async fn three() -> Self {
        let mut stage = Self::new();
        for _ in 0..3 {
            stage.start(3, |_| {});
        }
        stage.all_formed().await;
        stage
    }

    /// Waits until one of the nodes leads. Its number.
    pub(super) async fn leader(&self) -> usize {
        let searching = async {
            loop {
                let leads = |number: &usize| self.get(*number).handle.metrics().is_leader.get() == 1;
                if let Some(leader) = self.running().into_iter().find(leads) {
                    return leader;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, searching).await.expect("somebody leads")
    }

    /// Where the nodes that run are reached.
    pub(super) fn addresses(&self) -> Vec<String> {
        let addresses = self.nodes.iter().filter_map(|node| match node {
            Node::Starting(starting) => Some(starting.address),
            Node::Formed(formed) => Some(formed.address),
            Node::Gone => None,
        });
        addresses.map(|address: SocketAddr| address.to_string()).collect()
    }

    /// Starts one more node, which knows all others. Its number.
    pub(super) fn start(&mut self, expect: usize, change: impl FnOnce(&mut Settings)) -> usize {
        let number = self.nodes.len();
        let data_dir = self.folder.path().join(number.to_string());
        std::fs::create_dir_all(&data_dir).expect("a folder");
        let mut settings = settings(expect);
        settings.data_dir = Some(data_dir);
        settings.join = self.addresses();
        change(&mut settings);
        self.nodes
            .push(Node::Starting(start(settings.clone()).expect("it starts")));
        self.settings.push(settings);
        number
    }

    /// Waits until a node is part of a cluster.
    pub(super) async fn formed(&mut self, number: usize) {
        match std::mem::replace(&mut self.nodes[number], Node::Gone) {
            Node::Starting(starting) => {
                let formed = timeout(PATIENCE, starting.formed()).await;
                let formed = formed.unwrap_or_else(|_| panic!("node {number} is part of a cluster in time"));
                self.nodes[number] = Node::Formed(formed.expect("it goes on"));
            }
            other => self.nodes[number] = other,
        }
    }

    pub(super) async fn all_formed(&mut self) {
        for number in 0..self.nodes.len() {
            self.formed(number).await;
        }
    }

    pub(super) fn get(&self, number: usize) -> &Formed {
        match &self.nodes[number] {
            Node::Formed(formed) => formed,
            Node::Starting(_) | Node::Gone => panic!("node {number} is not part of a cluster"),
        }
    }

    pub(super) fn view(&self, number: usize) -> Arc<View> {
        self.get(number).handle.view()
    }

    pub(super) fn identity(&self, number: usize) -> Identity {
        self.get(number).identity
    }

    /// The nodes that are part of a cluster.
    pub(super) fn running(&self) -> Vec<usize> {
        let running = self.nodes.iter().enumerate();
        let running = running.filter(|(_, node)| matches!(node, Node::Formed(_)));
        running.map(|(number, _)| number).collect()
    }

    /// Waits until a node's view is so.
    pub(super) async fn sees(&self, number: usize, what: &str, mut so: impl FnMut(&View) -> bool) {
        let mut view = self.get(number).handle.watch();
        let waited = timeout(PATIENCE, view.wait_for(|view| so(view))).await;
        if waited.is_err() {
            panic!("node {number} sees that {what}: {:#?}", self.view(number));
        }
    }

    pub(super) async fn all_see(&self, what: &str, so: impl Fn(&View) -> bool) {
        for number in self.running() {
            self.sees(number, what, &so).await;
        }
    }

    /// Stops a node in order, or kills it.
    pub(super) async fn stop(&mut self, number: usize, kill: bool) {
        let Node::Formed(formed) = std::mem::replace(&mut self.nodes[number], Node::Gone) else {
            panic!("node {number} does not run");
        };
        let stopping = tokio::task::spawn_blocking(move || {
            if kill {
                formed.running.kill();
            } else {
                assert!(formed.running.stop(), "it ends in order");
            }
        });
        stopping.await.expect("it stops");
    }

    /// Starts a node again, with its disk, as the same node.
    pub(super) async fn start_again(&mut self, number: usize) {
        let addresses = self.addresses();
        self.start_at(number, addresses).await;
    }

    /// The same, to look for others there.
    pub(super) async fn start_at(&mut self, number: usize, join: Vec<String>) {
        let mut settings = self.settings[number].clone();
        settings.join = join;
        self.nodes[number] = Node::Starting(start(settings).expect("it starts"));
    }
}
