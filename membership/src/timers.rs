//! What is due when, on a clock that stands still while we do.
//!
//! A process that was paused finds all its deadlines passed and the answers to its probes still unread. Were the time
//! of the pause counted, it would hold dead whoever it had just probed. So when a deadline is found to be long past, the
//! deadlines are moved instead: no time went by for us.
//!
//! It does not know what the timers are for.

use crate::event::MonoUs;
use crate::identity::Identity;
use foca::Timer;
use std::collections::BTreeMap;
use std::time::Duration;
use tidings_protocol::NodeId;

/// How often chores are looked after.
const TICK_US: u64 = 100_000;

type Place = (MonoUs, u64);

/// What is due.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Due {
    Swim(Timer<Identity>),
    /// A verdict that was put off once, because our own ears are in doubt.
    Postponed(Timer<Identity>),
    Tick,
}

pub(crate) struct Timers {
    due: BTreeMap<Place, Due>,
    /// Of each node at most one timer waits for it to be forgotten.
    forgetting: BTreeMap<NodeId, Place>,
    next: u64,
    stall_us: u64,
    grace_us: u64,
    /// How long we stood still in all.
    stood_us: u64,
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Timers {
    pub(crate) fn new(now: MonoUs, stall: Duration, grace: Duration) -> Self {
        let mut timers = Self {
            due: BTreeMap::new(),
            forgetting: BTreeMap::new(),
            next: 0,
            stall_us: micros(stall),
            grace_us: micros(grace),
            stood_us: 0,
        };
        timers.put(now + TICK_US, Due::Tick);
        timers
    }

    /// The time as it passed for us, and whether we have just stood still.
    pub(crate) fn observe(&mut self, now: MonoUs) -> (MonoUs, bool) {
        let own = now.saturating_sub(self.stood_us);
        let Some((&(first, _), _)) = self.due.first_key_value() else {
            return (own, false);
        };
        if own <= first.saturating_add(self.stall_us) {
            return (own, false);
        }
        // The grace is for reading what came meanwhile before anything is due.
        let to = first.saturating_sub(self.grace_us);
        self.stood_us = now.saturating_sub(to);
        (to, true)
    }

    pub(crate) fn next_deadline(&self) -> Option<MonoUs> {
        let ((first, _), _) = self.due.first_key_value()?;
        Some(first.saturating_add(self.stood_us))
    }

    fn put(&mut self, at: MonoUs, due: Due) -> Place {
        self.next += 1;
        self.due.insert((at, self.next), due);
        (at, self.next)
    }

    pub(crate) fn schedule(&mut self, at: MonoUs, timer: Timer<Identity>) {
        let forgotten = match &timer {
            Timer::RemoveDown(identity) => Some(identity.node),
            Timer::ProbeRandomMember(_)
            | Timer::SendIndirectProbe { .. }
            | Timer::ChangeSuspectToDown { .. }
            | Timer::PeriodicAnnounce(_)
            | Timer::PeriodicAnnounceDown(_)
            | Timer::PeriodicGossip(_) => None,
        };
        let place = self.put(at, Due::Swim(timer));
        if let Some(earlier) = forgotten.and_then(|node| self.forgetting.insert(node, place)) {
            self.due.remove(&earlier);
        }
    }

    pub(crate) fn postpone(&mut self, at: MonoUs, timer: Timer<Identity>) {
        self.put(at, Due::Postponed(timer));
    }

    /// Takes what is due first, if it is due.
    pub(crate) fn take(&mut self, now: MonoUs) -> Option<Due> {
        let entry = self.due.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        let (place, due) = entry.remove_entry();
        match &due {
            Due::Tick => {
                self.put(now + TICK_US, Due::Tick);
            }
            Due::Swim(Timer::RemoveDown(identity)) => {
                if self.forgetting.get(&identity.node) == Some(&place) {
                    self.forgetting.remove(&identity.node);
                }
            }
            Due::Swim(_) | Due::Postponed(_) => {}
        }
        Some(due)
    }

    pub(crate) fn clear(&mut self) {
        self.due.clear();
        self.forgetting.clear();
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Incarnation;

    fn timers() -> Timers {
        Timers::new(0, Duration::from_millis(400), Duration::from_millis(200))
    }

    fn gone(node: u64, revival: u16) -> Timer<Identity> {
        let identity = Identity::new(NodeId(node), Incarnation(1), "10.0.0.1:1".parse().unwrap());
        Timer::RemoveDown(Identity { revival, ..identity })
    }

    #[test]
    fn a_pause_moves_all_deadlines_and_leaves_time_to_read() {
        let mut timers = timers();
        timers.schedule(5_000_000, gone(1, 0));
        assert_eq!(timers.observe(500_000), (500_000, false), "late, but not paused");
        let (own, stalled) = timers.observe(60_000_000);
        assert!(stalled);
        assert_eq!(timers.take(own), None, "nothing is due at once");
        assert_eq!(timers.next_deadline(), Some(60_000_000 + 100_000));
        let later = timers.observe(60_100_000).0;
        assert_eq!(timers.take(later), Some(Due::Tick));
        assert_eq!(timers.take(later), None, "five seconds of ours have not passed");
    }

    #[test]
    fn a_node_that_dies_again_and_again_leaves_one_timer() {
        let mut timers = timers();
        for death in 0..1_000 {
            timers.schedule(u64::from(death) * 10 + 1_000_000, gone(7, death));
        }
        assert_eq!(timers.len(), 2, "the tick and one");
        assert_eq!(timers.take(100_000), Some(Due::Tick));
        let mut last = None;
        while let Some(due) = timers.take(2_000_000) {
            last = Some(due).filter(|due| *due != Due::Tick).or(last);
        }
        assert_eq!(last, Some(Due::Swim(gone(7, 999))));
        assert!(timers.forgetting.is_empty());
    }
}
