//! The real program: how it starts, stops, and speaks with itself from the command line.

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;
use support::*;

/// Flags that let subscribers go quickly and cursors come often.
const QUICK: [&str; 12] = [
    "--drain.spread_ms",
    "2000",
    "--limits.cursor_ms",
    "50",
    "--limits.ping_ms",
    "200",
    "--log.filter",
    "warn",
    "--owner.closed_busy_ms",
    "20",
    "--owner.closed_idle_ms",
    "50",
];

fn serve() -> (Program, SocketAddr) {
    Program::serve(&QUICK)
}

/// What `reconnect` said.
#[track_caller]
fn reconnect(told: &[Value]) -> u64 {
    let all: Vec<_> = told.iter().filter_map(|told| told.get("reconnect")).collect();
    assert_eq!(all.len(), 1, "{told:?}");
    assert_eq!(all[0]["reason"], "drain");
    all[0]["after_ms"].as_u64().expect("a number")
}

#[test]
fn asked_to_stop_it_sends_everyone_away_answers_what_is_under_way_and_ends_with_0() {
    let (program, at) = serve();
    let mut sockets: Vec<_> = (0..6)
        .map(|n| if n % 2 == 0 { Ws::open(at) } else { Ws::open_packed(at) })
        .collect();
    let cursors: Vec<_> = sockets
        .iter_mut()
        .map(|ws| {
            ws.subscribe(&["a"]);
            ws.hear_of("cursor")
        })
        .collect();
    let mut streams: Vec<_> = (0..4).map(|_| Events::open(at, &["a"], None)).collect();
    let mut curl = Curl::events(at, "object=a");
    streams.iter_mut().for_each(|stream| _ = stream.hear_of("cursor"));
    curl.hear_of("cursor");
    let polls: Vec<_> = (0..3)
        .map(|_| {
            let cursor = Poll::of(at, &["a"]).ask()["cursor"]
                .as_str()
                .expect("a cursor")
                .to_owned();
            std::thread::spawn(move || Poll::of(at, &["a"]).cursor(&cursor).wait_ms(25_000).send())
        })
        .collect();
    eventually("the polls wait", || {
        let all = get(at, "/v1/connections").ok();
        all["connections"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|one| one["transport"] == "poll")
            .count()
            == 3
    });
    // A publish whose body is under way.
    let mut publish = Raw::open(at);
    publish.send("POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"object\"");
    let mut lines = Raw::open(at);
    lines.send("POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n{\"object\":\"c\"}\n\r\n");
    std::thread::sleep(Duration::from_millis(200));
    program.terminate();
    let mut delays = BTreeSet::new();
    for (ws, cursor) in sockets.iter_mut().zip(cursors) {
        let (told, code) = ws.read_to_the_end();
        delays.insert(reconnect(&told));
        assert_eq!(code, Some(4000));
        assert!(cursor.as_str().is_some_and(|cursor| !cursor.is_empty()));
    }
    for ear in streams
        .iter_mut()
        .map(|stream| stream as &mut dyn Ear)
        .chain([&mut curl as &mut dyn Ear])
    {
        let mut told = Vec::new();
        while let Some(next) = ear.next() {
            told.push(next);
        }
        delays.insert(reconnect(&told));
    }
    for poll in polls {
        let answer = poll.join().expect("an answer");
        // Either it is answered and told when to come back, or refused so that it comes back.
        match answer.status {
            200 => delays.insert(answer.json()["poll_after_ms"].as_u64().expect("when to come back")),
            _ => {
                assert_eq!((answer.status, answer.code().as_str()), (503, "draining"));
                false
            }
        };
    }
    assert!(delays.len() >= 8, "they do not all come back at once: {delays:?}");
    assert!(delays.iter().all(|delay| (100..=2_200).contains(delay)), "{delays:?}");
    publish.send(":\"b\"}");
    assert!(publish.answer().expect("an answer").ok()["version"].is_u64());
    lines.send("f\r\n{\"object\":\"c\"}\n\r\n0\r\n\r\n");
    assert_eq!(lines.answer().expect("an answer").ok()["accepted"], 2);
    let (status, _, errors) = program.end();
    assert_eq!(status.code(), Some(0), "{errors:?}");
    assert!(std::net::TcpStream::connect(at).is_err(), "nobody listens any more");
}

#[test]
fn an_idle_program_stops_at_once_on_either_signal() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let (program, at) = serve();
        // Connections at rest and silent ones do not hold it up.
        let mut resting = Raw::open(at);
        resting.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(resting.answer().expect("an answer").status, 200);
        let silent = Raw::open(at);
        program.signal(signal);
        let (status, _, errors) = program.end();
        assert_eq!(status.code(), Some(0), "{errors:?}");
        drop((resting, silent));
    }
}

#[test]
fn a_second_signal_ends_it_at_once_with_another_code() {
    let (mut program, at) = serve();
    // Something that would hold it up until the deadline.
    let mut held = Raw::open(at);
    held.send("POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"object\"");
    std::thread::sleep(Duration::from_millis(200));
    program.terminate();
    std::thread::sleep(Duration::from_millis(700));
    assert!(program.is_running(), "it waits for the request under way");
    program.terminate();
    let (status, ..) = program.end();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_request_that_never_ends_holds_it_up_until_the_deadline_only() {
    let mut flags = QUICK.to_vec();
    flags.extend(["--drain.deadline_ms", "1500", "--limits.body_idle_ms", "60000"]);
    let (program, at) = Program::serve(&flags);
    let mut held = Raw::open(at);
    held.send("POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"object\"");
    std::thread::sleep(Duration::from_millis(200));
    program.terminate();
    assert!(program.end().0.code().is_some(), "it ended by itself");
}

#[test]
fn a_port_that_is_taken_is_said_clearly_and_ends_it_with_1() {
    let (_first, at) = serve();
    let second = Program::start(&["--listen", &at.to_string()]);
    let (status, output, errors) = second.end();
    assert_eq!(status.code(), Some(1));
    assert!(output.is_empty(), "it does not say that it listens: {output:?}");
    let said = errors.join("\n");
    assert!(said.contains(&at.to_string()) && said.contains("taken"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    // The first one serves on.
    assert_eq!(get(at, "/healthz").status, 200);
}

#[test]
fn a_configuration_that_makes_no_sense_is_named_and_nothing_starts() {
    for (flags, named) in [
        (vec!["--listen", "nowhere"], "server.listen"),
        (vec!["--listen", "0.0.0.0:0"], "server.listen"),
        (vec!["--limits.headers", "x"], "limits.headers"),
        (
            vec!["--limits.objects_per_connection", "10001"],
            "limits.objects_per_connection",
        ),
        (
            vec!["--config", "/nonexistent/tidings.toml"],
            "/nonexistent/tidings.toml",
        ),
    ] {
        let (status, _, errors) = Program::start(&flags).end();
        assert!(
            status.code().is_some_and(|code| code == 1 || code == 2),
            "{flags:?}: {status:?}"
        );
        assert!(errors.join("\n").contains(named), "{flags:?}: {errors:?}");
    }
}

#[test]
fn what_is_published_on_the_command_line_is_watched_on_the_command_line() {
    let (server, at) = serve();
    let url = format!("http://{at}");
    let folder = tempfile::tempdir().expect("a folder");
    let cursor_file = folder.path().join("cursor").to_string_lossy().into_owned();
    let watch = || {
        Program::start(&[
            "watch",
            "--json",
            "--server",
            &url,
            "--cursor-file",
            &cursor_file,
            "order:42",
            "order:43",
        ])
    };
    let subscribed = |object: &str| {
        eventually("the watch is subscribed", || {
            get(at, &format!("/v1/object?object={object}")).ok()["subscribers"] == 1
        });
    };
    let watching = watch();
    subscribed("order:42");
    let (status, output, errors) = Program::start(&[
        "publish",
        "--server",
        &url,
        "--kind",
        "updated",
        "--data",
        "{\"total\":12}",
        "order:42",
    ])
    .end();
    assert_eq!(status.code(), Some(0), "{errors:?}");
    let version = version_of(at, "order:42").expect("a version");
    assert!(output.join("\n").contains(&version.to_string()), "{output:?}");
    let line: Value = serde_json::from_str(&watching.line()).expect("JSON");
    let text = line.to_string();
    assert!(
        text.contains("order:42") && text.contains(&version.to_string()),
        "{line}"
    );
    // Told, it is asked to end; what changes meanwhile is told to the next.
    std::thread::sleep(Duration::from_millis(600));
    watching.signal(rustix::process::Signal::INT);
    assert_eq!(watching.end().0.code(), Some(0));
    let missed = publish(at, "order:43");
    let watching = watch();
    let line: Value = serde_json::from_str(&watching.line()).expect("JSON");
    assert!(line.to_string().contains(&missed.to_string()), "{line}");
    // A stream from standard input.
    let mut publisher = Program::start(&["publish", "--server", &url, "--stdin"]);
    let mut stdin = publisher.stdin.take().expect("its input");
    writeln!(stdin, "order:42\n{{\"object\":\"order:43\",\"kind\":\"k\"}}").expect("written");
    drop(stdin);
    let (status, _, errors) = publisher.end();
    assert_eq!(status.code(), Some(0), "{errors:?}");
    let newest =
        [version_of(at, "order:42"), version_of(at, "order:43")].map(|version| version.expect("a version").to_string());
    let told = format!("{}\n{}", watching.line(), watching.line());
    assert!(
        newest.iter().all(|version| told.contains(version)),
        "{told}: {newest:?}"
    );
    drop(server);
}

#[test]
fn a_watch_outlives_its_server_and_says_what_to_fetch_from_the_next() {
    let (server, at) = serve();
    let url = format!("http://{at}");
    let watching = Program::start(&["watch", "--json", "--server", &url, "a"]);
    eventually("the watch is subscribed", || {
        get(at, "/v1/object?object=a").ok()["subscribers"] == 1
    });
    let version = publish(at, "a");
    assert!(watching.line().contains(&version.to_string()));
    server.terminate();
    assert_eq!(server.end().0.code(), Some(0));
    let again = Program::start(&["--listen", &at.to_string(), "--threads", "2", "--log.filter", "warn"]);
    again.line();
    // Another server's versions cannot be compared: it says so, and goes on.
    assert!(watching.line().contains("resync"));
    eventually("the watch is back", || {
        get(at, "/v1/object?object=a").ok()["subscribers"] == 1
    });
    let version = publish(at, "a");
    assert!(watching.line().contains(&version.to_string()));
}

#[test]
fn publishing_to_nobody_fails_with_a_reason() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("its address");
    let (status, _, errors) = Program::start(&["publish", "--server", &format!("http://{free}"), "a"]).end();
    assert_eq!(status.code(), Some(1));
    assert!(!errors.is_empty());
    let (status, _, errors) = Program::start(&["publish", "--server", &format!("http://{free}"), "a\u{7}b"]).end();
    assert!(status.code().is_some_and(|code| code > 0), "{errors:?}");
    assert!(
        !errors.join("\n").contains('\u{7}'),
        "control characters do not reach the terminal"
    );
}

#[test]
fn a_node_in_this_process_that_drains_refuses_newcomers_and_says_it_is_not_ready() {
    let node = node_with(|config| config.drain.deadline_ms = 3_000);
    let at = node.addr;
    let mut ready = Raw::open(at);
    ready.send("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(
        ready.answer().expect("an answer").ok(),
        json!({ "ready": true, "reasons": [] })
    );
    let mut ws = Ws::open(at);
    ws.subscribe(&["a"]);
    node.drain();
    let (told, code) = ws.read_to_the_end();
    assert_eq!((reconnect(&told) > 0, code), (true, Some(4000)));
    assert!(node.join(), "every thread ended in order");
}
