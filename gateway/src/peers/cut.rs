//! Frames cut into parts that fit between nodes. Only lists whose parts mean the same as the whole are cut.

use tidings_protocol::hint::SharedHint;
use tidings_protocol::mesh::{ForwardedChange, MAX_ENTRIES, MAX_FRAME_BYTES};
use tidings_protocol::peer::{EdgeToOwner, OwnerToEdge};
use tidings_router::owner::{Publish, PublishExtra};

/// Bytes of the entries of one frame. Larger frames hold up what is behind them and save nothing.
const PART_BYTES: usize = MAX_FRAME_BYTES / 8;

/// Bytes of an entry without its texts are fewer.
const ENTRY_BYTES: usize = 64;

fn hint_bytes(hint: Option<&SharedHint>) -> usize {
    // Each text may have five bytes of length.
    hint.map_or(0, |hint| hint.bytes() + 10)
}

/// Hands on the parts of a list.
fn parts<T>(mut list: Vec<T>, bytes: impl Fn(&T) -> usize, mut part: impl FnMut(Vec<T>)) {
    loop {
        let mut sum = 0;
        let fits = list.iter().take(MAX_ENTRIES).take_while(|entry| {
            sum += ENTRY_BYTES + bytes(entry);
            sum <= PART_BYTES
        });
        // A single entry always fits a frame.
        let at = fits.count().max(1);
        if at >= list.len() {
            return part(list);
        }
        let rest = list.split_off(at);
        part(std::mem::replace(&mut list, rest));
    }
}

/// What an owner says. A `Registered` is never cut: it is one answer to one question, and as short as that.
pub(super) fn from_owner(frame: OwnerToEdge, mut send: impl FnMut(OwnerToEdge)) {
    match frame {
        OwnerToEdge::Changed { changes } => parts(
            changes,
            |change| hint_bytes(change.hint.as_ref()),
            |changes| send(OwnerToEdge::Changed { changes }),
        ),
        OwnerToEdge::Own { shards } => parts(shards, |_| 0, |shards| send(OwnerToEdge::Own { shards })),
        OwnerToEdge::Gone { shards } => parts(shards, |_| 0, |shards| send(OwnerToEdge::Gone { shards })),
        OwnerToEdge::Registered { .. } | OwnerToEdge::Closed { .. } => send(frame),
    }
}

/// What a lane says. A `Register` is never cut, since each is answered by itself; lanes ask for few enough at once.
pub(super) fn from_edge(frame: EdgeToOwner, mut send: impl FnMut(EdgeToOwner)) {
    match frame {
        EdgeToOwner::Unregister { objects } => {
            parts(objects, |_| 0, |objects| send(EdgeToOwner::Unregister { objects }))
        }
        EdgeToOwner::Register { .. } | EdgeToOwner::Handled { .. } => send(frame),
    }
}

/// Bytes that one frame of forwarded changes may have, by [`forwarded_bytes`].
pub(crate) const FORWARD_BYTES: usize = MAX_FRAME_BYTES / 4;

/// At most so many bytes does a change take between nodes.
pub(crate) fn forwarded_bytes(change: &Publish) -> usize {
    ENTRY_BYTES + change.extra.as_ref().map_or(0, |extra| hint_bytes(extra.hint.as_ref()))
}

fn halves(key: u128) -> (u64, u64) {
    ((key >> 64) as u64, key as u64)
}

fn whole((high, low): (u64, u64)) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// A change as it travels.
pub(super) fn forwarded(change: &Publish) -> ForwardedChange {
    let extra = change.extra.as_deref();
    ForwardedChange {
        object: change.object,
        hint: extra.and_then(|extra| extra.hint.clone()),
        revision: extra.and_then(|extra| extra.revision.map(|(key, revision)| (halves(key), revision))),
        idempotency: extra.and_then(|extra| extra.idempotency.map(halves)),
    }
}

/// A change as its owner takes it.
pub(super) fn arrived(change: ForwardedChange) -> Publish {
    let plain = change.hint.is_none() && change.revision.is_none() && change.idempotency.is_none();
    Publish {
        object: change.object,
        extra: (!plain).then(|| {
            Box::new(PublishExtra {
                hint: change.hint,
                revision: change.revision.map(|(key, revision)| (whole(key), revision)),
                idempotency: change.idempotency.map(whole),
            })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tidings_protocol::limits::MAX_DATA_BYTES;
    use tidings_protocol::mesh::{Frame, LinkName, encode};
    use tidings_protocol::peer::{Changed, FloorCause, Owned};
    use tidings_protocol::{Epoch, Hint, ObjectHash, ShardId, Version};

    fn changed(count: u64, data: usize) -> OwnerToEdge {
        let hint = (data > 0).then(|| {
            Arc::new(Hint {
                kind: None,
                data: Some("x".repeat(data).into()),
            })
        });
        let change = |n| Changed {
            object: ObjectHash(u64::MAX - n),
            version: Version(Version::LIMIT - 1),
            hint: hint.clone(),
        };
        OwnerToEdge::Changed {
            changes: (0..count).map(change).collect(),
        }
    }

    fn entries(frame: &OwnerToEdge) -> Vec<u64> {
        match frame {
            OwnerToEdge::Changed { changes } => changes.iter().map(|change| change.object.0).collect(),
            OwnerToEdge::Own { shards } => shards.iter().map(|owned| owned.shard.0.into()).collect(),
            OwnerToEdge::Gone { shards } => shards.iter().map(|shard| shard.0.into()).collect(),
            OwnerToEdge::Registered { .. } | OwnerToEdge::Closed { .. } => Vec::new(),
        }
    }

    #[test]
    fn what_an_owner_says_fits_however_much_it_is_and_stays_in_order() {
        let owned = |n| Owned {
            shard: ShardId(n),
            epoch: Epoch(u64::MAX),
            floor: Version(Version::LIMIT - 1),
            cause: FloorCause::PowerLost,
        };
        let long = [
            changed(100_000, 0),
            changed(1_000, 2_000),
            changed(200, MAX_DATA_BYTES),
            OwnerToEdge::Own {
                shards: (0..4096).map(owned).collect(),
            },
            OwnerToEdge::Gone {
                shards: (0..4096).map(ShardId).collect(),
            },
        ];
        for frame in long {
            let (mut all, mut parts) = (Vec::new(), 0);
            let expected = entries(&frame);
            from_owner(frame, |part| {
                all.extend(entries(&part));
                parts += 1;
                let frame = Frame::FromOwner {
                    link: LinkName {
                        lane: u16::MAX,
                        owner: u16::MAX,
                    },
                    generation: u32::MAX,
                    frame: part,
                };
                assert_eq!(encode(&frame, &mut Vec::new()), Ok(()));
            });
            assert_eq!(all, expected);
            assert!(parts <= 30, "{parts}");
        }
    }

    #[test]
    fn a_change_arrives_as_it_was_sent() {
        let full = Publish {
            object: ObjectHash(7),
            extra: Some(Box::new(PublishExtra {
                hint: Some(Arc::new(Hint {
                    kind: text("k"),
                    data: text("1"),
                })),
                revision: Some((u128::MAX - 5, 9)),
                idempotency: Some(3 << 64 | 4),
            })),
        };
        let plain = Publish {
            object: ObjectHash(8),
            extra: None,
        };
        for change in [full, plain] {
            assert_eq!(arrived(forwarded(&change)), change);
        }
    }

    fn text(text: &str) -> Option<Box<str>> {
        Some(text.into())
    }
}
