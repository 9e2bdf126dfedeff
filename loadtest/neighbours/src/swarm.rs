//! All subscribers in one thread: connects them, reads what they are told, cuts some off for a while and brings them back.

use crate::load::Load;
use crate::publisher::{Intervals, micros};
use crate::session::{self, MOST_PENDING, Told};
use crate::system::System;
use crate::tally::{Ledger, Message, Tally};
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use tidings_report::record::{Counts, Interval, kind};

/// Connections opened before the answers of those before are read: fewer than any listener's backlog.
const AT_ONCE: usize = 64;
/// How long subscribers may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(20);

/// What others may know while it goes on.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Notices received so far.
    pub(crate) delivered: AtomicU64,
    /// When to cut, in microseconds since the start of the run; 0 for never.
    pub(crate) cut_us: AtomicU64,
    /// Set when nothing more is wanted.
    pub(crate) stop: AtomicBool,
}

/// What the subscribers were told.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) intervals: Vec<Interval>,
    pub(crate) warnings: Vec<String>,
    subscribers: Vec<Subscriber>,
}

impl Outcome {
    /// Counts what was due and what was never told.
    pub(crate) fn settle(&self, ledger: &Ledger) -> Counts {
        let mut counts = Counts::default();
        for subscriber in &self.subscribers {
            subscriber.tally.settle(&subscriber.objects, ledger, &mut counts);
        }
        counts
    }
}

#[derive(Debug)]
struct Subscriber {
    session: session::Subscriber,
    /// Ascending.
    objects: Vec<u32>,
    tally: Tally,
    stream: Option<TcpStream>,
    pending: Vec<u8>,
    /// When its connection was asked for the subscriptions: what was sent before is caught up with, not delivered live.
    asked_us: u64,
    ready: bool,
}

/// Connects all, says so once they are ready, and goes on until told to stop.
///
/// # Errors
/// When they cannot all be connected and subscribed.
pub(crate) fn subscribe(
    system: System,
    address: SocketAddr,
    load: &Load,
    began: Instant,
    shared: &Shared,
    ready: &Sender<()>,
) -> io::Result<Outcome> {
    let mut swarm = Swarm {
        address,
        began,
        poll: Poll::new()?,
        events: Events::with_capacity(1_024),
        subscribers: Vec::new(),
        intervals: Intervals::default(),
        connected: 0,
        waiting: 0,
        warnings: Vec::new(),
        delivered: 0,
    };
    for number in 0..load.subscribers {
        let objects = load.watches(number);
        swarm.subscribers.push(Subscriber {
            tally: Tally::new(objects.len()),
            session: session::Subscriber::new(system, objects.clone()),
            objects,
            stream: None,
            pending: Vec::new(),
            asked_us: 0,
            ready: false,
        });
    }
    let all: Vec<usize> = (0..swarm.subscribers.len()).collect();
    swarm.connect(&all)?;
    let _ = ready.send(());
    let cut: Vec<usize> = (0..load.cut_off() as usize).collect();
    let mut back_us = None;
    while !shared.stop.load(Ordering::Acquire) {
        swarm.serve(TICK)?;
        shared.delivered.store(swarm.delivered, Ordering::Release);
        let now_us = micros(began);
        let cut_us = shared.cut_us.load(Ordering::Acquire);
        if cut_us > 0 && now_us >= cut_us && back_us.is_none() {
            swarm.cut(&cut);
            back_us = Some(now_us + u64::try_from(load.away.as_micros()).unwrap_or(u64::MAX));
        }
        if back_us.is_some_and(|back| back != u64::MAX && now_us >= back) {
            back_us = Some(u64::MAX);
            swarm.intervals.counts(now_us).reconnects += cut.len() as u64;
            swarm.connect(&cut)?;
        }
    }
    Ok(Outcome {
        intervals: swarm.intervals.finish(),
        warnings: swarm.warnings,
        subscribers: swarm.subscribers,
    })
}

struct Swarm {
    address: SocketAddr,
    began: Instant,
    poll: Poll,
    events: Events,
    subscribers: Vec<Subscriber>,
    intervals: Intervals,
    connected: u64,
    /// Subscribers that asked and are not ready.
    waiting: usize,
    warnings: Vec<String>,
    delivered: u64,
}

impl Swarm {
    /// Connects these and waits until their subscriptions are in place.
    fn connect(&mut self, which: &[usize]) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for some in which.chunks(AT_ONCE) {
            for at in some {
                self.open(*at)?;
            }
            self.serve(Duration::ZERO)?;
        }
        while self.waiting > 0 {
            if Instant::now() > deadline {
                let why = self.warnings.last().cloned().unwrap_or_default();
                return Err(io::Error::other(format!(
                    "{} subscribers are not ready: {why}",
                    self.waiting
                )));
            }
            self.serve(TICK)?;
        }
        Ok(())
    }

    fn open(&mut self, at: usize) -> io::Result<()> {
        let from_us = micros(self.began);
        let mut stream = std::net::TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        let subscriber = &mut self.subscribers[at];
        let connected_us = micros(self.began);
        stream.write_all(&subscriber.session.opening())?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll
            .registry()
            .register(&mut stream, Token(at), Interest::READABLE)?;
        subscriber.stream = Some(stream);
        subscriber.pending.clear();
        subscriber.asked_us = connected_us;
        subscriber.ready = false;
        self.waiting += 1;
        self.connected += 1;
        self.intervals.counts(connected_us).connects += 1;
        self.intervals
            .latency(connected_us, kind::CONNECT, connected_us - from_us);
        self.intervals.connections(connected_us, self.connected);
        Ok(())
    }

    /// Goes away without a word, as a network does.
    fn cut(&mut self, which: &[usize]) {
        for at in which {
            self.close(*at);
        }
        let now_us = micros(self.began);
        self.intervals.counts(now_us).disconnects += which.len() as u64;
    }

    fn close(&mut self, at: usize) {
        let subscriber = &mut self.subscribers[at];
        if let Some(mut stream) = subscriber.stream.take() {
            let _ = self.poll.registry().deregister(&mut stream);
            let _ = stream.shutdown(Shutdown::Both);
            self.connected -= 1;
            self.waiting -= usize::from(!subscriber.ready);
            subscriber.ready = true;
            self.intervals.connections(micros(self.began), self.connected);
        }
    }

    /// Reads whatever has come, waiting at most so long for something.
    fn serve(&mut self, wait: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let woken: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for at in woken {
            if let Err(why) = self.receive(at) {
                if self.warnings.len() < 5 {
                    self.warnings
                        .push(format!("subscriber {at} lost its connection: {why}"));
                }
                let now_us = micros(self.began);
                self.intervals.counts(now_us).errors += 1;
                self.intervals.counts(now_us).disconnects += 1;
                self.close(at);
            }
        }
        Ok(())
    }

    fn receive(&mut self, at: usize) -> Result<(), String> {
        let mut piece = [0_u8; 65_536];
        loop {
            let Some(subscriber) = self.subscribers.get_mut(at) else {
                return Ok(());
            };
            let Some(stream) = &mut subscriber.stream else {
                return Ok(());
            };
            let n = match stream.read(&mut piece) {
                Ok(0) => return Err("closed by the server".to_owned()),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.to_string()),
            };
            let whole = n < piece.len();
            self.take(at, &piece[..n])?;
            if whole {
                return Ok(());
            }
        }
    }

    /// Hands bytes to the session; what is the beginning of something waits for the rest.
    fn take(&mut self, at: usize, bytes: &[u8]) -> Result<(), String> {
        let now_us = micros(self.began);
        let subscriber = &mut self.subscribers[at];
        let mut pending = std::mem::take(&mut subscriber.pending);
        let bytes = if pending.is_empty() {
            bytes
        } else {
            pending.extend_from_slice(bytes);
            &pending
        };
        let (tally, intervals, objects) = (&mut subscriber.tally, &mut self.intervals, &subscriber.objects);
        let mut answer = Vec::new();
        let mut is_ready = false;
        let mut delivered = 0;
        let asked_us = subscriber.asked_us;
        intervals.counts(now_us).bytes_received += bytes.len() as u64;
        let read = subscriber.session.read(bytes, &mut |told| match told {
            Told::Ready => is_ready = true,
            Told::Answer(bytes) => answer.extend(bytes),
            Told::Message { payload, version } => {
                delivered += 1;
                let Some(message) = Message::parse(payload) else {
                    intervals.counts(now_us).phantoms += 1;
                    return;
                };
                if !tally.message(objects, message, version, intervals.counts(now_us)) {
                    return;
                }
                if message.sent_us < asked_us {
                    intervals.latency(now_us, kind::CATCH_UP, now_us.saturating_sub(asked_us));
                } else {
                    intervals.latency(now_us, kind::DELIVER, now_us.saturating_sub(message.due_us));
                    intervals.latency(now_us, kind::SERVICE, now_us.saturating_sub(message.sent_us));
                }
            }
            Told::Changed { object, version } => {
                delivered += 1;
                tally.changed(objects, object, version, intervals.counts(now_us));
                intervals.latency(now_us, kind::CATCH_UP, now_us.saturating_sub(asked_us));
            }
            Told::Resync(named) => tally.resync(objects, named.as_deref(), now_us, intervals.counts(now_us)),
            Told::Accepted { .. } | Told::Refused(_) => {}
        });
        let used = read.map_err(|broken| broken.to_string())?;
        self.delivered += delivered;
        if bytes.len() - used > MOST_PENDING {
            return Err("a message without an end".to_owned());
        }
        subscriber.pending = bytes[used..].to_vec();
        if is_ready && !subscriber.ready {
            subscriber.ready = true;
            self.waiting -= 1;
            intervals.counts(now_us).subscribes += objects.len() as u64;
            intervals.latency(now_us, kind::SUBSCRIBE, now_us.saturating_sub(subscriber.asked_us));
        }
        if let Some(stream) = subscriber.stream.as_mut().filter(|_| !answer.is_empty()) {
            // Small, and the socket's buffer is empty: it fits, or the connection is of no use.
            stream.write_all(&answer).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
