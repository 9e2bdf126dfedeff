//! The machine's rules one by one, each as a short story.

use std::time::Duration;
use tidings_client::watch::{Ended, Input, Machine, Output, Settings, Status, Transport};
use tidings_client::wire::EventParser;
use tidings_client::{Change, StopReason, Version};

const HELLO: &str =
    r#"{"hello":{"connection":"c","node":"n","ping_ms":1000,"limits":{"objects":1000,"frame_bytes":300}}}"#;

struct Story {
    machine: Machine,
    connection: u64,
    now_ms: u64,
}

impl Story {
    fn new(transport: Transport, objects: &[&str], cursor: Option<&str>) -> Self {
        let settings = Settings {
            transport,
            ..Settings::default()
        };
        let named = objects.iter().map(|object| (*object, None));
        let mut machine = Machine::new(settings, named, cursor, 7);
        machine.start(0);
        Self {
            machine,
            connection: 0,
            now_ms: 0,
        }
    }

    /// A WebSocket on which everything is subscribed, each object at version 5.
    fn live(objects: &[&str], cursor: Option<&str>) -> Self {
        let mut story = Self::new(Transport::WebSocket, objects, cursor);
        story.open();
        let answers: Vec<_> = objects
            .iter()
            .map(|o| format!("{{\"object\":\"{o}\",\"version\":5}}"))
            .collect();
        story.hear(&format!(
            "{{\"subscribed\":{{\"objects\":[{}]}},\"id\":1}}",
            answers.join(",")
        ));
        assert!(
            matches!(story.machine.status(), Status::Live { .. }),
            "{:?}",
            story.machine.status()
        );
        story
    }

    /// What the machine asks for, as texts.
    fn asked(&mut self) -> Vec<String> {
        let mut asked = Vec::new();
        while let Some(output) = self.machine.next_output() {
            asked.push(match output {
                Output::Connect { connection, body, .. } => {
                    self.connection = connection;
                    format!("connect {}", String::from_utf8(body).expect("text"))
                        .trim()
                        .to_owned()
                }
                Output::Poll { connection, body } => {
                    self.connection = connection;
                    format!("poll {}", String::from_utf8(body).expect("text"))
                }
                Output::Send(text) => String::from_utf8(text).expect("text"),
                Output::Disconnect { code } => format!("disconnect {code}"),
            });
        }
        asked
    }

    fn hear(&mut self, text: &str) {
        self.machine.handle(self.now_ms, self.connection, Input::Text(text));
    }

    fn block(&mut self, text: &str) {
        let mut parser = EventParser::default();
        parser.push(text.as_bytes());
        while let Some(block) = parser.next_block().expect("sense") {
            self.machine.handle(self.now_ms, self.connection, Input::Block(&block));
        }
    }

    /// The server greets; gives what is asked then.
    fn open(&mut self) -> Vec<String> {
        assert_eq!(self.asked(), ["connect"]);
        self.hear(HELLO);
        self.asked()
    }

    fn cut(&mut self) {
        self.machine
            .handle(self.now_ms, self.connection, Input::Ended(Ended::Cut("x".to_owned())));
        assert!(matches!(self.machine.status(), Status::Waiting { .. }));
    }

    /// Lets time pass until the machine wants something.
    fn wait(&mut self) -> u64 {
        let at = self.machine.next_deadline().expect("a deadline");
        let waited = at - self.now_ms;
        self.now_ms = at;
        self.machine.handle_deadline(at);
        waited
    }

    fn changes(&mut self) -> Vec<(String, Option<u64>)> {
        let mut all = Vec::new();
        while let Some(Change { object, version, .. }) = self.machine.hand_out() {
            all.push((object.to_string(), version.map(|version| version.0)));
        }
        all
    }

    fn cursor(&self) -> Option<String> {
        self.machine.cursor().map(|cursor| cursor.to_string())
    }
}

fn told(object: &str, version: u64) -> (String, Option<u64>) {
    (object.to_owned(), Some(version))
}

fn unknown(object: &str) -> (String, Option<u64>) {
    (object.to_owned(), None)
}

fn change(object: &str, version: u64) -> String {
    format!("{{\"changes\":[{{\"object\":\"{object}\",\"version\":{version}}}]}}")
}

#[test]
fn what_waits_for_the_application_coalesces_to_the_newest_and_keeps_its_turn() {
    let mut story = Story::live(&["a", "b"], None);
    for (object, version) in [("a", 6), ("b", 7), ("a", 8), ("a", 4)] {
        story.hear(&change(object, version));
    }
    assert_eq!(story.changes(), [told("a", 8), told("b", 7)]);
}

#[test]
fn the_cursor_moves_on_only_behind_what_is_handled() {
    let mut story = Story::live(&["a", "b"], Some("C0"));
    story.hear(&change("a", 6));
    story.hear("{\"cursor\":\"C6\"}");
    story.hear(&change("b", 7));
    story.hear("{\"cursor\":\"C7\"}");
    assert_eq!(story.cursor().as_deref(), Some("C0"));
    let a = story.machine.hand_out().expect("a");
    assert_eq!(story.cursor().as_deref(), Some("C0"), "handed out is not handled");
    let b = story.machine.hand_out().expect("b");
    story.machine.handled(b.ticket());
    assert_eq!(story.cursor().as_deref(), Some("C0"), "a is still in somebody's hands");
    story.machine.handled(a.ticket());
    assert_eq!(story.cursor().as_deref(), Some("C7"));
}

#[test]
fn a_busy_stream_does_not_keep_the_cursor_from_moving() {
    let mut story = Story::live(&["a", "b"], Some("C0"));
    let mut seen = Vec::new();
    for n in 0..50 {
        story.hear(&change(["a", "b"][n % 2], 10 + n as u64));
        story.hear(&format!("{{\"cursor\":\"C{}\"}}", 10 + n));
        if n >= 2 {
            // One change is always waiting or in hand.
            let change = story.machine.hand_out().expect("a change");
            story.machine.handled(change.ticket());
            story.hear(&self::change(["b", "a"][n % 2], 1000 + n as u64));
        }
        seen.extend(story.cursor());
    }
    seen.dedup();
    assert!(seen.len() > 10, "{seen:?}");
}

#[test]
fn a_cursor_counts_only_once_every_page_is_answered() {
    let names: Vec<String> = (0..6).map(|n| format!("{n}{}", "x".repeat(60))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut story = Story::new(Transport::WebSocket, &names, Some("C0"));
    let mut asked = story.open();
    for id in 1.. {
        let [page] = &asked[..] else { panic!("{asked:?}") };
        let page: serde_json::Value = serde_json::from_str(page).expect("JSON");
        assert_eq!((&page["id"], &page["subscribe"]["cursor"]), (&id.into(), &"C0".into()));
        let objects = page["subscribe"]["objects"].as_array().expect("objects");
        assert!(page.to_string().len() <= 300);
        story.hear("{\"cursor\":\"too early\"}");
        let answers: Vec<_> = objects
            .iter()
            .map(|o| serde_json::json!({"object": o, "version": 5}))
            .collect();
        story.hear(&serde_json::json!({"subscribed": {"objects": answers}, "id": id}).to_string());
        if page["subscribe"]["more"] == true {
            asked = story.asked();
            continue;
        }
        assert!(id > 2, "several pages");
        break;
    }
    assert_eq!(story.cursor().as_deref(), Some("C0"));
    assert!(matches!(story.machine.status(), Status::Live { .. }));
    story.hear("{\"cursor\":\"C9\"}");
    assert_eq!(story.cursor().as_deref(), Some("C9"));
}

#[test]
fn an_object_added_later_is_asked_for_without_the_cursor_that_does_not_speak_for_it() {
    let mut story = Story::live(&["a"], Some("C0"));
    story.machine.add(0, [("b", Some(Version(3))), ("c", None)]);
    assert_eq!(
        story.asked(),
        [r#"{"subscribe":{"objects":[{"object":"b","version":3},"c"]},"id":2}"#]
    );
    assert!(
        !story.machine.vouches("b"),
        "the cursor is older than what is known of b"
    );
    story.hear(r#"{"subscribed":{"objects":[{"object":"b","version":9},{"object":"c","version":null}]},"id":2}"#);
    story.hear(&change("b", 9));
    story.cut();
    story.wait();
    // Each as it can be vouched for.
    assert_eq!(
        story.open(),
        [r#"{"subscribe":{"objects":["a"],"cursor":"C0","more":true},"id":1}"#]
    );
    story.hear(r#"{"subscribed":{"objects":[{"object":"a","version":5}]},"id":1}"#);
    let versions = r#"{"subscribe":{"objects":[{"object":"b","version":9},{"object":"c","version":1}]},"id":2}"#;
    assert_eq!(story.asked(), [versions]);
    story.hear(r#"{"subscribed":{"objects":[{"object":"b","version":9},{"object":"c","version":null}]},"id":2}"#);
    story.hear("{\"cursor\":\"C9\"}");
    assert_eq!(story.changes(), [told("b", 9)]);
    story.machine.handled_all();
    assert_eq!(story.cursor().as_deref(), Some("C9"));
    assert!(story.machine.vouches("b"));
}

#[test]
fn what_is_taken_away_is_heard_no_more_even_if_its_answer_is_on_its_way() {
    let mut story = Story::live(&["a", "b"], None);
    story.hear(&change("b", 6));
    story.machine.remove(0, ["b"]);
    assert_eq!(story.asked(), [r#"{"unsubscribe":{"objects":["b"]}}"#]);
    story.hear(&change("b", 7));
    assert_eq!(story.changes(), []);
    story.machine.add(0, [("c", None)]);
    assert_eq!(story.asked(), [r#"{"subscribe":{"objects":["c"]},"id":2}"#]);
    story.machine.remove(0, ["c"]);
    assert_eq!(story.asked(), Vec::<String>::new(), "its answer first");
    story.hear(r#"{"subscribed":{"objects":[{"object":"c","version":5}]},"id":2}"#);
    assert_eq!(story.asked(), [r#"{"unsubscribe":{"objects":["c"]}}"#]);
    story.machine.remove(0, ["a"]);
    assert_eq!(
        *story.machine.status(),
        Status::Idle,
        "with nothing to watch there is no connection"
    );
    story.machine.add(0, [("d", None)]);
    assert_eq!(story.asked().last().map(String::as_str), Some("connect"));
}

#[test]
fn a_resync_is_a_change_without_version_and_versions_of_the_same_cluster_still_only_grow() {
    let mut story = Story::live(&["a", "b"], Some("C0"));
    story.hear(&change("a", 9));
    assert_eq!(story.changes(), [told("a", 9)]);
    story.hear(r#"{"resync":{"objects":["a","stranger"],"cause":"versions_lost"}}"#);
    story.hear(&change("a", 8));
    assert_eq!(story.changes(), [unknown("a")]);
    story.hear(r#"{"resync":{"all":true,"cause":"power_lost"}}"#);
    story.hear(&change("a", 10));
    assert_eq!(story.changes(), [unknown("a"), told("a", 10), unknown("b")]);
}

#[test]
fn versions_of_another_cluster_begin_anew() {
    for cause in ["cursor_foreign", "cursor_future", "a cause of later times"] {
        let mut story = Story::live(&["a"], Some("C0"));
        story.hear(&change("a", 900));
        assert_eq!(story.changes(), [told("a", 900)]);
        story.hear(&format!("{{\"resync\":{{\"all\":true,\"cause\":\"{cause}\"}}}}"));
        story.hear(&change("a", 7));
        assert_eq!(story.changes(), [unknown("a"), told("a", 7)], "{cause}");
    }
}

#[test]
fn an_object_refused_for_a_while_is_asked_for_again_and_then_has_to_be_fetched() {
    let mut story = Story::new(Transport::WebSocket, &["a", "b"], Some("C0"));
    story.open();
    let refused = r#"{"object":"b","error":{"code":"too_many","message":"m","retryable":true}}"#;
    story.hear(&format!(
        "{{\"subscribed\":{{\"objects\":[{{\"object\":\"a\",\"version\":5}},{refused}]}},\"id\":1}}"
    ));
    let why: Vec<_> = story
        .machine
        .refused()
        .map(|(object, why)| (object.to_string(), why.code.clone()))
        .collect();
    assert_eq!(why, [("b".to_owned(), "too_many".to_owned())]);
    story.hear("{\"cursor\":\"C1\"}");
    assert_eq!(story.cursor().as_deref(), Some("C0"), "C1 does not speak for b");
    assert!(story.wait() <= 1000);
    assert_eq!(story.asked(), [r#"{"subscribe":{"objects":["b"]},"id":2}"#]);
    story.hear(r#"{"subscribed":{"objects":[{"object":"b","version":5}]},"id":2}"#);
    story.hear("{\"cursor\":\"C2\"}");
    assert_eq!(story.changes(), [unknown("b")]);
    story.machine.handled_all();
    assert_eq!(story.cursor().as_deref(), Some("C2"));
    assert_eq!(story.machine.refused().count(), 0);
}

#[test]
fn where_every_object_is_refused_for_good_it_stops() {
    let mut story = Story::new(Transport::WebSocket, &["a"], None);
    story.open();
    story.hear(r#"{"error":{"code":"forbidden","message":"not yours","retryable":false},"id":1}"#);
    let Status::Stopped(stop) = story.machine.status() else {
        panic!("{:?}", story.machine.status())
    };
    assert_eq!((stop.reason, &*stop.detail), (StopReason::AllRefused, "not yours"));
}

#[test]
fn silence_beyond_interval_and_grace_ends_the_connection_and_signs_of_life_do_not() {
    let mut story = Story::live(&["a"], None);
    story.now_ms = 10_900;
    story.machine.handle(10_900, story.connection, Input::Sign);
    story.machine.handle_deadline(11_000);
    assert!(matches!(story.machine.status(), Status::Live { .. }));
    story.machine.handle_deadline(10_900 + 11_000);
    assert!(matches!(story.machine.status(), Status::Waiting { .. }));
    assert_eq!(story.asked(), ["disconnect 1000"]);
}

#[test]
fn what_comes_over_a_connection_that_was_given_up_is_passed_over() {
    let mut story = Story::live(&["a"], None);
    let old = story.connection;
    story.cut();
    story.wait();
    story.open();
    story.machine.handle(0, old, Input::Text(&change("a", 9)));
    story
        .machine
        .handle(0, old, Input::Ended(Ended::Cut("late".to_owned())));
    assert_eq!(story.changes(), []);
    assert!(matches!(story.machine.status(), Status::Connecting { .. }));
}

#[test]
fn nonsense_ends_the_connection_and_another_is_made() {
    let mut story = Story::live(&["a"], None);
    story.hear("nonsense");
    assert_eq!(story.asked(), ["disconnect 1000"]);
    assert!(story.wait() <= 1000);
    assert_eq!(story.asked(), ["connect"]);
}

#[test]
fn after_a_good_connection_waits_begin_small_again() {
    let mut story = Story::new(Transport::WebSocket, &["a"], None);
    let mut longest = 0;
    for _ in 0..12 {
        story.asked();
        story.cut();
        longest = longest.max(story.wait());
    }
    assert!((4_000..=30_000).contains(&longest), "{longest}");
    story.open();
    story.hear(r#"{"subscribed":{"objects":[{"object":"a","version":5}]},"id":1}"#);
    for _ in 0..3 {
        story.now_ms += 5_000;
        story.machine.handle(story.now_ms, story.connection, Input::Sign);
        story.machine.handle_deadline(story.now_ms);
    }
    story.cut();
    assert!(story.wait() <= 1000);
}

#[test]
fn an_object_added_to_a_stream_opens_another_and_what_is_known_from_elsewhere_has_to_be_fetched() {
    let mut story = Story::new(Transport::Events, &["a"], Some("C0"));
    assert_eq!(story.asked(), [r#"connect {"objects":["a"],"cursor":"C0"}"#]);
    story.block("event: hello\ndata: {\"ping_ms\":1000}\n\nid: C1\n\n");
    assert!(matches!(story.machine.status(), Status::Live { .. }));
    story.machine.add(0, [("b", None), ("c", Some(Version(3)))]);
    assert_eq!(
        story.asked(),
        ["disconnect 1000", r#"connect {"objects":["a","b","c"],"cursor":"C1"}"#]
    );
    story.block("event: hello\ndata: {\"ping_ms\":1000}\n\nid: C2\n\n");
    assert_eq!(story.changes(), [unknown("c")]);
    story.machine.handled_all();
    assert_eq!(story.cursor().as_deref(), Some("C2"));
}

#[test]
fn polls_carry_what_is_added_and_taken_until_they_are_answered() {
    let mut story = Story::new(Transport::LongPoll, &["a", "b"], None);
    assert_eq!(story.asked(), [r#"connect {"objects":["a","b"],"wait_ms":25000}"#]);
    let answer = br#"{"changes":[],"cursor":"C1","session":"s"}"#;
    story.machine.handle(0, story.connection, Input::Answer(answer));
    assert_eq!(story.asked(), [r#"poll {"session":"s","cursor":"C1","wait_ms":25000}"#]);
    let old = story.connection;
    story.machine.remove(0, ["b"]);
    assert_eq!(story.asked(), Vec::<String>::new(), "the next poll says so");
    story.machine.add(0, [("c", None)]);
    let both = r#"poll {"session":"s","cursor":"C1","wait_ms":25000,"add":["c"],"remove":["b"]}"#;
    assert_eq!(story.asked(), [both]);
    // The answer to the poll that was given up does not count for c.
    story.machine.handle(0, old, Input::Answer(answer));
    assert!(matches!(story.machine.status(), Status::Connecting { .. }));
    story.machine.handle(0, story.connection, Input::Answer(answer));
    assert!(matches!(story.machine.status(), Status::Live { .. }));
    assert_eq!(story.machine.settings().poll_wait, Duration::from_secs(25));
}
