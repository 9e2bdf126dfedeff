//! Watching real nodes by every transport.

use super::support::{PATIENCE, TRANSPORTS, another_cursor, client, cursor_past, next, node, ready, up_to};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tidings_client::{Client, NewChange, Status, StopReason, Transport, Version};
use tokio::time::timeout;

async fn publish(client: &Client, object: &str) -> Version {
    client
        .publish(object)
        .send()
        .await
        .expect("published")
        .version
        .expect("a version")
}

#[tokio::test]
async fn a_change_is_told_with_its_hints_and_origin() {
    let node = node(|_| {});
    let client = client(&[node.addr]);
    for transport in TRANSPORTS {
        let mut watch = client
            .watch(["order:42"])
            .transport(transport)
            .trace()
            .start()
            .expect("an ID");
        ready(&watch).await;
        let change = NewChange::new("order:42")
            .kind("paid")
            .data(serde_json::json!({"total": 12}));
        let published = client.publish(change).trace().send().await.expect("published");
        let told = next(&mut watch).await;
        assert_eq!(&*told.object, "order:42");
        assert_eq!(told.version, published.version, "{transport:?}");
        assert_eq!(
            (told.kind.as_deref(), told.data.as_deref()),
            (Some("paid"), Some("{\"total\":12}"))
        );
        assert_eq!(told.trace, published.trace);
        assert!(told.trace.is_some());
        assert_eq!(watch.handle().version("order:42"), published.version);
        let Status::Live { transport: used, .. } = watch.status() else {
            panic!("{:?}", watch.status())
        };
        assert_eq!(used, transport);
    }
}

#[tokio::test]
async fn objects_come_and_go_on_a_live_watch() {
    let node = node(|_| {});
    let client = client(&[node.addr]);
    for transport in TRANSPORTS {
        let name = |name: &str| format!("{transport:?} {name}");
        let mut watch = client.watch([name("a")]).transport(transport).start().expect("an ID");
        ready(&watch).await;
        watch.add([name("b"), name("c")]).expect("IDs");
        ready(&watch).await;
        let b = publish(&client, &name("b")).await;
        let told = next(&mut watch).await;
        assert_eq!((told.object.to_string(), told.version), (name("b"), Some(b)));
        watch.remove([name("b")]);
        publish(&client, &name("b")).await;
        let c = publish(&client, &name("c")).await;
        let told = next(&mut watch).await;
        assert_eq!(
            (told.object.to_string(), told.version),
            (name("c"), Some(c)),
            "and nothing of b"
        );
        assert!(watch.add(["\n"]).is_err());
        assert_eq!(watch.handle().objects().len(), 2);
    }
}

#[tokio::test]
async fn a_later_watch_resumes_where_the_first_was_done() {
    let node = node(|_| {});
    let client = client(&[node.addr]);
    for (at, transport) in TRANSPORTS.into_iter().enumerate() {
        let name = |n: usize| format!("{transport:?} {n}");
        let mut watch = client
            .watch((0..3).map(name))
            .transport(transport)
            .start()
            .expect("IDs");
        ready(&watch).await;
        let handled = publish(&client, &name(0)).await;
        assert_eq!(next(&mut watch).await.version, Some(handled));
        let cursor = cursor_past(&mut watch, handled).await;
        drop(watch);
        let missed = publish(&client, &name(1)).await;
        // By another transport: a cursor belongs to none.
        let other = TRANSPORTS[(at + 1) % TRANSPORTS.len()];
        let again = client.watch((0..3).map(name)).transport(other).resume(cursor);
        let mut watch = again.start().expect("IDs");
        ready(&watch).await;
        let last = publish(&client, &name(2)).await;
        let told = up_to(&mut watch, &BTreeMap::from([(name(1), missed), (name(2), last)])).await;
        assert_eq!(told.len(), 2, "what was handled is not told again: {told:?}");
    }
}

#[tokio::test]
async fn what_was_told_and_not_handled_is_told_again_after_a_crash() {
    let node = node(|_| {});
    let client = client(&[node.addr]);
    let mut watch = client.watch(["a", "b"]).start().expect("IDs");
    ready(&watch).await;
    let cursor = another_cursor(&mut watch, None).await;
    let wanted = publish(&client, "a").await;
    let change = next(&mut watch).await;
    assert_eq!(change.version, Some(wanted));
    // Cursors come, but the change is still in our hands.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let stored = watch.cursor().expect("a cursor");
    drop(watch);
    let mut watch = client.watch(["a", "b"]).resume(&*stored).start().expect("IDs");
    assert_eq!(next(&mut watch).await.version, Some(wanted));
    drop(watch);
    _ = cursor;
}

#[tokio::test]
async fn by_hand_the_cursor_waits_for_the_last_acknowledgement() {
    let node = node(|_| {});
    let client = client(&[node.addr]);
    let mut watch = client.watch(["a", "b"]).ack_by_hand().start().expect("IDs");
    ready(&watch).await;
    let before = another_cursor(&mut watch, None).await;
    publish(&client, "a").await;
    let a = next(&mut watch).await;
    publish(&client, "b").await;
    let b = next(&mut watch).await;
    watch.ack(&b);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let stored = watch.cursor().expect("a cursor").to_string();
    let mut again = client.watch(["a", "b"]).resume(stored).start().expect("IDs");
    let told = next(&mut again).await;
    assert_eq!(told.version, a.version, "a was not acknowledged");
    watch.ack(&a);
    let after = another_cursor(&mut watch, Some(&before)).await;
    assert_ne!(after, before);
}

/// Starts a node again at the same address, once the old one has let it go.
fn again(address: SocketAddr, dir: &std::path::Path) -> tidings::RunningNode {
    let started = std::time::Instant::now();
    loop {
        let mut config = tidings::config::Config::default();
        config.server.listen = address.to_string();
        config.server.threads = 2;
        config.server.data_dir = dir.to_str().expect("UTF-8").to_owned();
        config.limits.cursor_ms = 50;
        config.owner.closed_idle_ms = 100;
        match tidings::Node::start(config) {
            Ok(node) => return node,
            // The address or the directory is still in use.
            Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test]
async fn a_restart_of_the_node_under_a_live_watch_misses_nothing_and_tells_nobody_to_resync() {
    for transport in TRANSPORTS {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().to_str().expect("UTF-8").to_owned();
        let mut running = node(|config| config.server.data_dir = path);
        let address = running.addr;
        let client = client(&[address]);
        let names: Vec<String> = (0..20).map(|n| format!("o{n}")).collect();
        let mut watch = client.watch(names.clone()).transport(transport).start().expect("IDs");
        ready(&watch).await;
        let mut wanted = BTreeMap::new();
        for round in 0..2 {
            for name in &names {
                // Some tries meet the restart: the key makes them harmless.
                let sent = client
                    .publish(name.as_str())
                    .idempotent()
                    .timeout(PATIENCE)
                    .send()
                    .await;
                wanted.insert(name.clone(), sent.expect("published").version.expect("a version"));
                if name == "o7" {
                    let dir = dir.path().to_owned();
                    running = tokio::task::spawn_blocking(move || {
                        running.shutdown();
                        again(address, &dir)
                    })
                    .await
                    .expect("restarted");
                }
            }
            let told = up_to(&mut watch, &wanted).await;
            assert_eq!(
                told.keys().collect::<Vec<_>>(),
                wanted.keys().collect::<Vec<_>>(),
                "{transport:?} {round}"
            );
        }
    }
}

#[tokio::test]
async fn a_node_that_drains_sends_its_watchers_to_another() {
    for transport in TRANSPORTS {
        let (one, two) = (node(|_| {}), node(|_| {}));
        let client = client(&[one.addr, two.addr]);
        let mut watch = client.watch(["a"]).transport(transport).start().expect("an ID");
        ready(&watch).await;
        let Status::Live { server: first, .. } = watch.status() else {
            panic!("{:?}", watch.status())
        };
        let mut nodes = [Some(one), Some(two)];
        nodes[first].as_ref().expect("a node").drain();
        let handle = watch.handle();
        let moved = handle.until(|status| matches!(status, Status::Live { server, .. } if *server != first));
        timeout(PATIENCE, moved).await.expect("in time");
        // The other node is another cluster here: it cannot vouch, and says so.
        let told = next(&mut watch).await;
        assert_eq!(
            (told.version, told.cause.as_deref()),
            (None, Some("cursor_foreign")),
            "{transport:?}"
        );
        // And it is heard from then on.
        let other = nodes[1 - first].take().expect("a node");
        let own = super::support::client(&[other.addr]);
        let version = publish(&own, "a").await;
        assert_eq!(next(&mut watch).await.version, Some(version));
    }
}

#[tokio::test]
async fn a_slow_handler_hears_the_newest_and_its_connection_lives() {
    let node = node(|config| config.limits.pong_ms = 1000);
    let client = client(&[node.addr]);
    let mut watch = client
        .watch(["a"])
        .transport(Transport::WebSocket)
        .start()
        .expect("an ID");
    ready(&watch).await;
    publish(&client, "a").await;
    _ = next(&mut watch).await;
    let mut newest = Version(0);
    // Longer than the server's patience with one that does not pong.
    for _ in 0..25 {
        newest = publish(&client, "a").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(
        next(&mut watch).await.version,
        Some(newest),
        "what lies between has coalesced"
    );
    assert!(matches!(watch.status(), Status::Live { .. }));
    assert_eq!(watch.try_next(), None);
}

#[tokio::test]
async fn thousands_of_objects_are_asked_for_in_pages() {
    let node = node(|config| config.limits.objects_per_connection = 5000);
    let client = client(&[node.addr]);
    let names: Vec<String> = (0..4000)
        .map(|n| format!("an object with a name of some length {n}"))
        .collect();
    let mut watch = client
        .watch(names.clone())
        .transport(Transport::WebSocket)
        .start()
        .expect("IDs");
    ready(&watch).await;
    let mut wanted = BTreeMap::new();
    for results in names.chunks(500) {
        let results = client
            .publish_batch(results.iter().map(String::as_str))
            .send()
            .await
            .expect("published");
        for result in results {
            let name = names[wanted.len()].clone();
            wanted.insert(name, result.expect("published").version.expect("a version"));
        }
    }
    let told = up_to(&mut watch, &wanted).await;
    assert_eq!(told, wanted);
}

#[tokio::test]
async fn more_objects_than_the_server_allows_are_refused_by_name() {
    let node = node(|config| config.limits.objects_per_connection = 3);
    let client = client(&[node.addr]);
    let watch = client
        .watch(["a", "b", "c", "d"])
        .transport(Transport::WebSocket)
        .start()
        .expect("IDs");
    ready(&watch).await;
    let refused = watch.handle().refused();
    assert_eq!(refused.len(), 1);
    let (object, why) = &refused[0];
    assert_eq!((&**object, &*why.code, why.retryable), ("d", "too_many_objects", false));
    for transport in [Transport::Events, Transport::LongPoll] {
        let watch = client
            .watch(["a", "b", "c", "d"])
            .transport(transport)
            .start()
            .expect("IDs");
        let stop = timeout(PATIENCE, watch.ready())
            .await
            .expect("in time")
            .expect_err("too many");
        assert_eq!(stop.reason, StopReason::Limit, "{stop}");
    }
}

#[tokio::test]
async fn an_operator_closes_a_watch_for_good_and_it_says_so() {
    let node = node(|_| {});
    let client = client(&[node.addr]);
    let mut watch = client
        .watch(["a"])
        .transport(Transport::WebSocket)
        .start()
        .expect("an ID");
    ready(&watch).await;
    let connections = super::support_http(node.addr, "GET", "/v1/connections").await;
    let connections: serde_json::Value = serde_json::from_str(&connections).expect("JSON");
    let name = connections["connections"][0]["connection"]
        .as_str()
        .expect("a name")
        .to_owned();
    super::support_http(node.addr, "DELETE", &format!("/v1/connections/{name}")).await;
    assert_eq!(timeout(PATIENCE, watch.next()).await.expect("in time"), None);
    assert_eq!(watch.stopped().expect("stopped").reason, StopReason::Operator);
}

#[tokio::test]
async fn a_cursor_of_another_cluster_tells_to_fetch_everything_once() {
    let (old, new) = (node(|_| {}), node(|_| {}));
    for transport in TRANSPORTS {
        let mut watch = client(&[old.addr])
            .watch(["a", "b"])
            .transport(transport)
            .start()
            .expect("IDs");
        ready(&watch).await;
        let cursor = another_cursor(&mut watch, None).await;
        drop(watch);
        let other = client(&[new.addr]);
        let mut watch = other
            .watch(["a", "b"])
            .transport(transport)
            .resume(cursor)
            .start()
            .expect("IDs");
        let mut told = [next(&mut watch).await, next(&mut watch).await];
        told.sort_by(|a, b| a.object.cmp(&b.object));
        for (change, object) in told.iter().zip(["a", "b"]) {
            assert_eq!((&*change.object, change.version), (object, None));
            assert_eq!(change.cause.as_deref(), Some("cursor_foreign"));
        }
        let version = publish(&other, "a").await;
        assert_eq!(next(&mut watch).await.version, Some(version));
    }
}

#[tokio::test]
async fn a_session_that_the_server_forgot_is_made_again_and_nothing_is_missed() {
    let node = node(|config| config.limits.session_ms = 1000);
    let polls = Client::builder(format!("http://{}", node.addr))
        .transport(Transport::LongPoll)
        .poll_wait(Duration::from_millis(300))
        .build()
        .expect("an address");
    let mut watch = polls.watch(["a"]).start().expect("an ID");
    ready(&watch).await;
    let connections = super::support_http(node.addr, "GET", "/v1/connections").await;
    let connections: serde_json::Value = serde_json::from_str(&connections).expect("JSON");
    let name = connections["connections"][0]["connection"]
        .as_str()
        .expect("a name")
        .to_owned();
    let version = publish(&polls, "a").await;
    super::support_http(node.addr, "DELETE", &format!("/v1/connections/{name}")).await;
    assert_eq!(next(&mut watch).await.version, Some(version));
    let version = publish(&polls, "a").await;
    assert_eq!(next(&mut watch).await.version, Some(version));
}
