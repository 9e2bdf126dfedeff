//! What the nodes of a cluster say of it: who leads, who owns and holds what, and what they count.

use super::{ANSWER, Cluster, ask};
use crate::support::PATIENCE;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

impl Cluster {
    /// The node that leads the control plane, as another knows it.
    #[track_caller]
    pub(crate) fn leader(&self, asked: usize) -> usize {
        let status = self.until(asked, "a leader is known", |status| !status["leader"].is_null());
        let nodes = status["nodes"].as_array().expect("nodes");
        let leader = nodes
            .iter()
            .find(|node| node["leader"] == true)
            .expect("the leader is listed");
        self.number(leader["node"].as_str().expect("a name"))
    }

    /// The nodes beside this one.
    pub(crate) fn others(&self, node: usize) -> Vec<usize> {
        (0..self.count()).filter(|other| *other != node).collect()
    }

    /// A node that does not lead, of the running ones.
    #[track_caller]
    pub(crate) fn follower(&mut self) -> usize {
        let running = self.running();
        let leader = self.leader(running[0]);
        running.into_iter().find(|node| *node != leader).expect("another node")
    }

    /// The node of this name.
    #[track_caller]
    pub(crate) fn number(&self, name: &str) -> usize {
        let found = self.members.iter().position(|member| member.name == name);
        found.unwrap_or_else(|| panic!("no node is called {name}"))
    }

    /// Who owns each shard, as a node knows it.
    #[track_caller]
    pub(crate) fn owners(&self, asked: usize) -> BTreeMap<u64, usize> {
        let status = self.status(asked).expect("an answer");
        let shards = status["shards"].as_array().expect("shards");
        let owner = |shard: &Value| self.number(shard["owner"].as_str().expect("a name"));
        shards
            .iter()
            .map(|shard| (shard["shard"].as_u64().expect("a number"), owner(shard)))
            .collect()
    }

    /// The shard of each of these objects.
    #[track_caller]
    pub(crate) fn shards_of(&self, asked: usize, objects: &[String]) -> Vec<u64> {
        let shard = |object: &String| {
            let target = format!("/v1/object?object={object}");
            let since = Instant::now();
            loop {
                let answer = ask(self.address(asked), "GET", &target, &Value::Null, ANSWER);
                match &answer {
                    Ok((200, known)) => return known["shard"].as_u64().expect("a shard"),
                    _ => assert!(since.elapsed() < PATIENCE, "{object}: {answer:?}"),
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        objects.iter().map(shard).collect()
    }

    /// Those of the objects whose shards a node owns, and the others.
    #[track_caller]
    pub(crate) fn split(&self, asked: usize, owner: usize, objects: &[String]) -> (Vec<String>, Vec<String>) {
        let owners = self.owners(asked);
        let shards = self.shards_of(asked, objects);
        let (mut of, mut others) = (Vec::new(), Vec::new());
        for (object, shard) in objects.iter().zip(shards) {
            let side = if owners.get(&shard) == Some(&owner) {
                &mut of
            } else {
                &mut others
            };
            side.push(object.clone());
        }
        (of, others)
    }

    /// The sum of a metric over all its labels that contain these; 0 if the node does not have it.
    pub(crate) fn metric(&self, node: usize, name: &str, labels: &[&str]) -> u64 {
        let text = match ask(self.address(node), "GET", "/metrics", &Value::Null, ANSWER) {
            Ok((200, Value::String(text))) => text,
            other => panic!("no metrics: {other:?}"),
        };
        let of = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let fits = rest.starts_with([' ', '{']) && labels.iter().all(|label| rest.contains(label));
            fits.then(|| line.rsplit(' ').next()?.parse::<f64>().ok())?
        };
        text.lines().filter_map(of).sum::<f64>() as u64
    }

    /// The processes that have each shard complete, its owner among them, as a node knows it.
    #[track_caller]
    pub(crate) fn holders(&self, asked: usize) -> BTreeMap<u64, BTreeSet<usize>> {
        let status = self.status(asked).expect("an answer");
        let shards = status["shards"].as_array().expect("shards");
        let holders = shards.iter().map(|shard| {
            let copies = shard["copies"].as_array().expect("copies").iter();
            let names = copies.chain([&shard["owner"]]).filter_map(Value::as_str);
            let nodes = names.map(|name| self.number(name)).collect();
            (shard["shard"].as_u64().expect("a number"), nodes)
        });
        holders.collect()
    }
}
