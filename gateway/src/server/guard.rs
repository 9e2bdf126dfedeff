//! A TCP stream that gives up on peers who waste it: silent ones, those who drip a head, rest too long or never read.
//!
//! hyper's own deadline for heads also runs while a connection rests between two requests, so it would cut every
//! keep-alive publisher after five seconds (`poll_read_head` arms it as soon as a head *may* come). Here each phase has its
//! own deadline and all share one timer, which is moved only when it rings or has to ring earlier.

use super::admission::Permit;
use super::head::HeadScan;
use super::wire::Wire;
use crate::clock;
use crate::config::Limits;
use crate::telemetry::{Limit, Metrics};
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;

const AWAIT_FIRST_BYTE: u8 = 0;
const HEAD: u8 = 1;
const IN_REQUEST: u8 = 2;
const IDLE: u8 = 3;

const HEAD_NOT_SEEN: u8 = 0;
const HEAD_WITHOUT_LENGTH: u8 = 1;
const HEAD_WITH_LENGTH: u8 = 2;

/// What the stream and the service on top of it tell each other. Both live in one task; the atomics only satisfy `Send`.
#[derive(Debug)]
pub(super) struct Watch {
    phase: AtomicU8,
    since_us: AtomicU64,
    head: AtomicU8,
}

impl Watch {
    fn enter(&self, phase: u8) {
        self.phase.store(phase, Relaxed);
        self.since_us.store(clock::mono_us(), Relaxed);
    }

    /// A request's head was read. Says whether the head had a `Content-Length`; `None` if it arrived while an earlier
    /// request was under way and was not looked at.
    pub(super) fn request_began(&self) -> Option<bool> {
        self.phase.store(IN_REQUEST, Relaxed);
        match self.head.swap(HEAD_NOT_SEEN, Relaxed) {
            HEAD_WITHOUT_LENGTH => Some(false),
            HEAD_WITH_LENGTH => Some(true),
            _ => None,
        }
    }

    /// The answer's body was handed over.
    pub(super) fn request_ended(&self) {
        self.enter(IDLE);
    }

    /// Whether the peer has sent nothing at all so far.
    pub(super) fn silent(&self) -> bool {
        self.phase.load(Relaxed) == AWAIT_FIRST_BYTE
    }
}

/// The deadlines of the phases.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    first_byte: Duration,
    head: Duration,
    idle: Duration,
    write_stall: Duration,
}

impl Deadlines {
    /// As configured.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            first_byte: Duration::from_millis(limits.first_byte_ms),
            head: Duration::from_millis(limits.head_ms),
            idle: Duration::from_millis(limits.idle_ms),
            write_stall: Duration::from_millis(limits.write_stall_ms),
        }
    }
}

/// What carries a connection's bytes.
#[derive(Debug)]
pub(super) enum Carrier {
    /// In the clear.
    Plain(TcpStream),
    /// Through TLS, its handshake done.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection from a stranger.
#[derive(Debug)]
pub struct GuardedStream {
    stream: Carrier,
    watch: Arc<Watch>,
    deadlines: Deadlines,
    timer: Pin<Box<Sleep>>,
    armed: bool,
    stalled_since: Option<Instant>,
    scan: HeadScan,
    metrics: Arc<Metrics>,
    permit: Permit,
}

impl GuardedStream {
    /// Guards a connection that was just accepted.
    pub(super) fn new(stream: Carrier, deadlines: Deadlines, metrics: Arc<Metrics>, permit: Permit) -> Self {
        let watch = Watch {
            phase: AtomicU8::new(AWAIT_FIRST_BYTE),
            since_us: AtomicU64::new(clock::mono_us()),
            head: AtomicU8::new(HEAD_NOT_SEEN),
        };
        Self {
            stream,
            watch: Arc::new(watch),
            deadlines,
            timer: Box::pin(tokio::time::sleep(deadlines.first_byte)),
            armed: false,
            stalled_since: None,
            scan: HeadScan::default(),
            metrics,
            permit,
        }
    }

    pub(super) fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }

    /// The bare stream after an upgrade, and the connection's place among those allowed at once: keep the permit as long as
    /// the stream. No timer of the guard is left.
    #[must_use]
    pub fn into_parts(self) -> (Wire, Permit) {
        let wire = match self.stream {
            Carrier::Plain(stream) => Wire::new(stream, None),
            Carrier::Tls(stream) => {
                let (stream, tls) = stream.into_inner();
                Wire::new(stream, Some(tls))
            }
        };
        (wire, self.permit)
    }

    fn deadline(&self) -> Option<(Instant, Limit)> {
        let since = || clock::instant(self.watch.since_us.load(Relaxed));
        let phase = match self.watch.phase.load(Relaxed) {
            AWAIT_FIRST_BYTE => Some((since() + self.deadlines.first_byte, Limit::FirstByte)),
            HEAD => Some((since() + self.deadlines.head, Limit::Head)),
            IDLE => Some((since() + self.deadlines.idle, Limit::Idle)),
            _ => None,
        };
        let stall = self
            .stalled_since
            .map(|since| (since + self.deadlines.write_stall, Limit::WriteStall));
        match (phase, stall) {
            (Some(phase), Some(stall)) => Some(if stall.0 < phase.0 { stall } else { phase }),
            (phase, stall) => phase.or(stall),
        }
    }

    /// `Ready` once the connection has wasted its time.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some((deadline, limit)) = self.deadline() else {
            return Poll::Pending;
        };
        let rung = self.timer.is_elapsed();
        if self.armed && !rung && self.timer.deadline() <= deadline {
            // It rings early enough, and wakes this same task.
            return Poll::Pending;
        }
        if rung || self.timer.deadline() > deadline {
            if Instant::now() >= deadline {
                self.metrics.refused(limit);
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, limit.name()));
            }
            self.timer.as_mut().reset(deadline);
        }
        self.armed = true;
        match self.timer.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                self.metrics.refused(limit);
                Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, limit.name()))
            }
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        match self.watch.phase.load(Relaxed) {
            AWAIT_FIRST_BYTE | IDLE => {
                self.scan = HeadScan::default();
                self.watch.enter(HEAD);
            }
            HEAD => {}
            _ => return,
        }
        self.scan.feed(bytes);
        if let Some(length) = self.scan.verdict() {
            self.watch
                .head
                .store(if length { HEAD_WITH_LENGTH } else { HEAD_WITHOUT_LENGTH }, Relaxed);
        }
    }

    fn wrote(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if result.is_ready() {
            self.stalled_since = None;
            return result;
        }
        self.stalled_since.get_or_insert_with(Instant::now);
        Poll::Ready(Err(ready!(self.poll_deadline(cx))))
    }
}

/// Calls the same method of whatever carries.
macro_rules! carried {
    ($carrier:expr, $method:ident($($argument:expr),*)) => {
        match $carrier {
            Carrier::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Carrier::Tls(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
        }
    };
}

impl AsyncRead for GuardedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = carried!(&mut self.stream, poll_read(cx, buffer));
        match result {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                self.received(&buffer.filled()[before..]);
                result
            }
            Poll::Ready(_) => result,
            Poll::Pending => Poll::Ready(Err(ready!(self.poll_deadline(cx)))),
        }
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = carried!(&mut self.stream, poll_write(cx, bytes));
        self.wrote(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = carried!(&mut self.stream, poll_write_vectored(cx, parts));
        self.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Carrier::Plain(stream) => stream.is_write_vectored(),
            Carrier::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        carried!(&mut self.stream, poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        carried!(&mut self.stream, poll_shutdown(cx))
    }
}
