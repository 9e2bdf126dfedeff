//! A cursor survives its text, and nothing else passes for one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use tidings_protocol::cursor::{Cursor, CursorError};
use tidings_protocol::limits::MAX_CURSOR_BYTES;
use tidings_protocol::{ClusterId, ObjectHash, ShardId, Version};

const NOW: u64 = 1_795_170_000_000_000;

fn versions() -> impl Strategy<Value = Version> {
    prop_oneof![
        Just(0),
        NOW - 10_000_000..NOW,
        0..Version::LIMIT,
        Just(Version::LIMIT - 1)
    ]
    .prop_map(Version)
}

fn any_cursor() -> impl Strategy<Value = Cursor> {
    let lagging = prop_oneof![
        prop::collection::vec((0..4096_u16, versions()), 0..40),
        prop::collection::vec((0..256_u16, (NOW - 9..NOW).prop_map(Version)), 0..400),
    ];
    let lagging = lagging.prop_map(|all| all.into_iter().map(|(s, v)| (ShardId(s), v)).collect::<Vec<_>>());
    let told = prop::collection::vec((any::<u64>().prop_map(ObjectHash), versions()), 0..30);
    (any::<u64>(), versions(), lagging, told)
        .prop_map(|(id, base, lagging, told)| Cursor::new(ClusterId(id), base, lagging, told))
}

proptest! {
    #[test]
    fn a_cursor_reads_back_as_itself_and_its_text_as_its_text(cursor in any_cursor()) {
        let text = cursor.encode().unwrap();
        prop_assert!(text.len() <= MAX_CURSOR_BYTES);
        prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        let again = Cursor::decode(&text).unwrap();
        prop_assert_eq!(&again, &cursor);
        prop_assert_eq!(again.encode().unwrap(), text);
    }

    #[test]
    fn one_flipped_bit_makes_a_cursor_unreadable(cursor in any_cursor(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = URL_SAFE_NO_PAD.decode(cursor.encode().unwrap()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        prop_assert_eq!(Cursor::decode(&URL_SAFE_NO_PAD.encode(bytes)), Err(CursorError::Unreadable));
    }

    #[test]
    fn a_cut_or_lengthened_cursor_is_unreadable(cursor in any_cursor(), at in any::<prop::sample::Index>()) {
        let text = cursor.encode().unwrap();
        prop_assert!(Cursor::decode(&text[..at.index(text.len())]).is_err());
        for more in ["A", "AA", "AAAA", "=", "\n"] {
            let longer = text.clone() + more;
            prop_assert!(Cursor::decode(&longer).is_err());
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _read = Cursor::decode(&text);
        let _read = Cursor::decode(&URL_SAFE_NO_PAD.encode(&bytes));
        // Past the checksum, so that the reader proper sees them.
        if let Ok(cursor) = Cursor::decode(&sealed(&bytes)) {
            prop_assert_eq!(cursor.encode().unwrap(), sealed(&bytes), "accepted, so the only text of this cursor");
        }
    }

    #[test]
    fn damage_behind_a_valid_checksum_never_passes_for_another_text(cursor in any_cursor(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = URL_SAFE_NO_PAD.decode(cursor.encode().unwrap()).unwrap();
        bytes.truncate(bytes.len() - 4);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let text = sealed(&bytes);
        if let Ok(cursor) = Cursor::decode(&text) {
            prop_assert_eq!(cursor.encode().unwrap(), text);
        }
    }

    #[test]
    fn a_coarser_cursor_claims_nothing_more(cursor in any_cursor()) {
        let coarser = cursor.clone().coarser();
        for shard in (0..4096).map(ShardId) {
            prop_assert!(coarser.at(shard) <= cursor.at(shard));
        }
    }
}

/// The text of a body under a true checksum.
fn sealed(body: &[u8]) -> String {
    use std::hash::Hasher as _;
    let mut hasher = siphasher::sip::SipHasher13::new_with_key(b"tidings cursor 1");
    hasher.write(body);
    let sum = (hasher.finish() as u32).to_be_bytes();
    URL_SAFE_NO_PAD.encode([body, &sum].concat())
}

/// Format, cluster, base and what follows.
fn sealed_with(format: u8, rest: &[u8]) -> String {
    sealed(&[&[format], &[0; 8][..], rest].concat())
}

#[test]
fn a_cursor_says_where_each_shard_and_object_stands() {
    let cursor = Cursor::new(
        ClusterId(7),
        Version(100),
        vec![
            (ShardId(9), Version(40)),
            (ShardId(3), Version(0)),
            (ShardId(9), Version(50)),
            (ShardId(4), Version(100)),
        ],
        vec![
            (ObjectHash(5), Version(101)),
            (ObjectHash(5), Version(105)),
            (ObjectHash(1), Version(60)),
        ],
    );
    assert_eq!(cursor.at(ShardId(3)), Version::ZERO);
    assert_eq!(cursor.at(ShardId(9)), Version(40), "named twice: the lower counts");
    assert_eq!(cursor.at(ShardId(4)), Version(100), "at the base: does not lag");
    assert_eq!(
        cursor.told(ObjectHash(5)),
        Some(Version(105)),
        "told twice: the higher counts"
    );
    assert_eq!(
        cursor.told(ObjectHash(1)),
        Some(Version(60)),
        "below the base, but perhaps of a shard that lags"
    );
    assert_eq!(cursor.told(ObjectHash(2)), None);
    let whole = Cursor::new(ClusterId(7), Version(100), vec![], vec![(ObjectHash(1), Version(60))]);
    assert_eq!(whole.told, vec![], "no shard lags, so the base covers it");
}

#[test]
fn fields_out_of_order_are_put_in_order_by_the_writer() {
    let told = vec![(ObjectHash(9), Version(7)), (ObjectHash(2), Version(8))];
    let messy = Cursor {
        cluster: ClusterId(1),
        base: Version(5),
        lagging: vec![],
        told: told.clone(),
    };
    let tidy = Cursor::new(ClusterId(1), Version(5), vec![], told);
    assert_eq!(Cursor::decode(&messy.encode().unwrap()), Ok(tidy));
}

#[test]
fn all_of_256_shards_may_lag_each_at_its_own_version_by_hours() {
    let lagging = (0..256_u64)
        .map(|s| (ShardId(s as u16), Version(NOW - 1 - (255 - s) * 40_000_000)))
        .collect();
    let cursor = Cursor::new(ClusterId(u64::MAX), Version(NOW), lagging, vec![]);
    assert_eq!(Cursor::decode(&cursor.encode().unwrap()), Ok(cursor));
}

#[test]
fn max_told_changes_fit_beside_the_worst_set_of_4096_shards() {
    let lagging: Vec<_> = (0..2048).map(|s| (ShardId(2 * s + 1), Version::ZERO)).collect();
    let told = |count: usize| {
        (0..count as u64)
            .map(|i| (ObjectHash(u64::MAX - i), Version(1)))
            .collect()
    };
    let worst = |count| {
        Cursor::new(
            ClusterId(u64::MAX),
            Version(Version::LIMIT - 1),
            lagging.clone(),
            told(count),
        )
    };
    let full = worst(Cursor::MAX_TOLD);
    assert_eq!(Cursor::decode(&full.encode().unwrap()), Ok(full));
    assert!(
        matches!(worst(Cursor::MAX_TOLD + 1).encode(), Err(CursorError::TooLong { .. })),
        "the bound is tight"
    );
}

#[test]
fn ten_versions_over_4096_shards_do_not_fit_until_made_coarser() {
    let lagging = (0..4096_u16)
        .map(|s| (ShardId(s), Version(NOW - 1 - u64::from(s % 10))))
        .collect();
    let cursor = Cursor::new(ClusterId(1), Version(NOW), lagging, vec![]);
    assert!(matches!(cursor.encode(), Err(CursorError::TooLong { .. })));
    assert!(
        cursor.coarser().encode().unwrap().len() < 60,
        "one run of shards, one version"
    );
}

#[test]
fn what_is_wrong_behind_a_valid_checksum_is_unreadable() {
    let base = &[100_u8][..];
    let entry = |hash: u8, folded: u8| [0, 0, 0, 0, 0, 0, 0, hash, folded];
    assert!(
        Cursor::decode(&sealed_with(1, &[base, &[0, 0]].concat())).is_ok(),
        "the smallest cursor"
    );
    assert!(
        Cursor::decode(&sealed_with(1, &[base, &[0, 1], &entry(1, 2)].concat())).is_ok(),
        "told of one object"
    );
    let limit = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    for (what, format, rest) in [
        ("an unknown format", 2, [base, &[0, 0]].concat()),
        ("format zero", 0, [base, &[0, 0]].concat()),
        ("a byte too many", 1, [base, &[0, 0, 0]].concat()),
        ("a byte too few", 1, [base, &[0]].concat()),
        ("a base of 2^53", 1, [&limit, &[0, 0][..]].concat()),
        ("an integer without end", 1, vec![0xff; 12]),
        ("an integer with idle zeros", 1, vec![0x80, 0, 0, 0]),
        (
            "objects out of order",
            1,
            [base, &[0, 2], &entry(2, 2), &entry(1, 2)].concat(),
        ),
        (
            "an object twice",
            1,
            [base, &[0, 2], &entry(1, 2), &entry(1, 4)].concat(),
        ),
        ("told what the base covers", 1, [base, &[0, 1], &entry(1, 0)].concat()),
        ("told from below zero", 1, [base, &[0, 1], &entry(1, 203)].concat()),
        (
            "more objects announced than come",
            1,
            [base, &[0, 0xff, 0xff, 0x7f]].concat(),
        ),
        ("an unknown form of shards", 1, [base, &[3, 1, 0, 1, 1, 5, 0]].concat()),
        ("no shards in a form for some", 1, [base, &[1, 0, 1, 5, 0]].concat()),
        ("a run of no shards", 1, [base, &[1, 1, 16, 0, 1, 5, 0]].concat()),
        (
            "shards beyond 4096",
            1,
            [base, &[1, 1, 0, 0x81, 0x20, 1, 5, 0]].concat(),
        ),
        ("two runs that touch", 1, [base, &[1, 2, 32, 1, 0, 1, 1, 5, 0]].concat()),
        ("a shard that does not lag", 1, [base, &[1, 1, 16, 1, 1, 0, 0]].concat()),
        ("a shard below zero", 1, [base, &[1, 1, 16, 1, 1, 101, 0]].concat()),
        (
            "idle bits behind the last index",
            1,
            [base, &[1, 1, 16, 2, 2, 5, 5, 0b101, 0]].concat(),
        ),
        (
            "a version that no shard has",
            1,
            [base, &[1, 1, 16, 2, 2, 5, 5, 0, 0]].concat(),
        ),
        (
            "an index that no version has",
            1,
            [base, &[1, 1, 16, 3, 3, 5, 5, 5, 0b11_10_01, 0]].concat(),
        ),
        (
            "a bitmap where runs are shorter",
            1,
            [base, &[2, 2, 0xff, 0xff, 1, 5, 0]].concat(),
        ),
        (
            "a bitmap with an idle end",
            1,
            [base, &[2, 3, 0x55, 0x55, 0, 1, 5, 0]].concat(),
        ),
    ] {
        assert_eq!(
            Cursor::decode(&sealed_with(format, &rest)),
            Err(CursorError::Unreadable),
            "{what}"
        );
    }
    assert!(
        Cursor::decode(&sealed_with(1, &[base, &[1, 1, 16, 1, 1, 5, 0]].concat())).is_ok(),
        "one shard by a run"
    );
    assert!(
        Cursor::decode(&sealed_with(1, &[base, &[1, 1, 16, 2, 2, 5, 5, 0b10, 0]].concat())).is_ok(),
        "two versions"
    );
    assert!(
        Cursor::decode(&sealed_with(1, &[base, &[2, 2, 0x55, 0x55, 1, 5, 0]].concat())).is_ok(),
        "eight by a bitmap"
    );
    assert!(matches!(
        Cursor::decode(&"A".repeat(2049)),
        Err(CursorError::TooLong { bytes: 2049 })
    ));
    assert_eq!(Cursor::decode(""), Err(CursorError::Unreadable));
}

#[test]
fn a_frozen_text_still_reads_as_it_was_written() {
    let cursor = Cursor::new(
        ClusterId(0x0123_4567_89ab_cdef),
        Version(NOW),
        vec![(ShardId(3), Version(NOW - 5_000_000)), (ShardId(4), Version::ZERO)],
        vec![(ObjectHash(0xc951_06ec_d921_2ace), Version(NOW + 12))],
    );
    assert_eq!(cursor.encode().unwrap(), FROZEN);
    assert_eq!(Cursor::decode(FROZEN), Ok(cursor));
}

const FROZEN: &str = "AQEjRWeJq83vgKilsamWmAMCARgCwJaxAsCR9K6plpgDAgHJUQbs2SEqzhjq-jeD";
