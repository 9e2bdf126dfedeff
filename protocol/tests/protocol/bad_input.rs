//! Every kind of bad input, per field: the code, and that the explanation names the field and the limit.

use crate::wire::pack;
use serde_json::Value;
use tidings_protocol::client::{
    EventsRequest, PollRequest, PublishOptions, SessionRequest, parse_publish_json, parse_publish_line,
    parse_publish_msgpack, parse_publish_query, parse_requests,
};
use tidings_protocol::codec::Encoding;
use tidings_protocol::{Code, Problem};

const LIMIT: usize = 3;

/// What is wrong with a text in one place, if anything.
type Read = fn(&str) -> Option<Problem>;

fn request(text: &str) -> Option<Problem> {
    parse_requests(Encoding::WebSocketJson, text.as_bytes(), LIMIT)
        .remove(0)
        .1
        .err()
}

fn poll(text: &str) -> Option<Problem> {
    PollRequest::from_json(text.as_bytes(), LIMIT).err()
}

fn poll_query(text: &str) -> Option<Problem> {
    PollRequest::from_query(text, LIMIT).err()
}

fn events_query(text: &str) -> Option<Problem> {
    EventsRequest::from_query(text, LIMIT).err()
}

fn session(text: &str) -> Option<Problem> {
    SessionRequest::from_json(text.as_bytes(), LIMIT).err()
}

fn line(text: &str) -> Option<Problem> {
    parse_publish_line(text.as_bytes()).err()
}

fn body(text: &str) -> Option<Problem> {
    parse_publish_json(text.as_bytes(), LIMIT).err()
}

fn publish_query(text: &str) -> Option<Problem> {
    parse_publish_query(text, LIMIT).err()
}

fn options(text: &str) -> Option<Problem> {
    PublishOptions::from_query(text).err()
}

/// The same through MessagePack, where the text is JSON that both can say.
fn packed(read: Read, text: &str) -> Option<Option<Problem>> {
    let bytes = pack(&serde_json::from_str::<Value>(text).ok()?);
    if read as usize == request as Read as usize {
        Some(
            parse_requests(Encoding::WebSocketMessagePack, &bytes, LIMIT)
                .remove(0)
                .1
                .err(),
        )
    } else if read as usize == poll as Read as usize {
        Some(PollRequest::from_msgpack(&bytes, LIMIT).err())
    } else if read as usize == session as Read as usize {
        Some(SessionRequest::from_msgpack(&bytes, LIMIT).err())
    } else if read as usize == body as Read as usize {
        Some(parse_publish_msgpack(&bytes, LIMIT).err())
    } else {
        None
    }
}

fn assert_refused(table: &[(Read, &str, Code, &[&str])]) {
    for (read, text, code, words) in table {
        let check = |problem: Option<Problem>, form: &str| {
            let problem = problem.unwrap_or_else(|| panic!("{form} takes {text}"));
            assert_eq!(problem.code, *code, "{form} of {text}: {problem}");
            for word in *words {
                assert!(
                    problem.detail.contains(word),
                    "{form} of {text} does not say {word:?}: {problem}"
                );
            }
            assert!(
                problem.detail.len() <= 400,
                "{form} of {text}: {} bytes",
                problem.detail.len()
            );
        };
        check(read(text), "text");
        let twice = words.contains(&"twice");
        if let Some(problem) = packed(*read, text).filter(|_| !twice) {
            check(problem, "MessagePack");
        }
    }
}

#[test]
fn a_websocket_request_that_makes_no_sense_is_refused_in_words() {
    use Code::{BadRequest, InvalidField, NoObjects, TooManyObjects};
    assert_refused(&[
        (request, "", BadRequest, &["empty"]),
        (request, "  \n ", BadRequest, &["empty"]),
        (request, "nonsense", BadRequest, &["not JSON"]),
        (request, "7", BadRequest, &["map"]),
        (request, "[]", BadRequest, &["map"]),
        (request, "{}", BadRequest, &["no request", "subscribe"]),
        (request, r#"{"shout":{}}"#, BadRequest, &["no request", "unsubscribe"]),
        (
            request,
            r#"{"ping":{},"auth":{"token":"t"}}"#,
            BadRequest,
            &["two requests"],
        ),
        (request, r#"{"ping":{},"ping":{}}"#, BadRequest, &["`ping`", "twice"]),
        (request, r#"{"subscribe":7}"#, InvalidField, &["`subscribe`", "objects"]),
        (
            request,
            r#"{"subscribe":null}"#,
            InvalidField,
            &["`subscribe`", "objects"],
        ),
        (request, r#"{"subscribe":{}}"#, NoObjects, &["`objects`"]),
        (request, r#"{"subscribe":{"objects":null}}"#, NoObjects, &["`objects`"]),
        (
            request,
            r#"{"subscribe":{"objects":"a"}}"#,
            InvalidField,
            &["`objects`", "list"],
        ),
        (
            request,
            r#"{"subscribe":{"objects":["a",7]}}"#,
            InvalidField,
            &["`objects`", "text"],
        ),
        (
            request,
            r#"{"subscribe":{"objects":[null]}}"#,
            InvalidField,
            &["`objects`", "text"],
        ),
        (
            request,
            r#"{"subscribe":{"objects":[["a"]]}}"#,
            InvalidField,
            &["`objects`", "text"],
        ),
        (
            request,
            r#"{"subscribe":{"objects":[{}]}}"#,
            InvalidField,
            &["`objects`", "`object`"],
        ),
        (
            request,
            r#"{"subscribe":{"objects":[{"object":7}]}}"#,
            InvalidField,
            &["`object`", "text"],
        ),
        (
            request,
            r#"{"subscribe":{"objects":[{"object":"a","object":"b"}]}}"#,
            BadRequest,
            &["`object`", "twice"],
        ),
        (
            request,
            r#"{"subscribe":{"objects":[{"object":"a","version":"7"}]}}"#,
            InvalidField,
            &["`version`", "integer"],
        ),
        (
            request,
            r#"{"subscribe":{"objects":[{"object":"a","version":1.5}]}}"#,
            InvalidField,
            &["`version`", "integer"],
        ),
        (
            request,
            r#"{"subscribe":{"objects":[{"object":"a","version":-1}]}}"#,
            InvalidField,
            &["`version`", "from 0"],
        ),
        (
            request,
            r#"{"subscribe":{"objects":[{"object":"a","at_least":9007199254740992}]}}"#,
            InvalidField,
            &["`at_least`", "9007199254740991"],
        ),
        (
            request,
            r#"{"subscribe":{"objects":["a","b","c","d"]}}"#,
            TooManyObjects,
            &["`objects`", "3"],
        ),
        (
            request,
            r#"{"subscribe":{"objects":["a"],"cursor":7}}"#,
            InvalidField,
            &["`cursor`", "text"],
        ),
        (
            request,
            r#"{"subscribe":{"objects":["a"],"more":"yes"}}"#,
            InvalidField,
            &["`more`", "bool"],
        ),
        (request, r#"{"unsubscribe":{}}"#, NoObjects, &["`objects`"]),
        (
            request,
            r#"{"unsubscribe":{"objects":["a","b","c","d"]}}"#,
            TooManyObjects,
            &["`objects`", "3"],
        ),
        (request, r#"{"auth":{}}"#, InvalidField, &["`token`"]),
        (request, r#"{"auth":{"token":""}}"#, InvalidField, &["`token`", "empty"]),
        (request, r#"{"auth":{"token":7}}"#, InvalidField, &["`token`", "text"]),
        (request, r#"{"auth":"t"}"#, InvalidField, &["`auth`", "token"]),
        (
            request,
            r#"{"ping":{},"id":-1}"#,
            InvalidField,
            &["`id`", "9007199254740991", "64"],
        ),
        (request, r#"{"ping":{},"id":1.5}"#, InvalidField, &["`id`", "integer"]),
        (
            request,
            r#"{"ping":{},"id":9007199254740992}"#,
            InvalidField,
            &["`id`", "9007199254740991"],
        ),
        (request, r#"{"ping":{},"id":[1]}"#, InvalidField, &["`id`", "text"]),
        (
            request,
            r#"{"ping":{},"id":"01234567890123456789012345678901234567890123456789012345678901234"}"#,
            InvalidField,
            &["`id`", "64 bytes"],
        ),
    ]);
}

#[test]
fn a_poll_that_makes_no_sense_is_refused_in_words() {
    use Code::{BadRequest, InvalidField, NoObjects, TooManyObjects};
    assert_refused(&[
        (poll, "", BadRequest, &["EOF"]),
        (poll, "{", BadRequest, &["EOF"]),
        (poll, "{} {}", BadRequest, &["trailing"]),
        (poll, "{}", NoObjects, &["`objects`", "`session`"]),
        (poll, r#"{"objects":[]}"#, NoObjects, &["`objects`", "`session`"]),
        (
            poll,
            r#"{"objects":["a","b","c","d"]}"#,
            TooManyObjects,
            &["`objects`", "3"],
        ),
        (poll, r#"{"objects":{"a":1}}"#, InvalidField, &["`objects`", "list"]),
        (
            poll,
            r#"{"objects":["a"],"objects":["b"]}"#,
            BadRequest,
            &["`objects`", "twice"],
        ),
        (
            poll,
            r#"{"objects":["a"],"wait_ms":60001}"#,
            InvalidField,
            &["`wait_ms`", "60000"],
        ),
        (
            poll,
            r#"{"objects":["a"],"wait_ms":-1}"#,
            InvalidField,
            &["`wait_ms`", "60000"],
        ),
        (
            poll,
            r#"{"objects":["a"],"wait_ms":1e3}"#,
            InvalidField,
            &["`wait_ms`", "integer"],
        ),
        (
            poll,
            r#"{"objects":["a"],"wait_ms":"9"}"#,
            InvalidField,
            &["`wait_ms`", "integer"],
        ),
        (
            poll,
            r#"{"objects":["a"],"cursor":[]}"#,
            InvalidField,
            &["`cursor`", "text"],
        ),
        (poll, r#"{"session":7}"#, InvalidField, &["`session`", "text"]),
        (
            poll,
            r#"{"session":"s","add":["a","b","c","d"]}"#,
            TooManyObjects,
            &["`add`", "3"],
        ),
        (
            poll,
            r#"{"session":"s","remove":7}"#,
            InvalidField,
            &["`remove`", "list"],
        ),
        (
            poll,
            r#"{"objects":["a"],"add":["b"]}"#,
            BadRequest,
            &["`add`", "`session`"],
        ),
        (session, "{}", NoObjects, &["`objects`"]),
        (session, r#"{"objects":[]}"#, NoObjects, &["`objects`"]),
        (
            session,
            r#"{"objects":["a","b","c","d"]}"#,
            TooManyObjects,
            &["`objects`", "3"],
        ),
        (poll_query, "", NoObjects, &["`object`", "`session`"]),
        (
            poll_query,
            "object=a&object=b&object=c&object=d",
            TooManyObjects,
            &["`object`", "3"],
        ),
        (poll_query, "object=%ff", BadRequest, &["UTF-8"]),
        (poll_query, "object=%", BadRequest, &["`%`"]),
        (poll_query, "object=%f", BadRequest, &["`%`"]),
        (poll_query, "object=%+1", BadRequest, &["`%`"]),
        (
            poll_query,
            "object=a&wait_ms=60001",
            InvalidField,
            &["`wait_ms`", "60000"],
        ),
        (poll_query, "object=a&wait_ms=+1", InvalidField, &["`wait_ms`", "60000"]),
        (poll_query, "object=a&wait_ms=", InvalidField, &["`wait_ms`", "60000"]),
        (
            poll_query,
            "object=a&cursor=x&cursor=y",
            BadRequest,
            &["`cursor`", "twice"],
        ),
        (events_query, "cursor=x", NoObjects, &["`object`", "`session`"]),
        (events_query, "session=a&session=b", BadRequest, &["`session`", "twice"]),
    ]);
}

#[test]
fn a_publish_that_makes_no_sense_is_refused_in_words() {
    use Code::{BadRequest, DataTooLarge, InvalidField, InvalidObject, NoObjects, TooManyChanges};
    let long_id = format!(r#"{{"object":"{}"}}"#, "a".repeat(256));
    let long_kind = format!(r#"{{"object":"a","kind":"{}"}}"#, "k".repeat(33));
    let large = format!(r#"{{"object":"a","data":"{}"}}"#, "d".repeat(64 * 1024 - 1));
    let deep = format!(r#"{{"object":"a","data":{}{}}}"#, "[".repeat(65), "]".repeat(65));
    let huge_text = format!(r#"{{"object":"a","revision":"{}"}}"#, "ä".repeat(10_000));
    for (read, both) in [(line as Read, false), (body as Read, true)] {
        assert_refused(&[
            (read, "", BadRequest, &["EOF"]),
            (read, "{\"object\":\"a\"", BadRequest, &["EOF"]),
            (read, "{\"object\":\"a\"}}", BadRequest, &["trailing"]),
            (read, "\"a\"", BadRequest, &["map"]),
            (read, "{}", NoObjects, &["`object`", "missing"]),
            (read, r#"{"object":null}"#, NoObjects, &["`object`", "missing"]),
            (read, r#"{"object":""}"#, InvalidObject, &["`object`", "empty"]),
            (read, &long_id, InvalidObject, &["`object`", "255", "256"]),
            (
                read,
                r#"{"object":"a\nb"}"#,
                InvalidObject,
                &["`object`", "control", "byte 1"],
            ),
            (
                read,
                "{\"object\":\"a\u{85}\"}",
                InvalidObject,
                &["`object`", "control"],
            ),
            (read, "{\"object\":\"a\nb\"}", BadRequest, &["control character"]),
            (read, r#"{"object":7}"#, InvalidField, &["`object`", "text"]),
            (
                read,
                r#"{"object":"a","object":"b"}"#,
                BadRequest,
                &["`object`", "twice"],
            ),
            (read, r#"{"object":"a","kind":7}"#, InvalidField, &["`kind`", "text"]),
            (read, r#"{"object":"a","kind":""}"#, InvalidField, &["`kind`", "32"]),
            (read, &long_kind, InvalidField, &["`kind`", "32"]),
            (
                read,
                r#"{"object":"a","kind":"\u0007"}"#,
                InvalidField,
                &["`kind`", "control"],
            ),
            (read, &large, DataTooLarge, &["`data`", "65536"]),
            (read, &deep, InvalidField, &["`data`", "64"]),
            (
                read,
                r#"{"object":"a","data":"\ud800"}"#,
                InvalidField,
                &["`data`", "surrogate"],
            ),
            (
                read,
                r#"{"object":"a","data":1e999}"#,
                InvalidField,
                &["`data`", "1.8e308"],
            ),
            (read, r#"{"object":"a","data":[}"#, BadRequest, &["line 1"]),
            (
                read,
                r#"{"object":"a","revision":-1}"#,
                InvalidField,
                &["`revision`", "9007199254740991"],
            ),
            (
                read,
                r#"{"object":"a","revision":9007199254740992}"#,
                InvalidField,
                &["`revision`", "9007199254740991"],
            ),
            (
                read,
                r#"{"object":"a","revision":1.0}"#,
                InvalidField,
                &["`revision`", "integer"],
            ),
            (
                read,
                r#"{"object":"a","revision":99999999999999999999}"#,
                InvalidField,
                &["`revision`", "integer"],
            ),
            (read, &huge_text, InvalidField, &["`revision`"]),
        ]);
        assert!(!both || read(r#"{"object":"a","data":null,"kind":null,"revision":null,"later":1}"#).is_none());
    }
    assert_refused(&[
        (body, r#"{"changes":[]}"#, NoObjects, &["no change"]),
        (body, r#"{"changes":7}"#, InvalidField, &["`changes`", "list"]),
        (
            body,
            r#"{"changes":[{},{},{},{}]}"#,
            TooManyChanges,
            &["`changes`", "3"],
        ),
        (
            body,
            r#"{"changes":[{"object":"a"}],"object":"b"}"#,
            BadRequest,
            &["`object`", "`changes`"],
        ),
        (
            body,
            r#"{"changes":[{}],"changes":[{}]}"#,
            BadRequest,
            &["`changes`", "twice"],
        ),
        (publish_query, "", NoObjects, &["`object`"]),
        (publish_query, "object=", InvalidObject, &["`object`", "empty"]),
        (publish_query, "object=a%00", InvalidObject, &["`object`", "control"]),
        (
            publish_query,
            "object=a&object=b&object=c&object=d",
            TooManyChanges,
            &["`object`", "3"],
        ),
        (publish_query, "object=a&kind=", InvalidField, &["`kind`", "32"]),
        (
            publish_query,
            "object=a&revision=9007199254740992",
            InvalidField,
            &["`revision`", "9007199254740991"],
        ),
        (
            publish_query,
            "object=a&revision=1&revision=2",
            BadRequest,
            &["`revision`", "twice"],
        ),
        (options, "ack=all", InvalidField, &["`ack`", "`accepted`", "`durable`"]),
        (options, "ack=durable&ack=durable", BadRequest, &["`ack`", "twice"]),
        (options, "timeout_ms=0", InvalidField, &["`timeout_ms`", "60000"]),
        (options, "timeout_ms=60001", InvalidField, &["`timeout_ms`", "60000"]),
        (options, "trace=maybe", InvalidField, &["`trace`"]),
    ]);
}
