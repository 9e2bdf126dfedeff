//! Watching as a transcript.

use super::*;

struct Desk {
    progress: Progress,
}

impl Desk {
    fn new(objects: &[&str], cursor: Option<&str>) -> Self {
        let objects = objects.iter().map(|object| (*object).to_owned());
        Self {
            progress: Progress::new(objects, cursor.map(str::to_owned)),
        }
    }

    /// A frame comes in; what goes out, a line each.
    fn frame(&mut self, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        self.progress.frame(text, &mut out);
        show(out)
    }

    fn connect(&mut self) -> Vec<String> {
        self.progress.connected();
        self.frame(r#"{"hello":{"connection":"c","node":"n"}}"#)
    }
}

fn show(out: Vec<Output>) -> Vec<String> {
    let show = |output| match output {
        Output::Send(frame) => format!("send {frame}"),
        Output::Tell(line) => line.text("T"),
        Output::Note(text) => format!("note {text}"),
        Output::AskLater => "ask later".to_owned(),
        Output::PingEvery(ms) => format!("ping every {ms}"),
        Output::Ready => "ready".to_owned(),
        Output::Leave(ms, reason) => format!("leave for {ms}: {reason}"),
        Output::End(verdict) => format!("{verdict:?}"),
    };
    out.into_iter().map(show).collect()
}

#[test]
fn without_a_cursor_watching_starts_from_now() {
    let mut desk = Desk::new(&["a", "b"], None);
    assert_eq!(desk.connect(), [r#"send {"subscribe":{"objects":["a","b"]},"id":1}"#]);
    let answer = r#"{"subscribed":{"objects":[{"object":"a","version":5},{"object":"b","version":null}]},"id":1}"#;
    assert_eq!(desk.frame(answer), ["ready"]);
    assert_eq!(
        desk.frame(r#"{"changes":[{"object":"a","version":5},{"object":"a","version":6}]}"#),
        ["T  a  version 6"]
    );
}

#[test]
fn an_older_version_is_never_told_again_also_not_on_another_connection() {
    let mut desk = Desk::new(&["a"], Some("C0"));
    assert_eq!(
        desk.connect(),
        [r#"send {"subscribe":{"objects":["a"],"cursor":"C0"},"id":1}"#]
    );
    // The answer's version is of a change that is still to be told.
    desk.frame(r#"{"subscribed":{"objects":[{"object":"a","version":9}]},"id":1}"#);
    assert_eq!(
        desk.frame(r#"{"changes":[{"object":"a","version":9}]}"#),
        ["T  a  version 9"]
    );
    desk.connect();
    desk.frame(r#"{"subscribed":{"objects":[{"object":"a","version":9}]},"id":2}"#);
    assert_eq!(
        desk.frame(
            "{\"changes\":[{\"object\":\"a\",\"version\":8}]}\n{\"changes\":[{\"object\":\"a\",\"version\":9}]}"
        ),
        [""; 0]
    );
}

#[test]
fn a_cursor_counts_only_after_everything_is_answered_and_the_last_one_counts() {
    let mut desk = Desk::new(&["a"], Some("C0"));
    desk.connect();
    desk.frame(r#"{"cursor":"early"}"#);
    assert_eq!(desk.progress.cursor(), Some("C0"));
    desk.frame(r#"{"subscribed":{"objects":[{"object":"a","version":1}]},"id":1}"#);
    desk.frame("{\"cursor\":\"C9\"}\n{\"cursor\":\"C1\"}");
    assert_eq!(desk.progress.cursor(), Some("C1"));
}

#[test]
fn without_any_cursor_what_is_known_takes_its_place_on_coming_back() {
    let mut desk = Desk::new(&["a", "b"], None);
    desk.connect();
    desk.frame(r#"{"subscribed":{"objects":[{"object":"a","version":5},{"object":"b","version":null}]},"id":1}"#);
    desk.frame(r#"{"changes":[{"object":"a","version":6}]}"#);
    let again = r#"send {"subscribe":{"objects":[{"object":"a","version":6},{"object":"b","version":1}]},"id":2}"#;
    assert_eq!(desk.connect(), [again]);
}

#[test]
fn many_objects_are_asked_for_in_pages_within_the_announced_limit() {
    let names: Vec<_> = (0..2500).map(|number| format!("\"object\\{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut desk = Desk::new(&names, Some("C0"));
    desk.progress.connected();
    let mut sent = desk.frame(r#"{"hello":{"ping_ms":25000,"limits":{"objects":2500,"frame_bytes":4096}}}"#);
    assert_eq!(sent.remove(0), "ping every 25000");
    let (mut asked, mut pages) = (0, 0);
    while let Some(frame) = sent.pop().filter(|line| line != "ready") {
        let frame = frame.strip_prefix("send ").expect("a frame");
        assert!(frame.len() <= 4096, "{}", frame.len());
        let page: serde_json::Value = serde_json::from_str(frame).expect("JSON");
        let objects = page["subscribe"]["objects"].as_array().expect("objects");
        (asked, pages) = (asked + objects.len(), pages + 1);
        assert_eq!(page["subscribe"]["more"].as_bool().unwrap_or(false), asked < 2500);
        let answers: Vec<_> = objects
            .iter()
            .map(|object| serde_json::json!({"object": object, "version": 1}))
            .collect();
        let answer = serde_json::json!({"subscribed": {"objects": answers}, "id": page["id"]});
        sent = desk.frame(&answer.to_string());
    }
    assert!(asked == 2500 && pages > 10, "{asked} in {pages} pages");
}

#[test]
fn more_objects_than_a_connection_may_hold_stop_it_with_a_reason() {
    let mut desk = Desk::new(&["a", "b"], None);
    desk.progress.connected();
    let out = desk.frame(r#"{"hello":{"limits":{"objects":1}}}"#).join("");
    assert!(
        out.starts_with("Stop(\"this server allows 1 objects on one connection, not 2"),
        "{out}"
    );
}

#[test]
fn what_is_refused_for_now_is_asked_for_again_and_holds_the_cursor_back() {
    let mut desk = Desk::new(&["a", "b"], Some("C0"));
    desk.connect();
    let refused = r#"{"object":"b","error":{"code":"no_owner","message":"nobody","retryable":true}}"#;
    let answer = format!(r#"{{"subscribed":{{"objects":[{{"object":"a","version":1}},{refused}]}},"id":1}}"#);
    assert_eq!(
        desk.frame(&answer),
        ["note b is not watched: nobody (no_owner); asking again", "ask later"]
    );
    desk.frame(r#"{"cursor":"C1"}"#);
    assert_eq!(desk.progress.cursor(), Some("C0"), "C1 does not speak for b");
    let mut out = Vec::new();
    desk.progress.ask_again(&mut out);
    assert_eq!(
        show(out),
        [r#"send {"subscribe":{"objects":["b"],"cursor":"C0"},"id":2}"#]
    );
    assert_eq!(
        desk.frame(r#"{"subscribed":{"objects":[{"object":"b","version":1}]},"id":2}"#),
        ["ready"]
    );
    desk.frame(r#"{"cursor":"C2"}"#);
    assert_eq!(desk.progress.cursor(), Some("C2"));
}

#[test]
fn when_every_object_is_refused_for_good_it_stops() {
    let mut desk = Desk::new(&["a"], None);
    desk.connect();
    let answer = r#"{"subscribed":{"objects":[{"object":"a","error":{"code":"forbidden","message":"no"}}]},"id":1}"#;
    assert_eq!(
        desk.frame(answer),
        [
            "note a is not watched: no (forbidden)",
            r#"Stop("the server refused every object")"#
        ]
    );
    desk.connect();
    let answer = r#"{"error":{"code":"bad_request","message":"what?","retryable":false},"id":2}"#;
    assert_eq!(desk.frame(answer), [r#"Stop("the server refused every object")"#]);
}

#[test]
fn resync_stale_reconnect_and_unknown_frames() {
    let mut desk = Desk::new(&["a"], None);
    desk.connect();
    assert_eq!(
        desk.frame(
            "{\"resync\":{\"objects\":[\"a\"],\"cause\":\"floor\"}}\n{\"resync\":{\"all\":true}}\n{\"stale\":true}"
        ),
        [
            "T  resync  a may have changed: fetch it  (floor)",
            "T  resync  all objects may have changed: fetch them",
            "T  stale  the server is cut off: changes may come late",
        ]
    );
    assert_eq!(
        desk.frame(r#"{"reconnect":{"after_ms":700,"reason":"drain"}}"#),
        ["leave for 700: the server asks to come back later (drain)"]
    );
    assert_eq!(desk.frame("{\"something\":{\"new\":1}}\n\n{\"pong\":{}}"), [""; 0]);
    assert!(desk.frame("<html>")[0].starts_with("ComeBack(\"the server sent what makes no sense"));
}
