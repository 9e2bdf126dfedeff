//! Figures of all nodes added up.

use super::*;
use serde_json::json;

/// A node that published so many a second, at these milliseconds.
fn node(points: &[(u64, f64)]) -> Columns {
    let at: Vec<u64> = points.iter().map(|(at, _)| *at).collect();
    let published: Vec<f64> = points.iter().map(|(_, rate)| *rate).collect();
    let delays: Vec<u64> = points.iter().map(|(_, rate)| *rate as u64).collect();
    serde_json::from_value(json!({"at_ms": at, "published": published, "open": delays, "p99_us": delays}))
        .expect("columns")
}

fn published(columns: &Columns) -> Value {
    serde_json::to_value(columns).expect("columns")["published"].clone()
}

#[test]
fn points_of_one_slice_are_added_and_the_worse_delay_counts() {
    let parts = [node(&[(1_100, 5.0), (2_080, 6.0)]), node(&[(900, 1.0), (1_900, 2.0)])];
    let sum = merged(1_000, 300, &parts, 0);
    assert_eq!(published(&sum), json!([6.0, 8.0]));
    let sum = serde_json::to_value(sum).expect("columns");
    assert_eq!(sum["at_ms"], json!([1_000, 2_000]));
    assert_eq!((&sum["open"], &sum["p99_us"]), (&json!([6, 8]), &json!([5, 6])));
    assert_eq!(sum["next"], 2);
}

#[test]
fn a_slice_that_a_node_leaves_out_counts_as_the_one_before_but_not_for_ever() {
    let steady: Vec<(u64, f64)> = (1..=9).map(|second| (second * 1_000, 1.0)).collect();
    let sum = merged(
        1_000,
        300,
        &[node(&steady), node(&[(1_000, 5.0), (3_000, 7.0), (9_000, 9.0)])],
        0,
    );
    assert_eq!(published(&sum), json!([6.0, 6.0, 8.0, 8.0, 8.0, 8.0, 1.0, 1.0, 10.0]));
}

#[test]
fn the_last_slice_is_one_that_everybody_has_told_of_unless_somebody_stalls() {
    let seconds = |to: u64| node(&(1..=to).map(|second| (second * 1_000, 1.0)).collect::<Vec<_>>());
    assert_eq!(merged(1_000, 300, &[seconds(10), seconds(9)], 0).next, 9);
    assert_eq!(merged(1_000, 300, &[seconds(20), seconds(9)], 0).next, 20);
    let nobody = merged(1_000, 300, &[], 7);
    assert_eq!((nobody.next, published(&nobody)), (7, json!([])));
}

#[test]
fn who_goes_on_behind_a_slice_gets_the_rest_and_never_more_than_there_is_room_for() {
    let seconds = node(
        &(1..=50)
            .map(|second| (second * 1_000, second as f64))
            .collect::<Vec<_>>(),
    );
    let parts = [seconds];
    assert_eq!(published(&merged(1_000, 300, &parts, 48)), json!([49.0, 50.0]));
    assert_eq!(published(&merged(1_000, 300, &parts, 50)), json!([]));
    assert_eq!(published(&merged(1_000, 3, &parts, 0)), json!([48.0, 49.0, 50.0]));
}

fn row(name: &str, ready: Option<bool>, published: u64) -> Row {
    let body = |ready| {
        json!({"node": {"ready": ready, "reasons": [], "uptime_ms": 1}, "cluster": {"lease_left_ms": 7},
            "series": {"at_ms": [1, 2], "published": [0, published]}, "refused": {}, "events": 0, "stamp": 0,
            "limits": [{"limit": "a", "used": 5, "most": 10}, {"limit": "b", "used": 9, "most": 100}]})
    };
    Row::of(&Said {
        node: name.to_owned(),
        told: ready.map(|ready| crate::peers::Told {
            status: 200,
            body: body(ready).to_string(),
        }),
    })
}

#[test]
fn who_needs_to_be_looked_at_comes_first_then_who_does_most() {
    let rows = || {
        [
            ("n1", Some(true), 3),
            ("n2", Some(true), 9),
            ("m3", Some(false), 0),
            ("n4", None, 0),
        ]
        .map(|(name, ready, published)| row(name, ready, published))
        .into()
    };
    let query = |search: Option<&str>, limit| FiguresQuery {
        order: Some("published".to_owned()),
        search: search.map(str::to_owned),
        limit,
    };
    let names = |figures: &Figures| figures.nodes.iter().map(|row| row.node.clone()).collect::<Vec<_>>();
    assert_eq!(
        names(&Figures::of(rows(), &query(None, None))),
        ["n4", "m3", "n2", "n1"]
    );
    let some = Figures::of(rows(), &query(Some("N"), Some(2)));
    assert_eq!((names(&some), some.found), (vec!["n4".to_owned(), "n2".to_owned()], 3));
}

#[test]
fn a_row_has_the_newest_figures_and_the_fullest_limit() {
    let row = serde_json::to_value(row("n1", Some(true), 3)).expect("a row");
    assert_eq!(row["figures"]["published"], 3.0);
    assert_eq!(
        row["fullest"],
        json!({"limit": "a", "used": 5, "most": 10, "node": "n1"})
    );
    assert_eq!((&row["lease_left_ms"], &row["answered"]), (&json!(7), &json!(true)));
    let silent = serde_json::to_value(self::row("n4", None, 0)).expect("a row");
    assert_eq!(
        silent,
        json!({"node": "n4", "answered": false, "lease_left_ms": null, "figures": {}})
    );
}
