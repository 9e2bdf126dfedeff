//! What publishers send, read as they meant it.

use crate::documents::any_json;
use crate::wire::pack;
use proptest::prelude::*;
use serde_json::json;
use std::borrow::Cow;
use tidings_protocol::client::{
    Ack, Change, PublishBody, PublishOptions, parse_publish_json, parse_publish_line, parse_publish_msgpack,
    parse_publish_query,
};
use tidings_protocol::{Code, Hint};

fn plain(object: &str) -> Change<'_> {
    Change {
        object: object.into(),
        hint: None,
        revision: None,
    }
}

#[test]
fn a_line_borrows_its_object_unless_it_holds_escapes() {
    let read = parse_publish_line(br#"{"object":"order:42"}"#).unwrap();
    assert!(matches!(read.object, Cow::Borrowed("order:42")));
    let read = parse_publish_line(br#" { "object" : "\u00e4\ud83d\ude00" } "#).unwrap();
    assert_eq!(read.into_owned(), plain("ä\u{1f600}"));
}

#[test]
fn one_change_is_read_with_all_its_fields_from_both_forms() {
    let value = json!({"revision": 17, "data": {"total": [12, -1, 1.5, null, "ä"]}, "kind": "updated", "object": "o", "x": [{}]});
    let data = Some(r#"{"total":[12,-1,1.5,null,"ä"]}"#.into());
    let change = Change {
        object: "o".into(),
        hint: Some(Hint {
            kind: Some("updated".into()),
            data,
        }),
        revision: Some(17),
    };
    let expect = PublishBody {
        changes: vec![Ok(change)],
        single: true,
    };
    assert_eq!(
        parse_publish_json(serde_json::to_string_pretty(&value).unwrap().as_bytes(), 1),
        Ok(expect.clone())
    );
    assert_eq!(parse_publish_msgpack(&pack(&value), 1), Ok(expect));
}

#[test]
fn a_bad_change_spoils_only_itself() {
    let value = json!({"later": {"a": 1}, "changes": [
        {"object": "a"}, {"object": ""}, 7, {"kind": "k"}, {"object": "b", "revision": -1}, {"object": "c", "kind": null}, [],
    ]});
    for body in [
        parse_publish_json(value.to_string().as_bytes(), 7).unwrap().changes,
        parse_publish_msgpack(&pack(&value), 7).unwrap().changes,
    ] {
        assert_eq!(body[0], Ok(plain("a")));
        assert_eq!(body[5], Ok(plain("c")));
        let code = |at: usize| body[at].as_ref().unwrap_err().code;
        use Code::{BadRequest, InvalidField, InvalidObject, NoObjects};
        assert_eq!(
            [1, 2, 3, 4, 6].map(code),
            [InvalidObject, BadRequest, NoObjects, InvalidField, BadRequest]
        );
    }
    assert!(
        !parse_publish_json(br#"{"changes":[{"object":"a"}]}"#, 1)
            .unwrap()
            .single
    );
}

#[test]
fn a_query_names_changes_too() {
    let body = parse_publish_query("object=a%2Fb&ack=durable", 9).unwrap();
    assert_eq!(
        body,
        PublishBody {
            changes: vec![Ok(plain("a/b"))],
            single: true
        }
    );
    let body = parse_publish_query("object=a&kind=k&object=%0A&revision=3&object=b", 9).unwrap();
    let hint = Some(Hint {
        kind: Some("k".into()),
        data: None,
    });
    assert_eq!(
        body.changes[0],
        Ok(Change {
            object: "a".into(),
            hint: hint.clone(),
            revision: Some(3)
        })
    );
    assert_eq!(body.changes[1].as_ref().unwrap_err().code, Code::InvalidObject);
    assert_eq!(
        body.changes[2],
        Ok(Change {
            object: "b".into(),
            hint,
            revision: Some(3)
        })
    );
    assert!(!body.single);
}

#[test]
fn options_have_defaults_and_ignore_the_rest_of_the_query() {
    assert_eq!(
        PublishOptions::from_query("object=a&object=b"),
        Ok(PublishOptions::default())
    );
    assert_eq!(PublishOptions::default().ack, Ack::Replicated);
    let expect = PublishOptions {
        ack: Ack::Accepted,
        timeout_ms: Some(60_000),
        trace: true,
    };
    assert_eq!(
        PublishOptions::from_query("trace=1&timeout_ms=60000&ack=accepted"),
        Ok(expect)
    );
}

#[test]
fn message_pack_data_is_only_what_json_can_say() {
    let body = |data: &[u8]| [b"\x82\xa6object\xa1a\xa4data", data].concat();
    for (what, data, word) in [
        ("bytes", &b"\xc4\x01a"[..], "JSON"),
        ("an extension", b"\xd4\x01a", "JSON"),
        ("a timestamp", b"\xd6\xff\0\0\0\0", "JSON"),
        ("a map by numbers", b"\x81\x01\x02", "text"),
        ("a map by nil", b"\x81\xc0\x02", "text"),
        ("not a number", b"\xcb\x7f\xf8\0\0\0\0\0\0", "finite"),
        ("infinity", b"\xca\x7f\x80\0\0", "finite"),
        ("a text that is not UTF-8", b"\xa1\xff", "data"),
    ] {
        for data in [data.to_vec(), [b"\x91", data].concat()] {
            let problem = parse_publish_msgpack(&body(&data), 1).unwrap_err();
            assert_eq!(problem.code, Code::InvalidField, "{what}: {problem}");
            assert!(
                problem.detail.contains("`data`") && problem.detail.contains(word),
                "{what}: {problem}"
            );
        }
    }
    for (data, text) in [
        (&b"\xca\x3f\xc0\0\0"[..], "1.5"),
        (b"\xd3\0\0\0\0\0\0\0\x05", "5"),
        (b"\xd0\xff", "-1"),
    ] {
        let bytes = body(data);
        let read = parse_publish_msgpack(&bytes, 1).unwrap();
        let hint = read.changes[0].as_ref().unwrap().hint.as_ref().unwrap();
        assert_eq!(hint.data.as_deref(), Some(text));
    }
}

#[test]
fn message_pack_data_has_the_same_limits() {
    let body = |data: &[u8]| [b"\x82\xa6object\xa1a\xa4data", data].concat();
    let nested = |depth: usize| body(&[vec![0x91; depth - 1], vec![0x90]].concat());
    assert!(parse_publish_msgpack(&nested(64), 1).is_ok());
    for depth in [65, 100, 200, 5000, 100_000] {
        let problem = parse_publish_msgpack(&nested(depth), 1).unwrap_err();
        assert!(
            problem.code == Code::InvalidField && problem.detail.contains("64"),
            "{depth}: {problem}"
        );
    }
    let text = |bytes: usize| {
        let mut data = vec![0xdb];
        data.extend((bytes as u32 - 2).to_be_bytes());
        data.extend(vec![b'x'; bytes - 2]);
        body(&data)
    };
    assert!(parse_publish_msgpack(&text(65_536), 1).is_ok());
    for bytes in [65_537, 1 << 20] {
        assert_eq!(
            parse_publish_msgpack(&text(bytes), 1).unwrap_err().code,
            Code::DataTooLarge
        );
    }
}

#[test]
fn message_pack_that_lies_about_its_length_is_refused() {
    for bytes in [
        &b"\x81\xa7changes\xdd\xff\xff\xff\xff"[..],
        b"\x81\xa7changes\xdc\x00\x05\x80",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa6object\xdb\xff\xff\xff\xffa",
        b"\x81\xa6object\xa1aX",
        b"\xc1",
        b"",
    ] {
        let problem = parse_publish_msgpack(bytes, 9).unwrap_err();
        assert_eq!(problem.code, Code::BadRequest, "{bytes:?}: {problem}");
    }
}

#[test]
fn message_pack_fields_that_come_twice_are_refused() {
    let problem = parse_publish_msgpack(b"\x82\xa6object\xa1a\xa6object\xa1b", 9).unwrap_err();
    assert!(
        problem.code == Code::BadRequest && problem.detail.contains("twice"),
        "{problem}"
    );
    let problem = parse_publish_msgpack(b"\x82\xa7changes\x90\xa7changes\x90", 9).unwrap_err();
    assert!(
        problem.code == Code::BadRequest && problem.detail.contains("twice"),
        "{problem}"
    );
}

proptest! {
    #[test]
    fn data_means_the_same_from_both_forms(data in any_json()) {
        let value = json!({"object": "a", "data": data});
        let (text, packed) = (value.to_string(), pack(&value));
        let from_json = parse_publish_json(text.as_bytes(), 1).unwrap();
        let from_packed = parse_publish_msgpack(&packed, 1).unwrap();
        let told = |body: &PublishBody<'_>| body.changes[0].as_ref().unwrap().hint.as_ref().map(|hint| hint.data.clone().unwrap());
        prop_assert_eq!(told(&from_json), told(&from_packed));
        prop_assert_eq!(told(&from_json).is_none(), data.is_null());
        if let Some(read) = told(&from_json) {
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&read).unwrap(), data);
        }
    }

    #[test]
    fn no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _read = parse_publish_line(&bytes);
        let _read = parse_publish_json(&bytes, 5);
        let _read = parse_publish_msgpack(&bytes, 5);
        let _read = parse_publish_query(&String::from_utf8_lossy(&bytes), 5);
        let _read = PublishOptions::from_query(&String::from_utf8_lossy(&bytes));
        let _read = parse_publish_msgpack(&[b"\x82\xa6object\xa1a\xa4data", &bytes[..]].concat(), 5);
        let _read = parse_publish_msgpack(&[b"\x81\xa7changes", &bytes[..]].concat(), 5);
    }
}
