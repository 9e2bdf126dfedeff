//! What a scenario does to its own subscribers: they leave and return, exchange objects, are all cut off at once, read
//! slowly or not at all.

use super::asking::MASK;
use super::subscriber::{Phase, Subscriber, Swap};
use super::{Alarm, Stage, Worker};
use crate::population::Transport;
use crate::scenario::Scenario;
use tidings_checker::history::{Object, What};
use tidings_client::websocket::write_text;

/// Marks those that read slowly or not at all: the first ones of all.
pub(super) fn dawdling(scenario: &Scenario, number: u32, mut one: Subscriber) -> Subscriber {
    let slow = &scenario.slow;
    one.dawdles = number < slow.stopped + slow.slow;
    if number >= slow.stopped && one.dawdles {
        one.bytes_per_s = slow.bytes_per_s;
    }
    one
}

impl Worker {
    pub(super) fn schedule_disturbances(&mut self, at_us: u64) {
        let scenario = &self.scenario;
        let (storm, slow) = (scenario.storm.every.us(), &scenario.slow);
        let (stop_after, stop_for) = (slow.stop_after.us(), slow.stop_for.us());
        let stops = slow.stopped > 0;
        if storm > 0 {
            self.alarm(at_us + storm, Alarm::Storm);
        }
        if stops {
            self.alarm(at_us + stop_after, Alarm::StopReading);
            self.alarm(at_us + stop_after + stop_for, Alarm::ReadAgain);
        }
        self.alarm_after(at_us, self.scenario.churn.leave_per_s, Alarm::Leave);
        self.alarm_after(at_us, self.scenario.churn.swap_per_s, Alarm::Swap);
    }

    /// This worker's next of something that happens so often a second in the whole run.
    fn alarm_after(&mut self, at_us: u64, per_s: f64, what: Alarm) {
        let mine = per_s / f64::from(self.part.of.max(1));
        if mine > 0.0 && !self.subscribers.is_empty() {
            let gap = self.random.exponential() * 1e6 / mine;
            self.alarm(at_us + gap as u64, what);
        }
    }

    fn anybody(&mut self) -> u32 {
        self.random.below(self.subscribers.len() as u64) as u32
    }

    pub(super) fn leave(&mut self, at: u64, now: u64) {
        if self.stage != Stage::Load {
            return;
        }
        let number = self.anybody();
        if self.subscribers[number as usize].phase == Phase::Live {
            let away = self.random.around(self.scenario.churn.away.us());
            self.part(number, now + away, now);
            self.tally.extra("left");
        }
        self.alarm_after(at, self.scenario.churn.leave_per_s, Alarm::Leave);
    }

    /// All are cut off in one moment, and come back in one moment.
    pub(super) fn storm(&mut self, at: u64, now: u64) {
        if self.stage != Stage::Load {
            return;
        }
        let back_us = at + self.scenario.storm.away.us();
        for number in 0..self.subscribers.len() as u32 {
            if self.subscribers[number as usize].phase == Phase::Live && self.random.unit() < self.scenario.storm.share
            {
                self.part(number, back_us.max(now), now);
                self.tally.extra("cut_by_storm");
            }
        }
        self.alarm(at + self.scenario.storm.every.us(), Alarm::Storm);
    }

    /// Somebody gives up an object for another one.
    pub(super) fn swap(&mut self, at: u64, now: u64) {
        if self.stage != Stage::Load {
            return;
        }
        let number = self.anybody();
        if let Err(why) = self.swap_of(number, now) {
            self.lost_connection(number, &why, now);
        }
        self.alarm_after(at, self.scenario.churn.swap_per_s, Alarm::Swap);
    }

    fn swap_of(&mut self, number: u32, now: u64) -> Result<(), String> {
        let client = self.client(number);
        let one = &mut self.subscribers[number as usize];
        let can = one.phase == Phase::Live && one.transport == Transport::WebSocket && one.swap.is_none();
        let new = self.watched.nth(self.random.next() as u32);
        let Some(new) = new.filter(|new| can && one.slot_of(*new).is_none()) else {
            return Ok(());
        };
        let slot = self.random.below(one.objects.len() as u64) as u32;
        let old = std::mem::replace(&mut one.objects[slot as usize], new);
        one.told[slot as usize] = 0;
        one.swap = Some(Swap { slot, old });
        one.resynced.retain(|(of, _)| *of != slot);
        let (conn, mut frames) = (one.conn, Vec::new());
        for (word, object, id) in [("unsubscribe", old, 2), ("subscribe", new, 3)] {
            let name = self.names.text(object);
            let text = format!("{{\"{word}\":{{\"objects\":[\"{name}\"]}},\"id\":{id}}}");
            write_text(&mut frames, text.as_bytes(), MASK);
        }
        let obj = Object::Number(u64::from(old));
        self.witness.see(now, What::UnsubCall { client, obj });
        let obj = Object::Number(u64::from(new));
        self.witness.see(now, What::SubCall { client, obj });
        self.tally.extra("swapped");
        self.net.send(conn, &frames)
    }

    fn stopped(&self) -> impl Iterator<Item = usize> + use<> {
        let first = self.first;
        let stopped = self.scenario.slow.stopped;
        (0..self.subscribers.len()).take_while(move |at| first + (*at as u32) < stopped)
    }

    pub(super) fn stop_reading(&mut self) {
        for at in self.stopped() {
            self.net.pause(self.subscribers[at].conn);
        }
    }

    pub(super) fn read_again(&mut self) {
        for at in self.stopped() {
            // A connection that is gone is noticed where its end is read.
            let _ = self.net.resume(self.subscribers[at].conn);
        }
    }

    /// At the end everybody reads as fast as it can.
    pub(super) fn hurry_all(&mut self) {
        self.read_again();
        for at in 0..self.subscribers.len() {
            if self.subscribers[at].bytes_per_s > 0 {
                self.subscribers[at].bytes_per_s = 0;
                let _ = self.net.resume(self.subscribers[at].conn);
            }
        }
    }
}
