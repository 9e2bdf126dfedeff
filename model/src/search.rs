//! Walks every state of a model, breadth first.
//!
//! Models implement `stateright::Model`, and a test has the library's own checker count the same states. This walk is
//! here because the library keeps, for each state that waits, the whole list of actions that led to it, and reports the
//! last counterexample of a block instead of the shortest. Here a state costs about 25 bytes once it was looked at.
//!
//! States are told apart by 64 bits of hash, as in the library: among 10 million states the chance that any two share
//! theirs is below one in a hundred thousand.

use stateright::{Expectation, Model, Property};
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Gives up after so many states.
    pub states: usize,
    /// Stops at the first state that violates something.
    pub stop_at_violation: bool,
}

/// A property that does not hold, and the shortest way there.
#[derive(Clone, Debug)]
pub struct Violation<A> {
    /// The property.
    pub property: &'static str,
    /// The steps.
    pub trace: Vec<A>,
}

/// What a walk found.
#[derive(Clone, Debug)]
pub struct Report<A> {
    /// Different states.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// Steps to the state that is farthest away.
    pub depth: usize,
    /// Every state was looked at.
    pub complete: bool,
    /// Of each property that was violated, the shortest way there.
    pub violations: Vec<Violation<A>>,
    /// Names of the properties.
    pub properties: Vec<&'static str>,
    /// What should be possible and was never reached.
    pub unreached: Vec<&'static str>,
}

/// How a state was reached: from which, by which of its actions.
#[derive(Clone, Copy)]
struct Origin {
    parent: u32,
    action: u16,
}

/// Walks the states of a model.
pub fn walk<M>(model: &M, limits: Limits) -> Report<M::Action>
where
    M: Model,
    M::State: Hash + Clone,
    M::Action: Clone,
{
    let properties = model.properties();
    let mut open: Vec<bool> = vec![true; properties.len()];
    let mut seen: HashSet<u64, BuildHasherDefault<Keep>> = HashSet::default();
    let mut origins: Vec<Origin> = Vec::new();
    let mut waiting: VecDeque<M::State> = VecDeque::new();
    let mut found: Vec<(usize, u32)> = Vec::new();
    let inits = model.init_states();
    for (action, state) in inits.iter().enumerate() {
        if seen.insert(fingerprint(state)) {
            origins.push(Origin {
                parent: u32::MAX,
                action: action as u16,
            });
            waiting.push_back(state.clone());
        }
    }
    let (mut at, mut steps, mut depth, mut level_end) = (0u32, 0, 0, origins.len());
    let mut actions = Vec::new();
    let complete = loop {
        let Some(state) = waiting.pop_front() else { break true };
        if at as usize == level_end {
            depth += 1;
            level_end = origins.len();
        }
        let fallen = settle(model, &state, &properties, &mut open, &Expectation::Always);
        found.extend(fallen.map(|p| (p, at)));
        if (limits.stop_at_violation && !found.is_empty()) || origins.len() >= limits.states {
            break false;
        }
        model.actions(&state, &mut actions);
        for (number, action) in actions.drain(..).enumerate() {
            let Some(next) = model.next_state(&state, action) else {
                continue;
            };
            if !model.within_boundary(&next) {
                continue;
            }
            steps += 1;
            // Also where the state is known already: what is noted beside a state belongs to the way there.
            settle(model, &next, &properties, &mut open, &Expectation::Sometimes).for_each(drop);
            if seen.insert(fingerprint(&next)) {
                origins.push(Origin {
                    parent: at,
                    action: number as u16,
                });
                waiting.push_back(next);
            }
        }
        at += 1;
    };
    let violations = found.iter().map(|&(p, at)| Violation {
        property: properties[p].name,
        trace: trace(model, &inits, &origins, at),
    });
    let unreached = properties.iter().zip(&open);
    Report {
        states: origins.len(),
        steps,
        depth,
        complete,
        violations: violations.collect(),
        properties: properties.iter().map(|property| property.name).collect(),
        unreached: unreached
            .filter(|(property, open)| **open && property.expectation == Expectation::Sometimes)
            .map(|(property, _)| property.name)
            .collect(),
    }
}

/// The open properties of one kind about which a state decides. They are open no more.
fn settle<'a, M: Model>(
    model: &'a M,
    state: &'a M::State,
    properties: &'a [Property<M>],
    open: &'a mut [bool],
    kind: &'a Expectation,
) -> impl Iterator<Item = usize> + 'a {
    let of_kind = properties.iter().zip(open).enumerate();
    of_kind.filter_map(move |(p, (property, open))| {
        let decides = *open
            && property.expectation == *kind
            && (property.condition)(model, state) == (*kind == Expectation::Sometimes);
        *open &= !decides;
        decides.then_some(p)
    })
}

/// The actions that lead to a state.
fn trace<M: Model>(model: &M, inits: &[M::State], origins: &[Origin], at: u32) -> Vec<M::Action>
where
    M::State: Clone,
    M::Action: Clone,
{
    let mut numbers = Vec::new();
    let mut origin = origins[at as usize];
    while origin.parent != u32::MAX {
        numbers.push(usize::from(origin.action));
        origin = origins[origin.parent as usize];
    }
    let mut state = inits[usize::from(origin.action)].clone();
    let mut trace = Vec::new();
    for number in numbers.into_iter().rev() {
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        let action = actions.swap_remove(number);
        trace.push(action.clone());
        let Some(next) = model.next_state(&state, action) else {
            break;
        };
        state = next;
    }
    trace
}

fn fingerprint<T: Hash>(state: &T) -> u64 {
    let mut hasher = Mix::default();
    state.hash(&mut hasher);
    hasher.finish()
}

/// A hasher for many single bytes: it gathers eight, then multiplies. The same in every run.
#[derive(Default)]
struct Mix {
    state: u64,
    gathered: u64,
    bits: u32,
}

impl Mix {
    fn fold(&mut self) {
        let product = u128::from(self.state ^ self.gathered ^ 0x9e37_79b9_7f4a_7c15)
            * u128::from(self.gathered.rotate_left(29) ^ 0xd6e8_feb8_6659_fd93);
        self.state = (product as u64 ^ (product >> 64) as u64).wrapping_add(self.state.rotate_left(23));
        self.gathered = 0;
        self.bits = 0;
    }
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u8(byte);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.gathered |= u64::from(byte) << self.bits;
        self.bits += 8;
        if self.bits == 64 {
            self.fold();
        }
    }

    fn write_u16(&mut self, word: u16) {
        self.write(&word.to_le_bytes());
    }

    fn write_u32(&mut self, word: u32) {
        self.write(&word.to_le_bytes());
    }

    fn write_u64(&mut self, word: u64) {
        self.write(&word.to_le_bytes());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u8(word as u8);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u8(word as u8);
    }

    fn finish(&self) -> u64 {
        let mut last = Self { ..*self };
        last.fold();
        last.gathered = u64::from(self.bits) | 0x100;
        last.fold();
        last.fold();
        last.state
    }
}

/// Keeps a fingerprint as it is.
#[derive(Default)]
struct Keep(u64);

impl Hasher for Keep {
    fn write(&mut self, _bytes: &[u8]) {}

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
