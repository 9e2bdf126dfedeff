//! Who is behind each subscriber, until when, and what follows when that ends.
//!
//! A subscriber's grants are looked at when it subscribes, comes back, or brings another token, and its token when it
//! expires or something is revoked: never when a change is told. All of that is rare, so a lane keeps it beside its sinks.

use super::PollReply;
use super::shell::Shell;
use super::sinks::{Sink, State};
use crate::auth::{Auth, Caller, Denial, Place, Stranger, forbidden};
use crate::clock;
use crate::telemetry::Limit;
use std::rc::Rc;
use std::sync::Arc;
use tidings_protocol::close::CloseCode;
use tidings_protocol::codec;
use tidings_router::MonoUs;
use tidings_router::access::{Action, Identity, Subject};
use tidings_router::edge::{PollPage, SubscriberKey};

/// What is known of who is behind one subscriber.
pub(super) struct Bearer {
    standing: Standing,
    /// When it is to be looked at again; zero: never.
    due_us: MonoUs,
}

enum Standing {
    /// It has yet to say who it is.
    Stranger { _place: Stranger },
    Known {
        identity: Arc<Identity>,
        place: Option<Place>,
        /// It was told that its token has expired.
        told: bool,
    },
}

impl Bearer {
    pub(super) fn identity(&self) -> Option<&Arc<Identity>> {
        match &self.standing {
            Standing::Stranger { .. } => None,
            Standing::Known { identity, .. } => Some(identity),
        }
    }

    pub(super) fn subject(&self) -> Option<&Subject> {
        self.identity().map(|identity| &identity.subject)
    }
}

/// How a connection ends whose credential is not, or no longer, good.
pub(super) fn close_code(denial: Denial) -> CloseCode {
    match denial {
        Denial::Revoked => CloseCode::Revoked,
        Denial::CutOff => CloseCode::CutOff,
        _ => CloseCode::Unauthenticated,
    }
}

/// When a token ends, on the clock of lanes.
fn ends_us(identity: &Identity) -> Option<MonoUs> {
    let now = clock::now();
    let end_us = identity.expires_s?.saturating_mul(1_000_000);
    Some(now.mono_us + end_us.saturating_sub(now.wall_us))
}

/// How long a token still holds, in milliseconds; `None`: it does not end.
pub(super) fn expires_in_ms(identity: &Identity) -> Option<u64> {
    let now_ms = clock::now().wall_us / 1000;
    Some(identity.expires_s?.saturating_mul(1000).saturating_sub(now_ms))
}

impl State {
    /// Whoever makes requests as this subscriber.
    pub(super) fn caller(&mut self, who: SubscriberKey, auth: Option<&Auth>) -> Caller {
        if auth.is_none() {
            return Caller::Anyone;
        }
        let identity = self
            .entry(who)
            .and_then(|entry| entry.bearer.as_ref()?.identity().cloned());
        identity.map_or(Caller::Nobody(Denial::Missing), Caller::Known)
    }

    /// The subscriber goes on without a connection, so it takes no place among them.
    pub(super) fn give_up_place(&mut self, who: SubscriberKey) {
        let bearer = self.entry(who).and_then(|entry| entry.bearer.as_mut());
        if let Some(Standing::Known { place, .. }) = bearer.map(|bearer| &mut bearer.standing) {
            *place = None;
        }
    }

    fn look_again(&mut self, who: SubscriberKey, due_us: Option<MonoUs>) {
        let Some(bearer) = self.entry(who).and_then(|entry| entry.bearer.as_mut()) else {
            return;
        };
        let before = (std::mem::replace(&mut bearer.due_us, due_us.unwrap_or(0)), who.index);
        self.due.remove(&before);
        if let Some(due_us) = due_us {
            self.due.insert((due_us, who.index));
        }
    }

    /// This one is behind the subscriber from now on. `place`: among those of its subject, if it takes one anew.
    pub(super) fn known(&mut self, who: SubscriberKey, identity: Arc<Identity>, place: Option<Place>) {
        let due_us = ends_us(&identity);
        let Some(entry) = self.entry(who) else { return };
        let (before, stood) = match entry.bearer.take() {
            Some(bearer) => match bearer.standing {
                Standing::Known { place, .. } => (bearer.due_us, place),
                Standing::Stranger { .. } => (bearer.due_us, None),
            },
            None => (0, None),
        };
        entry.bearer = Some(Box::new(Bearer {
            standing: Standing::Known {
                identity,
                place: place.or(stood),
                told: false,
            },
            due_us: before,
        }));
        self.look_again(who, due_us);
    }

    /// Nobody has said yet who is behind the subscriber.
    pub(super) fn stranger(&mut self, who: SubscriberKey, place: Stranger, within_us: u64) {
        let Some(entry) = self.entry(who) else { return };
        entry.bearer = Some(Box::new(Bearer {
            standing: Standing::Stranger { _place: place },
            due_us: 0,
        }));
        self.look_again(who, Some(clock::now().mono_us + within_us));
    }

    /// Forgets when to look at a subscriber that is gone.
    pub(super) fn no_longer_due(&mut self, index: u32, bearer: Option<&Bearer>) {
        if let Some(bearer) = bearer {
            self.due.remove(&(bearer.due_us, index));
        }
    }

    /// When the machine, or somebody's token or age, is to be looked at.
    pub(super) fn next_deadline(&self) -> Option<MonoUs> {
        let due_us = self.due.first().map(|(due_us, _)| *due_us);
        let ends_us = self.aging.first().map(|(ends_us, _)| *ends_us);
        [due_us, ends_us, self.lane.next_deadline()].into_iter().flatten().min()
    }

    /// Leaves out of a session, in the poll that comes now, what its bearer may not watch any more.
    pub(super) fn refuse_withdrawn(&mut self, who: SubscriberKey, caller: &Caller, page: &mut PollPage) {
        let same = |bearer: &Bearer| bearer.identity() == caller.identity();
        if self
            .entry(who)
            .and_then(|entry| entry.bearer.as_deref())
            .is_some_and(same)
        {
            return;
        }
        for object in self.lane.watched_by(who, usize::MAX) {
            if !caller.may(Action::Subscribe, &object) {
                page.entries
                    .push(Err((object.to_string(), forbidden(Action::Subscribe))));
                page.remove.push(object);
            }
        }
    }

    /// Looks at those whose time has come: strangers who said nothing, tokens that have expired.
    pub(super) fn look(&mut self, shell: &Shell) {
        let Some(auth) = shell.node.auth.as_deref() else { return };
        let now = clock::now();
        while let Some(&(due_us, index)) = self.due.first().filter(|(due_us, _)| *due_us <= now.mono_us) {
            self.due.remove(&(due_us, index));
            let Some((who, bearer)) = self.bearer_at(index) else {
                continue;
            };
            bearer.due_us = 0;
            let end = match &mut bearer.standing {
                Standing::Stranger { .. } => {
                    shell.node.metrics.refused(Limit::Auth);
                    Some((CloseCode::Unauthenticated, "auth_ms"))
                }
                Standing::Known { told, .. } if *told => {
                    auth.metrics.ended_expired.inc();
                    Some((CloseCode::TokenExpired, "token_expired"))
                }
                Standing::Known { told, .. } => {
                    *told = true;
                    None
                }
            };
            if let Some((code, reason)) = end {
                self.lane.dismiss(now, who, code, reason, None, &mut self.out);
                continue;
            }
            let grace = auth.grace();
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            self.lane
                .respond(who, |encoding, reply| codec::token_expired(encoding, reply, grace_ms));
            self.look_again(who, Some(now.mono_us + grace_ms.saturating_mul(1000)));
        }
    }

    /// Ends what bears revoked tokens.
    fn end_revoked(&mut self, auth: &Auth) {
        for index in 0..self.places() {
            let Some((who, bearer)) = self.bearer_at(index) else {
                continue;
            };
            if bearer.identity().is_some_and(|identity| auth.is_revoked(identity)) {
                auth.metrics.ended_revoked.inc();
                self.end_bearer(who, Denial::Revoked, "revoked");
            }
        }
    }

    /// Ends what bears API keys that are in the policy no more. Gives those whose key may do something else now.
    fn look_at_keys(&mut self, auth: &Auth) -> Vec<SubscriberKey> {
        let mut changed = Vec::new();
        for index in 0..self.places() {
            let Some((who, bearer)) = self.bearer_at(index) else {
                continue;
            };
            let Standing::Known { identity, .. } = &mut bearer.standing else {
                continue;
            };
            let Some(hash) = identity.key else { continue };
            match auth.of_key(&hash) {
                None => {
                    auth.metrics.ended_revoked.inc();
                    self.end_bearer(who, Denial::UnknownKey, "api_key_removed");
                }
                // A key may have another name now; what it opened stays under the old one.
                Some(now) if now.permission != identity.permission => {
                    let permission = now.permission;
                    Arc::make_mut(identity).permission = permission;
                    changed.push(who);
                }
                Some(_) => {}
            }
        }
        changed
    }

    fn end_bearer(&mut self, who: SubscriberKey, denial: Denial, reason: &'static str) {
        self.deny_poll(who, denial);
        self.lane
            .dismiss(clock::now(), who, CloseCode::Revoked, reason, None, &mut self.out);
        if self.lane.connection(who).is_none() {
            self.remove(who);
        }
    }
}

impl State {
    /// Answers a poll that waits with a denial.
    fn deny_poll(&mut self, who: SubscriberKey, denial: Denial) {
        let Some(entry) = self.entry(who) else { return };
        let Sink::Poll { ticket, reply } = &mut entry.sink else {
            return;
        };
        let (ticket, reply) = (*ticket, reply.take());
        entry.sink = Sink::Idle;
        self.by_ticket.remove(&ticket);
        if let Some(reply) = reply {
            // Its client may have gone already.
            _ = reply.send(PollReply::Denied(denial));
        }
        self.lane.disconnect(clock::now(), who);
    }
}

impl Shell {
    /// Takes out of what a subscriber watches what its bearer may not watch (any more), and tells it so.
    pub(super) fn withdraw(&self, who: SubscriberKey) {
        let auth = self.node.auth.as_deref();
        let Some(auth) = auth else { return };
        let withdrawn = self.step(|state| {
            let caller = state.caller(who, Some(auth));
            let keep = |object: &str| caller.may(Action::Subscribe, object);
            let why = forbidden(Action::Subscribe);
            state.lane.withdraw(clock::now(), who, keep, &why, &mut state.out)
        });
        auth.metrics.withdrawn.inc_by(withdrawn as u64);
    }

    /// Whoever makes requests as this subscriber.
    pub(super) fn caller(&self, who: SubscriberKey) -> Caller {
        self.step(|state| state.caller(who, self.node.auth.as_deref()))
    }
}

/// The task that ends connections when what they bear is revoked, or is an API key that is taken out of the policy.
pub(super) async fn heed_revocations(shell: Rc<Shell>, auth: Arc<Auth>) {
    let (mut revoked, mut policy) = (auth.watch_revocations(), auth.watch_policy());
    loop {
        tokio::select! {
            changed = revoked.changed() => {
                if changed.is_err() {
                    return;
                }
                revoked.borrow_and_update();
                shell.step(|state| state.end_revoked(&auth));
            }
            changed = policy.changed() => {
                if changed.is_err() {
                    return;
                }
                policy.borrow_and_update();
                for who in shell.step(|state| state.look_at_keys(&auth)) {
                    shell.withdraw(who);
                }
            }
        }
    }
}
