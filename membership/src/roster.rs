//! Who is known here, and what the gateway was told of each.
//!
//! The SWIM library says who is up; records say what each is. A member is shown once both are known, so that `Joined`
//! always comes with addresses, and what was never shown never goes down.
//!
//! It does not know the network or the library.

use crate::event::{Event, MonoUs, Peer};
use crate::identity::{Identity, Incarnation};
use crate::metadata::Record;
use crate::seal::{Origin, Window};
use siphasher::sip::SipHasher13;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;
use std::net::SocketAddr;
use tidings_protocol::NodeId;

/// A restart whose metadata does not come is told as `Down` after so long.
const LIMBO_US: u64 = 2_000_000;

/// What is known of one node.
pub(crate) struct Known {
    /// The newest identity the library told of; `None` until it does.
    pub(crate) identity: Option<Identity>,
    pub(crate) up: bool,
    pub(crate) suspect: bool,
    /// When it came or went last.
    turned_at: MonoUs,
    pub(crate) record: Option<Record>,
    window: Option<Window>,
    /// As what it was last shown to the gateway.
    shown: Option<(Incarnation, u64)>,
    /// When a restart without metadata is given up.
    limbo_at: Option<MonoUs>,
    /// Not before this are they told again that they are dead, or outdated.
    pub(crate) notice_at: MonoUs,
    /// Not before this is a conflict about it named again.
    pub(crate) conflict_at: MonoUs,
}

impl Known {
    fn new() -> Self {
        Self {
            identity: None,
            up: false,
            suspect: false,
            turned_at: 0,
            record: None,
            window: None,
            shown: None,
            limbo_at: None,
            notice_at: 0,
            conflict_at: 0,
        }
    }

    /// Its record, if it is of the start that runs.
    fn current(&self) -> Option<(&Identity, &Record)> {
        let identity = self.identity.as_ref()?;
        let record = self.record.as_ref()?;
        (record.edition.incarnation == identity.incarnation).then_some((identity, record))
    }

    /// Whether it said good-bye.
    pub(crate) fn parted(&self) -> bool {
        !self.up && self.current().is_some_and(|(_, record)| record.parting)
    }

    /// Whether its metadata is missing, or known to be old.
    pub(crate) fn lacks(&self, revision: u64) -> bool {
        self.up
            && self
                .current()
                .is_none_or(|(_, record)| record.edition.revision < revision)
    }

    /// Whether the gateway was told of it and not yet of its end.
    pub(crate) fn is_shown(&self) -> bool {
        self.shown.is_some()
    }

    pub(crate) fn peer(&self) -> Option<Peer> {
        let (identity, record) = self.current()?;
        Some(Peer {
            node: identity.node,
            incarnation: identity.incarnation,
            gossip_addr: identity.addr,
            metadata: record.metadata.clone(),
        })
    }
}

#[derive(Default)]
pub(crate) struct Roster {
    known: BTreeMap<NodeId, Known>,
    /// Those who are suspect, so that nobody else need be looked at.
    pub(crate) suspects: BTreeSet<NodeId>,
    /// Who uses which address.
    addrs: BTreeMap<SocketAddr, NodeId>,
    limbo: BTreeSet<NodeId>,
    up: usize,
    digest: u32,
    /// When somebody came or went last.
    pub(crate) changed_at: MonoUs,
}

/// Stands for a member in a digest.
pub(crate) fn mark(identity: &Identity) -> u32 {
    let mut hasher = SipHasher13::new();
    hasher.write_u64(identity.node.0);
    hasher.write_u64(identity.incarnation.0);
    hasher.write_u16(identity.revival);
    // Any half of the hash will do.
    (hasher.finish() >> 32) as u32
}

impl Roster {
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn up(&self) -> usize {
        self.up
    }

    /// Differs, as good as surely, if others are up, or others of the same nodes.
    pub(crate) fn digest(&self) -> u32 {
        self.digest
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Known> {
        self.known.get(&node)
    }

    pub(crate) fn get_mut(&mut self, node: NodeId) -> Option<&mut Known> {
        self.known.get_mut(&node)
    }

    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.known.contains_key(&node)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Known)> {
        self.known.iter().map(|(node, known)| (*node, known))
    }

    /// Those who are up, after the given one.
    pub(crate) fn up_after(&self, after: Option<NodeId>) -> impl Iterator<Item = (NodeId, &Known)> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let range = self.known.range((from, std::ops::Bound::Unbounded));
        range.map(|(node, known)| (*node, known)).filter(|(_, known)| known.up)
    }

    /// Those shown to the gateway, in order.
    pub(crate) fn shown(&self) -> impl Iterator<Item = Peer> {
        self.known
            .values()
            .filter(|known| known.shown.is_some())
            .filter_map(Known::peer)
    }

    pub(crate) fn admit(&mut self, node: NodeId) {
        self.known.entry(node).or_insert_with(Known::new);
    }

    /// The member whose place a newcomer may take: one that is not up, first of all one that left.
    pub(crate) fn dispensable(&self) -> Option<Identity> {
        let gone = || self.known.values().filter(|known| !known.up);
        gone().find(|known| known.parted()).or_else(|| gone().next())?.identity
    }

    pub(crate) fn forget(&mut self, node: NodeId) {
        if let Some(Known {
            identity: Some(identity),
            ..
        }) = self.known.remove(&node)
            && self.addrs.get(&identity.addr) == Some(&node)
        {
            self.addrs.remove(&identity.addr);
        }
        self.suspects.remove(&node);
        self.limbo.remove(&node);
    }

    /// Whether the library's member has an address that another one up uses too.
    pub(crate) fn sharer(&self, identity: &Identity) -> Option<NodeId> {
        let other = self.addrs.get(&identity.addr)?;
        (*other != identity.node && self.known.get(other).is_some_and(|known| known.up)).then_some(*other)
    }

    /// Those held dead of whom somebody whose digest differs from ours by this may not know: the one whose absence explains
    /// all of it, or else whoever went between the two times.
    pub(crate) fn missed_deaths(&self, differs: u32, from: MonoUs, to: MonoUs) -> Vec<(Identity, Option<&Record>)> {
        let mut late = Vec::new();
        for known in self.known.values().filter(|known| !known.up && known.turned_at <= to) {
            let Some(identity) = known.identity else {
                continue;
            };
            let record = known.record.as_ref().filter(|_| known.parted());
            if mark(&identity) == differs {
                return vec![(identity, record)];
            }
            if known.turned_at >= from {
                late.push((identity, record));
            }
        }
        late
    }

    /// Whether anybody is remembered who is not up.
    pub(crate) fn any_gone(&self) -> bool {
        self.known.len() > self.up
    }

    /// The library goes by this identity for the node, and holds it alive or not.
    pub(crate) fn verdict(&mut self, now: MonoUs, identity: &Identity, up: Option<bool>) {
        self.changed_at = now;
        let known = self.known.entry(identity.node).or_insert_with(Known::new);
        known.turned_at = now;
        let before = known.identity.replace(*identity);
        let was_up = known.up;
        if let Some(before) = before.filter(|_| was_up) {
            self.digest ^= mark(&before);
        }
        if before.is_some_and(|before| !before.same_process(identity)) {
            known.suspect = false;
            self.suspects.remove(&identity.node);
        }
        known.up = up.unwrap_or(was_up);
        self.up = self.up + usize::from(known.up) - usize::from(was_up);
        if known.up {
            self.digest ^= mark(identity);
        }
        if let Some(before) = before.filter(|before| before.addr != identity.addr)
            && self.addrs.get(&before.addr) == Some(&identity.node)
        {
            self.addrs.remove(&before.addr);
        }
        if known.up && self.sharer(identity).is_none() {
            self.addrs.insert(identity.addr, identity.node);
        }
    }

    /// Whether this datagram of a known node is new. Of unknown ones nothing is remembered.
    pub(crate) fn fresh(&mut self, sender: &Identity, origin: Origin) -> bool {
        let Some(known) = self.known.get_mut(&sender.node) else {
            return true;
        };
        match &mut known.window {
            Some(window) => window.admit(origin),
            None => {
                known.window = Some(Window::open(origin));
                true
            }
        }
    }

    /// Whether a datagram comes from another process of the node than those before.
    pub(crate) fn is_other_process(&self, node: NodeId, origin: Origin) -> bool {
        let window = self.known.get(&node).and_then(|known| known.window.as_ref());
        window.is_some_and(|window| !window.is_of(origin))
    }

    /// Keeps a record if it is newer than what is known. Says whether it is.
    pub(crate) fn learn(&mut self, record: Record) -> bool {
        let Some(known) = self.known.get_mut(&record.node) else {
            return false;
        };
        if known.record.as_ref().is_some_and(|old| old.edition >= record.edition) {
            return false;
        }
        known.record = Some(record);
        true
    }

    /// Tells the gateway what changed about a node since it was last told.
    pub(crate) fn review(&mut self, node: NodeId, now: MonoUs, events: &mut Vec<Event>) {
        let Some(known) = self.known.get_mut(&node) else {
            return;
        };
        let Some(identity) = known.identity else {
            return;
        };
        if !known.up {
            known.limbo_at = None;
            self.limbo.remove(&node);
            known.suspect = false;
            self.suspects.remove(&node);
            if let Some((incarnation, _)) = known.shown.take() {
                let left = known.current().is_some_and(|(_, record)| record.parting);
                events.push(match left {
                    true => Event::Left { node, incarnation },
                    false => Event::Down { node, incarnation },
                });
            }
            return;
        }
        let Some(peer) = known.peer() else {
            if known.shown.is_some_and(|(shown, _)| shown != identity.incarnation) && known.limbo_at.is_none() {
                known.limbo_at = Some(now + LIMBO_US);
                self.limbo.insert(node);
            }
            return;
        };
        known.limbo_at = None;
        self.limbo.remove(&node);
        let revision = known.record.as_ref().map_or(0, |record| record.edition.revision);
        let parting = known.record.as_ref().is_some_and(|record| record.parting);
        match known.shown.replace((peer.incarnation, revision)) {
            None => events.push(Event::Joined(peer)),
            Some((before, _)) if before != peer.incarnation => events.push(Event::Restarted { peer, before }),
            Some((_, told)) if told != revision && !parting => events.push(Event::Changed(peer)),
            Some(_) => {}
        }
    }

    /// A good-bye that came after the news of death.
    pub(crate) fn belated(&self, node: NodeId, events: &mut Vec<Event>) {
        if let Some(known) = self.known.get(&node).filter(|known| known.parted())
            && let Some(identity) = known.identity
        {
            let incarnation = identity.incarnation;
            events.push(Event::Left { node, incarnation });
        }
    }

    /// The library holds the node suspect, or not any more.
    pub(crate) fn suspect(&mut self, node: NodeId, suspect: bool, events: &mut Vec<Event>) {
        let Some(known) = self.known.get_mut(&node) else {
            return;
        };
        let suspect = suspect && known.up;
        if known.suspect == suspect {
            return;
        }
        known.suspect = suspect;
        if suspect {
            self.suspects.insert(node);
        } else {
            self.suspects.remove(&node);
        }
        if let Some((incarnation, _)) = known.shown.filter(|_| known.up) {
            events.push(match suspect {
                true => Event::Suspected { node, incarnation },
                false => Event::Refuted { node, incarnation },
            });
        }
    }

    /// Tells of restarts whose metadata did not come that the earlier start is gone.
    pub(crate) fn end_limbo(&mut self, now: MonoUs, events: &mut Vec<Event>) {
        let known = &mut self.known;
        self.limbo.retain(|node| {
            let Some(known) = known.get_mut(node) else {
                return false;
            };
            if known.limbo_at.is_some_and(|at| at > now) {
                return true;
            }
            known.limbo_at = None;
            if let Some((incarnation, _)) = known.shown.take() {
                events.push(Event::Down {
                    node: *node,
                    incarnation,
                });
            }
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Edition, Metadata};

    fn record(incarnation: u64, revision: u64) -> Record {
        let incarnation = Incarnation(incarnation);
        let edition = Edition { incarnation, revision };
        Record::new(NodeId(1), edition, false, &Metadata::default())
    }

    #[test]
    fn the_newest_record_stays_whatever_comes_later() {
        let mut roster = Roster::default();
        assert!(!roster.learn(record(1, 1)), "of unknown nodes nothing is kept");
        roster.admit(NodeId(1));
        assert!(roster.learn(record(1, 5)));
        assert!(!roster.learn(record(1, 5)) && !roster.learn(record(1, 4)));
        assert!(roster.learn(record(2, 1)), "a later start begins anew");
        assert!(!roster.learn(record(1, 9)));
    }

    #[test]
    fn the_digest_tells_who_is_up_and_as_what() {
        let identity = |node, start| Identity::new(NodeId(node), Incarnation(start), "10.0.0.1:1".parse().unwrap());
        let digest = |verdicts: &[(Identity, bool)]| {
            let mut roster = Roster::default();
            for (identity, up) in verdicts {
                roster.verdict(0, identity, Some(*up));
            }
            (roster.up(), roster.digest())
        };
        let both = digest(&[(identity(1, 1), true), (identity(2, 1), true)]);
        assert_eq!(digest(&[(identity(2, 1), true), (identity(1, 1), true)]), both);
        let after_restart = [(identity(1, 1), true), (identity(2, 1), true), (identity(2, 2), true)];
        assert_ne!(digest(&after_restart).1, both.1);
        let after_death = [(identity(1, 1), true), (identity(2, 1), true), (identity(2, 1), false)];
        assert_eq!(digest(&after_death), digest(&[(identity(1, 1), true)]));
    }

    #[test]
    fn one_missed_death_is_told_apart_whenever_it_was_and_of_many_the_late_ones() {
        let identity = |node| Identity::new(NodeId(node), Incarnation(1), "10.0.0.1:1".parse().unwrap());
        let mut roster = Roster::default();
        for node in 1..=3 {
            roster.verdict(0, &identity(node), Some(true));
        }
        assert!(!roster.any_gone());
        let theirs = roster.digest();
        let missed = |roster: &Roster, from, to| -> Vec<u64> {
            let missed = roster.missed_deaths(theirs ^ roster.digest(), from, to);
            missed.into_iter().map(|(identity, _)| identity.node.0).collect()
        };
        roster.verdict(10, &identity(1), Some(false));
        assert!(roster.any_gone());
        assert_eq!(missed(&roster, 100, 200), [1], "long ago, but nothing else differs");
        assert!(missed(&roster, 0, 9).is_empty(), "the rumour is still under way");
        roster.verdict(150, &identity(2), Some(false));
        assert_eq!(missed(&roster, 100, 200), [2]);
        assert_eq!(missed(&roster, 0, 200), [1, 2]);
    }
}
