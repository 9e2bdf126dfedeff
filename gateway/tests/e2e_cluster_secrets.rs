//! The cluster's secret on real processes: it is changed under load without anybody noticing, and what edges get in place of it lets
//! them do their work and nothing else.

#[path = "support/support.rs"]
mod support;

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::*;

const OLD: &str = "a secret of the tests, long enough";
const NEW: &str = "another secret of the tests, as long";

/// What `tidings cluster edge-secret` prints for this file.
fn for_edges(file: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    let output = command
        .args(["cluster", "edge-secret", "--secret-file"])
        .arg(file)
        .output();
    let output = output.expect("the program runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// In place of what was there, in one step.
fn put(file: &Path, text: &str) {
    let unfinished = file.with_extension("unfinished");
    std::fs::write(&unfinished, text).expect("written");
    std::fs::rename(unfinished, file).expect("in its place");
}

/// Three nodes that own and vote, and an edge that only has what edges get.
struct Secrets {
    cluster: Cluster,
    full: PathBuf,
    edges: PathBuf,
}

const EDGE: usize = 3;

impl Secrets {
    fn start(lease_ms: u64) -> Self {
        let mut cluster = Plan::of(4).expect(3).lease_ms(lease_ms).build();
        let folder = cluster.folder(0).parent().expect("a folder").to_owned();
        let (full, edges) = (folder.join("secret"), folder.join("edges"));
        assert_eq!(std::fs::read_to_string(&full).expect("there").trim_end(), OLD);
        put(&edges, &for_edges(&full));
        let file = edges.to_str().expect("text").to_owned();
        cluster.change(EDGE, &["--secret-file", &file, "--server.roles", "edge"]);
        (0..4).for_each(|node| cluster.launch(node));
        cluster.until_whole();
        cluster.until_copied(&[0]);
        Self { cluster, full, edges }
    }

    /// All nodes read these secrets, one after the other.
    #[track_caller]
    fn turn(&self, secrets: &str) {
        put(&self.full, secrets);
        put(&self.edges, &for_edges(&self.full));
        for node in 0..4 {
            let answer = ask(
                self.cluster.address(node),
                "POST",
                "/v1/reload",
                &Value::Null,
                Duration::from_secs(20),
            );
            assert_eq!(answer.expect("an answer").0, 200);
        }
    }
}

#[test]
fn the_secret_is_changed_under_load_and_nobody_notices_but_who_has_the_old_one() {
    let mut all = Secrets::start(20_000);
    let objects = names("turn", 60);
    let mut life = Life::begin(&all.cluster, &objects, &[0, 1, 2, EDGE]);
    life.write(&objects, &[0, 1, 2, EDGE], Duration::from_millis(10));
    for secrets in [format!("{OLD}\n{NEW}\n"), format!("{NEW}\n{OLD}\n"), format!("{NEW}\n")] {
        std::thread::sleep(Duration::from_secs(1));
        all.turn(&secrets);
    }
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(life.failures(), []);
    assert_eq!(causes(&life.end()), BTreeSet::new());
    // A file that makes no sense changes nothing.
    put(&all.full, "short\n");
    let answer = ask(
        all.cluster.address(0),
        "POST",
        "/v1/reload",
        &Value::Null,
        Duration::from_secs(20),
    );
    let (status, said) = answer.expect("an answer");
    assert_eq!(status, 400, "{said}");
    put(&all.full, &format!("{NEW}\n"));
    // Whoever starts now comes in with the new one.
    for node in [EDGE, all.cluster.follower()] {
        all.cluster.stop(node);
        all.cluster.launch(node);
        all.cluster.until_whole();
    }
    // And with the old one nobody does.
    let stranger = all.cluster.follower();
    all.cluster.stop(stranger);
    let file = all.full.with_extension("old");
    put(&file, OLD);
    all.cluster
        .change(stranger, &["--secret-file", file.to_str().expect("text")]);
    let others: Vec<usize> = all.cluster.others(stranger);
    let dropped = |cluster: &Cluster| -> u64 {
        let of = |node: &usize| cluster.metric(*node, "tidings_control_refused_datagrams_total", &[]);
        others.iter().map(of).sum()
    };
    let before = dropped(&all.cluster);
    all.cluster.launch(stranger);
    eventually("it is dropped", || dropped(&all.cluster) > before);
    assert!(!all.cluster.is_ready(stranger));
}

#[test]
fn an_edge_with_an_edges_secret_serves_and_decides_nothing() {
    let all = Secrets::start(4_000);
    let cluster = &all.cluster;
    let mut ws = Ws::open(cluster.address(EDGE));
    let objects = names("edge", 40);
    ws.subscribe(&objects);
    let told: Vec<(&str, u64)> = objects
        .iter()
        .zip([0, EDGE].iter().cycle())
        .map(|(object, node)| (object.as_str(), cluster.publish(*node, object).expect("accepted")))
        .collect();
    ws.until_told(&told).is_exactly(&told);
    let status = cluster.status(0).expect("an answer");
    let nodes = status["nodes"].as_array().expect("nodes");
    let edge = nodes
        .iter()
        .find(|node| node["node"] == cluster.name(EDGE))
        .expect("known");
    assert_eq!((&edge["owned"], &edge["voter"]), (&json!(0), &json!(false)), "{edge}");
    // An operator's order by way of it changes nothing.
    let order = json!({"copies": 1});
    let answer = ask(
        cluster.address(EDGE),
        "POST",
        "/v1/cluster/copies",
        &order,
        Duration::from_secs(20),
    );
    let (status, said) = answer.expect("an answer");
    assert_eq!((status, &said["code"]), (409, &json!("order_refused")), "{said}");
    assert_eq!(cluster.status(0).expect("an answer")["copies"], 2);
    // Nor does it ask other nodes what only operators may; of itself it answers.
    let about = |node: usize| {
        let target = format!("/v1/connections?node={}", cluster.name(node));
        let answer = ask(
            cluster.address(EDGE),
            "GET",
            &target,
            &Value::Null,
            Duration::from_secs(20),
        );
        answer.expect("an answer")
    };
    let (status, said) = about(0);
    assert_eq!((status, &said["code"]), (403, &json!("forbidden")), "{said}");
    assert_eq!(about(EDGE).0, 200);
    assert!(cluster.metric(0, "tidings_control_refused_roles_total", &[]) >= 1);
    let counted = (0..3).map(|node| cluster.metric(node, "tidings_control_refused_roles_total", &[]));
    assert!(counted.sum::<u64>() >= 1);
}

#[test]
fn an_edges_secret_is_of_no_use_for_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let full = folder.path().join("secret");
    std::fs::write(&full, OLD).expect("written");
    let edges = folder.path().join("edges");
    std::fs::write(&edges, for_edges(&full)).expect("written");
    let file = edges.to_str().expect("text");
    let join = ["--join", "127.0.0.1:9", "--data-dir", "none", "--secret-file", file];
    let (status, _, errors) =
        Program::start(&[&["--listen", "127.0.0.1:0", "--node-listen", "127.0.0.1:0"][..], &join].concat()).end();
    assert_eq!(status.code(), Some(1));
    let said = errors.join("\n");
    assert!(said.contains("server.roles") && said.contains("edge alone"), "{said}");
    // Nor is anything more to be had from it.
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    let output = command
        .args(["cluster", "edge-secret", "--secret-file", file])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
