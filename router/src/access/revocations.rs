//! Credentials that count no more before their time: a bounded set, forgotten entry by entry when nothing it names can be
//! valid any more.
//!
//! A revocation names all tokens of a subject, one token, or everybody's; optionally of one issuer; and counts for tokens
//! that were issued before a time. A subject that gets a new token afterwards is let in again. API keys are not revoked here: they
//! are taken out of the policy.
//!
//! It does not know how it reaches every node, or time: it comes in, in seconds since the Unix epoch.

use super::identity::Identity;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most revocations at a time. Beyond it only "everybody issued before" helps: it takes one entry, and makes room.
pub const MOST_REVOCATIONS: usize = 10_000;

/// Bytes of an issuer, subject or token id in a revocation.
pub const MOST_BYTES: usize = super::claims::MOST_NAME_BYTES;

/// Whose tokens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Whom {
    /// Everybody's.
    Everybody,
    /// This subject's.
    Subject(Box<str>),
    /// The one with this id (`jti`).
    Token(Box<str>),
}

/// What a revocation names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    /// Of this issuer; `None`: of any.
    pub issuer: Option<Box<str>>,
    /// Whose.
    pub whom: Whom,
}

/// Which of its tokens, and for how long that has to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Tokens issued at or before this second.
    pub issued_to_s: u64,
    /// After this second all of them have expired by themselves.
    pub until_s: u64,
}

/// Why a revocation was not taken. **The set stays as it was.**
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    /// No room.
    #[error("{MOST_REVOCATIONS} revocations are in force: revoke everybody's tokens issued before a time instead")]
    Full,
    /// A name that no token can have.
    #[error("an issuer, subject or token id has 1 to {MOST_BYTES} bytes")]
    Name,
    /// An entry that covers it is there.
    #[error("it is revoked already")]
    Same,
}

/// See the module. Copies share what they hold until one of them changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    entries: Arc<Vec<Entry>>,
}

type Entry = (Target, Bounds);

impl Serialize for Revocations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.entries.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Revocations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut entries = Vec::<Entry>::deserialize(deserializer)?;
        // They are looked up by their order.
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        entries.dedup_by(|(one, _), (other, _)| one == other);
        Ok(Self {
            entries: Arc::new(entries),
        })
    }
}

impl Revocations {
    /// How many are in force.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All of them, in the order of their targets.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Adds one and forgets those that have had their time at `now_s`. Of two for one target the further reaching counts.
    ///
    /// # Errors
    /// If there is no room or it makes no sense.
    pub fn revoke(&mut self, target: Target, bounds: Bounds, now_s: u64) -> Result<(), RevokeError> {
        let fits = |text: &str| (1..=MOST_BYTES).contains(&text.len());
        let named = match &target.whom {
            Whom::Everybody => true,
            Whom::Subject(name) | Whom::Token(name) => fits(name),
        };
        // An empty issuer is that of tokens that name none.
        if !named || target.issuer.as_ref().is_some_and(|issuer| issuer.len() > MOST_BYTES) {
            return Err(RevokeError::Name);
        }
        let place = self.entries.binary_search_by(|(known, _)| known.cmp(&target));
        if let Ok(place) = place {
            let known = &mut Arc::make_mut(&mut self.entries)[place].1;
            let wider = Bounds {
                issued_to_s: known.issued_to_s.max(bounds.issued_to_s),
                until_s: known.until_s.max(bounds.until_s),
            };
            if wider == *known {
                return Err(RevokeError::Same);
            }
            *known = wider;
            self.prune(now_s);
            return Ok(());
        }
        let covered = |(other, known): &Entry| {
            target.whom == Whom::Everybody
                && (target.issuer.is_none() || target.issuer == other.issuer)
                && known.issued_to_s <= bounds.issued_to_s
                && known.until_s <= bounds.until_s
        };
        let room = self
            .entries
            .iter()
            .filter(|entry| !covered(entry) && entry.1.until_s >= now_s);
        if room.count() >= MOST_REVOCATIONS {
            return Err(RevokeError::Full);
        }
        let entries = Arc::make_mut(&mut self.entries);
        // What the new one covers need not be known by itself.
        entries.retain(|entry| !covered(entry) && entry.1.until_s >= now_s);
        let place = entries.partition_point(|(known, _)| *known < target);
        entries.insert(place, (target, bounds));
        Ok(())
    }

    /// Forgets what has had its time.
    pub fn prune(&mut self, now_s: u64) {
        if self.entries.iter().any(|(_, bounds)| bounds.until_s < now_s) {
            Arc::make_mut(&mut self.entries).retain(|(_, bounds)| bounds.until_s >= now_s);
        }
    }

    /// Whether a credential counts no more. Never for an API key.
    #[must_use]
    pub fn cover(&self, identity: &Identity) -> bool {
        if self.entries.is_empty() || identity.subject.by_key {
            return false;
        }
        let subject = &identity.subject;
        let whoms = [
            Some(Whom::Everybody),
            Some(Whom::Subject(subject.name.clone())),
            identity.token_id.clone().map(Whom::Token),
        ];
        let issuers = [None, Some(subject.issuer.clone())];
        whoms.into_iter().flatten().any(|whom| {
            issuers.iter().any(|issuer| {
                let target = Target {
                    issuer: issuer.clone(),
                    whom: whom.clone(),
                };
                let place = self.entries.binary_search_by(|(known, _)| known.cmp(&target));
                place.is_ok_and(|place| identity.issued_s <= self.entries[place].1.issued_to_s)
            })
        })
    }

    /// How many of each kind there are, for people.
    #[must_use]
    pub fn kinds(&self) -> BTreeMap<&'static str, usize> {
        let mut kinds = BTreeMap::new();
        for (target, _) in self.entries.iter() {
            let kind = match target.whom {
                Whom::Everybody => "everybody",
                Whom::Subject(_) => "subject",
                Whom::Token(_) => "token",
            };
            *kinds.entry(kind).or_insert(0) += 1;
        }
        kinds
    }
}

#[cfg(test)]
mod tests;
