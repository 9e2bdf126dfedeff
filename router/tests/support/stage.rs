//! One lane whose owners are played by the test, word for word.

use crate::wire::{self, Message};
use std::collections::BTreeMap;
use tidings_protocol::Hint;
use tidings_protocol::client::Entry;
use tidings_protocol::codec::{Encoding, PollAnswer};
use tidings_protocol::hint::SharedHint;
use tidings_protocol::peer::{Changed, EdgeToOwner, FloorCause, Owned, OwnerToEdge};
use tidings_protocol::{ClusterId, Cursor, Epoch, HashKey, ObjectHash, ShardCount, ShardId, Version};
use tidings_router::Now;
use tidings_router::edge::{Config, Lane, Output, Page, PollPage, SinkKind, SubscriberKey};

pub const CLUSTER: ClusterId = ClusterId(7);

pub fn config(shards: u16, owners: usize) -> Config {
    Config {
        cluster: CLUSTER,
        key: HashKey::new([3; 16]),
        shards: ShardCount::new(shards).expect("a power of two"),
        owners,
        objects_per_subscriber: 1000,
        subscriptions: 1_000_000,
        batch_bytes: 64 * 1024,
        hint_bytes: 1 << 20,
        cursor_us: 100_000,
        ping_us: 25_000_000,
        comment_us: 15_000_000,
        pong_us: 10_000_000,
        stuck_us: 60_000_000,
        linger_us: 5_000_000,
        lingering_objects: 1000,
        session_us: 60_000_000,
        idle_sessions: 1000,
        at_least_us: 4_000_000,
        handled_every: 100,
    }
}

pub fn entry(object: &str) -> Result<Entry, (String, tidings_protocol::Problem)> {
    Ok(Entry {
        object: object.into(),
        version: None,
        at_least: None,
    })
}

pub struct Stage {
    pub lane: Lane,
    pub now: Now,
    pub config: Config,
    /// What the lane said to each owner and the test has not looked at yet.
    pub to_owner: BTreeMap<usize, Vec<EdgeToOwner>>,
    pub answers: BTreeMap<u32, PollAnswer>,
    pub cut: Vec<SubscriberKey>,
    pub may_request: Vec<SubscriberKey>,
    generation: BTreeMap<usize, u32>,
}

impl Stage {
    /// All links up, nothing owned. The clock stands at version 10,000,000.
    pub fn new(config: Config) -> Self {
        let mut stage = Self {
            lane: Lane::new(config.clone()),
            now: Now {
                mono_us: 1_000_000,
                wall_us: 10_000_000,
            },
            to_owner: BTreeMap::new(),
            answers: BTreeMap::new(),
            cut: Vec::new(),
            may_request: Vec::new(),
            generation: BTreeMap::new(),
            config,
        };
        for owner in 0..stage.config.owners {
            stage.up(owner);
        }
        stage
    }

    /// One shard, one owner that owns it in epoch 1 without a floor and has closed 9,000,000.
    pub fn simple() -> Self {
        let mut stage = Self::new(config(1, 1));
        stage.own(0, &[0], 1, 0);
        stage.closed(0, 9_000_000);
        stage
    }

    fn take(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::ToOwner { owner, frame, .. } => self.to_owner.entry(owner).or_default().push(frame),
                Output::Answer { who, answer } => _ = self.answers.insert(who.index, *answer),
                Output::Cut { who, .. } => self.cut.push(who),
                Output::MayRequest { who } => self.may_request.push(who),
                Output::Superseded { .. } => {}
            }
        }
    }

    /// Calls the lane and keeps what it wants done.
    pub fn step<T>(&mut self, step: impl FnOnce(&mut Lane, Now, &mut Vec<Output>) -> T) -> T {
        let mut out = Vec::new();
        let value = step(&mut self.lane, self.now, &mut out);
        self.take(out);
        value
    }

    pub fn up(&mut self, owner: usize) {
        let generation = self.generation.entry(owner).or_default();
        *generation += 1;
        let generation = *generation;
        self.step(|lane, now, out| lane.owner_up(now, owner, generation, out));
    }

    pub fn frame(&mut self, owner: usize, frame: OwnerToEdge) {
        let generation = self.generation[&owner];
        self.step(|lane, now, out| lane.owner_frames(now, owner, generation, vec![frame], out));
    }

    pub fn own(&mut self, owner: usize, shards: &[u16], epoch: u64, floor: u64) {
        let owned = |&shard| Owned {
            shard: ShardId(shard),
            epoch: Epoch(epoch),
            floor: Version(floor),
            cause: FloorCause::Lost,
        };
        self.frame(
            owner,
            OwnerToEdge::Own {
                shards: shards.iter().map(owned).collect(),
            },
        );
    }

    pub fn gone(&mut self, owner: usize, shards: &[u16]) {
        self.frame(
            owner,
            OwnerToEdge::Gone {
                shards: shards.iter().map(|&s| ShardId(s)).collect(),
            },
        );
    }

    pub fn closed(&mut self, owner: usize, version: u64) {
        self.frame(
            owner,
            OwnerToEdge::Closed {
                version: Version(version),
            },
        );
    }

    pub fn changed(&mut self, owner: usize, object: &str, version: u64) {
        let object = self.config.key.object(object);
        let changes = vec![Changed {
            object,
            version: Version(version),
            hint: None,
        }];
        self.frame(owner, OwnerToEdge::Changed { changes });
    }

    pub fn changed_with(&mut self, owner: usize, object: &str, version: u64, data: &str) {
        let hint = Some(SharedHint::new(Hint {
            kind: None,
            data: Some(data.into()),
        }));
        let changes = vec![Changed {
            object: self.config.key.object(object),
            version: Version(version),
            hint,
        }];
        self.frame(owner, OwnerToEdge::Changed { changes });
    }

    /// Answers the oldest unanswered `Register` of a link with these versions (zero for what is not named).
    pub fn answer(&mut self, owner: usize, versions: &[(&str, u64)]) {
        let sent = self.to_owner.entry(owner).or_default();
        let at = sent
            .iter()
            .position(|f| matches!(f, EdgeToOwner::Register { .. }))
            .expect("something was asked");
        let EdgeToOwner::Register { objects } = sent.remove(at) else {
            unreachable!()
        };
        let known: BTreeMap<ObjectHash, u64> = versions
            .iter()
            .map(|&(object, version)| (self.config.key.object(object), version))
            .collect();
        let objects = objects
            .into_iter()
            .map(|o| (o, Version(known.get(&o).copied().unwrap_or(0))))
            .collect();
        self.frame(owner, OwnerToEdge::Registered { objects });
    }

    /// What the owner was told and not asked about yet.
    pub fn heard(&mut self, owner: usize) -> Vec<EdgeToOwner> {
        std::mem::take(self.to_owner.entry(owner).or_default())
    }

    pub fn web_socket(&mut self) -> SubscriberKey {
        let now = self.now;
        self.lane.connect(now, SinkKind::Stream(Encoding::WebSocketJson), false)
    }

    pub fn subscribe(&mut self, who: SubscriberKey, objects: &[&str], cursor: Option<&str>) {
        let page = Page {
            entries: objects.iter().map(|o| entry(o)).collect(),
            cursor: cursor.map(Into::into),
            ..Page::default()
        };
        self.step(|lane, now, out| lane.subscribe(now, who, page, out))
            .expect("a request is due");
    }

    pub fn poll(&mut self, who: SubscriberKey, objects: &[&str], cursor: Option<&str>) {
        let page = PollPage {
            entries: objects.iter().map(|o| entry(o)).collect(),
            cursor: cursor.map(Into::into),
            ..PollPage::default()
        };
        self.answers.remove(&who.index);
        self.step(|lane, now, out| lane.poll(now, who, page, out))
            .expect("the session is known");
        self.writes();
    }

    pub fn poll_over(&mut self, who: SubscriberKey) -> PollAnswer {
        self.step(|lane, now, out| lane.poll_over(now, who, None, out));
        self.answers
            .remove(&who.index)
            .expect("a poll that is over is answered")
    }

    /// Everything the lane writes, by subscriber.
    pub fn writes(&mut self) -> BTreeMap<u32, Vec<Message>> {
        let mut told: BTreeMap<u32, Vec<Message>> = BTreeMap::new();
        while let Some(write) = self.step(|lane, now, out| lane.next_write(now, out)) {
            told.entry(write.who.index)
                .or_default()
                .extend(wire::web_socket(&write.bytes));
        }
        told
    }

    /// What one WebSocket is told, in short: `changes a@5`, `cursor`, `subscribed a@5 b`, `resync a (cause)`.
    pub fn told(&mut self, who: SubscriberKey) -> Vec<String> {
        let messages = self.writes().remove(&who.index).unwrap_or_default();
        messages.iter().map(short).collect()
    }

    pub fn wait(&mut self, us: u64) {
        let until = self.now.mono_us + us;
        let mut looks = 0;
        while let Some(at) = self.lane.next_deadline().filter(|&at| at <= until) {
            let step = at.max(self.now.mono_us) - self.now.mono_us;
            self.now.mono_us += step;
            self.now.wall_us += step;
            self.step(|lane, now, out| lane.handle_deadline(now, out));
            looks += 1;
            assert!(
                looks < 100_000,
                "the lane wants to be looked at again and again at {at}"
            );
        }
        self.now.wall_us += until - self.now.mono_us;
        self.now.mono_us = until;
    }

    pub fn cursor(&self, base: u64) -> String {
        Cursor::new(CLUSTER, Version(base), Vec::new(), Vec::new())
            .encode()
            .expect("short")
    }
}

fn short(message: &Message) -> String {
    let Message::Named { name, body, .. } = message else {
        return format!("{message:?}");
    };
    let entry = |e: &serde_json::Value| {
        let object = e["object"].as_str().unwrap_or_default();
        match (&e["version"], &e["error"]["code"]) {
            (serde_json::Value::Number(version), _) => format!(" {object}@{version}"),
            (_, serde_json::Value::String(code)) => format!(" {object}!{code}"),
            _ => format!(" {object}"),
        }
    };
    let list = |v: &serde_json::Value| {
        v.as_array()
            .map(|l| l.iter().map(entry).collect::<String>())
            .unwrap_or_default()
    };
    match name.as_str() {
        "changes" => format!("changes{}", list(body)),
        "subscribed" => format!("subscribed{}", list(&body["objects"])),
        "stale" => format!("stale {body}"),
        "resync" => {
            let cause = body["cause"].as_str().unwrap_or_default();
            match body["objects"].as_array() {
                None => format!("resync all ({cause})"),
                Some(objects) => {
                    let names: Vec<_> = objects.iter().filter_map(|o| o.as_str()).collect();
                    format!("resync {} ({cause})", names.join(" "))
                }
            }
        }
        other => other.into(),
    }
}
