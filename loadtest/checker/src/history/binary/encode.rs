//! Events into bytes.

use super::{EXTRA, SLOTS, TEXT, TRACE, kind, zigzag};
use crate::history::event::{Event, Level, Object, Trace, What};

/// Writes events into one body after the other.
pub(in crate::history) struct Encoder {
    last_at: u64,
    last_version: u64,
    /// What the reader's slots hold. The text is worth something only if the number is that of the block.
    slots: Vec<(u64, String)>,
    block: u64,
}

impl Encoder {
    pub(in crate::history) fn new() -> Self {
        Self {
            last_at: 0,
            last_version: 0,
            slots: vec![(0, String::new()); SLOTS],
            block: 1,
        }
    }

    /// Forgets what was written: the next event begins a body.
    pub(in crate::history) fn begin(&mut self) {
        self.last_at = 0;
        self.last_version = 0;
        self.block += 1;
    }

    /// Appends an event, which is not before the one before it.
    pub(in crate::history) fn put(&mut self, out: &mut Vec<u8>, event: &Event<'_>) {
        let flags = out.len();
        out.push(0);
        put_integer(out, event.at_us.saturating_sub(self.last_at));
        self.last_at = self.last_at.max(event.at_us);
        out[flags] = self.put_what(out, &event.what);
    }

    /// The fields; returns kind and flags.
    fn put_what(&mut self, out: &mut Vec<u8>, what: &What<'_>) -> u8 {
        match what {
            What::PubCall {
                publisher,
                call,
                obj,
                key,
                revision,
                level,
            } => {
                let flags = put_call(out, *publisher, *call, kind::PUB_CALL) | self.put_object(out, obj);
                flags | put_wishes(out, *key, *revision, *level)
            }
            What::PubOk {
                publisher,
                call,
                version,
                duplicate,
                trace,
            } => {
                let flags = put_call(out, *publisher, *call, kind::PUB_OK);
                self.put_version(out, *version);
                flags | put_trace(out, *trace) | extra(*duplicate)
            }
            What::PubFail { publisher, call } => put_call(out, *publisher, *call, kind::PUB_FAIL),
            What::PubUnknown { publisher, call } => put_call(out, *publisher, *call, kind::PUB_UNKNOWN),
            What::SubCall { client, obj } => self.put_pair(out, *client, obj, kind::SUB_CALL),
            What::SubFail { client, obj } => self.put_pair(out, *client, obj, kind::SUB_FAIL),
            What::UnsubCall { client, obj } => self.put_pair(out, *client, obj, kind::UNSUB_CALL),
            What::UnsubOk { client, obj } => self.put_pair(out, *client, obj, kind::UNSUB_OK),
            What::SubOk { client, obj, version } => {
                self.put_pair(out, *client, obj, kind::SUB_OK) | self.put_known(out, *version)
            }
            What::Notify {
                client,
                obj,
                version,
                trace,
            } => {
                let flags = self.put_pair(out, *client, obj, kind::NOTIFY);
                self.put_version(out, *version);
                flags | put_trace(out, *trace)
            }
            What::Final { obj, version } => {
                let flags = self.put_object(out, obj);
                kind::FINAL | flags | self.put_known(out, *version)
            }
            What::Cursor { client, text } => {
                let kind = put_client(out, *client, kind::CURSOR);
                self.put_text(out, text, kind)
            }
            What::ConnOpen { client, edge, cursor } => {
                let mut flags = put_client(out, *client, kind::CONN_OPEN) | extra(cursor.is_some());
                for text in std::iter::once(edge).chain(cursor) {
                    flags = self.put_text(out, text, flags);
                }
                flags
            }
            What::ConnClose { client } => put_client(out, *client, kind::CONN_CLOSE),
            What::ResumeOk { client, changed } => self.put_changed(out, *client, changed),
            What::Resync { client, objects, cause } => self.put_resync(out, *client, objects.as_deref(), cause),
            What::Stale { client, stale } => put_client(out, *client, kind::STALE) | extra(*stale),
            What::NemesisStart { fault } => self.put_text(out, fault, kind::NEMESIS_START),
            What::NemesisStop { fault } => self.put_text(out, fault, kind::NEMESIS_STOP),
            What::Note { text } => self.put_text(out, text, kind::NOTE),
        }
    }

    fn put_changed(&mut self, out: &mut Vec<u8>, client: u32, changed: &[(Object<'_>, u64)]) -> u8 {
        let kind = put_client(out, client, kind::RESUME_OK);
        put_integer(out, changed.len() as u64);
        for (object, version) in changed {
            self.put_listed(out, object);
            self.put_version(out, *version);
        }
        kind
    }

    fn put_resync(&mut self, out: &mut Vec<u8>, client: u32, objects: Option<&[Object<'_>]>, cause: &str) -> u8 {
        let kind = put_client(out, client, kind::RESYNC) | extra(objects.is_none());
        self.put_text(out, cause, kind);
        if let Some(objects) = objects {
            put_integer(out, objects.len() as u64);
            for object in objects {
                self.put_listed(out, object);
            }
        }
        kind
    }

    fn put_pair(&mut self, out: &mut Vec<u8>, client: u32, object: &Object<'_>, kind: u8) -> u8 {
        put_integer(out, client.into());
        kind | self.put_object(out, object)
    }

    fn put_object(&mut self, out: &mut Vec<u8>, object: &Object<'_>) -> u8 {
        match object {
            Object::Number(number) => {
                put_integer(out, *number);
                0
            }
            Object::Text(text) => self.put_text(out, text, TEXT),
        }
    }

    /// An object in a list, where there are no flags.
    fn put_listed(&mut self, out: &mut Vec<u8>, object: &Object<'_>) {
        out.push(0);
        let flag = out.len() - 1;
        out[flag] = self.put_object(out, object);
    }

    fn put_version(&mut self, out: &mut Vec<u8>, version: u64) {
        put_integer(out, zigzag(version.wrapping_sub(self.last_version) as i64));
        self.last_version = version;
    }

    fn put_known(&mut self, out: &mut Vec<u8>, version: Option<u64>) -> u8 {
        let Some(version) = version else { return 0 };
        self.put_version(out, version);
        EXTRA
    }

    /// Returns `kind`, so that kinds that are only a text are one call.
    fn put_text(&mut self, out: &mut Vec<u8>, text: &str, kind: u8) -> u8 {
        let number = slot(text.as_bytes());
        let slot = &mut self.slots[number];
        if slot.0 == self.block && slot.1 == text {
            put_integer(out, (number as u64) << 1 | 1);
            return kind;
        }
        slot.0 = self.block;
        slot.1.clear();
        slot.1.push_str(text);
        put_integer(out, (number as u64) << 1);
        put_integer(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
        kind
    }
}

/// Which slot a text takes. Any choice is right, since the number is written: this one spreads cursors, which differ in
/// their last letters.
fn slot(text: &[u8]) -> usize {
    let last = text.len().saturating_sub(8);
    let mut hash = text.len() as u64;
    for byte in &text[last..] {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash >> 8) as usize % SLOTS
}

fn put_call(out: &mut Vec<u8>, publisher: u32, call: u64, kind: u8) -> u8 {
    put_integer(out, publisher.into());
    put_integer(out, call);
    kind
}

fn put_trace(out: &mut Vec<u8>, trace: Option<Trace>) -> u8 {
    let Some(trace) = trace else { return 0 };
    put_integer(out, trace.shard.into());
    put_integer(out, trace.epoch);
    TRACE
}

/// What a publish asks for beyond the usual.
fn put_wishes(out: &mut Vec<u8>, key: u64, revision: Option<u64>, level: Level) -> u8 {
    if key == 0 && revision.is_none() && level == Level::default() {
        return 0;
    }
    put_integer(out, key);
    out.push(revision.is_some().into());
    if let Some(revision) = revision {
        put_integer(out, revision);
    }
    out.push(match level {
        Level::Accepted => 0,
        Level::Replicated => 1,
        Level::Durable => 2,
    });
    EXTRA
}

fn put_client(out: &mut Vec<u8>, client: u32, kind: u8) -> u8 {
    put_integer(out, client.into());
    kind
}

fn extra(is: bool) -> u8 {
    if is { EXTRA } else { 0 }
}

fn put_integer(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
