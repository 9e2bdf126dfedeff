//! Time as it comes in from outside.

/// Microseconds on a clock that never jumps and whose zero means nothing.
pub type MonoUs = u64;

/// The two clocks at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For deadlines and intervals.
    pub mono_us: MonoUs,
    /// Microseconds since the Unix epoch, for versions. May jump either way.
    pub wall_us: u64,
}
