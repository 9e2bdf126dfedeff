//! Which server and which transport to try next, and after which wait.
//!
//! It knows neither time nor sockets; randomness comes in as a seed.

use super::verdict::{Stop, StopReason};
use std::time::Duration;

/// How the server is listened to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A WebSocket; where none can be had an event stream; where that does not flow, long-polls. What works is remembered,
    /// and now and then a better one is tried.
    #[default]
    Auto,
    /// Only a WebSocket.
    WebSocket,
    /// Only a stream of Server-Sent Events.
    Events,
    /// Only long-polls.
    LongPoll,
}

/// The order of preference.
const ALL: [Transport; 3] = [Transport::WebSocket, Transport::Events, Transport::LongPoll];
/// So many failures in a row that may be a transport's fault count as its fault.
const STRIKES: u32 = 2;
/// A server's wish to be left alone is obeyed up to here.
const LONGEST_WISH: Duration = Duration::from_secs(600);

/// Waits: full jitter under a ceiling that doubles.
///
/// Source: M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// The first wait is at most this.
    pub first: Duration,
    /// No wait is longer than this.
    pub longest: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(30),
        }
    }
}

impl Waits {
    /// The wait after so many failures, 0 being the first. `random` is uniform over all 64-bit numbers.
    #[must_use]
    pub fn after(self, failures: u32, random: u64) -> Duration {
        let ceiling = self.first.saturating_mul(1 << failures.min(20)).min(self.longest);
        let ceiling_us = ceiling.as_micros().min(u128::from(u64::MAX - 1));
        // The upper half of a 64-bit by 64-bit product is uniform in 0..ceiling.
        Duration::from_micros(((u128::from(random) * (ceiling_us + 1)) >> 64) as u64)
    }
}

/// A generator of numbers for jitter, not for secrets: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    servers: usize,
    server: usize,
    fixed: Option<Transport>,
    transport: usize,
    /// What has worked last.
    worked: Option<usize>,
    /// What was tried in vain since something worked: definitely, not only perhaps.
    unusable: [Option<String>; 3],
    strikes: u32,
    failures: u32,
    waits: Waits,
    random: Random,
}

impl Route {
    pub(crate) fn new(servers: usize, transport: Transport, waits: Waits, seed: u64) -> Self {
        let mut random = Random(seed);
        Self {
            servers: servers.max(1),
            // Clients spread over the servers.
            server: (random.next() % servers.max(1) as u64) as usize,
            fixed: (transport != Transport::Auto).then_some(transport),
            transport: 0,
            worked: None,
            unusable: [None, None, None],
            strikes: 0,
            failures: 0,
            waits,
            random,
        }
    }

    /// Begins at this server.
    pub(crate) fn at(mut self, server: usize) -> Self {
        self.server = server % self.servers;
        self
    }

    pub(crate) fn servers(&self) -> u32 {
        u32::try_from(self.servers).unwrap_or(u32::MAX)
    }

    pub(crate) fn server(&self) -> usize {
        self.server
    }

    pub(crate) fn transport(&self) -> Transport {
        self.fixed.unwrap_or(ALL[self.transport])
    }

    /// Everything is well.
    pub(crate) fn works(&mut self) {
        self.worked = Some(self.transport);
        self.unusable = [None, None, None];
        self.strikes = 0;
    }

    /// It has been well for so long that the next wait is a first one again.
    pub(crate) fn well(&mut self) {
        self.failures = 0;
    }

    /// The wait before the next try, at another server if there is one.
    pub(crate) fn next(&mut self) -> Duration {
        // The ceiling doubles once all servers were tried.
        let rounds = self.failures / self.servers();
        self.failures = self.failures.saturating_add(1);
        self.server = (self.server + 1) % self.servers;
        self.waits.after(rounds, self.random.next())
    }

    /// A wait that the server wishes for, behind which clients spread out if all are told the same.
    pub(crate) fn wish(&mut self, ms: u64, spread: bool) -> Duration {
        let own = self.next();
        let wish = Duration::from_millis(ms).min(LONGEST_WISH);
        if spread { wish + own } else { wish }
    }

    /// The path gave way before anything was told on it; that may be the transport's fault.
    pub(crate) fn strike(&mut self) {
        self.strikes += 1;
        // What worked elsewhere before it was left for a better one: back to it at once.
        if self.strikes >= STRIKES || self.worked.is_some_and(|worked| worked != self.transport) {
            self.fall();
        }
    }

    /// The transport does not work here.
    ///
    /// # Errors
    /// If none does.
    pub(crate) fn unusable(&mut self, why: String) -> Result<(), Stop> {
        self.unusable[self.transport] = Some(why.clone());
        if self.fixed.is_some() || self.unusable.iter().all(Option::is_some) {
            return Err(Stop {
                reason: StopReason::NoServer,
                detail: why,
            });
        }
        self.fall();
        Ok(())
    }

    fn fall(&mut self) {
        self.strikes = 0;
        if self.fixed.is_none() {
            self.transport = match self.worked.take() {
                Some(worked) if worked != self.transport => worked,
                _ => (self.transport + 1) % ALL.len(),
            };
        }
    }

    /// Whether a better transport than the present one may be tried.
    pub(crate) fn has_better(&self) -> bool {
        self.fixed.is_none() && self.transport > 0
    }

    /// Tries the best one again; if it fails, what works now comes next.
    pub(crate) fn try_better(&mut self) {
        if self.has_better() {
            self.worked = Some(self.transport);
            self.transport = 0;
            self.strikes = 0;
        }
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.random.next()
    }

    pub(crate) fn waits(&self) -> Waits {
        self.waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto() -> Route {
        Route::new(1, Transport::Auto, Waits::default(), 7)
    }

    #[test]
    fn waits_double_up_to_the_cap_and_reach_from_nothing_to_the_ceiling() {
        let waits = Waits::default();
        let longest: Vec<u64> = (0..7).map(|n| waits.after(n, u64::MAX).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(waits.after(u32::MAX, u64::MAX), Duration::from_secs(30));
        assert_eq!(waits.after(5, 0), Duration::ZERO);
        assert_eq!(waits.after(0, u64::MAX / 2).as_millis(), 500);
    }

    #[test]
    fn several_servers_are_tried_in_turn_before_the_wait_doubles() {
        let mut route = Route::new(3, Transport::WebSocket, Waits::default(), 1);
        let first = route.server();
        let mut seen = vec![first];
        for _ in 0..2 {
            assert!(route.next() <= Duration::from_secs(1));
            seen.push(route.server());
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2]);
        _ = route.next();
        assert_eq!(route.server(), first);
    }

    #[test]
    fn clients_begin_at_different_servers() {
        let begins = |seed| Route::new(3, Transport::Auto, Waits::default(), seed).server();
        let mut seen: Vec<_> = (0..50).map(begins).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2]);
    }

    #[test]
    fn what_cannot_be_had_is_left_at_once_and_what_may_be_ill_after_two_failures() {
        let mut route = auto();
        assert_eq!(route.transport(), Transport::WebSocket);
        route.unusable("404".to_owned()).expect("others are left");
        assert_eq!(route.transport(), Transport::Events);
        route.strike();
        assert_eq!(route.transport(), Transport::Events);
        route.strike();
        assert_eq!(route.transport(), Transport::LongPoll);
    }

    #[test]
    fn where_nothing_can_be_had_it_stops() {
        let mut route = auto();
        assert!(route.unusable("a".to_owned()).is_ok());
        assert!(route.unusable("b".to_owned()).is_ok());
        let stop = route.unusable("c".to_owned()).expect_err("nothing is left");
        assert_eq!((stop.reason, &*stop.detail), (StopReason::NoServer, "c"));
        let mut fixed = Route::new(1, Transport::Events, Waits::default(), 7);
        assert!(fixed.unusable("x".to_owned()).is_err());
    }

    #[test]
    fn a_fixed_transport_is_never_left() {
        let mut route = Route::new(1, Transport::LongPoll, Waits::default(), 7);
        for _ in 0..10 {
            route.strike();
            assert_eq!(route.transport(), Transport::LongPoll);
        }
        assert!(!route.has_better());
    }

    #[test]
    fn what_works_is_remembered_and_a_better_one_that_fails_is_left_at_once() {
        let mut route = auto();
        route.unusable("404".to_owned()).expect("others are left");
        route.works();
        assert!(route.has_better());
        route.try_better();
        assert_eq!(route.transport(), Transport::WebSocket);
        route.strike();
        assert_eq!(route.transport(), Transport::Events, "back without a second try");
        route.try_better();
        route.works();
        assert!(!route.has_better(), "the best one works again");
    }

    #[test]
    fn a_wish_is_obeyed_but_not_for_ever() {
        let mut route = auto();
        assert_eq!(route.wish(1500, false), Duration::from_millis(1500));
        assert!(route.wish(1500, true) >= Duration::from_millis(1500));
        assert_eq!(route.wish(u64::MAX, false), LONGEST_WISH);
    }
}
