//! A naive server with a thread for each connection and a lock around everything: right, unless it is told to do one thing
//! wrong.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The answer to the handshake of the first worker, whose key is 16 zeros.
const ACCEPT: &str = "ICX+Yqv66kxgM0FcWaLWlFLwTAI=";

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    /// From the 50th change on, the first subscriber of the list is never told of one object again.
    LosesOne,
    /// The 50th change is told once more with an older version.
    GoesBack,
    /// It takes 20 ms for each publish.
    Slow,
    /// It never confirms a subscription.
    NeverSubscribes,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    version: u64,
    told: u64,
    lost: Option<String>,
    versions: HashMap<String, u64>,
    watchers: HashMap<String, Vec<Arc<Mutex<TcpStream>>>>,
}

/// Listens for as long as the test runs.
pub(crate) fn start(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let state = Arc::new(Mutex::new(State {
        fault,
        version: now_us(),
        told: 0,
        lost: None,
        versions: HashMap::new(),
        watchers: HashMap::new(),
    }));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let state = Arc::clone(&state);
            thread::spawn(move || serve(stream, &state));
        }
    });
    address
}

fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_micros() as u64
}

/// HTTP requests until the connection ends or becomes a WebSocket.
fn serve(mut stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|end| end + 4);
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let end = head + length.unwrap_or(0);
            if bytes.len() >= end {
                let body: Vec<u8> = bytes[head..end].to_vec();
                bytes.drain(..end);
                if text.starts_with("get /v1/ws") {
                    return websocket(stream, state);
                }
                let answer = answer(&text, &body, state);
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}",
                    answer.len()
                )
                .ok()?;
                continue;
            }
        }
        match stream.read(&mut piece).ok()? {
            0 => return None,
            read => bytes.extend_from_slice(&piece[..read]),
        }
    }
}

fn answer(head: &str, body: &[u8], state: &Mutex<State>) -> String {
    if !head.starts_with("post /v1/publish") {
        return "{}".to_owned();
    }
    let change: Value = serde_json::from_slice(body).expect("JSON");
    if state.lock().expect("no panic before").fault == Fault::Slow {
        thread::sleep(Duration::from_millis(20));
    }
    let version = state.lock().expect("no panic before").publish(&change);
    json!({ "version": version }).to_string()
}

impl State {
    fn publish(&mut self, change: &Value) -> u64 {
        let object = change["object"].as_str().expect("an object").to_owned();
        self.version = now_us().max(self.version + 1);
        let version = self.version;
        let before = self.versions.insert(object.clone(), version);
        let watchers = self.watchers.get(&object).cloned().unwrap_or_default();
        let told = json!({ "object": object, "version": version, "kind": change["kind"] });
        for (nth, watcher) in watchers.iter().enumerate() {
            self.told += 1;
            if self.fault == Fault::LosesOne && self.told >= 50 && nth == 0 {
                let lost = self.lost.get_or_insert_with(|| object.clone());
                if *lost == object {
                    continue;
                }
            }
            say(watcher, &json!({ "changes": [told] }));
            if self.fault == Fault::GoesBack && self.told == 50 {
                let older = before.unwrap_or(version - 1).min(version - 1);
                say(watcher, &json!({ "changes": [{ "object": object, "version": older }] }));
            }
        }
        version
    }

    fn subscribe(&mut self, request: &Value, me: &Arc<Mutex<TcpStream>>) {
        let objects = request["subscribe"]["objects"].as_array().cloned().unwrap_or_default();
        if objects.is_empty() || self.fault == Fault::NeverSubscribes {
            return;
        }
        let objects = objects
            .into_iter()
            .filter_map(|object| Some(object.as_str()?.to_owned()));
        let mut entries = Vec::new();
        for object in objects {
            entries.push(json!({ "object": object, "version": self.versions.get(&object) }));
            self.watchers.entry(object).or_default().push(Arc::clone(me));
        }
        say(
            me,
            &json!({ "subscribed": { "objects": entries }, "id": request["id"] }),
        );
        say(me, &json!({ "cursor": format!("c{}", self.version) }));
    }
}

/// One text frame.
fn say(to: &Mutex<TcpStream>, message: &Value) {
    let text = message.to_string();
    let mut frame = vec![0x81];
    match text.len() {
        short @ 0..126 => frame.push(short as u8),
        long => {
            frame.push(126);
            frame.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(text.as_bytes());
    // Who is gone hears nothing.
    let _ = to.lock().expect("no panic before").write_all(&frame);
}

fn websocket(mut stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\nSec-WebSocket-Protocol: tidings.v1.json\r\n\r\n"
    )
    .ok()?;
    let me = Arc::new(Mutex::new(stream.try_clone().ok()?));
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head).ok()?;
        let mut length = usize::from(head[1] & 0x7f);
        if length == 126 {
            let mut long = [0; 2];
            stream.read_exact(&mut long).ok()?;
            length = usize::from(u16::from_be_bytes(long));
        }
        let (mut mask, mut payload) = ([0; 4], vec![0; length]);
        stream.read_exact(&mut mask).ok()?;
        stream.read_exact(&mut payload).ok()?;
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        if head[0] & 0x0f == 1 {
            let request: Value = serde_json::from_slice(&payload).expect("JSON");
            state.lock().expect("no panic before").subscribe(&request, &me);
        }
    }
}
