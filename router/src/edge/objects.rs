//! The objects that somebody here watches: ID, newest version, subscribers, and what was said with the last change.

use super::name::Name;
use crate::id_set::IdSet;
use crate::now::MonoUs;
use crate::staggered::Staggered;
use hashbrown::HashMap;
use std::collections::VecDeque;
use tidings_protocol::hint::SharedHint;
use tidings_protocol::{HashKey, ObjectHash, Version};

/// Slots are kept in pages of this many, so that growing never moves or doubles what is there.
const PAGE: usize = 4096;

const VERSION_BITS: u64 = Version::LIMIT - 1;
const REGISTERED: u64 = 1 << 62;
const LINGERS: u64 = 1 << 63;

/// What the index knows of a slot: enough of the hash that growing the index touches no slot.
#[derive(Clone, Copy, Debug)]
struct Indexed {
    slot: u32,
    rest: u32,
}

/// The hash as the index uses it: the top bits that choose a piece of the table, and the low bits that are kept.
fn folded(hash: ObjectHash) -> u64 {
    hash.0 & 0xfff0_0000_ffff_ffff
}

/// One watched object: 40 bytes and its ID. There may be millions.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) id: Name,
    pub(super) watchers: IdSet,
    /// The version in the low 53 bits; above it, whether the owner has answered and whether it stands in the linger queue.
    packed: u64,
}

impl Slot {
    pub(super) fn version(&self) -> Version {
        Version(self.packed & VERSION_BITS)
    }

    /// Takes a version if it is newer; says whether it was.
    pub(super) fn advance(&mut self, version: Version) -> bool {
        let newer = version > self.version() && version.0 < Version::LIMIT;
        if newer {
            self.packed = (self.packed & !VERSION_BITS) | version.0;
        }
        newer
    }

    /// The owner has answered: from then on the object is live here.
    pub(super) fn registered(&self) -> bool {
        self.packed & REGISTERED != 0
    }

    pub(super) fn set_registered(&mut self, value: bool) {
        self.set_flag(REGISTERED, value);
    }

    fn set_flag(&mut self, flag: u64, value: bool) {
        self.packed = if value { self.packed | flag } else { self.packed & !flag };
    }
}

/// All slots, and the index that finds them by ID.
#[derive(Debug)]
pub(super) struct Objects {
    key: HashKey,
    index: Staggered<Indexed>,
    pages: Vec<Vec<Slot>>,
    free: Vec<u32>,
    /// Objects nobody watches any more, with the time at which they go.
    lingering: VecDeque<(MonoUs, u32)>,
    /// Subscriptions of all subscribers.
    pub(super) subscriptions: usize,
    pub(super) hints: Hints,
}

impl Objects {
    pub(super) fn new(key: HashKey, hint_bytes: usize) -> Self {
        Self {
            key,
            index: Staggered::new(0),
            pages: Vec::new(),
            free: Vec::new(),
            lingering: VecDeque::new(),
            subscriptions: 0,
            hints: Hints::new(hint_bytes),
        }
    }

    /// How many objects are registered or about to be.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn slot(&self, slot: u32) -> &Slot {
        &self.pages[slot as usize / PAGE][slot as usize % PAGE]
    }

    pub(super) fn slot_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.pages[slot as usize / PAGE][slot as usize % PAGE]
    }

    pub(super) fn hash(&self, slot: u32) -> ObjectHash {
        self.key.object_bytes(self.slot(slot).id.as_bytes())
    }

    pub(super) fn find(&self, id: &str) -> Option<u32> {
        self.find_hashed(self.key.object(id), id)
    }

    fn find_hashed(&self, hash: ObjectHash, id: &str) -> Option<u32> {
        let same =
            |entry: &Indexed| entry.rest == hash.0 as u32 && self.slot(entry.slot).id.as_bytes() == id.as_bytes();
        self.index.find(folded(hash), same).map(|entry| entry.slot)
    }

    /// Every slot of this hash. There is at most one, save for the rarest of collisions.
    pub(super) fn with_hash(&self, hash: ObjectHash) -> IdSet {
        let mut found = IdSet::new();
        self.index.find(folded(hash), |entry| {
            if entry.rest == hash.0 as u32 && self.hash(entry.slot) == hash {
                found.insert(entry.slot);
            }
            false
        });
        found
    }

    /// The object's slot and hash, and whether the slot is new: not registered, no version known.
    pub(super) fn intern(&mut self, id: Box<str>) -> (u32, ObjectHash, bool) {
        let hash = self.key.object(&id);
        if let Some(slot) = self.find_hashed(hash, &id) {
            return (slot, hash, false);
        }
        let slot = self.free.pop().unwrap_or_else(|| self.new_slot());
        *self.slot_mut(slot) = Slot {
            id: id.into(),
            watchers: IdSet::new(),
            packed: 0,
        };
        self.index.insert_unique(
            folded(hash),
            Indexed {
                slot,
                rest: hash.0 as u32,
            },
            |entry| entry.rest.into(),
        );
        (slot, hash, true)
    }

    fn new_slot(&mut self) -> u32 {
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        let number = (self.pages.len() - 1) * PAGE + self.pages[self.pages.len() - 1].len();
        let last = self.pages.len() - 1;
        self.pages[last].push(Slot::default());
        number as u32
    }

    /// A subscriber comes to an object.
    pub(super) fn watch(&mut self, slot: u32, subscriber: u32) {
        self.subscriptions += usize::from(self.slot_mut(slot).watchers.insert(subscriber));
    }

    /// A subscriber leaves an object. The last one leaves it lingering.
    pub(super) fn unwatch(&mut self, slot: u32, subscriber: u32, now_us: MonoUs, linger_us: u64) {
        self.subscriptions -= usize::from(self.slot_mut(slot).watchers.remove(subscriber));
        self.linger_if_unwatched(slot, now_us, linger_us);
    }

    pub(super) fn linger_if_unwatched(&mut self, slot: u32, now_us: MonoUs, linger_us: u64) {
        let entry = self.slot_mut(slot);
        if entry.watchers.is_empty() && entry.registered() && entry.packed & LINGERS == 0 {
            entry.set_flag(LINGERS, true);
            self.lingering.push_back((now_us + linger_us, slot));
        }
    }

    pub(super) fn next_linger(&self, at_most: usize) -> Option<MonoUs> {
        let over = self.lingering.len() > at_most;
        self.lingering.front().map(|&(at_us, _)| if over { 0 } else { at_us })
    }

    /// The next object that nobody came back for, or that is one too many.
    pub(super) fn pop_lingered(&mut self, now_us: MonoUs, at_most: usize) -> Option<u32> {
        while let Some(&(at_us, slot)) = self.lingering.front() {
            if at_us > now_us && self.lingering.len() <= at_most {
                return None;
            }
            self.lingering.pop_front();
            let entry = self.slot_mut(slot);
            entry.set_flag(LINGERS, false);
            if entry.watchers.is_empty() && entry.registered() {
                return Some(slot);
            }
        }
        None
    }

    pub(super) fn lingering(&self) -> usize {
        self.lingering.len()
    }

    /// Forgets an object. The second value says that another object here has the same hash.
    pub(super) fn free(&mut self, slot: u32) -> (ObjectHash, bool) {
        let hash = self.hash(slot);
        self.index.remove(folded(hash), |entry| entry.slot == slot);
        self.hints.clear(slot);
        *self.slot_mut(slot) = Slot::default();
        self.free.push(slot);
        (hash, !self.with_hash(hash).is_empty())
    }

    /// Every slot in use, with its hash.
    pub(super) fn all(&self) -> Vec<(u32, ObjectHash)> {
        let mut all = Vec::with_capacity(self.len());
        for (page_number, page) in self.pages.iter().enumerate() {
            for (place, slot) in page.iter().enumerate() {
                if !slot.id.is_empty() {
                    all.push((
                        (page_number * PAGE + place) as u32,
                        self.key.object_bytes(slot.id.as_bytes()),
                    ));
                }
            }
        }
        all
    }
}

/// What was said with the newest change of an object, kept while somebody has yet to be told of it.
#[derive(Debug)]
pub(super) struct Hints {
    entries: HashMap<u32, Entry>,
    bytes: usize,
    budget: usize,
    pub(super) dropped: u64,
}

#[derive(Debug)]
struct Entry {
    hint: SharedHint,
    /// How many subscribers have the object pending.
    awaiting: u32,
}

impl Hints {
    fn new(budget: usize) -> Self {
        Self {
            entries: HashMap::new(),
            bytes: 0,
            budget,
            dropped: 0,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, slot: u32) -> Option<&SharedHint> {
        self.entries.get(&slot).map(|e| &e.hint)
    }

    /// Replaces what was said before. Past the budget the hint is dropped, and with it only a saved fetch.
    pub(super) fn set(&mut self, slot: u32, hint: Option<SharedHint>, awaiting: u32) {
        if !self.entries.is_empty() {
            self.clear(slot);
        }
        let Some(hint) = hint else { return };
        if awaiting == 0 {
            return;
        }
        if self.bytes + hint.bytes() > self.budget {
            self.dropped += 1;
            return;
        }
        self.bytes += hint.bytes();
        self.entries.insert(slot, Entry { hint, awaiting });
    }

    pub(super) fn clear(&mut self, slot: u32) {
        if let Some(entry) = self.entries.remove(&slot) {
            self.bytes -= entry.hint.bytes();
        }
    }

    /// One more subscriber has the object pending.
    pub(super) fn awaited(&mut self, slot: u32) {
        if !self.entries.is_empty()
            && let Some(entry) = self.entries.get_mut(&slot)
        {
            entry.awaiting += 1;
        }
    }

    /// One subscriber no longer has it pending.
    pub(super) fn told(&mut self, slot: u32) {
        if self.entries.is_empty() {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&slot) {
            entry.awaiting = entry.awaiting.saturating_sub(1);
            if entry.awaiting == 0 {
                self.clear(slot);
            }
        }
    }
}
