//! Decoders that face a stranger or a peer.

use crate::random::{Random, lay};
use tidings_client::websocket::{Incoming, Message};
use tidings_client::wire;
use tidings_protocol::client::{
    Change, Entry, EventsRequest, PollRequest, Request, SessionRequest, parse_publish_json, parse_publish_line,
    parse_publish_msgpack, parse_publish_query, parse_requests,
};
use tidings_protocol::codec::Encoding;
use tidings_protocol::hint::compact_json;
use tidings_protocol::id::check_object_id;
use tidings_protocol::limits::{MAX_CURSOR_BYTES, MAX_DATA_BYTES, MAX_KIND_BYTES, REVISION_LIMIT};
use tidings_protocol::{ClusterId, Cursor, ObjectHash, Problem, ShardCount, ShardId, Version, mesh};
use tidings_router::access::Action;
use tidings_router::access::claims::Terms;
use tidings_router::access::token::{MOST_TOKEN_BYTES, Parts};

/// A small limit, so that it is met.
const MOST: usize = 5;

type EntryResult = Result<Entry, (String, Problem)>;

fn check_entries(entries: &[EntryResult]) {
    assert!(entries.len() <= MOST, "more entries than the limit");
    for entry in entries {
        match entry {
            Ok(entry) => {
                assert_eq!(check_object_id(&entry.object), Ok(()));
                for version in entry.version.iter().chain(&entry.at_least) {
                    assert!(version.0 < Version::LIMIT);
                }
            }
            Err((echo, _)) => {
                assert!(echo.chars().count() <= 128 && !echo.chars().any(char::is_control));
            }
        }
    }
}

fn check_request(request: &Request) {
    match request {
        Request::Subscribe { objects, .. } | Request::Unsubscribe { objects } => check_entries(objects),
        Request::Auth { token } => assert!(!token.is_empty()),
        Request::Ping => {}
    }
}

/// Tokens: header, claims and signature apart, and as one text. What is read is within its bounds.
pub(crate) fn access_tokens(data: &[u8]) {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let parts = [parts.next(), parts.next(), parts.next()].map(|part| URL_SAFE_NO_PAD.encode(part.unwrap_or_default()));
    let text = String::from_utf8_lossy(data);
    for token in [parts.join("."), text.into_owned()] {
        let Ok(read) = Parts::read(&token) else { continue };
        assert!(token.len() <= MOST_TOKEN_BYTES && !read.signature.is_empty());
        let claims = &read.claims;
        assert!(!claims.subject.is_empty() && !claims.subject.contains(char::is_control));
        let own = claims.own.fill(&claims.subject);
        for object in &claims.objects {
            assert_eq!(check_object_id(object), Ok(()));
            let listed = own.subscribe.iter().any(|pattern| pattern.matches(object));
            assert_eq!(own.allow(Action::Subscribe, object), listed);
        }
        let terms = Terms {
            audience: &[],
            leeway_s: 30,
            lifetime_s: 86_400,
        };
        if claims.check(&terms, claims.issued_s).is_ok() {
            assert!(claims.check(&terms, claims.expires_s + 30).is_err(), "it ends");
        }
    }
}

/// Text frames of WebSocket clients.
pub(crate) fn client_requests(data: &[u8]) {
    let requests = parse_requests(Encoding::WebSocketJson, data, MOST);
    assert!(
        (1..=257).contains(&requests.len()),
        "every frame is answered, and within bounds"
    );
    for (_, request) in &requests {
        request.iter().for_each(check_request);
    }
}

/// Binary frames of WebSocket clients.
pub(crate) fn packed_requests(data: &[u8]) {
    let requests = parse_requests(Encoding::WebSocketMessagePack, data, MOST);
    assert_eq!(requests.len(), 1);
    requests[0].1.iter().for_each(check_request);
}

fn check_change(change: &Change<'_>) {
    assert_eq!(check_object_id(&change.object), Ok(()));
    assert!(change.revision.is_none_or(|revision| revision < REVISION_LIMIT));
    let Some(hint) = &change.hint else { return };
    assert!(hint.kind.as_ref().is_none_or(|kind| kind.len() <= MAX_KIND_BYTES));
    if let Some(data) = &hint.data {
        assert!(data.len() <= MAX_DATA_BYTES);
        let read: Result<serde_json::Value, _> = serde_json::from_str(data);
        assert!(read.is_ok(), "data that is told is JSON: {data:?}");
    }
}

/// Bodies of publishes in both encodings, and lines of a stream.
pub(crate) fn publish_bodies(data: &[u8]) {
    let bodies = [parse_publish_json(data, MOST), parse_publish_msgpack(data, MOST)];
    for body in bodies.iter().flatten() {
        assert!((1..=MOST).contains(&body.changes.len()));
        assert!(!body.single || (body.changes.len() == 1 && body.changes[0].is_ok()));
        body.changes.iter().flatten().for_each(check_change);
    }
    for line in data.split(|byte| *byte == b'\n') {
        parse_publish_line(line).iter().for_each(check_change);
    }
}

/// Bodies of polls, streams and sessions in both encodings.
pub(crate) fn poll_bodies(data: &[u8]) {
    let polls = [
        PollRequest::from_json(data, MOST),
        PollRequest::from_msgpack(data, MOST),
    ];
    for poll in polls.iter().flatten() {
        poll.objects.iter().for_each(|objects| check_entries(objects));
    }
    let streams = [
        EventsRequest::from_json(data, MOST),
        EventsRequest::from_msgpack(data, MOST),
    ];
    for stream in streams.iter().flatten() {
        stream.objects.iter().for_each(|objects| check_entries(objects));
    }
    let sessions = [
        SessionRequest::from_json(data, MOST),
        SessionRequest::from_msgpack(data, MOST),
    ];
    for session in sessions.iter().flatten() {
        assert!(!session.objects.is_empty());
        check_entries(&session.objects);
    }
}

/// Query strings of every route.
pub(crate) fn queries(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else { return };
    if let Ok(poll) = PollRequest::from_query(query, MOST) {
        poll.objects.iter().for_each(|objects| check_entries(objects));
    }
    if let Ok(stream) = EventsRequest::from_query(query, MOST) {
        stream.objects.iter().for_each(|objects| check_entries(objects));
    }
    if let Ok(body) = parse_publish_query(query, MOST) {
        body.changes.iter().flatten().for_each(check_change);
    }
    let _ = tidings_protocol::client::PublishOptions::from_query(query);
}

/// Cursors: one has one text, and no other text is taken for it. The input is a text, or the fields of one and a change of
/// its text: a text at random would never have the right checksum.
pub(crate) fn cursors(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        read_cursor(text);
    }
    lay(data);
    let mut random = Random(4);
    let version = |random: &mut Random| match random.below(4) {
        0 => Version::ZERO,
        1 => Version(Version::LIMIT - 1),
        _ => Version(1_795_170_000_000_000 + random.below(5) * random.below(60_000)),
    };
    let base = version(&mut random);
    let lagging = (0..random.below(40))
        .map(|_| (ShardId(random.below(4_096) as u16), version(&mut random)))
        .collect();
    let told = (0..random.below(80))
        .map(|_| (ObjectHash(random.next() << 40), version(&mut random)))
        .collect();
    let cursor = Cursor::new(ClusterId(random.next()), base, lagging, told);
    let Ok(mut text) = cursor.encode() else { return };
    assert_eq!(Cursor::decode(&text).as_ref(), Ok(&cursor), "{text}");
    let at = random.below(text.len() as u64) as usize;
    let other = b"AZaz09-_"[random.below(8) as usize] as char;
    if !text[at..].starts_with(other) {
        text.replace_range(at..=at, &other.to_string());
        read_cursor(&text);
    }
}

fn read_cursor(text: &str) {
    let Ok(cursor) = Cursor::decode(text) else { return };
    assert!(text.len() <= MAX_CURSOR_BYTES);
    assert_eq!(cursor.encode().as_deref(), Ok(text), "{cursor:?}");
    let coarser = cursor.clone().coarser();
    for shard in ShardCount::DEFAULT.all() {
        assert!(coarser.at(shard) <= cursor.at(shard), "a coarser cursor claims less");
    }
}

/// Documents that publishers send along.
pub(crate) fn hints(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else {
        return;
    };
    let Ok(compact) = compact_json(text) else { return };
    assert!(!compact.contains(['\n', '\r']), "a document is one line");
    assert_eq!(compact_json(&compact).as_deref(), Ok(&*compact), "compact is compact");
    // Numbers are kept as written: they may be more exact than this reader.
    let again: serde_json::Value = serde_json::from_str(&compact).expect("still JSON");
    assert_eq!(again, value);
}

/// Frames and hellos between nodes.
pub(crate) fn mesh_frames(data: &[u8]) {
    if let Ok(frame) = mesh::decode(data) {
        let mut bytes = Vec::new();
        if mesh::encode(&frame, &mut bytes).is_ok() {
            assert_eq!(mesh::decode(&bytes), Ok(frame));
        }
    }
    if let Some(bytes) = data.first_chunk()
        && let Ok(hello) = mesh::Hello::decode(bytes)
    {
        assert_eq!(&hello.encode(), bytes);
    }
}

/// What a client reads: WebSocket payloads and bodies of answers.
pub(crate) fn server_messages(data: &[u8]) {
    let mut lines = 0;
    for message in wire::messages(data) {
        lines += 1;
        assert!(lines <= data.len() + 1, "an iterator that does not end");
        if let Ok(wire::ServerMessage::Changes(changes)) = message {
            for change in changes {
                assert!(change.version.is_none_or(|version| version.0 < Version::LIMIT));
            }
        }
    }
    let _ = wire::PollAnswer::read(data);
    let _ = wire::Session::read(data);
    let _ = wire::ProblemDocument::read(data);
    let _ = wire::Results::read(data);
    let _ = wire::Sum::read(data);
    let _ = wire::ObjectState::read(data);
}

/// Event streams: what comes in pieces is what comes at once.
pub(crate) fn event_streams(data: &[u8]) {
    let Some((cut, rest)) = data.split_first() else { return };
    let whole = blocks(&[rest]);
    let cut = usize::from(*cut) % (rest.len() + 1);
    let (one, two) = rest.split_at(cut);
    assert_eq!(blocks(&[one, two]), whole);
}

fn blocks(pieces: &[&[u8]]) -> Vec<String> {
    let mut parser = wire::EventParser::new(2_000);
    let mut seen = Vec::new();
    for piece in pieces {
        parser.push(piece);
        loop {
            match parser.next_block() {
                Ok(Some(block)) => {
                    let _ = block.message();
                    seen.push(format!("{block:?}"));
                }
                Ok(None) => break,
                Err(error) => {
                    seen.push(error.to_string());
                    return seen;
                }
            }
        }
    }
    seen
}

/// WebSocket frames: what comes in pieces is what comes at once.
pub(crate) fn websocket_frames(data: &[u8]) {
    let Some((cut, rest)) = data.split_first() else { return };
    let whole = frames(&[rest]);
    let cut = usize::from(*cut) % (rest.len() + 1);
    let (one, two) = rest.split_at(cut);
    assert_eq!(frames(&[one, two]), whole);
}

fn frames(pieces: &[&[u8]]) -> Vec<String> {
    let mut incoming = Incoming::new(2_000);
    let mut seen = Vec::new();
    for piece in pieces {
        let fed = incoming.feed(piece, |message: Message<'_>| seen.push(format!("{message:?}")));
        if let Err(error) = fed {
            seen.push(error.to_string());
            break;
        }
    }
    seen
}
