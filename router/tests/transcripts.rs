//! Scenarios to be read: `scripts/*.txt`. Blocks of commands, a line `----`, and what was told because of them.
//!
//! Versions are named v1, v2, … in the order of publishing. A cursor is told by the newest version it covers.
//! `TIDINGS_BLESS=1 cargo test -p tidings-router --test transcripts` writes down what is told now.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

#[path = "support/random.rs"]
mod random;
#[path = "support/wire.rs"]
mod wire;
#[path = "support/world.rs"]
mod world;

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use tidings_protocol::client::Entry;
use tidings_protocol::codec::{Encoding, PollAnswer, ResyncScope};
use tidings_protocol::{ClusterId, Cursor, Hint, Version};
use tidings_router::edge::{Page, PollPage, SinkKind, SubscriberKey};
use wire::Message;
use world::{CLUSTER, DAWN_US, Event, Shape, World};

/// Somebody who listens.
struct Person {
    lane: usize,
    who: SubscriberKey,
    encoding: Option<Encoding>,
    in_hand: Vec<bytes::Bytes>,
    blocked: bool,
}

struct Scene {
    world: World,
    people: BTreeMap<String, Person>,
    /// The last cursor each one was handed, kept over connections.
    cursors: BTreeMap<String, String>,
    versions: Vec<Version>,
    told: Vec<String>,
}

impl Scene {
    /// Two shards, each with an owner of its own; two lanes.
    fn new(batch_bytes: usize) -> Self {
        let shape = Shape {
            shards: 2,
            batch_bytes,
            ..Shape::default()
        };
        let mut scene = Self {
            world: World::new(shape, 1),
            people: BTreeMap::new(),
            cursors: BTreeMap::new(),
            versions: Vec::new(),
            told: Vec::new(),
        };
        scene.wait(1_500_000);
        scene
    }

    fn say(&mut self, words: impl Into<String>) {
        self.told.push(words.into());
    }

    fn version(&self, version: u64) -> String {
        match self.versions.iter().position(|v| v.0 == version) {
            Some(at) => format!("v{}", at + 1),
            None => format!("v?{version}"),
        }
    }

    /// The newest published version that is not above this one.
    fn up_to(&self, version: Version) -> String {
        match self.versions.iter().rposition(|v| *v <= version) {
            Some(at) => format!("v{}", at + 1),
            None => "the beginning".into(),
        }
    }

    fn cursor(&self, text: &str) -> String {
        let cursor = Cursor::decode(text).expect("cursors can be read");
        let mut words = format!("cursor up to {}", self.up_to(cursor.base));
        for (shard, version) in &cursor.lagging {
            write!(words, ", shard {shard} up to {}", self.up_to(*version)).unwrap();
        }
        let mut told: Vec<_> = cursor.told.iter().map(|(_, version)| version.0).collect();
        told.sort_unstable();
        for version in told {
            write!(words, ", and {}", self.version(version)).unwrap();
        }
        words
    }

    fn entry(&self, entry: &Value) -> String {
        let object = entry["object"].as_str().unwrap_or_default();
        let mut words = match (&entry["version"], entry["error"]["code"].as_str()) {
            (Value::Number(version), _) => format!("{object} {}", self.version(version.as_u64().unwrap())),
            (_, Some(code)) => format!("{object} refused ({code})"),
            _ => format!("{object} never changed"),
        };
        for hint in ["kind", "data"] {
            if let Some(said) = entry.get(hint) {
                write!(words, " {hint} {said}").unwrap();
            }
        }
        words
    }

    fn entries(&self, list: &Value) -> String {
        let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter()
            .map(|entry| self.entry(entry))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn hear(&mut self, name: &str, message: &Message) {
        let words = match message {
            Message::Named { name: kind, body, .. } => match kind.as_str() {
                "changes" => self.entries(body),
                "subscribed" => format!("subscribed {}", self.entries(&body["objects"])),
                "unsubscribed" => "unsubscribed".into(),
                "cursor" => {
                    let text = body.as_str().unwrap();
                    self.cursors.insert(name.into(), text.into());
                    self.cursor(text)
                }
                "resync" => {
                    let objects = body["objects"].as_array();
                    let names = |l: &Vec<Value>| l.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
                    format!(
                        "resync {} ({})",
                        objects.map_or("all".into(), names),
                        body["cause"].as_str().unwrap()
                    )
                }
                "reconnect" => format!("reconnect ({})", body["reason"].as_str().unwrap()),
                other => panic!("{other} is not told here"),
            },
            Message::Close(code) => format!("closed {code}"),
            Message::Ping | Message::Comment => return,
        };
        self.say(format!("{name}: {words}"));
    }

    fn answered(&mut self, name: &str, answer: &PollAnswer) {
        let json: Value = serde_json::from_slice(&answer.to_json()).expect("an answer is JSON");
        let mut words = Vec::new();
        if !answer.changes.is_empty() {
            words.push(self.entries(&json["changes"]));
        }
        if let Some(resync) = &answer.resync {
            let objects = match &resync.scope {
                ResyncScope::All => "all".into(),
                ResyncScope::Objects(objects) => objects.join(" "),
            };
            words.push(format!("resync {objects} ({})", resync.cause));
        }
        words.extend(
            answer
                .refused
                .iter()
                .map(|(o, p)| format!("{o} refused ({})", p.code.as_str())),
        );
        words.push(self.cursor(&answer.cursor));
        if answer.more {
            words.push("more".into());
        }
        self.cursors.insert(name.into(), answer.cursor.clone());
        self.say(format!("{name}: answer {}", words.join("; ")));
    }

    fn read(&mut self, name: &str, bytes: &[u8]) {
        let stream = self.people[name].encoding == Some(Encoding::EventStream);
        for message in if stream {
            wire::event_stream(bytes)
        } else {
            wire::web_socket(bytes)
        } {
            if message == Message::Ping {
                let (lane, who) = (self.people[name].lane, self.people[name].who);
                self.world.lane(lane, |l, _, _| l.heard(who));
            }
            self.hear(name, &message);
        }
    }

    fn pump(&mut self) {
        loop {
            while let Some(event) = self.world.events.pop_front() {
                let (lane, who) = match &event {
                    Event::Written { lane, who, .. }
                    | Event::Answered { lane, who, .. }
                    | Event::Superseded { lane, who }
                    | Event::Cut { lane, who } => (*lane, *who),
                };
                let found = self.people.iter().find(|(_, p)| p.lane == lane && p.who == who);
                let Some(name) = found.map(|(name, _)| name.clone()) else {
                    continue;
                };
                match event {
                    Event::Written { bytes, last, .. } => {
                        let person = self.people.get_mut(&name).expect("found");
                        if person.blocked && !last {
                            person.in_hand.push(bytes);
                            self.world.lane(lane, |l, now, _| l.blocked(now, who));
                        } else {
                            self.read(&name, &bytes);
                        }
                    }
                    Event::Answered { answer, .. } => self.answered(&name, &answer),
                    Event::Superseded { .. } => self.say(format!("{name}: the older poll ends")),
                    Event::Cut { .. } => self.say(format!("{name}: cut")),
                }
            }
            let lanes = self.world.lanes.len();
            if !(0..lanes).any(|lane| self.world.write(lane)) && self.world.events.is_empty() {
                return;
            }
        }
    }

    fn wait(&mut self, us: u64) {
        let until_us = self.world.now.mono_us + us;
        self.pump();
        while self.world.advance(until_us) {
            self.pump();
        }
    }

    /// `last`, or one that is worth nothing.
    fn named_cursor(&self, name: &str, which: &str) -> Option<String> {
        let base = Version(self.world.now.wall_us);
        let made = |cluster, base| Cursor::new(cluster, base, Vec::new(), Vec::new()).encode().ok();
        match which {
            "none" => None,
            "last" => Some(
                self.cursors
                    .get(name)
                    .unwrap_or_else(|| panic!("{name} has no cursor"))
                    .clone(),
            ),
            "foreign" => made(ClusterId(8), base),
            "future" => made(CLUSTER, Version(DAWN_US + 3_600_000_000)),
            "scribble" => Some("scribble".into()),
            other => panic!("no cursor {other}"),
        }
    }

    /// `a`, or `a>=v3`.
    fn asked(&self, words: &[&str]) -> Vec<Result<Entry, (String, tidings_protocol::Problem)>> {
        let entry = |word: &&str| {
            let (object, at_least) = match word.split_once(">=v") {
                Some((object, number)) => {
                    let number: usize = number.parse().expect("a number");
                    // One that is yet to be published lies ahead of the clock.
                    let soon = Version(self.world.now.wall_us + 60_000_000);
                    (object, Some(self.versions.get(number - 1).copied().unwrap_or(soon)))
                }
                None => (*word, None),
            };
            Ok(Entry {
                object: object.into(),
                version: None,
                at_least,
            })
        };
        words.iter().map(entry).collect()
    }

    fn command(&mut self, line: &str) {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let mut option = |key: &str| {
            let at = words
                .iter()
                .position(|word| word.strip_prefix(key).is_some_and(|rest| rest.starts_with('=')))?;
            Some(words.remove(at)[key.len() + 1..].to_string())
        };
        let (cursor, data, lane) = (option("cursor"), option("data"), option("lane"));
        let lane: usize = lane.map_or(0, |lane| lane.parse().expect("a number"));
        let more = words.last() == Some(&"more");
        if more {
            words.pop();
        }
        let number = |word: &str| word.parse::<u64>().unwrap_or_else(|_| panic!("{word} is no number"));
        match words[..] {
            ["where", ..] => {
                for object in &words[1..] {
                    let shard = self.world.shard(object);
                    let owner = self.world.map[usize::from(shard.0)].0;
                    let owner = owner.map_or("nobody".into(), |owner| format!("owner {owner}"));
                    self.say(format!("{object} is in shard {shard} of {owner}"));
                }
            }
            ["publish", object] => {
                let hint = data.map(|data| Hint {
                    kind: None,
                    data: Some(data.into()),
                });
                let version = self.world.publish(object, hint).expect("the shard has an owner");
                self.versions.push(version);
            }
            ["connect", name, transport] => {
                let encoding = if transport == "events" {
                    Encoding::EventStream
                } else {
                    Encoding::WebSocketJson
                };
                let who = self
                    .world
                    .lane(lane, |l, now, _| l.connect(now, SinkKind::Stream(encoding), false));
                self.enter(name, lane, who, Some(encoding));
            }
            ["subscribe", name, ..] => {
                let cursor = self.named_cursor(name, cursor.as_deref().unwrap_or("none"));
                let page = Page {
                    id: None,
                    entries: self.asked(&words[2..]),
                    cursor,
                    more,
                };
                let (lane, who) = (self.people[name].lane, self.people[name].who);
                self.world
                    .lane(lane, |l, now, out| l.subscribe(now, who, page, out))
                    .expect("one request at a time");
            }
            ["unsubscribe", name, ..] => {
                let (lane, who) = (self.people[name].lane, self.people[name].who);
                let objects = words[2..].iter();
                self.world
                    .lane(lane, |l, now, out| l.unsubscribe(now, who, None, objects, out))
                    .expect("no page");
            }
            ["poll", name, ..] => self.poll(name, lane, &words[2..], cursor.as_deref()),
            ["over", name] => {
                let (lane, who) = (self.people[name].lane, self.people[name].who);
                self.world.lane(lane, |l, now, out| l.poll_over(now, who, None, out));
            }
            ["disconnect", name] => {
                let person = self.people.remove(name).expect("connected");
                self.world.lane(person.lane, |l, now, _| l.disconnect(now, person.who));
            }
            ["block", name] => self.people.get_mut(name).expect("connected").blocked = true,
            ["unblock", name] => {
                let person = self.people.get_mut(name).expect("connected");
                person.blocked = false;
                let (lane, who, bytes) = (person.lane, person.who, std::mem::take(&mut person.in_hand));
                bytes.iter().for_each(|bytes| self.read(name, bytes));
                self.world.lane(lane, |l, now, out| l.writable(now, who, out));
            }
            ["crash", "owner", owner] => self.world.crash(number(owner) as usize),
            ["assign", "shard", shard, "to", "owner", owner] => {
                let floor = self.world.next_floor(0);
                self.world.release(number(shard) as u16);
                self.world.assign(number(shard) as u16, number(owner) as usize, floor);
            }
            ["cut", "owner", owner, "for", ms, "ms"] => {
                self.world.cut(lane, number(owner) as usize, 1_000, number(ms) * 1_000);
            }
            ["wait", ms, "ms"] => self.wait(number(ms) * 1_000),
            ["stats"] => self.stats(lane),
            _ => panic!("no such command: {line}"),
        }
        self.wait(20_000);
    }

    fn enter(&mut self, name: &str, lane: usize, who: SubscriberKey, encoding: Option<Encoding>) {
        let person = Person {
            lane,
            who,
            encoding,
            in_hand: Vec::new(),
            blocked: false,
        };
        self.people.insert(name.into(), person);
    }

    /// `poll bob +a +b -c`: a session is kept while its name is; others open one.
    fn poll(&mut self, name: &str, lane: usize, words: &[&str], cursor: Option<&str>) {
        let cursor = cursor.unwrap_or(if self.cursors.contains_key(name) {
            "last"
        } else {
            "none"
        });
        let cursor = self.named_cursor(name, cursor);
        if !self.people.contains_key(name) {
            let who = self.world.lane(lane, |l, now, _| l.open_session(now));
            self.enter(name, lane, who, None);
        }
        let of = |sign: char| {
            words
                .iter()
                .filter_map(move |word| word.strip_prefix(sign))
                .collect::<Vec<_>>()
        };
        let remove = of('-').into_iter().map(Into::into).collect();
        let page = PollPage {
            entries: self.asked(&of('+')),
            remove,
            cursor,
            trace: false,
        };
        let (lane, who) = (self.people[name].lane, self.people[name].who);
        if self
            .world
            .lane(lane, |l, now, out| l.poll(now, who, page, out))
            .is_err()
        {
            self.say(format!("{name}: session unknown"));
        }
    }

    fn stats(&mut self, lane: usize) {
        let stats = self.world.lanes[lane].stats();
        let interests: usize = self.world.owners.iter().map(|owner| owner.stats().interests).sum();
        self.say(format!(
            "lane {lane}: {} objects, {} subscriptions, {} pending; owners: {interests} interests",
            stats.objects, stats.subscriptions, stats.pending
        ));
    }
}

/// Plays a script and gives it back with what was really told.
fn play(script: &str) -> String {
    let batch_bytes = if script.contains("# batch 150") { 150 } else { 64 << 10 };
    let mut scene = Scene::new(batch_bytes);
    let mut played = String::new();
    let mut expecting = false;
    for line in script.lines() {
        if line.is_empty() {
            expecting = false;
        } else if expecting {
            continue;
        } else if line == "----" {
            expecting = true;
            writeln!(played, "----").unwrap();
            let told = std::mem::take(&mut scene.told);
            told.iter().for_each(|words| writeln!(played, "{words}").unwrap());
            continue;
        } else if !line.starts_with('#') {
            scene.command(line);
        }
        writeln!(played, "{line}").unwrap();
    }
    assert!(
        scene.told.is_empty(),
        "a script ends with what was told: {:?}",
        scene.told
    );
    played
}

#[test]
fn every_script_is_told_as_written() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 8);
    let bless = std::env::var_os("TIDINGS_BLESS").is_some();
    let mut wrong = Vec::new();
    for file in files {
        let script = std::fs::read_to_string(&file).unwrap();
        let played = play(&script);
        if played != script {
            if bless {
                std::fs::write(&file, &played).unwrap();
            } else {
                let name = file.file_name().unwrap().to_string_lossy().into_owned();
                let differs = script.lines().zip(played.lines()).find(|(a, b)| a != b);
                wrong.push(format!("{name}: {differs:?}\n--- told:\n{played}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
