//! How fast strangers may come: connections a second, in all and from one address.

use super::admission::network;
use crate::config::Limits;
use crate::telemetry::Limit;
use std::collections::HashMap;
use std::net::IpAddr;
use tidings_router::MonoUs;
use tidings_router::access::{Bucket, Rate};

/// Addresses whose arrivals are remembered at a time. Only those that came in the last moments need be.
const MOST_ADDRESSES: usize = 16_384;
/// How often a full memory is looked through for those who need not be remembered any more, in microseconds.
const LOOK_THROUGH_US: u64 = 100_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Arrivals {
    all: Rate,
    by_address: Rate,
    arrived: Bucket,
    addresses: HashMap<IpAddr, Bucket>,
    looked_us: MonoUs,
}

impl Arrivals {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            all: Rate::new(limits.connections_per_s, limits.connections_per_s),
            by_address: Rate::new(
                limits.connections_per_address_per_s,
                limits.connections_per_address_burst,
            ),
            arrived: Bucket::default(),
            addresses: HashMap::new(),
            looked_us: 0,
        }
    }

    /// One more, from this address.
    pub(super) fn come(&mut self, from: IpAddr, now: MonoUs) -> Result<(), Limit> {
        if self.by_address.is_limited() {
            let from = network(from);
            self.make_room(from, now)?;
            let bucket = self.addresses.entry(from).or_default();
            if bucket.take(self.by_address, 1, now).is_err() {
                return Err(Limit::ConnectionsPerAddressPerS);
            }
        }
        self.arrived.take(self.all, 1, now).map_err(|_| Limit::ConnectionsPerS)
    }

    /// Strangers beyond what is remembered are taken for one address too many: who has been seen goes on as before.
    fn make_room(&mut self, from: IpAddr, now: MonoUs) -> Result<(), Limit> {
        if self.addresses.len() < MOST_ADDRESSES || self.addresses.contains_key(&from) {
            return Ok(());
        }
        if now >= self.looked_us.saturating_add(LOOK_THROUGH_US) {
            self.looked_us = now;
            self.addresses.retain(|_, bucket| !bucket.is_full(now));
        }
        match self.addresses.len() < MOST_ADDRESSES {
            true => Ok(()),
            false => Err(Limit::ConnectionsPerAddressPerS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const NOW: MonoUs = 9_000_000;

    fn arrivals(per_s: u64, burst: u64, all: u64) -> Arrivals {
        let mut limits = Config::default().limits;
        limits.connections_per_address_per_s = per_s;
        limits.connections_per_address_burst = burst;
        limits.connections_per_s = all;
        Arrivals::new(&limits)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_address_comes_as_fast_as_its_limit_and_not_once_more() {
        let mut arrivals = arrivals(10, 3, 0);
        let (alice, bob) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..3 {
            assert_eq!(arrivals.come(alice, NOW), Ok(()));
        }
        assert_eq!(arrivals.come(alice, NOW), Err(Limit::ConnectionsPerAddressPerS));
        assert_eq!(arrivals.come(bob, NOW), Ok(()), "another one has its own");
        assert_eq!(
            arrivals.come(alice, NOW + 99_999),
            Err(Limit::ConnectionsPerAddressPerS)
        );
        assert_eq!(arrivals.come(alice, NOW + 100_000), Ok(()));
        for (first, same) in [("2001:db8::1", "2001:db8::2"), ("::ffff:192.0.2.9", "192.0.2.9")] {
            for _ in 0..3 {
                assert_eq!(arrivals.come(ip(first), NOW), Ok(()));
            }
            assert!(arrivals.come(ip(same), NOW).is_err(), "{same} is {first}");
        }
    }

    #[test]
    fn all_together_come_as_fast_as_their_limit_and_not_once_more() {
        let mut arrivals = arrivals(0, 1, 5);
        for _ in 0..5 {
            assert_eq!(arrivals.come(ip("192.0.2.1"), NOW), Ok(()));
        }
        assert_eq!(arrivals.come(ip("192.0.2.2"), NOW), Err(Limit::ConnectionsPerS));
        assert_eq!(arrivals.come(ip("192.0.2.2"), NOW + 200_000), Ok(()));
        let mut free = self::arrivals(0, 1, 0);
        assert!((0..100_000).all(|_| free.come(ip("192.0.2.1"), NOW).is_ok()));
        assert!(
            free.addresses.is_empty(),
            "nothing is remembered where nothing is limited"
        );
    }

    #[test]
    fn no_more_addresses_are_remembered_than_fit_and_they_are_forgotten_in_time() {
        let mut arrivals = arrivals(100, 1_000, 0);
        let nth = |n: usize| IpAddr::from((n as u32).to_be_bytes());
        for n in 0..MOST_ADDRESSES {
            assert_eq!(arrivals.come(nth(n), NOW), Ok(()));
        }
        assert_eq!(
            arrivals.come(nth(MOST_ADDRESSES), NOW),
            Err(Limit::ConnectionsPerAddressPerS)
        );
        assert_eq!(arrivals.come(nth(7), NOW), Ok(()), "who is known goes on");
        let later = NOW + 100_000;
        assert_eq!(arrivals.come(nth(MOST_ADDRESSES), later), Ok(()));
        assert_eq!(
            arrivals.addresses.len(),
            1,
            "10 ms after one connection an address is as new"
        );
    }
}
