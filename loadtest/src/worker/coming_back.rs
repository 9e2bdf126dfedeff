//! Connections that end, and how their subscribers come back: after a random wait that doubles, as clients should.

use super::subscriber::{Phase, Talk};
use super::{Alarm, Stage, Worker};
use crate::net::ConnId;
use tidings_checker::history::What;

/// While everybody is brought back at the end, nobody waits longer than this.
const HURRY_US: u64 = 200_000;
/// No connection takes longer to be made and answered, unless the scenario is more patient.
const ASKING_US: u64 = 15_000_000;

/// What the end of a connection asks of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Come back after some wait of one's own.
    ComeBack,
    /// Come back after this long, in microseconds.
    ComeBackAfter(u64),
    /// Never come back.
    Stop,
}

/// What a close code asks of a client, as the protocol's table has it.
fn after_code(code: u16) -> Then {
    match code {
        1000 | 1001 | 1005 | 1006 | 1011..=1013 | 4000..=4499 => Then::ComeBack,
        _ => Then::Stop,
    }
}

impl Worker {
    /// The connection ended, or nothing sensible comes from it: the subscriber comes back.
    pub(super) fn lost_connection(&mut self, number: u32, why: &str, now: u64) {
        self.ended(number, why, Then::ComeBack, now);
    }

    /// The server closed a WebSocket with a code.
    pub(super) fn closed_with(&mut self, number: u32, code: u16, reason: &str, now: u64) {
        self.tally.extra(&format!("close.{code}"));
        self.ended(number, &format!("closed with {code} {reason}"), after_code(code), now);
    }

    /// The server asks to come back after a while.
    pub(super) fn sent_away(&mut self, number: u32, after_ms: u64, now: u64) {
        self.tally.extra("reconnect");
        let then = Then::ComeBackAfter(after_ms.saturating_mul(1_000));
        self.ended(number, "the server asked to come back later", then, now);
    }

    fn ended(&mut self, number: u32, why: &str, then: Then, now: u64) {
        let was = self.subscribers[number as usize].phase;
        self.forget_connection(number, now);
        let client = self.client(number);
        let one = &mut self.subscribers[number as usize];
        if was == Phase::Live || one.lost_us == 0 {
            one.lost_us = now;
        }
        one.attempts = one.attempts.saturating_add(1);
        let attempts = one.attempts;
        if was == Phase::Live {
            self.tally.counts.disconnects += 1;
        } else {
            self.tally.counts.connects_failed += 1;
        }
        self.tally.warn(|| format!("a subscriber's connection ended: {why}"));
        if then == Then::Stop {
            self.subscribers[number as usize].phase = Phase::Stopped;
            self.tally
                .error(|| format!("subscriber {client} must not come back: {why}"));
            return;
        }
        let wait = match then {
            Then::ComeBackAfter(wait) => wait,
            Then::ComeBack | Then::Stop => {
                let back_off = &self.scenario.subscribers;
                let doubled = back_off.back_off.us() << attempts.saturating_sub(1).min(20);
                self.random.below(doubled.min(back_off.back_off_max.us()) + 1)
            }
        };
        let hurry = matches!(self.stage, Stage::Judging);
        let wait = if hurry { wait.min(HURRY_US) } else { wait };
        self.alarm(now + wait, Alarm::ComeBack(number));
    }

    /// Leaves as the plan wants it, to come back at a time.
    pub(super) fn part(&mut self, number: u32, back_us: u64, now: u64) {
        self.forget_connection(number, now);
        self.subscribers[number as usize].lost_us = back_us;
        self.alarm(back_us, Alarm::ComeBack(number));
    }

    fn forget_connection(&mut self, number: u32, now: u64) {
        let client = self.client(number);
        let one = &mut self.subscribers[number as usize];
        match one.phase {
            Phase::Live => self.live -= 1,
            Phase::Asking => self.connecting -= 1,
            Phase::Away | Phase::Queued | Phase::Stopped => {}
        }
        let was_connected = matches!(one.phase, Phase::Live | Phase::Asking);
        let conn = std::mem::replace(&mut one.conn, ConnId::NONE);
        (one.phase, one.talk, one.pages, one.polls) = (Phase::Away, Talk::None, 0, false);
        self.net.cut(conn);
        if was_connected {
            self.witness.see(now, What::ConnClose { client });
        }
    }

    /// Looks for connections that have been silent for too long and for publishes that nobody answers.
    pub(super) fn sweep(&mut self, now: u64) {
        let silence_s = (self.scenario.subscribers.silence.us() / 1_000_000).max(1) as u32;
        let asking_us = ASKING_US.max(self.scenario.run.patience.us());
        let now_s = (now / 1_000_000) as u32;
        let stuck = (0..)
            .zip(&self.subscribers)
            .filter_map(|(number, one)| match one.phase {
                Phase::Live if !one.dawdles && now_s.saturating_sub(one.heard_s) > silence_s => {
                    Some((number, "silent"))
                }
                Phase::Asking if now.saturating_sub(one.asked_us) > asking_us => Some((number, "never answered")),
                _ => None,
            });
        for (number, why) in stuck.collect::<Vec<(u32, _)>>() {
            self.tally.extra("silent");
            self.lost_connection(number, &format!("the connection was given up: {why}"), now);
        }
        self.sweep_publishers(now);
    }

    /// At the end everybody comes back at once, whatever kept them away.
    pub(super) fn bring_all_back(&mut self, now: u64) {
        for number in 0..self.subscribers.len() as u32 {
            if self.subscribers[number as usize].phase == Phase::Away {
                let wait = self.random.below(HURRY_US);
                self.alarm(now + wait, Alarm::ComeBack(number));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_mean_what_the_protocol_says() {
        for back in [1001, 1006, 1011, 1012, 1013, 4000, 4001, 4002, 4010] {
            assert_eq!(after_code(back), Then::ComeBack, "{back}");
        }
        for stop in [1002, 1003, 1007, 1008, 1009, 4500, 4503, 4506] {
            assert_eq!(after_code(stop), Then::Stop, "{stop}");
        }
    }
}
