//! The publisher: sends each change when it is due, whatever the answers (open loop), and matches them as they come.
//!
//! Two threads: one that sends, and waits for the moment by sleeping and, at the end, spinning; one that reads answers.

use crate::load::{Choice, Load};
use crate::session::{self, Told};
use crate::system::System;
use crate::tally::{Accepted, Ledger, Message};
use hdrhistogram::Histogram;
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tidings_report::record::{Counts, Distribution, Interval, kind};

/// Later than this after it was due counts as sent late.
const TOLERANCE_US: u64 = 1_000;
/// How much of a wait is spun: a sleeping thread wakes up some 60 µs late.
const SPIN: Duration = Duration::from_micros(150);
/// How long to wait for the last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// What became of the publishing.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) ledger: Ledger,
    pub(crate) intervals: Vec<Interval>,
    pub(crate) warnings: Vec<String>,
}

/// Publishes from `first_us` after `began` on; returns when the last change was answered, or is not answered any more.
///
/// # Errors
/// When there is no connection to begin with.
pub(crate) fn publish(
    system: System,
    address: SocketAddr,
    load: &Load,
    watched: Vec<u32>,
    (began, first_us): (Instant, u64),
    latest_us: &AtomicU64,
) -> io::Result<Published> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let publisher = session::Publisher::new(system);
    let waiting: Mutex<VecDeque<Option<Message>>> = Mutex::default();
    let mut sender = Sender {
        stream: stream.try_clone()?,
        publisher: &publisher,
        waiting: &waiting,
        began,
        intervals: Intervals::default(),
        latest_us,
    };
    sender.open()?;
    thread::scope(|scope| {
        let answers = scope.spawn(|| read_answers(&stream, &publisher, &waiting, began));
        let sent = sender.send_all(load, Choice::new(load, watched), first_us);
        let deadline = Instant::now() + LAST_ANSWERS;
        while !lock(&waiting).is_empty() && Instant::now() < deadline && !answers.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = stream.shutdown(Shutdown::Both);
        let mut published = answers.join().unwrap_or_default();
        let unanswered = lock(&waiting).len() as u64;
        sender.intervals.counts(micros(began)).publish_unknown += unanswered;
        published.intervals.extend(sender.intervals.finish());
        if let Err(error) = sent {
            published
                .warnings
                .push(format!("the publisher's connection broke: {error}"));
        }
        Ok(published)
    })
}

struct Sender<'a> {
    stream: TcpStream,
    publisher: &'a session::Publisher,
    waiting: &'a Mutex<VecDeque<Option<Message>>>,
    began: Instant,
    intervals: Intervals,
    latest_us: &'a AtomicU64,
}

impl Sender<'_> {
    fn open(&mut self) -> io::Result<()> {
        let answers = self.publisher.opening_answers();
        lock(self.waiting).extend(std::iter::repeat_n(None, answers));
        self.stream.write_all(&self.publisher.opening())
    }

    fn send_all(&mut self, load: &Load, mut choice: Choice, first_us: u64) -> io::Result<()> {
        let mut numbers: HashMap<u32, u32> = HashMap::new();
        let mut out = Vec::new();
        let mut n = 0;
        loop {
            let due = load.due(n);
            if due >= load.length {
                return Ok(());
            }
            let due_us = first_us + u64::try_from(due.as_micros()).unwrap_or(u64::MAX);
            wait_until(self.began + Duration::from_micros(due_us));
            let object = choice.next_object();
            let number = numbers.entry(object).or_default();
            *number += 1;
            let message = Message {
                object,
                number: *number,
                due_us,
                sent_us: micros(self.began),
            };
            self.note(message);
            out.clear();
            self.publisher.publish(object, &message.text(), &mut out);
            lock(self.waiting).push_back(Some(message));
            self.stream.write_all(&out)?;
            n += 1;
        }
    }

    fn note(&mut self, message: Message) {
        let late_us = message.sent_us.saturating_sub(message.due_us);
        self.latest_us.fetch_max(late_us, Ordering::Relaxed);
        let counts = self.intervals.counts(message.due_us);
        counts.intended += 1;
        counts.late_sends += u64::from(late_us > TOLERANCE_US);
        self.intervals.latency(message.due_us, kind::LATENESS, late_us);
    }
}

fn read_answers(
    mut stream: &TcpStream,
    publisher: &session::Publisher,
    waiting: &Mutex<VecDeque<Option<Message>>>,
    began: Instant,
) -> Published {
    let mut published = Published::default();
    let mut intervals = Intervals::default();
    let mut buffer = Vec::new();
    let mut piece = [0; 16_384];
    loop {
        let n = match stream.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        buffer.extend_from_slice(&piece[..n]);
        let now_us = micros(began);
        let mut reply = Vec::new();
        let read = publisher.read(&buffer, &mut |told| match told {
            Told::Accepted { version } => {
                if let Some(message) = lock(waiting).pop_front().flatten() {
                    intervals.counts(now_us).published += 1;
                    intervals.latency(now_us, kind::PUBLISH, now_us.saturating_sub(message.due_us));
                    published.ledger.entry(message.object).or_default().push(Accepted {
                        number: message.number,
                        version,
                        sent_us: message.sent_us,
                    });
                }
            }
            Told::Refused(why) => {
                lock(waiting).pop_front();
                intervals.counts(now_us).publish_failed += 1;
                if published.warnings.is_empty() {
                    published.warnings.push(format!("a publish was refused: {why}"));
                }
            }
            Told::Answer(bytes) => reply = bytes,
            Told::Ready | Told::Message { .. } | Told::Changed { .. } | Told::Resync(_) => {}
        });
        match read {
            Ok(used) => drop(buffer.drain(..used)),
            Err(broken) => {
                published
                    .warnings
                    .push(format!("the publisher's connection broke: {broken}"));
                break;
            }
        }
        if !reply.is_empty() && stream.write_all(&reply).is_err() {
            break;
        }
    }
    published.intervals = intervals.finish();
    published
}

/// Sleeps most of the way and spins the rest.
fn wait_until(moment: Instant) {
    loop {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if left > SPIN {
            thread::sleep(left - SPIN);
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Microseconds since the start of the run.
pub(crate) fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Collects intervals of a second, in order of time.
#[derive(Debug, Default)]
pub(crate) struct Intervals {
    current: Interval,
    latency: HashMap<&'static str, Histogram<u64>>,
    done: Vec<Interval>,
}

impl Intervals {
    /// The counters of the second of `at_us`; a moment before the last one counts into that one's second.
    pub(crate) fn counts(&mut self, at_us: u64) -> &mut Counts {
        self.turn(at_us);
        &mut self.current.counts
    }

    pub(crate) fn latency(&mut self, at_us: u64, kind: &'static str, us: u64) {
        self.turn(at_us);
        if !self.latency.contains_key(kind)
            && let Ok(histogram) = Histogram::new(3)
        {
            self.latency.insert(kind, histogram);
        }
        if let Some(histogram) = self.latency.get_mut(kind) {
            // It grows as far as it must; twelve days are enough for a bug.
            let _ = histogram.record(us.min(1 << 40));
        }
    }

    pub(crate) fn connections(&mut self, at_us: u64, connections: u64) {
        self.turn(at_us);
        self.current.connections = connections;
    }

    pub(crate) fn finish(mut self) -> Vec<Interval> {
        self.close();
        self.done
    }

    fn turn(&mut self, at_us: u64) {
        let at_ms = at_us / 1_000_000 * 1_000;
        if at_ms > self.current.at_ms {
            let connections = self.current.connections;
            self.close();
            self.current.at_ms = at_ms;
            self.current.connections = connections;
        }
    }

    fn close(&mut self) {
        for (kind, histogram) in &mut self.latency {
            if !histogram.is_empty() {
                self.current
                    .latency
                    .insert((*kind).to_owned(), Distribution::from(&*histogram));
                histogram.reset();
            }
        }
        self.done.push(std::mem::take(&mut self.current));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_collected_one_by_one() {
        let mut intervals = Intervals::default();
        intervals.counts(10).published += 1;
        intervals.connections(20, 5);
        intervals.latency(999_999, kind::PUBLISH, 40);
        intervals.counts(2_000_000).published += 2;
        intervals.counts(1_999_999).published += 4;
        intervals.latency(2_100_000, kind::PUBLISH, 50);
        let done = intervals.finish();
        let told: Vec<_> = done
            .iter()
            .map(|i| (i.at_ms, i.counts.published, i.connections))
            .collect();
        assert_eq!(told, [(0, 1, 5), (2_000, 6, 5)]);
        let longest: Vec<_> = done.iter().map(|i| i.latency[kind::PUBLISH].max_us()).collect();
        assert_eq!(longest, [40, 50]);
    }

    #[test]
    fn nobody_is_woken_before_the_moment() {
        let moment = Instant::now() + Duration::from_millis(3);
        wait_until(moment);
        assert!(Instant::now() >= moment);
    }
}
