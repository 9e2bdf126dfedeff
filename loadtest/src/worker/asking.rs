//! Connecting subscribers and asking for what they hold.

use super::subscriber::{Phase, Subscriber, Talk};
use super::tally::Timed;
use super::{Alarm, Stage, Worker};
use crate::http;
use crate::names::Names;
use crate::net::{ConnId, Dial, Role};
use crate::population::Transport;
use std::borrow::Cow;
use tidings_checker::history::{Object, What};
use tidings_client::websocket::{handshake, write_text};

/// IDs in one page of a subscribe.
const PAGE: usize = 1_000;
/// So that the kernel of a slow reader does not take the backlog in the server's stead.
const SLOW_RECEIVE_BUFFER: usize = 16 * 1024;
/// How long the first poll with an old cursor waits for something that it missed.
const RESUME_WAIT_MS: u64 = 500;
/// Our frames need a mask, not a secret.
pub(super) const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

impl Worker {
    pub(super) fn client(&self, number: u32) -> u32 {
        self.first + number
    }

    /// Puts a subscriber into the queue of those to be connected.
    pub(super) fn enqueue(&mut self, number: u32) {
        let one = &mut self.subscribers[number as usize];
        if one.phase == Phase::Away {
            one.phase = Phase::Queued;
            self.queue.push_back(number);
        }
    }

    /// Connects as many as may be connecting at a time.
    pub(super) fn connect_more(&mut self, now: u64) -> Result<(), String> {
        while self.connecting < self.scenario.subscribers.connecting
            && let Some(number) = self.queue.pop_front()
        {
            if self.subscribers[number as usize].phase == Phase::Queued {
                self.connect(number, now)?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, number: u32, now: u64) -> Result<(), String> {
        let client = self.client(number);
        let one = &mut self.subscribers[number as usize];
        // Another server at each attempt.
        let target = (client as usize + usize::from(one.attempts)) % self.targets.len().max(1);
        let target = &self.targets[target];
        if !one.resumes() {
            one.told.fill(0);
            one.held_us = u64::MAX;
        }
        if self.witness.is_on() {
            let cursor = one.resumes().then_some(Cow::Borrowed(one.cursor.as_str()));
            let edge = Cow::Borrowed(target.host.as_str());
            self.witness.see(now, What::ConnOpen { client, edge, cursor });
        }
        let dial = Dial {
            to: target.address,
            role: Role::Subscriber(number),
            receive_buffer: one.dawdles.then_some(SLOW_RECEIVE_BUFFER),
        };
        one.phase = Phase::Asking;
        one.asked_us = now;
        one.unconfirmed = true;
        one.heard_s = (now / 1_000_000) as u32;
        self.connecting += 1;
        match self.net.dial(dial) {
            Ok(conn) => self.subscribers[number as usize].conn = conn,
            Err(error) if self.stage == Stage::Ramp && crate::limits::is_exhausted(&error) => {
                return Err(crate::limits::explain(&error, self.net.open()));
            }
            Err(error) => self.lost_connection(number, &error.to_string(), now),
        }
        Ok(())
    }

    /// The connection stands.
    pub(super) fn opened(&mut self, number: u32, now: u64) -> Result<(), String> {
        let one = &mut self.subscribers[number as usize];
        self.tally.counts.connects += 1;
        self.tally.counts.reconnects += u64::from(one.lost_us > 0);
        self.tally.time(Timed::Connect, now - one.asked_us);
        one.talk = Talk::Head;
        self.see_asking(number, now);
        match self.subscribers[number as usize].transport {
            Transport::WebSocket => self.ask_upgrade(number),
            Transport::Events => self.ask_events(number),
            Transport::Poll => self.ask_poll(number),
        }
    }

    /// A client without a cursor begins to hold its objects.
    fn see_asking(&mut self, number: u32, now: u64) {
        let one = &self.subscribers[number as usize];
        if self.witness.is_on() && !one.resumes() {
            let client = self.first + number;
            for object in &one.objects {
                let obj = Object::Number(u64::from(*object));
                self.witness.see(now, What::SubCall { client, obj });
            }
        }
    }

    fn host(&self, number: u32) -> &str {
        let attempts = usize::from(self.subscribers[number as usize].attempts);
        let target = (self.client(number) as usize + attempts) % self.targets.len().max(1);
        &self.targets[target].host
    }

    /// Shards and epochs are told only to who writes them down.
    pub(super) fn trace(&self) -> &'static str {
        if self.witness.is_on() { "?trace=1" } else { "" }
    }

    fn ask_upgrade(&mut self, number: u32) -> Result<(), String> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let target = format!("/v1/ws{}", self.trace());
        let written = handshake(&mut text, self.host(number), &target, &self.key, &[]);
        let sent = self.net.send(self.subscribers[number as usize].conn, &text);
        self.text = text;
        written.map_err(|error| error.to_string()).and(sent)
    }

    /// After the upgrade: everything it holds, in pages.
    pub(super) fn ask_subscribe(&mut self, number: u32) -> Result<(), String> {
        let one = &mut self.subscribers[number as usize];
        let pages = one.objects.len().div_ceil(PAGE).max(1);
        one.pages = pages as u16;
        let mut frames = Vec::new();
        for (nth, page) in one.objects.chunks(PAGE).enumerate() {
            self.text.clear();
            self.text.extend_from_slice(b"{\"subscribe\":{");
            write_list(&mut self.text, &self.names, page);
            if one.resumes() {
                write_cursor(&mut self.text, &one.cursor);
            }
            if nth + 1 < pages {
                self.text.extend_from_slice(b",\"more\":true");
            }
            self.text.extend_from_slice(b"},\"id\":1}");
            write_text(&mut frames, &self.text, MASK);
        }
        self.net.send(one.conn, &frames)
    }

    fn ask_events(&mut self, number: u32) -> Result<(), String> {
        let one = &self.subscribers[number as usize];
        self.text.clear();
        self.text.push(b'{');
        write_list(&mut self.text, &self.names, &one.objects);
        if one.resumes() {
            write_cursor(&mut self.text, &one.cursor);
        }
        self.text.push(b'}');
        let head = format!("POST /v1/events{}", self.trace());
        self.post(number, &head)
    }

    /// One poll: with the name of its list if it has one.
    pub(super) fn ask_poll(&mut self, number: u32) -> Result<(), String> {
        let Worker {
            subscribers,
            text,
            names,
            scenario,
            ..
        } = self;
        let one: &mut Subscriber = &mut subscribers[number as usize];
        one.polls = true;
        text.clear();
        text.push(b'{');
        match &one.session {
            Some(session) => {
                text.extend_from_slice(b"\"session\":\"");
                text.extend_from_slice(session.as_bytes());
                text.push(b'"');
            }
            None => write_list(text, names, &one.objects),
        }
        if one.resumes() {
            write_cursor(text, &one.cursor);
        }
        text.extend_from_slice(b",\"wait_ms\":");
        // Who comes back wants to know soon where it stands.
        let wait_ms = scenario.subscribers.poll_wait.ms().min(60_000);
        let wait_ms = match one.phase {
            Phase::Asking if one.resumes() => wait_ms.min(RESUME_WAIT_MS),
            _ => wait_ms,
        };
        crate::names::write_decimal(wait_ms, text);
        text.push(b'}');
        let head = format!("POST /v1/poll{}", self.trace());
        self.post(number, &head)
    }

    /// Sends what is in `text` as a body.
    fn post(&mut self, number: u32, head: &str) -> Result<(), String> {
        let mut request = Vec::with_capacity(self.text.len() + 256);
        http::request(&mut request, head, self.host(number), http::JSON, &self.text);
        self.net.send(self.subscribers[number as usize].conn, &request)
    }

    /// A long-poll that was asked to wait a little asks again.
    pub(super) fn poll_again(&mut self, number: u32, now: u64) {
        let one = &self.subscribers[number as usize];
        if one.phase == Phase::Live
            && one.transport == Transport::Poll
            && one.conn != ConnId::NONE
            && !one.polls
            && let Err(why) = self.ask_poll(number)
        {
            self.lost_connection(number, &why, now);
        }
    }

    /// A subscriber is told everything up to its first cursor: it is in.
    pub(super) fn is_live(&mut self, number: u32, now: u64) {
        let client = self.client(number);
        let one = &mut self.subscribers[number as usize];
        one.phase = Phase::Live;
        one.attempts = 0;
        self.connecting -= 1;
        self.live += 1;
        self.progress_us = now;
        self.tally.time(Timed::Subscribe, now - one.asked_us);
        if one.resumes() {
            if one.lost_us > 0 {
                self.tally.time(Timed::CatchUp, now.saturating_sub(one.lost_us));
            }
            let changed = Vec::new();
            self.witness.see(now, What::ResumeOk { client, changed });
        } else if one.transport != Transport::WebSocket {
            one.held_us = now;
            self.tally.counts.subscribes += one.objects.len() as u64;
            if self.witness.is_on() {
                for object in &one.objects {
                    let obj = Object::Number(u64::from(*object));
                    self.witness.see(
                        now,
                        What::SubOk {
                            client,
                            obj,
                            version: None,
                        },
                    );
                }
            }
        }
        if one.bytes_per_s > 0 {
            self.alarm(now, Alarm::ReadOn(number));
        }
    }
}

fn write_list(text: &mut Vec<u8>, names: &Names, objects: &[u32]) {
    text.extend_from_slice(b"\"objects\":[");
    for (nth, object) in objects.iter().enumerate() {
        text.extend_from_slice(if nth == 0 { b"\"" } else { b",\"" });
        names.write(*object, text);
        text.push(b'"');
    }
    text.push(b']');
}

fn write_cursor(text: &mut Vec<u8>, cursor: &str) {
    // Cursors are made of letters, digits, - and _.
    text.extend_from_slice(b",\"cursor\":\"");
    text.extend_from_slice(cursor.as_bytes());
    text.push(b'"');
}
