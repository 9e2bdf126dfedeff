//! The words `dev` and `cluster status`, as a person types them.

#[path = "support/support.rs"]
mod support;

use rustix::process::Signal;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Instant;
use support::*;

fn status(address: SocketAddr, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidings"))
        .args(["cluster", "status", "--server", &format!("http://{address}")])
        .args(more)
        .output()
        .expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A cluster by `tidings dev`, with what it said: addresses and processes.
fn dev(nodes: &str) -> (Program, Vec<(SocketAddr, u32)>) {
    let program = Program::start(&["dev", "--nodes", nodes, "--port", "0"]);
    let mut found = Vec::new();
    // It starts several processes on a machine that may be loaded, so the first line may take longer than others.
    let since = Instant::now();
    loop {
        let line = program.line_within(LONG);
        if let Some((before, process)) = line.split_once("  process ") {
            let address = before.split("http://").nth(1).expect("an address");
            found.push((address.parse().expect("an address"), process.parse().expect("a number")));
        }
        if line.contains("Stop: Ctrl-C") {
            return (program, found);
        }
        assert!(since.elapsed() < LONG, "{line}");
    }
}

fn process(number: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(number).expect("a process")).expect("a process")
}

/// One that has ended and that nobody asked for its end (a zombie) does not.
fn is_running(number: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn dev_starts_a_cluster_that_survives_a_killed_node_and_ends_with_the_word() {
    let (mut program, nodes) = dev("3");
    assert_eq!(nodes.len(), 3);
    let mut ws = Ws::open(nodes[1].0);
    ws.subscribe(&["tried"]);
    let version = publish(nodes[2].0, "tried");
    ws.until_told(&[("tried", version)]);
    eventually("every shard has its copies", || {
        status(nodes[0].0, &[]).status.success()
    });
    let out = text(&status(nodes[0].0, &[]).stdout);
    for words in ["3 nodes", "n1", "n2", "n3", "leader", "Healthy."] {
        assert!(out.contains(words), "{words}: {out}");
    }
    rustix::process::kill_process(process(nodes[2].1), Signal::KILL).expect("killed");
    eventually("its death is a fault", || {
        let told = status(nodes[0].0, &[]);
        !told.status.success() && text(&told.stderr).contains("n3") && text(&told.stderr).contains("is not alive")
    });
    assert!(program.is_running(), "it goes on with two");
    program.signal(Signal::INT);
    let (ended, _, errors) = program.end();
    assert!(ended.success());
    let said = errors.join("\n");
    assert!(
        said.contains("n3 ended") && said.contains("serve --server.name n3"),
        "{said}"
    );
    assert!(errors.iter().any(|line| line.starts_with("n1 | ")), "{said}");
    for (_, number) in &nodes {
        assert!(!is_running(*number), "{number} is left");
    }
}

#[test]
fn the_nodes_of_dev_end_also_when_it_is_killed() {
    let (program, nodes) = dev("3");
    program.signal(Signal::KILL);
    _ = program.end_quietly();
    eventually("all nodes end", || nodes.iter().all(|(_, number)| !is_running(*number)));
}

#[test]
fn one_node_of_dev_is_alone_and_healthy() {
    let (program, nodes) = dev("1");
    let told = status(nodes[0].0, &[]);
    assert!(
        told.status.success() && text(&told.stdout).contains("Healthy."),
        "{told:?}"
    );
    program.terminate();
    assert!(program.end().0.success());
}

#[test]
fn the_status_of_a_node_that_forms_or_is_gone_is_a_failure_with_words() {
    let mut cluster = Plan::of(3).build();
    let gone = status(cluster.address(0), &[]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains("cannot reach"), "{gone:?}");
    cluster.launch(0);
    eventually("it says that it forms", || {
        let told = status(cluster.address(0), &[]);
        told.status.code() == Some(1) && text(&told.stderr).contains("not part of its cluster yet")
    });
}

#[test]
fn the_status_as_json_is_what_the_node_answers() {
    let cluster = Plan::of(3).start();
    let told = status(cluster.address(1), &["--json"]);
    let read: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!(read["nodes"].as_array().expect("nodes").len(), 3);
    assert_eq!(read["node"], "n1");
}

#[test]
fn a_node_that_waits_for_others_stops_when_asked_to() {
    let mut cluster = Plan::of(3).build();
    cluster.launch(0);
    eventually("it lives", || {
        ask(
            cluster.address(0),
            "GET",
            "/healthz",
            &serde_json::Value::Null,
            PATIENCE,
        )
        .is_ok_and(|(status, _)| status == 200)
    });
    cluster.stop(0);
}
