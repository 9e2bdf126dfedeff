//! How many connections may be open at once, in all and from one address; and how fast strangers may come.
//!
//! Behind a proxy that is believed its clients' addresses count, by the requests that are under way; a stream counts as long as
//! it is open.

use super::arrivals::Arrivals;
use super::forwarded::TrustedProxies;
use crate::clock;
use crate::config::Config;
use crate::telemetry::{Limit, Metrics};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts the connections that are open.
#[derive(Debug)]
pub struct Admission {
    open: AtomicU64,
    most: AtomicU64,
    by_address: Mutex<HashMap<IpAddr, u64>>,
    most_by_address: AtomicU64,
    arrivals: Mutex<Arrivals>,
    proxies: TrustedProxies,
    metrics: Arc<Metrics>,
}

/// One connection's place. Dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    // `None` for loopback and for proxies, which are not counted by their address.
    place: Option<Place>,
}

/// A place among those of one address: of a connection, or of a request that a proxy passed on. Dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Admission {
    /// At most `most` at once, and as many from one address as configured.
    #[must_use]
    pub fn new(config: &Config, most: u64, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.limit(Limit::Connections, most);
        Arc::new(Self {
            open: AtomicU64::new(0),
            most: AtomicU64::new(most),
            by_address: Mutex::default(),
            most_by_address: AtomicU64::new(config.limits.connections_per_address),
            arrivals: Mutex::new(Arrivals::new(&config.limits)),
            proxies: TrustedProxies::new(config),
            metrics,
        })
    }

    /// Takes a place for a connection from `peer`.
    ///
    /// # Errors
    /// The limit that was reached. It has been counted.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<Permit, Limit> {
        // Only the acceptor adds, so looking first and adding then cannot pass the limit.
        if self.open.load(Relaxed) >= self.most() {
            self.metrics.refused(Limit::Connections);
            return Err(Limit::Connections);
        }
        let place = self.direct(peer)?;
        self.open.fetch_add(1, Relaxed);
        self.metrics.open.inc();
        Ok(Permit {
            admission: Arc::clone(self),
            place,
        })
    }

    /// A place for a connection of `peer` itself.
    fn direct(self: &Arc<Self>, peer: IpAddr) -> Result<Option<Place>, Limit> {
        if peer.to_canonical().is_loopback() || self.proxies.trusts(peer) {
            return Ok(None);
        }
        self.arrive(peer)?;
        self.place(peer).map(Some)
    }

    /// One more that will stay, from this address: a connection, or a stream that a proxy passes on.
    ///
    /// # Errors
    /// The limit that was reached. It has been counted.
    pub fn arrive(&self, from: IpAddr) -> Result<(), Limit> {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let come = arrivals.come(from, clock::mono_us());
        drop(arrivals);
        come.inspect_err(|limit| self.metrics.refused(*limit))
    }

    /// Takes a place for whoever is at this address, wherever that is.
    ///
    /// # Errors
    /// The limit that was reached. It has been counted.
    pub fn place(self: &Arc<Self>, address: IpAddr) -> Result<Place, Limit> {
        let address = network(address);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(address).or_insert(0);
        if *count >= self.most_by_address.load(Relaxed) {
            self.metrics.refused(Limit::ConnectionsPerAddress);
            return Err(Limit::ConnectionsPerAddress);
        }
        *count += 1;
        drop(by_address);
        Ok(Place {
            admission: Arc::clone(self),
            address,
        })
    }

    /// The proxies that are believed.
    #[must_use]
    pub fn proxies(&self) -> &TrustedProxies {
        &self.proxies
    }

    /// How many may be.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.most.load(Relaxed)
    }

    /// Changes how many may be. Who is there stays.
    pub fn set_most(&self, most: u64, most_by_address: u64) {
        self.metrics.limit(Limit::Connections, most);
        self.most.store(most, Relaxed);
        self.most_by_address.store(most_by_address, Relaxed);
    }

    /// How many are open.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }
}

impl Permit {
    /// A proxy said that the connection is from `peer`: it takes its place there.
    ///
    /// # Errors
    /// The limit that was reached. It has been counted.
    pub(super) fn stands_for(&mut self, peer: IpAddr) -> Result<(), Limit> {
        self.place = if self.admission.proxies.trusts(peer) {
            None
        } else {
            // Also for loopback: it is the proxy's, not ours.
            self.admission.arrive(peer)?;
            Some(self.admission.place(peer)?)
        };
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Relaxed);
        self.admission.metrics.open.dec();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.admission.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// What counts as one address: an IPv4 address, or the /64 that one IPv6 subscriber usually has.
pub(super) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        peer => peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(most: u64, most_by_address: u64) -> Arc<Admission> {
        let mut config = Config::default();
        config.limits.connections_per_address = most_by_address;
        config.server.trusted_proxies = vec!["10.0.0.0/8".to_owned()];
        Admission::new(&config, most, Arc::new(Metrics::new(&config)))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_connection_after_the_last_is_refused_until_one_closes() {
        let admission = admission(2, 9);
        let first = admission.admit(ip("127.0.0.1")).expect("a place");
        let _second = admission.admit(ip("127.0.0.1")).expect("a place");
        assert_eq!(admission.admit(ip("127.0.0.1")).expect_err("full"), Limit::Connections);
        drop(first);
        assert!(admission.admit(ip("127.0.0.1")).is_ok());
    }

    #[test]
    fn one_address_has_its_own_limit_and_loopback_has_none() {
        let admission = admission(99, 1);
        let first = admission.admit(ip("192.0.2.1")).expect("a place");
        assert_eq!(
            admission.admit(ip("192.0.2.1")).expect_err("full"),
            Limit::ConnectionsPerAddress
        );
        assert_eq!(
            admission.admit(ip("::ffff:192.0.2.1")).expect_err("the same"),
            Limit::ConnectionsPerAddress
        );
        let _other = admission.admit(ip("192.0.2.2")).expect("a place");
        let _loopback: Vec<_> = (0..5).map(|_| admission.admit(ip("::1")).expect("exempt")).collect();
        drop(first);
        assert!(admission.admit(ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn strangers_come_as_fast_as_the_limit_and_loopback_and_proxies_as_they_like() {
        let mut config = Config::default();
        config.limits.connections_per_address_per_s = 1;
        config.limits.connections_per_address_burst = 2;
        config.server.trusted_proxies = vec!["10.0.0.0/8".to_owned()];
        let admission = Admission::new(&config, 99, Arc::new(Metrics::new(&config)));
        let come = |address: &str| admission.admit(ip(address)).map(drop);
        for _ in 0..20 {
            assert_eq!(
                (come("127.0.0.1"), come("::1"), come("10.0.0.1")),
                (Ok(()), Ok(()), Ok(()))
            );
        }
        let strangers: Vec<_> = (0..20).map(|_| come("192.0.2.1")).collect();
        assert_eq!(strangers[..2], [Ok(()), Ok(())]);
        assert!(
            strangers.contains(&Err(Limit::ConnectionsPerAddressPerS)),
            "{strangers:?}"
        );
        let mut passed_on = (0..20).map(|_| {
            admission
                .admit(ip("10.0.0.1"))
                .expect("a proxy")
                .stands_for(ip("127.0.0.1"))
        });
        assert!(passed_on.any(|came| came == Err(Limit::ConnectionsPerAddressPerS)));
    }

    #[test]
    fn one_ipv6_network_of_64_bits_is_one_address() {
        let admission = admission(99, 1);
        let _first = admission.admit(ip("2001:db8::1")).expect("a place");
        assert!(admission.admit(ip("2001:db8::ffff")).is_err());
        assert!(admission.admit(ip("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn a_proxy_is_not_counted_and_whoever_is_behind_it_is() {
        let admission = admission(99, 1);
        let mut first = admission.admit(ip("10.0.0.1")).expect("a place");
        let mut second = admission.admit(ip("10.0.0.1")).expect("a place");
        first.stands_for(ip("127.0.0.1")).expect("a place");
        let refused = second.stands_for(ip("127.0.0.1")).expect_err("full");
        assert_eq!(refused, Limit::ConnectionsPerAddress);
        second.stands_for(ip("10.0.0.2")).expect("another proxy");
        assert!(admission.place(ip("127.0.0.1")).is_err());
        drop(first);
        let passed_on = admission.place(ip("127.0.0.1")).expect("a place");
        assert!(admission.place(ip("127.0.0.1")).is_err());
        drop(passed_on);
        assert!(admission.by_address.lock().expect("unpoisoned").is_empty());
    }

    #[test]
    fn places_are_forgotten_when_given_back() {
        let admission = admission(99, 5);
        drop(admission.admit(ip("192.0.2.1")).expect("a place"));
        assert_eq!(admission.open(), 0);
        assert!(admission.by_address.lock().expect("unpoisoned").is_empty());
    }
}
