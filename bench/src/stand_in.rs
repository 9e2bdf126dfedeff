//! A naive server with a thread for each connection and a lock around everything: right, and too slow to measure. The
//! scenarios run against it in tests.

use crate::report::Report;
use crate::server::Launcher;
use clap::Parser;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// How the stand-in misbehaves, to see that a scenario notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Every 40th notification is never sent.
    Loses,
    /// A cursor is ignored: nothing missed is told.
    ForgetsTheGap,
    /// After each notification an older version of the same object.
    GoesBack,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    version: u64,
    sent: u64,
    versions: HashMap<String, u64>,
    watchers: HashMap<String, Vec<Sender<String>>>,
}

impl State {
    fn publish(&mut self, object: &str) -> u64 {
        self.version += 1;
        let version = self.version;
        self.versions.insert(object.to_owned(), version);
        for watcher in self.watchers.get(object).into_iter().flatten() {
            self.sent += 1;
            if self.fault == Fault::Loses && self.sent.is_multiple_of(40) {
                continue;
            }
            let _ = watcher.send(changes(&[(object, version)]));
            if self.fault == Fault::GoesBack {
                let _ = watcher.send(changes(&[(object, version - 1)]));
            }
        }
        version
    }

    fn subscribe(&mut self, request: &Value, me: &Sender<String>) {
        let cursor = request["subscribe"]["cursor"]
            .as_str()
            .and_then(|cursor| cursor.parse::<u64>().ok());
        let objects = request["subscribe"]["objects"].as_array().cloned().unwrap_or_default();
        let (mut entries, mut newer) = (Vec::new(), Vec::new());
        for object in objects.iter().filter_map(Value::as_str) {
            let version = self.versions.get(object).copied();
            entries.push(json!({"object": object, "version": version}));
            newer.extend(
                version
                    .filter(|&version| cursor.is_some_and(|cursor| version > cursor))
                    .map(|v| (object, v)),
            );
            self.watchers.entry(object.to_owned()).or_default().push(me.clone());
        }
        let _ = me.send(json!({"subscribed": {"objects": entries}, "id": request["id"]}).to_string());
        if !newer.is_empty() && self.fault != Fault::ForgetsTheGap {
            let _ = me.send(changes(&newer));
        }
        let _ = me.send(json!({"cursor": self.version.to_string()}).to_string());
    }
}

fn changes(changes: &[(&str, u64)]) -> String {
    let changes: Vec<_> = changes
        .iter()
        .map(|(object, version)| json!({"object": object, "version": version}))
        .collect();
    json!({"changes": changes}).to_string()
}

fn start(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (versions, watchers) = (HashMap::new(), HashMap::new());
    let state = State {
        fault,
        version: 1_795_170_000_000_000,
        sent: 0,
        versions,
        watchers,
    };
    let state = Arc::new(Mutex::new(state));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = Arc::clone(&state);
            thread::spawn(move || connection(stream, &state));
        }
    });
    address
}

fn connection(stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut first = [0; 10];
    while stream.peek(&mut first)? < first.len() {}
    if first.starts_with(b"GET /v1/ws") {
        let socket = tungstenite::accept_hdr(stream, protocol).map_err(io::Error::other)?;
        web_socket(socket, state).map_err(io::Error::other)
    } else {
        http(stream, state)
    }
}

#[expect(clippy::result_large_err, reason = "the library's signature")]
fn protocol(
    _: &tungstenite::handshake::server::Request,
    mut response: tungstenite::handshake::server::Response,
) -> Result<tungstenite::handshake::server::Response, tungstenite::handshake::server::ErrorResponse> {
    let name = tungstenite::http::HeaderValue::from_static("tidings.v1.json");
    response.headers_mut().insert("sec-websocket-protocol", name);
    Ok(response)
}

fn web_socket(mut socket: WebSocket<TcpStream>, state: &Mutex<State>) -> tungstenite::Result<()> {
    let (me, mine): (Sender<String>, Receiver<String>) = mpsc::channel();
    socket.get_ref().set_read_timeout(Some(Duration::from_millis(2)))?;
    socket.send(Message::text(
        r#"{"hello":{"connection":"c","node":"n","ping_ms":25000,"limits":{}}}"#,
    ))?;
    socket.send(Message::Ping("are you there".into()))?;
    loop {
        for text in mine.try_iter() {
            socket.send(Message::text(text))?;
        }
        match socket.read() {
            Ok(Message::Text(text)) => {
                let request: Value = serde_json::from_str(&text).expect("a client speaks JSON");
                state.lock().expect("unpoisoned").subscribe(&request, &me);
            }
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn http(stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let (mut first, mut headers) = (String::new(), HashMap::new());
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let body = body(&mut reader, headers.get("content-length").map_or("", String::as_str))?;
        let answer = match headers.get("content-type").map(String::as_str) {
            Some("application/x-ndjson") => stream_of_changes(&body, state),
            _ => publish(&body, state),
        };
        write!(
            writer,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        )?;
    }
}

fn body(reader: &mut impl BufRead, length: &str) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Ok(length) = length.parse::<u64>() {
        reader.take(length).read_to_end(&mut body)?;
        return Ok(body);
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).expect("a chunk size");
        reader.take(size).read_to_end(&mut body)?;
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn stream_of_changes(body: &[u8], state: &Mutex<State>) -> String {
    let mut state = state.lock().expect("unpoisoned");
    let mut accepted = 0;
    for change in serde_json::Deserializer::from_slice(body).into_iter::<Value>() {
        state.publish(change.expect("JSON")["object"].as_str().expect("an ID"));
        accepted += 1;
    }
    json!({"accepted": accepted, "rejected": 0, "errors": [], "version": state.version}).to_string()
}

fn publish(body: &[u8], state: &Mutex<State>) -> String {
    let request: Value = serde_json::from_slice(body).expect("JSON");
    let mut state = state.lock().expect("unpoisoned");
    match (request["object"].as_str(), request["changes"].as_array()) {
        (Some(object), _) => json!({"version": state.publish(object)}).to_string(),
        (None, Some(changes)) => {
            let objects = changes.iter().filter_map(|change| change["object"].as_str());
            let results: Vec<_> = objects
                .map(|object| json!({"version": state.publish(object)}))
                .collect();
            json!({"results": results}).to_string()
        }
        _ => "{}".to_owned(),
    }
}

/// One scenario's arguments, as typed.
#[derive(Debug, Parser)]
struct Typed<S: clap::Args> {
    #[command(flatten)]
    scenario: S,
}

fn typed<S: clap::Args>(arguments: &str) -> S {
    Typed::parse_from(std::iter::once("scenario").chain(arguments.split_whitespace())).scenario
}

fn assert_good(report: &io::Result<Report>, figure: &str) {
    let report = report.as_ref().expect("the scenario ran through");
    assert!(report.failures().is_empty(), "{:?}", report.failures());
    assert!(
        report.value(figure).is_some_and(|value| value > 0.0),
        "{}",
        report.table()
    );
}

fn assert_wrong(report: &io::Result<Report>) {
    assert!(
        report.as_ref().map_or(true, |report| !report.failures().is_empty()),
        "the fault went unnoticed"
    );
}

fn seed(fault: Fault) -> io::Result<Report> {
    let arguments = "--objects 2000 --subscribers 20 --each 10 --rate 300 --watched-every 2 --seconds 0.5 --rounds 1";
    let mut scenario: crate::seed::Seed = typed(arguments);
    scenario.launcher = Launcher::running(start(fault));
    scenario.run()
}

fn storm(fault: Fault) -> io::Result<Report> {
    let arguments = "--objects 2000 --subscribers 20 --each 10 --changed 50 --rounds 2";
    let mut scenario: crate::storm::Storm = typed(arguments);
    scenario.launcher = Launcher::running(start(fault));
    scenario.run()
}

fn slow(fault: Fault) -> io::Result<Report> {
    let arguments = "--objects 10 --readers 3 --rate 500 --batch 5 --before 0.3 --stalled 0.6";
    let mut scenario: crate::slow::Slow = typed(arguments);
    scenario.launcher = Launcher::running(start(fault));
    scenario.run()
}

#[test]
fn a_right_server_passes_the_steady_load() {
    assert_good(&seed(Fault::None), "deliveries");
}

#[test]
fn a_lost_delivery_fails_the_steady_load() {
    assert_wrong(&seed(Fault::Loses));
}

#[test]
fn an_older_version_fails_the_steady_load() {
    assert_wrong(&seed(Fault::GoesBack));
}

#[test]
fn a_right_server_passes_the_storm() {
    assert_good(&storm(Fault::None), "changes told");
}

#[test]
fn a_forgotten_gap_fails_the_storm() {
    assert_wrong(&storm(Fault::ForgetsTheGap));
}

#[test]
fn a_right_server_passes_the_slow_reader() {
    assert_good(&slow(Fault::None), "changes told per reader");
}

#[test]
fn a_version_that_goes_back_fails_the_slow_reader() {
    assert_wrong(&slow(Fault::GoesBack));
}

#[test]
fn subscriptions_are_made_and_counted() {
    let mut scenario: crate::subscriptions::Subscriptions = typed("--connections 30 --each 20 --settle 0.1");
    scenario.launcher = Launcher::running(start(Fault::None));
    assert_good(&scenario.run(), "subscribing took");
}

#[test]
fn streams_and_batches_arrive_whole() {
    let mut scenario: crate::firehose::Firehose = typed("--objects 5000 --connections 2 --seconds 0.3 --rounds 1");
    scenario.launcher = Launcher::running(start(Fault::None));
    assert_good(&scenario.run(), "NDJSON changes");
}
