//! The talk on a stream of Server-Sent Events: everything is asked at its opening; what is to change needs another stream.

use super::{Book, Step, entry};
use crate::watch::verdict::Verdict;
use crate::wire::{self, EventBlock, EventMessage, ServerMessage};
use std::collections::BTreeSet;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub(crate) struct StreamTalk {
    /// What was asked for and not refused.
    objects: BTreeSet<Arc<str>>,
    live: bool,
    /// Some were refused for now.
    later: bool,
}

impl StreamTalk {
    /// A new stream, and the body that opens it.
    pub(crate) fn open(book: &mut Book) -> (Self, Vec<u8>) {
        let entries = book.entries();
        let mut body = Vec::new();
        let cursor = book.ledger.resume().cloned();
        wire::events(&mut body, entries.iter().map(entry), cursor.as_deref());
        let new = Self {
            objects: entries.into_iter().map(|(object, _)| object).collect(),
            live: false,
            later: false,
        };
        (new, body)
    }

    pub(super) fn changed(added: &[Arc<str>], steps: &mut Vec<Step>) {
        // What was taken away is passed over when it is told; only what was added needs another stream. This one tells
        // nothing more from now on: its cursors would not speak for what was added.
        if !added.is_empty() {
            steps.push(Step::Reopen);
        }
    }

    /// One block.
    pub(crate) fn block(&mut self, book: &mut Book, block: &EventBlock<'_>, steps: &mut Vec<Step>) {
        match block.message() {
            Err(error) => steps.push(Step::End(Verdict::nonsense(&error))),
            Ok(message) => self.message(book, message, steps),
        }
        if block.data.is_some()
            && let Some(cursor) = block.id
        {
            self.cursor(book, cursor, steps);
        }
        if let Some(retry_ms) = block.retry_ms {
            steps.push(Step::Retry(retry_ms));
        }
    }

    fn message(&mut self, book: &mut Book, message: EventMessage<'_>, steps: &mut Vec<Step>) {
        match message {
            EventMessage::Message(ServerMessage::Hello(hello)) => {
                steps.push(Step::Hello(hello.ping_ms.unwrap_or(15_000)));
            }
            EventMessage::Message(ServerMessage::Cursor(cursor)) => self.cursor(book, &cursor, steps),
            EventMessage::Message(message) => _ = book.take(message, steps),
            EventMessage::Refused(refused) => {
                for refused in refused {
                    self.objects.remove(&*refused.object);
                    self.later |= book.refuse(&refused.object, &refused.error);
                }
                if self.later {
                    steps.push(Step::AskLater);
                }
            }
            EventMessage::SessionUnknown => steps.push(Step::End(Verdict::come_back("the session is not known"))),
            EventMessage::Retry(_) | EventMessage::Nothing => {}
        }
    }

    fn cursor(&mut self, book: &mut Book, cursor: &str, steps: &mut Vec<Step>) {
        // All that was asked for is live: the server issues no cursor before.
        if !std::mem::replace(&mut self.live, true) {
            for object in std::mem::take(&mut self.objects) {
                book.live(&object, None);
            }
            steps.push(Step::Live);
        }
        book.ledger.told_up_to(cursor, !self.later);
    }
}
