//! Nodes for tests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tidings::config::Config;
use tidings::{Node, RunningNode};
use tidings_client::{Change, Client, Transport, Version, Watch};
use tokio::time::timeout;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const TRANSPORTS: [Transport; 3] = [Transport::WebSocket, Transport::Events, Transport::LongPoll];

/// A node of two threads on a free port that sends cursors often, so that tests need not wait for them.
pub(crate) fn node(change: impl FnOnce(&mut Config)) -> RunningNode {
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".to_owned();
    config.server.threads = 2;
    config.server.data_dir = "none".to_owned();
    config.limits.cursor_ms = 50;
    config.limits.ping_ms = 500;
    config.limits.pong_ms = 30_000;
    config.owner.closed_busy_ms = 20;
    config.owner.closed_idle_ms = 100;
    config.drain.spread_ms = 300;
    change(&mut config);
    Node::start(config).expect("the node starts")
}

/// A client of these nodes that does not wait long before it comes back.
pub(crate) fn client(addresses: &[SocketAddr]) -> Client {
    let urls: Vec<String> = addresses.iter().map(|address| format!("http://{address}")).collect();
    Client::builder(urls)
        .waits(Duration::from_millis(50), Duration::from_millis(500))
        .grace(Duration::from_secs(5))
        .poll_wait(Duration::from_millis(300))
        .build()
        .expect("addresses")
}

pub(crate) async fn ready(watch: &Watch) {
    timeout(PATIENCE, watch.ready())
        .await
        .expect("in time")
        .expect("not stopped");
}

pub(crate) async fn next(watch: &mut Watch) -> Change {
    timeout(PATIENCE, watch.next())
        .await
        .expect("in time")
        .expect("not stopped")
}

/// Reads on until each of these objects was told at this version or above. No version may go back, and nothing may be
/// unknown.
pub(crate) async fn up_to(watch: &mut Watch, wanted: &BTreeMap<String, Version>) -> BTreeMap<String, Version> {
    let mut told = BTreeMap::new();
    while wanted
        .iter()
        .any(|(object, version)| told.get(object).is_none_or(|told| told < version))
    {
        let change = next(watch).await;
        let version = change.version.unwrap_or_else(|| panic!("a resync: {change:?}"));
        let before = told.insert(change.object.to_string(), version);
        assert!(
            before.is_none_or(|before| before < version),
            "{change:?} after {before:?}"
        );
    }
    told
}

/// Waits until the cursor that may be stored differs from `old`.
pub(crate) async fn another_cursor(watch: &mut Watch, old: Option<&str>) -> String {
    let found = async {
        loop {
            if let Some(change) = watch.try_next() {
                panic!("{change:?}");
            }
            match watch.cursor() {
                Some(cursor) if Some(&*cursor) != old => return cursor.to_string(),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(PATIENCE, found).await.expect("in time")
}

/// Waits until the cursor that may be stored speaks for everything up to this version.
pub(crate) async fn cursor_past(watch: &mut Watch, version: Version) -> String {
    let found = async {
        loop {
            if let Some(change) = watch.try_next() {
                panic!("{change:?}");
            }
            if let Some(text) = watch.cursor() {
                let cursor = tidings_protocol::Cursor::decode(&text).expect("a cursor");
                if cursor.base >= version && cursor.lagging.is_empty() {
                    return text.to_string();
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, found).await.expect("in time")
}
