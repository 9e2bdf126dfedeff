//! Each protocol as it is spoken, whole and torn at every place, and as it is not.

use super::*;

type Reader = Box<dyn FnMut(&[u8], &mut dyn FnMut(Told<'_>)) -> Result<usize, Broken>>;

/// What a reader makes of `bytes`, whole and torn at every place.
fn told(mut make: impl FnMut() -> Reader, bytes: &[u8]) -> Vec<String> {
    let mut whole = Vec::new();
    let used = make()(bytes, &mut |told| whole.push(format!("{told:?}"))).unwrap();
    assert_eq!(used, bytes.len(), "everything was of use");
    for torn in 1..bytes.len() {
        let mut read = make();
        let mut pieces = Vec::new();
        let mut on = |told: Told<'_>| pieces.push(format!("{told:?}"));
        let used = read(&bytes[..torn], &mut on).unwrap();
        assert_eq!(
            used + read(&bytes[used..], &mut on).unwrap(),
            bytes.len(),
            "torn at {torn}"
        );
        assert_eq!(pieces, whole, "torn at {torn}");
    }
    whole
}

fn subscriber(system: System) -> Reader {
    let mut subscriber = Subscriber::new(system, vec![3, 7]);
    subscriber.opening();
    Box::new(move |bytes, on| subscriber.read(bytes, on))
}

fn publisher(system: System) -> Reader {
    let publisher = Publisher::new(system);
    Box::new(move |bytes, on| publisher.read(bytes, on))
}

fn message(payload: &str, version: u64) -> String {
    format!(
        "{:?}",
        Told::Message {
            payload: payload.as_bytes(),
            version
        }
    )
}

#[test]
fn nats_is_understood_wherever_it_is_torn() {
    let opening = String::from_utf8(Subscriber::new(System::Nats, vec![3, 7]).opening()).unwrap();
    assert!(opening.ends_with("SUB o3 0\r\nSUB o7 1\r\nPING\r\n"), "{opening}");
    let bytes = b"INFO {\"a\":1}\r\nPONG\r\nPING\r\nMSG o3 0 5\r\nhello\r\nMSG o7 1 reply 2\r\n\r\n\r\n";
    let told = told(|| subscriber(System::Nats), bytes);
    assert_eq!(told[0], "Ready");
    assert_eq!(told[1], format!("{:?}", Told::Answer(b"PONG\r\n".to_vec())));
    assert_eq!(told[2..], [message("hello", 0), message("\r\n", 0)]);

    let mut out = Vec::new();
    Publisher::new(System::Nats).publish(3, "hello", &mut out);
    assert_eq!(out, b"PUB o3 5\r\nhello\r\n");
    let answers = self::told(|| publisher(System::Nats), b"INFO {}\r\n+OK\r\n+OK\r\n");
    assert_eq!(answers, ["Accepted { version: 0 }"; 2]);
}

#[test]
fn redis_is_understood_wherever_it_is_torn() {
    assert_eq!(
        Subscriber::new(System::Redis, vec![3, 7]).opening(),
        b"*3\r\n$9\r\nSUBSCRIBE\r\n$2\r\no3\r\n$2\r\no7\r\n"
    );
    let bytes = b"*3\r\n$9\r\nsubscribe\r\n$2\r\no3\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$2\r\no7\r\n:2\r\n*3\r\n$7\r\nmessage\r\n$2\r\no3\r\n$6\r\nhe\r\nlo\r\n";
    let told = told(|| subscriber(System::Redis), bytes);
    assert_eq!(told, ["Ready".to_owned(), message("he\r\nlo", 0)]);

    let mut out = Vec::new();
    Publisher::new(System::Redis).publish(3, "hello", &mut out);
    assert_eq!(out, b"*3\r\n$7\r\nPUBLISH\r\n$2\r\no3\r\n$5\r\nhello\r\n");
    let answers = self::told(|| publisher(System::Redis), b":0\r\n-ERR no\r\n:2\r\n");
    assert_eq!(
        answers,
        [
            "Accepted { version: 0 }",
            "Refused(\"ERR no\")",
            "Accepted { version: 0 }"
        ]
    );
}

/// A frame as a server sends it.
fn server_frame(opcode: u8, payload: &str) -> Vec<u8> {
    let head = if payload.len() < 126 {
        vec![0x80 | opcode, payload.len() as u8]
    } else {
        let size = (payload.len() as u16).to_be_bytes();
        vec![0x80 | opcode, 126, size[0], size[1]]
    };
    [head, payload.as_bytes().to_vec()].concat()
}

const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn nchan_is_understood_wherever_it_is_torn_and_is_come_back_to_with_the_last_message_id() {
    let long = "x".repeat(300);
    let bytes = [
        SWITCHED.to_vec(),
        server_frame(websocket::TEXT, "id: 17:[0],-\n\nhello"),
        server_frame(
            websocket::TEXT,
            &format!("id: 18:-,[0]\ncontent-type: text/plain\n\n{long}"),
        ),
        server_frame(websocket::PING, "are you there"),
    ]
    .concat();
    let said = told(|| subscriber(System::Nchan), &bytes);
    assert_eq!(said[..3], ["Ready".to_owned(), message("hello", 0), message(&long, 0)]);
    assert!(said[3].starts_with("Answer"));

    let mut back = Subscriber::new(System::Nchan, vec![3, 7]);
    let first = String::from_utf8(back.opening()).unwrap();
    assert!(
        first.starts_with("GET /sub/o3,o7 HTTP/1.1\r\n") && !first.contains("Last-Event-ID"),
        "{first}"
    );
    back.read(&bytes, &mut |_| {}).unwrap();
    let again = String::from_utf8(back.opening()).unwrap();
    assert!(again.contains("\r\nLast-Event-ID: 18:-,[0]\r\n"), "{again}");
}

#[test]
fn tidings_is_understood_wherever_it_is_torn_and_is_come_back_to_with_the_last_cursor() {
    let bytes = [
        SWITCHED.to_vec(),
        server_frame(websocket::TEXT, r#"{"hello":{"connection":"c"}}"#),
        server_frame(
            websocket::TEXT,
            "{\"subscribed\":{\"objects\":[]}}\n{\"cursor\":\"first\"}",
        ),
        server_frame(
            websocket::TEXT,
            r#"{"changes":[{"object":"o3","version":17,"data":"hello"},{"object":"o7","version":18}]}"#,
        ),
        server_frame(
            websocket::TEXT,
            r#"{"resync":{"objects":["o7"],"cause":"versions_lost"}}"#,
        ),
        server_frame(websocket::TEXT, r#"{"resync":{"all":true,"cause":"cursor_foreign"}}"#),
        server_frame(websocket::TEXT, r#"{"cursor":"last"}"#),
    ]
    .concat();
    let said = told(|| subscriber(System::Tidings), &bytes);
    assert!(said[0].starts_with("Answer"));
    assert_eq!(
        said[1..],
        [
            "Ready".to_owned(),
            message("hello", 17),
            "Changed { object: 7, version: 18 }".to_owned(),
            "Resync(Some([7]))".to_owned(),
            "Resync(None)".to_owned()
        ]
    );
    let mut back = Subscriber::new(System::Tidings, vec![3, 7]);
    back.opening();
    back.read(&bytes, &mut |_| {}).unwrap();
    assert_eq!(
        back.tidings_subscribe(),
        r#"{"subscribe":{"cursor":"last","objects":["o3","o7"]}}"#
    );

    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"version\":17}HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\n{}";
    assert_eq!(
        told(|| publisher(System::Tidings), answer),
        ["Accepted { version: 17 }", "Refused(\"status 503\")"]
    );
}

#[test]
fn what_is_not_the_protocol_breaks_the_connection_and_nothing_else() {
    for system in System::ALL {
        for bytes in [
            &b"garbage\r\n"[..],
            b"HTTP/1.1 403 No\r\n\r\n",
            b"*3\r\n$x\r\n",
            b"MSG\r\n",
            b"-ERR no\r\n",
            &[0x01; 40][..],
            b"\xff\xff\xff\xff\n",
        ] {
            let mut reader = Subscriber::new(system, vec![3]);
            reader.opening();
            let _ = reader.read(bytes, &mut |_| {});
            let _ = Publisher::new(system).read(bytes, &mut |_| {});
        }
        let mut reader = Subscriber::new(system, vec![3]);
        reader.opening();
        assert!(reader.read(b"garbage\r\n", &mut |_| {}).is_err(), "{system}");
        assert!(
            Publisher::new(system).read(b"garbage\r\n", &mut |_| {}).is_err(),
            "{system}"
        );
    }
    let huge = [0x81, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert!(websocket::frame(&huge).is_ok_and(|frame| frame.is_none()));
}

#[test]
fn a_sent_frame_is_masked_and_says_how_long_it_is() {
    for size in [0, 125, 126, 65_535, 65_536] {
        let sent = websocket::text(&"y".repeat(size));
        let head = match size {
            0..=125 => 2,
            126..=65_535 => 4,
            _ => 10,
        };
        assert_eq!(sent.len(), head + 4 + size);
        assert_eq!((sent[0], sent[1] & 0x80), (0x81, 0x80));
        let body = sent[head + 4..].iter().zip(sent[head..head + 4].iter().cycle());
        assert!(body.map(|(byte, mask)| byte ^ mask).all(|byte| byte == b'y'));
    }
}
