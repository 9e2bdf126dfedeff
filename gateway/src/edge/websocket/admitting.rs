//! Who is behind a WebSocket: at the handshake, in its first message, and when it brings another token.

use super::{READ_BUFFER, Reader};
use crate::auth::{Auth, Caller, Denial};
use crate::clock;
use crate::edge::bearers::{close_code, expires_in_ms};
use std::sync::Arc;
use tidings_protocol::close::CloseCode;
use tidings_protocol::codec::{self, RequestId};
use tidings_protocol::{Code, Problem};
use tidings_router::access::Identity;
use tidings_router::edge::Page;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Bytes of one frame of somebody who has yet to say who they are: a token and what is around it.
const STRANGERS_FRAME: usize = 16 * 1024;

impl Reader {
    /// What the WebSocket library lets through.
    pub(super) fn limits_of(&self, stranger: bool) -> WebSocketConfig {
        let largest = self.shell.node.live().limits.client_frame_bytes as usize;
        let largest = if stranger {
            largest.min(STRANGERS_FRAME)
        } else {
            largest
        };
        WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(largest))
            .max_frame_size(Some(largest))
    }

    pub(super) fn is_stranger(&self) -> bool {
        matches!(self.shell.caller(self.who), Caller::Nobody(_))
    }

    /// Lets in whoever came with something good; gives others a while to bring it.
    pub(super) fn admit(&self, caller: Caller) {
        let Some(auth) = self.shell.node.auth.as_deref() else {
            return;
        };
        match caller {
            Caller::Anyone => {}
            Caller::Known(identity) => {
                if self.enter(auth, &identity) {
                    self.subscribe_to_own(&identity);
                }
            }
            Caller::Nobody(Denial::Missing) => match auth.stranger(&self.shell.node.metrics) {
                Ok(place) => {
                    let within_us = self.shell.node.live().limits.auth_ms.saturating_mul(1000);
                    self.shell.step(|state| state.stranger(self.who, place, within_us));
                }
                Err(limit) => {
                    let after_ms = Some(self.shell.jitter_ms());
                    self.dismiss(CloseCode::Overload, limit.name(), after_ms);
                }
            },
            Caller::Nobody(denial) => self.deny(denial),
        }
    }

    fn dismiss(&self, code: CloseCode, reason: &'static str, after_ms: Option<u64>) {
        self.shell
            .with(|lane, out| lane.dismiss(clock::now(), self.who, code, reason, after_ms, out));
    }

    fn deny(&self, denial: Denial) {
        self.dismiss(close_code(denial), denial.word(), None);
    }

    /// This one is behind the connection from now on; `false` if it has too many connections: then this one ends.
    fn enter(&self, auth: &Auth, identity: &Arc<Identity>) -> bool {
        match auth.place(&identity.subject, &self.shell.node.metrics) {
            Ok(place) => {
                self.shell
                    .step(|state| state.known(self.who, Arc::clone(identity), place));
                true
            }
            Err(limit) => {
                self.dismiss(CloseCode::Limit, limit.name(), None);
                false
            }
        }
    }

    /// Subscribes the bearer of a token to the objects that it names.
    fn subscribe_to_own(&self, identity: &Arc<Identity>) {
        if identity.objects.is_empty() {
            return;
        }
        let entries = identity.objects.iter().map(|object| {
            Ok(tidings_protocol::client::Entry {
                object: object.clone(),
                version: None,
                at_least: None,
            })
        });
        let caller = Caller::Known(Arc::clone(identity));
        let page = Page {
            entries: caller.sift(entries.collect(), &self.shell.node.metrics),
            ..Page::default()
        };
        let subscribed = self
            .shell
            .with(|lane, out| lane.subscribe(clock::now(), self.who, page, out));
        if let Err(error) = subscribed {
            tracing::debug!(%error, "the objects of a token were not subscribed");
        }
    }

    /// The first message of somebody who has yet to say who they are, or another token in place of the last.
    pub(super) fn authenticate(&self, id: Option<&RequestId>, token: &str) {
        let Some(auth) = self.shell.node.auth.as_deref() else {
            // Nobody has to authenticate here, so every token is as good as none and none expires.
            self.shell.with(|lane, _| {
                lane.respond(self.who, |encoding, reply| {
                    codec::authenticated(encoding, reply, id, None)
                });
            });
            return;
        };
        let before = self.shell.caller(self.who);
        let refuse = |problem: &Problem| {
            self.shell.with(|lane, _| {
                lane.respond(self.who, |encoding, reply| codec::error(encoding, reply, id, problem));
            });
        };
        let identity = match auth.judge(token) {
            Ok(identity) => identity,
            Err(denial) => {
                refuse(&denial.problem());
                // Whoever is known stays so until the token that was good ends.
                if before.identity().is_none() {
                    self.deny(denial);
                }
                return;
            }
        };
        match before.subject() {
            Some(subject) if *subject != identity.subject => {
                let detail = "a connection belongs to the subject that opened it: open another";
                return refuse(&Problem::new(Code::Forbidden, detail));
            }
            Some(_) => {
                self.shell
                    .step(|state| state.known(self.who, Arc::clone(&identity), None));
                self.shell.withdraw(self.who);
            }
            None if !self.enter(auth, &identity) => return,
            None => {}
        }
        let left_ms = expires_in_ms(&identity);
        self.shell.with(|lane, _| {
            lane.respond(self.who, |encoding, reply| {
                codec::authenticated(encoding, reply, id, left_ms)
            });
        });
        if before.identity().is_none() {
            self.subscribe_to_own(&identity);
        }
    }
}
