//! How many connections may be open at once: in all, and from one address.

use crate::telemetry::{Limit, Metrics};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts the connections that are open.
#[derive(Debug)]
pub struct Admission {
    open: AtomicU64,
    most: u64,
    by_address: Mutex<HashMap<IpAddr, u64>>,
    most_by_address: u64,
    metrics: Arc<Metrics>,
}

/// One connection's place. Dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    // `None` for loopback, which is not counted by address.
    address: Option<IpAddr>,
}

impl Admission {
    /// At most `most` at once, and `most_by_address` from one address.
    #[must_use]
    pub fn new(most: u64, most_by_address: u64, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.limit(Limit::Connections, most);
        Arc::new(Self {
            open: AtomicU64::new(0),
            most,
            by_address: Mutex::default(),
            most_by_address,
            metrics,
        })
    }

    /// Takes a place for a connection from `peer`.
    ///
    /// # Errors
    /// The limit that was reached. It has been counted.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<Permit, Limit> {
        let refuse = |limit: Limit| {
            self.metrics.refused(limit);
            Err(limit)
        };
        // Only the acceptor adds, so looking first and adding then cannot pass the limit.
        if self.open.load(Relaxed) >= self.most {
            return refuse(Limit::Connections);
        }
        let address = network(peer);
        if let Some(address) = address {
            let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
            let count = by_address.entry(address).or_insert(0);
            if *count >= self.most_by_address {
                return refuse(Limit::ConnectionsPerAddress);
            }
            *count += 1;
        }
        self.open.fetch_add(1, Relaxed);
        self.metrics.open.inc();
        Ok(Permit {
            admission: Arc::clone(self),
            address,
        })
    }

    /// How many may be.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.most
    }

    /// How many are open.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Relaxed);
        self.admission.metrics.open.dec();
        if let Some(address) = self.address {
            let mut by_address = self.admission.by_address.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = by_address.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    by_address.remove(&address);
                }
            }
        }
    }
}

/// What counts as one address: an IPv4 address, or the /64 that one IPv6 subscriber usually has. `None` for loopback.
fn network(peer: IpAddr) -> Option<IpAddr> {
    let peer = peer.to_canonical();
    if peer.is_loopback() {
        return None;
    }
    Some(match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn admission(most: u64, most_by_address: u64) -> Arc<Admission> {
        Admission::new(most, most_by_address, Arc::new(Metrics::new(&Config::default())))
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
    fn one_ipv6_network_of_64_bits_is_one_address() {
        let admission = admission(99, 1);
        let _first = admission.admit(ip("2001:db8::1")).expect("a place");
        assert!(admission.admit(ip("2001:db8::ffff")).is_err());
        assert!(admission.admit(ip("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn places_are_forgotten_when_given_back() {
        let admission = admission(99, 5);
        drop(admission.admit(ip("192.0.2.1")).expect("a place"));
        assert_eq!(admission.open(), 0);
        assert!(admission.by_address.lock().expect("unpoisoned").is_empty());
    }
}
