//! The talk by long-polls: each answer brings what is new and the cursor for the next poll.
//!
//! The list of objects is sent once; afterwards its session stands for it, until a server does not know it.

use super::{Book, Step, entry};
use crate::watch::verdict::Verdict;
use crate::wire::{self, Entry, PollAnswer, PollRequest, ServerMessage};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A session that is forgotten so often in a row is no use.
const FORGOTTEN_LIMIT: u32 = 3;

/// See the module.
#[derive(Debug)]
pub(crate) struct PollTalk {
    session: Option<String>,
    wait_ms: u64,
    /// Asked for by a poll that is not answered yet.
    asked: BTreeSet<Arc<str>>,
    /// To be taken from the session by the next poll, and by those after it until one is answered.
    removing: BTreeSet<Arc<str>>,
    /// Refused for now.
    later: BTreeSet<Arc<str>>,
    forgotten: u32,
}

impl PollTalk {
    /// The first poll, which sends the list.
    pub(crate) fn open(book: &mut Book, wait_ms: u64) -> (Self, Vec<u8>) {
        let mut new = Self {
            session: None,
            wait_ms,
            asked: BTreeSet::new(),
            removing: BTreeSet::new(),
            later: BTreeSet::new(),
            forgotten: 0,
        };
        let body = new.body(book);
        (new, body)
    }

    /// The next poll.
    pub(crate) fn body(&mut self, book: &mut Book) -> Vec<u8> {
        let cursor = book.ledger.resume().cloned();
        let mut body = Vec::new();
        if let Some(session) = &self.session {
            self.asked.retain(|object| book.ledger.contains(object));
            // One that was taken away and added again is in the list, and stays there.
            self.removing.retain(|object| !book.ledger.contains(object));
            let list = |objects: &'_ BTreeSet<Arc<str>>| objects.iter().cloned().collect::<Vec<_>>();
            let (add, remove) = (list(&self.asked), list(&self.removing));
            let request = PollRequest {
                session: Some(session),
                cursor: cursor.as_deref(),
                wait_ms: Some(self.wait_ms),
                add: add.iter().map(|object| Entry::from(&**object)).collect(),
                remove: remove.iter().map(|object| Entry::from(&**object)).collect(),
                ..PollRequest::default()
            };
            wire::poll(&mut body, &request);
            return body;
        }
        self.removing.clear();
        self.later.clear();
        let entries = book.entries();
        let request = PollRequest {
            objects: Some(entries.iter().map(entry).collect()),
            cursor: cursor.as_deref(),
            wait_ms: Some(self.wait_ms),
            ..PollRequest::default()
        };
        wire::poll(&mut body, &request);
        self.asked = entries.into_iter().map(|(object, _)| object).collect();
        body
    }

    pub(super) fn changed(&mut self, book: &mut Book, added: &[Arc<str>], removed: &[Arc<str>], steps: &mut Vec<Step>) {
        for object in removed {
            self.later.remove(object);
            self.asked.remove(object);
        }
        self.removing.extend(removed.iter().cloned());
        for object in added {
            if book.ledger.resume().is_some() && book.ledger.known(object).is_some_and(|known| known.elsewhere) {
                book.ledger.doubt(object, "added");
            }
        }
        self.asked.extend(added.iter().cloned());
        if !added.is_empty() {
            let body = self.body(book);
            steps.push(Step::Poll(body));
        }
    }

    pub(super) fn ask_again(&mut self, book: &mut Book, steps: &mut Vec<Step>) {
        self.asked.append(&mut self.later);
        let body = self.body(book);
        steps.push(Step::Poll(body));
    }

    /// The session is not known: the list has to be sent again; nothing is lost.
    pub(crate) fn forgotten(&mut self, book: &mut Book, steps: &mut Vec<Step>) {
        self.session = None;
        self.forgotten += 1;
        if self.forgotten >= FORGOTTEN_LIMIT {
            steps.push(Step::End(Verdict::come_back("the server forgets its sessions")));
            return;
        }
        let body = self.body(book);
        steps.push(Step::Poll(body));
    }

    /// The answer to the poll under way.
    pub(crate) fn answer(&mut self, book: &mut Book, body: &[u8], steps: &mut Vec<Step>) {
        let answer = match PollAnswer::read(body) {
            Ok(answer) => answer,
            Err(error) => return steps.push(Step::End(Verdict::nonsense(&error))),
        };
        self.forgotten = 0;
        for refused in &answer.refused {
            self.asked.remove(&*refused.object);
            if book.refuse(&refused.object, &refused.error) {
                self.later.insert((*refused.object).into());
            }
        }
        for object in std::mem::take(&mut self.asked) {
            book.live(&object, None);
        }
        self.removing.clear();
        for change in &answer.changes {
            book.ledger.change(change);
        }
        if let Some(resync) = answer.resync {
            _ = book.take(ServerMessage::Resync(resync), steps);
        }
        if let Some(cursor) = answer.cursor {
            book.ledger.told_up_to(&cursor, self.later.is_empty());
        }
        self.session = answer.session.map(|session| session.to_string());
        steps.push(Step::Live);
        if !self.later.is_empty() {
            steps.push(Step::AskLater);
        }
        match answer.poll_after_ms {
            Some(after_ms) => steps.push(Step::Leave(after_ms, "the server is about to stop".to_owned())),
            None => {
                let body = self.body(book);
                steps.push(Step::NextPoll(body));
            }
        }
    }
}
