//! The two clocks of the process, as the pure machines take them.

use rustix::time::{ClockId, clock_gettime};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};
use tidings_router::{MonoUs, Now};

/// The same moment on the runtime's clock, which stands still while the machine sleeps, and on ours, which does not.
static START: LazyLock<(Instant, MonoUs)> = LazyLock::new(|| (Instant::now(), boot_us()));

/// Microseconds since the machine started, its sleep included: what is allowed until a time ends while it sleeps.
fn boot_us() -> MonoUs {
    let now = clock_gettime(ClockId::Boottime);
    (now.tv_sec as u64) * 1_000_000 + (now.tv_nsec as u64) / 1_000
}

/// Both clocks now.
#[must_use]
pub fn now() -> Now {
    let wall_us = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as u64);
    Now {
        mono_us: mono_us(),
        wall_us,
    }
}

/// The moment of a machine's deadline on the runtime's clock.
#[must_use]
pub fn instant(at: MonoUs) -> tokio::time::Instant {
    // In whole milliseconds, so that one deadline does not come out differently each time.
    let slept_us = mono_us().saturating_sub(START.0.elapsed().as_micros() as u64) / 1_000 * 1_000;
    (START.0 + Duration::from_micros(at.saturating_sub(slept_us))).into()
}

/// The monotonic clock alone.
#[must_use]
pub fn mono_us() -> MonoUs {
    let (_, start) = *START;
    boot_us().saturating_sub(start)
}
