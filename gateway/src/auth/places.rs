//! How many connections one subject has on this node, and how many have yet to say who they are.

use super::lock;
use crate::telemetry::{Limit, Metrics};
use prometheus_client::metrics::gauge::Gauge;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use tidings_router::access::Subject;

/// Counts them.
#[derive(Debug)]
pub(super) struct Places {
    by_subject: Arc<Mutex<HashMap<Subject, u64>>>,
    most_by_subject: AtomicU64,
    strangers: Gauge,
    most_strangers: AtomicU64,
}

/// One connection's place among those of its subject. Dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Place {
    by_subject: Arc<Mutex<HashMap<Subject, u64>>>,
    subject: Subject,
}

/// The place of one connection that has yet to say who it is. Dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Stranger(Gauge);

impl Places {
    pub(super) fn new(most_by_subject: u64, most_strangers: u64, strangers: Gauge) -> Self {
        Self {
            by_subject: Arc::default(),
            most_by_subject: AtomicU64::new(most_by_subject),
            strangers,
            most_strangers: AtomicU64::new(most_strangers),
        }
    }

    /// Changes how many may be. Who is there stays.
    pub(super) fn set_most(&self, most_by_subject: u64, most_strangers: u64) {
        self.most_by_subject.store(most_by_subject, Relaxed);
        self.most_strangers.store(most_strangers, Relaxed);
    }

    /// A place for a connection of this subject; `None`: it has as many as it may. An API key is a backend and not counted.
    pub(super) fn of(&self, subject: &Subject, metrics: &Metrics) -> Result<Option<Place>, Limit> {
        if subject.by_key {
            return Ok(None);
        }
        let mut by_subject = lock(&self.by_subject);
        let count = by_subject.entry(subject.clone()).or_insert(0);
        if *count >= self.most_by_subject.load(Relaxed) {
            metrics.refused(Limit::ConnectionsPerSubject);
            return Err(Limit::ConnectionsPerSubject);
        }
        *count += 1;
        drop(by_subject);
        Ok(Some(Place {
            by_subject: Arc::clone(&self.by_subject),
            subject: subject.clone(),
        }))
    }

    /// A place for a connection that has yet to say who it is.
    pub(super) fn stranger(&self, metrics: &Metrics) -> Result<Stranger, Limit> {
        // Counted first: two that come at once cannot both take the last place.
        let before = self.strangers.inc();
        let place = Stranger(self.strangers.clone());
        if u64::try_from(before).unwrap_or(0) >= self.most_strangers.load(Relaxed) {
            metrics.refused(Limit::Unauthenticated);
            return Err(Limit::Unauthenticated);
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_subject = lock(&self.by_subject);
        if let Some(count) = by_subject.get_mut(&self.subject) {
            *count -= 1;
            if *count == 0 {
                by_subject.remove(&self.subject);
            }
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn subject(issuer: &str, by_key: bool) -> Subject {
        Subject {
            issuer: issuer.into(),
            name: "alice".into(),
            by_key,
        }
    }

    #[test]
    fn a_subject_has_as_many_connections_as_the_limit_and_not_one_more() {
        let metrics = Metrics::new(&Config::default());
        let places = Places::new(2, 9, Gauge::default());
        let alice = subject("one", false);
        let first = places.of(&alice, &metrics).expect("a place");
        let _second = places.of(&alice, &metrics).expect("a place");
        assert_eq!(
            places.of(&alice, &metrics).expect_err("full"),
            Limit::ConnectionsPerSubject
        );
        let _other = places
            .of(&subject("two", false), &metrics)
            .expect("another person of that name");
        for _ in 0..5 {
            assert!(places.of(&subject("one", true), &metrics).expect("a backend").is_none());
        }
        drop(first);
        let _third = places.of(&alice, &metrics).expect("a place again");
        assert_eq!(lock(&places.by_subject).len(), 2);
    }

    #[test]
    fn there_are_as_many_strangers_as_the_limit_and_not_one_more() {
        let metrics = Metrics::new(&Config::default());
        let gauge = Gauge::default();
        let places = Places::new(9, 2, gauge.clone());
        let _first = places.stranger(&metrics).expect("a place");
        let second = places.stranger(&metrics).expect("a place");
        assert_eq!(places.stranger(&metrics).expect_err("full"), Limit::Unauthenticated);
        assert_eq!(gauge.get(), 2, "who was refused is not counted");
        drop(second);
        assert!(places.stranger(&metrics).is_ok());
    }
}
