//! Thousands of client sockets on one thread.
//!
//! It knows how to speak, not what is said: it connects, upgrades, splits what arrives into texts and answers, and
//! answers pings. As cheap as it can be, so that the receiving side weighs little on a machine shared with the server:
//! one buffer for all reads, one read a delivery, no copy of a frame that arrived whole.

use crate::{frame, http};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, SockAddr, Socket as RawSocket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Names a socket of one [`Net`]; never used twice.
pub(crate) type SocketId = usize;

/// What is spoken on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    /// HTTP/1.1, kept alive.
    Http,
    /// WebSocket after an HTTP upgrade.
    WebSocket,
    /// WebSocket frames from the first byte: what a bare loop sends.
    Frames,
}

/// How to connect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dial {
    pub(crate) to: SocketAddr,
    pub(crate) speech: Speech,
    /// The last byte of the source address 127.0.0.x: each has its own 28,000 ports.
    pub(crate) from: u8,
    /// Bytes of `SO_RCVBUF`; the kernel's choice if none.
    pub(crate) receive_buffer: Option<usize>,
}

impl Dial {
    /// One of many connections: spread over eight source addresses.
    pub(crate) fn nth(to: SocketAddr, speech: Speech, index: usize) -> Self {
        let from = u8::try_from(index % 8).map_or(1, |spread| spread + 1);
        Self {
            to,
            speech,
            from,
            receive_buffer: None,
        }
    }
}

/// What happened on a socket.
#[derive(Debug)]
pub(crate) enum Happening<'a> {
    /// Connected, and upgraded where that was asked for.
    Open,
    /// One text frame.
    Text(&'a [u8]),
    /// One HTTP answer.
    Answer { status: u16, body: &'a [u8] },
    /// The other side, or an error, ended it.
    Closed(String),
}

#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    speech: Speech,
    opened: bool,
    upgraded: bool,
    paused: bool,
    /// Received but not yet whole.
    inbox: Vec<u8>,
    /// Given to send but not yet taken by the kernel.
    outbox: Vec<u8>,
}

/// All sockets of this program's one client thread.
#[derive(Debug)]
pub(crate) struct Net {
    poll: Poll,
    events: Events,
    sockets: Vec<Option<Socket>>,
    scratch: Vec<u8>,
}

impl Net {
    pub(crate) fn new() -> io::Result<Self> {
        let (poll, events) = (Poll::new()?, Events::with_capacity(1024));
        Ok(Self {
            poll,
            events,
            sockets: Vec::new(),
            scratch: vec![0; 64 * 1024],
        })
    }

    /// Begins to connect; [`Happening::Open`] follows.
    pub(crate) fn dial(&mut self, dial: Dial) -> io::Result<SocketId> {
        let raw = RawSocket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        raw.set_tcp_nodelay(true)?;
        if let Some(bytes) = dial.receive_buffer {
            raw.set_recv_buffer_size(bytes)?;
        }
        raw.bind(&SockAddr::from(SocketAddr::from((
            Ipv4Addr::new(127, 0, 0, dial.from),
            0,
        ))))?;
        match raw.connect(&SockAddr::from(dial.to)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(115) || error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let mut stream = TcpStream::from_std(raw.into());
        let id = self.sockets.len();
        self.poll
            .registry()
            .register(&mut stream, Token(id), Interest::READABLE | Interest::WRITABLE)?;
        let outbox = if dial.speech == Speech::WebSocket {
            http::upgrade(dial.to)
        } else {
            Vec::new()
        };
        let (opened, upgraded, paused) = (false, false, false);
        self.sockets.push(Some(Socket {
            stream,
            speech: dial.speech,
            opened,
            upgraded,
            paused,
            inbox: Vec::new(),
            outbox,
        }));
        Ok(id)
    }

    /// Sends these bytes, now if the kernel takes them, else as soon as it does.
    pub(crate) fn send(&mut self, id: SocketId, bytes: &[u8]) -> io::Result<()> {
        let socket = self
            .sockets
            .get_mut(id)
            .and_then(Option::as_mut)
            .ok_or(ErrorKind::NotConnected)?;
        if socket.opened && socket.outbox.is_empty() {
            let sent = write_some(&mut socket.stream, bytes)?;
            socket.outbox.extend_from_slice(&bytes[sent..]);
        } else {
            socket.outbox.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Stops reading: the kernel's buffers fill, then the server's socket does.
    pub(crate) fn pause(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(id).and_then(Option::as_mut) {
            socket.paused = true;
        }
    }

    /// Reads again. What had gathered arrives with the next [`Self::turn`].
    pub(crate) fn resume(&mut self, id: SocketId) -> io::Result<()> {
        if let Some(socket) = self.sockets.get_mut(id).and_then(Option::as_mut) {
            socket.paused = false;
            // Edge-triggered: registering anew reports what is readable already.
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .reregister(&mut socket.stream, Token(id), interest)?;
        }
        Ok(())
    }

    /// Closes at once, without a close frame: what a cut cable looks like to this side.
    pub(crate) fn cut(&mut self, id: SocketId) {
        if let Some(slot) = self.sockets.get_mut(id) {
            *slot = None;
        }
    }

    /// Waits up to `timeout` for something to happen and tells all of it.
    pub(crate) fn turn(
        &mut self,
        timeout: Option<Duration>,
        mut told: impl FnMut(SocketId, Happening<'_>),
    ) -> io::Result<()> {
        let Self {
            poll,
            events,
            sockets,
            scratch,
        } = self;
        match poll.poll(events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &*events {
            let id = event.token().0;
            let Some(socket) = sockets.get_mut(id).and_then(Option::as_mut) else {
                continue;
            };
            let mut tell = |happening: Happening<'_>| told(id, happening);
            let done = if event.is_writable() || event.is_error() {
                socket.flush(&mut tell)
            } else {
                Ok(())
            };
            let readable = (event.is_readable() || event.is_read_closed()) && !socket.paused;
            let done = match done {
                Ok(()) if readable => socket.read(scratch, event.is_read_closed(), &mut tell),
                done => done,
            };
            if let Err(why) = done {
                sockets[id] = None;
                told(id, Happening::Closed(why));
            }
        }
        Ok(())
    }
}

impl Socket {
    fn flush(&mut self, tell: &mut impl FnMut(Happening<'_>)) -> Result<(), String> {
        if !self.opened {
            if let Some(error) = self.stream.take_error().map_err(|error| error.to_string())? {
                return Err(error.to_string());
            }
            self.opened = true;
            if self.speech != Speech::WebSocket {
                tell(Happening::Open);
            }
        }
        if !self.outbox.is_empty() {
            let sent = write_some(&mut self.stream, &self.outbox).map_err(|error| error.to_string())?;
            self.outbox.drain(..sent);
            if self.outbox.is_empty() {
                self.outbox = Vec::new();
            }
        }
        Ok(())
    }

    fn read(
        &mut self,
        scratch: &mut [u8],
        to_the_end: bool,
        tell: &mut impl FnMut(Happening<'_>),
    ) -> Result<(), String> {
        loop {
            let read = match self.stream.read(scratch) {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.to_string()),
            };
            if self.inbox.is_empty() {
                let used = self.consume(&scratch[..read], tell)?;
                self.inbox.extend_from_slice(&scratch[used..read]);
            } else {
                let mut inbox = std::mem::take(&mut self.inbox);
                inbox.extend_from_slice(&scratch[..read]);
                let used = self.consume(&inbox, tell)?;
                inbox.drain(..used);
                self.inbox = inbox;
            }
            // A short read means that the socket is drained: the next bytes make a new event.
            if read < scratch.len() && !to_the_end {
                return Ok(());
            }
        }
    }

    /// Tells all that is whole in `bytes` and returns its length.
    fn consume(&mut self, bytes: &[u8], tell: &mut impl FnMut(Happening<'_>)) -> Result<usize, String> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            if rest.is_empty() {
                return Ok(used);
            }
            let length = match self.speech {
                Speech::Http => http::answer(rest, |status, body| tell(Happening::Answer { status, body }))?
                    .map(|((), length)| length),
                Speech::WebSocket if !self.upgraded => self.upgrade(rest, tell)?,
                Speech::WebSocket | Speech::Frames => self.frame(rest, tell)?,
            };
            match length {
                Some(length) => used += length,
                None => return Ok(used),
            }
        }
    }

    fn upgrade(&mut self, bytes: &[u8], tell: &mut impl FnMut(Happening<'_>)) -> Result<Option<usize>, String> {
        let Some((length, status, text)) = http::head(bytes)? else {
            return Ok(None);
        };
        if status != 101 || http::header(text, "sec-websocket-accept") != Some(frame::ACCEPT) {
            return Err(format!("not upgraded: {text:?}"));
        }
        self.upgraded = true;
        tell(Happening::Open);
        Ok(Some(length))
    }

    fn frame(&mut self, bytes: &[u8], tell: &mut impl FnMut(Happening<'_>)) -> Result<Option<usize>, String> {
        let Some((frame, length)) = frame::parse(bytes)? else {
            return Ok(None);
        };
        match frame {
            frame::Frame::Text(text) => tell(Happening::Text(text)),
            frame::Frame::Ping(payload) => {
                self.outbox.extend_from_slice(&frame::pong(payload));
                self.flush(tell)?;
            }
            frame::Frame::Pong => {}
            frame::Frame::Close(code, reason) => {
                return Err(format!(
                    "the server closed with {code} {}",
                    String::from_utf8_lossy(reason)
                ));
            }
        }
        Ok(Some(length))
    }
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
