//! What goes into the machine and what comes out of it.

use super::route::{Transport, Waits};
use super::verdict::Stop;
use crate::wire::EventBlock;
use std::time::Duration;

/// What does not change while a watch lives.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many servers there are to choose from.
    pub servers: usize,
    /// How to listen.
    pub transport: Transport,
    /// How long to wait before coming back.
    pub waits: Waits,
    /// Within this the server must have greeted.
    pub opening: Duration,
    /// What is added to the interval at which the server lets itself be heard, before silence means a dead path.
    pub grace: Duration,
    /// How long a long-poll waits for a change.
    pub poll_wait: Duration,
    /// After how long on a worse transport a better one is tried again.
    pub better_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            servers: 1,
            transport: Transport::Auto,
            waits: Waits::default(),
            opening: Duration::from_secs(10),
            grace: Duration::from_secs(10),
            poll_wait: Duration::from_secs(25),
            better_after: Duration::from_secs(300),
        }
    }
}

/// What came.
#[derive(Debug)]
pub enum Input<'a> {
    /// The payload of a text frame.
    Text(&'a str),
    /// A block of an event stream.
    Block(&'a EventBlock<'a>),
    /// The answer to a poll: the body of a 200.
    Answer(&'a [u8]),
    /// A sign of life that says nothing: a ping, a pong, bytes of something larger.
    Sign,
    /// The connection, or the try to make one, has ended.
    Ended(Ended<'a>),
}

/// How a connection ended.
#[derive(Clone, Debug)]
pub enum Ended<'a> {
    /// Nobody answers at this address.
    Unreachable(String),
    /// An answer of HTTP that is not the one asked for.
    Refused {
        /// Its status.
        status: u16,
        /// When to come back, in seconds.
        retry_after_s: Option<u64>,
        /// Its body.
        body: &'a [u8],
    },
    /// Something answers that does not speak the transport.
    Unusable(String),
    /// A close frame; 1005 if it had no code.
    Closed {
        /// Its code.
        code: u16,
        /// Its reason.
        reason: &'a str,
    },
    /// Without a word.
    Cut(String),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make a connection: of an event stream or long-poll with this body. None is open.
    Connect {
        /// Its number, by which what comes over it is known.
        connection: u64,
        /// Which of the servers.
        server: usize,
        /// Which transport, never [`Transport::Auto`].
        transport: Transport,
        /// The body of the request.
        body: Vec<u8>,
    },
    /// Send this text over the WebSocket.
    Send(Vec<u8>),
    /// Poll with this body; if a poll is under way, give it up.
    Poll {
        /// By this number its answer is known from now on.
        connection: u64,
        /// The body of the request.
        body: Vec<u8>,
    },
    /// Close the connection, or stop trying to make one. A WebSocket with this code.
    Disconnect {
        /// The code.
        code: u16,
    },
}

/// How a watch is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing is watched.
    Idle,
    /// Making a connection, or asking on it.
    Connecting {
        /// Which of the servers.
        server: usize,
        /// By which transport.
        transport: Transport,
    },
    /// Everything that is watched and not refused is live.
    Live {
        /// At which of the servers.
        server: usize,
        /// By which transport.
        transport: Transport,
        /// The server is cut off from the owners of some objects: their changes come late.
        stale: bool,
    },
    /// The connection has ended; another will be made.
    Waiting {
        /// Why it ended.
        why: String,
        /// How long it waits in all.
        wait: Duration,
    },
    /// It will not come back by itself.
    Stopped(Stop),
}
