//! `data`: made compact without a change of meaning, and bounded.

use proptest::prelude::*;
use serde_json::Value;
use std::borrow::Cow;
use tidings_protocol::hint::{DataError, compact_json};
use tidings_protocol::limits::{MAX_DATA_BYTES, MAX_DATA_DEPTH};

/// Any JSON value, up to a few levels.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        prop::num::f64::NORMAL.prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 20, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..6).prop_map(Value::from_iter),
        ]
    })
}

proptest! {
    #[test]
    fn compact_is_what_serde_json_writes_itself(value in any_json()) {
        let compact = serde_json::to_string(&value).unwrap();
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(&*compact_json(&pretty).unwrap(), &compact);
        prop_assert!(matches!(compact_json(&compact), Ok(Cow::Borrowed(same)) if same == compact));
    }

    #[test]
    fn no_text_at_all_makes_it_panic(text in r#"[ \\"u{}\[\],:d8cDC0-9eE.+\n\PC-]{0,60}"#) {
        let _answer = compact_json(&text);
    }
}

#[test]
fn white_space_goes_outside_texts_and_stays_inside() {
    let raw = " \t{ \"a b\" :\r\n[ 1 , \"x \\\" y\\\\\" , true ] }\n";
    assert_eq!(compact_json(raw).unwrap(), r#"{"a b":[1,"x \" y\\",true]}"#);
}

#[test]
fn depth_and_size_have_exact_limits() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(compact_json(&nested(MAX_DATA_DEPTH)).is_ok());
    assert_eq!(compact_json(&nested(MAX_DATA_DEPTH + 1)), Err(DataError::TooDeep));
    assert_eq!(compact_json(&nested(100_000)), Err(DataError::TooDeep));
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    assert!(compact_json(&text(MAX_DATA_BYTES)).is_ok());
    assert_eq!(
        compact_json(&text(MAX_DATA_BYTES + 1)),
        Err(DataError::TooLarge {
            bytes: MAX_DATA_BYTES + 1
        })
    );
    assert!(
        compact_json(&format!("   {}   ", text(MAX_DATA_BYTES))).is_ok(),
        "white space does not count"
    );
}

#[test]
fn what_readers_cannot_keep_is_refused() {
    for raw in [
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\ud800\ud800""#,
        r#""\ud800x""#,
        r#"["\uDBFF\n"]"#,
    ] {
        assert_eq!(compact_json(raw), Err(DataError::Surrogate), "{raw}");
    }
    for raw in [r#""\ud83d\ude00""#, r#""\\ud800""#, r#""\u0000\n\u00e4""#] {
        assert!(compact_json(raw).is_ok(), "{raw}");
        serde_json::from_str::<String>(raw).unwrap();
    }
    for raw in ["1e999", "[-1e400]", &"9".repeat(400)] {
        assert_eq!(compact_json(raw), Err(DataError::Number), "{raw}");
    }
    for raw in ["1e308", "1e-999", "-0.0", &"9".repeat(300)] {
        assert!(compact_json(raw).is_ok(), "{raw}");
    }
}
