//! The last reading: what each client was told, against all that was published.
//!
//! For each client and object that it asked for there is one [`Pair`]: the highest version it was told and when it was
//! last told to resync. From these two, the table of changes and the client's cursors each question is answered when the
//! event comes that decides it.

mod connections;
mod cursors;
mod end;
mod told;

use crate::changes::Changes;
use crate::claims::{Claimed, Claims, Closed, Place, Places};
use crate::coverage::{Counter, Coverage};
use crate::faults::Faults;
use crate::history::{Event, What};
use crate::objects::Objects;
use crate::rules::Rules;
use crate::verdict::{Findings, Invariant, NO_EVENT};
use hashbrown::HashMap;
use std::rc::Rc;

/// A client and an object that it asked for.
struct Pair {
    client: u32,
    object: u32,
    /// The highest version it knows: told, or in the answer to its subscription.
    known: u64,
    /// When it was last told to fetch the object.
    resync_us: u64,
    /// When `sub.call` and `sub.ok` were; the events of the latter and of the last delivery.
    call_us: u64,
    held_us: u64,
    held_number: u32,
    told_number: u32,
    /// The client's connection of the last delivery or answer to a subscription (0 before the first), its version, and
    /// whether it was an answer.
    connection: u32,
    told_version: u64,
    is_answer: bool,
    is_held: bool,
    /// The answer to the subscription told a version.
    has_answer: bool,
}

/// One client.
#[derive(Default)]
struct Client {
    number: u32,
    claims: Claims,
    is_connected: bool,
    /// Counts its connections.
    connection: u32,
    open_us: u64,
    open_number: u32,
    resume: Option<Resume>,
    pairs: Vec<u32>,
    told: TheTold,
}

/// A catch-up, from this cursor if it can be read.
struct Resume {
    place: Option<Rc<Place>>,
    /// The event by which its answer was complete, once it was; what the answer speaks for, the next cursor says.
    answered: Option<u32>,
}

impl Client {
    /// Between a connection with a cursor and the end of its answer.
    fn is_resuming(&self) -> bool {
        self.resume.as_ref().is_some_and(|resume| resume.answered.is_none())
    }
}

/// What a long-poll client was told lately, to compare with the lists in its cursors.
#[derive(Default)]
struct TheTold {
    /// Whether any of its cursors had a list; nothing is kept before.
    is_used: bool,
    versions: Vec<u64>,
    /// Up to here anything may be in a list: it was told before we looked, or a resync stands for it.
    since: u64,
    highest: u64,
    is_resynced: bool,
}

/// What the last reading keeps.
pub(crate) struct Listening<'a> {
    changes: &'a Changes,
    objects: &'a mut Objects,
    faults: &'a Faults,
    rules: &'a Rules,
    found: &'a mut Findings,
    coverage: &'a mut Coverage,
    clients: Vec<Client>,
    client_numbers: HashMap<u32, u32>,
    pairs: Vec<Pair>,
    pair_numbers: HashMap<u64, u32>,
    places: Places,
    closed: Closed,
    /// How often clients were told of objects after these were unsubscribed; counted for people.
    pub(crate) after_unsubscribe: u64,
    pub(crate) deliveries: u64,
    pub(crate) resyncs: std::collections::BTreeMap<String, u64>,
    /// How many changes times clients that had to be told of them, and how many of these were not.
    pub(crate) interested: u64,
    pub(crate) missed: u64,
}

impl<'a> Listening<'a> {
    pub(crate) fn new(
        changes: &'a Changes,
        objects: &'a mut Objects,
        faults: &'a Faults,
        rules: &'a Rules,
        found: &'a mut Findings,
        coverage: &'a mut Coverage,
    ) -> Self {
        Self {
            changes,
            objects,
            faults,
            rules,
            found,
            coverage,
            clients: Vec::new(),
            client_numbers: HashMap::new(),
            pairs: Vec::new(),
            pair_numbers: HashMap::new(),
            places: Places::new(),
            closed: Closed::default(),
            after_unsubscribe: 0,
            deliveries: 0,
            resyncs: std::collections::BTreeMap::new(),
            interested: 0,
            missed: 0,
        }
    }

    /// Takes one event.
    pub(crate) fn see(&mut self, number: u32, event: &Event<'_>) {
        let at_us = event.at_us;
        match &event.what {
            What::Notify {
                client, obj, version, ..
            } => {
                let (client, object) = (self.client(*client), self.objects.number(obj));
                self.told(number, at_us, client, object, *version);
            }
            What::Cursor { client, text } => {
                let client = self.client(*client);
                self.handed(number, at_us, client, text);
            }
            What::SubCall { client, obj } => {
                let pair = self.pair_of(*client, obj);
                self.pairs[pair].call_us = at_us;
            }
            What::SubOk { client, obj, version } => {
                let pair = self.pair_of(*client, obj);
                self.subscribed(number, at_us, pair, *version);
            }
            What::UnsubCall { client, obj } => {
                let pair = self.pair_of(*client, obj);
                self.let_go(number, at_us, pair);
            }
            What::ConnOpen { client, cursor, .. } => {
                let client = self.client(*client);
                self.opened(number, at_us, client, cursor.as_deref());
            }
            What::ConnClose { client } => {
                let client = self.client(*client);
                self.ended(at_us, client);
            }
            What::ResumeOk { client, changed } => {
                let client = self.client(*client);
                for (obj, version) in changed {
                    let object = self.objects.number(obj);
                    self.told(number, at_us, client, object, *version);
                }
                self.resumed(number, at_us, client);
            }
            What::Resync { client, objects, cause } => {
                let at = self.client(*client);
                let pairs = match objects {
                    None => self.clients[at].pairs.clone(),
                    Some(objects) => objects.iter().map(|obj| self.pair_of(*client, obj) as u32).collect(),
                };
                self.resync(number, at_us, at, &pairs, cause);
            }
            _ => {}
        }
    }

    /// Where the client is kept.
    #[inline]
    fn client(&mut self, number: u32) -> usize {
        let next = self.clients.len() as u32;
        let at = *self.client_numbers.entry(number).or_insert(next);
        if at == next {
            self.clients.push(Client {
                number,
                open_number: NO_EVENT,
                ..Client::default()
            });
        }
        at as usize
    }

    fn pair_of(&mut self, client: u32, obj: &crate::history::Object<'_>) -> usize {
        let (client, object) = (self.client(client), self.objects.number(obj));
        self.pair(client, object)
    }

    /// Where the pair is kept.
    #[inline]
    fn pair(&mut self, client: usize, object: u32) -> usize {
        let next = self.pairs.len() as u32;
        let key = (client as u64) << 32 | u64::from(object);
        let at = *self.pair_numbers.entry(key).or_insert(next);
        if at == next {
            self.clients[client].pairs.push(next);
            self.pairs.push(Pair {
                client: client as u32,
                object,
                known: 0,
                resync_us: 0,
                call_us: 0,
                held_us: 0,
                held_number: NO_EVENT,
                told_number: NO_EVENT,
                connection: 0,
                told_version: 0,
                is_answer: false,
                is_held: false,
                has_answer: false,
            });
        }
        at as usize
    }

    /// I2 for one pair: was a cursor handed that claims a version above what the client knows, up to `high`, without
    /// anything that covers it? To be asked before what is known grows, and at the end.
    #[inline]
    fn check_claims(&mut self, number: u32, at_us: u64, pair: usize, high: u64) {
        let pair = &self.pairs[pair];
        let claims = &self.clients[pair.client as usize].claims;
        let highest = claims.highest(pair.held_number).min(high);
        if !pair.is_held || highest <= pair.known {
            return;
        }
        let shard = self.objects.shard(pair.object);
        let client = self.clients[pair.client as usize].number;
        let mut is_violated = false;
        for change in self.changes.uncovered(pair.object, pair.known, highest, pair.resync_us) {
            let (claimed, cursor) = claims.claimed(pair.held_number, change.version, shard);
            let (version, [call, ack]) = (change.version, change.numbers());
            match claimed {
                Claimed::No => continue,
                Claimed::Unknown => {
                    self.found
                        .doubt(Invariant::I2, "a shard lags and the object's shard is unknown", 1);
                    continue;
                }
                Claimed::Yes if !change.is_promised() && self.faults.overlap(change.call_us, at_us) => {
                    self.found.note(
                        Invariant::I2,
                        "a change that nobody was promised was lost during a fault",
                        1,
                    );
                    continue;
                }
                Claimed::Yes => {}
            }
            // One for each pair and delivery says enough.
            if !is_violated {
                is_violated = true;
                let numbers = [pair.held_number, call, ack, cursor, pair.told_number, number];
                self.found.violated(Invariant::I2, &numbers, || {
                    format!("client {client} was handed a cursor that covers version {version} and was not told of it before")
                });
            }
            if pair.has_answer && change.promise_us <= pair.call_us {
                let numbers = [pair.held_number, call, ack, cursor, number];
                self.found.violated(Invariant::I13, &numbers, || {
                    format!("client {client} subscribed after version {version} was acknowledged, and the answer has an older one")
                });
            }
            if !pair.has_answer || change.promise_us <= pair.call_us {
                return;
            }
        }
    }

    fn subscribed(&mut self, number: u32, at_us: u64, at: usize, version: Option<u64>) {
        let pair = &mut self.pairs[at];
        if pair.is_held {
            return;
        }
        pair.is_held = true;
        pair.held_us = at_us;
        pair.held_number = number;
        pair.has_answer = version.is_some();
        // Who is told no version fetches its state now; who is told one may rely on it.
        match version {
            Some(version) => {
                let client = &self.clients[pair.client as usize];
                let is_same_connection = pair.connection == client.connection + 1;
                let here = if is_same_connection { pair.told_version } else { 0 };
                if version != 0 && version < here {
                    let numbers = [pair.told_number, number];
                    self.found.violated(Invariant::I6, &numbers, || {
                        format!(
                            "client {} was told of version {here}, and then {version} is the answer",
                            client.number
                        )
                    });
                }
                pair.known = pair.known.max(version);
                pair.connection = client.connection + 1;
                pair.told_version = version.max(here);
                pair.is_answer = true;
            }
            None => pair.resync_us = at_us,
        }
        if self.rules.lost_copies {
            // The answer cannot know what was lost; who subscribes fetches.
            pair.resync_us = at_us;
        }
        let (object, call_us) = (pair.object, pair.call_us);
        self.coverage.saw(Counter::Subscribes, call_us, at_us);
        if self.changes.newest_promised(object, at_us).is_some() && version.is_some() {
            self.found.checked(Invariant::I13, 1);
        }
        if self.changes.overlaps(object, call_us, at_us) {
            self.found
                .note(Invariant::I13, "subscriptions that raced with a publish", 1);
        }
        if let Some(version) = version {
            let pair = &self.pairs[at];
            self.clients[pair.client as usize].told.add(version);
        }
    }

    /// The client holds the object no longer.
    fn let_go(&mut self, number: u32, at_us: u64, pair: usize) {
        self.check_claims(number, at_us, pair, u64::MAX);
        self.pairs[pair].is_held = false;
    }
}
