//! The fast reader against the full one: where the fast one answers at all, both say the same.

use super::super::message::{self, Messages};
use super::*;
use proptest::prelude::*;

/// What both readers make of a line. The fast one may leave it to the full one, but must never differ.
fn agree(line: &str) -> bool {
    let Some((fast, length)) = message(line) else {
        return false;
    };
    let line = &line[..length];
    assert_eq!(message::read(line), Ok(fast), "{line}");
    true
}

#[test]
fn the_common_messages_are_read_fast() {
    for line in [
        r#"{"changes":[{"object":"order:42","version":1795170000000000}]}"#,
        r#"{"changes":[{"object":"a","version":0,"kind":"paid"},{"object":"ü 1","version":9007199254740991}]}"#,
        r#"{"changes":[{"object":"a","version":17,"shard":255,"epoch":3}]}"#,
        r#"{"cursor":"AQEjRWeJq83v-_"}"#,
    ] {
        assert!(agree(line), "{line} was left to the full reader");
        assert!(
            agree(&format!("{line}\n{{\"pong\":{{}}}}")),
            "{line} with another behind it"
        );
    }
}

#[test]
fn what_looks_different_is_left_to_the_full_reader() {
    for line in [
        r#"{"changes":[]}"#,
        r#"{"changes":[{"object":"a\n","version":1}]}"#,
        "{\"changes\":[{\"object\":\"a\u{1}\",\"version\":1}]}",
        r#"{"changes":[{"object":"a","version":01}]}"#,
        r#"{"changes":[{"object":"a","version":1.0}]}"#,
        r#"{"changes":[{"object":"a","version":9007199254740992}]}"#,
        r#"{"changes":[{"object":"a","version":1,"shard":65536,"epoch":1}]}"#,
        r#"{"changes":[{"object":"a","version":1}]}x"#,
        r#"{"changes":[{"object":"a","version":1}],"id":1}"#,
        r#"{"changes":[{"object":"a","version":1},]}"#,
        r#"{"cursor":"a"#,
        r#"{"cursor":"a"}}"#,
    ] {
        assert!(message(line).is_none(), "{line}");
    }
}

/// Messages of many shapes, most of them common ones.
fn line() -> impl Strategy<Value = String> {
    let id = prop_oneof![4 => "[a-z:0-9 ü]{0,12}", 1 => ".{0,8}"];
    let change = (
        id,
        any::<u64>(),
        0..64_u32,
        any::<Option<u16>>(),
        any::<Option<u8>>(),
        0..10_u8,
    )
        .prop_map(|(object, version, shift, shard, kind, data)| {
            let object = serde_json::to_string(&object).expect("text");
            let mut text = format!("{{\"object\":{object},\"version\":{}", version >> shift);
            if let Some(kind) = kind {
                text += &format!(",\"kind\":\"k{kind}\"");
            }
            if data == 0 {
                text += ",\"data\":{\"x\":[1,2]}";
            }
            if let Some(shard) = shard {
                text += &format!(",\"shard\":{shard},\"epoch\":{}", version >> 40);
            }
            text + "}"
        });
    let changes =
        proptest::collection::vec(change, 0..4).prop_map(|changes| format!("{{\"changes\":[{}]}}", changes.join(",")));
    prop_oneof![6 => changes, 1 => "\\{\"cursor\":\"[a-zA-Z0-9_-]{0,20}\"\\}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn both_readers_say_the_same(line in line()) {
        agree(&line);
    }

    #[test]
    fn both_readers_say_the_same_of_damaged_lines(
        line in line(), place in any::<prop::sample::Index>(), byte in any::<u8>(), action in 0..3_u8,
    ) {
        let mut bytes = line.into_bytes();
        let at = place.index(bytes.len());
        match action {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => _ = bytes.remove(at),
        }
        if let Ok(text) = std::str::from_utf8(&bytes) {
            agree(text);
        }
    }

    #[test]
    fn lines_joined_say_what_they_say_alone(lines in proptest::collection::vec(line(), 0..5)) {
        let joined = lines.join("\n");
        let alone: Vec<_> = lines.iter().map(|line| message::read(line)).collect();
        prop_assert_eq!(Messages::of(&joined).collect::<Vec<_>>(), alone);
    }
}
