//! Publishing as lines of requests that go on: the cheapest way to publish very much.
//!
//! A stream is answered as a whole, so its changes are acknowledged without their versions; what watched objects came to
//! is read from the server at the end.

use super::Worker;
use super::publisher::{Doing, Flight};
use crate::http;
use tidings_checker::history::{Object, What};
use tidings_client::wire::Sum;

/// A chunk is sent when it has so many bytes, or nothing more is due.
const CHUNK_BYTES: usize = 48 * 1024;
/// A stream ends after so many lines or so long, so that what it published is acknowledged.
const STREAM_LINES: u64 = 500_000;
pub(super) const STREAM_US: u64 = 1_000_000;
/// Chunks are sent this far apart at least: single lines would cost a system call each.
const PACE_US: u64 = 1_000;

impl Worker {
    pub(super) fn publish_lines(&mut self, now: u64) -> Result<(), String> {
        if !self.scenario.publishers.unlimited && now < self.lines_us {
            return Ok(());
        }
        for number in 0..self.publishers.all.len() as u32 {
            let one = self.publishers.one(number);
            let conn = one.conn;
            if !matches!(one.doing, Doing::Idle | Doing::Streaming) || !self.net.is_sent(conn) {
                continue;
            }
            if let Some(due) = self.plan.due_us(now - self.start_us)
                && self.start_us + due <= now
            {
                self.lines_us = now + PACE_US;
                if let Err(why) = self.send_chunk(number, now) {
                    self.lost_publisher(number, &why, now);
                }
            } else {
                self.end_if_due(number, now);
            }
        }
        Ok(())
    }

    pub(super) fn next_lines_us(&mut self, due: Option<u64>) -> u64 {
        let mut can_send = false;
        for number in 0..self.publishers.all.len() {
            let (doing, conn) = (self.publishers.all[number].doing, self.publishers.all[number].conn);
            can_send |= matches!(doing, Doing::Idle | Doing::Streaming) && self.net.is_sent(conn);
        }
        match due {
            _ if !can_send => u64::MAX,
            Some(due) if self.scenario.publishers.unlimited => due,
            Some(due) => due.max(self.lines_us),
            None => u64::MAX,
        }
    }

    fn send_chunk(&mut self, number: u32, now: u64) -> Result<(), String> {
        let (level, give_up) = (self.level(), self.scenario.publishers.give_up.us());
        self.text.clear();
        let publisher = self.publishers.name(number);
        if self.publishers.one(number).doing == Doing::Idle {
            let head = http::lines_head(&self.publish_path(), &self.publisher_host(number));
            self.text.extend_from_slice(head.as_bytes());
            self.publishers.idle.retain(|idle| *idle != number);
            let one = self.publishers.one(number);
            (one.doing, one.since_us) = (Doing::Streaming, now);
            one.flight.objects.clear();
            (one.flight.lines, one.flight.called_us) = (0, now);
        }
        let start = self.text.len();
        self.text.resize(start + http::CHUNK_ROOM, 0);
        let mut first_due = None;
        let mut lines = 0;
        while self.text.len() < start + CHUNK_BYTES
            && let Some(due) = self.plan.due_us(now - self.start_us)
            && self.start_us + due <= now
        {
            let due_us = self.start_us + due;
            if now - due_us > give_up {
                self.never_sent();
                continue;
            }
            first_due.get_or_insert(due_us);
            let (object, watched) = self.plan.object();
            self.plan.advance();
            self.write_change(object, watched.then_some(due_us));
            self.text.push(b'\n');
            lines += 1;
            if watched {
                let one = self.publishers.one(number);
                one.flight.objects.push((object, true));
                let call = one.next_call;
                one.next_call += 1;
                let obj = Object::Number(u64::from(object));
                let (key, revision) = (0, None);
                self.witness.see(
                    now,
                    What::PubCall {
                        publisher,
                        call,
                        obj,
                        key,
                        revision,
                        level,
                    },
                );
            }
        }
        let Some(first_due) = first_due else { return Ok(()) };
        http::close_chunk(&mut self.text, start);
        self.tally.counts.intended += lines;
        self.note_lateness(first_due + PACE_US, lines, now);
        self.publishers.one(number).flight.lines += lines;
        self.net.send(self.publishers.one(number).conn, &self.text)?;
        self.end_if_due(number, now);
        Ok(())
    }

    fn end_if_due(&mut self, number: u32, now: u64) {
        let one = self.publishers.one(number);
        let is_due = one.flight.lines >= STREAM_LINES || now.saturating_sub(one.since_us) >= STREAM_US;
        if one.doing == Doing::Streaming && is_due {
            self.end_stream(number, now);
        }
    }

    fn end_stream(&mut self, number: u32, now: u64) {
        let one = self.publishers.one(number);
        (one.doing, one.since_us) = (Doing::Asking, now);
        let conn = one.conn;
        if let Err(why) = self.net.send(conn, b"0\r\n\r\n") {
            self.lost_publisher(number, &why, now);
        }
    }

    /// The load is over: every stream is ended.
    pub(super) fn end_lines(&mut self) {
        let now = crate::clock::now_us();
        for number in 0..self.publishers.all.len() as u32 {
            if self.publishers.one(number).doing == Doing::Streaming {
                self.end_stream(number, now);
            }
        }
    }

    pub(super) fn lines_answered(&mut self, number: u32, flight: &Flight, body: &[u8], now: u64) {
        let _ = (number, now);
        let sum = match Sum::read(body) {
            Ok(sum) => sum,
            Err(error) => {
                self.tally.error(|| format!("a stream's answer: {error}"));
                self.tally.counts.publish_unknown += flight.lines;
                return;
            }
        };
        if sum.accepted + sum.rejected != flight.lines {
            let lines = flight.lines;
            self.tally.error(|| {
                format!(
                    "of a stream of {lines} lines {} were answered",
                    sum.accepted + sum.rejected
                )
            });
        }
        if let Some(failure) = sum.errors.first() {
            self.tally
                .warn(|| format!("a line was refused: {}: {}", failure.code, failure.message));
        }
        self.tally.counts.published += sum.accepted;
        self.tally.counts.publish_failed += sum.rejected;
        // Which lines were refused is known only of the first hundred: with one refused nothing is owed for any.
        if sum.rejected == 0 {
            for (object, _) in &flight.objects {
                self.tally.counts.expected += u64::from(self.watched.watchers(*object));
                self.ledger.took_in_stream(*object, flight.called_us);
            }
        }
    }
}
