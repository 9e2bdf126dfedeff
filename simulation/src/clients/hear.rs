//! What clients make of what reaches them.

use super::Ask;
use crate::wire::{self, Message, Request, ToClient, Transport};
use crate::world::World;
use serde_json::Value;
use std::collections::BTreeSet;
use tidings_protocol::codec::{PollAnswer, ResyncScope};
use tidings_protocol::{Cursor, Version};

impl World {
    /// Something arrives at a client.
    pub fn client_hears(&mut self, client: usize, connection: u64, message: ToClient) {
        if !self.clients[client].is_on(connection) {
            return;
        }
        if let Some(side) = &mut self.clients[client].side {
            side.heard_at = self.now;
        }
        match message {
            ToClient::Reset => {
                self.trace
                    .note(self.now, format_args!("c{client}"), || "loses its connection");
                self.leave_silently(client);
            }
            ToClient::Answer(number, answer) => self.hear_answer(client, number, &answer),
            ToClient::Bytes(bytes, last) => {
                let socket =
                    self.clients[client].side.as_ref().map(|side| side.transport) == Some(Transport::WebSocket);
                let messages = if socket {
                    wire::web_socket(&bytes)
                } else {
                    wire::event_stream(&bytes)
                };
                for message in messages {
                    self.hear(client, message);
                }
                if last && self.clients[client].is_on(connection) {
                    self.leave_silently(client);
                }
            }
        }
    }

    fn hear(&mut self, client: usize, message: Message) {
        match message {
            Message::Named(name, body) => {
                if self.trace.keeps() {
                    self.trace
                        .note(self.now, format_args!("c{client}"), || said(&name, &body));
                }
                self.hear_named(client, &name, &body);
            }
            Message::Ping if !self.clients[client].rogue => self.request(client, Request::Pong),
            Message::Ping | Message::Comment => {}
            Message::Close(code) => {
                if code == 4002 {
                    self.coverage.saw("subscriber dismissed: no pong");
                }
                self.trace
                    .note(self.now, format_args!("c{client}"), || format!("is closed with {code}"));
            }
            Message::Nonsense(what) => self
                .oracle
                .object_to("wire", format!("c{client} reads nonsense: {what}")),
        }
    }

    fn hear_named(&mut self, client: usize, name: &str, body: &Value) {
        if self.clients[client].rogue {
            if name == "resync" {
                self.count_resync(body["cause"].as_str().unwrap_or_default(), 1);
            }
            return;
        }
        match name {
            "changes" => {
                for change in body.as_array().into_iter().flatten() {
                    let object = change["object"].as_str().unwrap_or_default();
                    let version = Version(change["version"].as_u64().unwrap_or_default());
                    let data = change.get("data").and_then(Value::as_u64);
                    self.hear_change(client, object, version, data);
                }
            }
            "cursor" => self.hear_cursor(client, body.as_str().unwrap_or_default()),
            "resync" => {
                let objects = body["objects"].as_array().map(|list| {
                    let named = list
                        .iter()
                        .filter_map(|object| self.oracle.object_named(object.as_str()?));
                    named.collect()
                });
                self.hear_resync(client, objects, body["cause"].as_str().unwrap_or_default());
            }
            "subscribed" => self.hear_subscribed(client, body),
            "unsubscribed" => {
                let Some(side) = &mut self.clients[client].side else {
                    return;
                };
                if let Some(Ask::Unsubscribe(objects)) = side.asks.pop_front() {
                    for object in objects {
                        side.live.remove(&object);
                    }
                } else {
                    self.oracle
                        .object_to("wire", format!("c{client}: `unsubscribed` out of turn"));
                }
            }
            "refused" => {
                for entry in body.as_array().into_iter().flatten() {
                    if let Some(object) = self.oracle.object_named(entry["object"].as_str().unwrap_or_default()) {
                        self.refused(client, object, entry["error"]["code"].as_str().unwrap_or_default());
                    }
                }
            }
            "reconnect" | "stale" => {}
            other => self.oracle.object_to("wire", format!("c{client} is told `{other}`")),
        }
    }

    fn hear_change(&mut self, client: usize, object: &str, version: Version, data: Option<u64>) {
        let Some(object) = self.oracle.object_named(object) else {
            self.oracle
                .object_to("wire", format!("c{client} hears of an unknown object {object}"));
            return;
        };
        let Some(side) = &self.clients[client].side else { return };
        let polled = side.transport == Transport::Poll;
        // Between its request and the answer a subscription may be told already only behind the answer.
        let asked = side.live.contains(&object) || side.perhaps.contains(&object);
        self.coverage.saw("change told");
        let seen = self.oracle.told(self.now, client, object, version, data, asked, polled);
        match seen {
            crate::oracle::Seen::New => {}
            crate::oracle::Seen::Again => self.coverage.saw("change told again"),
            crate::oracle::Seen::Older => self.coverage.saw("change told late, older than known elsewhere"),
        }
    }

    fn count_resync(&mut self, cause: &str, times: u64) {
        let what = match cause {
            "versions_lost" => "resync: versions_lost",
            "versions_evicted" => "resync: versions_evicted",
            "power_lost" => "resync: power_lost",
            "cursor_unreadable" => "resync: cursor_unreadable",
            "cursor_foreign" => "resync: cursor_foreign",
            "cursor_future" => "resync: cursor_future",
            _ => "resync: other",
        };
        self.coverage.add(what, times);
    }

    fn hear_resync(&mut self, client: usize, objects: Option<Vec<usize>>, cause: &str) {
        let Some(side) = &self.clients[client].side else { return };
        let live: BTreeSet<usize> = side.live.union(&side.perhaps).copied().collect();
        let objects = objects.unwrap_or_else(|| side.live.iter().copied().collect());
        self.count_resync(cause, objects.len() as u64);
        for object in objects {
            self.oracle
                .resynced(self.now, client, object, cause, live.contains(&object));
        }
    }

    fn hear_subscribed(&mut self, client: usize, body: &Value) {
        let now = self.now;
        let Some(side) = &mut self.clients[client].side else {
            return;
        };
        let Some(Ask::Subscribe(wishes, asked_at, with_cursor, more)) = side.asks.pop_front() else {
            self.oracle
                .object_to("wire", format!("c{client}: `subscribed` out of turn"));
            return;
        };
        side.page_open = more;
        let entries = body["objects"].as_array().cloned().unwrap_or_default();
        if entries.len() != wishes.len() {
            self.oracle.object_to(
                "wire",
                format!("c{client}: `subscribed` has other entries than were asked for"),
            );
        }
        for ((object, _, at_least), entry) in wishes.into_iter().zip(entries) {
            if self.oracle.object_named(entry["object"].as_str().unwrap_or_default()) != Some(object) {
                self.oracle
                    .object_to("wire", format!("c{client}: `subscribed` in another order"));
            }
            if let Some(code) = entry["error"]["code"].as_str() {
                self.refused(client, object, code);
                continue;
            }
            let version = Version(entry["version"].as_u64().unwrap_or_default());
            if let Some(side) = &mut self.clients[client].side {
                side.live.insert(object);
            }
            self.oracle
                .subscribed(now, client, object, version, asked_at, at_least, with_cursor);
        }
    }

    fn refused(&mut self, client: usize, object: usize, code: &str) {
        match code {
            "not_yet" => self.coverage.saw("at_least refused"),
            "too_many" | "too_many_objects" => self.coverage.saw("subscription refused: limit"),
            other => self
                .oracle
                .object_to("wire", format!("c{client}: o{object} is refused: {other}")),
        }
        // It gives the object up; a later turn may want it again.
        self.clients[client].wanted.remove(&object);
        self.oracle.unasked(self.now, client, object);
        if let Some(side) = &mut self.clients[client].side {
            side.live.remove(&object);
            if side.transport == Transport::Poll {
                side.perhaps.insert(object);
            }
        }
    }

    /// A cursor on a stream.
    fn hear_cursor(&mut self, client: usize, text: &str) {
        let now = self.now;
        let Some(side) = &mut self.clients[client].side else {
            return;
        };
        if side.page_open {
            self.oracle.object_to(
                "I2",
                format!("c{client} gets a cursor before its last page is answered"),
            );
            return;
        }
        let first = side.streaming_since.take();
        let live = side.live.clone();
        if let Some((asked_at, with_cursor)) = first {
            let since = if with_cursor { asked_at } else { now };
            for object in &live {
                self.oracle.holds(now, client, *object, since);
            }
        }
        self.keep(client, text, false, &live);
    }

    /// The client keeps a cursor: the last, not the largest.
    fn keep(&mut self, client: usize, text: &str, cut: bool, live: &BTreeSet<usize>) {
        let Ok(cursor) = Cursor::decode(text) else {
            self.oracle
                .object_to("wire", format!("c{client} is handed an unreadable cursor {text:?}"));
            return;
        };
        self.coverage.saw("cursor handed");
        self.coverage
            .add("cursor names lagging shards", u64::from(!cursor.lagging.is_empty()));
        self.coverage
            .add("cursor lists told changes", u64::from(!cursor.told.is_empty()));
        let before = self.clients[client].cursor.replace(text.into());
        if before.as_deref() == Some(text) {
            return;
        }
        let back = before
            .and_then(|before| Cursor::decode(&before).ok())
            .is_some_and(|b| b.base > cursor.base);
        self.coverage.add("cursor went back", u64::from(back));
        self.trace.note(self.now, format_args!("c{client}"), || {
            format!(
                "keeps cursor {} lagging {:?} told {}",
                cursor.base,
                cursor.lagging,
                cursor.told.len()
            )
        });
        self.oracle.cursor(self.now, client, &cursor, cut, live);
    }

    fn hear_answer(&mut self, client: usize, number: u64, answer: &PollAnswer) {
        let now = self.now;
        if self.clients[client].rogue {
            if let Some(resync) = &answer.resync {
                self.count_resync(resync.cause, 1);
            }
            return;
        }
        let Some(side) = &mut self.clients[client].side else {
            return;
        };
        let Some(poll) = side.poll.take_if(|poll| poll.number == number) else {
            // Of a poll whose connection was lost.
            return;
        };
        let refused: BTreeSet<String> = answer.refused.iter().map(|(object, _)| object.clone()).collect();
        let added: Vec<usize> = poll.added.iter().map(|(object, ..)| *object).collect();
        let live_before = side.live.clone();
        side.live.extend(&added);
        side.more = answer.more;
        self.trace.note(now, format_args!("c{client}"), || {
            let changes = answer.changes.iter().map(|c| format!("{}@{}", c.object, c.version));
            format!(
                "poll {number}: {} resync {:?} refused {refused:?} more {}",
                changes.collect::<Vec<_>>().join(" "),
                answer.resync,
                answer.more
            )
        });
        for (object, problem) in &answer.refused {
            if let Some(object) = self.oracle.object_named(object) {
                self.refused(client, object, problem.code.as_str());
            }
        }
        if answer.more {
            self.coverage.saw("poll answered with more");
            if answer.changes.is_empty() {
                self.oracle
                    .object_to("wire", format!("c{client}: `more` without progress"));
            }
        }
        for object in added {
            if !live_before.contains(&object) && self.clients[client].wanted.contains(&object) {
                self.oracle
                    .holds(now, client, object, if poll.with_cursor { poll.asked_at } else { now });
            }
        }
        if !poll.with_cursor {
            // The first answer: the client fetches what it watches now.
            let live = self.clients[client]
                .side
                .as_ref()
                .map(|side| side.live.clone())
                .unwrap_or_default();
            for object in live {
                self.oracle.holds(now, client, object, now);
            }
        }
        for change in &answer.changes {
            let data = change
                .hint
                .as_ref()
                .and_then(|hint| hint.data.as_deref())
                .and_then(|text| text.parse().ok());
            self.hear_change(client, &change.object, change.version, data);
        }
        if let Some(resync) = &answer.resync {
            let objects = match &resync.scope {
                ResyncScope::All => None,
                ResyncScope::Objects(objects) => Some(
                    objects
                        .iter()
                        .filter_map(|object| self.oracle.object_named(object))
                        .collect(),
                ),
            };
            self.hear_resync(client, objects, resync.cause);
        }
        let live = self.clients[client]
            .side
            .as_ref()
            .map(|side| side.live.clone())
            .unwrap_or_default();
        self.keep(client, &answer.cursor, answer.more, &live);
        if answer.more {
            self.poll(client);
        }
    }
}

/// A message as a person reads it.
fn said(name: &str, body: &Value) -> String {
    let text = body.to_string();
    match text.char_indices().nth(3000) {
        Some((at, _)) => format!("hears {name} {}…", &text[..at]),
        None => format!("hears {name} {text}"),
    }
}
