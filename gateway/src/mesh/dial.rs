//! Keeping one connection to one peer up: dials, runs it, pauses with jitter, dials again.
//!
//! It does not know what the connection is for, or when the peer is not worth dialling any more: whoever owns the task
//! ends it.

use super::handshake::{self, Connection, HandshakeError};
use super::{Identity, Limits};
use std::time::Duration;
use tidings_protocol::NodeId;
use tidings_protocol::mesh::Class;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Pauses between attempts: drawn evenly from zero to a bound that doubles up to the longest ("full jitter").
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    bound: Duration,
}

impl Backoff {
    /// One that has not failed yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            first: limits.retry_first,
            longest: limits.retry_longest,
            bound: limits.retry_first,
        }
    }

    /// The pause after a failure. `chance` is drawn evenly from 0 to `u32::MAX`.
    pub fn pause(&mut self, chance: u32) -> Duration {
        let pause = self.bound.mul_f64(f64::from(chance) / f64::from(u32::MAX));
        self.bound = (self.bound * 2).min(self.longest);
        pause
    }

    /// After a success: begins anew.
    pub fn reset(&mut self) {
        self.bound = self.first;
    }
}

/// Connects once: resolves `address` (`host:port`, tried in the order of its addresses), dials, shakes hands.
///
/// # Errors
/// Says what failed at the last address tried.
pub async fn connect(
    address: &str,
    us: &Identity,
    class: Class,
    wanted: Option<NodeId>,
    limits: &Limits,
) -> Result<Connection, HandshakeError> {
    let attempt = async {
        let stream = TcpStream::connect(address).await?;
        handshake::dial(stream, us, class, wanted).await
    };
    timeout(limits.handshake, attempt)
        .await
        .unwrap_or(Err(HandshakeError::Slow))
}

/// Answers whoever dialled, within the time allowed.
///
/// # Errors
/// Says what failed.
pub async fn answer(stream: TcpStream, us: &Identity, limits: &Limits) -> Result<Connection, HandshakeError> {
    timeout(limits.handshake, handshake::accept(stream, us))
        .await
        .unwrap_or(Err(HandshakeError::Slow))
}
