//! One connection's talk, whatever its transport: what was asked on it, what is answered, and what is to be asked next.
//!
//! What the server says goes into the [`Ledger`]; what is to be done about it comes out as [`Step`]s. It does not know time,
//! sockets, or why the connection was made.

mod poll;
mod socket;
mod stream;

pub(crate) use poll::PollTalk;
pub(crate) use socket::SocketTalk;
pub(crate) use stream::StreamTalk;

use super::ledger::Ledger;
use super::verdict::Verdict;
use crate::wire::{Entry, Failure, ServerMessage};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send this text.
    Send(Vec<u8>),
    /// Poll with this body at once; a poll under way is given up.
    Poll(Vec<u8>),
    /// The last poll is answered: poll with this body.
    NextPoll(Vec<u8>),
    /// Everything is asked and answered: what is watched is live.
    Live,
    /// Some objects were refused for now: ask again after a while.
    AskLater,
    /// The server lets itself be heard at least so often, in milliseconds.
    Hello(u64),
    /// The server asks to come back after so long, in milliseconds.
    Leave(u64, String),
    /// What the server wishes for if it ends without a word, in milliseconds.
    Retry(u64),
    /// This connection cannot take what is to be changed: make another.
    Reopen,
    /// The server is cut off from the owners of some objects, or whole again.
    Stale(bool),
    /// End the connection.
    End(Verdict),
}

/// Objects that the server will not speak of, and why.
pub(crate) type Refusals = BTreeMap<Arc<str>, RefusedObject>;

/// Why an object is not watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedObject {
    /// A stable word: see the protocol's errors.
    pub code: String,
    /// For people.
    pub message: String,
    /// It is asked for again; else it is no longer watched.
    pub retryable: bool,
}

/// What outlives connections.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) ledger: Ledger,
    pub(crate) refusals: Refusals,
}

impl Book {
    /// What changes, cursors apart. `true`: the message was one of these.
    fn take(&mut self, message: ServerMessage<'_>, steps: &mut Vec<Step>) -> bool {
        match message {
            ServerMessage::Changes(changes) => {
                for change in changes {
                    self.ledger.change(&change);
                }
            }
            ServerMessage::Resync(resync) => match resync.objects {
                None => self.ledger.resync_all(&resync.cause),
                Some(objects) => {
                    for object in objects {
                        self.ledger.resync(&object, &resync.cause);
                    }
                }
            },
            ServerMessage::Stale(stale) => steps.push(Step::Stale(stale)),
            ServerMessage::Reconnect(reconnect) => {
                steps.push(Step::Leave(reconnect.after_ms, reconnect.reason.to_string()));
            }
            _ => return false,
        }
        true
    }

    /// The object will not be spoken of, now or ever. `true`: it is to be asked for again.
    fn refuse(&mut self, object: &str, failure: &Failure<'_>) -> bool {
        if !self.ledger.contains(object) {
            return false;
        }
        let refused = RefusedObject {
            code: failure.code.to_string(),
            message: failure.message.to_string(),
            retryable: failure.retryable,
        };
        self.refusals.insert(object.into(), refused);
        match failure.retryable {
            true => self.ledger.doubt(object, &failure.code),
            false => _ = self.ledger.remove(object),
        }
        failure.retryable
    }

    fn live(&mut self, object: &str, version: Option<tidings_protocol::Version>) {
        if self.refusals.get(object).is_some_and(|refused| refused.retryable) {
            self.refusals.remove(object);
        }
        self.ledger.live(object, version);
    }

    /// All that is held, as it is asked for where one cursor has to speak for everything. What it cannot speak for has to
    /// be fetched.
    fn entries(&mut self) -> Vec<(Arc<str>, Option<tidings_protocol::Version>)> {
        let objects: Vec<_> = self.ledger.objects().cloned().collect();
        let resumes = self.ledger.resume().is_some();
        let mut entries = Vec::with_capacity(objects.len());
        for object in objects {
            let known = self.ledger.known(&object);
            if resumes && known.is_some_and(|known| known.elsewhere) {
                self.ledger.doubt(&object, "added");
            }
            let version = known.filter(|_| !resumes).and_then(|known| known.version);
            entries.push((object, version));
        }
        entries
    }
}

fn entry((object, version): &(Arc<str>, Option<tidings_protocol::Version>)) -> Entry<'_> {
    Entry {
        object,
        version: *version,
        at_least: None,
    }
}

/// One of the three.
#[derive(Debug)]
pub(crate) enum Talk {
    Socket(SocketTalk),
    Stream(StreamTalk),
    Poll(PollTalk),
}

impl Talk {
    /// Objects were added to and taken from what is held.
    pub(crate) fn changed(&mut self, book: &mut Book, added: &[Arc<str>], removed: &[Arc<str>], steps: &mut Vec<Step>) {
        match self {
            Self::Socket(talk) => talk.changed(book, added, removed, steps),
            Self::Stream(_) => StreamTalk::changed(added, steps),
            Self::Poll(talk) => talk.changed(book, added, removed, steps),
        }
    }

    /// It is time to ask again for what was refused for now.
    pub(crate) fn ask_again(&mut self, book: &mut Book, steps: &mut Vec<Step>) {
        match self {
            Self::Socket(talk) => talk.ask_again(book, steps),
            Self::Stream(_) => steps.push(Step::Reopen),
            Self::Poll(talk) => talk.ask_again(book, steps),
        }
    }
}
