//! What those who look after a node ask it.

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use support::*;

#[test]
fn alive_and_ready_are_said_plainly_and_reveal_nothing() {
    let node = node();
    let alive = get(node.addr, "/healthz");
    assert_eq!((alive.status, alive.text().trim()), (200, "ok"));
    let ready = get(node.addr, "/readyz");
    assert_eq!(ready.ok(), json!({ "ready": true, "reasons": [] }));
    assert_eq!(ready.header("cache-control"), Some("no-store"));
}

/// Checks the text of `/metrics` line by line; gives the samples.
#[track_caller]
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut kinds: BTreeMap<String, String> = BTreeMap::new();
    let (mut all, mut family, mut closed) = (BTreeMap::new(), String::new(), BTreeSet::new());
    let name_is_fine = |name: &str| {
        let mut bytes = name.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
    };
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.last(), Some(&"# EOF"));
    for line in &lines[..lines.len() - 1] {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (word, name, rest) = (
                words.next().expect("a word"),
                words.next().expect("a name"),
                words.next().unwrap_or_default(),
            );
            assert!(["HELP", "TYPE", "UNIT"].contains(&word), "{line}");
            assert!(
                name_is_fine(name) && (name.starts_with("tidings_") || name.starts_with("process_")),
                "{line}"
            );
            if name != family {
                assert!(closed.insert(family.clone()), "{line}");
                assert!(!closed.contains(name), "the samples of {name} are not together");
                name.clone_into(&mut family);
            }
            if word == "TYPE" {
                assert!(
                    ["counter", "gauge", "histogram", "info", "unknown"].contains(&rest),
                    "{line}"
                );
                assert!(
                    kinds.insert(name.to_owned(), rest.to_owned()).is_none(),
                    "{name} has two types"
                );
            }
            if word == "HELP" {
                assert!(rest.len() > 3 && rest.ends_with('.'), "{line}");
            }
            continue;
        }
        let (id, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let (name, labels) = id
            .split_once('{')
            .map_or((id, None), |(name, rest)| (name, rest.strip_suffix('}')));
        assert!(name_is_fine(name), "{line}");
        let kind = kinds.get(&family).unwrap_or_else(|| panic!("{line}: no TYPE before"));
        let suffixes: &[&str] = match kind.as_str() {
            "counter" => &["_total", "_created"],
            "histogram" => &["_bucket", "_sum", "_count", "_created"],
            "info" => &["_info"],
            _ => &[""],
        };
        assert!(
            suffixes.iter().any(|suffix| name == format!("{family}{suffix}")),
            "{line} does not belong to {family} ({kind})"
        );
        if let Some(labels) = labels {
            for label in labels.split("\",") {
                let (label, value) = label.split_once("=\"").unwrap_or_else(|| panic!("a label of {line}"));
                assert!(
                    name_is_fine(label) && !value.trim_end_matches('"').contains(['"', '\n']),
                    "{line}"
                );
            }
        } else {
            assert!(!id.contains(['{', '}']), "{line}");
        }
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(value >= 0.0, "{line}");
        assert!(all.insert(id.to_owned(), value).is_none(), "twice: {line}");
    }
    assert!(!all.is_empty());
    all
}

#[test]
fn metrics_are_well_formed_and_count_what_happened() {
    let node = node();
    let at = node.addr;
    let before = samples(&get(at, "/metrics").text());
    let mut ws = Ws::open(at);
    ws.subscribe(&["a"]);
    let told = publish_all(at, &["a", "b", "c"]);
    post_json(
        at,
        "/v1/publish",
        &json!({ "changes": [{ "object": "" }, { "object": "d" }] }),
    )
    .ok();
    ws.until_told(&[("a", told[0].1)]);
    let classic = send(at, "GET", "/metrics", "Accept: text/plain;version=0.0.4\r\n", b"");
    assert_eq!(
        classic.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(
        classic
            .text()
            .contains("\n# TYPE tidings_changes_published_total counter\n")
    );
    assert!(!classic.text().contains("# EOF"));
    let both = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n";
    assert!(send(at, "GET", "/metrics", both, b"").text().ends_with("# EOF\n"));
    let answer = get(at, "/metrics");
    assert!(
        answer
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("application/openmetrics-text"))
    );
    let after = samples(&answer.text());
    let grew = |name: &str| {
        after.get(name).unwrap_or_else(|| panic!("{name}")) - before.get(name).unwrap_or_else(|| panic!("{name}"))
    };
    assert!((grew("tidings_changes_published_total") - 4.0).abs() < 0.5);
    assert!((grew("tidings_changes_rejected_total") - 1.0).abs() < 0.5);
    assert!(grew("tidings_http_requests_total") >= 3.0);
    assert!(after["tidings_connections_open"] >= 2.0);
    let defaults = tidings::config::Config::default();
    assert!(
        (after["tidings_limit{name=\"objects_per_connection\"}"] - defaults.limits.objects_per_connection as f64).abs()
            < 0.5
    );
    assert!(after["process_resident_memory_bytes"] > 1e6 && after["process_start_time_seconds"] > 1.5e9);
    assert!(
        after
            .keys()
            .any(|name| name.starts_with("tidings_lane_cursor_lag_seconds{")),
        "{after:?}"
    );
    assert!(after.contains_key("tidings_lane_resyncs_total{thread=\"0\",cause=\"versions_lost\"}"));
    // How full bounds are is looked at each second.
    let used = "tidings_limit_used{name=\"connections\"}";
    eventually("the WebSocket is counted as a use of connections", || {
        let now = samples(&get(at, "/metrics").text());
        now.get(used).is_some_and(|used| *used >= 1.0) && now.contains_key("tidings_limit_max{name=\"connections\"}")
    });
    // Counters only grow.
    for (name, value) in &before {
        if name.contains("_total") {
            assert!(after.get(name).is_some_and(|after| after >= value), "{name}");
        }
    }
    // No label names an object or an address.
    assert!(
        !after
            .keys()
            .any(|name| name.contains("127.0.0.1") || name.contains("\"a\""))
    );
}

#[test]
fn the_openapi_document_lists_every_route_and_nothing_else() {
    let node = node();
    let document = get(node.addr, "/openapi.json").ok();
    assert!(
        document["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3."))
    );
    let expected: BTreeMap<&str, &[&str]> = [
        ("/v1/publish", &["post"][..]),
        ("/v1/object", &["get"]),
        ("/v1/poll", &["get", "post"]),
        ("/v1/sessions", &["post"]),
        ("/v1/events", &["get", "post"]),
        ("/v1/ws", &["get"]),
        ("/v1/connections", &["get"]),
        ("/v1/connections/{connection}", &["get", "delete"]),
        ("/v1/explain", &["get"]),
        ("/v1/connections/{connection}/objects", &["get"]),
        ("/v1/cluster", &["get"]),
        ("/v1/cluster/events", &["get"]),
        ("/v1/cluster/figures", &["get"]),
        ("/v1/cluster/map", &["get"]),
        ("/v1/live", &["get"]),
        ("/healthz", &["get"]),
        ("/readyz", &["get"]),
        ("/metrics", &["get"]),
    ]
    .into();
    let paths = document["paths"].as_object().expect("paths");
    for (path, methods) in &expected {
        let listed = paths.get(*path).unwrap_or_else(|| panic!("{path} is not listed"));
        for method in *methods {
            assert!(listed.get(*method).is_some(), "{method} {path} is not listed");
        }
    }
    // What is listed is there: no method of it is answered with 404 or 405 for want of a route.
    for (path, methods) in paths {
        for method in methods.as_object().expect("methods").keys() {
            let target = path.replace("{connection}", "0-0-0");
            let answer = if path == "/v1/events" && method == "get" {
                get(node.addr, &target)
            } else {
                send(node.addr, &method.to_uppercase(), &target, "", b"")
            };
            let no_such_thing = answer.status == 404 && answer.text().contains("no route");
            assert!(
                answer.status != 405 && !no_such_thing,
                "{method} {path}: {}",
                answer.text()
            );
        }
    }
}

/// Addresses in a page's text that a browser would fetch by itself from another host.
fn outside(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for mark in [
        "src=\"",
        "src='",
        "href=\"",
        "href='",
        "url(",
        "@import \"",
        "import(\"",
        "from \"",
    ] {
        for part in text.split(mark).skip(1) {
            let target: String = part.chars().take_while(|c| !"\"')> ".contains(*c)).take(100).collect();
            if target.starts_with("http:") || target.starts_with("https:") || target.starts_with("//") {
                found.push(target);
            }
        }
    }
    found
}

#[test]
fn the_documents_load_without_anything_from_elsewhere() {
    let node = node();
    let at = node.addr;
    let mut page = get(at, "/docs");
    let mut base = "/docs".to_owned();
    for _ in 0..3 {
        if let (300..=399, Some(to)) = (page.status, page.header("location")) {
            to.clone_into(&mut base);
            page = get(at, &base.clone());
        }
    }
    assert_eq!(page.status, 200, "{base}");
    let html = page.text();
    assert!(html.contains("<html") || html.contains("<!DOCTYPE"), "{html}");
    assert_eq!(outside(&html), Vec::<String>::new());
    let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut loaded = 0;
    for mark in ["src=\"", "href=\""] {
        for part in html.split(mark).skip(1) {
            let name = part.split('"').next().expect("a name");
            let name = name.strip_prefix("./").unwrap_or(name);
            if name.is_empty() || name.starts_with("data:") || name.starts_with('#') {
                continue;
            }
            let target = if name.starts_with('/') {
                name.to_owned()
            } else {
                format!("{folder}/{name}")
            };
            let asset = get(at, &target);
            assert_eq!(asset.status, 200, "{target}");
            if target.ends_with(".css") {
                assert_eq!(outside(&asset.text()), Vec::<String>::new(), "{target}");
            }
            loaded += 1;
        }
    }
    assert!(loaded >= 2, "the page has its script and style");
}

#[track_caller]
fn connections(at: SocketAddr) -> Vec<Value> {
    get(at, "/v1/connections").ok()["connections"]
        .as_array()
        .expect("a list")
        .clone()
}

#[test]
fn connections_are_listed_with_what_they_watch_and_closed_with_4506() {
    let node = node();
    let at = node.addr;
    let mut ws = Ws::open(at);
    ws.subscribe(&["a", "b"]);
    let mut stream = Events::open(at, &["a"], None);
    let stream_name = stream.hear_of("hello")["connection"]
        .as_str()
        .expect("a name")
        .to_owned();
    let mut other = Ws::open_packed(at);
    other.subscribe(&["a"]);
    let all = connections(at);
    assert_eq!(all.len(), 3);
    let one = all
        .iter()
        .find(|one| one["connection"] == ws.connection().as_str())
        .expect("ours");
    assert_eq!(
        (&one["transport"], &one["objects"], &one["pending"]),
        (&json!("websocket"), &json!(2), &json!(0))
    );
    assert!(
        one["address"]
            .as_str()
            .is_some_and(|address| address.starts_with("127.0.0.1:"))
    );
    let details = get(at, &format!("/v1/connections/{}", ws.connection())).ok();
    let watches: BTreeSet<_> = details["watches"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(watches, BTreeSet::from(["a", "b"]));
    let version = publish(at, "a");
    ws.until_told(&[("a", version)]);
    assert_eq!(get(at, &format!("/v1/connections/{}", ws.connection())).ok()["told"], 1);

    assert_eq!(delete(at, &format!("/v1/connections/{}", ws.connection())).status, 204);
    assert_eq!(ws.read_to_the_end().1, Some(4506));
    assert_eq!(delete(at, &format!("/v1/connections/{stream_name}")).status, 204);
    while stream.next().is_some() {}
    for name in [ws.connection(), stream_name] {
        eventually("it is gone", || {
            delete(at, &format!("/v1/connections/{name}")).status == 404
        });
        assert_eq!(get(at, &format!("/v1/connections/{name}")).code(), "not_found");
    }
    // The third never noticed.
    let version = publish(at, "a");
    other.until_told(&[("a", version)]);
    assert_eq!(connections(at).len(), 1);
}

#[test]
fn connections_are_listed_in_pages_that_miss_none() {
    let node = node();
    let sockets: Vec<_> = (0..25).map(|_| Ws::open(node.addr)).collect();
    let expected: BTreeSet<_> = sockets.iter().map(Ws::connection).collect();
    for limit in [1, 7, 25, 1_000] {
        let (mut seen, mut after) = (BTreeSet::new(), None::<String>);
        loop {
            let query = after
                .as_ref()
                .map_or_else(String::new, |after| format!("&after={after}"));
            let page = get(node.addr, &format!("/v1/connections?limit={limit}{query}")).ok();
            let names: Vec<_> = page["connections"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|one| one["connection"].as_str().expect("a name").to_owned())
                .collect();
            assert!(names.len() <= limit);
            for name in names {
                assert!(seen.insert(name.clone()), "{name} twice, limit {limit}");
            }
            after = page["after"].as_str().map(str::to_owned);
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected, "limit {limit}");
    }
}

#[test]
fn explain_says_in_a_sentence_why_somebody_did_or_did_not_hear() {
    let node = node();
    let at = node.addr;
    let mut ws = Ws::open(at);
    ws.subscribe(&["a"]);
    let verdict = |object: &str| {
        let answer = get(
            at,
            &format!("/v1/explain?connection={}&object={object}", ws.connection()),
        )
        .ok();
        assert_eq!(answer["object"], object);
        assert!(
            answer["owner"]["shard"].is_u64() && answer["edge"]["lane"].is_u64(),
            "{answer}"
        );
        (answer["verdict"].as_str().expect("a sentence").to_owned(), answer)
    };
    let (sentence, answer) = verdict("b");
    assert!(sentence.starts_with("not subscribed"), "{sentence}");
    assert_eq!(answer["subscription"], Value::Null);
    let (sentence, answer) = verdict("a");
    assert!(sentence.starts_with("nothing to tell"), "{sentence}");
    assert_eq!(
        (&answer["subscription"]["registered"], &answer["owner"]["interested"]),
        (&json!(true), &json!(true))
    );
    let version = publish(at, "a");
    eventually("the version is known here and told", || {
        let (sentence, _) = verdict("a");
        sentence.starts_with("told") && sentence.contains(&version.to_string())
    });
    let gone = get(at, "/v1/explain?connection=0-77-0&object=a");
    assert_eq!((gone.status, gone.code().as_str()), (404, "not_found"));
}

#[test]
fn explain_says_that_a_subscriber_does_not_read() {
    let node = node();
    let at = node.addr;
    let objects = names("large ", 40);
    let mut slow = Ws::open_with(Raw::open_small(at).stream, "/v1/ws", Some("tidings.v1.json"));
    slow.subscribe(&objects);
    let changes: Vec<_> = objects
        .iter()
        .map(|object| json!({ "object": object, "data": "x".repeat(50_000) }))
        .collect();
    for _ in 0..3 {
        post_json(at, "/v1/publish", &json!({ "changes": changes })).ok();
    }
    let mut pending = String::new();
    eventually("somebody's socket is full", || {
        pending = objects
            .iter()
            .map(|object| {
                let query = form_urlencoded::Serializer::new(String::new())
                    .append_pair("connection", &slow.connection())
                    .append_pair("object", object)
                    .finish();
                get(at, &format!("/v1/explain?{query}")).ok()["verdict"]
                    .as_str()
                    .expect("a sentence")
                    .to_owned()
            })
            .find(|verdict| verdict.starts_with("to be told"))
            .unwrap_or_default();
        !pending.is_empty()
    });
    assert!(pending.contains("socket does not take more"), "{pending}");
    let one = &connections(at)[0];
    assert_eq!(one["busy"], true, "{one}");
    assert!(one["pending"].as_u64().is_some_and(|pending| pending > 0));
}

#[test]
fn the_cluster_is_one_node_that_owns_every_shard() {
    let node = node_with(|config| {
        config.server.name = "alpha".to_owned();
        config.cluster.shards = 64;
    });
    let cluster = get(node.addr, "/v1/cluster").ok();
    assert_eq!(cluster["nodes"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&cluster["nodes"][0]["node"], &cluster["nodes"][0]["draining"]),
        (&json!("alpha"), &json!(false))
    );
    let shards = cluster["shards"].as_array().expect("a list");
    assert_eq!(shards.len(), 64);
    for (number, shard) in shards.iter().enumerate() {
        assert_eq!(
            (&shard["shard"], &shard["owner"], &shard["epoch"]),
            (&json!(number), &json!("alpha"), &json!(1))
        );
    }
}
