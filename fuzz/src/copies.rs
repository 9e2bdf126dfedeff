//! What owners send to those who hold copies of their shards: read, and taken by a holder that must not be led astray by it.

use std::collections::BTreeMap;
use tidings_protocol::copy::{self, Frame};
use tidings_protocol::{Epoch, NodeId, ShardCount, ShardId};
use tidings_router::Now;
use tidings_router::control::map::Process;
use tidings_router::copies::receiver::{Arrived, Output, Receiver};
use tidings_router::owner::Config;

const FROM: Process = Process {
    node: NodeId(1),
    incarnation: 1,
};

fn config() -> Config {
    Config {
        shards: ShardCount::new(4).expect("a power of two"),
        version_table_bytes: 1 << 20,
        revisions: 10,
        idempotency_keys: 10,
        idempotency_window_us: 1_000,
        link_window_changes: 10,
        link_hint_bytes: 1_000,
        closed_busy_us: 1_000,
        closed_idle_us: 1_000,
    }
}

/// Frames, each behind its length in one byte. What is written comes back as it was; what a holder takes never makes an epoch
/// fall, a gap is never passed over, and nothing is confirmed twice in another order.
pub(crate) fn copy_frames(data: &[u8]) {
    let mut receiver = Receiver::new(config());
    let mut epochs: BTreeMap<ShardId, Epoch> = BTreeMap::new();
    let mut last: BTreeMap<u16, (u32, u64)> = BTreeMap::new();
    let mut rest = data;
    while let Some((length, behind)) = rest.split_first() {
        let (bytes, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        let Ok(frame) = copy::decode(bytes) else { continue };
        let mut again = Vec::new();
        if copy::encode(&frame, &mut again).is_ok() {
            assert_eq!(copy::decode(&again).as_ref(), Ok(&frame));
        }
        let Frame::Batch {
            owner,
            life,
            place,
            sync,
            entries,
        } = frame
        else {
            continue;
        };
        let batch = Arrived {
            owner,
            life,
            place,
            sync,
            entries: entries.to_vec(),
        };
        let (known_life, known) = last.get(&owner).copied().unwrap_or((life, 0));
        let before = if life > known_life { 0 } else { known };
        let mut out = Vec::new();
        if receiver.take(Now::default(), FROM, batch, &mut out).is_err() {
            assert!(place > before + 1, "a batch that follows the one before it is refused");
            continue;
        }
        assert!(place <= before + 1, "a gap is passed over");
        if life >= known_life && place > before {
            last.insert(owner, (life, place));
        }
        assert!(matches!(out.last(), Some(Output::Write { .. })), "each batch is confirmed");
        for (shard, epoch, _) in receiver.copies() {
            let known = epochs.entry(shard).or_default();
            assert!(epoch >= *known, "a copy went back from {known:?} to {epoch:?}");
            *known = epoch;
            assert!(receiver.newest(shard) >= epoch);
        }
    }
}
