//! What is done to the server and when: a schedule from a seed, and the one fault that is under way.
//!
//! The server is only ever touched from here while the load goes on.

use crate::random::Random;
use crate::scenario::{FaultKind, Scenario};
use crate::server::Server;
use rustix::process::Signal;

/// A server that was asked to end is killed after this long.
const RESTART_US: u64 = 20_000_000;
/// A server that was started again must be ready after this long.
const READY_US: u64 = 60_000_000;
/// The server is asked so often whether it is ready again.
const ASK_US: u64 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Quiet,
    /// Killed; to be started at this time.
    Down {
        until_us: u64,
    },
    /// Stopped by a signal, to be continued at this time.
    Paused {
        until_us: u64,
    },
    /// Asked to end.
    Ending {
        since_us: u64,
    },
    /// Started again, not ready yet.
    Starting {
        since_us: u64,
        asked_us: u64,
    },
}

/// Something that began or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// A fault began: its name.
    Began(String),
    /// It is healed.
    Healed(String),
}

/// The schedule.
#[derive(Debug)]
pub(crate) struct Faults {
    kinds: Vec<FaultKind>,
    every_us: u64,
    down_us: u64,
    pause_us: u64,
    random: Random,
    next_us: Option<u64>,
    end_us: u64,
    state: State,
    name: String,
    count: u32,
}

impl Faults {
    /// For a load from `start_us` on.
    pub(crate) fn new(scenario: &Scenario, start_us: u64) -> Self {
        let faults = &scenario.faults;
        let seed = if faults.seed == 0 {
            scenario.run.seed
        } else {
            faults.seed
        };
        Self {
            kinds: faults.kinds.clone(),
            every_us: faults.every.us(),
            down_us: faults.down.us(),
            pause_us: faults.pause.us(),
            random: Random::new(seed, 5 << 40),
            next_us: (!faults.kinds.is_empty()).then(|| start_us + faults.first.us()),
            end_us: start_us + scenario.run.duration.us(),
            state: State::Quiet,
            name: String::new(),
            count: 0,
        }
    }

    /// Whether a fault is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.state == State::Quiet
    }

    /// No more faults; what is under way is healed as soon as it can be.
    pub(crate) fn heal(&mut self) {
        self.next_us = None;
        match &mut self.state {
            State::Down { until_us } | State::Paused { until_us } => *until_us = 0,
            State::Quiet | State::Ending { .. } | State::Starting { .. } => {}
        }
    }

    /// Does what is due.
    pub(crate) fn step(&mut self, server: &mut Server, now: u64) -> Result<Option<Turn>, String> {
        match self.state {
            State::Quiet => {
                if let Some(at) = self.next_us.filter(|at| *at <= now && *at < self.end_us) {
                    self.next_us = (self.every_us > 0).then(|| at + self.random.around(self.every_us));
                    return self.begin(server, now).map(Some);
                }
                // A server that nobody touched must not end.
                match server.ended() {
                    Some(why) => Err(format!("the server {why}\n{}", server.log_tail())),
                    None => Ok(None),
                }
            }
            State::Down { until_us } if until_us <= now => {
                server.spawn()?;
                self.state = State::Starting {
                    since_us: now,
                    asked_us: now,
                };
                Ok(None)
            }
            State::Paused { until_us } if until_us <= now => {
                server.signal(Signal::CONT)?;
                Ok(Some(self.healed()))
            }
            State::Ending { since_us } => {
                if server.is_gone() || now - since_us > RESTART_US {
                    server.kill();
                    self.state = State::Down { until_us: now };
                }
                Ok(None)
            }
            State::Starting { since_us, asked_us } => self.wait_until_ready(server, since_us, asked_us, now),
            State::Down { .. } | State::Paused { .. } => Ok(None),
        }
    }

    fn wait_until_ready(
        &mut self,
        server: &mut Server,
        since_us: u64,
        asked_us: u64,
        now: u64,
    ) -> Result<Option<Turn>, String> {
        if now < asked_us + ASK_US {
            return Ok(None);
        }
        if server.is_ready() {
            return Ok(Some(self.healed()));
        }
        if let Some(why) = server.ended() {
            return Err(format!(
                "the server, started again after {}, {why}\n{}",
                self.name,
                server.log_tail()
            ));
        }
        if now - since_us > READY_US {
            return Err(format!(
                "the server is not ready again after {}\n{}",
                self.name,
                server.log_tail()
            ));
        }
        let asked_us = now;
        self.state = State::Starting { since_us, asked_us };
        Ok(None)
    }

    fn begin(&mut self, server: &mut Server, now: u64) -> Result<Turn, String> {
        let kind = self.kinds[self.random.below(self.kinds.len() as u64) as usize];
        self.count += 1;
        let word = match kind {
            FaultKind::Kill => {
                server.kill();
                self.state = State::Down {
                    until_us: now + self.down_us,
                };
                "kill"
            }
            FaultKind::Pause => {
                server.signal(Signal::STOP)?;
                self.state = State::Paused {
                    until_us: now + self.pause_us,
                };
                "pause"
            }
            FaultKind::Restart => {
                server.signal(Signal::TERM)?;
                self.state = State::Ending { since_us: now };
                "restart"
            }
        };
        self.name = format!("{word} {}", self.count);
        Ok(Turn::Began(self.name.clone()))
    }

    fn healed(&mut self) -> Turn {
        self.state = State::Quiet;
        Turn::Healed(std::mem::take(&mut self.name))
    }
}
