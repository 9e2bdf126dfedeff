//! A node that asks who is there, and credentials for it. Tokens are made by a library that the server does not ask.

use super::ear::Ear as _;
use super::events::Events;
use super::eventually;
use super::http::{Answer, Raw, send};
use super::ws::Ws;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};
use tidings::config::Config;
use tidings::{Node, RunningNode};

pub(crate) const SECRET: &str = "a secret of the tests, 32 bytes or more";
pub(crate) const PUBLISHER: &str = "tidings_key_of_the_publisher";
pub(crate) const OPERATOR: &str = "tidings_key_of_the_operator";

/// What the tests' policy grants: each subject its own `user:…:*`, tokens what they say below `room:` and `user:`; the publisher
/// `room:*`, `user:*` and `news`; the operator everything.
pub(crate) const POLICY: &str = r#"
[[key]]
name = "publisher"
sha256 = ["PUBLISHER"]
publish = ["room:*", "user:*", "news"]

[[key]]
name = "operator"
sha256 = ["OPERATOR"]
subscribe = ["*"]
publish = ["*"]
admin = true

[[issuer]]
name = "tests"
audience = ["tidings"]
every.subscribe = ["user:{subject}:*"]
most.subscribe = ["room:*", "user:*"]
most.publish = ["room:*"]
most.admin = true

[[issuer.key]]
kid = "k1"
algorithm = "HS256"
file = "secret"
"#;

/// A node with a policy in a folder of its own.
pub(crate) struct Door {
    pub(crate) node: RunningNode,
    pub(crate) folder: tempfile::TempDir,
}

fn sha256(text: &str) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The policy with its hashes, and the secret beside it.
pub(crate) fn write_policy(folder: &std::path::Path, policy: &str) {
    let policy = policy
        .replace("PUBLISHER", &sha256(PUBLISHER))
        .replace("OPERATOR", &sha256(OPERATOR));
    std::fs::write(folder.join("secret"), format!("{SECRET}\n")).expect("written");
    std::fs::write(folder.join("policy.toml"), policy).expect("written");
}

/// Names the policy in a configuration.
pub(crate) fn configure(config: &mut Config, folder: &std::path::Path) {
    config.auth.policy_file = folder.join("policy.toml").display().to_string();
}

impl Door {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write_policy(folder.path(), POLICY);
        Self::of(folder, change)
    }

    pub(crate) fn of(folder: tempfile::TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.server.listen = "127.0.0.1:0".to_owned();
        config.server.threads = 2;
        config.server.data_dir = "none".to_owned();
        config.limits.cursor_ms = 50;
        config.limits.ping_ms = 200;
        config.limits.pong_ms = 30_000;
        config.owner.closed_busy_ms = 20;
        config.owner.closed_idle_ms = 100;
        config.drain.spread_ms = 500;
        configure(&mut config, folder.path());
        change(&mut config);
        let node = Node::start(config).expect("the node starts");
        let door = Self { node, folder };
        door.settle();
        door
    }

    /// As for nodes that ask nobody: until every thread knows how far versions go back.
    #[track_caller]
    fn settle(&self) {
        let cluster = self.get("/v1/cluster", OPERATOR).ok();
        let shards = cluster["shards"].as_array().expect("shards");
        let floors = shards.iter().filter_map(|shard| shard["floor"].as_u64());
        let floor = floors.max().expect("a floor");
        for _ in 0..4 {
            let raw = Raw::open(self.at());
            Events::open_with(raw, "/v1/events?object=settling", &bearer(OPERATOR)).up_to(floor);
        }
        eventually("nobody is connected", || {
            self.get("/v1/connections", OPERATOR).ok()["connections"] == json!([])
        });
    }

    pub(crate) fn at(&self) -> SocketAddr {
        self.node.addr
    }

    #[track_caller]
    pub(crate) fn get(&self, target: &str, credential: &str) -> Answer {
        send(self.at(), "GET", target, &bearer(credential), b"")
    }

    #[track_caller]
    pub(crate) fn post(&self, target: &str, credential: &str, body: &Value) -> Answer {
        let headers = format!("{}Content-Type: application/json\r\n", bearer(credential));
        send(self.at(), "POST", target, &headers, body.to_string().as_bytes())
    }

    /// The publisher publishes.
    #[track_caller]
    pub(crate) fn publish(&self, object: &str) -> u64 {
        let answer = self.post("/v1/publish", PUBLISHER, &json!({ "object": object }));
        answer.ok()["version"].as_u64().expect("a version")
    }

    /// A WebSocket whose handshake brings a credential.
    #[track_caller]
    pub(crate) fn ws(&self, credential: &str) -> Ws {
        Ws::open_bearing(self.at(), credential)
    }

    /// A number of the metrics; zero if it is not there.
    #[track_caller]
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = self.get("/metrics", OPERATOR).text();
        let found = text
            .lines()
            .find_map(|known| known.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0.0, |number| number.parse().expect("a number"))
    }
}

/// The header line that brings a credential; nothing for none.
pub(crate) fn bearer(credential: &str) -> String {
    match credential {
        "" => String::new(),
        credential => format!("Authorization: Bearer {credential}\r\n"),
    }
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
}

/// A token with these claims in place of the usual ones; `null` takes one away.
pub(crate) fn token(changed: &Value) -> String {
    token_of(&Header::default(), SECRET, changed)
}

/// The same with a header and a secret of its own.
pub(crate) fn token_of(header: &Header, secret: &str, changed: &Value) -> String {
    let mut claims = json!({
        "iss": "tests", "aud": "tidings", "sub": "alice", "iat": now_s(), "exp": now_s() + 600,
    });
    for (name, value) in changed.as_object().expect("a map") {
        match value {
            Value::Null => _ = claims.as_object_mut().expect("a map").remove(name),
            value => claims[name] = value.clone(),
        }
    }
    jsonwebtoken::encode(header, &claims, &EncodingKey::from_secret(secret.as_bytes())).expect("a token")
}

/// A token of this subject that may watch these.
pub(crate) fn watching(subject: &str, subscribe: &[&str]) -> String {
    token(&json!({ "sub": subject, "tidings": { "subscribe": subscribe } }))
}
