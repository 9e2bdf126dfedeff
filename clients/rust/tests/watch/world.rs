//! A model of servers, of the network before them and of an application behind the machine, and what must hold for them.
//!
//! The model knows the truth: every object's history. The application knows what it handled or fetched. What is judged:
//! - versions of an object that are handed out only grow while a machine lives;
//! - whatever is at or below the cursor that the machine gives out, the application knows;
//! - once the faults stop, the application knows the newest of everything it watches, however often it crashed and resumed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tidings_client::watch::{Change, Ended, Input, Machine, Output, Settings, Status, Transport, Waits};
use tidings_client::wire::EventParser;
use tidings_protocol::Version;

mod servers;

/// SplitMix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.roll(one_in) == 0
    }
}

/// What one object's owner knows and what is true.
#[derive(Default)]
struct Truth {
    history: Vec<u64>,
    /// The owner forgot what is below the floor.
    forgotten: bool,
}

impl Truth {
    fn newest(&self) -> u64 {
        self.history.last().copied().unwrap_or(0)
    }

    fn told(&self) -> u64 {
        if self.forgotten { 0 } else { self.newest() }
    }
}

enum Down {
    Text(String),
    Block(String),
    Answer(String),
    Refused(u16, &'static str),
}

struct Connection {
    transport: Transport,
    objects: BTreeSet<String>,
    pending: BTreeSet<String>,
    resync: BTreeSet<String>,
    down: VecDeque<Down>,
    more: bool,
    poll: Option<(u64, bool)>,
    session: String,
}

pub(crate) struct World {
    pub(crate) dice: Dice,
    clock: u64,
    floor: u64,
    truth: BTreeMap<String, Truth>,
    connection: Option<Connection>,
    number: u64,
    sessions: BTreeMap<String, BTreeSet<String>>,
    next_session: u64,
    pub(crate) now_ms: u64,
    pub(crate) machine: Machine,
    settings: Settings,
    // The application.
    state: BTreeMap<String, u64>,
    fetched: BTreeSet<String>,
    pub(crate) objects: BTreeSet<String>,
    in_hand: Vec<Change>,
    handed: BTreeMap<String, u64>,
    saved: Option<(String, BTreeSet<String>)>,
    /// Faults happen.
    pub(crate) faults: bool,
    pub(crate) story: Vec<String>,
}

const NAMES: u64 = 6;

impl World {
    pub(crate) fn new(seed: u64, transport: Transport) -> Self {
        let mut dice = Dice(seed);
        let settings = Settings {
            servers: 2,
            transport,
            waits: Waits {
                first: Duration::from_millis(100),
                longest: Duration::from_millis(1000),
            },
            better_after: Duration::from_secs(60),
            ..Settings::default()
        };
        let objects: BTreeSet<String> = (0..1 + dice.roll(NAMES)).map(|n| format!("o{n}")).collect();
        let named = objects.iter().map(|object| (object.as_str(), None));
        let mut machine = Machine::new(settings, named, None, dice.roll(u64::MAX));
        machine.start(0);
        Self {
            dice,
            clock: 100,
            floor: 0,
            truth: BTreeMap::new(),
            connection: None,
            number: 0,
            sessions: BTreeMap::new(),
            next_session: 0,
            now_ms: 0,
            machine,
            settings,
            state: BTreeMap::new(),
            fetched: BTreeSet::new(),
            objects,
            in_hand: Vec::new(),
            handed: BTreeMap::new(),
            saved: None,
            faults: true,
            story: Vec::new(),
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if std::env::var_os("TIDINGS_STORY").is_some() {
            self.story.push(line());
        }
    }

    fn newest(&self, object: &str) -> u64 {
        self.truth.get(object).map_or(0, Truth::newest)
    }

    fn told(&self, object: &str) -> u64 {
        self.truth.get(object).map_or(0, Truth::told)
    }

    // The network.

    pub(crate) fn deliver(&mut self) {
        let Some(down) = self
            .connection
            .as_mut()
            .and_then(|connection| connection.down.pop_front())
        else {
            return;
        };
        match down {
            Down::Text(text) => {
                self.note(|| format!("deliver {text}"));
                self.machine.handle(self.now_ms, self.number, Input::Text(&text));
            }
            Down::Block(text) => {
                self.note(|| format!("deliver {text:?}"));
                let mut parser = EventParser::default();
                parser.push(text.as_bytes());
                while let Some(block) = parser.next_block().expect("a block") {
                    self.machine.handle(self.now_ms, self.number, Input::Block(&block));
                }
            }
            Down::Answer(text) => {
                self.note(|| format!("deliver {text}"));
                self.machine
                    .handle(self.now_ms, self.number, Input::Answer(text.as_bytes()));
            }
            Down::Refused(status, body) => {
                let ended = Ended::Refused {
                    status,
                    retry_after_s: None,
                    body: body.as_bytes(),
                };
                self.machine.handle(self.now_ms, self.number, Input::Ended(ended));
            }
        }
    }

    fn cut(&mut self) {
        if self.connection.take().is_some() {
            self.note(|| "cut".to_owned());
            let ended = match self.dice.roll(3) {
                0 => Ended::Closed { code: 4000, reason: "" },
                1 => Ended::Refused {
                    status: 503,
                    retry_after_s: Some(1),
                    body: b"",
                },
                _ => Ended::Cut("cut".into()),
            };
            self.machine.handle(self.now_ms, self.number, Input::Ended(ended));
        }
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.machine.handle_deadline(self.now_ms);
    }

    /// Does what the machine asks for.
    pub(crate) fn settle(&mut self) {
        while let Some(output) = self.machine.next_output() {
            self.note(|| match &output {
                Output::Connect { transport, body, .. } => {
                    format!("connect {transport:?} {}", String::from_utf8_lossy(body))
                }
                Output::Send(text) | Output::Poll { body: text, .. } => {
                    format!("say {}", String::from_utf8_lossy(text))
                }
                Output::Disconnect { .. } => "disconnect".to_owned(),
            });
            match output {
                Output::Connect {
                    connection,
                    transport,
                    body,
                    ..
                } => {
                    self.number = connection;
                    let story = self.story.join("\n");
                    assert!(
                        self.connection.is_none(),
                        "the old connection is closed before the new one is made\n{story}"
                    );
                    self.connect(transport, &body);
                }
                Output::Send(frame) => self.hear_text(&frame),
                Output::Poll { connection, body } => {
                    self.number = connection;
                    self.hear_poll(&body);
                }
                Output::Disconnect { .. } => self.connection = None,
            }
        }
        self.fetch();
        self.check();
    }

    // The application.

    /// What is live and was never fetched is fetched.
    fn fetch(&mut self) {
        if matches!(self.machine.status(), Status::Live { .. }) {
            let refused: BTreeSet<String> = self.machine.refused().map(|(object, _)| object.to_string()).collect();
            for object in self.objects.difference(&refused) {
                if self.fetched.insert(object.clone()) {
                    self.state
                        .insert(object.clone(), self.truth.get(object).map_or(0, Truth::newest));
                }
            }
        }
    }

    pub(crate) fn take(&mut self) {
        if let Some(change) = self.machine.hand_out() {
            self.note(|| format!("take {change:?}"));
            if let Some(version) = change.version {
                let before = self.handed.insert(change.object.to_string(), version.0);
                assert!(
                    before < Some(version.0),
                    "{} went from {before:?} to {version}",
                    change.object
                );
            }
            self.in_hand.push(change);
        }
    }

    pub(crate) fn finish(&mut self) {
        if self.in_hand.is_empty() {
            return;
        }
        let place = self.dice.roll(self.in_hand.len() as u64) as usize;
        let change = self.in_hand.swap_remove(place);
        let known = match change.version {
            Some(version) => version.0,
            None => self.newest(&change.object),
        };
        let state = self.state.entry(change.object.to_string()).or_default();
        *state = known.max(*state);
        self.machine.handled(change.ticket());
    }

    fn save(&mut self) {
        if let Some(cursor) = self.machine.cursor() {
            let held = self
                .objects
                .iter()
                .filter(|object| self.machine.vouches(object))
                .cloned()
                .collect();
            self.saved = Some((cursor.to_string(), held));
        }
    }

    /// The process is lost with all that was not handled.
    fn crash(&mut self) {
        self.note(|| "crash".to_owned());
        self.connection = None;
        self.in_hand.clear();
        self.handed.clear();
        let (cursor, held) = match self.saved.clone() {
            Some((cursor, held)) => (Some(cursor), held),
            None => {
                self.fetched.clear();
                (None, self.objects.clone())
            }
        };
        let damaged = self.dice.chance(10);
        let cursor = cursor.map(|cursor| if damaged { format!("{cursor}x") } else { cursor });
        let seed = self.dice.roll(u64::MAX);
        let named = held.iter().map(|object| (object.as_str(), None));
        self.machine = Machine::new(self.settings, named, cursor.as_deref(), seed);
        self.machine.start(self.now_ms);
        for object in self.objects.difference(&held) {
            let known = self.fetched.contains(object).then(|| Version(self.state[object]));
            self.machine.add(self.now_ms, [(object.as_str(), known)]);
        }
    }

    fn change_objects(&mut self) {
        let object = format!("o{}", self.dice.roll(NAMES));
        if self.objects.remove(&object) {
            self.note(|| format!("remove {object}"));
            self.machine.remove(self.now_ms, [object.as_str()]);
            if let Some((_, held)) = &mut self.saved {
                held.remove(&object);
            }
            self.handed.remove(&object);
            self.in_hand.retain(|change| {
                let kept = *change.object != *object;
                if !kept {
                    self.machine.handled(change.ticket());
                }
                kept
            });
            // Its state is kept, and may be old when it is watched again.
            if self.dice.chance(2) {
                self.fetched.remove(&object);
            }
        } else {
            let known = self.fetched.contains(&object).then(|| Version(self.state[&object]));
            self.note(|| format!("add {object} {known:?}"));
            self.machine.add(self.now_ms, [(object.as_str(), known)]);
            self.objects.insert(object);
        }
    }

    /// Whatever is at or below the cursor, the application knows.
    fn check(&self) {
        let Some(cursor) = self.machine.cursor() else { return };
        let Some(Ok(cursor)) = Self::cursor(Some(&cursor)) else {
            return;
        };
        for object in self.objects.intersection(&self.fetched) {
            if !self.machine.vouches(object) {
                continue;
            }
            let history = self.truth.get(object).map_or(&[][..], |truth| &truth.history);
            let below = history
                .iter()
                .rev()
                .find(|version| **version <= cursor)
                .copied()
                .unwrap_or(0);
            let known = self.state[object];
            assert!(
                known >= below,
                "the cursor T{cursor} speaks for {object} at {below}, but only {known} was handled\n{}",
                self.story.join("\n")
            );
        }
    }

    /// One thing happens.
    pub(crate) fn step(&mut self) {
        match self.dice.roll(30) {
            0..4 => self.publish(),
            4..9 => self.tell(),
            9..16 => self.deliver(),
            16..19 => self.take(),
            19..22 => self.finish(),
            22 => self.save(),
            23 => self.change_objects(),
            24 if self.dice.chance(3) => self.cut(),
            25 if self.dice.chance(8) => self.crash(),
            26 if self.dice.chance(6) => self.lose(),
            27 => self.tell_old(),
            28 if self.dice.chance(4) => self.sessions.clear(),
            _ => {
                let ms = 1 << self.dice.roll(14);
                self.pass(ms);
            }
        }
        self.settle();
    }

    /// The faults stop: before long the application knows the newest of everything, and the cursor says so.
    pub(crate) fn heal(&mut self) {
        self.faults = false;
        for _ in 0..600 {
            self.pass(500);
            self.settle();
            for _ in 0..8 {
                self.tell();
                self.deliver();
                self.settle();
            }
            self.take();
            self.finish();
            self.settle();
        }
        let story = self.story.join("\n");
        if self.objects.is_empty() {
            assert_eq!(*self.machine.status(), Status::Idle);
            return;
        }
        assert!(
            matches!(self.machine.status(), Status::Live { .. }),
            "{:?}\n{story}",
            self.machine.status()
        );
        for object in &self.objects {
            assert!(self.fetched.contains(object), "{object} was never live\n{story}");
            assert!(
                self.state[object] >= self.newest(object),
                "{object} is at {}, but {} is known\n{story}",
                self.newest(object),
                self.state[object]
            );
        }
        let cursor = self.machine.cursor().expect("a cursor");
        assert_eq!(*cursor, format!("T{}", self.clock), "the cursor moved on\n{story}");
    }
}
