//! Against a name server of our own on loopback.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use super::*;
use domain::base::iana::{Class, Rcode};
use domain::base::{Message, MessageBuilder, Rtype};
use domain::rdata::{A, Aaaa};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::net::UdpSocket;

/// A name server that knows some names, and remembers what it was asked.
struct Stage {
    folder: tempfile::TempDir,
    places: Places,
    asked: Arc<Mutex<Vec<String>>>,
}

type Known = BTreeMap<&'static str, Vec<IpAddr>>;

impl Stage {
    async fn new(hosts: &str, more: &str, known: &[(&'static str, &[&str])]) -> Self {
        let known = known
            .iter()
            .map(|(name, ips)| (*name, ips.iter().map(|ip| ip.parse().unwrap()).collect()));
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(answer(socket, known.collect(), Arc::clone(&asked)));
        let folder = tempfile::tempdir().unwrap();
        let places = Places {
            hosts: folder.path().join("hosts"),
            servers: folder.path().join("resolv.conf"),
            port,
        };
        std::fs::write(&places.hosts, hosts).unwrap();
        std::fs::write(&places.servers, format!("nameserver 127.0.0.1\n{more}")).unwrap();
        Self { folder, places, asked }
    }

    async fn found(&self, target: &str) -> Vec<String> {
        let found = look_up_in(&self.places, target).await.unwrap();
        found.iter().map(ToString::to_string).collect()
    }

    /// The names that it was asked for since the last time, each once.
    fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.dedup();
        asked
    }
}

async fn answer(socket: UdpSocket, known: Known, asked: Arc<Mutex<Vec<String>>>) {
    let mut bytes = [0; 1500];
    loop {
        let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
        let query = Message::from_octets(&bytes[..length]).unwrap();
        let question = query.sole_question().unwrap();
        let name = question.qname().to_string();
        asked.lock().unwrap().push(name.clone());
        let found = known.get(name.as_str());
        let rcode = if found.is_some() {
            Rcode::NOERROR
        } else {
            Rcode::NXDOMAIN
        };
        let mut reply = MessageBuilder::new_vec().start_answer(&query, rcode).unwrap();
        for ip in found.into_iter().flatten() {
            let owner = question.qname();
            match (ip, question.qtype()) {
                (IpAddr::V4(ip), Rtype::A) => reply.push((owner, Class::IN, 1, A::from(*ip))).unwrap(),
                (IpAddr::V6(ip), Rtype::AAAA) => reply.push((owner, Class::IN, 1, Aaaa::from(*ip))).unwrap(),
                _ => {}
            }
        }
        socket.send_to(&reply.finish(), from).await.unwrap();
    }
}

#[tokio::test]
async fn a_name_has_all_its_addresses_ipv4_first() {
    let known: &[&str] = &["2001:db8::1", "10.0.0.3", "10.0.0.1", "10.0.0.2"];
    let stage = Stage::new("", "", &[("nodes.example", known)]).await;
    assert_eq!(
        stage.found("nodes.example:7401").await,
        ["10.0.0.3:7401", "10.0.0.1:7401", "10.0.0.2:7401", "[2001:db8::1]:7401"]
    );
}

#[tokio::test]
async fn what_stands_in_the_hosts_file_is_not_asked_for() {
    let hosts = "# here\n10.0.0.1 one one.example # the first\n10.0.0.2 ONE\n::5 one\nnonsense one\n";
    let stage = Stage::new(hosts, "", &[("one", &["10.9.9.9"])]).await;
    assert_eq!(stage.found("One:1").await, ["10.0.0.1:1", "10.0.0.2:1", "[::5]:1"]);
    assert_eq!(stage.found("one.example.:1").await, ["10.0.0.1:1"]);
    assert!(stage.asked().is_empty());
}

#[tokio::test]
async fn addresses_and_the_name_of_this_machine_need_nobody() {
    let stage = Stage::new("", "", &[]).await;
    std::fs::remove_file(&stage.places.hosts).unwrap();
    for (target, found) in [
        ("127.0.0.9:5", vec!["127.0.0.9:5"]),
        ("[::1]:5", vec!["[::1]:5"]),
        ("localhost:5", vec!["127.0.0.1:5", "[::1]:5"]),
        ("a.LOCALHOST.:5", vec!["127.0.0.1:5", "[::1]:5"]),
    ] {
        assert_eq!(stage.found(target).await, found, "{target}");
    }
    assert!(stage.asked().is_empty());
}

#[tokio::test]
async fn a_short_name_is_looked_for_under_the_suffixes_first_and_a_long_one_as_it_is() {
    let known: &[(&str, &[&str])] = &[
        ("nodes.here.svc.example", &["10.0.0.1"]),
        ("a.b.c.d", &["10.0.0.2"]),
        ("x.y.svc.example", &["10.0.0.3"]),
    ];
    let more = "search here.svc.example svc.example\noptions ndots:3 edns0 of-tomorrow\nof tomorrow\n";
    let stage = Stage::new("", more, known).await;
    assert_eq!(stage.found("nodes:7401").await, ["10.0.0.1:7401"]);
    assert_eq!(stage.asked(), ["nodes.here.svc.example"]);
    assert_eq!(stage.found("a.b.c.d:1").await, ["10.0.0.2:1"]);
    assert_eq!(stage.asked(), ["a.b.c.d"]);
    assert_eq!(stage.found("x.y:1").await, ["10.0.0.3:1"]);
    assert_eq!(stage.asked(), ["x.y.here.svc.example", "x.y.svc.example"]);
    assert_eq!(stage.found("a.b.c.d.:1").await, ["10.0.0.2:1"], "whole as it stands");
}

#[tokio::test]
async fn what_cannot_be_found_says_so() {
    let stage = Stage::new("", "", &[("empty.example", &[])]).await;
    for target in ["gone.example:1", "empty.example:1", "gone.example.:1"] {
        let error = look_up_in(&stage.places, target).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{target}: {error}");
    }
    for target in [
        "",
        "name",
        "name:",
        "name:65536",
        ":1",
        "a..b:1",
        "two words:1",
        &format!("{}:1", "x".repeat(64)),
    ] {
        assert!(look_up_in(&stage.places, target).await.is_err(), "{target:?}");
    }
}

#[tokio::test]
async fn the_files_are_read_anew_for_each_question() {
    let stage = Stage::new("10.0.0.1 node", "", &[]).await;
    assert_eq!(stage.found("node:1").await, ["10.0.0.1:1"]);
    std::fs::write(stage.folder.path().join("hosts"), "10.0.0.2 node").unwrap();
    assert_eq!(stage.found("node:1").await, ["10.0.0.2:1"]);
}

#[tokio::test]
async fn a_caller_inside_a_runtime_may_wait_for_it() {
    assert_eq!(
        look_up_blocking("127.0.0.1:9").unwrap(),
        ["127.0.0.1:9".parse().unwrap()]
    );
    assert!(!look_up_blocking("localhost:9").unwrap().is_empty());
    assert!(look_up_blocking("no port").is_err());
}
