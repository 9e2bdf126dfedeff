//! What the console asks: figures over time, events, the map in few bytes, and subscribers found among others.

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
use support::*;

fn names(answer: &Value) -> Vec<String> {
    let connections = answer["connections"].as_array().expect("a list").iter();
    connections
        .map(|one| one["connection"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn figures_are_remembered_and_told_once() {
    let node = node();
    let mut ws = Ws::open(node.addr);
    ws.subscribe(&["a"]);
    let sum = |column: &Value| {
        column
            .as_array()
            .expect("a column")
            .iter()
            .filter_map(Value::as_f64)
            .sum::<f64>()
    };
    eventually("a publish and its delivery are in the figures", || {
        let version = publish(node.addr, "a");
        ws.until_told(&[("a", version)]);
        let series = get(node.addr, "/v1/live").ok()["series"].clone();
        sum(&series["published"]) > 0.0 && sum(&series["told"]) > 0.0 && sum(&series["p99_us"]) > 0.0
    });
    let live = get(node.addr, "/v1/live").ok();
    let next = live["series"]["next"].as_u64().expect("a number");
    let points = live["series"]["at_ms"].as_array().expect("a column").len() as u64;
    assert_eq!(points, next, "nothing has fallen out yet");
    assert!(sum(&live["series"]["web_sockets"]) > 0.0, "{live}");
    let after = get(node.addr, &format!("/v1/live?after={next}")).ok();
    let more = after["series"]["at_ms"].as_array().expect("a column").len() as u64;
    assert_eq!(more, after["series"]["next"].as_u64().expect("a number") - next);
    let ahead = get(node.addr, "/v1/live?after=1000000").ok();
    assert!(ahead["series"]["at_ms"].as_array().expect("a column").len() as u64 >= points);
    let limit = &live["limits"][0];
    assert_eq!(limit["limit"], "limits.connections");
    assert!(limit["used"].as_u64() < limit["most"].as_u64() && limit["used"].as_u64() > Some(0));
}

#[test]
fn a_lone_node_has_a_map_and_one_line_of_events() {
    let node = node();
    let map = get(node.addr, "/v1/cluster/map").ok();
    let shards = map["map"]["owner"].as_array().expect("a column");
    assert_eq!(shards.len(), 256);
    for column in ["epoch", "floor", "copies", "filling", "moving", "owned"] {
        assert_eq!(map["map"][column].as_array().expect("a column").len(), 256, "{column}");
    }
    assert_eq!((&map["shards"], &map["nodes"][0]["node"]), (&json!([]), &map["node"]));
    let mut events = Value::Null;
    eventually("its memory has begun", || {
        events = get(node.addr, "/v1/cluster/events").ok();
        !events["events"].as_array().expect("a list").is_empty()
    });
    let line = &events["events"][0];
    assert_eq!((&line["kind"], &line["weight"]), (&json!("started"), &json!("plain")));
    let next = events["next"].as_u64().expect("a number");
    let later = get(node.addr, &format!("/v1/cluster/events?after={next}")).ok();
    assert_eq!(later["events"], json!([]));
}

#[test]
fn subscribers_are_found_by_name_object_and_transport() {
    let node = node();
    let at = node.addr;
    let mut all: Vec<Ws> = (0..12).map(|_| Ws::open(at)).collect();
    for (n, ws) in all.iter_mut().enumerate() {
        ws.subscribe(&["common"]);
        if n == 5 {
            ws.subscribe(&["rare", "rarer"]);
        }
    }
    let stream = Events::open(at, &["common"], None);
    let search = |query: &str| get(at, &format!("/v1/connections?{query}")).ok();
    let rare = all[5].connection();
    assert_eq!(names(&search("watching=rare")), std::slice::from_ref(&rare));
    assert_eq!(names(&search("watching=nobodys")), Vec::<String>::new());
    assert_eq!(
        names(&search(&format!("search={rare}&transport=websocket"))),
        std::slice::from_ref(&rare)
    );
    assert_eq!(names(&search("transport=sse")).len(), 1);
    assert_eq!(names(&search("behind=1")).len(), 0);
    let first = search("order=objects&limit=1");
    assert_eq!((names(&first), &first["found"]), (vec![rare], &json!(13)));
    // Page after page, everyone once.
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = search(&format!("watching=common&limit=5{after}"));
        found.extend(names(&page));
        match page["after"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(found.len(), 13);
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 13);
    drop(stream);
}

#[test]
fn what_one_subscriber_watches_comes_in_pages() {
    let node = node();
    let at = node.addr;
    let mut ws = Ws::open(at);
    let objects: Vec<String> = (0..25).map(|n| format!("object {n}")).collect();
    ws.subscribe(&objects);
    let version = publish(at, "object 7");
    ws.until_told(&[("object 7", version)]);
    let base = format!("/v1/connections/{}/objects", ws.connection());
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(at, &format!("{base}?limit=10{after}")).ok();
        let list = page["objects"].as_array().expect("a list").clone();
        assert!(list.len() <= 10);
        found.extend(list);
        match page["after"].as_u64() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let mut seen: Vec<&str> = found.iter().map(|one| one["object"].as_str().expect("an ID")).collect();
    seen.sort_unstable();
    let mut expected: Vec<&str> = objects.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(seen, expected);
    let seventh = get(at, &format!("{base}?search=ect%207")).ok();
    let expected =
        json!([{ "object": "object 7", "version": version, "registered": true, "pending": false, "resync": false }]);
    assert_eq!(seventh["objects"], expected);
    assert_eq!(get(at, &format!("{base}?behind=1")).ok()["objects"], json!([]));
    let known = get(at, &format!("/v1/connections/{}?objects=3", ws.connection())).ok();
    assert_eq!(known["watches"].as_array().expect("a list").len(), 3);
    assert_eq!(known["objects"], 25);
}

#[test]
fn the_page_is_served_with_everything_it_loads() {
    let node = node();
    let page = get(node.addr, "/console");
    assert!(
        page.header("content-security-policy")
            .is_some_and(|policy| policy.contains("default-src 'none'"))
    );
    for part in page.text().split("=\"/console/").skip(1) {
        let file = part.split('"').next().expect("a name");
        let answer = get(node.addr, &format!("/console/{file}"));
        assert_eq!(answer.status, 200, "{file}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}
