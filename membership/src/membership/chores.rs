//! What is looked after ten times a second: joining, missing metadata, doubts, hints, our own metadata.

use super::Membership;
use crate::event::{MonoUs, Output};
use crate::identity::Identity;
use crate::metadata::{Edition, Record};
use crate::note::{MAX_NAMED, Note, Standing, Wanted};
use crate::timers::micros;
use foca::{Member, State, Timer, TimerToken};
use rand::RngExt as _;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use tidings_protocol::NodeId;

/// More seeds than that are not kept.
const MAX_SEEDS: usize = 1_024;
/// So many seeds are asked at once.
const ASK_SEEDS: usize = 3;
/// So many questions may be open.
const MAX_ASKED: usize = 256;
/// An answer that took longer comes too late.
const ASKED_US: u64 = 3_000_000;
/// A walk through all members asks somebody else after so long without an answer, and ends after so many.
const WALK_US: u64 = 400_000;
const WALK_TRIES: u8 = 10;
/// Views are compared only when ours has not changed for so long.
const SETTLED_US: u64 = 2_000_000;
/// One that differs makes us ask for all members at most this often; in large clusters less often.
const COMPARE_US: u64 = 5_000_000;
const COMPARE_EACH_US: u64 = 30_000;
/// Metadata is asked for again after so long.
const WANT_US: u64 = 500_000;
/// A suspect is told again after so long.
const DOUBT_US: u64 = 300_000;
/// A hint about one member is taken this often.
const HINT_US: u64 = 30_000_000;

/// Why a question was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Seed(SocketAddr),
    Walk,
    Record,
    Hint(NodeId),
}

struct Walk {
    after: Option<NodeId>,
    token: u64,
    at: MonoUs,
    tries: u8,
}

struct Want {
    at: MonoUs,
    revision: u64,
    tries: u32,
}

/// What is to be looked after.
pub(super) struct Chores {
    seeds: Vec<SocketAddr>,
    next_seed: usize,
    myself: BTreeSet<SocketAddr>,
    join_at: MonoUs,
    reseed_at: MonoUs,
    asked: BTreeMap<u64, (Asked, MonoUs)>,
    walk: Option<Walk>,
    /// Whose metadata is missing or old.
    wanted: BTreeMap<NodeId, Want>,
    /// Whom we suspect, as what, and when to tell it again.
    doubts: BTreeMap<NodeId, (u16, MonoUs)>,
    /// Whom the gateway cannot reach, and since when we wait for an answer.
    hints: BTreeMap<NodeId, MonoUs>,
    /// What the library's timers carry at present.
    pub(super) token: Option<TimerToken>,
    /// Our metadata changed and was not told yet.
    pub(super) dirty: bool,
    told_at: MonoUs,
    /// Not before this are views compared again.
    compare_at: MonoUs,
    /// Not before this is anybody reminded of the dead.
    pub(super) remind_at: MonoUs,
    pub(super) namesake_at: MonoUs,
    pub(super) conflict_at: MonoUs,
}

impl Chores {
    pub(super) fn new(now: MonoUs, reseed_us: u64) -> Self {
        Self {
            seeds: Vec::new(),
            next_seed: 0,
            myself: BTreeSet::new(),
            join_at: now,
            reseed_at: now + reseed_us,
            asked: BTreeMap::new(),
            walk: None,
            wanted: BTreeMap::new(),
            doubts: BTreeMap::new(),
            hints: BTreeMap::new(),
            token: None,
            dirty: false,
            told_at: now,
            compare_at: now,
            remind_at: now,
            namesake_at: now,
            conflict_at: now,
        }
    }

    pub(super) fn seeds(&mut self, seeds: impl Iterator<Item = SocketAddr>) {
        self.seeds.clear();
        self.seeds.extend(
            seeds
                .filter(|seed| seed.port() != 0 && !seed.ip().is_unspecified())
                .take(MAX_SEEDS),
        );
        self.myself.clear();
        self.join_at = 0;
    }

    /// The question with this token came back to us.
    pub(super) fn is_myself(&mut self, token: u64) {
        if let Some((Asked::Seed(addr), _)) = self.asked.remove(&token) {
            self.myself.insert(addr);
        }
    }

    /// The question that this answers, if it was asked lately. Each is answered once.
    pub(super) fn asked(&mut self, token: u64) -> Option<Asked> {
        self.asked.remove(&token).map(|(asked, _)| asked)
    }

    pub(super) fn walking(&self) -> bool {
        self.walk.is_some()
    }

    pub(super) fn begin_walk(&mut self) {
        self.walk = Some(Walk {
            after: None,
            token: 0,
            at: 0,
            tries: 0,
        });
    }

    /// A member's metadata is missing, or older than this revision.
    pub(super) fn want(&mut self, node: NodeId, at: MonoUs, revision: u64) {
        let want = self.wanted.entry(node).or_insert(Want { at, revision, tries: 0 });
        want.revision = want.revision.max(revision);
    }

    pub(super) fn doubt(&mut self, node: NodeId, refutation: u16, now: MonoUs) {
        self.doubts.insert(node, (refutation, now));
    }
}

impl Membership {
    pub(super) fn chore(&mut self, now: MonoUs, out: &mut Vec<Output>) {
        if self.silent {
            return;
        }
        self.chores.asked.retain(|_, (_, at)| now < *at + ASKED_US);
        self.join(now, out);
        self.walk_on(now, out);
        self.ask_records(now, out);
        self.tell_doubts(now, out);
        self.follow_hints(now, out);
        self.tell_metadata(now);
        self.roster.end_limbo(now, &mut self.events);
    }

    fn ask(&mut self, now: MonoUs, to: SocketAddr, why: Asked, wanted: Wanted, out: &mut Vec<Output>) -> Option<u64> {
        if self.chores.asked.len() >= MAX_ASKED {
            return None;
        }
        let token: u64 = self.rng.random();
        self.chores.asked.insert(token, (why, now));
        let from = self.me();
        self.send_note(to, &Note::Ask { from, token, wanted }, out);
        Some(token)
    }

    /// While nobody is in reach, seeds and the dead are asked; later now and then a seed that is no member.
    fn join(&mut self, now: MonoUs, out: &mut Vec<Output>) {
        let alone = self.foca.num_members() == 0;
        if alone && now >= self.chores.join_at {
            let period = micros(self.config.join_period);
            self.chores.join_at = now + period / 2 + self.rng.random_range(0..=period);
            for _ in 0..ASK_SEEDS {
                self.ask_seed(now, |_| true, out);
            }
            let dead: Vec<_> = self
                .roster
                .iter()
                .filter(|(_, known)| !known.parted())
                .filter_map(|(_, k)| k.identity)
                .collect();
            for _ in 0..ASK_SEEDS.min(dead.len()) {
                let dead = dead[self.rng.random_range(0..dead.len())].addr;
                self.ask(now, dead, Asked::Seed(dead), Wanted::After(None), out);
            }
        } else if !alone && now >= self.chores.reseed_at {
            self.chores.reseed_at = now + micros(self.config.reseed_period);
            let members: BTreeSet<_> = self
                .roster
                .up_after(None)
                .filter_map(|(_, k)| k.identity)
                .map(|id| id.addr)
                .collect();
            self.ask_seed(now, |addr| !members.contains(addr), out);
        }
    }

    fn ask_seed(&mut self, now: MonoUs, fit: impl Fn(&SocketAddr) -> bool, out: &mut Vec<Output>) {
        let Chores {
            seeds,
            next_seed,
            myself,
            ..
        } = &mut self.chores;
        for _ in 0..seeds.len() {
            *next_seed = (*next_seed + 1) % seeds.len();
            let addr = seeds[*next_seed];
            if fit(&addr) && !myself.contains(&addr) {
                self.ask(now, addr, Asked::Seed(addr), Wanted::After(None), out);
                return;
            }
        }
    }

    fn random_member(&mut self) -> Option<Identity> {
        let up = self.roster.up();
        let at = (up > 0).then(|| self.rng.random_range(0..up))?;
        self.roster.up_after(None).nth(at)?.1.identity
    }

    /// Asks for the next page of all members, of somebody else if the last one did not answer.
    fn walk_on(&mut self, now: MonoUs, out: &mut Vec<Output>) {
        let Some(walk) = self
            .chores
            .walk
            .as_mut()
            .filter(|walk| now >= walk.at + WALK_US || walk.at == 0)
        else {
            return;
        };
        walk.tries += 1;
        let (after, tries) = (walk.after, walk.tries);
        match self.random_member().filter(|_| tries <= WALK_TRIES) {
            Some(member) => self.walk_step(now, after, tries, member, out),
            None => self.chores.walk = None,
        }
    }

    /// A member holds others alive than we do. Unless news are under way, whoever has fewer asks the other for all.
    pub(super) fn compare(&mut self, now: MonoUs, with: Identity, theirs: Standing, out: &mut Vec<Output>) {
        let ours = self.standing();
        let settled = now >= self.roster.changed_at + SETTLED_US && !self.chores.walking();
        if theirs.digest == ours.digest || theirs.members < ours.members || !settled || now < self.chores.compare_at {
            return;
        }
        let pause = COMPARE_US.max(COMPARE_EACH_US * u64::from(ours.members));
        self.chores.compare_at = now + pause + self.rng.random_range(0..pause);
        self.walk_step(now, None, 0, with, out);
    }

    fn walk_step(&mut self, now: MonoUs, after: Option<NodeId>, tries: u8, of: Identity, out: &mut Vec<Output>) {
        let token = self
            .ask(now, of.addr, Asked::Walk, Wanted::After(after), out)
            .unwrap_or_default();
        self.chores.walk = Some(Walk {
            after,
            token,
            at: now,
            tries,
        });
    }

    /// A page came: the walk goes on where it ends.
    pub(super) fn turn_page(
        &mut self,
        now: MonoUs,
        token: u64,
        asked: Asked,
        from: Identity,
        next: Option<NodeId>,
        out: &mut Vec<Output>,
    ) {
        if asked == Asked::Walk && self.chores.walk.as_ref().is_some_and(|walk| walk.token == token) {
            match next {
                Some(after) => self.walk_step(now, Some(after), 0, from, out),
                None => self.chores.walk = None,
            }
        }
    }

    /// Asks for missing metadata: first the members themselves, then others.
    fn ask_records(&mut self, now: MonoUs, out: &mut Vec<Output>) {
        let mut due = Vec::new();
        let Self { chores, roster, .. } = self;
        // What came meanwhile is taken off the list when its time has come.
        chores.wanted.retain(|node, want| {
            if now < want.at || due.len() == MAX_NAMED {
                return true;
            }
            let lacks = roster.get(*node).is_some_and(|known| known.lacks(want.revision));
            if lacks {
                due.push((*node, want.tries));
                want.at = now + WANT_US;
                want.tries = want.tries.saturating_add(1);
            }
            lacks
        });
        let mut named = Vec::new();
        for (node, tries) in due {
            let Some(identity) = self.roster.get(node).and_then(|known| known.identity) else {
                continue;
            };
            if tries % 2 == 0 {
                self.ask(now, identity.addr, Asked::Record, Wanted::Named(vec![node]), out);
            } else {
                named.push(node);
            }
        }
        if !named.is_empty()
            && let Some(member) = self.random_member()
        {
            self.ask(now, member.addr, Asked::Record, Wanted::Named(named), out);
        }
    }

    /// Whoever we suspect is told so, again and again until it speaks up or its time is over.
    fn tell_doubts(&mut self, now: MonoUs, out: &mut Vec<Output>) {
        let from = self.me();
        let mut tell = Vec::new();
        let Self { chores, roster, .. } = self;
        chores.doubts.retain(|node, (refutation, at)| {
            let Some(about) = roster
                .get(*node)
                .filter(|known| known.up && known.suspect)
                .and_then(|k| k.identity)
            else {
                return false;
            };
            if now >= *at {
                *at = now + DOUBT_US;
                tell.push((about, *refutation));
            }
            true
        });
        for (about, refutation) in tell {
            self.send_note(
                about.addr,
                &Note::Doubt {
                    from,
                    about,
                    refutation,
                },
                out,
            );
        }
    }

    /// The gateway cannot reach a member: ask it something, and suspect it if it does not answer.
    pub(super) fn look_after(&mut self, now: MonoUs, node: NodeId, out: &mut Vec<Output>) {
        let Some(known) = self.roster.get(node).filter(|known| known.up && !known.suspect) else {
            return;
        };
        let Some(addr) = known.identity.map(|identity| identity.addr) else {
            return;
        };
        if !self.chores.hints.contains_key(&node) {
            self.ask(now, addr, Asked::Hint(node), Wanted::Named(vec![node]), out);
            self.chores.hints.insert(node, now);
        }
    }

    fn follow_hints(&mut self, now: MonoUs, out: &mut Vec<Output>) {
        if self.chores.hints.is_empty() {
            return;
        }
        let patience = micros(self.config.probe_rtt * 2);
        let mut silent = Vec::new();
        let (asked, since) = (&self.chores.asked, &mut self.chores.hints);
        let open: BTreeSet<NodeId> = asked
            .values()
            .filter_map(|(why, _)| match why {
                Asked::Hint(node) => Some(*node),
                Asked::Seed(_) | Asked::Walk | Asked::Record => None,
            })
            .collect();
        since.retain(|node, at| {
            if open.contains(node) && now >= *at + patience && now < *at + 2 * patience {
                silent.push(*node);
            }
            now < *at + HINT_US
        });
        for node in silent {
            self.chores.asked.retain(|_, (why, _)| *why != Asked::Hint(node));
            self.suspect(now, node, out);
        }
    }

    /// Suspects a member as the library does when a probe failed.
    fn suspect(&mut self, now: MonoUs, node: NodeId, out: &mut Vec<Output>) {
        let alive = self
            .foca
            .iter_members()
            .find(|member| member.id().node == node && member.state() == State::Alive);
        let (Some(member), Some(token)) = (alive.cloned(), self.token()) else {
            return;
        };
        let (member_id, incarnation) = (*member.id(), member.incarnation());
        let suspect = Member::new(member_id, incarnation, State::Suspect);
        let taken = self.foca.apply_many(std::iter::once(suspect), true, &mut self.effects);
        self.counters.rejected += u64::from(taken.is_err());
        let after = self.config.swim(self.sized, self.packet_size()).suspect_to_down_after;
        self.effects.timers.push((
            Timer::ChangeSuspectToDown {
                member_id,
                incarnation,
                token,
            },
            after,
        ));
        self.absorb(now, out);
    }

    /// Tells a change of our own metadata, unless the last one was told just now.
    pub(super) fn tell_metadata(&mut self, now: MonoUs) {
        if !self.chores.dirty || now < self.chores.told_at {
            return;
        }
        self.chores.dirty = false;
        self.chores.told_at = now + micros(self.config.metadata_period(self.roster.up()));
        let Edition { incarnation, revision } = self.record.edition;
        let edition = Edition {
            incarnation,
            revision: revision + 1,
        };
        self.record = Record::new(self.me().node, edition, false, &self.metadata);
        self.spread_record();
    }
}
