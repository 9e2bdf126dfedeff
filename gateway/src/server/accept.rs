//! Accepting connections and dealing them out.

use super::admission::{Admission, Permit};
use crate::jitter;
use crate::node::Node;
use crate::problem::Refusal;
use crate::telemetry::Limit;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tidings_protocol::error::Code;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

/// How many connections are accepted before other work gets a turn.
const BURST: usize = 64;
/// The pause after a failure that trying again at once would only repeat.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection on its way to a thread.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, not yet known to any runtime.
    pub stream: TcpStream,
    /// Who connected.
    pub peer: SocketAddr,
    /// Its place among the open connections.
    pub permit: Permit,
    /// It came to the operators' listener.
    pub operator: bool,
}

/// Opens the listening socket.
///
/// # Errors
/// If the address is taken or not ours.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    // Lets a restart take the port while old connections linger; it does not let two servers share it.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Accepts until the node drains, dealing connections out to `threads` in turn.
///
/// # Errors
/// If the socket cannot be watched.
pub async fn accept(
    listener: TcpListener,
    operator: bool,
    node: Arc<Node>,
    admission: Arc<Admission>,
    threads: Vec<mpsc::UnboundedSender<Accepted>>,
) -> io::Result<()> {
    #[expect(
        deprecated,
        reason = "its successor is unsafe code; a TcpListener keeps its descriptor as I/O safety asks"
    )]
    let listener = AsyncFd::new(listener)?;
    let mut draining = node.draining.subscribe();
    let mut acceptor = Acceptor {
        // Plain words mean nothing where TLS is spoken.
        courteous: operator || node.tls.is_none(),
        operator,
        node,
        admission,
        threads,
        next: 0,
        reserve: File::open("/dev/null").ok(),
    };
    loop {
        tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => return Ok(()),
            ready = listener.readable() => {
                let mut ready = ready?;
                let mut pause = false;
                for _ in 0..BURST {
                    match ready.try_io(|listener| listener.get_ref().accept()) {
                        Ok(Ok((stream, peer))) => acceptor.deal(stream, peer),
                        Ok(Err(error)) => {
                            pause = acceptor.failed(&error, listener.get_ref());
                            break;
                        }
                        Err(_would_block) => break,
                    }
                }
                if pause {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

struct Acceptor {
    node: Arc<Node>,
    admission: Arc<Admission>,
    threads: Vec<mpsc::UnboundedSender<Accepted>>,
    next: usize,
    operator: bool,
    courteous: bool,
    // A descriptor kept back: given up, it lets one connection be taken and closed when there are none left.
    reserve: Option<File>,
}

impl Acceptor {
    fn deal(&mut self, stream: TcpStream, peer: SocketAddr) {
        let permit = match self.admission.admit(peer.ip()) {
            Ok(permit) => permit,
            Err(limit) => return self.turn_away(stream, limit),
        };
        self.node.metrics.accepted.inc();
        if stream
            .set_nonblocking(true)
            .and_then(|()| stream.set_nodelay(true))
            .is_err()
        {
            return;
        }
        self.next = (self.next + 1) % self.threads.len();
        if let Some(thread) = self.threads.get(self.next) {
            let operator = self.operator;
            // A closed channel means that the process is ending.
            _ = thread.send(Accepted {
                stream,
                peer,
                permit,
                operator,
            });
        }
    }

    fn turn_away(&self, stream: TcpStream, limit: Limit) {
        if self.courteous {
            turn_away(stream, limit);
        }
    }

    /// Whether to pause before the next try.
    fn failed(&mut self, error: &io::Error, listener: &TcpListener) -> bool {
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
        ) {
            // That one connection is gone; the next may be fine.
            return false;
        }
        self.node.metrics.accept_errors.inc();
        tracing::warn!(%error, "cannot accept connections; pausing");
        if [Errno::MFILE, Errno::NFILE]
            .iter()
            .any(|none_left| error.raw_os_error() == Some(none_left.raw_os_error()))
        {
            self.node.metrics.refused(Limit::Connections);
            drop(self.reserve.take());
            if let Ok((stream, _)) = listener.accept() {
                self.turn_away(stream, Limit::Connections);
            }
            self.reserve = File::open("/dev/null").ok();
        }
        true
    }
}

/// Tells a connection beyond a limit why, as far as one write goes, and closes it.
pub(super) fn turn_away(mut stream: TcpStream, limit: Limit) {
    let detail = format!("too many connections (limits.{})", limit.name());
    let body = Refusal::new(Code::TooMany, detail).document();
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/problem+json\r\nretry-after: {}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        jitter::wait_s(Code::TooMany),
        body.len()
    );
    // All of it is courtesy: whatever fails, the connection is closed.
    _ = stream.set_nonblocking(true);
    _ = stream.write(&[answer.as_bytes(), &body].concat());
    _ = stream.shutdown(Shutdown::Write);
    // Unread bytes would turn the close into a reset, which may overtake the answer.
    _ = stream.read(&mut [0; 4096]);
}
