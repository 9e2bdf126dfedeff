//! The two clocks of the process, as the pure machines take them.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};
use tidings_router::{MonoUs, Now};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Both clocks now.
#[must_use]
pub fn now() -> Now {
    let wall_us = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as u64);
    Now {
        mono_us: START.elapsed().as_micros() as u64,
        wall_us,
    }
}

/// The moment of a machine's deadline on the runtime's clock.
#[must_use]
pub fn instant(at: MonoUs) -> tokio::time::Instant {
    (*START + Duration::from_micros(at)).into()
}

/// The monotonic clock alone.
#[must_use]
pub fn mono_us() -> MonoUs {
    START.elapsed().as_micros() as u64
}
