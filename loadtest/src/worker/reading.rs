//! From a subscriber's bytes to what the server says, on every transport.

use super::asking::MASK;
use super::subscriber::{Phase, Talk};
use super::{Alarm, READ_BYTES, Worker};
use crate::http::{self, Head};
use crate::net::{ConnId, Ready};
use crate::population::Transport;
use tidings_client::websocket::{HandshakeError, Incoming, Message, read_handshake, write_pong};
use tidings_client::wire::{Chunks, EventMessage, EventParser, Messages, PollAnswer, ProblemDocument};

/// No message of the server's is longer.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// A slow reader reads so many times a second.
const SIPS: u32 = 4;

impl Worker {
    pub(super) fn serve_subscriber(&mut self, number: u32, ready: Ready, now: u64) -> Result<(), String> {
        if ready.writable {
            if self.net.opened(ready.id)? {
                self.opened(number, now)?;
            }
            self.net.flush(ready.id)?;
        }
        if ready.readable {
            self.read_subscriber(number, ready.id, ready.closed, now)?;
        }
        Ok(())
    }

    fn read_subscriber(&mut self, number: u32, id: ConnId, to_the_end: bool, now: u64) -> Result<(), String> {
        let bytes_per_s = self.subscribers[number as usize].bytes_per_s;
        let sip = (bytes_per_s / SIPS).max(1) as usize;
        let limit = if bytes_per_s > 0 {
            sip.min(READ_BYTES)
        } else {
            READ_BYTES
        };
        loop {
            let mut scratch = std::mem::take(&mut self.scratch);
            let got = self.net.read(id, &mut scratch, limit);
            let taken = match &got {
                Ok(got) if got.new > 0 => {
                    self.tally.counts.bytes_received += got.new as u64;
                    self.subscribers[number as usize].heard_s = (now / 1_000_000) as u32;
                    let taken = self.took(number, id, &scratch[..got.length], now);
                    if let Ok(used) = taken {
                        self.net.hold(id, &scratch[used..got.length]);
                    }
                    taken
                }
                Ok(_) => Ok(0),
                Err(why) => Err(why.clone()),
            };
            self.scratch = scratch;
            taken?;
            let new = got.map_or(0, |got| got.new);
            if new == 0 || self.subscribers[number as usize].conn != id {
                return Ok(());
            }
            if bytes_per_s > 0 {
                self.net.pause(id);
                self.alarm(now + 1_000_000 / u64::from(SIPS), Alarm::ReadOn(number));
                return Ok(());
            }
            // A short read means that the socket is drained: the next bytes make a new event.
            if new < limit && !to_the_end {
                return Ok(());
            }
        }
    }

    /// A slow reader takes its next sip.
    pub(super) fn read_on(&mut self, number: u32) {
        let conn = self.subscribers[number as usize].conn;
        // A connection that is gone is noticed where its end is read.
        let _ = self.net.resume(conn);
    }

    /// Takes what came; gives how much of it was used up.
    fn took(&mut self, number: u32, id: ConnId, bytes: &[u8], now: u64) -> Result<usize, String> {
        let one = &mut self.subscribers[number as usize];
        let (transport, talk) = (one.transport, std::mem::replace(&mut one.talk, Talk::None));
        let (talk, used) = match (talk, transport) {
            (Talk::WebSocket(mut incoming), _) => {
                self.frames(number, id, &mut incoming, bytes, now)?;
                (Talk::WebSocket(incoming), bytes.len())
            }
            (Talk::Events(mut events), _) => {
                self.blocks(number, id, &mut events, bytes, now)?;
                (Talk::Events(events), bytes.len())
            }
            (_, Transport::WebSocket) => self.upgraded(number, id, bytes, now)?,
            (_, Transport::Events) => self.streaming(number, id, bytes, now)?,
            (_, Transport::Poll) => (Talk::Head, self.polled(number, id, bytes, now)?),
        };
        let one = &mut self.subscribers[number as usize];
        // It may have been cut, or begun anew, by what it was told.
        if one.conn == id {
            one.talk = talk;
        }
        Ok(used)
    }

    fn upgraded(&mut self, number: u32, id: ConnId, bytes: &[u8], now: u64) -> Result<(Talk, usize), String> {
        match read_handshake(bytes, &self.key) {
            Ok(None) => Ok((Talk::Head, 0)),
            Ok(Some(accepted)) => {
                self.ask_subscribe(number)?;
                let mut incoming = Incoming::new(MAX_MESSAGE);
                self.frames(number, id, &mut incoming, &bytes[accepted.length..], now)?;
                Ok((Talk::WebSocket(incoming), bytes.len()))
            }
            Err(HandshakeError::Refused {
                status, length, body, ..
            }) => {
                let body = &bytes[length..bytes.len().min(length + body.unwrap_or(0))];
                Err(refusal("WebSocket", status, body))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn frames(
        &mut self,
        number: u32,
        id: ConnId,
        incoming: &mut Incoming,
        bytes: &[u8],
        now: u64,
    ) -> Result<(), String> {
        let mut trouble = Ok(());
        let fed = incoming.feed(bytes, |message| {
            if trouble.is_err() || self.subscribers[number as usize].conn != id {
                return;
            }
            match message {
                Message::Text(text) => {
                    for message in Messages::of(text) {
                        if trouble.is_ok() && self.subscribers[number as usize].conn == id {
                            trouble = message
                                .map_err(|error| error.to_string())
                                .and_then(|message| self.hear(number, message, now));
                        }
                    }
                }
                Message::Ping(payload) => {
                    let mut pong = Vec::with_capacity(payload.len() + 8);
                    write_pong(&mut pong, payload, MASK);
                    trouble = self.net.send(id, &pong);
                }
                Message::Pong(_) => {}
                Message::Binary(_) => trouble = Err("a binary frame on a JSON connection".to_owned()),
                Message::Close(close) => {
                    let (code, reason) = close.unwrap_or((1005, ""));
                    self.closed_with(number, code, reason, now);
                }
            }
        });
        fed.map_err(|error| error.to_string())?;
        trouble
    }

    fn streaming(&mut self, number: u32, id: ConnId, bytes: &[u8], now: u64) -> Result<(Talk, usize), String> {
        let Some(head) = Head::read(bytes)? else {
            return Ok((Talk::Head, 0));
        };
        if head.status != 200 {
            let whole = http::answer(bytes, |head, body| refusal("event stream", head.status, body))?;
            return whole.map_or(Ok((Talk::Head, 0)), |(refused, _)| Err(refused));
        }
        if !head.is_chunked() {
            return Err("the event stream does not come in chunks".to_owned());
        }
        let mut events = Box::new((Chunks::new(), EventParser::new(MAX_MESSAGE)));
        self.blocks(number, id, &mut events, &bytes[head.length..], now)?;
        Ok((Talk::Events(events), bytes.len()))
    }

    fn blocks(
        &mut self,
        number: u32,
        id: ConnId,
        events: &mut (Chunks, EventParser),
        mut bytes: &[u8],
        now: u64,
    ) -> Result<(), String> {
        let (chunks, parser) = events;
        loop {
            let piece = chunks.next(&mut bytes).map_err(|error| error.to_string())?;
            if piece.is_empty() {
                return if chunks.ended() && self.subscribers[number as usize].conn == id {
                    Err("the event stream ended".to_owned())
                } else {
                    Ok(())
                };
            }
            parser.push(piece);
            while let Some(block) = parser.next_block().map_err(|error| error.to_string())? {
                if self.subscribers[number as usize].conn != id {
                    return Ok(());
                }
                match block.message().map_err(|error| error.to_string())? {
                    EventMessage::Message(message) => self.hear(number, message, now)?,
                    EventMessage::Refused(refused) => {
                        for refused in refused {
                            self.refused(number, &refused.object, &refused.error, now);
                        }
                    }
                    EventMessage::SessionUnknown => return Err("the session is not known any more".to_owned()),
                    _ => {}
                }
                // A block with data may carry the cursor as well.
                if block.data.is_some()
                    && let Some(cursor) = block.id
                {
                    self.cursor(number, cursor, now);
                }
            }
        }
    }

    fn polled(&mut self, number: u32, id: ConnId, bytes: &[u8], now: u64) -> Result<usize, String> {
        let whole = http::answer(bytes, |head, body| {
            if head.status == 200 {
                let answer = PollAnswer::read(body).map_err(|error| error.to_string())?;
                self.poll_answer(number, id, &answer, now)?;
            } else {
                // Whatever it is, the list may be gone: it is sent again.
                self.subscribers[number as usize].session = None;
                return Err(refusal("poll", head.status, body));
            }
            if head.closes() {
                return Err("the server closed the connection after a poll".to_owned());
            }
            Ok(())
        })?;
        match whole {
            Some((Ok(()), length)) => Ok(length),
            Some((Err(why), _)) => Err(why),
            None => Ok(0),
        }
    }

    fn poll_answer(&mut self, number: u32, id: ConnId, answer: &PollAnswer<'_>, now: u64) -> Result<(), String> {
        for change in &answer.changes {
            self.change(number, change, now);
        }
        if let Some(resync) = &answer.resync {
            self.resync(number, resync, now);
        }
        for refused in &answer.refused {
            self.refused(number, &refused.object, &refused.error, now);
        }
        self.subscribers[number as usize].polls = false;
        let cursor = answer.cursor.as_ref().ok_or("a poll's answer without a cursor")?;
        let one = &self.subscribers[number as usize];
        // Its own cursor given back: the wait was over before its objects were live. It is not in yet.
        let is_in = one.phase == Phase::Live || !answer.changes.is_empty() || one.cursor != **cursor;
        if is_in {
            self.cursor(number, cursor, now);
        }
        let one = &mut self.subscribers[number as usize];
        if let Some(session) = &answer.session
            && one.session.as_deref() != Some(&**session)
        {
            one.session = Some((**session).into());
        }
        match answer.poll_after_ms {
            Some(wait_ms) => self.alarm(now + wait_ms.min(60_000) * 1_000, Alarm::Poll(number)),
            None if self.subscribers[number as usize].conn == id => self.ask_poll(number)?,
            None => {}
        }
        Ok(())
    }
}

/// A refused request in words.
fn refusal(what: &str, status: u16, body: &[u8]) -> String {
    let document = ProblemDocument::read(body);
    let detail = document.detail.as_deref().unwrap_or("");
    match &*document.code {
        "" => format!("{what} refused with status {status}"),
        code => format!("{what} refused with status {status} {code}: {detail}"),
    }
}
