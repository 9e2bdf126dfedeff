//! The compact form: events as bytes, in blocks that can each be read alone.
//!
//! A file is [`MAGIC`], then blocks: [`BLOCK`], the length of the body and its CRC-32 (both 4 bytes, little-endian), the
//! body. The first body is the header as JSON. In the bodies after it an event is one byte of kind and flags, the stamp
//! as difference to the event before, then its fields: numbers as LEB128, versions as zigzag difference to the version
//! before, texts through [`SLOTS`] slots that remember the last text of their number. All of that starts anew with
//! each block. An empty body is the end: a file without it was cut short.
//!
//! It does not know files.

mod decode;
mod encode;

pub(super) use decode::{Bad, Body};
pub(super) use encode::Encoder;

/// The first bytes of a file in this form.
pub(super) const MAGIC: &[u8; 8] = b"TIDHIST1";
/// The first bytes of each block.
pub(super) const BLOCK: &[u8; 4] = b"TIDB";
/// Bytes before a block's body: [`BLOCK`], length, checksum.
pub(super) const BLOCK_HEAD: usize = 12;
/// No block's body is longer; longer lengths are damage.
pub(super) const MAX_BODY: usize = 64 << 20;
/// How many texts a block remembers, so that a cursor told to thousands is written once.
const SLOTS: usize = 256;

/// The object is a text.
const TEXT: u8 = 0x20;
/// Shard and epoch follow.
const TRACE: u8 = 0x40;
/// What it means depends on the kind: something optional is there, or something is true.
const EXTRA: u8 = 0x80;
/// The bits of the kind itself.
const KIND: u8 = 0x1f;

/// The kinds. Numbers are for ever: a history may be read years later.
mod kind {
    pub(super) const PUB_CALL: u8 = 1;
    pub(super) const PUB_OK: u8 = 2;
    pub(super) const PUB_FAIL: u8 = 3;
    pub(super) const PUB_UNKNOWN: u8 = 4;
    pub(super) const SUB_CALL: u8 = 5;
    pub(super) const SUB_OK: u8 = 6;
    pub(super) const SUB_FAIL: u8 = 7;
    pub(super) const UNSUB_CALL: u8 = 8;
    pub(super) const UNSUB_OK: u8 = 9;
    pub(super) const CONN_OPEN: u8 = 10;
    pub(super) const CONN_CLOSE: u8 = 11;
    pub(super) const RESUME_OK: u8 = 12;
    pub(super) const RESYNC: u8 = 13;
    pub(super) const NOTIFY: u8 = 14;
    pub(super) const CURSOR: u8 = 15;
    pub(super) const STALE: u8 = 16;
    pub(super) const NEMESIS_START: u8 = 17;
    pub(super) const NEMESIS_STOP: u8 = 18;
    pub(super) const FINAL: u8 = 19;
    pub(super) const NOTE: u8 = 20;
}

/// The block of this body.
pub(super) fn head(body: &[u8]) -> [u8; BLOCK_HEAD] {
    let mut head = [0; BLOCK_HEAD];
    head[..4].copy_from_slice(BLOCK);
    head[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    head[8..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    head
}

/// Differences of either sign as small numbers.
fn zigzag(difference: i64) -> u64 {
    ((difference << 1) ^ (difference >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    ((number >> 1) as i64) ^ -((number & 1) as i64)
}
