//! When clients are to come back that were sent away: never all at once.
//!
//! The one place that says so for HTTP. Lanes spread their subscribers by themselves.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tidings_protocol::Code;

/// The longest wait that is asked of somebody who came while there was too much to do, in seconds. The least is one.
const MOST_S: u64 = 3;
/// The same while there is no owner or leader yet: there soon is.
const MOST_WITHOUT_OWNER_S: u64 = 2;

static TURN: AtomicU64 = AtomicU64::new(0);

/// A number between zero and `below`, which is not zero.
fn any(below: u64) -> u64 {
    // SplitMix64 (Steele, Lea, Flood, 2014): its outputs are spread evenly, and nobody has to be kept from guessing them.
    let turn = TURN.fetch_add(1, Relaxed).wrapping_add(crate::clock::mono_us());
    let mut mixed = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % below
}

/// How long somebody is to wait who got this refusal, in whole seconds as `Retry-After` has it.
#[must_use]
pub(crate) fn wait_s(code: Code) -> u64 {
    match code {
        Code::NoOwner | Code::NoLeader => 1 + any(MOST_WITHOUT_OWNER_S),
        _ => 1 + any(MOST_S),
    }
}

/// The same in milliseconds, for an event stream.
#[must_use]
pub(crate) fn wait_ms(code: Code) -> u64 {
    wait_s(code) * 1_000 + any(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn waits_are_spread_evenly_over_their_range() {
        let mut seconds = BTreeMap::<u64, u32>::new();
        (0..3_000).for_each(|_| *seconds.entry(wait_s(Code::TooMany)).or_default() += 1);
        assert_eq!(seconds.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert!(
            seconds.values().all(|count| (800..1_200).contains(count)),
            "{seconds:?}"
        );
        let owner: BTreeSet<_> = (0..1_000).map(|_| wait_s(Code::NoOwner)).collect();
        assert_eq!(owner.into_iter().collect::<Vec<_>>(), [1, 2]);
        assert!((0..1_000).all(|_| (1_000..4_000).contains(&wait_ms(Code::Overloaded))));
    }
}
