//! An application on a cluster: a database, writers that publish each change of it, and readers who fetch what they are told
//! of. At the end every reader must have the database's last state: whatever was missed was lost in silence.
//!
//! Readers poll with one cursor and go on at the next node when theirs does not answer.

use super::{Asked, Cluster, LONG, ask, publish_at};
use crate::support::covers;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a writer tries to get one change acknowledged.
const TRIES: Duration = Duration::from_secs(60);

/// What all share.
#[derive(Debug)]
struct Shared {
    nodes: Vec<SocketAddr>,
    /// What each object is now. Written before it is published.
    database: Mutex<HashMap<String, u64>>,
    stop: AtomicBool,
    /// The highest version acknowledged.
    newest: AtomicU64,
    /// Publishes that were refused or not answered, and tried again.
    tries: Mutex<Vec<Try>>,
    /// How long each change took to be acknowledged, with all that was tried.
    took: Mutex<Vec<Duration>>,
    /// Of each object what was acknowledged, when, and where.
    acknowledged: Mutex<HashMap<String, Vec<String>>>,
    since: Instant,
}

/// A publish that was refused or not answered.
#[derive(Clone, Debug)]
pub(crate) struct Try {
    pub(crate) object: String,
    /// At which node.
    pub(crate) node: usize,
    /// Since the beginning.
    pub(crate) at: Duration,
    pub(crate) why: String,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Life {
    shared: Arc<Shared>,
    objects: Vec<String>,
    writers: Vec<JoinHandle<u64>>,
    readers: Vec<Watcher>,
}

/// One reader.
#[derive(Debug)]
pub(crate) struct Watcher {
    thread: JoinHandle<Told>,
}

/// What a reader knows, and how it came to know it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// What it fetched of each object.
    pub(crate) fetched: HashMap<String, u64>,
    /// The newest version it was told of each.
    pub(crate) versions: HashMap<String, u64>,
    /// Every resync, with the cursor it came with left out.
    pub(crate) resyncs: Vec<Value>,
    /// Answers with changes.
    pub(crate) changes: usize,
    /// The last answers: when, from which node, up to where, and with what.
    answers: VecDeque<String>,
}

/// How many answers of a reader are told of when a change was lost.
const REMEMBERED: usize = 40;

/// The causes of the resyncs that were told.
pub(crate) fn causes(told: &[Told]) -> BTreeSet<String> {
    let resyncs = told.iter().flat_map(|told| &told.resyncs);
    resyncs
        .map(|resync| resync["cause"].as_str().expect("a cause").to_owned())
        .collect()
}

impl Life {
    /// A reader at each of `readers`, nothing written yet. All have a cursor when this returns.
    #[track_caller]
    pub(crate) fn begin(cluster: &Cluster, objects: &[String], readers: &[usize]) -> Self {
        let shared = Arc::new(Shared {
            nodes: (0..cluster.count()).map(|node| cluster.address(node)).collect(),
            database: Mutex::default(),
            stop: AtomicBool::new(false),
            newest: AtomicU64::new(0),
            tries: Mutex::default(),
            took: Mutex::default(),
            acknowledged: Mutex::default(),
            since: Instant::now(),
        });
        let readers = readers.iter().map(|&node| Watcher::begin(&shared, objects, node));
        Self {
            readers: readers.collect(),
            objects: objects.to_vec(),
            writers: Vec::new(),
            shared,
        }
    }

    /// Writers that change these objects one after the other at these nodes, each at one, until the end.
    pub(crate) fn write(&mut self, objects: &[String], nodes: &[usize], every: Duration) {
        for (writer, &node) in nodes.iter().enumerate() {
            let shared = Arc::clone(&self.shared);
            // Each object has one writer, so that the last state is the last written.
            let mine: Vec<String> = objects.iter().skip(writer).step_by(nodes.len()).cloned().collect();
            self.writers.push(std::thread::spawn(move || {
                let mut acknowledged = 0;
                for object in mine.iter().cycle() {
                    if shared.stop.load(Ordering::Relaxed) {
                        break;
                    }
                    shared.change(object, node);
                    acknowledged += 1;
                    std::thread::sleep(every);
                }
                acknowledged
            }));
        }
    }

    /// One change of an object that no writer has, acknowledged when this returns.
    pub(crate) fn change(&self, object: &str, node: usize) {
        self.shared.change(object, node);
    }

    /// What was tried in vain so far: the object, when (since the beginning), and why.
    pub(crate) fn failures(&self) -> Vec<(String, Duration, String)> {
        let tries = self.tries().into_iter();
        tries.map(|one| (one.object, one.at, one.why)).collect()
    }

    /// The same with where it was tried.
    pub(crate) fn tries(&self) -> Vec<Try> {
        self.shared.tries.lock().expect("a lock").clone()
    }

    /// How long it has lasted.
    pub(crate) fn age(&self) -> Duration {
        self.shared.since.elapsed()
    }

    /// How many changes were acknowledged so far, and how long the slowest of them took.
    pub(crate) fn acknowledged(&self) -> (usize, Duration) {
        let took = self.shared.took.lock().expect("a lock");
        (took.len(), took.iter().max().copied().unwrap_or_default())
    }

    /// No publish of any of these had to be tried again.
    #[track_caller]
    pub(crate) fn assert_none_refused(&self, of: &[String]) {
        let of: BTreeSet<&String> = of.iter().collect();
        let mut refused = self.failures();
        refused.retain(|(object, _, _)| of.contains(object));
        assert!(
            refused.is_empty(),
            "{} of shards that had nothing to do with it: {:?}",
            refused.len(),
            &refused[..1]
        );
    }

    /// Ends writing, lets readers catch up, and looks whether they have everything. Gives what each was told.
    #[track_caller]
    pub(crate) fn end(self) -> Vec<Told> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let acknowledged: u64 = self
            .writers
            .into_iter()
            .map(|writer| writer.join().expect("every change is acknowledged in the end"))
            .sum();
        println!("{acknowledged} changes acknowledged");
        // Once each is written for the last time, so that what is missed is not hidden by silence.
        self.shared.newest.fetch_add(1 << 62, Ordering::Relaxed);
        let database = self.shared.database.lock().expect("a lock").clone();
        let mut all = Vec::new();
        for (number, reader) in self.readers.into_iter().enumerate() {
            let told = reader.thread.join().expect("a reader ends");
            for object in &self.objects {
                if told.fetched.get(object) != database.get(object) {
                    self.shared.lost(object, number, &told, database.get(object));
                }
            }
            all.push(told);
        }
        all
    }
}

impl Shared {
    /// A reader was not told of the last change of an object: says everything that is known of it.
    #[track_caller]
    fn lost(&self, object: &str, reader: usize, told: &Told, is: Option<&u64>) -> ! {
        for line in &told.answers {
            println!("reader {reader}: {line}");
        }
        for one in self
            .tries
            .lock()
            .expect("a lock")
            .iter()
            .filter(|one| one.object == object)
        {
            println!("in vain: {:?} at node {}: {}", one.at, one.node, one.why);
        }
        for line in self
            .acknowledged
            .lock()
            .expect("a lock")
            .get(object)
            .into_iter()
            .flatten()
        {
            println!("acknowledged: {line}");
        }
        for node in &self.nodes {
            let known = ask(
                *node,
                "GET",
                &format!("/v1/object?object={object}"),
                &Value::Null,
                TRIES,
            );
            println!("{node} knows of it: {known:?}");
        }
        panic!(
            "reader {reader} was not told of the last change of {object}: it fetched {:?}, which is {is:?}; it was told of \
             version {:?}; resyncs: {:?}",
            told.fetched.get(object),
            told.versions.get(object),
            told.resyncs
        );
    }

    /// Changes one object and publishes that until it is acknowledged.
    fn change(&self, object: &str, node: usize) {
        *self
            .database
            .lock()
            .expect("a lock")
            .entry(object.to_owned())
            .or_default() += 1;
        let since = Instant::now();
        for turn in 0.. {
            // Its own node first, and then whoever lives.
            let node = (node + turn) % self.nodes.len();
            match publish_at(self.nodes[node], object, 4_000) {
                Ok(version) => {
                    self.newest.fetch_max(version, Ordering::Relaxed);
                    self.took.lock().expect("a lock").push(since.elapsed());
                    let line = format!(
                        "version {version}, {:?} at node {node}, tried for {:?}",
                        self.since.elapsed(),
                        since.elapsed()
                    );
                    let mut acknowledged = self.acknowledged.lock().expect("a lock");
                    acknowledged.entry(object.to_owned()).or_default().push(line);
                    return;
                }
                Err(why) => {
                    let one = Try {
                        object: object.to_owned(),
                        node,
                        at: self.since.elapsed(),
                        why: why.clone(),
                    };
                    self.tries.lock().expect("a lock").push(one);
                    assert!(since.elapsed() < TRIES, "{object} could not be published: {why}");
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
}

impl Watcher {
    fn begin(shared: &Arc<Shared>, objects: &[String], node: usize) -> Self {
        let mut reader = Reader {
            shared: Arc::clone(shared),
            objects: objects.to_vec(),
            node,
            cursor: String::new(),
            told: Told::default(),
        };
        let since = Instant::now();
        while reader.cursor.is_empty() {
            assert!(since.elapsed() < LONG, "no cursor from node {node}");
            if reader.poll(0).is_err() {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Self {
            thread: std::thread::spawn(move || reader.run()),
        }
    }
}

struct Reader {
    shared: Arc<Shared>,
    objects: Vec<String>,
    node: usize,
    cursor: String,
    told: Told,
}

impl Reader {
    fn run(mut self) -> Told {
        let mut over: Option<Instant> = None;
        loop {
            let newest = self.shared.newest.load(Ordering::Relaxed);
            let is_over = newest >> 62 == 1;
            if is_over && covers(&self.cursor, newest & ((1 << 62) - 1)) {
                return self.told;
            }
            if is_over {
                let since = *over.get_or_insert_with(Instant::now);
                assert!(
                    since.elapsed() < LONG,
                    "no cursor vouches for everything acknowledged; at node {}",
                    self.node
                );
            }
            if let Err(error) = self.poll(500) {
                // Perhaps the next node answers.
                self.remember(error);
                self.node = (self.node + 1) % self.shared.nodes.len();
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn poll(&mut self, wait_ms: u64) -> Result<(), String> {
        let mut body = json!({"objects": self.objects, "wait_ms": wait_ms});
        if !self.cursor.is_empty() {
            body["cursor"] = json!(self.cursor);
        }
        let answer: Asked = ask(
            self.shared.nodes[self.node],
            "POST",
            "/v1/poll",
            &body,
            Duration::from_millis(wait_ms) + Duration::from_secs(3),
        );
        let answer = match answer {
            Ok((200, answer)) => answer,
            Ok((status, answer)) => return Err(format!("{status} {answer}")),
            Err(error) => return Err(error.to_string()),
        };
        for change in answer["changes"].as_array().expect("changes") {
            let object = change["object"].as_str().expect("an object");
            let version = change["version"].as_u64().expect("a version");
            self.told.versions.insert(object.to_owned(), version);
            self.told.changes += 1;
            self.fetch(object);
        }
        let resync = &answer["resync"];
        if !resync.is_null() {
            self.told.resyncs.push(resync.clone());
            match resync["objects"].as_array() {
                Some(objects) => objects
                    .iter()
                    .for_each(|object| self.fetch(object.as_str().expect("an object"))),
                None => self.objects.clone().iter().for_each(|object| self.fetch(object)),
            }
        }
        answer["cursor"]
            .as_str()
            .expect("a cursor")
            .clone_into(&mut self.cursor);
        self.remember(format!(
            "{:?}, {} {}",
            tidings_protocol::Cursor::decode(&self.cursor).map(|cursor| (cursor.base, cursor.lagging, cursor.told)),
            answer["changes"],
            answer["resync"],
        ));
        Ok(())
    }

    /// Notes what came of a poll.
    fn remember(&mut self, what: impl std::fmt::Display) {
        let line = format!("{:?} at node {}: {what}", self.shared.since.elapsed(), self.node);
        self.told.answers.push_back(line);
        if self.told.answers.len() > REMEMBERED {
            self.told.answers.pop_front();
        }
    }

    /// As an application asks its database.
    fn fetch(&mut self, object: &str) {
        let database = self.shared.database.lock().expect("a lock");
        if let Some(state) = database.get(object) {
            self.told.fetched.insert(object.to_owned(), *state);
        }
    }
}
