//! Who should vote: pure.
//!
//! A voter that gossip has held dead for long, or that drains, is replaced by a node that lives and is willing; never is the number of
//! voters that live brought below what a majority takes, and one change is made at a time. It does not know the log.

use std::collections::BTreeSet;
use tidings_protocol::NodeId;

/// The voters and those who could be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Electorate {
    /// Who votes.
    pub(super) voters: BTreeSet<NodeId>,
    /// Who does not vote, learns, is willing to vote and lives.
    pub(super) willing: BTreeSet<NodeId>,
    /// Voters that have been held dead for so long that they should be replaced.
    pub(super) lost: BTreeSet<NodeId>,
    /// Voters that are to give up what they have.
    pub(super) leaving: BTreeSet<NodeId>,
    /// Voters that are held dead, however short.
    pub(super) dead: BTreeSet<NodeId>,
    /// So many should vote: 3 or 5.
    pub(super) wanted: usize,
}

/// Who should vote instead, if anybody else should.
pub(super) fn plan(now: &Electorate) -> Option<BTreeSet<NodeId>> {
    let living = now.voters.difference(&now.dead).count();
    if living < now.voters.len() / 2 + 1 {
        // Nothing can be agreed on.
        return None;
    }
    let newcomer = now.willing.difference(&now.voters).next().copied()?;
    let mut voters = now.voters.clone();
    voters.insert(newcomer);
    let mut without = now
        .lost
        .iter()
        .chain(&now.leaving)
        .filter(|node| now.voters.contains(node));
    if let Some(other) = without.next() {
        voters.remove(other);
        return Some(voters);
    }
    (now.voters.len() < now.wanted).then_some(voters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<const N: usize>(nodes: [u64; N]) -> BTreeSet<NodeId> {
        nodes.into_iter().map(NodeId).collect()
    }

    fn three() -> Electorate {
        Electorate {
            voters: set([1, 2, 3]),
            wanted: 3,
            ..Electorate::default()
        }
    }

    #[test]
    fn enough_living_voters_stay_as_they_are() {
        let willing = set([4, 5]);
        assert_eq!(plan(&Electorate { willing, ..three() }), None);
    }

    #[test]
    fn a_voter_that_is_lost_is_replaced_by_one_who_is_willing() {
        let now = Electorate {
            willing: set([4, 5]),
            lost: set([2]),
            dead: set([2]),
            ..three()
        };
        assert_eq!(plan(&now), Some(set([1, 3, 4])));
        let nobody = Electorate {
            willing: set([]),
            ..now.clone()
        };
        assert_eq!(plan(&nobody), None, "a dead voter is better than too few");
        let just_now = Electorate { lost: set([]), ..now };
        assert_eq!(plan(&just_now), None);
    }

    #[test]
    fn a_voter_that_drains_gives_its_vote_to_one_who_is_willing_and_keeps_it_otherwise() {
        let leaving = set([3]);
        let now = Electorate {
            willing: set([4]),
            leaving,
            ..three()
        };
        assert_eq!(plan(&now), Some(set([1, 2, 4])));
        let both = Electorate {
            lost: set([2]),
            dead: set([2]),
            ..now.clone()
        };
        assert_eq!(plan(&both), Some(set([1, 3, 4])), "the dead one first");
        let nobody = Electorate {
            willing: set([]),
            ..now
        };
        assert_eq!(plan(&nobody), None);
    }

    #[test]
    fn without_a_living_majority_nothing_is_tried() {
        let now = Electorate {
            willing: set([4, 5]),
            lost: set([2]),
            dead: set([2, 3]),
            ..three()
        };
        assert_eq!(plan(&now), None);
    }

    #[test]
    fn too_few_voters_become_more_one_at_a_time() {
        let now = Electorate {
            voters: set([1, 2, 3]),
            willing: set([4, 5]),
            wanted: 5,
            ..Electorate::default()
        };
        assert_eq!(plan(&now), Some(set([1, 2, 3, 4])));
    }
}
