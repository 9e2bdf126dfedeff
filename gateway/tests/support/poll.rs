//! Long-polls.

use super::covers;
use super::ear::Heard;
use super::http::{Answer, get, post_json};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// One poll, built up field by field.
#[derive(Clone, Debug)]
pub(crate) struct Poll {
    address: SocketAddr,
    body: Value,
    query: String,
}

impl Poll {
    pub(crate) fn of<O: AsRef<str>>(address: SocketAddr, objects: &[O]) -> Self {
        let objects: Vec<_> = objects.iter().map(AsRef::as_ref).collect();
        Self {
            address,
            body: json!({ "objects": objects }),
            query: String::new(),
        }
    }

    pub(crate) fn session(address: SocketAddr, session: &str) -> Self {
        Self {
            address,
            body: json!({ "session": session }),
            query: String::new(),
        }
    }

    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.body[field] = value.into();
        self
    }

    pub(crate) fn cursor(self, cursor: &str) -> Self {
        self.with("cursor", cursor)
    }

    pub(crate) fn wait_ms(self, wait_ms: u64) -> Self {
        self.with("wait_ms", wait_ms)
    }

    pub(crate) fn query(mut self, query: &str) -> Self {
        query.clone_into(&mut self.query);
        self
    }

    #[track_caller]
    pub(crate) fn send(&self) -> Answer {
        post_json(self.address, &format!("/v1/poll{}", self.query), &self.body)
    }

    #[track_caller]
    pub(crate) fn ask(&self) -> Value {
        self.send().ok()
    }

    /// As `GET`, as far as a query can say it.
    #[track_caller]
    pub(crate) fn get(&self) -> Answer {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in self.body.as_object().expect("a map") {
            match value {
                Value::Array(objects) => objects.iter().for_each(|object| {
                    query.append_pair("object", object.as_str().expect("text"));
                }),
                Value::String(text) => _ = query.append_pair(name, text),
                other => _ = query.append_pair(name, &other.to_string()),
            }
        }
        get(self.address, &format!("/v1/poll?{}", query.finish()))
    }
}

/// Polls again and again with the cursor of the answer before.
#[derive(Debug)]
pub(crate) struct Poller {
    poll: Poll,
    by_get: bool,
    pub(crate) cursor: String,
    pub(crate) session: String,
}

impl Poller {
    /// Begins now: the first poll only brings a cursor.
    #[track_caller]
    pub(crate) fn new(poll: Poll) -> Self {
        let mut new = Self::resume(poll, "");
        new.by_get = false;
        let first = new.poll.ask();
        new.note(&first);
        new
    }

    pub(crate) fn resume(poll: Poll, cursor: &str) -> Self {
        Self {
            poll,
            by_get: false,
            cursor: cursor.to_owned(),
            session: String::new(),
        }
    }

    pub(crate) fn by_get(mut self) -> Self {
        self.by_get = true;
        self
    }

    fn note(&mut self, answer: &Value) {
        answer["cursor"]
            .as_str()
            .expect("a cursor")
            .clone_into(&mut self.cursor);
        answer["session"]
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut self.session);
    }

    /// The next answer.
    #[track_caller]
    pub(crate) fn next(&mut self, wait_ms: u64) -> Value {
        let poll = self.poll.clone().cursor(&self.cursor).wait_ms(wait_ms);
        let answer = if self.by_get { poll.get() } else { poll.send() }.ok();
        self.note(&answer);
        answer
    }

    /// Everything told until the cursor vouches for all changes up to this version.
    #[track_caller]
    pub(crate) fn up_to(&mut self, version: u64) -> Heard {
        let mut heard = Heard::default();
        let since = std::time::Instant::now();
        while !covers(&heard.cursor, version) {
            assert!(
                since.elapsed() < super::PATIENCE,
                "no cursor vouches for {version}: {heard:?}"
            );
            let mut answer = self.next(50);
            let map = answer.as_object_mut().expect("a map");
            map.retain(|name, _| ["changes", "resync", "refused", "cursor"].contains(&name.as_str()));
            heard.add(&answer);
        }
        heard
    }
}
