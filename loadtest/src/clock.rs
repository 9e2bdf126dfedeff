//! The two clocks: one that only runs forward and is the same in every process of this machine, and the time of day.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds of the machine's monotonic clock, the one that histories are stamped with.
pub(crate) fn now_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

/// Microseconds since the Unix epoch: what versions are made of.
pub(crate) fn unix_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}
