//! How far the watching has come: what is known of each object, the cursor, and what is still to be asked on this
//! connection.
//!
//! Frames come in, what to do goes out. It does not know sockets, time or files. The rules it keeps:
//! - A cursor counts only once all objects of this connection are answered; the last one counts, not the largest.
//! - A version at or below one that was told for its object is not told again.
//! - Without a cursor, what is known of each object takes its place when coming back.

use super::line::{Change, Line};
use super::verdict::Verdict;
use crate::cli::one_line;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A page names at most so many objects, so that its answer is a frame of moderate size.
const PAGE_OBJECTS: usize = 1000;
/// Until the server announces its limit, and if it announces a larger one.
const PAGE_BYTES: usize = 48 * 1024;
/// What a page costs besides its objects and its cursor.
const PAGE_FRAME_BYTES: usize = 128;

/// What to do.
#[derive(Debug)]
pub(super) enum Output {
    /// Send this frame.
    Send(String),
    /// Tell this.
    Tell(Line),
    /// Say this to the person, apart from the results.
    Note(String),
    /// Call [`Progress::ask_again`] after a while.
    AskLater,
    /// The server expects to be heard of at least so often, in milliseconds.
    PingEvery(u64),
    /// Every object is subscribed or refused.
    Ready,
    /// The server asks to leave and to come back after so many milliseconds.
    Leave(u64, String),
    /// End this connection.
    End(Verdict),
}

/// What is known of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    /// The newest version told here, or the one current when the object was first subscribed. 0: none.
    version: Option<u64>,
    /// The refusal was told.
    refused: bool,
}

/// The state of watching.
#[derive(Debug)]
pub(super) struct Progress {
    objects: BTreeMap<String, Known>,
    cursor: Option<String>,
    // This connection.
    /// The cursor it started from.
    base: Option<String>,
    to_ask: VecDeque<String>,
    asked: Option<Asked>,
    /// Refused for now: to be asked for again.
    later: BTreeSet<String>,
    subscribed: bool,
    next_id: u64,
    page_bytes: usize,
}

/// The page whose answer is awaited.
#[derive(Debug)]
struct Asked {
    id: u64,
    objects: Vec<String>,
    /// The answer's versions are where each object starts: nothing earlier is known.
    first: bool,
}

#[derive(Debug, Deserialize)]
struct Frame {
    hello: Option<Hello>,
    subscribed: Option<Subscribed>,
    changes: Option<Vec<Change>>,
    cursor: Option<String>,
    resync: Option<Resync>,
    stale: Option<bool>,
    reconnect: Option<Reconnect>,
    error: Option<Problem>,
    id: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Hello {
    ping_ms: Option<u64>,
    limits: Option<Limits>,
}

#[derive(Debug, Deserialize)]
struct Limits {
    objects: Option<usize>,
    frame_bytes: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct Subscribed {
    #[serde(default)]
    objects: Vec<Answered>,
}

#[derive(Debug, Deserialize)]
struct Answered {
    object: String,
    version: Option<u64>,
    error: Option<Problem>,
}

#[derive(Debug, Deserialize)]
struct Resync {
    objects: Option<Vec<String>>,
    cause: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Reconnect {
    #[serde(default)]
    after_ms: u64,
    reason: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    message: Option<String>,
    #[serde(default)]
    retryable: bool,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let message = self.message.as_deref().unwrap_or("no reason given");
        write!(f, "{} ({})", one_line(message), one_line(&self.code))
    }
}

#[derive(Serialize)]
struct Subscribe<'a> {
    subscribe: Page<'a>,
    id: u64,
}

#[derive(Serialize)]
struct Page<'a> {
    objects: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Name(&'a str),
    Known { object: &'a str, version: u64 },
}

impl Progress {
    /// Nothing is told yet; `cursor` is where an earlier run came to.
    pub(super) fn new(objects: impl IntoIterator<Item = String>, cursor: Option<String>) -> Self {
        Self {
            objects: objects.into_iter().map(|object| (object, Known::default())).collect(),
            cursor,
            base: None,
            to_ask: VecDeque::new(),
            asked: None,
            later: BTreeSet::new(),
            subscribed: false,
            next_id: 1,
            page_bytes: PAGE_BYTES,
        }
    }

    /// How many objects are watched.
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// Where to resume from.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// A new connection stands; nothing is asked before the server's `hello`.
    pub(super) fn connected(&mut self) {
        self.base.clone_from(&self.cursor);
        self.to_ask.clear();
        self.asked = None;
        self.later.clear();
        self.subscribed = false;
        self.page_bytes = PAGE_BYTES;
    }

    /// A text frame: one JSON object, or several joined by line breaks.
    pub(super) fn frame(&mut self, text: &str, out: &mut Vec<Output>) {
        for line in text.split('\n').filter(|line| !line.trim().is_empty()) {
            match serde_json::from_str::<Frame>(line) {
                Ok(frame) => self.handle(frame, out),
                Err(error) => {
                    let reason = format!("the server sent what makes no sense: {error}");
                    out.push(Output::End(Verdict::ComeBack(reason)));
                    return;
                }
            }
        }
    }

    /// Asks again for what was refused for now.
    pub(super) fn ask_again(&mut self, out: &mut Vec<Output>) {
        self.to_ask.extend(std::mem::take(&mut self.later));
        self.ask(out);
    }

    fn handle(&mut self, frame: Frame, out: &mut Vec<Output>) {
        if let Some(hello) = frame.hello {
            self.hello(&hello, out);
        }
        if let Some(subscribed) = frame.subscribed {
            self.answered(frame.id, subscribed.objects, out);
        }
        for change in frame.changes.into_iter().flatten() {
            self.change(change, out);
        }
        if let Some(resync) = frame.resync {
            out.push(Output::Tell(Line::Resync(resync.objects, resync.cause)));
        }
        if let Some(stale) = frame.stale {
            out.push(Output::Tell(Line::Stale(stale)));
        }
        if let Some(cursor) = frame.cursor
            && self.is_complete()
        {
            self.cursor = Some(cursor);
        }
        if let Some(error) = frame.error {
            self.failed(frame.id, &error, out);
        }
        if let Some(Reconnect { after_ms, reason }) = frame.reconnect {
            let reason = reason.map_or_else(String::new, |reason| format!(" ({})", one_line(&reason)));
            out.push(Output::Leave(
                after_ms,
                format!("the server asks to come back later{reason}"),
            ));
        }
    }

    /// Whether a cursor speaks for every object: all are answered, and none waits to be asked again.
    fn is_complete(&self) -> bool {
        self.subscribed && self.to_ask.is_empty() && self.asked.is_none() && self.later.is_empty()
    }

    fn hello(&mut self, hello: &Hello, out: &mut Vec<Output>) {
        if let Some(ping_ms) = hello.ping_ms {
            out.push(Output::PingEvery(ping_ms));
        }
        let limits = hello.limits.as_ref();
        if let Some(limit) = limits.and_then(|limits| limits.objects)
            && self.objects.len() > limit
        {
            let asked = self.objects.len();
            let reason = format!("this server allows {limit} objects on one connection, not {asked}: watch fewer");
            out.push(Output::End(Verdict::Stop(reason)));
            return;
        }
        if let Some(limit) = limits.and_then(|limits| limits.frame_bytes) {
            self.page_bytes = limit.min(PAGE_BYTES);
        }
        self.to_ask = self.objects.keys().cloned().collect();
        self.ask(out);
    }

    /// Asks for the next page, if no other is waiting for its answer.
    fn ask(&mut self, out: &mut Vec<Output>) {
        if self.asked.is_some() || self.to_ask.is_empty() {
            return;
        }
        let mut room = self
            .page_bytes
            .saturating_sub(PAGE_FRAME_BYTES + self.base.as_deref().map_or(0, escaped_bytes));
        let mut names = Vec::new();
        while let Some(next) = self.to_ask.front() {
            // The longest way to write an entry: with its version.
            let bytes = escaped_bytes(next) + 48;
            // One is always asked for: if even that is too much, the server says so.
            if !names.is_empty() && (names.len() >= PAGE_OBJECTS || bytes > room) {
                break;
            }
            room = room.saturating_sub(bytes);
            names.extend(self.to_ask.pop_front());
        }
        let cursor = self.base.as_deref();
        let entry = |name: &'_ String| match self.objects.get(name).and_then(|known| known.version) {
            // Zero would say that nothing is known; one is older than every change.
            Some(version) if cursor.is_none() => (name.clone(), Some(version.max(1))),
            _ => (name.clone(), None),
        };
        let entries: Vec<_> = names.iter().map(entry).collect();
        let objects = entries.iter().map(|(object, version)| match version {
            Some(version) => Entry::Known {
                object,
                version: *version,
            },
            None => Entry::Name(object),
        });
        let more = !self.to_ask.is_empty();
        let subscribe = Subscribe {
            subscribe: Page {
                objects: objects.collect(),
                cursor,
                more,
            },
            id: self.next_id,
        };
        match serde_json::to_string(&subscribe) {
            Ok(frame) => out.push(Output::Send(frame)),
            Err(error) => out.push(Output::End(Verdict::Stop(error.to_string()))),
        }
        self.asked = Some(Asked {
            id: self.next_id,
            objects: names,
            first: self.base.is_none(),
        });
        self.next_id += 1;
    }

    fn answered(&mut self, id: Option<u64>, answers: Vec<Answered>, out: &mut Vec<Output>) {
        let Some(asked) = self.asked.take_if(|asked| id == Some(asked.id)) else {
            return;
        };
        for Answered { object, version, error } in answers {
            match error {
                None => self.is_subscribed(&object, version, asked.first),
                Some(problem) => self.is_refused(object, &problem, out),
            }
        }
        self.ask_on(out);
    }

    fn failed(&mut self, id: Option<u64>, problem: &Problem, out: &mut Vec<Output>) {
        match self.asked.take_if(|asked| id == Some(asked.id)) {
            None => out.push(Output::Note(format!("the server reports: {problem}"))),
            Some(asked) => {
                for object in asked.objects {
                    self.is_refused(object, problem, out);
                }
                self.ask_on(out);
            }
        }
    }

    fn is_subscribed(&mut self, object: &str, version: Option<u64>, first: bool) {
        self.subscribed = true;
        let Some(known) = self.objects.get_mut(object) else {
            return;
        };
        known.refused = false;
        // On resuming, the version may be of a change that is still to be told.
        if first && known.version.is_none() {
            known.version = Some(version.unwrap_or(0));
        }
    }

    fn is_refused(&mut self, object: String, problem: &Problem, out: &mut Vec<Output>) {
        let Some(known) = self.objects.get_mut(&object) else {
            return;
        };
        if !std::mem::replace(&mut known.refused, true) {
            let again = if problem.retryable { "; asking again" } else { "" };
            out.push(Output::Note(format!(
                "{} is not watched: {problem}{again}",
                one_line(&object)
            )));
        }
        if problem.retryable {
            self.later.insert(object);
        }
    }

    /// Asks for the next page, or says that all are asked for.
    fn ask_on(&mut self, out: &mut Vec<Output>) {
        if !self.to_ask.is_empty() {
            self.ask(out);
        } else if !self.later.is_empty() {
            out.push(Output::AskLater);
        } else if self.subscribed {
            out.push(Output::Ready);
        } else {
            out.push(Output::End(Verdict::Stop("the server refused every object".to_owned())));
        }
    }

    fn change(&mut self, change: Change, out: &mut Vec<Output>) {
        if let (Some(version), Some(known)) = (change.version, self.objects.get_mut(&change.object)) {
            if known.version.is_some_and(|told| version <= told) {
                return;
            }
            known.version = Some(version);
        }
        out.push(Output::Tell(Line::Change(change)));
    }
}

/// How many bytes a text takes in JSON, quotes included, at most.
fn escaped_bytes(text: &str) -> usize {
    // An ID holds no control characters, so a character is escaped by one more byte at most; a foreign cursor may.
    2 + text
        .bytes()
        .map(|byte| {
            if byte < 0x20 {
                6
            } else {
                1 + usize::from(matches!(byte, b'"' | b'\\'))
            }
        })
        .sum::<usize>()
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
