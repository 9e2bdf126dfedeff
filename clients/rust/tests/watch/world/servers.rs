//! The servers of the model.

use super::{Connection, Down, NAMES, World};
use std::collections::{BTreeSet, VecDeque};
use tidings_client::watch::{Ended, Input, Transport};
use tidings_protocol::client::{Entry, EntryResult, EventsRequest, PollRequest, Request, parse_requests};
use tidings_protocol::codec::{Encoding, RequestId};

impl World {
    pub(in super::super) fn publish(&mut self) {
        let object = format!("o{}", self.dice.roll(NAMES));
        self.clock += 1 + self.dice.roll(3);
        let version = self.clock;
        self.note(|| format!("publish {object} {version}"));
        let truth = self.truth.entry(object.clone()).or_default();
        truth.history.push(version);
        truth.forgotten = false;
        if let Some(connection) = &mut self.connection
            && connection.objects.contains(&object)
        {
            connection.pending.insert(object);
        }
    }

    /// The versions of an object are lost; the floor says below which version nobody can vouch.
    pub(super) fn lose(&mut self) {
        let object = format!("o{}", self.dice.roll(NAMES));
        self.clock += 1;
        self.floor = self.clock;
        self.note(|| format!("lose {object}"));
        self.truth.entry(object.clone()).or_default().forgotten = true;
        let floor = self.floor;
        let stale: Vec<String> = self
            .truth
            .iter()
            .filter(|(_, t)| t.told() < floor)
            .map(|(o, _)| o.clone())
            .collect();
        if let Some(connection) = &mut self.connection {
            // The floor is the shard's: everything below it is in doubt.
            for object in connection.objects.clone() {
                if stale.contains(&object) {
                    connection.resync.insert(object);
                }
            }
        }
    }

    /// What a subscriber that knows this much of the object has missed.
    pub(super) fn catch_up(&mut self, connection: &mut Connection, object: &str, known: Option<u64>) {
        let version = self.told(object);
        match known {
            None => {}
            Some(known) if version < self.floor && known < self.floor - 1 => {
                _ = connection.resync.insert(object.into())
            }
            Some(known) if version > known => _ = connection.pending.insert(object.into()),
            Some(_) => {}
        }
    }

    /// `None`: there is none. `Err`: it cannot be read.
    pub(super) fn cursor(text: Option<&str>) -> Option<Result<u64, ()>> {
        text.map(|text| text.strip_prefix('T').and_then(|text| text.parse().ok()).ok_or(()))
    }

    pub(super) fn subscribe(&mut self, connection: &mut Connection, entry: &Entry, cursor: Option<Result<u64, ()>>) {
        let object = entry.object.to_string();
        connection.objects.insert(object.clone());
        let version = entry.version.map(|version| version.0);
        match cursor {
            Some(Err(())) => _ = connection.resync.insert(object),
            Some(Ok(cursor)) => self.catch_up(connection, &object, Some(cursor.max(version.unwrap_or(0)))),
            None => self.catch_up(connection, &object, version),
        }
    }

    pub(super) fn refuses(&mut self) -> bool {
        self.faults && self.dice.chance(12)
    }

    pub(super) fn hear_text(&mut self, frame: &[u8]) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        for (id, request) in parse_requests(Encoding::WebSocketJson, frame, 1000) {
            let id = match id {
                Some(RequestId::Number(id)) => id,
                _ => 0,
            };
            match request.expect("a request") {
                Request::Subscribe { objects, cursor, more } => {
                    let cursor = Self::cursor(cursor.as_deref());
                    let mut answers = Vec::new();
                    for entry in objects.iter().map(|entry| entry.as_ref().expect("an ID")) {
                        let object = &entry.object;
                        if self.refuses() {
                            answers.push(format!(
                                "{{\"object\":\"{object}\",\"error\":{{\"code\":\"too_many\",\"message\":\"\",\"retryable\":true}}}}"
                            ));
                            continue;
                        }
                        let version = match self.told(object) {
                            0 => "null".to_owned(),
                            version => version.to_string(),
                        };
                        answers.push(format!("{{\"object\":\"{object}\",\"version\":{version}}}"));
                        self.subscribe(&mut connection, entry, cursor);
                    }
                    connection.more = more;
                    let answers = answers.join(",");
                    let text = format!("{{\"subscribed\":{{\"objects\":[{answers}]}},\"id\":{id}}}");
                    connection.down.push_back(Down::Text(text));
                }
                Request::Unsubscribe { objects } => {
                    for entry in objects.iter().flatten() {
                        connection.objects.remove(&*entry.object);
                        connection.pending.remove(&*entry.object);
                        connection.resync.remove(&*entry.object);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        self.connection = Some(connection);
    }

    pub(super) fn subscribe_all(
        &mut self,
        connection: &mut Connection,
        entries: &[EntryResult],
        cursor: Option<Result<u64, ()>>,
    ) {
        for entry in entries.iter().flatten() {
            self.subscribe(connection, entry, cursor);
        }
    }

    pub(super) fn hear_poll(&mut self, body: &[u8]) {
        let request = PollRequest::from_json(body, 1000).expect("a poll");
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        connection.down.clear();
        connection.pending.clear();
        connection.resync.clear();
        let cursor = Self::cursor(request.cursor.as_deref());
        connection.objects = match &request.session {
            Some(session) => match self.sessions.get(session) {
                Some(objects) => objects.clone(),
                None => {
                    let body = "{\"code\":\"session_unknown\",\"retryable\":true}";
                    connection.down.push_back(Down::Refused(410, body));
                    self.connection = Some(connection);
                    return;
                }
            },
            None => BTreeSet::new(),
        };
        for object in connection.objects.clone() {
            match cursor {
                Some(Err(())) => _ = connection.resync.insert(object),
                Some(Ok(cursor)) => self.catch_up(&mut connection, &object, Some(cursor)),
                None => {}
            }
        }
        self.subscribe_all(&mut connection, request.objects.as_deref().unwrap_or_default(), cursor);
        self.subscribe_all(&mut connection, &request.add, cursor);
        for entry in request.remove.iter().flatten() {
            connection.objects.remove(&*entry.object);
        }
        let session = request.session.unwrap_or_else(|| {
            self.next_session += 1;
            format!("s{}", self.next_session)
        });
        self.sessions.insert(session.clone(), connection.objects.clone());
        connection.session = session;
        connection.poll = Some((self.now_ms + request.wait_ms.expect("a wait"), cursor.is_none()));
        self.connection = Some(connection);
    }

    pub(super) fn connect(&mut self, transport: Transport, body: &[u8]) {
        self.connection = None;
        if self.faults && self.dice.chance(5) {
            return self
                .machine
                .handle(self.now_ms, self.number, Input::Ended(Ended::Unreachable("no".into())));
        }
        let mut connection = Connection {
            transport,
            objects: BTreeSet::new(),
            pending: BTreeSet::new(),
            resync: BTreeSet::new(),
            down: VecDeque::new(),
            more: false,
            poll: None,
            session: String::new(),
        };
        let hello = r#"{"connection":"c","node":"n","ping_ms":25000,"limits":{"objects":3,"frame_bytes":65536}}"#;
        match transport {
            Transport::WebSocket => connection.down.push_back(Down::Text(format!("{{\"hello\":{hello}}}"))),
            Transport::Events => {
                let request = EventsRequest::from_json(body, 1000).expect("a stream");
                let cursor = Self::cursor(request.cursor.as_deref());
                connection
                    .down
                    .push_back(Down::Block(format!("event: hello\ndata: {hello}\n\n")));
                for entry in request.objects.as_deref().unwrap_or_default().iter().flatten() {
                    if self.refuses() {
                        let object = &entry.object;
                        let refused = format!(
                            "[{{\"object\":\"{object}\",\"error\":{{\"code\":\"too_many\",\"retryable\":true}}}}]"
                        );
                        connection
                            .down
                            .push_back(Down::Block(format!("event: refused\ndata: {refused}\n\n")));
                    } else {
                        self.subscribe(&mut connection, entry, cursor);
                    }
                }
            }
            Transport::LongPoll => {
                self.connection = Some(connection);
                return self.hear_poll(body);
            }
            Transport::Auto => panic!("a transport is chosen"),
        }
        self.connection = Some(connection);
    }

    /// The server tells what is pending, or gives a cursor.
    pub(in super::super) fn tell(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let pending: Vec<String> = connection.pending.iter().cloned().collect();
        let changes: Vec<String> = pending
            .iter()
            .map(|object| format!("{{\"object\":\"{object}\",\"version\":{}}}", self.told(object)))
            .filter(|change| !change.ends_with(":0}"))
            .collect();
        let resync: Vec<String> = connection.resync.iter().map(|object| format!("\"{object}\"")).collect();
        let resync_body = format!("{{\"objects\":[{}],\"cause\":\"versions_lost\"}}", resync.join(","));
        let nothing = changes.is_empty() && resync.is_empty();
        match connection.transport {
            Transport::WebSocket if nothing => {
                if !connection.more && !connection.objects.is_empty() {
                    connection
                        .down
                        .push_back(Down::Text(format!("{{\"cursor\":\"T{}\"}}", self.clock)));
                }
            }
            Transport::WebSocket => {
                if !resync.is_empty() {
                    connection
                        .down
                        .push_back(Down::Text(format!("{{\"resync\":{resync_body}}}")));
                }
                if !changes.is_empty() {
                    let text = format!("{{\"changes\":[{}]}}", changes.join(","));
                    connection.down.push_back(Down::Text(text));
                }
            }
            Transport::Events if nothing => connection
                .down
                .push_back(Down::Block(format!("id: T{}\n\n", self.clock))),
            Transport::Events => {
                if !resync.is_empty() {
                    connection
                        .down
                        .push_back(Down::Block(format!("event: resync\ndata: {resync_body}\n\n")));
                }
                for change in &changes {
                    connection.down.push_back(Down::Block(format!("data: {change}\n\n")));
                }
            }
            _ => {
                if let Some((until_ms, at_once)) = connection.poll
                    && (!nothing || at_once || until_ms <= self.now_ms)
                {
                    connection.poll = None;
                    let resync = if resync.is_empty() { "null" } else { &resync_body };
                    connection.down.push_back(Down::Answer(format!(
                        "{{\"changes\":[{}],\"resync\":{resync},\"refused\":[],\"cursor\":\"T{}\",\"session\":\"{}\"}}",
                        changes.join(","),
                        self.clock,
                        connection.session
                    )));
                    connection.pending.clear();
                    connection.resync.clear();
                }
                self.connection = Some(connection);
                return;
            }
        }
        connection.pending.clear();
        connection.resync.clear();
        self.connection = Some(connection);
    }

    /// A lagging node tells an old version once more.
    pub(super) fn tell_old(&mut self) {
        let object = format!("o{}", self.dice.roll(NAMES));
        let Some(truth) = self.truth.get(&object).filter(|truth| !truth.history.is_empty()) else {
            return;
        };
        let version = truth.history[self.dice.roll(truth.history.len() as u64) as usize];
        let change = format!("{{\"object\":\"{object}\",\"version\":{version}}}");
        if let Some(connection) = &mut self.connection {
            match connection.transport {
                Transport::WebSocket => connection
                    .down
                    .push_back(Down::Text(format!("{{\"changes\":[{change}]}}"))),
                Transport::Events => connection.down.push_back(Down::Block(format!("data: {change}\n\n"))),
                _ => {}
            }
        }
    }
}
