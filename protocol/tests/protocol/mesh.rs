//! The bytes between nodes: what goes out comes back, what is not a frame is refused.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use std::sync::Arc;
use tidings_protocol::hint::SharedHint;
use tidings_protocol::limits::{MAX_DATA_BYTES, MAX_KIND_BYTES, REVISION_LIMIT};
use tidings_protocol::mesh::*;
use tidings_protocol::peer::{Changed, EdgeToOwner, FloorCause, Owned, OwnerToEdge};
use tidings_protocol::subject::{Deed, MAX_NAME_BYTES, SubjectOrder, SubjectTally};
use tidings_protocol::{ClusterId, Epoch, Hint, NodeId, ObjectHash, ShardId, Version};

fn versions() -> impl Strategy<Value = Version> {
    prop_oneof![Just(0), Just(Version::LIMIT - 1), 0..Version::LIMIT].prop_map(Version)
}

fn hashes() -> impl Strategy<Value = ObjectHash> {
    any::<u64>().prop_map(ObjectHash)
}

fn hints() -> impl Strategy<Value = Option<SharedHint>> {
    let text = |most: usize| vec(any::<char>(), 0..most).prop_map(|chars| chars.into_iter().collect::<String>().into());
    of((of(text(MAX_KIND_BYTES / 4)), of(text(40))).prop_map(|(kind, data)| Arc::new(Hint { kind, data })))
}

fn texts() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..40).prop_map(|chars| chars.into_iter().collect())
}

fn causes() -> impl Strategy<Value = FloorCause> {
    use FloorCause::{Damaged, Evicted, Lost, PowerLost};
    prop_oneof![Just(Lost), Just(Evicted), Just(PowerLost), Just(Damaged)]
}

fn from_edge() -> impl Strategy<Value = EdgeToOwner> {
    prop_oneof![
        vec(hashes(), 0..20).prop_map(|objects| EdgeToOwner::Register { objects }),
        vec(hashes(), 0..20).prop_map(|objects| EdgeToOwner::Unregister { objects }),
        any::<u32>().prop_map(|changes| EdgeToOwner::Handled { changes }),
    ]
}

fn from_owner() -> impl Strategy<Value = OwnerToEdge> {
    let owned = (any::<u16>(), any::<u64>(), versions(), causes()).prop_map(|(shard, epoch, floor, cause)| Owned {
        shard: ShardId(shard),
        epoch: Epoch(epoch),
        floor,
        cause,
    });
    let changed = (hashes(), versions(), hints()).prop_map(|(object, version, hint)| Changed { object, version, hint });
    prop_oneof![
        vec(owned, 0..9).prop_map(|shards| OwnerToEdge::Own { shards }),
        vec(any::<u16>().prop_map(ShardId), 0..9).prop_map(|shards| OwnerToEdge::Gone { shards }),
        vec((hashes(), versions()), 0..9).prop_map(|objects| OwnerToEdge::Registered { objects }),
        vec(changed, 0..9).prop_map(|changes| OwnerToEdge::Changed { changes }),
        versions().prop_map(|version| OwnerToEdge::Closed { version }),
    ]
}

fn changes() -> impl Strategy<Value = ForwardedChange> {
    let revision = of((any::<(u64, u64)>(), 0..REVISION_LIMIT));
    (hashes(), hints(), revision, of(any::<(u64, u64)>())).prop_map(|(object, hint, revision, idempotency)| {
        ForwardedChange {
            object,
            hint,
            revision,
            idempotency,
        }
    })
}

fn results() -> impl Strategy<Value = ForwardedResult> {
    prop_oneof![
        versions().prop_map(ForwardedResult::Accepted),
        versions().prop_map(ForwardedResult::Duplicate),
        any::<u64>().prop_map(|revision| ForwardedResult::NotOwner { revision }),
        Just(ForwardedResult::Unavailable),
        Just(ForwardedResult::Overloaded),
        Just(ForwardedResult::NoStorage),
        Just(ForwardedResult::NoDisk),
        Just(ForwardedResult::Unknown),
    ]
}

fn known() -> impl Strategy<Value = Known> {
    (versions(), any::<u64>(), versions(), any::<u32>(), any::<bool>()).prop_map(
        |(version, epoch, floor, watchers, interested)| Known {
            version,
            epoch: Epoch(epoch),
            floor,
            watchers,
            interested,
        },
    )
}

fn frames() -> impl Strategy<Value = Frame> {
    let link = || (any::<u16>(), any::<u16>()).prop_map(|(lane, owner)| LinkName { lane, owner });
    let ack = prop_oneof![
        Just(AckLevel::Accepted),
        Just(AckLevel::Replicated),
        Just(AckLevel::Durable)
    ];
    prop_oneof![
        (link(), any::<u32>()).prop_map(|(link, generation)| Frame::LinkUp { link, generation }),
        (link(), any::<u32>()).prop_map(|(link, generation)| Frame::LinkDown { link, generation }),
        (link(), any::<u32>(), from_edge()).prop_map(|(link, generation, frame)| Frame::FromEdge {
            link,
            generation,
            frame
        }),
        (link(), any::<u32>(), from_owner()).prop_map(|(link, generation, frame)| Frame::FromOwner {
            link,
            generation,
            frame
        }),
        (any::<u64>(), ack, any::<u32>(), vec(changes(), 0..9)).prop_map(|(request, ack, within_ms, changes)| {
            Frame::Publish {
                request,
                ack,
                within_ms,
                changes,
            }
        }),
        (any::<u64>(), vec(results(), 0..9)).prop_map(|(request, results)| Frame::Published { request, results }),
        (1..=MAX_OWNERS_OF_NODE).prop_map(|owners| Frame::Welcome { owners }),
        (any::<u64>(), hashes(), any::<Option<u16>>()).prop_map(|(request, object, lane)| Frame::Inspect {
            request,
            object,
            lane
        }),
        (any::<u64>(), of(known())).prop_map(|(request, known)| Frame::Inspected { request, known }),
        (any::<u64>(), orders()).prop_map(|(request, order)| Frame::Order { request, order }),
        (any::<u64>(), any::<Option<[u64; 5]>>()).prop_map(|(request, figures)| {
            let tally = figures.map(|[connections, sessions, objects, refused, busy]| SubjectTally {
                connections,
                sessions,
                objects,
                refused,
                busy,
            });
            Frame::Ordered { request, tally }
        }),
        (any::<u64>(), any::<u32>(), any::<bool>(), texts()).prop_map(|(request, within_ms, ends, target)| {
            Frame::Ask {
                request,
                within_ms,
                verb: if ends { Verb::Delete } else { Verb::Get },
                target,
            }
        }),
        (any::<u64>(), 200_u16..600, texts()).prop_map(|(request, status, body)| Frame::Told { request, status, body }),
    ]
}

fn orders() -> impl Strategy<Value = SubjectOrder> {
    let objects = || vec("[a-z:]{1,9}".prop_map(String::into_boxed_str), 1..9);
    let deeds = prop_oneof![
        objects().prop_map(Deed::Subscribe),
        objects().prop_map(Deed::Unsubscribe),
        any::<bool>().prop_map(|come_back| Deed::Disconnect { come_back }),
    ];
    (of(".{0,9}"), ".{1,9}", deeds).prop_map(|(issuer, subject, deed)| SubjectOrder { issuer, subject, deed })
}

proptest! {
    #[test]
    fn a_frame_comes_back_as_it_went_out(frame in frames()) {
        let mut bytes = vec![7; 3];
        encode(&frame, &mut bytes).unwrap();
        prop_assert_eq!(&bytes[..3], &[7; 3]);
        prop_assert_eq!(decode(&bytes[3..]), Ok(frame));
    }

    #[test]
    fn a_frame_cut_short_or_with_more_behind_it_is_refused(frame in frames(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        encode(&frame, &mut bytes).unwrap();
        prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(0xc0);
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn whatever_bytes_come_there_is_an_answer(bytes in vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn a_frame_with_some_bytes_changed_is_a_frame_within_the_limits_or_refused(
        frame in frames(), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let mut bytes = Vec::new();
        encode(&frame, &mut bytes).unwrap();
        for (at, to) in flips {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        if let Ok(read) = decode(&bytes) {
            let mut again = Vec::new();
            encode(&read, &mut again).unwrap();
            prop_assert_eq!(decode(&again), Ok(read));
        }
    }

    #[test]
    fn a_hello_comes_back(cluster in any::<u64>(), node in any::<u64>(), incarnation in any::<u64>(), oldest in any::<u16>(),
        newest in any::<u16>()) {
        for class in [Class::Control, Class::Links, Class::Bulk, Class::Copies] {
            let hello = Hello { cluster: ClusterId(cluster), node: NodeId(node), incarnation, oldest, newest, class };
            prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        }
    }
}

fn closed(version: u64) -> Frame {
    Frame::FromOwner {
        link: LinkName { lane: 0, owner: 0 },
        generation: 1,
        frame: OwnerToEdge::Closed {
            version: Version(version),
        },
    }
}

fn published(hint: Hint, revision: u64) -> Frame {
    let change = ForwardedChange {
        object: ObjectHash(1),
        hint: Some(Arc::new(hint)),
        revision: Some(((1, 2), revision)),
        idempotency: None,
    };
    Frame::Publish {
        request: 1,
        ack: AckLevel::Replicated,
        within_ms: 4_000,
        changes: vec![change],
    }
}

fn inspected(floor: u64) -> Frame {
    let known = Known {
        version: Version(1),
        epoch: Epoch(1),
        floor: Version(floor),
        watchers: 0,
        interested: false,
    };
    Frame::Inspected {
        request: 1,
        known: Some(known),
    }
}

fn ordered(name: usize, objects: usize) -> Frame {
    let order = SubjectOrder {
        issuer: None,
        subject: "x".repeat(name),
        deed: Deed::Subscribe(vec!["a".into(); objects]),
    };
    Frame::Order { request: 1, order }
}

fn asked(bytes: usize) -> Frame {
    Frame::Ask {
        request: 1,
        within_ms: 1,
        verb: Verb::Get,
        target: "x".repeat(bytes),
    }
}

fn told(status: u16, bytes: usize) -> Frame {
    Frame::Told {
        request: 1,
        status,
        body: "x".repeat(bytes),
    }
}

fn text(bytes: usize) -> Option<Box<str>> {
    Some("x".repeat(bytes).into())
}

/// Encodes without looking and reads it back.
fn through(frame: &Frame) -> Result<Frame, FrameError> {
    decode(&rmp_serde::to_vec(frame).unwrap())
}

#[test]
fn values_out_of_range_are_refused_one_past_their_limit() {
    let registered = |entries| Frame::FromEdge {
        link: LinkName { lane: 0, owner: 0 },
        generation: 1,
        frame: EdgeToOwner::Register {
            objects: vec![ObjectHash(5); entries],
        },
    };
    let hint = |kind, data| Hint {
        kind: text(kind),
        data: text(data),
    };
    let limits = [
        (closed(Version::LIMIT - 1), closed(Version::LIMIT), "version"),
        (
            registered(MAX_ENTRIES),
            registered(MAX_ENTRIES + 1),
            "number of entries",
        ),
        (
            published(hint(MAX_KIND_BYTES, 1), 1),
            published(hint(MAX_KIND_BYTES + 1, 1), 1),
            "kind",
        ),
        (
            published(hint(1, MAX_DATA_BYTES), 1),
            published(hint(1, MAX_DATA_BYTES + 1), 1),
            "data",
        ),
        (
            published(hint(1, 1), REVISION_LIMIT - 1),
            published(hint(1, 1), REVISION_LIMIT),
            "revision",
        ),
        (
            Frame::Welcome {
                owners: MAX_OWNERS_OF_NODE,
            },
            Frame::Welcome {
                owners: MAX_OWNERS_OF_NODE + 1,
            },
            "number of owners",
        ),
        (
            Frame::Welcome { owners: 1 },
            Frame::Welcome { owners: 0 },
            "number of owners",
        ),
        (inspected(Version::LIMIT - 1), inspected(Version::LIMIT), "version"),
        (
            ordered(MAX_NAME_BYTES, 1),
            ordered(MAX_NAME_BYTES + 1, 1),
            "name of a subject",
        ),
        (ordered(1, 1), ordered(0, 1), "name of a subject"),
        (
            ordered(1, MAX_ENTRIES),
            ordered(1, MAX_ENTRIES + 1),
            "number of entries",
        ),
        (ordered(1, 1), ordered(1, 0), "number of entries"),
        (
            asked(MAX_TARGET_BYTES),
            asked(MAX_TARGET_BYTES + 1),
            "length of a question",
        ),
        (
            told(599, MAX_TOLD_BYTES),
            told(599, MAX_TOLD_BYTES + 1),
            "length of an answer",
        ),
        (told(200, 0), told(199, 0), "status"),
        (told(599, 0), told(600, 0), "status"),
    ];
    for (at, past, what) in limits {
        assert!(through(&at).is_ok(), "{what}");
        assert_eq!(through(&past), Err(FrameError::Impossible(what)));
    }
}

#[test]
fn a_frame_longer_than_the_limit_is_neither_sent_nor_read() {
    let hint = Arc::new(Hint {
        kind: None,
        data: text(MAX_DATA_BYTES),
    });
    let change = ForwardedChange {
        object: ObjectHash(1),
        hint: Some(hint),
        revision: None,
        idempotency: None,
    };
    let frame = |changes| Frame::Publish {
        request: 1,
        ack: AckLevel::Accepted,
        within_ms: 1,
        changes: vec![change.clone(); changes],
    };
    let mut out = Vec::new();
    encode(&frame(63), &mut out).unwrap();
    out.clear();
    assert!(matches!(encode(&frame(65), &mut out), Err(FrameError::TooLong { .. })));
    assert!(out.is_empty());
    assert!(matches!(
        decode(&vec![0; MAX_FRAME_BYTES + 1]),
        Err(FrameError::TooLong { .. })
    ));
}

#[test]
fn a_change_of_many_costs_about_twenty_bytes() {
    let changes = (0..1_000)
        .map(|n| Changed {
            object: ObjectHash(u64::MAX - n),
            version: Version(1_795_170_000_000_000 + n),
            hint: None,
        })
        .collect();
    let frame = Frame::FromOwner {
        link: LinkName { lane: 1, owner: 1 },
        generation: 3,
        frame: OwnerToEdge::Changed { changes },
    };
    let mut bytes = Vec::new();
    encode(&frame, &mut bytes).unwrap();
    assert!(bytes.len() < 20_100, "{} bytes", bytes.len());
}

#[test]
fn versions_are_agreed_on_the_newest_that_both_speak() {
    let hello = |oldest, newest| Hello {
        cluster: ClusterId(1),
        node: NodeId(1),
        incarnation: 1,
        oldest,
        newest,
        class: Class::Links,
    };
    assert_eq!(hello(1, 3).common(&hello(2, 5)), Some(3));
    assert_eq!(hello(2, 5).common(&hello(1, 3)), Some(3));
    assert_eq!(hello(1, 1).common(&hello(1, 1)), Some(1));
    assert_eq!(hello(1, 1).common(&hello(2, 3)), None);
    assert_eq!(hello(2, 3).common(&hello(1, 1)), None);
}

#[test]
fn a_hello_of_something_else_is_refused() {
    let hello = Hello {
        cluster: ClusterId(1),
        node: NodeId(2),
        incarnation: 3,
        oldest: 1,
        newest: 1,
        class: Class::Control,
    };
    for (at, to) in [(0, b'G'), (7, 2), (36, 0), (36, 5)] {
        let mut bytes = hello.encode();
        bytes[at] = to;
        assert_eq!(Hello::decode(&bytes), Err(FrameError::NotTidings));
    }
}

/// The corpus of the fuzzer is worth something only while it is read.
#[test]
fn every_frame_of_the_fuzzers_corpus_is_a_frame() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/mesh_frames");
    let mut frames = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        if path.file_name().is_some_and(|name| name != "hello") {
            assert!(decode(&bytes).is_ok(), "{}: {:?}", path.display(), decode(&bytes));
            frames += 1;
        }
    }
    assert!(frames >= 8, "{frames}");
}

/// The same for what holders of copies are sent: each file is frames behind their length in one byte.
#[test]
fn every_frame_of_the_corpus_of_copies_is_a_frame() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/copy_frames");
    let mut frames = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let mut rest = &bytes[..];
        while let Some((length, behind)) = rest.split_first() {
            let (frame, behind) = behind.split_at(usize::from(*length));
            let read = tidings_protocol::copy::decode(frame);
            let read = read.unwrap_or_else(|error| panic!("{frame:x?}: {error}"));
            let mut again = Vec::new();
            tidings_protocol::copy::encode(&read, &mut again).unwrap();
            assert_eq!(again, frame);
            rest = behind;
            frames += 1;
        }
    }
    assert!(frames > 10, "{frames}");
}
