//! One thread of the generator: its share of the subscribers and of what is published, over one poll.
//!
//! It owns everything it touches; orders come in and reports go out through channels. What it does when is in the rooms
//! below; here is the loop that does one thing after the other.

mod asking;
mod coming_back;
mod disturbing;
mod hearing;
mod judging;
mod lines;
mod publisher;
mod publishing;
mod reading;
mod subscriber;
mod tally;
mod witness;

pub(crate) use witness::Witness;

use crate::clock;
use crate::messages::{Order, Report, Setup, Target, Tick, Word};
use crate::names::Names;
use crate::net::{Net, Ready, Role};
use crate::plan::{Part, Plan};
use crate::population::{Watched, held_by, transport_of};
use crate::random::Random;
use crate::scenario::Scenario;
use judging::{Judging, Ledger};
use mio::Waker;
use publisher::Publishers;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::Duration;
use subscriber::{Phase, Subscriber};
use tally::Tally;
use tidings_client::websocket::Key;
use tidings_report::record::Interval;

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;
/// After so many sockets the plan is looked at again.
const SERVED: usize = 32;
/// Nearer than this the kernel's timer is set, farther the poll's own milliseconds do.
const FINE_US: u64 = 50_000;
const SECOND_US: u64 = 1_000_000;

/// Something to be done at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    /// A subscriber comes back.
    ComeBack(u32),
    /// A long-poll asks again.
    Poll(u32),
    /// A slow reader reads on.
    ReadOn(u32),
    /// Readers stop reading, or read again.
    StopReading,
    ReadAgain,
    /// Somebody leaves; somebody exchanges an object.
    Leave,
    Swap,
    /// All are cut off; all come back.
    Storm,
    /// A publisher's connection is made anew.
    Redial(u32),
    /// What took too long is looked for.
    Sweep,
    /// An interval ends.
    Tick,
    /// The load is measured from now on.
    WarmedUp,
    /// Whether all were told is looked at.
    Judge,
}

/// What this worker is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Ramp,
    Waiting,
    Load,
    Ending,
    Resting,
    Judging,
}

/// How this worker is reached and how it answers.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) orders: Receiver<Order>,
    pub(crate) reports: Sender<Report>,
}

pub(crate) struct Worker {
    part: Part,
    scenario: Arc<Scenario>,
    watched: Arc<Watched>,
    targets: Vec<Target>,
    names: Names,
    line: Line,
    net: Net,
    key: Key,
    random: Random,
    /// The number of the first of `subscribers` among all.
    first: u32,
    subscribers: Vec<Subscriber>,
    queue: VecDeque<u32>,
    connecting: u32,
    live: usize,
    publishers: Publishers,
    plan: Plan,
    ledger: Ledger,
    judging: Judging,
    alarms: BinaryHeap<Reverse<(u64, Alarm)>>,
    tally: Tally,
    witness: Witness,
    stage: Stage,
    epoch_us: u64,
    start_us: u64,
    ticked_us: u64,
    progress_us: u64,
    wanted_ns: u64,
    warm: bool,
    /// From the monotonic clock to the time of day.
    unix_offset_us: u64,
    /// Before this no further lines are sent.
    lines_us: u64,
    scratch: Vec<u8>,
    text: Vec<u8>,
    ready: Vec<Ready>,
    quit: bool,
}

impl Worker {
    /// Everything that is made before the first connection. The waker interrupts its sleep when an order has come.
    pub(crate) fn new(
        setup: &Setup,
        part: Part,
        watched: Arc<Watched>,
        line: Line,
    ) -> Result<(Self, Arc<Waker>), String> {
        let scenario = Arc::new(setup.scenario.clone());
        let mine = part.range(scenario.subscribers.count);
        let net = Net::new(mine.start as usize).map_err(|error| error.to_string())?;
        let waker = net.waker().map_err(|error| error.to_string())?;
        let path = setup
            .history
            .as_ref()
            .map(|dir| dir.join(format!("worker-{}.tidings", part.index)));
        let subscribers: Vec<_> = mine
            .clone()
            .map(|number| {
                disturbing::dawdling(
                    &scenario,
                    number,
                    Subscriber::new(held_by(&scenario, number), transport_of(&scenario, number)),
                )
            })
            .collect();
        let queue = (0..mine.len() as u32).collect();
        let worker = Self {
            part,
            targets: setup.targets.clone(),
            names: Names::new(&scenario.objects.prefix),
            line,
            net,
            key: Key::new(std::array::from_fn(|_| part.index as u8)),
            random: Random::new(scenario.run.seed, (4 << 40) + u64::from(part.index)),
            first: mine.start,
            subscribers,
            queue,
            connecting: 0,
            live: 0,
            publishers: Publishers::new(&scenario, part),
            plan: Plan::new(&scenario, Arc::clone(&watched), part),
            ledger: Ledger::default(),
            judging: Judging::default(),
            alarms: BinaryHeap::new(),
            tally: Tally::new()?,
            witness: Witness::new(path.as_deref(), &scenario.objects.prefix)?,
            stage: Stage::Ramp,
            epoch_us: setup.epoch_us,
            start_us: u64::MAX,
            ticked_us: clock::now_us(),
            progress_us: clock::now_us(),
            wanted_ns: 0,
            warm: false,
            unix_offset_us: clock::unix_us() - clock::now_us(),
            lines_us: 0,
            scratch: Vec::new(),
            text: Vec::new(),
            ready: Vec::new(),
            quit: false,
            scenario,
            watched,
        };
        Ok((worker, waker))
    }

    /// Works until it is told to quit, or cannot go on.
    pub(crate) fn run(mut self) {
        let now = clock::now_us();
        self.subscribers.iter_mut().for_each(|one| one.phase = Phase::Queued);
        self.alarm(now - (now - self.epoch_us) % SECOND_US + SECOND_US, Alarm::Tick);
        self.alarm(now + SECOND_US / 4, Alarm::Sweep);
        while !self.quit {
            if let Err(text) = self.turn() {
                self.say(Word::Failed(text));
                return;
            }
        }
    }

    fn say(&self, word: Word) {
        // Nobody hears it only if the whole run is over.
        let _ = self.line.reports.send(Report {
            worker: self.part.index,
            word,
        });
    }

    fn alarm(&mut self, at_us: u64, what: Alarm) {
        self.alarms.push(Reverse((at_us, what)));
    }

    fn turn(&mut self) -> Result<(), String> {
        self.take_orders();
        let mut now = clock::now_us();
        self.ring(now)?;
        self.connect_more(now)?;
        self.publish(now)?;
        self.watch_stage(now)?;
        let timeout = self.timeout(now)?;
        let mut ready = std::mem::take(&mut self.ready);
        self.net.wait(timeout, &mut ready).map_err(|error| error.to_string())?;
        for (nth, one) in ready.drain(..).enumerate() {
            now = clock::now_us();
            if nth % SERVED == SERVED - 1 {
                self.publish(now)?;
            }
            self.serve(one, now);
        }
        self.ready = ready;
        Ok(())
    }

    fn take_orders(&mut self) {
        loop {
            match self.line.orders.try_recv() {
                Ok(Order::Start { at_us }) => self.begin(at_us),
                Ok(Order::Cease) => self.plan.cease(),
                Ok(Order::Judge { acks }) => self.judge(acks),
                Ok(Order::Quit) | Err(TryRecvError::Disconnected) => {
                    let history_error = self.witness.finish();
                    self.say(Word::Ended { history_error });
                    self.quit = true;
                    return;
                }
                Err(TryRecvError::Empty) => return,
            }
        }
    }

    fn begin(&mut self, at_us: u64) {
        (self.stage, self.start_us) = (Stage::Load, at_us);
        self.alarm(at_us + self.scenario.run.warm_up.us(), Alarm::WarmedUp);
        self.schedule_disturbances(at_us);
    }

    /// Does what is due.
    fn ring(&mut self, now: u64) -> Result<(), String> {
        while let Some(Reverse((at, what))) = self.alarms.peek().copied()
            && at <= now
        {
            self.alarms.pop();
            match what {
                Alarm::ComeBack(number) => self.enqueue(number),
                Alarm::Poll(number) => self.poll_again(number, now),
                Alarm::ReadOn(number) => self.read_on(number),
                Alarm::StopReading => self.stop_reading(),
                Alarm::ReadAgain => self.read_again(),
                Alarm::Leave => self.leave(at, now),
                Alarm::Swap => self.swap(at, now),
                Alarm::Storm => self.storm(at, now),
                Alarm::Redial(number) => self.dial_publisher(number, now),
                Alarm::Judge => self.look(now),
                Alarm::Sweep => {
                    self.sweep(now);
                    self.alarm(now + SECOND_US / 4, Alarm::Sweep);
                }
                Alarm::Tick => {
                    self.tick(now);
                    self.alarm(at + SECOND_US, Alarm::Tick);
                }
                Alarm::WarmedUp => {
                    self.tick(now);
                    self.warm = true;
                }
            }
        }
        Ok(())
    }

    /// Goes from one stage to the next when its work is done.
    fn watch_stage(&mut self, now: u64) -> Result<(), String> {
        match self.stage {
            Stage::Ramp => {
                let stopped = self.subscribers.iter().find(|one| one.phase == Phase::Stopped);
                if stopped.is_some() {
                    return Err(format!(
                        "a subscriber was turned away for good: {}",
                        self.last_warning()
                    ));
                }
                if self.live == self.subscribers.len() && self.publishers_are_open(now) {
                    self.stage = Stage::Waiting;
                    self.tick(now);
                    self.say(Word::Ready);
                } else if now - self.progress_us > self.scenario.run.patience.us() {
                    return Err(format!(
                        "no progress for {}: {} of {} subscribers are connected and subscribed; {}",
                        self.scenario.run.patience,
                        self.live,
                        self.subscribers.len(),
                        self.last_warning()
                    ));
                }
            }
            // What was due by then is still sent, however late, until it is given up.
            Stage::Load
                if now >= self.start_us.saturating_add(self.plan.end_us())
                    && self.plan.due_us(now - self.start_us).is_none() =>
            {
                self.stage = Stage::Ending;
                self.end_lines();
            }
            Stage::Ending if self.nothing_under_way() => {
                self.tick(now);
                self.stage = Stage::Resting;
                self.say(self.ledger.published());
            }
            Stage::Load | Stage::Waiting | Stage::Ending | Stage::Resting | Stage::Judging => {}
        }
        Ok(())
    }

    fn last_warning(&self) -> String {
        self.tally.last_warning().unwrap_or("nothing was refused").to_owned()
    }

    /// How long there is nothing to do, at most.
    fn timeout(&mut self, now: u64) -> Result<Option<Duration>, String> {
        let alarm = self.alarms.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        let publish = self.next_publish_us(now);
        let next = alarm.min(publish);
        if next <= now {
            return Ok(Some(Duration::ZERO));
        }
        if next - now < FINE_US {
            self.net.wake_at(next).map_err(|error| error.to_string())?;
            return Ok(None);
        }
        Ok(Some(Duration::from_micros(next - now - FINE_US / 2)))
    }

    /// What the poll said of one connection.
    fn serve(&mut self, ready: Ready, now: u64) {
        match ready.role {
            Role::Subscriber(number) => {
                if self.subscribers[number as usize].conn == ready.id
                    && let Err(why) = self.serve_subscriber(number, ready, now)
                {
                    self.lost_connection(number, &why, now);
                }
            }
            Role::Publisher(number) => {
                if self.publishers.is_on(number, ready.id)
                    && let Err(why) = self.serve_publisher(number, ready, now)
                {
                    self.lost_publisher(number, &why, now);
                }
            }
        }
    }

    /// Says what happened since the last time.
    fn tick(&mut self, now: u64) {
        let wanted_ns = crate::meter::thread_wanted_ns();
        let past = (now - self.ticked_us).max(1);
        let busy = wanted_ns.saturating_sub(self.wanted_ns) as f64 / 1e3 / past as f64;
        let interval = Interval {
            at_ms: (self.ticked_us.max(self.epoch_us) - self.epoch_us) / 1_000,
            warm_up: self.stage == Stage::Load && !self.warm,
            counts: self.tally.take_counts(),
            connections: self.net.open() as u64,
            latency: self.tally.take_times(),
        };
        let tick = Tick {
            interval,
            late_us: std::mem::take(&mut self.tally.late_us),
            busy: busy.min(1.0),
            warnings: self.tally.take_warnings(),
        };
        (self.ticked_us, self.wanted_ns) = (now, wanted_ns);
        self.unix_offset_us = clock::unix_us() - clock::now_us();
        self.witness.flush();
        self.say(Word::Tick(Box::new(tick)));
    }
}
