//! The parts of a cursor as bytes.
//!
//! Lagging shards: one byte for how the set of shards is written (0 none, 1 runs, 2 bitmap, whichever is shorter); the set;
//! the distinct versions as distances below the base, nearest first, each from the one before; then for each shard, in
//! as many bits as it takes, which of these versions is its own.

use crate::id::ShardId;
use crate::version::Version;

/// A cluster has at most so many shards.
const MAX_SHARDS: usize = 4096;
const NONE: u8 = 0;
const RUNS: u8 = 1;
const BITMAP: u8 = 2;

pub(super) fn put_integer(out: &mut Vec<u8>, mut integer: u64) {
    while integer >= 0x80 {
        out.push(integer as u8 | 0x80);
        integer >>= 7;
    }
    out.push(integer as u8);
}

/// How far `version` is above (even) or below (odd) the base.
pub(super) fn put_difference(out: &mut Vec<u8>, base: Version, version: Version) {
    let folded = if version >= base {
        (version.0 - base.0) << 1
    } else {
        ((base.0 - version.0) << 1) - 1
    };
    put_integer(out, folded);
}

pub(super) fn put_lagging(out: &mut Vec<u8>, base: Version, lagging: &[(ShardId, Version)]) {
    if lagging.is_empty() {
        out.push(NONE);
        return;
    }
    put_shards(out, lagging);
    let mut versions: Vec<Version> = lagging.iter().map(|(_, version)| *version).collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.dedup();
    put_integer(out, versions.len() as u64);
    let mut above = base;
    for version in &versions {
        put_integer(out, above.0 - version.0);
        above = *version;
    }
    let width = index_bits(versions.len());
    let mut bits = BitWriter { out, byte: 0, used: 0 };
    for (_, version) in lagging {
        let index = versions.partition_point(|other| other > version);
        bits.put(index, width);
    }
    bits.finish();
}

fn put_shards(out: &mut Vec<u8>, lagging: &[(ShardId, Version)]) {
    let mut runs = Vec::new();
    let mut count = 0;
    let mut end = 0;
    for run in lagging.chunk_by(|a, b| a.0.0.checked_add(1) == Some(b.0.0)) {
        let first = u64::from(run[0].0.0);
        put_integer(&mut runs, first - end);
        put_integer(&mut runs, run.len() as u64);
        end = first + run.len() as u64;
        count += 1;
    }
    let mut bitmap = vec![0_u8; usize::from(lagging[lagging.len() - 1].0.0) / 8 + 1];
    for (shard, _) in lagging {
        bitmap[usize::from(shard.0) / 8] |= 1 << (shard.0 % 8);
    }
    let (form, length, set) = if runs.len() <= bitmap.len() {
        (RUNS, count, runs)
    } else {
        (BITMAP, bitmap.len() as u64, bitmap)
    };
    out.push(form);
    put_integer(out, length);
    out.extend_from_slice(&set);
}

/// Bits that an index into a list of this length takes.
fn index_bits(length: usize) -> u32 {
    usize::BITS - length.saturating_sub(1).leading_zeros()
}

/// Fills bytes from their lowest bit up.
struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    byte: u8,
    used: u32,
}

impl BitWriter<'_> {
    fn put(&mut self, value: usize, width: u32) {
        for bit in 0..width {
            self.byte |= (((value >> bit) & 1) as u8) << self.used;
            self.used += 1;
            if self.used == 8 {
                self.out.push(self.byte);
                (self.byte, self.used) = (0, 0);
            }
        }
    }

    fn finish(self) {
        if self.used > 0 {
            self.out.push(self.byte);
        }
    }
}

/// Reads from the front. Every answer is `None` once the bytes are used up or make no sense.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// Eight bytes, highest first.
    pub(super) fn fixed(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(super) fn integer(&mut self) -> Option<u64> {
        let mut integer = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.take(1)?[0];
            integer |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(integer);
            }
        }
        None
    }

    pub(super) fn version(&mut self) -> Option<Version> {
        self.integer().filter(|version| *version < Version::LIMIT).map(Version)
    }

    pub(super) fn difference(&mut self, base: Version) -> Option<Version> {
        let folded = self.integer()?;
        let distance = folded.div_ceil(2);
        let version = if folded % 2 == 0 {
            base.0.checked_add(distance)?
        } else {
            base.0.checked_sub(distance)?
        };
        (version < Version::LIMIT).then_some(Version(version))
    }

    pub(super) fn lagging(&mut self, base: Version) -> Option<Vec<(ShardId, Version)>> {
        let shards = match self.take(1)?[0] {
            NONE => return Some(Vec::new()),
            RUNS => self.runs()?,
            BITMAP => self.bitmap()?,
            _ => return None,
        };
        let count = usize::try_from(self.integer()?).ok()?;
        if count == 0 || count > shards.len() {
            return None;
        }
        let mut versions = Vec::with_capacity(count);
        let mut above = base.0;
        for _ in 0..count {
            above = above.checked_sub(self.integer()?)?;
            versions.push(Version(above));
        }
        let width = index_bits(count);
        let packed = self.take((shards.len() * width as usize).div_ceil(8))?;
        let mut lagging = Vec::with_capacity(shards.len());
        for (place, shard) in shards.into_iter().enumerate() {
            lagging.push((shard, *versions.get(index_at(packed, place, width))?));
        }
        Some(lagging)
    }

    fn runs(&mut self) -> Option<Vec<ShardId>> {
        let count = self.integer()?;
        let mut shards = Vec::new();
        let mut at = 0_u64;
        for _ in 0..count {
            let first = at.checked_add(self.integer()?)?;
            let length = self.integer()?;
            at = first.checked_add(length)?;
            if length == 0 || at > MAX_SHARDS as u64 {
                return None;
            }
            shards.extend((first..at).map(|shard| ShardId(shard as u16)));
        }
        Some(shards)
    }

    fn bitmap(&mut self) -> Option<Vec<ShardId>> {
        let length = usize::try_from(self.integer()?)
            .ok()
            .filter(|length| *length <= MAX_SHARDS / 8)?;
        let bitmap = self.take(length)?;
        let is_set = |shard: &usize| (bitmap[shard / 8] >> (shard % 8)) & 1 == 1;
        Some(
            (0..length * 8)
                .filter(is_set)
                .map(|shard| ShardId(shard as u16))
                .collect(),
        )
    }
}

/// The `place`th of the indices of `width` bits.
fn index_at(packed: &[u8], place: usize, width: u32) -> usize {
    let first = place * width as usize;
    (0..width as usize).fold(0, |index, bit| {
        let at = first + bit;
        index | usize::from((packed[at / 8] >> (at % 8)) & 1) << bit
    })
}
