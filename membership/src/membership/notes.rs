//! What members say to one another beside SWIM: asking for members, doubts, and notices of death.

use super::Membership;
use super::chores::Asked;
use crate::event::{MonoUs, Output};
use crate::identity::Identity;
use crate::metadata::Record;
use crate::note::{Entry, Note, Page, Standing, Wanted};
use crate::seal::{OVERHEAD, Origin};
use foca::{Member, State};
use rand::RngExt as _;
use std::collections::BTreeMap;
use tidings_protocol::NodeId;

/// Room for what stands in a page beside records and entries.
const PAGE_HEAD: usize = 96;
/// What an entry has beside its record, in bytes: an identity of at most 48, state, and lengths.
const ENTRY: usize = 56;
/// We remind somebody of the dead at most this often.
const REMIND_US: u64 = 50_000;
/// Of deaths younger than that nobody is reminded: the rumour is still under way.
const RUMOUR_US: u64 = 500_000;
/// If more than one death explains the difference, all of so much time are named, as many as there is room for.
const LATELY_US: u64 = 60_000_000;
/// So many members are looked at for one page.
const CANDIDATES: usize = 48;

impl Membership {
    pub(super) fn note(&mut self, now: MonoUs, origin: Origin, note: Note, out: &mut Vec<Output>) {
        let from = *note.from();
        if from.node == self.me().node {
            // A seed that turned out to be ourselves is not asked again.
            if let Note::Ask { token, .. } = &note
                && from.same_process(&self.me())
            {
                self.chores.is_myself(*token);
            }
            self.namesake(now, from, true, out);
            return;
        }
        match note {
            // Answered to everybody who has the key: nothing is learned from a question.
            Note::Ask { from, token, wanted } => {
                if self.sender_counts(now, &from, origin, out) {
                    self.answer(&from, token, &wanted, out);
                }
            }
            Note::Page(page) => self.page(now, origin, page, out),
            Note::Doubt {
                from,
                about,
                refutation,
            } => {
                if self.sender_counts(now, &from, origin, out) && about == self.me() {
                    self.refute(now, from, refutation, out);
                }
            }
            // Also from one whom we hold dead: each then learns what the other thinks.
            Note::Dead { from, about, newest } => {
                if self.roster.fresh(&from, origin) {
                    self.held_dead(now, from, about, newest, out);
                } else {
                    self.counters.copies += 1;
                }
            }
            Note::Gone { from, gone } => {
                if self.sender_counts(now, &from, origin, out) {
                    self.gone(now, &from, gone, out);
                }
            }
        }
    }

    fn answer(&mut self, to: &Identity, token: u64, wanted: &Wanted, out: &mut Vec<Output>) {
        let me = self.me();
        let first = match wanted {
            Wanted::After(after) => after.is_none(),
            Wanted::Named(named) => named.contains(&me.node),
        };
        let record = if first { self.record.bytes.to_vec() } else { Vec::new() };
        let mut candidates: Vec<NodeId> = match wanted {
            Wanted::After(after) => {
                let others = self
                    .roster
                    .up_after(*after)
                    .map(|(node, _)| node)
                    .filter(|node| *node != to.node);
                others.take(CANDIDATES).collect()
            }
            Wanted::Named(named) => named.iter().copied().filter(|node| *node != me.node).collect(),
        };
        candidates.sort_unstable();
        let mut members: BTreeMap<NodeId, &Member<Identity>> = BTreeMap::new();
        if !candidates.is_empty() {
            let named = |member: &&Member<Identity>| candidates.binary_search(&member.id().node).is_ok();
            let found = self.foca.iter_members().filter(named);
            members.extend(found.map(|member| (member.id().node, member)));
        }
        let mut room = self
            .config
            .max_datagram
            .saturating_sub(OVERHEAD + PAGE_HEAD + record.len());
        let mut entries = Vec::new();
        let mut cut = false;
        for (node, member) in members {
            let known = self.roster.get(node).and_then(|known| known.record.as_ref());
            let record = known.map(|record| record.bytes.to_vec()).unwrap_or_default();
            let size = record.len() + ENTRY;
            if size > room {
                cut = true;
                break;
            }
            room -= size;
            let member = member.clone();
            entries.push(Entry { member, record });
        }
        let more = cut || candidates.len() == CANDIDATES;
        let next = entries.last().map(|entry| entry.member.id().node);
        let next = next.filter(|_| more && matches!(wanted, Wanted::After(_)));
        let page = Page {
            from: me,
            token,
            record,
            entries,
            next,
        };
        self.send_note(to.addr, &Note::Page(page), out);
    }

    fn page(&mut self, now: MonoUs, origin: Origin, page: Page, out: &mut Vec<Output>) {
        let Some(asked) = self.chores.asked(page.token) else {
            self.counters.copies += 1;
            return;
        };
        if !self.sender_counts(now, &page.from, origin, out) || !self.admit(now, page.from.node, true, out) {
            return;
        }
        let stranger = self.roster.get(page.from.node).is_none_or(|known| !known.up);
        let mut doubtful = Vec::new();
        let mut members = Vec::new();
        let mut records = vec![page.record];
        for entry in page.entries {
            if self.vet(now, &entry.member, &mut doubtful, out) && entry.member.state() != State::Down {
                members.push(entry.member);
            }
            records.push(entry.record);
        }
        if self.silent {
            return;
        }
        // It answered a question of ours, so it is alive.
        members.push(Member::alive(page.from));
        // What a newcomer is told, all others know already.
        let broadcast = self.connected && !self.chores.walking();
        let nodes: Vec<NodeId> = members.iter().map(|member| member.id().node).collect();
        let taken = self.foca.apply_many(members.into_iter(), broadcast, &mut self.effects);
        self.counters.rejected += u64::from(taken.is_err());
        self.absorb(now, out);
        self.settle(now, page.from.node, nodes.into_iter());
        for record in records
            .iter()
            .filter(|record| !record.is_empty())
            .filter_map(|record| Record::read(record))
        {
            // What we asked for because we missed it, the others have.
            self.learn(now, record, broadcast && asked != Asked::Record);
        }
        self.recheck(&doubtful);
        if stranger {
            self.announce(now, page.from, out);
        }
        self.turn_page(now, page.token, asked, page.from, page.next, out);
    }

    /// Somebody counts members that are gone, so a rumour passed it by: it is told of them.
    pub(super) fn remind(&mut self, now: MonoUs, to: Identity, theirs: Standing, out: &mut Vec<Output>) {
        let ours = self.standing();
        let differs = ours.digest ^ theirs.digest;
        if differs == 0 || theirs.members <= ours.members || !self.roster.any_gone() || now < self.chores.remind_at {
            return;
        }
        self.chores.remind_at = now + REMIND_US;
        let (from, to_us) = (now.saturating_sub(LATELY_US), now.saturating_sub(RUMOUR_US));
        let mut missed = self.roster.missed_deaths(differs, from, to_us);
        missed.retain(|(identity, _)| identity.node != to.node);
        let mut room = self.config.max_datagram.saturating_sub(OVERHEAD + PAGE_HEAD);
        let mut gone = Vec::new();
        let start = if missed.is_empty() {
            0
        } else {
            self.rng.random_range(0..missed.len())
        };
        let (later, sooner) = missed.split_at(start);
        for (identity, record) in sooner.iter().chain(later) {
            let record = record.map(|record| record.bytes.to_vec()).unwrap_or_default();
            let size = record.len() + ENTRY;
            if size > room {
                break;
            }
            room -= size;
            gone.push(Entry {
                member: Member::down(*identity),
                record,
            });
        }
        if !gone.is_empty() {
            self.counters.reminders += 1;
            let from = self.me();
            self.send_note(to.addr, &Note::Gone { from, gone }, out);
        }
    }

    /// Somebody holds members dead whom we count: the news passed us by.
    fn gone(&mut self, now: MonoUs, from: &Identity, gone: Vec<Entry>, out: &mut Vec<Output>) {
        // Who is no member here is not believed; of those we never knew, nothing is learned.
        if !self.roster.get(from.node).is_some_and(|known| known.up) {
            return;
        }
        let mut doubtful = Vec::new();
        let mut members = Vec::new();
        for Entry { member, record } in gone {
            let node = member.id().node;
            let up = self.roster.get(node).is_some_and(|known| known.up);
            if !up || node == self.me().node || member.state() != State::Down {
                continue;
            }
            if let Some(record) = Record::read(&record).filter(|record| record.node == node && record.parting) {
                self.learn(now, record, true);
            }
            if self.vet(now, &member, &mut doubtful, out) {
                members.push(member);
            }
        }
        let taken = self.foca.apply_many(members.into_iter(), true, &mut self.effects);
        self.counters.rejected += u64::from(taken.is_err());
        self.absorb(now, out);
        self.recheck(&doubtful);
    }

    /// Somebody suspects us: speak up to all, and to the one who does.
    fn refute(&mut self, now: MonoUs, from: Identity, refutation: u16, out: &mut Vec<Output>) {
        if !self.may_notice(now, from.node) {
            return;
        }
        self.counters.refutations += 1;
        let suspected = Member::new(self.me(), refutation, State::Suspect);
        let taken = self
            .foca
            .apply_many(std::iter::once(suspected), true, &mut self.effects);
        self.counters.rejected += u64::from(taken.is_err());
        self.absorb(now, out);
        if !self.silent {
            self.announce(now, from, out);
        }
    }

    /// Somebody holds us dead, or knows of another process of our node.
    fn held_dead(&mut self, now: MonoUs, from: Identity, about: Identity, newest: Identity, out: &mut Vec<Output>) {
        let me = self.me();
        if about.node != me.node || newest.node != me.node || !about.same_process(&me) {
            self.counters.misdirected += 1;
            return;
        }
        self.namesake(now, newest, false, out);
        if self.silent {
            return;
        }
        if about == self.me() {
            let taken = self
                .foca
                .apply_many(std::iter::once(Member::down(about)), true, &mut self.effects);
            self.counters.rejected += u64::from(taken.is_err());
            self.absorb(now, out);
        }
        if !self.silent && self.may_notice(now, from.node) {
            self.announce(now, from, out);
        }
    }
}
