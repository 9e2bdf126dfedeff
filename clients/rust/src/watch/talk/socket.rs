//! The talk on a WebSocket: pages of objects asked for one after the other, then changes and cursors.
//!
//! A cursor counts only once every page is answered. Objects for which the resume cursor does not speak are asked for in
//! pages of their own without it, with the version that is known of them.

use super::{Book, Step};
use crate::watch::verdict::Verdict;
use crate::wire::{self, Answered, Entry, Failure, RequestId, ServerMessage};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// A page names at most so many objects, so that its answer is a frame of moderate size.
const PAGE_OBJECTS: usize = 1000;
/// Until the server announces its limit, and if it announces a larger one.
const PAGE_BYTES: usize = 48 * 1024;
/// What a page costs besides its objects and its cursor.
const PAGE_FRAME_BYTES: usize = 128;
/// What an entry costs at most besides its ID.
const ENTRY_BYTES: usize = 48;
/// An unsubscribing frame names at most so many objects.
const REMOVED_OBJECTS: usize = 100;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SocketTalk {
    greeted: bool,
    to_ask: VecDeque<Arc<str>>,
    asked: Option<Asked>,
    /// Refused for now.
    later: BTreeSet<Arc<str>>,
    next_id: u64,
    page_bytes: usize,
    page_objects: usize,
}

/// The page whose answer is awaited.
#[derive(Debug)]
struct Asked {
    id: u64,
    objects: Vec<Arc<str>>,
    covered: bool,
}

impl SocketTalk {
    /// A new connection stands; nothing is asked before the server's `hello`.
    pub(crate) fn new() -> Self {
        Self {
            next_id: 1,
            page_bytes: PAGE_BYTES,
            page_objects: PAGE_OBJECTS,
            ..Self::default()
        }
    }

    /// A text frame.
    pub(crate) fn text(&mut self, book: &mut Book, text: &str, steps: &mut Vec<Step>) {
        for message in wire::Messages::of(text) {
            match message {
                Ok(message) => self.message(book, message, steps),
                Err(error) => {
                    steps.push(Step::End(Verdict::nonsense(&error)));
                    return;
                }
            }
        }
    }

    fn message(&mut self, book: &mut Book, message: ServerMessage<'_>, steps: &mut Vec<Step>) {
        match message {
            ServerMessage::Hello(hello) => {
                steps.push(Step::Hello(hello.ping_ms.unwrap_or(25_000)));
                let limit = |limit: Option<u64>| limit.and_then(|limit| usize::try_from(limit).ok());
                let limits = hello.limits.unwrap_or_default();
                self.page_objects = limit(limits.objects).unwrap_or(PAGE_OBJECTS).clamp(1, PAGE_OBJECTS);
                self.page_bytes = limit(limits.frame_bytes).unwrap_or(PAGE_BYTES).min(PAGE_BYTES);
                if !std::mem::replace(&mut self.greeted, true) {
                    self.to_ask = book.ledger.objects().cloned().collect();
                    self.go_on(book, steps);
                }
            }
            ServerMessage::Subscribed { id, objects } => self.answered(book, id.as_ref(), &objects, steps),
            ServerMessage::Error { id, error } => self.failed(book, id.as_ref(), &error, steps),
            ServerMessage::Cursor(cursor) => {
                if self.is_complete() {
                    book.ledger.told_up_to(&cursor, self.later.is_empty());
                }
            }
            message => _ = book.take(message, steps),
        }
    }

    fn is_complete(&self) -> bool {
        self.greeted && self.asked.is_none() && self.to_ask.is_empty()
    }

    pub(super) fn changed(&mut self, book: &mut Book, added: &[Arc<str>], removed: &[Arc<str>], steps: &mut Vec<Step>) {
        for object in removed {
            self.later.remove(object);
        }
        if !self.greeted {
            return;
        }
        self.to_ask.retain(|object| book.ledger.contains(object));
        // What is asked for and not answered yet is taken back once it is answered.
        let unanswered: BTreeSet<&Arc<str>> = self.asked.iter().flat_map(|asked| &asked.objects).collect();
        let gone: Vec<&Arc<str>> = removed.iter().filter(|object| !unanswered.contains(object)).collect();
        unsubscribe(&gone, steps);
        self.to_ask.extend(added.iter().cloned());
        self.go_on(book, steps);
    }

    pub(super) fn ask_again(&mut self, book: &mut Book, steps: &mut Vec<Step>) {
        self.to_ask.extend(std::mem::take(&mut self.later));
        self.go_on(book, steps);
    }

    /// Asks for the next page, if no other is waiting for its answer.
    fn go_on(&mut self, book: &mut Book, steps: &mut Vec<Step>) {
        if self.asked.is_some() {
            return;
        }
        self.to_ask.retain(|object| book.ledger.contains(object));
        let Some(covered) = self.to_ask.front().and_then(|object| book.ledger.known(object)) else {
            steps.push(Step::Live);
            if !self.later.is_empty() {
                steps.push(Step::AskLater);
            }
            return;
        };
        let covered = covered.covered;
        let cursor = book.ledger.resume().filter(|_| covered).cloned();
        let taken = PAGE_FRAME_BYTES + cursor.as_deref().map_or(0, wire::escaped_bytes);
        let mut room = self.page_bytes.saturating_sub(taken);
        let (mut page, mut others) = (Vec::new(), VecDeque::new());
        while let Some(object) = self.to_ask.pop_front() {
            let Some(known) = book.ledger.known(&object) else {
                continue;
            };
            if known.covered != covered {
                others.push_back(object);
                continue;
            }
            let bytes = wire::escaped_bytes(&object) + ENTRY_BYTES;
            // One is always asked for: if even that is too much, the server says so.
            if !page.is_empty() && (page.len() >= self.page_objects || bytes > room) {
                self.to_ask.push_front(object);
                break;
            }
            room = room.saturating_sub(bytes);
            page.push((object, known.version.filter(|_| !covered)));
        }
        // What was passed over keeps its place in front.
        others.append(&mut self.to_ask);
        self.to_ask = others;
        let mut frame = Vec::new();
        let entries = page.iter().map(|(object, version)| Entry {
            object,
            version: *version,
            at_least: None,
        });
        let more = !self.to_ask.is_empty();
        wire::subscribe(&mut frame, entries, cursor.as_deref(), more, Some(self.next_id));
        steps.push(Step::Send(frame));
        self.asked = Some(Asked {
            id: self.next_id,
            objects: page.into_iter().map(|(object, _)| object).collect(),
            covered,
        });
        self.next_id += 1;
    }

    fn take_asked(&mut self, id: Option<&RequestId<'_>>) -> Option<Asked> {
        self.asked
            .take_if(|asked| matches!(id, Some(RequestId::Number(id)) if *id == asked.id))
    }

    fn answered(
        &mut self,
        book: &mut Book,
        id: Option<&RequestId<'_>>,
        answers: &[Answered<'_>],
        steps: &mut Vec<Step>,
    ) {
        let Some(asked) = self.take_asked(id) else { return };
        let mut gone = Vec::new();
        for Answered { object, version, error } in answers {
            match error {
                Some(failure) => self.refused(book, object, failure),
                // With a cursor, the version may be of a change that is still to be told.
                None if book.ledger.contains(object) => {
                    let start = version.unwrap_or_default();
                    book.live(object, Some(start).filter(|_| !asked.covered));
                }
                None => gone.push(&**object),
            }
        }
        let gone: Vec<Arc<str>> = gone.into_iter().map(Arc::from).collect();
        unsubscribe(&gone.iter().collect::<Vec<_>>(), steps);
        self.go_on(book, steps);
    }

    fn failed(&mut self, book: &mut Book, id: Option<&RequestId<'_>>, failure: &Failure<'_>, steps: &mut Vec<Step>) {
        if let Some(asked) = self.take_asked(id) {
            for object in asked.objects {
                self.refused(book, &object, failure);
            }
            self.go_on(book, steps);
        }
    }

    fn refused(&mut self, book: &mut Book, object: &str, failure: &Failure<'_>) {
        if book.refuse(object, failure) {
            self.later.insert(object.into());
        }
    }
}

fn unsubscribe(objects: &[&Arc<str>], steps: &mut Vec<Step>) {
    for page in objects.chunks(REMOVED_OBJECTS) {
        let mut frame = Vec::new();
        wire::unsubscribe(&mut frame, page.iter().map(|object| &***object), None);
        steps.push(Step::Send(frame));
    }
}
