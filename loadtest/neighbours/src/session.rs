//! What is said to each system and how its answers are read: bytes in, bytes out, no sockets.
//!
//! A session belongs to one subscriber or one publisher and outlives its connections: what a system gives to come back
//! with (a message ID, a cursor) is kept and used. It does not know what the messages mean.

mod http;
mod nats;
mod redis;
mod websocket;

use crate::system::System;

/// A buffer of undecoded bytes larger than this is no message of ours.
pub const MOST_PENDING: usize = 8 << 20;

/// The name of an object, the same for every system.
#[must_use]
pub fn object_name(object: u32) -> String {
    format!("o{object}")
}

/// The number of an object by its name.
#[must_use]
pub fn object_number(name: &str) -> Option<u32> {
    name.strip_prefix('o')?.parse().ok()
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// All subscriptions are in place.
    Ready,
    /// What a publisher sent, and its version where the system has such.
    Message {
        /// As it was published.
        payload: &'a [u8],
        /// 0 where the system has none.
        version: u64,
    },
    /// An object changed; its content is not told.
    Changed {
        /// Which.
        object: u32,
        /// To which version.
        version: u64,
    },
    /// These objects, or all, may have changed.
    Resync(Option<Vec<u32>>),
    /// The oldest publish not answered yet was accepted, with its version where the system has such.
    Accepted {
        /// 0 where the system has none.
        version: u64,
    },
    /// The oldest publish not answered yet was refused.
    Refused(String),
    /// These bytes must be sent.
    Answer(Vec<u8>),
}

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Broken {
    /// The server said something that this adaptor does not understand.
    #[error("not understood: {0}")]
    NotUnderstood(String),
    /// The server refused.
    #[error("refused: {0}")]
    Refused(String),
}

impl Broken {
    fn what(bytes: &[u8]) -> Self {
        let start = &bytes[..bytes.len().min(120)];
        Self::NotUnderstood(String::from_utf8_lossy(start).into_owned())
    }
}

/// One subscriber's side.
#[derive(Debug)]
pub struct Subscriber {
    system: System,
    objects: Vec<u32>,
    /// How many confirmations are still to come; for WebSocket, whether the handshake is over.
    missing: usize,
    /// Message ID or cursor to come back with.
    place: Option<String>,
}

impl Subscriber {
    /// One that watches these objects.
    #[must_use]
    pub fn new(system: System, objects: Vec<u32>) -> Self {
        Self {
            system,
            objects,
            missing: 0,
            place: None,
        }
    }

    /// What to send first on a new connection, the first one or a later one.
    pub fn opening(&mut self) -> Vec<u8> {
        match self.system {
            System::Nats => {
                self.missing = 1;
                nats::subscribe(&self.objects)
            }
            System::Redis => {
                self.missing = self.objects.len();
                redis::subscribe(&self.objects)
            }
            System::Nchan => {
                self.missing = 1;
                let names: Vec<String> = self.objects.iter().map(|object| object_name(*object)).collect();
                let mut headers = "Sec-WebSocket-Protocol: ws+meta.nchan\r\n".to_owned();
                if let Some(place) = &self.place {
                    headers.push_str(&format!("Last-Event-ID: {place}\r\n"));
                }
                websocket::handshake(&format!("/sub/{}", names.join(",")), &headers)
            }
            System::Tidings => {
                self.missing = 2;
                websocket::handshake("/v1/ws", "")
            }
        }
    }

    /// Reads what has come; returns how many bytes were of use. The rest is the beginning of something.
    ///
    /// # Errors
    /// When the connection is of no more use.
    pub fn read(&mut self, bytes: &[u8], on: &mut dyn FnMut(Told<'_>)) -> Result<usize, Broken> {
        match self.system {
            System::Nats => nats::read_subscriber(&mut self.missing, bytes, on),
            System::Redis => redis::read_subscriber(&mut self.missing, bytes, on),
            System::Nchan | System::Tidings => self.read_websocket(bytes, on),
        }
    }

    fn read_websocket(&mut self, bytes: &[u8], on: &mut dyn FnMut(Told<'_>)) -> Result<usize, Broken> {
        let mut used = 0;
        let shaken = if self.system == System::Nchan { 0 } else { 1 };
        if self.missing > shaken {
            let Some(answer) = http::answer(bytes)? else {
                return Ok(0);
            };
            if answer.status != 101 {
                return Err(Broken::Refused(format!("status {}", answer.status)));
            }
            used = answer.used;
            self.missing = shaken;
            if self.system == System::Nchan {
                on(Told::Ready);
            } else {
                on(Told::Answer(websocket::text(&self.tidings_subscribe())));
            }
        }
        while let Some(frame) = websocket::frame(&bytes[used..])? {
            used += frame.used;
            match frame.opcode {
                websocket::TEXT | websocket::BINARY if self.system == System::Nchan => {
                    let (id, payload) = websocket::nchan_message(frame.payload)?;
                    self.place = Some(id.to_owned());
                    on(Told::Message { payload, version: 0 });
                }
                websocket::TEXT => self.read_tidings(frame.payload, on)?,
                websocket::PING => on(Told::Answer(websocket::pong(frame.payload))),
                websocket::CLOSE => {
                    let reason = String::from_utf8_lossy(frame.payload.get(2..).unwrap_or_default()).into_owned();
                    return Err(Broken::Refused(format!("closed: {reason}")));
                }
                _ => {}
            }
        }
        Ok(used)
    }

    fn tidings_subscribe(&self) -> String {
        let names: Vec<String> = self.objects.iter().map(|object| object_name(*object)).collect();
        serde_json::json!({ "subscribe": { "objects": names, "cursor": self.place } }).to_string()
    }

    /// Several messages may be joined by newlines.
    fn read_tidings(&mut self, text: &[u8], on: &mut dyn FnMut(Told<'_>)) -> Result<(), Broken> {
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let message: serde_json::Value = serde_json::from_slice(line).map_err(|_| Broken::what(line))?;
            if let Some(changes) = message["changes"].as_array() {
                for change in changes {
                    let version = change["version"].as_u64().unwrap_or(0);
                    let object = change["object"].as_str().and_then(object_number);
                    match (change["data"].as_str(), object) {
                        (Some(data), _) => on(Told::Message {
                            payload: data.as_bytes(),
                            version,
                        }),
                        (None, Some(object)) => on(Told::Changed { object, version }),
                        (None, None) => return Err(Broken::what(line)),
                    }
                }
            } else if let Some(cursor) = message["cursor"].as_str() {
                self.place = Some(cursor.to_owned());
            } else if message.get("subscribed").is_some() {
                self.missing = 0;
                on(Told::Ready);
            } else if let Some(resync) = message.get("resync") {
                let named = resync["objects"].as_array();
                on(Told::Resync(named.map(|names| {
                    names
                        .iter()
                        .filter_map(|name| name.as_str().and_then(object_number))
                        .collect()
                })));
            } else if message.get("error").is_some() {
                return Err(Broken::Refused(message["error"].to_string()));
            }
        }
        Ok(())
    }
}

/// The publisher's side.
#[derive(Debug)]
pub struct Publisher {
    system: System,
}

impl Publisher {
    /// For a system.
    #[must_use]
    pub fn new(system: System) -> Self {
        Self { system }
    }

    /// What to send first.
    #[must_use]
    pub fn opening(&self) -> Vec<u8> {
        match self.system {
            System::Nats => nats::connect(true),
            System::Redis | System::Nchan | System::Tidings => Vec::new(),
        }
    }

    /// How many answers come to the opening before those to publishes.
    #[must_use]
    pub fn opening_answers(&self) -> usize {
        usize::from(self.system == System::Nats)
    }

    /// Appends one publish. The payload is printable ASCII without quotes.
    pub fn publish(&self, object: u32, payload: &str, out: &mut Vec<u8>) {
        match self.system {
            System::Nats => nats::publish(object, payload, out),
            System::Redis => redis::publish(object, payload, out),
            System::Nchan => http::post(&format!("/pub/{}", object_name(object)), "text/plain", payload, out),
            System::Tidings => {
                let body = format!("{{\"object\":\"{}\",\"data\":\"{payload}\"}}", object_name(object));
                http::post("/v1/publish", "application/json", &body, out);
            }
        }
    }

    /// Reads what has come, as [`Subscriber::read`] does. Each publish is answered once, in order.
    ///
    /// # Errors
    /// When the connection is of no more use.
    pub fn read(&self, bytes: &[u8], on: &mut dyn FnMut(Told<'_>)) -> Result<usize, Broken> {
        match self.system {
            System::Nats => nats::read_publisher(bytes, on),
            System::Redis => redis::read_publisher(bytes, on),
            System::Nchan | System::Tidings => {
                let mut used = 0;
                while let Some(answer) = http::answer(&bytes[used..])? {
                    used += answer.used;
                    if !(200..300).contains(&answer.status) {
                        on(Told::Refused(format!("status {}", answer.status)));
                        continue;
                    }
                    let body: serde_json::Value = serde_json::from_slice(answer.body).unwrap_or_default();
                    let version = body["version"].as_u64().unwrap_or(0);
                    on(Told::Accepted { version });
                }
                Ok(used)
            }
        }
    }
}

/// The first line of `bytes` without its end, and how long it is with it.
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let text = &bytes[..end];
    Some((text.strip_suffix(b"\r").unwrap_or(text), end + 1))
}

/// A decimal number in ASCII.
fn number(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
