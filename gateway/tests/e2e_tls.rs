//! TLS on the public listener, and operators on a listener of their own. The client is rustls, driven by hand.

#[path = "support/support.rs"]
mod support;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::*;
use tidings::config::Config;
use tidings::{Node, RunningNode};

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Writes a fresh certificate and key for `localhost`; gives the certificate.
fn certify(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("written");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    made.cert.der().clone()
}

fn start(folder: &Path, change: impl FnOnce(&mut Config)) -> RunningNode {
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".to_owned();
    config.server.threads = 2;
    config.server.data_dir = "none".to_owned();
    config.server.tls_cert_file = folder.join("cert.pem").display().to_string();
    config.server.tls_key_file = folder.join("key.pem").display().to_string();
    config.limits.cursor_ms = 50;
    change(&mut config);
    Node::start(config).expect("the node starts")
}

fn connect(address: SocketAddr, root: &CertificateDer<'static>) -> std::io::Result<Stream> {
    shake_hands(TcpStream::connect(address)?, root)
}

fn shake_hands(mut tcp: TcpStream, root: &CertificateDer<'static>) -> std::io::Result<Stream> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut tls = ClientConnection::new(Arc::new(config), name).expect("a client");
    tcp.set_read_timeout(Some(PATIENCE))?;
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp)?;
    }
    Ok(StreamOwned::new(tls, tcp))
}

/// One request; the answer's head and body.
fn request(stream: &mut Stream, head: &str, body: &str) -> String {
    let length = body.len();
    write!(
        stream,
        "{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("sent");
    let mut text = String::new();
    // A server that closes without saying so at the end is told by the length.
    _ = stream.read_to_string(&mut text);
    text
}

/// A WebSocket over TLS: reads frames of text by hand.
struct Socket(Stream);

impl Socket {
    fn open(address: SocketAddr, root: &CertificateDer<'static>) -> Self {
        let mut stream = connect(address, root).expect("connected");
        write!(stream, "{HANDSHAKE}\r\n").expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        Self(stream)
    }

    fn say(&mut self, request: &Value) {
        self.0
            .write_all(&frame(0x81, request.to_string().as_bytes()))
            .expect("sent");
    }

    /// The next text.
    fn hear(&mut self) -> Value {
        loop {
            let mut head = [0; 2];
            self.0.read_exact(&mut head).expect("a frame");
            let length = match head[1] {
                126 => {
                    let mut long = [0; 2];
                    self.0.read_exact(&mut long).expect("a length");
                    usize::from(u16::from_be_bytes(long))
                }
                127 => {
                    let mut long = [0; 8];
                    self.0.read_exact(&mut long).expect("a length");
                    u64::from_be_bytes(long) as usize
                }
                short => usize::from(short),
            };
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).expect("a payload");
            if head[0] == 0x81 {
                let text = String::from_utf8(payload).expect("text");
                return serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
            }
        }
    }

    fn hear_of(&mut self, name: &str) -> Value {
        loop {
            let told = self.hear();
            if told.get(name).is_some() {
                return told;
            }
        }
    }
}

#[test]
fn everything_is_spoken_through_tls_and_nothing_in_the_clear() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = certify(folder.path());
    let node = start(folder.path(), |_| {});
    let mut socket = Socket::open(node.addr, &root);
    socket.hear_of("hello");
    socket.say(&json!({"subscribe": {"objects": ["a"]}, "id": 1}));
    socket.hear_of("subscribed");
    let text = request(
        &mut connect(node.addr, &root).expect("connected"),
        "POST /v1/publish",
        r#"{"object":"a","data":1}"#,
    );
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let changes = socket.hear_of("changes");
    assert_eq!(changes["changes"][0]["object"], "a", "{changes}");
    let mut clear = Raw::open(node.addr);
    clear.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = clear.rest();
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn a_slow_reader_through_tls_is_told_the_newest_version_when_it_reads_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = certify(folder.path());
    let node = start(folder.path(), |_| {});
    let mut socket = Socket::open(node.addr, &root);
    let objects: Vec<String> = (0..500).map(|n| format!("{n:0200}")).collect();
    socket.say(&json!({"subscribe": {"objects": objects}, "id": 1}));
    socket.hear_of("subscribed");
    // Far more than the kernel takes for somebody who does not read.
    let changes: Vec<Value> = objects
        .iter()
        .map(|object| json!({"object": object, "data": "x".repeat(100)}))
        .collect();
    let body = json!({"changes": changes}).to_string();
    let mut newest = json!(null);
    for _ in 0..20 {
        let text = request(
            &mut connect(node.addr, &root).expect("connected"),
            "POST /v1/publish",
            &body,
        );
        let json = &text[text.find("\r\n\r\n").expect("a body")..];
        newest = serde_json::from_str::<Value>(json.trim()).expect("JSON")["results"][499]["version"].clone();
    }
    let mut told = 0;
    loop {
        let batch = socket.hear_of("changes");
        let batch = batch["changes"].as_array().expect("changes").clone();
        told += batch.len();
        let last = batch.iter().find(|change| change["object"] == objects[499].as_str());
        if last.is_some_and(|change| change["version"] == newest) {
            break;
        }
    }
    assert!(told < 20 * 500, "most were told once for several: {told}");
}

#[test]
fn a_certificate_is_read_again_without_dropping_a_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = certify(folder.path());
    let node = start(folder.path(), |_| {});
    let mut open = Socket::open(node.addr, &old);
    open.say(&json!({"subscribe": {"objects": ["a"]}, "id": 1}));
    open.hear_of("subscribed");
    let new = certify(folder.path());
    assert!(connect(node.addr, &new).is_err(), "not before it is read");
    let text = request(&mut connect(node.addr, &old).expect("connected"), "POST /v1/reload", "");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let mut fresh = connect(node.addr, &new).expect("the new one is shown");
    assert!(connect(node.addr, &old).is_err());
    assert!(request(&mut fresh, "POST /v1/publish?object=a", "").starts_with("HTTP/1.1 200"));
    open.hear_of("changes");
    // Of files that make no sense nothing is taken.
    for (name, text) in [("cert.pem", "nonsense"), ("key.pem", "nonsense")] {
        let good = std::fs::read(folder.path().join(name)).expect("read");
        std::fs::write(folder.path().join(name), text).expect("written");
        let text = request(&mut connect(node.addr, &new).expect("connected"), "POST /v1/reload", "");
        assert!(
            text.starts_with("HTTP/1.1 400") && text.contains("nothing was changed"),
            "{text}"
        );
        std::fs::write(folder.path().join(name), good).expect("written");
    }
    let key = std::fs::read(folder.path().join("key.pem")).expect("read");
    certify(folder.path());
    std::fs::write(folder.path().join("key.pem"), key).expect("written");
    let text = request(&mut connect(node.addr, &new).expect("connected"), "POST /v1/reload", "");
    assert!(text.contains("does not belong"), "a key of another certificate: {text}");
    assert!(connect(node.addr, &new).is_ok());
}

#[test]
fn a_node_without_its_certificate_does_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    certify(folder.path());
    for name in ["cert.pem", "key.pem"] {
        let good = std::fs::read(folder.path().join(name)).expect("read");
        for bad in [
            &b""[..],
            b"nonsense",
            b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
        ] {
            std::fs::write(folder.path().join(name), bad).expect("written");
            let mut config = Config::default();
            config.server.listen = "127.0.0.1:0".to_owned();
            config.server.data_dir = "none".to_owned();
            config.server.tls_cert_file = folder.path().join("cert.pem").display().to_string();
            config.server.tls_key_file = folder.path().join("key.pem").display().to_string();
            let error = Node::start(config)
                .map(drop)
                .expect_err("it does not start")
                .to_string();
            assert!(error.contains(name), "{error}");
        }
        std::fs::write(folder.path().join(name), good).expect("written");
    }
}

#[test]
fn who_does_not_come_to_a_handshake_is_closed_and_disturbs_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = certify(folder.path());
    let node = start(folder.path(), |config| config.limits.tls_handshake_ms = 500);
    let since = Instant::now();
    let mut silent = Raw::open(node.addr);
    let mut dripping = Raw::open(node.addr);
    dripping.send([0x16]);
    let mut garbage = Raw::open(node.addr);
    garbage.send([0x16, 3, 1, 0xff, 0xff]);
    garbage.try_send(vec![0xff; 100_000]);
    assert_eq!(
        garbage.rest().first().copied().unwrap_or(0x15),
        0x15,
        "an alert at most"
    );
    assert!(silent.is_closed() && dripping.is_closed());
    assert!(since.elapsed() >= Duration::from_millis(400), "not before its time");
    assert!(request(&mut connect(node.addr, &root).expect("connected"), "GET /healthz", "").contains("ok"));
}

#[test]
fn a_proxy_that_passes_tls_on_says_before_it_whom_it_saw() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = certify(folder.path());
    let node = start(folder.path(), |config| {
        config.server.trusted_proxies = vec!["127.0.0.2".to_owned()];
        config.server.proxy_protocol = true;
    });
    let mut raw = Raw::open_from([127, 0, 0, 2].into(), node.addr);
    raw.send("PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n");
    let mut tls = shake_hands(raw.stream, &root).expect("a handshake");
    write!(tls, "GET /v1/events?object=a HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    tls.read_exact(&mut [0; 15]).expect("a head");
    let list = request(
        &mut connect(node.addr, &root).expect("connected"),
        "GET /v1/connections",
        "",
    );
    assert!(list.contains("\"address\":\"[2001:db8::7]:4711\""), "{list}");
    let direct = Raw::open_from([127, 0, 0, 2].into(), node.addr);
    assert!(
        shake_hands(direct.stream, &root).is_err(),
        "a proxy that does not say so"
    );
}

#[test]
fn operators_have_a_listener_of_their_own() {
    let node = node_apart();
    let admin = node.node.admin_address.expect("a listener");
    for target in [
        "/metrics",
        "/v1/cluster",
        "/v1/connections",
        "/v1/explain?connection=0-0-0&object=a",
        "/v1/reload",
    ] {
        assert_eq!(get(node.addr, target).status, 404, "{target}");
    }
    for target in ["/metrics", "/v1/cluster", "/v1/connections"] {
        assert_eq!(get(admin, target).status, 200, "{target}");
    }
    assert_eq!(post_json(node.addr, "/v1/reload", &json!({})).status, 404);
    assert_eq!(post_json(admin, "/v1/reload", &json!({})).status, 200);
    for target in ["/v1/poll?object=a", "/v1/events?object=a", "/v1/ws"] {
        assert_eq!(get(admin, target).status, 404, "{target}");
    }
    for at in [node.addr, admin] {
        assert_eq!(get(at, "/healthz").status, 200);
        assert_eq!(get(at, "/readyz").status, 200);
    }
    publish(node.addr, "a");
    assert!(
        get(admin, "/metrics")
            .text()
            .contains("tidings_changes_published_total 1")
    );
}

fn node_apart() -> RunningNode {
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".to_owned();
    config.server.admin_listen = "127.0.0.1:0".to_owned();
    config.server.threads = 2;
    config.server.data_dir = "none".to_owned();
    Node::start(config).expect("the node starts")
}
