//! The judge of what clients are told: it compares each word with what owners acknowledged, and knows nothing of how
//! lanes and owners keep their promises.

use crate::clients::{Client, Held, Town, Transport};
use serde_json::Value;
use std::collections::BTreeMap;
use tidings_protocol::codec::{PollAnswer, ResyncScope};
use tidings_protocol::{Cursor, Version};

impl Town {
    pub fn hear(&mut self, client: usize, name: &str, body: &Value) {
        match name {
            "changes" => {
                for change in body.as_array().expect("a list") {
                    let object = change["object"].as_str().expect("an ID");
                    let version = change["version"].as_u64().expect("a version");
                    self.changed(client, object, version, change.get("data").map(ToString::to_string));
                }
            }
            "cursor" => self.handed(client, body.as_str().expect("a text")),
            "resync" => {
                let list = body["objects"].as_array();
                let objects = list.map(|l| l.iter().map(|o| o.as_str().expect("an ID").into()).collect());
                self.resync(client, objects, body["cause"].as_str().expect("a cause"));
            }
            "subscribed" => self.subscribed(client, body),
            "unsubscribed" | "reconnect" => {}
            other => panic!("nobody says {other} here"),
        }
    }

    pub fn subscribed(&mut self, client: usize, body: &Value) {
        self.note(client, format_args!("subscribed {body}"));
        let (step, lost) = (self.world.step, self.world.lost);
        let lossy = !self.causes.is_empty();
        let person = &mut self.clients[client];
        let connection = person.connection.as_mut().expect("connected");
        let ask = connection.ask.take().expect("it asked");
        let asked = ask.objects.iter().zip(&ask.at_least);
        for (entry, (object, at_least)) in body["objects"].as_array().expect("a list").iter().zip(asked) {
            assert_eq!(
                entry["object"].as_str(),
                Some(object.as_str()),
                "answers in the order of the request"
            );
            if let Some(code) = entry["error"]["code"].as_str() {
                assert_eq!(code, "not_yet");
                self.tally.not_yet += 1;
                person.wanted.remove(object);
                person.held.remove(object);
                continue;
            }
            let version = entry["version"].as_u64().unwrap_or(0);
            // A version that was lost counts as included: everything below the floor is.
            assert!(
                lossy || Version(version) >= at_least.unwrap_or_default(),
                "{object} is answered too old"
            );
            connection.live.insert(object.clone());
            if !ask.cursor {
                // What it says is where the client starts; what came between call and answer may have been lost.
                let from = if lossy || lost != ask.lost { step } else { ask.step };
                person.held.insert(object.clone(), Held { step: from, version });
            }
        }
    }

    pub fn changed(&mut self, client: usize, object: &str, version: u64, data: Option<String>) {
        self.note(client, format_args!("{object}@{version}"));
        self.tally.told += 1;
        let name = self.clients[client].name.clone();
        let change = self
            .world
            .history
            .get(object)
            .and_then(|all| all.iter().find(|c| c.version.0 == version));
        let change = change.unwrap_or_else(|| panic!("{name} hears of {object}@{version}, which never happened"));
        if let Some(data) = data {
            let said = change.hint.as_ref().and_then(|hint| hint.data.as_deref());
            assert_eq!(said, Some(data.as_str()), "{name} hears the data of another change");
        }
        let person = &mut self.clients[client];
        let connection = person.connection.as_mut().expect("connected");
        assert!(
            connection.live.contains(object),
            "{name} hears of {object}, which it does not watch (yet or any more)"
        );
        let before = connection.told.insert(object.into(), version).unwrap_or(0);
        assert!(version >= before, "{name} hears of {object}@{version} after {before}");
        if version == before {
            self.tally.repeats += 1;
            assert_eq!(
                connection.transport,
                Transport::Poll,
                "{name} hears twice of {object}@{version}"
            );
        }
        let told = person.told.entry(object.into()).or_default();
        *told = (*told).max(version);
    }

    pub fn resync(&mut self, client: usize, objects: Option<Vec<String>>, cause: &str) {
        let name = objects.as_ref().map_or("all".into(), |o| o.join(" "));
        self.note(client, format_args!("resync {name} ({cause})"));
        assert!(
            self.causes.contains(cause),
            "{} is told to resync {name}: {cause}",
            self.clients[client].name
        );
        self.tally.resyncs += 1;
        let step = self.world.step;
        let person = &mut self.clients[client];
        let live = &person.connection.as_ref().expect("connected").live;
        let objects = objects.unwrap_or_else(|| live.iter().cloned().collect());
        for object in objects {
            assert!(
                live.contains(&object),
                "{} is told to resync {object}, which it does not watch",
                person.name
            );
            person.resynced.insert(object, step);
        }
    }

    /// A cursor on a stream.
    pub fn handed(&mut self, client: usize, text: &str) {
        let step = self.world.step;
        let person = &mut self.clients[client];
        let connection = person.connection.as_mut().expect("connected");
        if connection.transport == Transport::EventStream {
            if let Some(ask) = connection.ask.take() {
                if !ask.cursor {
                    person.held = connection
                        .live
                        .iter()
                        .map(|o| (o.clone(), Held { step, version: 0 }))
                        .collect();
                }
                assert!(!ask.more);
            }
        } else {
            assert!(
                connection.ask.is_none(),
                "{} gets a cursor before its page is answered",
                person.name
            );
        }
        assert!(
            connection.pages.is_empty(),
            "{} gets a cursor before its last page",
            person.name
        );
        self.keep(client, text, false);
    }

    /// Invariant I2: what a cursor claims was told, or is to be fetched again.
    ///
    /// With the cursor of an answer that was cut, the newest version of an object may be above what the cursor claims,
    /// and an older one below it untold: the next answer tells the newest.
    pub fn keep(&mut self, client: usize, text: &str, cut: bool) {
        let cursor = Cursor::decode(text).expect("cursors can be read");
        self.note(
            client,
            format_args!(
                "cursor {} lagging {:?} told {}",
                cursor.base,
                cursor.lagging,
                cursor.told.len()
            ),
        );
        self.tally.cursors += 1;
        self.tally.lagging += u64::from(!cursor.lagging.is_empty());
        self.tally.with_told += u64::from(!cursor.told.is_empty());
        for shard in self.world.shards.all() {
            let claim = &mut self.claimed[usize::from(shard.0)];
            *claim = (*claim).max(cursor.at(shard).0);
        }
        let person = &mut self.clients[client];
        if person.cursor.replace(text.into()).is_some_and(|own| own == text) {
            return;
        }
        let person = &self.clients[client];
        let mut skipped = Vec::new();
        for object in person.held.keys() {
            let claim = cursor
                .at(self.world.shard(object))
                .max(cursor.told(self.world.hash(object)).unwrap_or_default());
            let Some(missing) = self.missing(person, object, claim) else {
                continue;
            };
            let newest = self.world.history[object].last().expect("something is missing").version;
            if cut && newest > claim {
                skipped.push((object.clone(), newest));
            } else if person
                .skipped
                .get(object)
                .is_none_or(|later| missing >= *later || claim >= *later)
            {
                panic!(
                    "{}'s cursor claims {object} up to {claim}, but nobody told it of {missing}",
                    person.name
                );
            }
        }
        self.clients[client].skipped.extend(skipped);
    }

    /// The newest change up to a version that the client is owed and knows nothing of.
    pub fn missing(&self, person: &Client, object: &str, up_to: Version) -> Option<Version> {
        let held = person.held.get(object)?;
        let last = self
            .world
            .history
            .get(object)?
            .iter()
            .rfind(|change| change.version <= up_to)?;
        let owed = last.step > held.step && last.version.0 > held.version;
        let told = person.told.get(object).is_some_and(|told| *told >= last.version.0);
        let resynced = person.resynced.get(object).is_some_and(|step| *step >= last.step);
        (owed && !told && !resynced).then_some(last.version)
    }

    pub fn answered(&mut self, client: usize, answer: PollAnswer) {
        self.tally.answers += 1;
        self.tally.more += u64::from(answer.more);
        let step = self.world.step;
        let connection = self.clients[client].connection.as_mut().expect("connected");
        assert!(connection.poll.take().is_some(), "an answer without a poll");
        connection.more = answer.more;
        assert!(!answer.more || !answer.changes.is_empty(), "`more` makes progress");
        for (object, problem) in &answer.refused {
            assert_eq!(problem.code.as_str(), "not_yet");
            self.tally.not_yet += 1;
            let person = &mut self.clients[client];
            person.wanted.remove(object);
            person.held.remove(object);
            person.connection.as_mut().expect("connected").live.remove(object);
        }
        let fresh = self.clients[client].cursor.is_none();
        for change in &answer.changes {
            let data = change
                .hint
                .as_ref()
                .and_then(|hint| hint.data.as_deref())
                .map(String::from);
            self.changed(client, &change.object, change.version.0, data);
        }
        if let Some(resync) = &answer.resync {
            let objects = match &resync.scope {
                ResyncScope::All => None,
                ResyncScope::Objects(objects) => Some(objects.iter().map(|o| String::from(&**o)).collect()),
            };
            self.resync(client, objects, resync.cause);
        }
        if fresh {
            let person = &mut self.clients[client];
            let live = &person.connection.as_ref().expect("connected").live;
            person.held = live.iter().map(|o| (o.clone(), Held { step, version: 0 })).collect();
        }
        self.keep(client, &answer.cursor, answer.more);
    }

    /// Invariant I1: everybody knows of every change it is owed.
    pub fn check_nothing_is_missing(&self) {
        for person in &self.clients {
            for object in person.held.keys() {
                if let Some(missing) = self.missing(person, object, Version(u64::MAX)) {
                    let known = person
                        .connection
                        .as_ref()
                        .map(|c| self.world.lanes[c.lane].explain(c.who, object));
                    panic!("{} was never told of {object}@{missing}: {known:?}", person.name);
                }
            }
        }
    }

    /// The newest version that the client was told of each object on this connection.
    pub fn told_here(&self, client: usize) -> BTreeMap<String, u64> {
        self.clients[client]
            .connection
            .as_ref()
            .map(|c| c.told.clone())
            .unwrap_or_default()
    }

    /// What a client that just came back with its cursor is yet to be told: invariant I11.
    pub fn due(&self, client: usize) -> BTreeMap<String, u64> {
        let person = &self.clients[client];
        let Some(cursor) = person.connection.as_ref().and_then(|c| c.came_with.as_ref()) else {
            return BTreeMap::new();
        };
        let newest = |object: &String| {
            let version = self.world.history.get(object)?.last()?.version;
            let hash = self.world.hash(object);
            let known = cursor
                .at(self.world.shards.shard(hash))
                .max(cursor.told(hash).unwrap_or_default());
            (version > known).then(|| (object.clone(), version.0))
        };
        person.wanted.iter().filter_map(newest).collect()
    }

    /// Whether the client came back with a cursor that names shards that lagged.
    pub fn came_lagging(&self, client: usize) -> bool {
        let cursor = self.clients[client]
            .connection
            .as_ref()
            .and_then(|c| c.came_with.as_ref());
        cursor.is_some_and(|cursor| !cursor.lagging.is_empty())
    }
}
