//! Versions and epochs: the two numbers by which states are compared.

use serde::{Deserialize, Serialize};

/// When an object last changed, in microseconds since the Unix epoch, made strictly increasing per shard.
///
/// A version is `max(clock, last + 1)`: a hybrid logical clock whose logical part is the microsecond (Kulkarni et al.,
/// 2014). Every version is below [`Version::LIMIT`], so it fits a JSON number without loss until the year 2255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// Below every version that was ever assigned: "nothing is known".
    pub const ZERO: Self = Self(0);
    /// Versions are below this (2^53), so that every JSON reader keeps them exactly.
    pub const LIMIT: u64 = 1 << 53;

    /// The version directly after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The version directly before this one; zero stays zero.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// `None` for [`Version::ZERO`], which stands for "no change known".
    #[must_use]
    pub fn known(self) -> Option<Self> {
        (self != Self::ZERO).then_some(self)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts a shard's owners. The higher epoch wins, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
