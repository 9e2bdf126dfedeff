//! Datagrams that come: opened, read, and only what may be true let through to the library.
//!
//! Liveness is credited to the sender of a sealed datagram. Who holds the key may still lie: the key is the boundary of trust.

use super::{Membership, REPEAT_US, STRANGERS};
use crate::event::{Conflict, Event, MonoUs, Output};
use crate::identity::Identity;
use crate::metadata::Record;
use crate::note::{self, Note, Opened, Packet, Standing};
use crate::roster::Known;
use crate::seal::{Origin, Refusal};
use foca::{Member, Message, State, Timer};
use std::net::SocketAddr;
use tidings_protocol::NodeId;

/// A member is told that it is held dead, or outdated, at most this often.
const NOTICE_US: u64 = 500_000;

impl Membership {
    pub(super) fn datagram(&mut self, now: MonoUs, from: SocketAddr, bytes: &[u8], out: &mut Vec<Output>) {
        self.counters.received += 1;
        self.counters.received_bytes += bytes.len() as u64;
        if bytes.len() > self.config.max_datagram {
            self.refuse(now, from, Refusal::Oversized);
            return;
        }
        let mut text = std::mem::take(&mut self.text);
        match self.seal.open(bytes, &mut text) {
            Err(why) => self.refuse(now, from, why),
            Ok(origin) => match note::read(&text) {
                None => self.refuse(now, from, Refusal::Malformed),
                Some(Opened::Swim { standing, packet }) => self.packet(now, origin, standing, packet, out),
                Some(Opened::Note(note)) => self.note(now, origin, note, out),
            },
        }
        self.text = text;
    }

    fn refuse(&mut self, now: MonoUs, from: SocketAddr, why: Refusal) {
        let counter = match why {
            Refusal::Garbage => &mut self.counters.garbage,
            Refusal::Oversized => &mut self.counters.oversized,
            Refusal::OtherCluster(_) => &mut self.counters.other_cluster,
            Refusal::UnknownKey(_) => &mut self.counters.unknown_key,
            Refusal::Unsealed => &mut self.counters.unsealed,
            Refusal::Malformed => &mut self.counters.malformed,
        };
        *counter += 1;
        let reason = std::mem::discriminant(&why);
        self.strangers.retain(|(_, _, until)| now < *until);
        let told = self
            .strangers
            .iter()
            .any(|(ip, same, _)| *ip == from.ip() && *same == reason);
        if !told && self.strangers.len() < STRANGERS {
            self.strangers.push((from.ip(), reason, now + REPEAT_US));
            self.events.push(Event::Refused { from, why });
        }
    }

    fn packet(
        &mut self,
        now: MonoUs,
        origin: Origin,
        standing: Standing,
        mut packet: Packet<'_>,
        out: &mut Vec<Output>,
    ) {
        let (src, dst) = (packet.header.src, packet.header.dst);
        let me = self.me();
        if src.node == me.node {
            self.namesake(now, src, true, out);
            return;
        }
        let announced = packet.header.message == Message::Announce && dst.node == me.node;
        if dst != me && !announced {
            self.counters.misdirected += 1;
            // Sent to what we were before: who knows us as that is told what we are now.
            if dst.node == me.node && self.sender_counts(now, &src, origin, out) && self.may_notice(now, src.node) {
                self.announce(now, src, out);
            }
            return;
        }
        if !self.sender_counts(now, &src, origin, out) || !self.admit(now, src.node, true, out) {
            return;
        }
        if !self.knows_third(&packet) {
            self.counters.malformed += 1;
            return;
        }
        let mut doubtful = self
            .roster
            .suspects
            .contains(&src.node)
            .then_some(src.node)
            .into_iter()
            .collect();
        let members = packet.updates.iter().map(|(member, _)| member);
        let keep: Vec<bool> = members
            .map(|member| self.vet(now, member, &mut doubtful, out))
            .collect();
        if self.silent {
            return;
        }
        let mut bytes = Vec::new();
        packet.write(&keep, &mut bytes);
        // A good-bye is told before the death that follows from it.
        let (known, unknown) = packet
            .records
            .drain(..)
            .partition(|record| self.roster.contains(record.node));
        self.learn_all(now, known);
        let taken = self.foca.handle_data(&bytes, &mut self.effects);
        self.counters.rejected += u64::from(taken.is_err());
        self.absorb(now, out);
        self.settle(now, src.node, packet.updates.iter().map(|(member, _)| member.id().node));
        self.learn_all(now, unknown);
        let lacks = |known: &Known| known.lacks(standing.revision);
        if self.roster.get(src.node).is_some_and(lacks) {
            self.chores.want(src.node, now, standing.revision);
        }
        self.compare(now, src, standing, out);
        self.remind(now, src, standing, out);
        self.recheck(&doubtful);
    }

    /// Whether what this sender says counts: it is no past of a member, no copy, and nobody whom we hold dead.
    pub(super) fn sender_counts(&mut self, now: MonoUs, src: &Identity, origin: Origin, out: &mut Vec<Output>) -> bool {
        if let Some(newest) = self.roster.get(src.node).and_then(|known| known.identity)
            && newest.replaces(src)
        {
            self.counters.outdated += 1;
            // Late datagrams of the same process need no answer.
            if !newest.same_process(src) || self.roster.is_other_process(src.node, origin) {
                self.outdated(now, src, newest, out);
            }
            return false;
        }
        if !self.roster.fresh(src, origin) {
            self.counters.copies += 1;
            return false;
        }
        let Some(known) = self.roster.get(src.node) else {
            return true;
        };
        if known.up || known.identity != Some(*src) {
            return true;
        }
        if !known.parted() && self.may_notice(now, src.node) {
            self.notice_of_death(src, *src, out);
        }
        false
    }

    fn outdated(&mut self, now: MonoUs, src: &Identity, newest: Identity, out: &mut Vec<Output>) {
        if self.may_notice(now, src.node) {
            self.notice_of_death(src, newest, out);
        }
        if newest.addr != src.addr {
            self.name_namesakes(now, newest, *src);
        }
    }

    fn notice_of_death(&mut self, about: &Identity, newest: Identity, out: &mut Vec<Output>) {
        self.counters.death_notices += 1;
        let from = self.me();
        self.send_note(
            about.addr,
            &Note::Dead {
                from,
                about: *about,
                newest,
            },
            out,
        );
    }

    fn name_namesakes(&mut self, now: MonoUs, counts: Identity, other: Identity) {
        if let Some(known) = self.roster.get_mut(counts.node) {
            if now < known.conflict_at {
                return;
            }
            known.conflict_at = now + REPEAT_US;
        }
        self.events
            .push(Event::Conflict(Conflict::TwoProcesses { counts, other }));
    }

    pub(super) fn name_shared(&mut self, now: MonoUs, first: NodeId, second: &Identity) {
        let Some(known) = self
            .roster
            .get_mut(second.node)
            .filter(|known| now >= known.conflict_at)
        else {
            return;
        };
        known.conflict_at = now + REPEAT_US;
        self.events.push(Event::Conflict(Conflict::SharedAddress {
            addr: second.addr,
            first,
            second: second.node,
        }));
    }

    pub(super) fn may_notice(&mut self, now: MonoUs, node: NodeId) -> bool {
        let Some(known) = self.roster.get_mut(node) else {
            return true;
        };
        let may = now >= known.notice_at;
        if may {
            known.notice_at = now + NOTICE_US;
        }
        may
    }

    /// Somebody else runs as our node, or did.
    pub(super) fn namesake(&mut self, now: MonoUs, other: Identity, heard: bool, out: &mut Vec<Output>) {
        let me = self.me();
        if other.same_process(&me) {
            if other.revival > me.revival {
                // Our own past came back more often than we did: this start kept the number of the last one.
                let revival = other.revival.saturating_add(1);
                let taken = self.foca.change_identity(Identity { revival, ..me }, &mut self.effects);
                self.counters.rejected += u64::from(taken.is_err());
                self.absorb(now, out);
            }
        } else if other.process() > me.process() {
            self.alone();
            self.events.push(Event::Superseded { by: other });
            self.fall_silent();
        } else if heard && other.addr != me.addr && now >= self.chores.namesake_at {
            // From our own address it would be our own past, delayed or repeated by somebody.
            self.chores.namesake_at = now + NOTICE_US;
            self.notice_of_death(&other, me, out);
            if now >= self.chores.conflict_at {
                self.chores.conflict_at = now + REPEAT_US;
                self.name_namesakes(now, me, other);
            }
        }
    }

    /// Makes room for a node. A member that is only talked of pushes nobody out.
    pub(super) fn admit(&mut self, now: MonoUs, node: NodeId, heard: bool, out: &mut Vec<Output>) -> bool {
        if self.roster.contains(node) {
            return true;
        }
        if self.roster.len() >= self.config.max_members {
            let Some(gone) = self.roster.dispensable().filter(|_| heard) else {
                self.counters.refused_members += 1;
                if now >= self.full_at {
                    self.full_at = now + REPEAT_US;
                    self.events.push(Event::Full { node });
                }
                return false;
            };
            self.swim_timer(now, Timer::RemoveDown(gone), out);
        }
        self.roster.admit(node);
        true
    }

    /// Whether those whom this packet makes us send to are known to be where it says.
    fn knows_third(&self, packet: &Packet<'_>) -> bool {
        packet.third().is_none_or(|third| {
            let known = self.roster.get(third.node).and_then(|known| known.identity);
            *third == self.me() || known.is_some_and(|known| known.addr == third.addr)
        })
    }

    /// Whether the library may hear this about a member. Notes whose suspicion may change by it.
    pub(super) fn vet(
        &mut self,
        now: MonoUs,
        member: &Member<Identity>,
        doubtful: &mut Vec<NodeId>,
        out: &mut Vec<Output>,
    ) -> bool {
        let (id, me) = (*member.id(), self.me());
        if id == me {
            self.counters.refutations += u64::from(member.state() == State::Suspect);
            return true;
        }
        if id.node == me.node {
            self.namesake(now, id, false, out);
            return false;
        }
        if member.state() == State::Suspect || self.roster.suspects.contains(&id.node) {
            doubtful.push(id.node);
        }
        // That somebody is dead of whom we never heard is worth remembering only while there is room.
        let spare = member.state() != State::Down || self.roster.len() < self.config.max_members / 2;
        !self.silent && (self.roster.contains(id.node) || spare) && self.admit(now, id.node, false, out)
    }

    /// Takes those out again that the library did not take in.
    pub(super) fn settle(&mut self, now: MonoUs, src: NodeId, others: impl Iterator<Item = NodeId>) {
        for node in std::iter::once(src).chain(others) {
            let unknown = self.roster.get(node).is_some_and(|known| known.identity.is_none());
            if unknown {
                let found = self
                    .foca
                    .iter_membership_state()
                    .find(|member| member.id().node == node);
                match found.map(|member| (*member.id(), member.state() != State::Down)) {
                    Some((id, up)) => self.roster.verdict(now, &id, Some(up)),
                    None => self.roster.forget(node),
                }
            }
        }
    }

    /// Asks the library what it holds of those.
    pub(super) fn recheck(&mut self, doubtful: &[NodeId]) {
        for node in doubtful {
            let found = self
                .foca
                .iter_membership_state()
                .find(|member| member.id().node == *node);
            let suspect = found.is_some_and(|member| member.state() == State::Suspect);
            self.roster.suspect(*node, suspect, &mut self.events);
        }
    }

    fn learn_all(&mut self, now: MonoUs, records: Vec<Record>) {
        for record in records {
            self.learn(now, record, true);
        }
    }

    /// Keeps a record that is news, and hands it on if others may not have it either.
    pub(super) fn learn(&mut self, now: MonoUs, record: Record, spread: bool) {
        let node = record.node;
        if node == self.me().node {
            return;
        }
        let was_parted = self.roster.get(node).is_none_or(Known::parted);
        let (bytes, parting) = (record.bytes.clone(), record.parting);
        if self.roster.learn(record) {
            if spread {
                self.hand_on(&bytes, parting);
            }
            self.roster.review(node, now, &mut self.events);
            if !was_parted {
                self.roster.belated(node, &mut self.events);
            }
        }
    }

    pub(super) fn announce(&mut self, now: MonoUs, to: Identity, out: &mut Vec<Output>) {
        let sent = self.foca.announce(to, &mut self.effects);
        self.counters.rejected += u64::from(sent.is_err());
        self.absorb(now, out);
    }
}
