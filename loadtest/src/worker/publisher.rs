//! The connections that publish: which are free, and what is under way on the others.

use crate::net::ConnId;
use crate::plan::Part;
use crate::scenario::Scenario;
use std::collections::VecDeque;

/// Publishers of one worker have numbers from here on, times the worker's own.
const PER_WORKER: u32 = 1 << 16;

/// A request that is not answered yet.
#[derive(Debug, Default)]
pub(super) struct Flight {
    pub(super) due_us: u64,
    pub(super) called_us: u64,
    /// The number of its first change among this publisher's.
    pub(super) call: u64,
    /// Each change's object, and whether somebody watches it. Of a stream only the watched ones.
    pub(super) objects: Vec<(u32, bool)>,
    /// Changes of a stream so far.
    pub(super) lines: u64,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// Not there.
    Nothing,
    /// Being made; then one request tells that the server answers.
    Opening,
    /// Free.
    Idle,
    /// Waiting for an answer.
    Asking,
    /// In the middle of a stream.
    Streaming,
}

#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) conn: ConnId,
    pub(super) doing: Doing,
    pub(super) since_us: u64,
    pub(super) flight: Flight,
    pub(super) next_call: u64,
    pub(super) failures: u8,
}

/// All of one worker.
#[derive(Debug)]
pub(super) struct Publishers {
    pub(super) all: Vec<Publisher>,
    pub(super) idle: VecDeque<u32>,
    /// Since when at least one is free.
    pub(super) free_since_us: u64,
    first: u32,
    pub(super) dialled: bool,
}

impl Publishers {
    pub(super) fn new(scenario: &Scenario, part: Part) -> Self {
        let count = if scenario.publishes() {
            // A share of none could publish nothing.
            part.range(scenario.publishers.connections).len().max(1)
        } else {
            0
        };
        let publisher = |_| Publisher {
            conn: ConnId::NONE,
            doing: Doing::Nothing,
            since_us: 0,
            flight: Flight::default(),
            next_call: 1,
            failures: 0,
        };
        Self {
            all: (0..count).map(publisher).collect(),
            idle: VecDeque::new(),
            free_since_us: 0,
            first: part.index * PER_WORKER,
            dialled: false,
        }
    }

    /// Its number in the whole run.
    pub(super) fn name(&self, number: u32) -> u32 {
        self.first + number
    }

    pub(super) fn is_on(&self, number: u32, conn: ConnId) -> bool {
        self.all.get(number as usize).is_some_and(|one| one.conn == conn)
    }

    pub(super) fn one(&mut self, number: u32) -> &mut Publisher {
        &mut self.all[number as usize]
    }

    pub(super) fn is_free(&mut self, number: u32, now: u64) {
        self.one(number).doing = Doing::Idle;
        if self.idle.is_empty() {
            self.free_since_us = now;
        }
        self.idle.push_back(number);
    }
}
