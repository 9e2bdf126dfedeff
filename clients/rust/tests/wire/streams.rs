//! Event streams as other servers and proxies may write them, and answers that make no sense.

use tidings_client::wire::{
    EventMessage, EventParser, Outcome, PollAnswer, ProblemDocument, Results, ServerMessage, Sum, Told, WireError,
    messages, next_block,
};
use tidings_protocol::Version;
use tidings_protocol::error::Applied;

/// Event, data, id of every block, fed in pieces of this size.
fn blocks(stream: &str, size: usize) -> Vec<(Option<String>, Option<String>, Option<String>)> {
    let mut parser = EventParser::default();
    let mut read = Vec::new();
    for piece in stream.as_bytes().chunks(size) {
        parser.push(piece);
        while let Some(block) = parser.next_block().expect("sense") {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            read.push((owned(block.event), owned(block.data.as_deref()), owned(block.id)));
        }
    }
    read
}

#[test]
fn line_breaks_of_every_kind_and_fields_of_every_form_are_read() {
    let text = |text: &str| Some(text.to_owned());
    for (stream, meant) in [
        ("data: a\r\ndata:b\r\n\r\n", vec![(None, text("a\nb"), None)]),
        ("\u{feff}data:  a\n\n", vec![(None, text(" a"), None)]),
        (
            ": only a comment\nevent: x\nid\ndata\n\n",
            vec![(text("x"), text(""), text(""))],
        ),
        (
            "id: 1\n\nid: 2\ndata: x\n\n",
            vec![(None, None, text("1")), (None, text("x"), text("2"))],
        ),
        ("data: a\n\ndata: cut", vec![(None, text("a"), None)]),
    ] {
        for size in 1..20 {
            let read: Vec<_> = blocks(stream, size)
                .into_iter()
                .filter(|block| *block != (None, None, None))
                .collect();
            assert_eq!(read, meant, "{stream:?} in pieces of {size}");
        }
    }
    // A lone carriage return ends a line too; the last one may be half of a pair, so another byte is waited for.
    assert_eq!(blocks("data: a\r\r:", 1), [(None, text("a"), None)]);
}

#[test]
fn the_reader_without_memory_reads_the_same() {
    let stream = b"id: C\n\ndata: {\"object\":\"a\",\"version\":7}\n\nid: D";
    let (block, taken) = next_block(stream).expect("sense").expect("a block");
    assert_eq!((block.id, taken), (Some("C"), 7));
    let (block, more) = next_block(&stream[taken..]).expect("sense").expect("a block");
    let Ok(EventMessage::Message(ServerMessage::Changes(mut changes))) = block.message() else {
        panic!("{block:?}")
    };
    assert_eq!(changes.next().expect("one").version, Some(Version(7)));
    assert_eq!(next_block(&stream[taken + more..]), Ok(None));
}

#[test]
fn a_block_without_end_is_not_kept_for_ever() {
    let mut parser = EventParser::new(100);
    parser.push(&[b'a'; 101]);
    assert_eq!(parser.next_block(), Err(WireError::TooLong { limit: 100 }));
    parser = EventParser::new(100);
    for _ in 0..1000 {
        parser.push(b"data: short\n\n");
        assert!(parser.next_block().expect("sense").is_some());
        assert_eq!(parser.next_block(), Ok(None));
    }
}

#[test]
fn what_is_not_known_is_passed_over() {
    for text in ["{\"later\":{}}", "{}", "{\"id\":1}", "{\"changes\":null}"] {
        let read: Vec<_> = messages(text.as_bytes()).collect();
        assert_eq!(read, [Ok(ServerMessage::Unknown)], "{text}");
    }
    let mut more = messages(br#"{"changes":[{"object":"a","version":1,"later":[]}],"later":2}"#);
    assert!(matches!(more.next(), Some(Ok(ServerMessage::Changes(changes))) if changes.len() == 1));
}

#[test]
fn what_makes_no_sense_is_an_error_and_what_follows_is_read() {
    for text in [
        "{\"changes\":[{\"object\":1}]}",
        "{\"changes\":[{\"version\":1}]}",
        "{\"changes\":[{\"object\":\"a\",\"version\":9007199254740992}]}",
        "{\"changes\":[{\"object\":\"a\",\"version\":1}],\"cursor\":\"C\"}",
        "{\"cursor\":\"C\",\"cursor\":\"D\"}",
        "{\"cursor\":\"C\"} x",
        "nonsense",
        "[]",
    ] {
        let joined = format!("{text}\n{{\"stale\":true}}");
        let read: Vec<_> = messages(joined.as_bytes()).collect();
        assert!(read[0].is_err(), "{text}: {read:?}");
        assert_eq!(read[1..], [Ok(ServerMessage::Stale(true))], "{text}");
    }
    let read: Vec<_> = messages(b"{\"cursor\":\"\xff\"}").collect();
    assert_eq!(read, [Err(WireError::Utf8)]);
    assert!(PollAnswer::read(b"{\"changes\":[{\"object\":\"a\",\"version\":9007199254740992}]}").is_err());
}

#[test]
fn answers_to_publishers_are_read() {
    let told = Told::read(br#"{"version":7,"duplicate":true,"shard":3,"epoch":1}"#).expect("sense");
    assert_eq!((told.version, told.duplicate), (Some(Version(7)), true));
    let body =
        br#"{"results":[{"version":7},{"error":{"code":"overloaded","message":"m","retryable":true,"applied":"no"}}]}"#;
    let Results { results } = Results::read(body).expect("sense");
    assert!(matches!(&results[0], Outcome::Told(told) if told.version == Some(Version(7))));
    let Outcome::Refused { error, applied } = &results[1] else {
        panic!("{results:?}")
    };
    assert_eq!(
        (&*error.code, error.retryable, *applied),
        ("overloaded", true, Some(Applied::No))
    );
    let body = br#"{"accepted":2,"rejected":1,"errors":[{"line":3,"code":"no_objects","message":"m","retryable":false,"applied":"no"}],"version":9}"#;
    let sum = Sum::read(body).expect("sense");
    assert_eq!(
        (sum.accepted, sum.rejected, sum.errors[0].line, sum.version),
        (2, 1, 3, Some(Version(9)))
    );
}

#[test]
fn a_page_of_a_proxy_is_an_empty_problem() {
    assert_eq!(ProblemDocument::read(b"<html>").code, "");
    let body = br#"{"type":"x","title":"t","status":504,"detail":"d","code":"outcome_unknown","retryable":true,"applied":"unknown"}"#;
    let problem = ProblemDocument::read(body);
    assert_eq!(
        (&*problem.code, problem.applied),
        ("outcome_unknown", Some(Applied::Unknown))
    );
}
