//! Authentication: from what a request brings to who it is. The decisions are `tidings_router::access`; here are the files,
//! the cryptography, the clock and what is remembered between requests.
//!
//! A node without `auth.policy_file` knows nobody and lets everybody do everything; it listens on loopback only. A node with one
//! lets nobody do anything that the policy does not grant. A policy that cannot be read when it is read again changes
//! nothing: the old one goes on.
//!
//! It does not know what callers want to do with which object: routes and lanes ask [`Caller::may`].

mod cache;
mod caller;
pub(crate) mod crypto;
pub(crate) mod file;
mod kept;
mod metrics;
mod places;
mod routes;
#[cfg(test)]
mod tests;
mod tickets;

pub use caller::{Caller, Credential};
pub(crate) use caller::{SUBPROTOCOL, forbidden};
pub use metrics::AuthMetrics;
pub(crate) use places::{Place, Stranger};
pub(crate) use routes::{admit, operators_routes, routes, ticket_of};

use crate::config::Config;
use crate::problem::Refusal;
use crate::telemetry::{Limit, Metrics};
use crate::{clock, control};
use cache::Cache;
use crypto::Material;
use kept::Kept;
use places::Places;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tickets::Tickets;
use tidings_protocol::{Code, HashKey, Problem};
use tidings_router::access::policy::KeyHash;
use tidings_router::access::revocations::{RevokeError, Target};
use tidings_router::access::{Identity, Policy, Revocations, Subject, TokenFault};
use tokio::sync::watch;
use tokio::time::Instant;

/// How often a node of a cluster looks whether it is cut off.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why nobody is let in. None of it names what was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Nothing was presented.
    #[error("a token or key is needed: `Authorization: Bearer …`")]
    Missing,
    /// What was presented is written in a way that is not understood, or comes twice.
    #[error("`Authorization` must come once and be `Bearer` and a token or key")]
    Unreadable,
    /// No key of that hash.
    #[error("the API key is not known here")]
    UnknownKey,
    /// A token that is not believed.
    #[error("the token is not accepted: {0}")]
    Token(TokenFault),
    /// It was good, and was revoked.
    #[error("the token was revoked")]
    Revoked,
    /// A ticket that is none, or was opened, or is too old.
    #[error("the ticket is not known, too old, or was opened already")]
    Ticket,
    /// This node has not heard for too long which tokens were revoked.
    #[error("this node is cut off and does not know which tokens were revoked: try another")]
    CutOff,
}

impl Denial {
    /// A stable word for counting.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::UnknownKey => "unknown_api_key",
            Self::Token(fault) => fault.word(),
            Self::Revoked => "revoked",
            Self::Ticket => "ticket",
            Self::CutOff => "cut_off",
        }
    }

    /// As a client is told.
    #[must_use]
    pub fn problem(self) -> Problem {
        let code = match self {
            Self::CutOff => Code::Overloaded,
            Self::Revoked => Code::Revoked,
            _ => Code::Unauthenticated,
        };
        Problem::new(code, self.to_string())
    }

    /// As an HTTP answer.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        let challenge = match self {
            Self::Missing => "Bearer realm=\"tidings\"",
            _ => "Bearer realm=\"tidings\", error=\"invalid_token\"",
        };
        Refusal::from(self.problem()).challenge(challenge)
    }
}

/// Why a node that should know who is who does not start, or a policy was not read again.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The policy makes no sense.
    #[error("{path}: {why}")]
    Policy {
        /// Which file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// What was revoked cannot be read.
    #[error("{0}")]
    Kept(String),
}

/// Why a revocation was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokeFailure {
    /// It changes nothing or there is no room. **Nothing was changed.**
    #[error(transparent)]
    Refused(#[from] RevokeError),
    /// It counts on this node until it stops, and could not be written down.
    #[error("it counts now, but is not on disk: {0}")]
    NotKept(String),
}

/// See the module.
#[derive(Debug)]
pub struct Auth {
    policy: RwLock<Arc<Policy<Material>>>,
    leeway_s: u64,
    lifetime_s: u64,
    /// How long a connection lives on behind the end of its token.
    grace: Duration,
    revoked: watch::Sender<Revocations>,
    /// How often the policy was read again.
    reloaded: watch::Sender<u64>,
    /// Where revocations of a node that is alone outlive it.
    kept: Mutex<Option<Kept>>,
    tickets: Tickets,
    places: Places,
    cache: Mutex<Cache>,
    cut_off: AtomicBool,
    /// The name of the cookie that pages may bring a token in; empty: none.
    cookie: String,
    /// What is counted.
    pub metrics: AuthMetrics,
}

impl Auth {
    /// Reads the policy, if there is one. `None`: nobody has to say who they are.
    ///
    /// # Errors
    /// Names the file and what is wrong in it.
    pub fn load(config: &Config) -> Result<Option<Arc<Self>>, AuthError> {
        let auth = &config.auth;
        if auth.policy_file.is_empty() {
            return Ok(None);
        }
        let metrics = AuthMetrics::default();
        let limits = &config.limits;
        let strangers = metrics.unauthenticated.clone();
        let policy = file::read(auth.policy_file.as_ref(), auth.leeway_s, auth.token_lifetime_s)?;
        Ok(Some(Arc::new(Self {
            policy: RwLock::new(Arc::new(policy)),
            leeway_s: auth.leeway_s,
            lifetime_s: auth.token_lifetime_s,
            grace: Duration::from_millis(auth.grace_ms),
            revoked: watch::Sender::new(Revocations::default()),
            reloaded: watch::Sender::new(0),
            kept: Mutex::new(None),
            tickets: Tickets::new(Duration::from_millis(auth.ticket_ms)),
            places: Places::new(limits.connections_per_subject, limits.unauthenticated, strangers),
            cache: Mutex::default(),
            cut_off: AtomicBool::new(false),
            cookie: auth.cookie.clone(),
            metrics,
        })))
    }

    /// Where the revocations of a node that is alone are kept, and those that are there. Of a cluster they are in its map.
    ///
    /// # Errors
    /// If the file is there and cannot be read: nobody who was revoked may be let in for that.
    pub fn keep_in(&self, folder: &Path) -> Result<(), AuthError> {
        let (kept, revocations) = Kept::open(folder).map_err(AuthError::Kept)?;
        *lock(&self.kept) = Some(kept);
        self.set_revocations(revocations);
        Ok(())
    }

    /// The secret that tickets are sealed with: all nodes of a cluster have the same.
    pub fn set_secret(&self, key: &HashKey) {
        self.tickets.set_secret(key);
    }

    /// Reads the policy and its keys, perhaps from another file. What comes back makes them count.
    ///
    /// # Errors
    /// Says what is wrong; **the policy stays as it was**.
    pub(crate) fn prepare(self: &Arc<Self>, config: &Config) -> Result<impl FnOnce() + Send + use<>, AuthError> {
        let policy = file::read(config.auth.policy_file.as_ref(), self.leeway_s, self.lifetime_s)?;
        let auth = Arc::clone(self);
        let (by_subject, strangers) = (config.limits.connections_per_subject, config.limits.unauthenticated);
        Ok(move || {
            *auth.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
            auth.places.set_most(by_subject, strangers);
            // Whoever was found with the old one is looked at anew.
            lock(&auth.cache).clear();
            auth.metrics.reloads.inc();
            auth.reloaded.send_modify(|times| *times += 1);
        })
    }

    /// The name of the cookie that pages may bring a token in; empty: none.
    #[must_use]
    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    /// How long a connection lives on behind the end of its token.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// The longest life of a token, in seconds: so long a revocation has to be known.
    #[must_use]
    pub fn lifetime_s(&self) -> u64 {
        self.lifetime_s
    }

    fn policy(&self) -> Arc<Policy<Material>> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who presents this token or API key, now.
    ///
    /// # Errors
    /// Says why nobody is let in. It has been counted.
    pub fn judge(&self, credential: &str) -> Result<Arc<Identity>, Denial> {
        let judged = self.judge_uncounted(credential);
        match &judged {
            Ok(_) => _ = self.metrics.accepted.inc(),
            Err(denial) => self.metrics.denied(*denial),
        }
        judged
    }

    fn judge_uncounted(&self, credential: &str) -> Result<Arc<Identity>, Denial> {
        if self.cut_off.load(Ordering::Relaxed) {
            return Err(Denial::CutOff);
        }
        let hash = crypto::hash(credential.as_bytes());
        let now_s = now_s();
        if let Some(identity) = lock(&self.cache).get(&hash) {
            self.still_counts(&identity, now_s, self.leeway_s)?;
            return Ok(identity);
        }
        let policy = self.policy();
        // A token has two dots; an API key has none.
        let identity = if credential.contains('.') {
            tidings_router::access::token::judge(&policy, credential, now_s, Material::verify).map_err(Denial::Token)?
        } else {
            policy.api_key(&hash).ok_or(Denial::UnknownKey)?
        };
        self.still_counts(&identity, now_s, self.leeway_s)?;
        let identity = Arc::new(identity);
        // Between reading the policy and now it may have been read again. Looked at with the cache in hand: whoever changes the
        // policy empties the cache afterwards.
        let mut cache = lock(&self.cache);
        if Arc::ptr_eq(&policy, &self.policy()) {
            cache.put(hash, Arc::clone(&identity));
        }
        drop(cache);
        Ok(identity)
    }

    fn still_counts(&self, identity: &Identity, now_s: u64, leeway_s: u64) -> Result<(), Denial> {
        if identity
            .expires_s
            .is_some_and(|end_s| now_s >= end_s.saturating_add(leeway_s))
        {
            return Err(Denial::Token(TokenFault::Expired));
        }
        if self.revoked.borrow().cover(identity) {
            return Err(Denial::Revoked);
        }
        Ok(())
    }

    /// Whether something that this one began may go on: as a connection would.
    ///
    /// # Errors
    /// Says why not.
    pub fn goes_on(&self, identity: &Identity) -> Result<(), Denial> {
        if identity.key.is_some_and(|hash| self.policy().api_key(&hash).is_none()) {
            return Err(Denial::UnknownKey);
        }
        self.still_counts(identity, now_s(), self.grace.as_secs())
    }

    /// A place for a connection of this subject on this node.
    ///
    /// # Errors
    /// The limit that was reached. It has been counted.
    pub(crate) fn place(&self, subject: &Subject, metrics: &Metrics) -> Result<Option<Place>, Limit> {
        self.places.of(subject, metrics)
    }

    /// A place for a connection that has yet to say who it is.
    ///
    /// # Errors
    /// The limit that was reached. It has been counted.
    pub(crate) fn stranger(&self, metrics: &Metrics) -> Result<Stranger, Limit> {
        self.places.stranger(metrics)
    }

    /// Whether a connection of this identity was revoked meanwhile.
    #[must_use]
    pub fn is_revoked(&self, identity: &Identity) -> bool {
        self.revoked.borrow().cover(identity)
    }

    /// What the bearer of an API key may do by the policy as it is now; `None`: the key is not in it any more.
    #[must_use]
    pub fn of_key(&self, hash: &KeyHash) -> Option<Identity> {
        self.policy().api_key(hash)
    }

    /// To be told when the policy was read again.
    #[must_use]
    pub fn watch_policy(&self) -> watch::Receiver<u64> {
        self.reloaded.subscribe()
    }

    /// Those in force.
    #[must_use]
    pub fn revocations(&self) -> Revocations {
        self.revoked.borrow().clone()
    }

    /// To be told of revocations.
    #[must_use]
    pub fn watch_revocations(&self) -> watch::Receiver<Revocations> {
        self.revoked.subscribe()
    }

    /// These are in force from now on.
    pub fn set_revocations(&self, revocations: Revocations) {
        self.metrics.revocations.set(revocations.len() as i64);
        self.revoked.send_if_modified(|known| {
            let news = *known != revocations;
            if news {
                *known = revocations;
            }
            news
        });
    }

    /// This node knows, or does not know any more, what is revoked elsewhere.
    pub fn set_cut_off(&self, is: bool) {
        if self.cut_off.swap(is, Ordering::Relaxed) != is {
            if is {
                tracing::warn!("nothing is heard from the control plane: nobody new is let in");
            } else {
                tracing::info!("the control plane is heard again: newcomers are let in");
            }
        }
        self.metrics.cut_off.set(i64::from(is));
    }

    /// Revokes on a node that is alone.
    ///
    /// # Errors
    /// Says whether it counts nevertheless.
    pub fn revoke_here(&self, target: Target, issued_to_s: u64) -> Result<(), RevokeFailure> {
        // Held from reading to writing: of two at once each counts.
        let mut kept = lock(&self.kept);
        let mut revocations = self.revocations();
        revocations.revoke(target, self.bounds(issued_to_s), now_s())?;
        let written = kept.as_mut().map_or(Ok(()), |kept| kept.write(&revocations));
        self.set_revocations(revocations);
        written.map_err(RevokeFailure::NotKept)
    }

    /// For how long a revocation must be known: until the last token it can name has expired, everywhere.
    #[must_use]
    pub fn bounds(&self, issued_to_s: u64) -> tidings_router::access::revocations::Bounds {
        tidings_router::access::revocations::Bounds {
            issued_to_s,
            until_s: issued_to_s.saturating_add(self.lifetime_s + 2 * self.leeway_s),
        }
    }

    /// A ticket for an event stream, in place of this credential.
    ///
    /// # Errors
    /// If there is no randomness, or the credential is too long to stand in a URL.
    pub fn ticket(&self, credential: &str) -> Result<String, Refusal> {
        self.tickets.seal(credential, now_s())
    }

    /// What the IDs of a ticket's stream end with, so that it is known when it comes back.
    #[must_use]
    pub fn ticket_proof(&self, ticket: &str) -> Option<String> {
        self.tickets.proof(ticket)
    }

    /// Who comes with a ticket; `proof`: of having had its stream open.
    ///
    /// # Errors
    /// Says why nobody is let in. It has been counted.
    pub fn judge_ticket(&self, ticket: &str, proof: Option<&str>) -> Result<Arc<Identity>, Denial> {
        match self.tickets.open(ticket, proof, now_s()) {
            Some(credential) => self.judge(&credential),
            None => {
                self.metrics.denied(Denial::Ticket);
                Err(Denial::Ticket)
            }
        }
    }
}

/// Seconds since the Unix epoch.
pub(crate) fn now_s() -> u64 {
    clock::now().wall_us / 1_000_000
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task that takes revocations from what the cluster agreed on, and sees whether it is still heard.
pub(crate) async fn follow(auth: Arc<Auth>, mut view: watch::Receiver<Arc<control::View>>, cut_off_after: Duration) {
    let mut heard = Instant::now();
    let mut last = None;
    loop {
        let (agreed, revocations) = {
            let view = view.borrow_and_update();
            (
                (view.map.ceiling(), view.map.revision()),
                view.map.revocations().clone(),
            )
        };
        auth.set_revocations(revocations);
        // While anybody leads the cluster's log, the ceiling rises every second or so.
        if last.replace(agreed) != Some(agreed) {
            heard = Instant::now();
        }
        auth.set_cut_off(heard.elapsed() > cut_off_after);
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
