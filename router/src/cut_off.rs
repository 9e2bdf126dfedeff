//! When a node that hears nobody sends its subscribers to others.
//!
//! A node is cut off when nothing came of the control plane, nor of any owner, for a while, and those that it still hears are too
//! few to agree on anything. Then nothing can be told here, and subscribers are better off at nodes that may be well: those of the
//! last map that are not heard. A node cannot tell whether these are well or gone, unless it knows that nobody is there any more.
//! So it sends away for a while, then takes whoever still comes, who found nobody else, and tries again after a longer while.
//!
//! It knows neither sockets nor what is said to subscribers.

use crate::now::MonoUs;
use std::sync::Arc;
use tidings_protocol::Version;

/// Looks further apart than this: whoever looks slept, and heard nothing because of that.
const SLEPT_US: u64 = 3_000_000;
/// Between two times of sending away it rests at most so many times as long as one lasts.
const LONGEST_REST: u64 = 16;

/// Another node that holds subscribers and does not drain, by the last map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other<'a> {
    /// Where clients reach it; empty if that is not known.
    pub url: &'a str,
    /// It is heard.
    pub heard: bool,
    /// Surely nobody is there: its port is closed.
    pub gone: bool,
}

/// What is seen at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The ceiling and the revision of the last map: one of them rises all the time while anybody leads.
    pub agreed: (Version, u64),
    /// The newest version that any owner closed.
    pub closed: Version,
    /// The voters that are heard, this node among them if it is one, are most of all voters.
    pub quorum: bool,
    /// See there.
    pub others: &'a [Other<'a>],
}

/// Where subscribers are sent: bases of URLs, of those that are known.
pub type Elsewhere = Arc<[Box<str>]>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Something is heard, or nobody else may be better.
    Whole,
    /// Subscribers are sent away.
    Away { until_us: MonoUs, to: Elsewhere },
    /// Those who come are taken for now.
    Rests { until_us: MonoUs },
}

/// See the module. Times are microseconds.
#[derive(Debug)]
pub struct CutOff {
    after_us: u64,
    away_us: u64,
    last_us: MonoUs,
    heard_us: MonoUs,
    agreed: (Version, u64),
    closed: Version,
    /// How many times it was sent away since the last word.
    times: u32,
    state: State,
}

impl CutOff {
    /// Cut off after `after_us` without a word; subscribers are sent away for `away_us` each time, never if that is 0.
    #[must_use]
    pub fn new(now_us: MonoUs, after_us: u64, away_us: u64) -> Self {
        Self {
            after_us,
            away_us,
            last_us: now_us,
            heard_us: now_us,
            agreed: (Version::ZERO, 0),
            closed: Version::ZERO,
            times: 0,
            state: State::Whole,
        }
    }

    /// Whether at this time nothing will have been heard for so long that it matters who else is there. To be asked before
    /// [`CutOff::look`], so that those who are gone are known to be when it counts.
    #[must_use]
    pub fn is_silent_by(&self, at_us: MonoUs) -> bool {
        at_us.saturating_sub(self.heard_us) >= self.after_us
    }

    fn is_silent(&self) -> bool {
        self.is_silent_by(self.last_us)
    }

    /// Where subscribers are to go, if they are to go; an empty list: elsewhere, wherever that is.
    #[must_use]
    pub fn elsewhere(&self) -> Option<&Elsewhere> {
        match &self.state {
            State::Away { to, .. } => Some(to),
            State::Whole | State::Rests { .. } => None,
        }
    }

    /// Looks. To be called about once a second. Whether [`CutOff::elsewhere`] answers otherwise than before.
    pub fn look(&mut self, now_us: MonoUs, seen: &Seen<'_>) -> bool {
        let slept = now_us.saturating_sub(self.last_us) > SLEPT_US;
        self.last_us = now_us;
        if slept || seen.agreed != self.agreed || seen.closed > self.closed {
            self.heard_us = now_us;
        }
        self.agreed = seen.agreed;
        self.closed = self.closed.max(seen.closed);
        let before = self.elsewhere().cloned();
        self.step(now_us, seen);
        self.elsewhere() != before.as_ref()
    }

    fn step(&mut self, now_us: MonoUs, seen: &Seen<'_>) {
        let mut better = seen
            .others
            .iter()
            .filter(|other| !other.heard && !other.gone)
            .peekable();
        let cut_off = self.is_silent() && !seen.quorum && self.away_us > 0 && better.peek().is_some();
        if !cut_off {
            self.state = State::Whole;
            if !self.is_silent() {
                self.times = 0;
            }
            return;
        }
        match &self.state {
            State::Away { until_us, .. } if *until_us <= now_us => {
                let rest = (1 << self.times.min(31)).min(LONGEST_REST);
                let until_us = now_us.saturating_add(self.away_us.saturating_mul(rest));
                self.state = State::Rests { until_us };
            }
            State::Rests { until_us } if *until_us > now_us => {}
            State::Away { .. } => {}
            State::Whole | State::Rests { .. } => {
                self.times = self.times.saturating_add(1);
                let urls = better.map(|other| other.url).filter(|url| !url.is_empty());
                self.state = State::Away {
                    until_us: now_us.saturating_add(self.away_us),
                    to: urls.map(Box::from).collect(),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    fn other(heard: bool, gone: bool) -> Other<'static> {
        let url = "http://b:7400";
        Other { url, heard, gone }
    }

    fn seen<'a>(version: u64, quorum: bool, others: &'a [Other<'a>]) -> Seen<'a> {
        Seen {
            agreed: (Version(1), 1),
            closed: Version(version),
            quorum,
            others,
        }
    }

    /// Whether subscribers are away, in each second from the last word on.
    fn lives(seconds: u64, quorum: bool, others: &[Other<'_>]) -> Vec<u64> {
        let mut node = CutOff::new(0, 5 * S, 10 * S);
        node.look(S, &seen(7, quorum, others));
        let looks = (1..=seconds).filter(|second| {
            node.look((1 + second) * S, &seen(7, quorum, others));
            node.elsewhere().is_some()
        });
        looks.collect()
    }

    #[test]
    fn subscribers_are_sent_to_those_who_may_be_well_after_the_time_and_not_before() {
        let others = [other(false, false), other(true, false), other(false, true)];
        assert_eq!(lives(6, false, &others), [5, 6]);
        let mut node = CutOff::new(0, S, S);
        assert!(!node.look(S, &seen(7, false, &others)));
        assert!(node.look(2 * S, &seen(7, false, &others)));
        assert_eq!(
            node.elsewhere().map(|to| to.len()),
            Some(1),
            "only the one that may be well"
        );
    }

    #[test]
    fn nobody_is_sent_where_nobody_is_known_to_be_better() {
        let none: Vec<u64> = Vec::new();
        assert_eq!(lives(60, false, &[]), none, "the only node");
        assert_eq!(
            lives(60, false, &[other(false, true), other(false, true)]),
            none,
            "all are gone"
        );
        assert_eq!(
            lives(60, false, &[other(true, false)]),
            none,
            "all are heard: nobody leads"
        );
        assert_eq!(
            lives(60, true, &[other(false, false)]),
            none,
            "those that are heard will agree"
        );
        let mut never = CutOff::new(0, S, 0);
        for second in 1..60 {
            assert!(!never.look(second * S, &seen(7, false, &[other(false, false)])));
        }
    }

    #[test]
    fn who_still_comes_is_taken_for_a_while_that_doubles() {
        let away = lives(130, false, &[other(false, false)]);
        let expected: Vec<u64> = (5..15).chain(35..45).chain(85..95).collect();
        assert_eq!(away, expected);
    }

    #[test]
    fn any_word_ends_it_and_counts_anew() {
        let others = [other(false, false)];
        let mut node = CutOff::new(0, 5 * S, 10 * S);
        for second in 1..=30 {
            node.look(second * S, &seen(7, false, &others));
        }
        assert!(node.is_silent());
        for heard in [
            seen(8, false, &others),
            Seen {
                agreed: (Version(2), 1),
                ..seen(8, false, &others)
            },
        ] {
            node.look(31 * S, &heard);
            assert!(!node.is_silent() && node.elsewhere().is_none());
        }
        let mut at = Vec::new();
        for second in 32..=48 {
            node.look(
                second * S,
                &Seen {
                    agreed: (Version(2), 1),
                    ..seen(8, false, &others)
                },
            );
            if node.elsewhere().is_some() {
                at.push(second);
            }
        }
        assert_eq!(at, (36..46).collect::<Vec<_>>());
    }

    #[test]
    fn who_looks_for_those_who_are_gone_does_so_before_it_counts() {
        let others = [other(false, false)];
        let mut node = CutOff::new(0, 5 * S, 10 * S);
        node.look(S, &seen(7, false, &others));
        for second in 2..=6 {
            // As the shell does: from one look before on.
            let looks = node.is_silent_by((second + 1) * S);
            assert!(looks || second < 5);
            node.look(second * S, &seen(7, false, &others));
            assert!(node.elsewhere().is_none() || looks);
        }
        assert!(node.elsewhere().is_some());
    }

    #[test]
    fn whoever_slept_gives_the_others_their_time_anew() {
        let others = [other(false, false)];
        let mut node = CutOff::new(0, 5 * S, 10 * S);
        node.look(S, &seen(7, false, &others));
        assert!(!node.look(100 * S, &seen(7, false, &others)));
        assert!(!node.is_silent());
    }
}
