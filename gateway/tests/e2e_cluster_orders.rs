//! Orders to a cluster as an operator gives them: by the words of the command line and by HTTP, with what they answer, print and
//! exit with.

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
use std::process::{Command, Output};
use std::time::Duration;
use support::*;

/// `tidings cluster …`, to one node.
fn order(cluster: &Cluster, at: usize, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidings"))
        .arg("cluster")
        .args(words)
        .args(["--server", &format!("http://{}", cluster.address(at))])
        .output()
        .expect("the program runs")
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn post(cluster: &Cluster, at: usize, what: &str, body: &Value) -> (u16, Value) {
    let target = format!("/v1/cluster/{what}");
    ask(cluster.address(at), "POST", &target, body, Duration::from_secs(30)).expect("an answer")
}

/// What a node says of one of the nodes.
fn row(cluster: &Cluster, at: usize, name: &str) -> Value {
    let status = cluster.status(at).expect("an answer");
    let nodes = status["nodes"].as_array().expect("nodes");
    let found = nodes.iter().find(|node| node["node"] == name);
    found.unwrap_or(&Value::Null).clone()
}

#[track_caller]
fn refused(answer: &(u16, Value), status: u16, code: &str, words: &str) {
    assert_eq!(answer.0, status, "{answer:?}");
    assert_eq!(answer.1["code"], code, "{answer:?}");
    assert!(
        answer.1["detail"].as_str().expect("a detail").contains(words),
        "{answer:?}"
    );
}

#[test]
fn orders_that_make_no_sense_are_refused_in_words() {
    let cluster = Plan::of(3).start();
    let nobody = json!({"node": "nobody"});
    for what in ["drain", "remove"] {
        refused(
            &post(&cluster, 0, what, &nobody),
            404,
            "not_found",
            "no node of this name or id",
        );
        let unknown = json!({"node": "n1", "now": true});
        refused(
            &post(&cluster, 0, what, &unknown),
            400,
            "invalid_field",
            "unknown field `now`",
        );
    }
    refused(
        &post(&cluster, 0, "remove", &json!({"node": "n1"})),
        409,
        "order_refused",
        "is alive",
    );
    refused(
        &post(&cluster, 0, "remove", &json!({"node": "n0", "force": true})),
        409,
        "order_refused",
        "drain it and stop it first",
    );
    let out_of_range = json!({"shard": SHARDS, "to": "n1"});
    refused(
        &post(&cluster, 1, "move", &out_of_range),
        404,
        "not_found",
        "there is no shard",
    );
    for copies in [0, 4] {
        let answer = post(&cluster, 0, "copies", &json!({"copies": copies}));
        refused(&answer, 400, "invalid_field", "from 1 to 3");
    }
    let long = json!({"node": "n".repeat(5_000)});
    refused(
        &post(&cluster, 0, "drain", &long),
        413,
        "too_large",
        "at most 4096 bytes",
    );
    let told = order(&cluster, 0, &["drain", "nobody"]);
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    assert!(said(&told).contains("not_found"), "{told:?}");
    assert_eq!(order(&cluster, 0, &["copies", "4"]).status.code(), Some(2));
}

#[test]
fn a_node_that_is_alone_takes_no_orders() {
    let program = Program::start(&["dev", "--nodes", "1", "--port", "0"]);
    let address = loop {
        let line = program.line_within(LONG);
        if let Some((before, _)) = line.split_once("  process ") {
            break before
                .split("http://")
                .nth(1)
                .expect("an address")
                .parse()
                .expect("an address");
        }
    };
    let order = json!({"node": "n1"});
    let answer = ask(address, "POST", "/v1/cluster/drain", &order, PATIENCE).expect("an answer");
    refused(&answer, 409, "order_refused", "alone");
}

#[test]
fn the_number_of_copies_is_agreed_on_and_shards_that_lack_some_are_a_fault() {
    let cluster = Plan::of(3).start();
    let agreed = |at| cluster.status(at).expect("an answer")["copies"].clone();
    let formed = agreed(0);
    let other = if formed == 3 { "2" } else { "3" };
    let told = order(&cluster, 1, &["copies", other]);
    assert!(
        told.status.success() && said(&told).contains("copies of each shard"),
        "{told:?}"
    );
    for at in 0..3 {
        eventually("all know", || agreed(at) == other.parse::<u64>().expect("a number"));
    }
    let again = post(&cluster, 2, "copies", &json!({"copies": agreed(0)}));
    assert_eq!(again.0, 200, "what is so already is no fault: {again:?}");
    // Whether or not the copies come to be: the word and its exit code say how it is.
    let told = order(&cluster, 0, &["status"]);
    let status = cluster.status(0).expect("an answer");
    if status["short_of_copies"] != 0 {
        assert!(
            said(&told).contains("short of copies") && told.status.code() == Some(1),
            "{told:?}"
        );
    }
    assert_eq!(
        order(&cluster, 1, &["copies", "1", "--wait", "--timeout", "60"])
            .status
            .code(),
        Some(0)
    );
    eventually("it is healthy with one", || {
        let told = order(&cluster, 0, &["status"]);
        told.status.success() && said(&told).contains("Healthy.") && said(&told).contains("1 copy wanted")
    });
}

#[test]
fn a_node_that_drains_is_not_ready_and_sends_its_subscribers_away_until_it_takes_part_again() {
    let cluster = Plan::of(3).start();
    let mut ws = Ws::open(cluster.address(1));
    ws.subscribe(&["kept"]);
    let told = order(&cluster, 0, &["drain", "n1"]);
    assert!(
        told.status.success() && said(&told).contains("n1 gives up what it has."),
        "{told:?}"
    );
    eventually("it is not ready", || !cluster.is_ready(1));
    assert_eq!(ws.read_to_the_end().1, Some(4000), "come back elsewhere");
    for at in [0, 2] {
        eventually("others know that it drains", || {
            row(&cluster, at, "n1")["draining"] == true
        });
        assert!(cluster.is_ready(at), "others serve");
    }
    eventually("another one leads", || cluster.leader(0) != 1);
    let again = post(&cluster, 2, "drain", &json!({"node": row(&cluster, 0, "n1")["id"]}));
    assert_eq!(
        (again.0, &again.1["draining"]),
        (200, &json!(true)),
        "by its id, and once more: {again:?}"
    );
    let told = order(&cluster, 1, &["drain", "n1", "--undo"]);
    assert!(
        told.status.success() && said(&told).contains("n1 takes part again."),
        "{told:?}"
    );
    eventually("it is ready", || cluster.is_ready(1));
    eventually("it takes subscribers", || {
        let mut ws = Ws::open(cluster.address(1));
        ws.subscribe(&["kept"]);
        let version = publish(cluster.address(0), "kept");
        ws.until_told(&[("kept", version)]);
        true
    });
}

#[test]
fn a_node_that_is_gone_for_good_is_removed_and_another_one_votes_instead() {
    let mut cluster = Plan::of(4).expect(3).build();
    for node in 0..3 {
        cluster.launch(node);
    }
    cluster.until_whole();
    cluster.launch(3);
    cluster.until_whole();
    let gone = row(&cluster, 0, "n1");
    assert_eq!(
        (&gone["voter"], &row(&cluster, 0, "n3")["voter"]),
        (&json!(true), &json!(false))
    );
    let id = gone["id"].as_str().expect("an id").to_owned();
    cluster.kill(1);
    eventually("it is known to be gone", || row(&cluster, 0, "n1")["alive"] == false);
    let told = order(&cluster, 0, &["remove", &id, "--force", "--wait", "--timeout", "60"]);
    assert!(told.status.success(), "{told:?}");
    assert!(said(&told).contains("is not of the cluster any more"), "{told:?}");
    eventually("nobody knows it, and the fourth votes", || {
        [0, 2, 3]
            .iter()
            .all(|at| row(&cluster, *at, "n1").is_null() && row(&cluster, *at, "n3")["voter"] == true)
    });
    refused(
        &post(&cluster, 0, "remove", &json!({"node": id})),
        404,
        "not_found",
        "knows no node",
    );
    cluster.until_owned_by(&[0, 2, 3]);
    eventually("the cluster is healthy without it", || {
        order(&cluster, 2, &["status"]).status.success()
    });
    // It was not gone for good after all.
    cluster.launch(1);
    cluster.until_whole();
    eventually("it is known again", || row(&cluster, 0, "n1")["member"] == true);
}

#[test]
fn a_shard_that_is_moved_by_hand_is_there_and_stays() {
    let cluster = Plan::of(3).start();
    let owners = cluster.owners(0);
    let (shard, _) = owners
        .iter()
        .find(|(_, owner)| **owner != 2)
        .expect("a shard of another node");
    let told = order(
        &cluster,
        1,
        &["move", &shard.to_string(), "n2", "--wait", "--timeout", "60"],
    );
    assert!(told.status.success(), "{told:?}");
    // At once, or after some looks.
    assert!(
        said(&told).contains("is at n2.") || said(&told).contains("Done."),
        "{told:?}"
    );
    assert_eq!(cluster.owners(1)[shard], 2);
    let again = post(&cluster, 1, "move", &json!({"shard": shard, "to": "n2"}));
    assert_eq!((again.0, &again.1["done"]), (200, &json!(true)), "{again:?}");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(cluster.owners(0)[shard], 2, "it is not evened out again");
}

#[test]
fn a_node_that_is_drained_under_load_gives_everything_away_and_nobody_notices() {
    let mut cluster = Plan::of(3).start();
    eventually("every shard has its copies", || {
        cluster.status(0).is_some_and(|status| status["short_of_copies"] == 0)
    });
    let objects = names("drained", 60);
    let mut life = Life::begin(&cluster, &objects, &[0, 2]);
    life.write(&objects, &[0, 2], Duration::from_millis(10));
    std::thread::sleep(Duration::from_secs(1));
    let told = order(&cluster, 0, &["drain", "n1", "--wait", "--timeout", "120"]);
    assert!(told.status.success() && said(&told).contains("Done."), "{told:?}");
    let empty = row(&cluster, 0, "n1");
    for part in ["owned", "copies", "filling"] {
        assert_eq!(empty[part], 0, "{empty}");
    }
    cluster.kill(1);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(life.failures(), [], "while it drained and after it was killed");
    let resyncs: usize = life.end().iter().map(|told| told.resyncs.len()).sum();
    assert_eq!(resyncs, 0);
}
