//! Sending what is due and reading what became of it.
//!
//! Latency counts from when a change was due. Whether a late send is this worker's own fault is told apart: it is not
//! where every connection was still waiting for the server.

use super::publisher::{Doing, Flight};
use super::tally::Timed;
use super::{Alarm, Stage, Worker, lines};
use crate::http;
use crate::net::{ConnId, Dial, Ready, Role};
use crate::scenario::Mode;
use tidings_checker::history::{Level, Object, Trace, What};
use tidings_client::wire::{Outcome, ProblemDocument, Results, Told};
use tidings_protocol::error::Applied;

const READ_BYTES: usize = 64 * 1024;
/// How long a lost publisher's connection waits before it is made anew; doubles a few times.
const REDIAL_US: u64 = 50_000;

impl Worker {
    /// Whether all connections that publish are free. They are made last: a server need not keep silent ones.
    pub(super) fn publishers_are_open(&mut self, now: u64) -> bool {
        if !self.publishers.dialled {
            self.publishers.dialled = true;
            self.progress_us = now;
            for number in 0..self.publishers.all.len() as u32 {
                self.dial_publisher(number, now);
            }
        }
        self.publishers.idle.len() == self.publishers.all.len()
    }

    pub(super) fn dial_publisher(&mut self, number: u32, now: u64) {
        let name = self.publishers.name(number) as usize;
        let one = self.publishers.one(number);
        let target = &self.targets[(name + usize::from(one.failures)) % self.targets.len().max(1)];
        (one.doing, one.since_us) = (Doing::Opening, now);
        let dial = Dial {
            to: target.address,
            role: Role::Publisher(number),
            receive_buffer: None,
        };
        match self.net.dial(dial) {
            Ok(conn) => one.conn = conn,
            Err(error) => self.lost_publisher(number, &error.to_string(), now),
        }
    }

    pub(super) fn publisher_host(&self, number: u32) -> String {
        let name = self.publishers.name(number) as usize;
        let failures = self.publishers.all.get(number as usize).map_or(0, |one| one.failures);
        self.targets[(name + usize::from(failures)) % self.targets.len().max(1)]
            .host
            .clone()
    }

    pub(super) fn serve_publisher(&mut self, number: u32, ready: Ready, now: u64) -> Result<(), String> {
        if ready.writable {
            if self.net.opened(ready.id)? {
                let mut probe = Vec::new();
                http::request(&mut probe, "GET /healthz", &self.publisher_host(number), "", b"");
                self.net.send(ready.id, &probe)?;
            }
            self.net.flush(ready.id)?;
        }
        if !ready.readable {
            return Ok(());
        }
        loop {
            let mut scratch = std::mem::take(&mut self.scratch);
            let got = self.net.read(ready.id, &mut scratch, READ_BYTES);
            let taken = match &got {
                Ok(got) if got.new > 0 => self.answers(number, ready.id, &scratch[..got.length], now),
                Ok(_) => Ok(()),
                Err(why) => Err(why.clone()),
            };
            self.scratch = scratch;
            taken?;
            let new = got.map_or(0, |got| got.new);
            if new == 0 || !self.publishers.is_on(number, ready.id) || (new < READ_BYTES && !ready.closed) {
                return Ok(());
            }
        }
    }

    fn answers(&mut self, number: u32, id: ConnId, mut bytes: &[u8], now: u64) -> Result<(), String> {
        loop {
            let whole = http::answer(bytes, |head, body| {
                self.answered(number, head.status, body, now);
                head.closes()
            })?;
            match whole {
                Some((true, _)) => return Err("the server closed the connection after an answer".to_owned()),
                Some((false, length)) => bytes = &bytes[length..],
                None => {
                    self.net.hold(id, bytes);
                    return Ok(());
                }
            }
        }
    }

    /// What is due is sent on connections that are free.
    pub(super) fn publish(&mut self, now: u64) -> Result<(), String> {
        if self.stage != Stage::Load || now < self.start_us {
            return Ok(());
        }
        if self.scenario.publishers.mode == Mode::Stream {
            return self.publish_lines(now);
        }
        let (mut now, give_up) = (now, self.scenario.publishers.give_up.us());
        while let Some(due) = self.plan.due_us(now - self.start_us) {
            let due_us = self.start_us + due;
            if due_us > now {
                break;
            }
            if now - due_us > give_up {
                self.never_sent();
                continue;
            }
            let Some(number) = self.publishers.idle.pop_front() else {
                break;
            };
            self.send_changes(number, due_us, now);
            self.plan.advance();
            now = crate::clock::now_us();
        }
        Ok(())
    }

    fn changes_a_request(&self) -> u32 {
        match self.scenario.publishers.mode {
            Mode::Batch => self.scenario.publishers.batch,
            Mode::Single | Mode::Stream => 1,
        }
    }

    /// It would be too late to be of use: surely not applied.
    pub(super) fn never_sent(&mut self) {
        let changes = u64::from(self.changes_a_request());
        self.tally.counts.intended += changes;
        self.tally.counts.publish_failed += changes;
        *self.tally.counts.extra.entry("never_sent".to_owned()).or_default() += changes;
        self.plan.advance();
    }

    /// When there is something to publish again; never, if nothing can be sent before something else happens.
    pub(super) fn next_publish_us(&mut self, now: u64) -> u64 {
        if self.stage != Stage::Load {
            return u64::MAX;
        }
        if now < self.start_us {
            return self.start_us;
        }
        let end = self.start_us + self.plan.end_us();
        let due = self.plan.due_us(now - self.start_us).map(|due| self.start_us + due);
        match self.scenario.publishers.mode {
            Mode::Stream => self.next_lines_us(due).min(due.map_or(end, |_| u64::MAX)),
            Mode::Single | Mode::Batch if self.publishers.idle.is_empty() => due.map_or(end, |_| u64::MAX),
            Mode::Single | Mode::Batch => due.unwrap_or(end),
        }
    }

    /// By how much a send is late, and whether that was this worker's own doing.
    pub(super) fn note_lateness(&mut self, due_us: u64, changes: u64, now: u64) {
        if self.scenario.publishers.unlimited {
            return;
        }
        let own = now.saturating_sub(due_us.max(self.publishers.free_since_us));
        self.tally.time(Timed::Lateness, own);
        self.tally.late_us = self.tally.late_us.max(own);
        if own > self.scenario.publishers.tolerance.us() {
            self.tally.counts.late_sends += changes;
        }
        if self.publishers.free_since_us > due_us {
            *self
                .tally
                .counts
                .extra
                .entry("waited_for_answers".to_owned())
                .or_default() += changes;
        }
    }

    fn send_changes(&mut self, number: u32, due_us: u64, now: u64) {
        let changes = self.changes_a_request();
        let is_batch = self.scenario.publishers.mode == Mode::Batch;
        let level = self.level();
        let mut flight = std::mem::take(&mut self.publishers.one(number).flight);
        flight.objects.clear();
        let one = self.publishers.one(number);
        (flight.due_us, flight.called_us, flight.call) = (due_us, now, one.next_call);
        one.next_call += u64::from(changes);
        (one.doing, one.since_us) = (Doing::Asking, now);
        let conn = one.conn;
        self.text.clear();
        if is_batch {
            self.text.extend_from_slice(b"{\"changes\":[");
        }
        for nth in 0..changes {
            if nth > 0 {
                self.text.push(b',');
            }
            let (object, watched) = self.plan.object();
            flight.objects.push((object, watched));
            self.write_change(object, watched.then_some(due_us));
            if self.witness.is_on() {
                let call = What::PubCall {
                    publisher: self.publishers.name(number),
                    call: flight.call + u64::from(nth),
                    obj: Object::Number(u64::from(object)),
                    key: 0,
                    revision: None,
                    level,
                };
                self.witness.see(now, call);
            }
        }
        if is_batch {
            self.text.extend_from_slice(b"]}");
        }
        self.tally.counts.intended += u64::from(changes);
        self.note_lateness(due_us, u64::from(changes), now);
        let mut request = Vec::with_capacity(self.text.len() + 256);
        let head = format!("POST {}", self.publish_path());
        http::request(
            &mut request,
            &head,
            &self.publisher_host(number),
            http::JSON,
            &self.text,
        );
        self.publishers.one(number).flight = flight;
        if let Err(why) = self.net.send(conn, &request) {
            self.lost_publisher(number, &why, now);
        }
    }

    pub(super) fn publish_path(&self) -> String {
        let ack = self.scenario.publishers.ack.as_str();
        let trace = if self.witness.is_on() { "&trace=1" } else { "" };
        format!("/v1/publish?ack={ack}{trace}")
    }

    pub(super) fn level(&self) -> Level {
        match self.scenario.publishers.ack {
            crate::scenario::Ack::Accepted => Level::Accepted,
            crate::scenario::Ack::Replicated => Level::Replicated,
            crate::scenario::Ack::Durable => Level::Durable,
        }
    }

    /// One change, stamped with when it was due if anybody will read the stamp.
    pub(super) fn write_change(&mut self, object: u32, stamp_us: Option<u64>) {
        use std::io::Write as _;
        let text = &mut self.text;
        text.extend_from_slice(b"{\"object\":\"");
        self.names.write(object, text);
        text.push(b'"');
        if let Some(stamp_us) = stamp_us {
            // A vector takes everything.
            let _ = write!(text, ",\"kind\":\"{stamp_us:x}\"");
        }
        text.push(b'}');
    }

    /// An answer has come whole.
    fn answered(&mut self, number: u32, status: u16, body: &[u8], now: u64) {
        let one = self.publishers.one(number);
        match one.doing {
            Doing::Opening => {
                one.failures = 0;
                self.progress_us = now;
                self.publishers.is_free(number, now);
                return;
            }
            Doing::Asking | Doing::Streaming => {}
            Doing::Nothing | Doing::Idle => return,
        }
        let flight = std::mem::take(&mut one.flight);
        match self.scenario.publishers.mode {
            _ if status != 200 => self.refused_flight(number, &flight, status, body, now),
            Mode::Single => self.one_answered(number, &flight, body, now),
            Mode::Batch => self.batch_answered(number, &flight, body, now),
            Mode::Stream => self.lines_answered(number, &flight, body, now),
        }
        self.publishers.one(number).flight = flight;
        self.publishers.is_free(number, now);
    }

    fn one_answered(&mut self, number: u32, flight: &Flight, body: &[u8], now: u64) {
        match Told::read(body) {
            Ok(told) => {
                self.tally.time(Timed::Publish, now - flight.due_us.min(now));
                self.acknowledged(number, flight, 0, &told, now);
            }
            Err(error) => {
                self.tally.error(|| format!("a publish's answer: {error}"));
                self.in_doubt(number, flight, now);
            }
        }
    }

    fn batch_answered(&mut self, number: u32, flight: &Flight, body: &[u8], now: u64) {
        let results = match Results::read(body) {
            Ok(results) if results.results.len() == flight.objects.len() => results.results,
            other => {
                let why = other.map_or_else(|error| error.to_string(), |_| "it has another length".to_owned());
                self.tally.error(|| format!("a batch's answer: {why}"));
                self.in_doubt(number, flight, now);
                return;
            }
        };
        self.tally.time(Timed::Publish, now - flight.due_us.min(now));
        for (nth, result) in results.into_iter().enumerate() {
            match result {
                Outcome::Told(told) => self.acknowledged(number, flight, nth, &told, now),
                Outcome::Refused { error, applied } => {
                    self.tally
                        .warn(|| format!("a change was refused: {}: {}", error.code, error.message));
                    self.not_taken(number, flight.call + nth as u64, applied == Some(Applied::No), now);
                }
            }
        }
    }

    fn acknowledged(&mut self, number: u32, flight: &Flight, nth: usize, told: &Told, now: u64) {
        let (Some((object, watched)), Some(version)) = (flight.objects.get(nth).copied(), told.version) else {
            self.tally
                .error(|| "a publish was acknowledged without a version".to_owned());
            return;
        };
        self.tally.counts.published += 1;
        if watched {
            self.tally.counts.expected += u64::from(self.watched.watchers(object));
            self.ledger.acknowledge(object, version.0, flight.called_us);
        }
        if self.witness.is_on() {
            let trace = told.shard.zip(told.epoch).map(|(shard, epoch)| Trace {
                shard: shard.0,
                epoch: epoch.0,
            });
            let ok = What::PubOk {
                publisher: self.publishers.name(number),
                call: flight.call + nth as u64,
                version: version.0,
                duplicate: told.duplicate,
                trace,
            };
            self.witness.see(now, ok);
        }
    }

    fn not_taken(&mut self, number: u32, call: u64, surely: bool, now: u64) {
        let publisher = self.publishers.name(number);
        if surely {
            self.tally.counts.publish_failed += 1;
            self.witness.see(now, What::PubFail { publisher, call });
        } else {
            self.tally.counts.publish_unknown += 1;
            self.witness.see(now, What::PubUnknown { publisher, call });
        }
    }

    fn refused_flight(&mut self, number: u32, flight: &Flight, status: u16, body: &[u8], now: u64) {
        let document = ProblemDocument::read(body);
        let surely = document.applied == Some(Applied::No);
        let detail = document.detail.as_deref().unwrap_or("");
        self.tally
            .warn(|| format!("a publish was refused with status {status} {}: {detail}", document.code));
        if self.scenario.publishers.mode == Mode::Stream {
            self.tally.counts.publish_unknown += flight.lines;
        } else {
            for nth in 0..flight.objects.len() as u64 {
                self.not_taken(number, flight.call + nth, surely, now);
            }
        }
    }

    fn in_doubt(&mut self, number: u32, flight: &Flight, now: u64) {
        if self.scenario.publishers.mode == Mode::Stream {
            self.tally.counts.publish_unknown += flight.lines;
            return;
        }
        for nth in 0..flight.objects.len() as u64 {
            self.not_taken(number, flight.call + nth, false, now);
        }
    }

    /// A publisher's connection is gone: what was under way may have been applied.
    pub(super) fn lost_publisher(&mut self, number: u32, why: &str, now: u64) {
        let one = self.publishers.one(number);
        let (was, conn) = (one.doing, std::mem::replace(&mut one.conn, ConnId::NONE));
        one.doing = Doing::Nothing;
        one.failures = one.failures.saturating_add(1);
        let wait = REDIAL_US << one.failures.min(5);
        let flight = std::mem::take(&mut one.flight);
        self.net.cut(conn);
        self.publishers.idle.retain(|idle| *idle != number);
        match was {
            Doing::Asking | Doing::Streaming => {
                self.tally.warn(|| format!("a publisher's connection ended: {why}"));
                self.in_doubt(number, &flight, now);
            }
            Doing::Opening => {
                self.tally.counts.connects_failed += 1;
                self.tally.warn(|| format!("a publisher's connection ended: {why}"));
            }
            // A server may close what rests.
            Doing::Idle | Doing::Nothing => {}
        }
        if matches!(self.stage, Stage::Ramp | Stage::Waiting | Stage::Load) {
            self.alarm(now + wait, Alarm::Redial(number));
        }
    }

    /// Looks for requests that nobody answers.
    pub(super) fn sweep_publishers(&mut self, now: u64) {
        let timeout = self.scenario.publishers.timeout.us();
        for number in 0..self.publishers.all.len() as u32 {
            let one = &self.publishers.all[number as usize];
            let waits = match one.doing {
                Doing::Asking | Doing::Opening => now.saturating_sub(one.since_us) > timeout,
                Doing::Streaming => now.saturating_sub(one.since_us) > timeout + lines::STREAM_US,
                Doing::Nothing | Doing::Idle => false,
            };
            if waits {
                self.lost_publisher(number, "no answer came in time", now);
            }
        }
    }

    /// Whether everything that was sent has been answered or given up.
    pub(super) fn nothing_under_way(&self) -> bool {
        let mut doing = self.publishers.all.iter().map(|one| one.doing);
        doing.all(|doing| matches!(doing, Doing::Idle | Doing::Nothing | Doing::Opening))
    }
}
