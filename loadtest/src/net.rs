//! Thousands of client sockets on one thread. It connects, reads and writes; what the bytes mean is others' business.
//!
//! An idle connection costs a slot of some 90 bytes here: all reads share one buffer of the caller's, and what a
//! connection holds back is freed as soon as it is whole.

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Names a connection; never used for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnId(u64);

impl ConnId {
    /// No connection at all.
    pub(crate) const NONE: Self = Self(u64::MAX);

    fn slot(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    fn token(self) -> Token {
        Token(self.0 as usize)
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Subscriber(u32),
    Publisher(u32),
}

const WAKER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);
/// Connections of one source address; the kernel has some 28,000 ports for each.
const PER_SOURCE: usize = 20_000;
const EVENTS: usize = 1_024;

#[derive(Debug)]
struct Slot {
    stream: TcpStream,
    id: ConnId,
    role: Role,
    opened: bool,
    paused: bool,
    /// Received but not yet whole.
    inbox: Vec<u8>,
    /// Given to send but not yet taken by the kernel.
    outbox: Vec<u8>,
}

/// What the poll said of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) id: ConnId,
    pub(crate) role: Role,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The other side sends no more: read to the end.
    pub(crate) closed: bool,
}

/// How much is in the buffer after a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    /// With what was held back.
    pub(crate) length: usize,
    /// What came now; 0: nothing, and the socket is drained.
    pub(crate) new: usize,
}

/// How a connection is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dial {
    pub(crate) to: SocketAddr,
    pub(crate) role: Role,
    /// Bytes of `SO_RCVBUF`; the kernel's choice if none.
    pub(crate) receive_buffer: Option<usize>,
}

/// All sockets of one thread.
#[derive(Debug)]
pub(crate) struct Net {
    poll: Poll,
    events: Events,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    generation: u32,
    dialled: usize,
    open: usize,
    timer: OwnedFd,
    timer_us: u64,
    /// Spreads the sources of several threads.
    offset: usize,
}

impl Net {
    pub(crate) fn new(offset: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        // The poll sleeps in whole milliseconds; a timer of the kernel's wakes to some ten microseconds.
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let mut source = mio::unix::SourceFd(&timer.as_raw_fd());
        poll.registry().register(&mut source, TIMER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            slots: Vec::new(),
            free: Vec::new(),
            generation: 0,
            dialled: 0,
            open: 0,
            timer,
            timer_us: 0,
            offset,
        })
    }

    /// Wakes this thread's [`Self::wait`] from another.
    pub(crate) fn waker(&self) -> io::Result<Arc<Waker>> {
        Waker::new(self.poll.registry(), WAKER).map(Arc::new)
    }

    /// Begins to connect.
    pub(crate) fn dial(&mut self, dial: Dial) -> io::Result<ConnId> {
        let domain = Domain::for_address(dial.to);
        let raw = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        raw.set_tcp_nodelay(true)?;
        if let Some(bytes) = dial.receive_buffer {
            raw.set_recv_buffer_size(bytes)?;
        }
        if let Some(source) = self.source(dial.to) {
            raw.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
        }
        match raw.connect(&SockAddr::from(dial.to)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        let mut stream = TcpStream::from_std(raw.into());
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        // The top bit stays clear of the tokens above.
        self.generation = (self.generation + 1) & 0x7fff_ffff;
        let id = ConnId(u64::from(self.generation) << 32 | u64::from(slot));
        let registered =
            self.poll
                .registry()
                .register(&mut stream, id.token(), Interest::READABLE | Interest::WRITABLE);
        if let Err(error) = registered {
            self.free.push(slot);
            return Err(error);
        }
        self.slots[slot as usize] = Some(Slot {
            stream,
            id,
            role: dial.role,
            opened: false,
            paused: false,
            inbox: Vec::new(),
            outbox: Vec::new(),
        });
        self.dialled += 1;
        self.open += 1;
        Ok(id)
    }

    /// Ports run out by source address; loopback has sixteen million of these.
    fn source(&self, to: SocketAddr) -> Option<IpAddr> {
        let IpAddr::V4(to) = to.ip() else { return None };
        if !to.is_loopback() {
            return None;
        }
        let nth = (self.offset + self.open) / PER_SOURCE + (self.dialled % 4) * 32;
        let nth = u8::try_from(nth % 250).unwrap_or(0);
        Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, nth + 1)))
    }

    fn slot(&mut self, id: ConnId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id.slot())?.as_mut()?;
        (slot.id == id).then_some(slot)
    }

    /// How many are open or being opened.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Waits up to `timeout` for something to happen and appends what did.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            match event.token() {
                WAKER => {}
                TIMER => {
                    // It must be read to ring again.
                    let mut count = [0; 8];
                    let _ = rustix::io::read(&self.timer, &mut count);
                    self.timer_us = 0;
                }
                token => ready.extend(told(&self.slots, token, event)),
            }
        }
        Ok(())
    }

    /// Makes [`Self::wait`] return at this time of the monotonic clock, however long it was told to wait.
    pub(crate) fn wake_at(&mut self, at_us: u64) -> io::Result<()> {
        if self.timer_us == at_us {
            return Ok(());
        }
        let time = Timespec {
            tv_sec: (at_us / 1_000_000) as i64,
            tv_nsec: (at_us % 1_000_000 * 1_000) as i64,
        };
        let spec = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: time,
        };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec)?;
        self.timer_us = at_us;
        Ok(())
    }

    /// Whether the connection stands; the first time it does, `true` is told once.
    pub(crate) fn opened(&mut self, id: ConnId) -> Result<bool, String> {
        let Some(slot) = self.slot(id) else { return Ok(false) };
        if slot.opened {
            return Ok(false);
        }
        match slot.stream.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Err(error.to_string()),
        }
        if slot.stream.peer_addr().is_err() {
            return Ok(false);
        }
        slot.opened = true;
        Ok(true)
    }

    /// Sends these bytes, now if the kernel takes them, else as soon as it does.
    pub(crate) fn send(&mut self, id: ConnId, bytes: &[u8]) -> Result<(), String> {
        let Some(slot) = self.slot(id) else { return Ok(()) };
        let sent = if slot.opened && slot.outbox.is_empty() {
            write_some(&mut slot.stream, bytes).map_err(|error| error.to_string())?
        } else {
            0
        };
        slot.outbox.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Whether all that was given to send has been taken.
    pub(crate) fn is_sent(&mut self, id: ConnId) -> bool {
        self.slot(id).is_some_and(|slot| slot.opened && slot.outbox.is_empty())
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self, id: ConnId) -> Result<(), String> {
        let Some(slot) = self.slot(id) else { return Ok(()) };
        if slot.opened && !slot.outbox.is_empty() {
            let sent = write_some(&mut slot.stream, &slot.outbox).map_err(|error| error.to_string())?;
            slot.outbox.drain(..sent);
            if slot.outbox.is_empty() {
                slot.outbox = Vec::new();
            }
        }
        Ok(())
    }

    /// Reads at most `limit` bytes behind what was held back before. The buffer only grows, so that nothing is cleared twice.
    pub(crate) fn read(&mut self, id: ConnId, buffer: &mut Vec<u8>, limit: usize) -> Result<Got, String> {
        let nothing = Got { length: 0, new: 0 };
        let Some(slot) = self.slot(id) else { return Ok(nothing) };
        if slot.paused {
            return Ok(nothing);
        }
        let start = slot.inbox.len();
        if buffer.len() < start + limit {
            buffer.resize(start + limit, 0);
        }
        buffer[..start].copy_from_slice(&slot.inbox);
        loop {
            match slot.stream.read(&mut buffer[start..start + limit]) {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(new) => {
                    slot.inbox = Vec::new();
                    let length = start + new;
                    return Ok(Got { length, new });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(nothing),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Holds bytes back that are not whole yet.
    pub(crate) fn hold(&mut self, id: ConnId, bytes: &[u8]) {
        if let Some(slot) = self.slot(id)
            && !bytes.is_empty()
        {
            slot.inbox = bytes.to_vec();
        }
    }

    /// Stops reading: the kernel's buffers fill, then the server's socket does.
    pub(crate) fn pause(&mut self, id: ConnId) {
        if let Some(slot) = self.slot(id) {
            slot.paused = true;
        }
    }

    /// Reads again; what had gathered is reported by the next [`Self::wait`].
    pub(crate) fn resume(&mut self, id: ConnId) -> io::Result<()> {
        let Some(slot) = self.slots.get_mut(id.slot()).and_then(Option::as_mut) else {
            return Ok(());
        };
        if slot.id == id && slot.paused {
            slot.paused = false;
            // Edge-triggered: registering anew reports what is readable already.
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .reregister(&mut slot.stream, id.token(), interest)?;
        }
        Ok(())
    }

    /// Closes at once, without a farewell: what a cut cable looks like to this side.
    pub(crate) fn cut(&mut self, id: ConnId) {
        let is_there = self.slot(id).is_some();
        if is_there && let Some(mut slot) = self.slots[id.slot()].take() {
            // A closed descriptor leaves the poll by itself; what goes wrong here has no consequence.
            let _ = self.poll.registry().deregister(&mut slot.stream);
            self.free.push(id.slot() as u32);
            self.open -= 1;
        }
    }
}

fn told(slots: &[Option<Slot>], token: Token, event: &Event) -> Option<Ready> {
    let id = ConnId(token.0 as u64);
    let slot = slots.get(id.slot())?.as_ref().filter(|slot| slot.id == id)?;
    Some(Ready {
        id,
        role: slot.role,
        readable: event.is_readable() || event.is_read_closed() || event.is_error(),
        writable: event.is_writable() || event.is_error(),
        closed: event.is_read_closed() || event.is_error(),
    })
}

fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(written) => sent += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A connection, and its other end.
    fn pair() -> (Net, ConnId, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut net = Net::new(0).expect("a poll");
        let dial = Dial {
            to: listener.local_addr().expect("an address"),
            role: Role::Subscriber(7),
            receive_buffer: None,
        };
        let id = net.dial(dial).expect("dialled");
        let (other, _) = listener.accept().expect("accepted");
        while !net.opened(id).expect("no error") {
            net.wait(Some(Duration::from_millis(10)), &mut Vec::new())
                .expect("waits");
        }
        (net, id, other)
    }

    /// Reads until something has come.
    fn read(net: &mut Net, id: ConnId) -> Vec<u8> {
        let mut buffer = Vec::new();
        loop {
            let got = net.read(id, &mut buffer, 16).expect("readable");
            if got.new > 0 {
                return buffer[..got.length].to_vec();
            }
            net.wait(Some(Duration::from_millis(10)), &mut Vec::new())
                .expect("waits");
        }
    }

    #[test]
    fn what_is_held_back_comes_again_in_front_of_what_follows() {
        let (mut net, id, mut other) = pair();
        other.write_all(b"ab").expect("sent");
        assert_eq!(read(&mut net, id), b"ab");
        net.hold(id, b"b");
        other.write_all(b"c").expect("sent");
        assert_eq!(read(&mut net, id), b"bc");
        other.write_all(b"d").expect("sent");
        assert_eq!(read(&mut net, id), b"d");
    }

    #[test]
    fn a_paused_connection_is_read_only_after_it_was_resumed_and_is_reported_then() {
        let (mut net, id, mut other) = pair();
        net.pause(id);
        other.write_all(b"late").expect("sent");
        let mut ready = Vec::new();
        net.wait(Some(Duration::from_millis(100)), &mut ready).expect("waits");
        assert_eq!(net.read(id, &mut Vec::new(), 16), Ok(Got { length: 0, new: 0 }));
        net.resume(id).expect("resumed");
        ready.clear();
        while !ready.iter().any(|ready| ready.id == id && ready.readable) {
            net.wait(Some(Duration::from_millis(10)), &mut ready).expect("waits");
        }
        assert_eq!(read(&mut net, id), b"late");
    }

    #[test]
    fn a_connection_that_was_cut_is_no_other_ones_even_in_the_same_slot() {
        let (mut net, old, other) = pair();
        let to = other.local_addr().expect("an address");
        net.cut(old);
        assert_eq!(net.open(), 0);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let dial = Dial {
            to: listener.local_addr().unwrap_or(to),
            role: Role::Publisher(1),
            receive_buffer: None,
        };
        let new = net.dial(dial).expect("dialled");
        assert_eq!(new.slot(), old.slot());
        net.cut(old);
        assert_eq!(net.open(), 1, "the new one is still there");
    }

    #[test]
    fn the_timer_wakes_a_wait_that_was_to_last_for_ever() {
        let mut net = Net::new(0).expect("a poll");
        let at = crate::clock::now_us() + 20_000;
        net.wake_at(at).expect("set");
        net.wait(None, &mut Vec::new()).expect("waits");
        assert!(crate::clock::now_us() >= at);
    }

    #[test]
    fn many_loopback_connections_come_from_several_addresses() {
        let mut net = Net::new(0).expect("a poll");
        let to: SocketAddr = "127.0.0.1:7400".parse().expect("an address");
        let mut sources = std::collections::HashSet::new();
        for dialled in 0..100_000 {
            (net.dialled, net.open) = (dialled, dialled);
            sources.insert(net.source(to).expect("a source"));
        }
        assert!(sources.len() >= 4 * 5, "{}", sources.len());
        assert_eq!(net.source("192.0.2.1:7400".parse().expect("an address")), None);
    }
}
