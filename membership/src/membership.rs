//! The machine: one member's view of the cluster.
//!
//! Everything that reaches the SWIM library goes through here, and everything it wants done comes back as `Effects`, which
//! are carried out before the next input is looked at.

mod arrivals;
mod chores;
mod health;
mod notes;

use crate::config::{Config, ConfigError};
use crate::event::{Counters, Event, Input, MonoUs, Output, Peer};
use crate::identity::{Identity, Incarnation, plain};
use crate::metadata::{Edition, Metadata, Record, Rumours};
use crate::note::{self, Standing};
use crate::roster::{self, Roster};
use crate::seal::{self, KeyRing, Refusal, Seal, Seed};
use crate::timers::{Due, Timers, micros};
use chores::Chores;
use foca::{Foca, Notification, OwnedNotification, PostcardCodec, Timer, TimerToken};
use health::Health;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use std::mem::Discriminant;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU8;
use std::time::Duration;
use tidings_protocol::{ClusterId, NodeId};

/// So many strangers are told apart; beyond that they are only counted.
const STRANGERS: usize = 64;
/// How long the same news about strangers and conflicts is not told again.
const REPEAT_US: u64 = 60_000_000;
/// How often each member hands a record on: some in a hundred members miss it then and ask.
const RECORD_TOLD: NonZeroU8 = match NonZeroU8::new(5) {
    Some(times) => times,
    None => NonZeroU8::MIN,
};
/// To so many members we say good-bye; they tell the others.
const FAREWELLS: u8 = 10;

/// What a member is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How gossip behaves.
    pub config: Config,
    /// The cluster whose members are heard. Nodes that are to form a cluster must agree on it beforehand.
    pub cluster: ClusterId,
    /// Its keys.
    pub keys: KeyRing,
    /// This node.
    pub node: NodeId,
    /// Which start of it: must be larger than at any earlier start.
    pub incarnation: Incarnation,
    /// Where others send our datagrams.
    pub addr: SocketAddr,
    /// What we say of ourselves at first.
    pub metadata: Metadata,
    /// All randomness there is.
    pub seed: Seed,
}

/// One member's view of the cluster.
pub struct Membership {
    config: Config,
    foca: Foca<Identity, PostcardCodec, Xoshiro256PlusPlus, Rumours>,
    effects: Effects,
    timers: Timers,
    seal: Seal,
    rng: Xoshiro256PlusPlus,
    roster: Roster,
    chores: Chores,
    health: Health,
    metadata: Metadata,
    record: Record,
    /// Who was refused why, and until when that is not told again.
    strangers: Vec<(IpAddr, Discriminant<Refusal>, MonoUs)>,
    full_at: MonoUs,
    /// Said good-bye or superseded: nothing is heard or said any more.
    silent: bool,
    connected: bool,
    /// The size the library is configured for.
    sized: usize,
    counters: Counters,
    /// Events of the step under way.
    events: Vec<Event>,
    /// The text of the datagram under way.
    text: Vec<u8>,
}

/// What the library wants done.
#[derive(Default)]
struct Effects {
    sends: Vec<(Identity, Vec<u8>)>,
    timers: Vec<(Timer<Identity>, Duration)>,
    notes: Vec<OwnedNotification<Identity>>,
}

impl foca::Runtime<Identity> for Effects {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        self.notes.push(notification.to_owned());
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers.push((event, after));
    }
}

fn generator(seed: &Seed, purpose: u8, node: NodeId, incarnation: Incarnation) -> Xoshiro256PlusPlus {
    let mut whole = [0; 32];
    for (half, out) in whole.chunks_mut(16).enumerate() {
        out.copy_from_slice(&seed.derive(purpose + u8::from(half == 1), node, incarnation));
    }
    Xoshiro256PlusPlus::from_seed(whole)
}

impl Membership {
    /// A member that knows nobody yet.
    ///
    /// # Errors
    /// If the configuration cannot work, or nobody could send to the address.
    pub fn new(now: MonoUs, setup: Setup) -> Result<Self, ConfigError> {
        let Setup {
            config,
            cluster,
            keys,
            node,
            incarnation,
            addr,
            metadata,
            seed,
        } = setup;
        config.validate()?;
        if addr.ip().is_unspecified() || addr.port() == 0 {
            return Err(ConfigError::Address);
        }
        let me = Identity::new(node, incarnation, addr);
        let swim = config.swim(1, config.max_datagram - seal::OVERHEAD - note::SWIM_HEAD);
        let edition = Edition {
            incarnation,
            revision: 1,
        };
        let rng = generator(&seed, 1, node, incarnation);
        let mut this = Self {
            foca: Foca::with_custom_broadcast(me, swim, rng, PostcardCodec, Rumours),
            effects: Effects::default(),
            timers: Timers::new(now, config.stall, config.probe_rtt),
            seal: Seal::new(cluster, &keys, seed.derive(0, node, incarnation)),
            rng: generator(&seed, 3, node, incarnation),
            roster: Roster::default(),
            chores: Chores::new(now, micros(config.reseed_period)),
            record: Record::new(node, edition, false, &metadata),
            health: Health::default(),
            metadata,
            strangers: Vec::new(),
            full_at: 0,
            silent: false,
            connected: false,
            sized: 1,
            counters: Counters::default(),
            events: Vec::new(),
            text: Vec::new(),
            config,
        };
        this.spread_record();
        Ok(this)
    }

    /// Takes one input. Whatever comes from outside, this does not fail: it is dropped and counted.
    pub fn handle(&mut self, now: MonoUs, input: Input<'_>, out: &mut Vec<Output>) {
        let now = self.observe(now);
        if !self.silent {
            match input {
                Input::Datagram { from, bytes } => self.datagram(now, from, bytes, out),
                Input::Seeds(seeds) => {
                    let mine = self.me().addr;
                    self.chores
                        .seeds(seeds.into_iter().map(plain).filter(|addr| *addr != mine));
                    self.chore(now, out);
                }
                Input::Metadata(metadata) => {
                    if metadata != self.metadata {
                        self.metadata = metadata;
                        self.chores.dirty = true;
                        self.tell_metadata(now);
                    }
                }
                Input::Keys(keys) => self.seal.turn(&keys),
                Input::Unreachable(node) => self.look_after(now, node, out),
                Input::Leave => self.leave(now, out),
            }
        }
        self.finish(out);
    }

    /// When [`Self::handle_deadline`] is due. `None` once nothing is said any more.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoUs> {
        self.timers.next_deadline()
    }

    /// Does what is due.
    ///
    /// The shell should hand in the datagrams that wait at the socket first: they may tell that a suspect lives.
    pub fn handle_deadline(&mut self, now: MonoUs, out: &mut Vec<Output>) {
        let now = self.observe(now);
        while let Some(due) = self.timers.take(now) {
            match due {
                Due::Tick => self.chore(now, out),
                Due::Swim(timer) => match self.doubtful(&timer) {
                    Some(wait) => self.timers.postpone(now + wait, timer),
                    None => self.swim_timer(now, timer, out),
                },
                Due::Postponed(timer) => self.swim_timer(now, timer, out),
            }
        }
        self.finish(out);
    }

    /// Who we are now.
    #[must_use]
    pub fn me(&self) -> Identity {
        *self.foca.identity()
    }

    /// The members that are alive as far as we know, without ourselves, in order of their nodes.
    pub fn members(&self) -> impl Iterator<Item = Peer> {
        self.roster.shown()
    }

    /// One of [`Self::members`].
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<Peer> {
        self.roster.get(node).filter(|known| known.is_shown())?.peer()
    }

    /// How many [`Self::members`] there are.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.roster.iter().filter(|(_, known)| known.is_shown()).count()
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many nodes are remembered, dead ones included: at most `Config::max_members`.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.roster.len()
    }

    fn observe(&mut self, now: MonoUs) -> MonoUs {
        let (now, stalled) = self.timers.observe(now);
        self.counters.stalls += u64::from(stalled);
        now
    }

    fn finish(&mut self, out: &mut Vec<Output>) {
        out.extend(self.events.drain(..).map(Output::Event));
    }

    fn send(&mut self, to: SocketAddr, pieces: [&[u8]; 2], out: &mut Vec<Output>) {
        let datagram = self.seal.seal(pieces);
        self.counters.sent += 1;
        self.counters.sent_bytes += datagram.len() as u64;
        out.push(Output::Send { to, datagram });
    }

    fn send_note(&mut self, to: SocketAddr, note: &note::Note, out: &mut Vec<Output>) {
        self.send(to, [&note.write(), &[]], out);
    }

    /// How long a verdict of death is put off, if it is: when most of our own probes fail, we are more likely deaf than
    /// all others dead, and our word would count. With one other member only there is nobody to mislead.
    fn doubtful(&self, timer: &Timer<Identity>) -> Option<u64> {
        let verdict = matches!(timer, Timer::ChangeSuspectToDown { .. });
        let factor = self
            .health
            .factor()
            .filter(|_| verdict && self.foca.num_members() > 1)?;
        let swim = self.config.swim(self.sized, self.packet_size());
        Some(micros(swim.suspect_to_down_after).saturating_mul(factor))
    }

    fn swim_timer(&mut self, now: MonoUs, timer: Timer<Identity>, out: &mut Vec<Output>) {
        let forgotten = match &timer {
            Timer::RemoveDown(identity) => Some(*identity),
            Timer::ProbeRandomMember(_)
            | Timer::SendIndirectProbe { .. }
            | Timer::ChangeSuspectToDown { .. }
            | Timer::PeriodicAnnounce(_)
            | Timer::PeriodicAnnounceDown(_)
            | Timer::PeriodicGossip(_) => None,
        };
        let done = self.foca.handle_timer(timer, &mut self.effects);
        self.counters.rejected += u64::from(done.is_err());
        self.absorb(now, out);
        if let Some(identity) = forgotten
            && self
                .roster
                .get(identity.node)
                .is_some_and(|known| !known.up && known.identity == Some(identity))
        {
            self.roster.forget(identity.node);
        }
    }

    /// Carries out what the library wants done.
    fn absorb(&mut self, now: MonoUs, out: &mut Vec<Output>) {
        for note in std::mem::take(&mut self.effects.notes) {
            self.notified(now, &note);
        }
        let mut failed = None;
        for (timer, after) in std::mem::take(&mut self.effects.timers) {
            match &timer {
                Timer::ProbeRandomMember(token) => {
                    self.chores.token = Some(*token);
                    self.health.probed(failed.is_some());
                }
                Timer::ChangeSuspectToDown {
                    member_id, incarnation, ..
                } => {
                    self.counters.suspicions += 1;
                    failed = Some((*member_id, *incarnation));
                }
                Timer::SendIndirectProbe { .. }
                | Timer::PeriodicAnnounce(_)
                | Timer::PeriodicAnnounceDown(_)
                | Timer::PeriodicGossip(_)
                | Timer::RemoveDown(_) => {}
            }
            self.timers.schedule(now + micros(after), timer);
        }
        if let Some((suspect, refutation)) = failed {
            self.recheck(&[suspect.node]);
            let known = self.roster.get(suspect.node);
            if known.is_some_and(|known| known.suspect && known.identity == Some(suspect)) {
                self.chores.doubt(suspect.node, refutation, now);
            }
        }
        let head = note::swim_head(self.standing());
        for (to, packet) in std::mem::take(&mut self.effects.sends) {
            // The library looks for its dead now and then; who said good-bye need not be looked for.
            if self
                .roster
                .get(to.node)
                .is_some_and(|known| known.parted() && known.identity == Some(to))
            {
                continue;
            }
            self.send(to.addr, [&head, &packet], out);
        }
        self.resize();
    }

    fn notified(&mut self, now: MonoUs, note: &OwnedNotification<Identity>) {
        match note {
            OwnedNotification::MemberUp(id) => self.verdict(now, id, Some(true)),
            OwnedNotification::MemberDown(id) => self.verdict(now, id, Some(false)),
            OwnedNotification::Rename(_, id) => self.verdict(now, id, None),
            OwnedNotification::Active => {
                if !self.connected {
                    self.connected = true;
                    self.events.push(Event::Connected);
                    self.chores.begin_walk();
                }
            }
            OwnedNotification::Idle => self.alone(),
            OwnedNotification::Rejoin(id) => self.events.push(Event::Revived { times: id.revival }),
            OwnedNotification::Defunct => {
                self.alone();
                self.fall_silent();
            }
        }
    }

    fn alone(&mut self) {
        if self.connected {
            self.connected = false;
            self.events.push(Event::Alone);
        }
    }

    fn verdict(&mut self, now: MonoUs, id: &Identity, up: Option<bool>) {
        if let Some(first) = self.roster.sharer(id).filter(|_| up == Some(true)) {
            self.name_shared(now, first, id);
        }
        self.roster.verdict(now, id, up);
        self.roster.review(id.node, now, &mut self.events);
        if self.roster.get(id.node).is_some_and(|known| known.lacks(0)) {
            // In a large cluster the rumour is given time to bring it: a newcomer is not asked by everybody at once.
            let wait = if self.roster.up() < 16 {
                0
            } else {
                self.rng.random_range(200_000..1_200_000)
            };
            self.chores.want(id.node, now + wait, 0);
        }
    }

    /// Tells the library how large the cluster is.
    fn resize(&mut self) {
        let size = self.foca.num_members() + 1;
        if size != self.sized {
            self.sized = size;
            let same = self.foca.set_config(self.config.swim(size, self.packet_size()));
            self.counters.rejected += u64::from(same.is_err());
        }
    }

    /// The largest packet of the library, in bytes.
    fn packet_size(&self) -> usize {
        self.config.max_datagram - seal::OVERHEAD - note::SWIM_HEAD
    }

    /// What we say of ourselves with each packet.
    fn standing(&self) -> Standing {
        Standing {
            revision: self.record.edition.revision,
            members: u32::try_from(self.roster.up() + 1).unwrap_or(u32::MAX),
            digest: self.roster.digest() ^ roster::mark(self.foca.identity()),
        }
    }

    fn spread_record(&mut self) {
        let (bytes, parting) = (self.record.bytes.clone(), self.record.parting);
        self.hand_on(&bytes, parting);
    }

    /// Hands a record on. Who misses metadata asks for it, so it is told fewer times than news of life and death; nobody
    /// is left to ask for a good-bye.
    fn hand_on(&mut self, record: &[u8], parting: bool) {
        let swim = self.config.swim(self.sized, self.packet_size());
        let fewer = foca::Config {
            max_transmissions: if parting { swim.max_transmissions } else { RECORD_TOLD },
            ..swim.clone()
        };
        let taken = self
            .foca
            .set_config(fewer)
            .and_then(|()| self.foca.add_broadcast(record))
            .and_then(|_| self.foca.set_config(swim));
        self.counters.rejected += u64::from(taken.is_err());
    }

    fn leave(&mut self, now: MonoUs, out: &mut Vec<Output>) {
        // That we are alone then is no news.
        self.connected = false;
        let edition = Edition {
            revision: self.record.edition.revision + 1,
            ..self.record.edition
        };
        self.record = Record::new(self.me().node, edition, true, &self.metadata);
        self.spread_record();
        // The good-bye goes out once, to some: to more than hear of other news.
        let all = Config {
            indirect_probes: self.config.indirect_probes.max(FAREWELLS),
            ..self.config.clone()
        };
        let left = self
            .foca
            .set_config(all.swim(self.sized, self.packet_size()))
            .and_then(|()| self.foca.leave_cluster(&mut self.effects));
        self.counters.rejected += u64::from(left.is_err());
        self.absorb(now, out);
        self.fall_silent();
    }

    fn fall_silent(&mut self) {
        self.silent = true;
        self.timers.clear();
    }

    /// The number that the library's timers carry at present.
    fn token(&self) -> Option<TimerToken> {
        self.chores.token
    }
}
