//! Bytes into events: whatever the bytes are, there is an answer.

use super::{EXTRA, KIND, SLOTS, TEXT, TRACE, kind, unzigzag};
use crate::history::event::{Event, Level, Object, Trace, What};
use std::borrow::Cow;
use std::ops::Range;

/// Why a body makes no sense, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::history) struct Bad {
    /// Byte of the body.
    pub(in crate::history) at: usize,
    /// What is wrong there.
    pub(in crate::history) why: &'static str,
}

/// A place in one body. The bytes stay with the caller, so that events can borrow from them.
pub(in crate::history) struct Body {
    at: usize,
    last_at: u64,
    last_version: u64,
    slots: Vec<Option<Range<usize>>>,
}

impl Body {
    pub(in crate::history) fn new() -> Self {
        Self {
            at: 0,
            last_at: 0,
            last_version: 0,
            slots: vec![None; SLOTS],
        }
    }

    /// To the start of another body.
    pub(in crate::history) fn restart(&mut self) {
        self.at = 0;
        self.last_at = 0;
        self.last_version = 0;
        self.slots.fill(None);
    }

    /// The stamp of the next event; `None` at the end of the body.
    pub(in crate::history) fn peek(&self, body: &[u8]) -> Result<Option<u64>, Bad> {
        if self.at >= body.len() {
            return Ok(None);
        }
        let mut reader = Reader { body, at: self.at + 1 };
        let difference = reader.integer()?;
        self.stamp(difference).map(Some)
    }

    /// The next event; `None` at the end of the body. After an error the place is still before the event.
    pub(in crate::history) fn next<'a>(&mut self, body: &'a [u8]) -> Result<Option<Event<'a>>, Bad> {
        let mut reader = Reader { body, at: self.at };
        if reader.at >= body.len() {
            return Ok(None);
        }
        let flags = reader.byte()?;
        let difference = reader.integer()?;
        let at_us = self.stamp(difference)?;
        let mut fields = Fields {
            reader,
            flags,
            last_version: self.last_version,
            slots: &mut self.slots,
        };
        let what = fields.what()?;
        self.at = fields.reader.at;
        self.last_version = fields.last_version;
        self.last_at = at_us;
        Ok(Some(Event { at_us, what }))
    }

    fn stamp(&self, difference: u64) -> Result<u64, Bad> {
        let why = "the stamp is too large";
        self.last_at.checked_add(difference).ok_or(Bad { at: self.at, why })
    }
}

struct Fields<'a, 's> {
    reader: Reader<'a>,
    flags: u8,
    last_version: u64,
    slots: &'s mut Vec<Option<Range<usize>>>,
}

impl<'a> Fields<'a, '_> {
    fn what(&mut self) -> Result<What<'a>, Bad> {
        let at = self.reader.at;
        Ok(match self.flags & KIND {
            kind::PUB_CALL => self.publish()?,
            kind::PUB_OK => What::PubOk {
                publisher: self.number()?,
                call: self.reader.integer()?,
                version: self.version()?,
                duplicate: self.has(EXTRA),
                trace: self.trace()?,
            },
            kind::PUB_FAIL => What::PubFail {
                publisher: self.number()?,
                call: self.reader.integer()?,
            },
            kind::PUB_UNKNOWN => What::PubUnknown {
                publisher: self.number()?,
                call: self.reader.integer()?,
            },
            kind::SUB_CALL => What::SubCall {
                client: self.number()?,
                obj: self.object()?,
            },
            kind::SUB_OK => What::SubOk {
                client: self.number()?,
                obj: self.object()?,
                version: self.known()?,
            },
            kind::SUB_FAIL => What::SubFail {
                client: self.number()?,
                obj: self.object()?,
            },
            kind::UNSUB_CALL => What::UnsubCall {
                client: self.number()?,
                obj: self.object()?,
            },
            kind::UNSUB_OK => What::UnsubOk {
                client: self.number()?,
                obj: self.object()?,
            },
            kind::CONN_OPEN => What::ConnOpen {
                client: self.number()?,
                edge: self.text()?,
                cursor: if self.has(EXTRA) { Some(self.text()?) } else { None },
            },
            kind::CONN_CLOSE => What::ConnClose { client: self.number()? },
            kind::RESUME_OK => self.resume()?,
            kind::RESYNC => self.resync()?,
            kind::NOTIFY => What::Notify {
                client: self.number()?,
                obj: self.object()?,
                version: self.version()?,
                trace: self.trace()?,
            },
            kind::CURSOR => What::Cursor {
                client: self.number()?,
                text: self.text()?,
            },
            kind::STALE => What::Stale {
                client: self.number()?,
                stale: self.has(EXTRA),
            },
            kind::NEMESIS_START => What::NemesisStart { fault: self.text()? },
            kind::NEMESIS_STOP => What::NemesisStop { fault: self.text()? },
            kind::FINAL => What::Final {
                obj: self.object()?,
                version: self.known()?,
            },
            kind::NOTE => What::Note { text: self.text()? },
            _ => {
                return Err(Bad {
                    at,
                    why: "no event has this kind",
                });
            }
        })
    }

    fn publish(&mut self) -> Result<What<'a>, Bad> {
        let (publisher, call, obj) = (self.number()?, self.reader.integer()?, self.object()?);
        let (mut key, mut revision, mut level) = (0, None, Level::default());
        if self.has(EXTRA) {
            key = self.reader.integer()?;
            if self.reader.byte()? != 0 {
                revision = Some(self.reader.integer()?);
            }
            level = match self.reader.byte()? {
                0 => Level::Accepted,
                1 => Level::Replicated,
                2 => Level::Durable,
                _ => return Err(self.reader.bad("no acknowledgement level has this number")),
            };
        }
        Ok(What::PubCall {
            publisher,
            call,
            obj,
            key,
            revision,
            level,
        })
    }

    fn resume(&mut self) -> Result<What<'a>, Bad> {
        let client = self.number()?;
        let count = self.count()?;
        let mut changed = Vec::with_capacity(count);
        for _ in 0..count {
            changed.push((self.listed()?, self.version()?));
        }
        Ok(What::ResumeOk { client, changed })
    }

    fn resync(&mut self) -> Result<What<'a>, Bad> {
        let (client, cause) = (self.number()?, self.text()?);
        if self.has(EXTRA) {
            return Ok(What::Resync {
                client,
                objects: None,
                cause,
            });
        }
        let count = self.count()?;
        let objects = (0..count).map(|_| self.listed()).collect::<Result<Vec<_>, _>>()?;
        Ok(What::Resync {
            client,
            objects: Some(objects),
            cause,
        })
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn number(&mut self) -> Result<u32, Bad> {
        let number = self.reader.integer()?;
        u32::try_from(number).map_err(|_| self.reader.bad("a client or publisher number is below 2^32"))
    }

    /// Entries of a list take two bytes or more, so a false count cannot make us reserve more than came in.
    fn count(&mut self) -> Result<usize, Bad> {
        let count = self.reader.integer()?;
        let most = (self.reader.body.len() - self.reader.at) as u64 / 2;
        if count > most {
            return Err(self.reader.bad("a list is longer than its block"));
        }
        Ok(count as usize)
    }

    fn object(&mut self) -> Result<Object<'a>, Bad> {
        if self.has(TEXT) {
            Ok(Object::Text(self.text()?))
        } else {
            Ok(Object::Number(self.reader.integer()?))
        }
    }

    fn listed(&mut self) -> Result<Object<'a>, Bad> {
        if self.reader.byte()? & TEXT != 0 {
            Ok(Object::Text(self.text()?))
        } else {
            Ok(Object::Number(self.reader.integer()?))
        }
    }

    fn version(&mut self) -> Result<u64, Bad> {
        let difference = unzigzag(self.reader.integer()?);
        self.last_version = self.last_version.wrapping_add_signed(difference);
        Ok(self.last_version)
    }

    fn known(&mut self) -> Result<Option<u64>, Bad> {
        if self.has(EXTRA) {
            self.version().map(Some)
        } else {
            Ok(None)
        }
    }

    fn trace(&mut self) -> Result<Option<Trace>, Bad> {
        if !self.has(TRACE) {
            return Ok(None);
        }
        let shard = self.reader.integer()?;
        let shard = u16::try_from(shard).map_err(|_| self.reader.bad("a shard is below 2^16"))?;
        Ok(Some(Trace {
            shard,
            epoch: self.reader.integer()?,
        }))
    }

    fn text(&mut self) -> Result<Cow<'a, str>, Bad> {
        let reference = self.reader.integer()?;
        let number = usize::try_from(reference >> 1).ok().filter(|number| *number < SLOTS);
        let number = number.ok_or_else(|| self.reader.bad("there are not so many slots for texts"))?;
        if reference & 1 == 0 {
            let length = self.reader.integer()?;
            let from = self.reader.at;
            let to = usize::try_from(length).ok().and_then(|length| from.checked_add(length));
            let to = to.filter(|to| *to <= self.reader.body.len());
            let to = to.ok_or_else(|| self.reader.bad("a text is longer than its block"))?;
            self.slots[number] = Some(from..to);
            self.reader.at = to;
        }
        let range = self.slots[number].clone();
        let range = range.ok_or_else(|| self.reader.bad("a slot for texts is used before it is filled"))?;
        let text = std::str::from_utf8(&self.reader.body[range]);
        text.map(Cow::Borrowed)
            .map_err(|_| self.reader.bad("a text is not UTF-8"))
    }
}

struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn bad(&self, why: &'static str) -> Bad {
        Bad { at: self.at, why }
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Bad> {
        let byte = *self
            .body
            .get(self.at)
            .ok_or_else(|| self.bad("the block ends within an event"))?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn integer(&mut self) -> Result<u64, Bad> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.bad("a number is above 2^64"))
    }
}
