//! An owner's permission to give versions: until a time, and up to a version.
//!
//! The time counts from when the renewal was *sent*, on a clock that runs while the machine sleeps (`CLOCK_BOOTTIME`), so
//! it ends here before the coordinator takes it for ended. The ceiling counts only once the map revision that it was
//! granted with has been applied here: who no longer owns a shard learns that before it may give a version more.
//!
//! It does not know how renewals travel, or what is owned.

use super::map::Process;
use crate::now::{MonoUs, Now};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use tidings_protocol::{Epoch, ShardId, Version};

/// Renewals under way at most. Older ones are given up: their answer is ignored.
const UNDER_WAY: usize = 8;

/// "May I go on?"
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Who asks.
    pub from: Process,
    /// Higher with each.
    pub number: u64,
    /// The highest version given or closed here.
    pub highest: Version,
    /// Shards whose versions an earlier process of this node left here complete, with the epoch they are of: it may go
    /// on where that one ended, if nobody else has since.
    pub on_disk: Vec<(ShardId, Epoch)>,
}

/// "You may."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The renewal that is answered.
    pub number: u64,
    /// Apply the map up to here first.
    pub revision: u64,
    /// No version above.
    pub ceiling: Version,
    /// For so long from when the renewal was sent, in microseconds.
    pub valid_us: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Lease {
    process: Process,
    every_us: u64,
    due_us: MonoUs,
    next: u64,
    sent: VecDeque<(u64, MonoUs)>,
    /// Grants that wait for the map.
    waiting: Vec<(u64, Version, MonoUs)>,
    until_us: MonoUs,
    ceiling: Version,
}

impl Lease {
    /// No permission yet. Asks every `every_us` microseconds, the first time at once.
    #[must_use]
    pub fn new(process: Process, every_us: u64) -> Self {
        Self {
            process,
            every_us,
            due_us: 0,
            next: 1,
            sent: VecDeque::new(),
            waiting: Vec::new(),
            until_us: 0,
            ceiling: Version::ZERO,
        }
    }

    /// When [`Lease::ask`] wants to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> MonoUs {
        self.due_us
    }

    /// Asks again, if it is time.
    pub fn ask(&mut self, now: Now, highest: Version, on_disk: &[(ShardId, Epoch)]) -> Option<Renewal> {
        if now.mono_us < self.due_us {
            return None;
        }
        self.due_us = now.mono_us + self.every_us;
        if self.sent.len() == UNDER_WAY {
            self.sent.pop_front();
        }
        self.sent.push_back((self.next, now.mono_us));
        self.next += 1;
        Some(Renewal {
            from: self.process,
            number: self.next - 1,
            highest,
            on_disk: on_disk.to_vec(),
        })
    }

    /// Asks again at once: the coordinator may be another.
    pub fn hurry(&mut self) {
        self.due_us = 0;
    }

    /// Takes an answer. `applied` is the revision of the map applied here.
    pub fn granted(&mut self, grant: Grant, applied: u64) {
        let Some(at) = self.sent.iter().position(|(number, _)| *number == grant.number) else {
            return;
        };
        let (_, sent_us) = self.sent[at];
        self.sent.drain(..=at);
        if self.waiting.len() == UNDER_WAY {
            self.waiting.remove(0);
        }
        let until_us = sent_us.saturating_add(grant.valid_us);
        self.waiting.push((grant.revision, grant.ceiling, until_us));
        self.applied(applied);
    }

    /// The map was applied up to `revision` here.
    pub fn applied(&mut self, revision: u64) {
        let (until_us, ceiling) = (&mut self.until_us, &mut self.ceiling);
        self.waiting.retain(|(needs, to, until)| {
            if *needs > revision {
                return true;
            }
            *until_us = (*until_us).max(*until);
            *ceiling = (*ceiling).max(*to);
            false
        });
    }

    /// Whether versions may be given and closed now. To be asked after the request was read, not before.
    #[must_use]
    pub fn holds(&self, now: Now) -> bool {
        now.mono_us < self.until_us
    }

    /// When the permission ends as it stands; zero if there never was one.
    #[must_use]
    pub fn until_us(&self) -> MonoUs {
        self.until_us
    }

    /// No version above.
    #[must_use]
    pub fn ceiling(&self) -> Version {
        self.ceiling
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_protocol::NodeId;

    const PROCESS: Process = Process {
        node: NodeId(1),
        incarnation: 1,
    };

    fn at(mono_us: u64) -> Now {
        Now {
            mono_us,
            wall_us: 1_000_000_000 + mono_us,
        }
    }

    fn grant(number: u64, revision: u64, ceiling: u64) -> Grant {
        Grant {
            number,
            revision,
            ceiling: Version(ceiling),
            valid_us: 2_000,
        }
    }

    #[test]
    fn a_lease_counts_from_when_the_renewal_was_sent() {
        let mut lease = Lease::new(PROCESS, 500);
        assert!(!lease.holds(at(0)));
        let asked = lease.ask(at(100), Version::ZERO, &[]).unwrap();
        assert_eq!(lease.ask(at(599), Version::ZERO, &[]), None);
        lease.granted(grant(asked.number, 0, 9), 0);
        assert!(lease.holds(at(2_099)));
        assert!(!lease.holds(at(2_100)));
        assert_eq!(lease.ceiling(), Version(9));
    }

    #[test]
    fn an_answer_that_needs_a_newer_map_waits_for_it() {
        let mut lease = Lease::new(PROCESS, 500);
        let asked = lease.ask(at(100), Version::ZERO, &[]).unwrap();
        lease.granted(grant(asked.number, 7, 9), 6);
        assert!(!lease.holds(at(101)));
        assert_eq!(lease.ceiling(), Version::ZERO);
        lease.applied(7);
        assert!(lease.holds(at(101)));
    }

    #[test]
    fn a_repeated_an_old_and_an_invented_answer_change_nothing() {
        let mut lease = Lease::new(PROCESS, 500);
        let first = lease.ask(at(0), Version::ZERO, &[]).unwrap();
        let second = lease.ask(at(500), Version::ZERO, &[]).unwrap();
        lease.granted(grant(second.number, 0, 9), 0);
        assert_eq!(lease.until_us(), 2_500);
        for number in [first.number, second.number, 77] {
            lease.granted(grant(number, 0, 99), 0);
        }
        assert_eq!((lease.until_us(), lease.ceiling()), (2_500, Version(9)));
    }

    #[test]
    fn a_late_answer_never_shortens_what_is_held() {
        let mut lease = Lease::new(PROCESS, 500);
        let first = lease.ask(at(0), Version::ZERO, &[]).unwrap();
        lease.granted(grant(first.number, 3, 9), 2);
        let second = lease.ask(at(500), Version::ZERO, &[]).unwrap();
        lease.granted(grant(second.number, 2, 8), 2);
        assert_eq!((lease.until_us(), lease.ceiling()), (2_500, Version(8)));
        lease.applied(3);
        assert_eq!((lease.until_us(), lease.ceiling()), (2_500, Version(9)));
    }
}
