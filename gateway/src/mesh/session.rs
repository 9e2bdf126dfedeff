//! One connection while it lasts: frames out in the order in which they were handed over, frames in, heartbeats, an end.
//!
//! What is to be sent waits in an [`Outbox`] with a limit in bytes. It is drained into as few writes as the socket takes.
//! An outbox that is full ends the connection (rule R9: a link is cut, never thinned).

use super::handshake::Connection;
use super::sealed::{Came, OpenError, Opener, Sealer};
use super::{Limits, Peer};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Bytes that are sealed into one write.
const WRITE_BYTES: usize = 256 * 1024;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The other end closed it.
    #[error("the other end closed the connection")]
    Closed,
    /// This end closed it.
    #[error("closed here")]
    Dismissed,
    /// Nothing came for too long.
    #[error("nothing came for {0:?}")]
    Silent(std::time::Duration),
    /// More waited to be sent than may.
    #[error("more than {0} bytes waited to be sent")]
    Full(usize),
    /// What came cannot be read.
    #[error(transparent)]
    Unreadable(#[from] OpenError),
    /// The connection failed while it was written to.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// A frame made no sense to whoever got it.
    #[error("a frame makes no sense: {0}")]
    BadFrame(String),
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    full: bool,
    dismissed: bool,
}

/// What is to be sent on one connection. Cheap to clone; any thread may push.
#[derive(Clone, Debug)]
pub struct Outbox {
    shared: Arc<(Mutex<Waiting>, Notify)>,
    limit: usize,
}

impl Outbox {
    /// An empty one, for at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            shared: Arc::default(),
            limit,
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a frame over, behind all before it. `false` if the connection has ended or is about to, because too much
    /// waits: the frame will not arrive, and neither will any after it.
    pub fn push(&self, frame: Vec<u8>) -> bool {
        let mut waiting = self.waiting();
        if waiting.full || waiting.dismissed {
            return false;
        }
        if waiting.bytes + frame.len() > self.limit {
            waiting.full = true;
            waiting.frames.clear();
            waiting.bytes = 0;
        } else {
            waiting.bytes += frame.len();
            waiting.frames.push_back(frame);
        }
        let fine = !waiting.full;
        drop(waiting);
        self.shared.1.notify_one();
        fine
    }

    /// Ends the connection. What waits is not sent.
    pub fn dismiss(&self) {
        self.waiting().dismissed = true;
        self.shared.1.notify_one();
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.waiting().bytes
    }

    /// Moves some of what waits into the sealer.
    fn take(&self, sealer: &mut Sealer<impl AsyncWrite + Unpin>) -> Result<bool, End> {
        let mut frames = Vec::new();
        {
            let mut waiting = self.waiting();
            if waiting.dismissed {
                return Err(End::Dismissed);
            }
            if waiting.full {
                return Err(End::Full(self.limit));
            }
            let mut bytes = 0;
            while bytes < WRITE_BYTES
                && let Some(frame) = waiting.frames.pop_front()
            {
                bytes += frame.len();
                frames.push(frame);
            }
            waiting.bytes -= bytes;
        }
        for frame in &frames {
            sealer.seal(frame);
        }
        Ok(!frames.is_empty())
    }
}

/// Runs a connection until it ends and says why. `hear` is called with each frame in order; what it returns as an error
/// ends the connection.
pub async fn run(
    connection: Connection,
    limits: &Limits,
    outbox: &Outbox,
    hear: impl FnMut(Peer, &[u8]) -> Result<(), String>,
) -> End {
    let Connection { peer, sealer, opener } = connection;
    let end = tokio::select! {
        end = receive(peer, opener, limits, hear) => end,
        end = send(sealer, limits, outbox) => end,
    };
    outbox.dismiss();
    end
}

async fn receive<R: AsyncRead + Unpin>(
    peer: Peer,
    mut opener: Opener<R>,
    limits: &Limits,
    mut hear: impl FnMut(Peer, &[u8]) -> Result<(), String>,
) -> End {
    loop {
        let deadline = Instant::now() + limits.silence;
        match timeout_at(deadline, opener.next()).await {
            Ok(Ok(Came::Frame(frame))) => {
                if let Err(why) = hear(peer, frame) {
                    return End::BadFrame(why);
                }
            }
            Ok(Ok(Came::Life)) => {}
            Ok(Ok(Came::End)) => return End::Closed,
            Ok(Err(error)) => return End::Unreadable(error),
            Err(_) => return End::Silent(limits.silence),
        }
    }
}

async fn send<W: AsyncWrite + Unpin>(mut sealer: Sealer<W>, limits: &Limits, outbox: &Outbox) -> End {
    loop {
        let more = match outbox.take(&mut sealer) {
            Ok(more) => more,
            Err(end) => return end,
        };
        if !more {
            let woken = tokio::time::timeout(limits.heartbeat, outbox.shared.1.notified());
            if woken.await.is_ok() {
                continue;
            }
            sealer.beat();
        }
        // While the socket takes nothing, an outbox that overflows must still end the connection.
        let flushed = {
            let flush = sealer.flush();
            tokio::pin!(flush);
            loop {
                tokio::select! {
                    biased;
                    flushed = &mut flush => break flushed,
                    () = outbox.shared.1.notified() => {
                        let waiting = outbox.waiting();
                        if waiting.full {
                            return End::Full(outbox.limit);
                        }
                        if waiting.dismissed {
                            return End::Dismissed;
                        }
                    }
                }
            }
        };
        if let Err(error) = flushed {
            return End::Io(error);
        }
    }
}
