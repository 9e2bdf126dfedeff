//! Decisions drawn from the input as long as it lasts, then from a seed: so every input is a whole life, and a byte that
//! changes changes one decision.

use std::cell::RefCell;

thread_local! {
    /// What is left of the input, the next byte last.
    static TAPE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lays a tape in.
pub(crate) fn lay(bytes: &[u8]) {
    TAPE.with_borrow_mut(|tape| {
        tape.clear();
        tape.extend(bytes.iter().rev());
    });
}

/// One decision from the tape.
fn read() -> Option<u64> {
    TAPE.with_borrow_mut(|tape| {
        let (high, low) = (tape.pop()?, tape.pop().unwrap_or(0));
        Some(u64::from(high) << 8 | u64::from(low))
    })
}

/// The same names as the source of chance of the router's tests.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        if let Some(decision) = read() {
            return decision;
        }
        // SplitMix64 (Steele, Lea and Flood, 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn range(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}
