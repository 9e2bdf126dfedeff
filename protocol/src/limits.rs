//! Bounds that both ends of a wire must agree on. All others are configuration of the gateway.

/// The longest `kind`, in bytes.
pub const MAX_KIND_BYTES: usize = 32;
/// The largest `data`, in bytes of compact JSON.
pub const MAX_DATA_BYTES: usize = 64 * 1024;
/// How deep `data` may nest. Deeper documents trip recursive readers of clients.
pub const MAX_DATA_DEPTH: usize = 64;
/// The longest cursor, in bytes of text.
pub const MAX_CURSOR_BYTES: usize = 2048;
/// A publisher's revision is below this (2^53), so that every JSON reader keeps it exactly.
pub const REVISION_LIMIT: u64 = 1 << 53;
/// The longest `Idempotency-Key`, in bytes.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;
