//! What somebody with an edge's secret gets done who does not keep to what an edge does: nothing, and it is counted.

use super::is_whole;
use super::stage::{PATIENCE, Stage};
use crate::control::keys;
use crate::control::lines::Lines;
use crate::control::notices::Notices;
use crate::control::words::{Answer, Founding, Proposal, Request};
use crate::mesh::dial::connect;
use crate::mesh::{Identity, Keys, Limits};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tidings_protocol::mesh::Class;
use tidings_protocol::{NodeId, ShardId, Version};
use tidings_router::control::command::Command;
use tidings_router::control::lease::Renewal;
use tidings_router::control::map::{NodeInfo, Process, Roles};
use tokio::time::{sleep, timeout};

/// Somebody who has what edges have, under a name of theirs.
fn forger(stage: &Stage) -> Identity {
    let text = keys::for_edges(&stage.settings[0].secret).expect("a secret");
    let (key, _) = keys::read(&text).expect("an edge's").mesh();
    let name = keys::name(&stage.settings[0].name).expect("a name");
    Identity::new(name, NodeId(77).with_edge(true), 5, Keys::new(key, None))
}

fn refused_roles(stage: &Stage) -> u64 {
    let nodes = stage.running().into_iter();
    nodes
        .map(|node| stage.get(node).handle.metrics().refused_roles.get())
        .sum()
}

#[tokio::test]
async fn forged_claims_of_an_edge_are_refused_and_counted() {
    let stage = Stage::three().await;
    stage.all_see("every shard has an owner", is_whole).await;
    let leader = stage.leader().await;
    let (at, node) = (stage.get(leader).address.to_string(), stage.view(leader).me.node);
    let us = forger(&stage);
    let lines = Lines::new(us.clone(), Limits::default(), Arc::default(), Arc::<Notices>::default());
    let cluster = stage.identity(0).cluster;
    let me = Process {
        node: us.node,
        incarnation: us.incarnation,
    };
    let owner = NodeInfo {
        roles: Roles {
            owner: true,
            edge: true,
        },
        zone: String::new(),
        peer_address: "127.0.0.1:1".to_owned(),
        client_address: String::new(),
    };
    let renewal = Renewal {
        from: me,
        number: 1,
        highest: Version::ZERO,
        on_disk: Vec::new(),
    };
    let propose = |command| Request::Propose {
        cluster,
        commands: vec![command],
    };
    let victim = stage.view(leader).me;
    let forged = [
        Request::Raft {
            cluster,
            bytes: vec![1, 2, 3],
        },
        Request::Renew { cluster, renewal },
        Request::Voters {
            cluster,
            voters: BTreeSet::from([us.node]),
        },
        Request::WentBack {
            cluster,
            entries: 1 << 40,
        },
        Request::Renounce { cluster: 99 },
        Request::Promise(Proposal {
            founding: Founding::named(99),
            proposer: us.node,
            voters: BTreeMap::from([(us.node, at.clone())]),
        }),
        propose(Command::Register {
            process: me,
            info: owner.clone(),
        }),
        propose(Command::Register {
            process: Process {
                node: victim.node,
                incarnation: u64::MAX,
            },
            info: owner,
        }),
        propose(Command::Drain {
            node: victim.node,
            draining: true,
        }),
        propose(Command::Forget { node: victim.node }),
        propose(Command::SetCopies { copies: 1 }),
        propose(Command::RaiseCeiling {
            to: Version(Version::LIMIT - 1),
        }),
        propose(Command::Pin {
            shard: ShardId(0),
            to: Some(us.node),
        }),
    ];
    let (before, map) = (refused_roles(&stage), stage.view(leader).map.revision());
    let count = forged.len() as u64;
    for request in forged {
        let words = format!("{request:?}");
        let answer = lines.ask((node, &at), Class::Control, request, PATIENCE).await;
        match answer {
            Ok(Answer::Refused(why)) => assert!(why.contains("edge"), "{words}: {why}"),
            other => panic!("{words}: {other:?}"),
        }
    }
    assert_eq!(refused_roles(&stage) - before, count);
    assert_eq!(stage.view(leader).map.revision(), map, "nothing was changed");
    // Copies come from owners only: the connection is ended.
    let connection = connect(&at, &us, Class::Copies, Some(node), &Limits::default()).await;
    drop(connection);
    let counting = async {
        while refused_roles(&stage) - before <= count {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, counting).await.expect("it is counted");
}

#[tokio::test]
async fn a_node_with_an_edges_secret_that_would_own_and_vote_joins_as_neither() {
    let mut stage = Stage::three().await;
    stage.all_see("every shard has an owner", is_whole).await;
    let text = keys::for_edges(&stage.settings[0].secret).expect("a secret");
    let forged = stage.start(1, |settings| {
        settings.secret = text.clone();
        (settings.owner, settings.voter) = (true, true);
    });
    let honest = stage.start(1, |settings| {
        settings.secret = text;
        (settings.owner, settings.voter) = (false, false);
    });
    stage.formed(forged).await;
    stage.formed(honest).await;
    let name = stage.view(honest).me.node;
    assert!(name.is_edge());
    stage
        .sees(0, "the honest one is in the map", |view| view.map.node(name).is_some())
        .await;
    let counting = async {
        while refused_roles(&stage) == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, counting).await.expect("its claims are counted");
    let forger = stage.view(forged).me.node;
    for node in 0..3 {
        let view = stage.view(node);
        assert!(view.map.node(forger).is_none_or(|known| !known.info.roles.owner));
        assert!(!view.voters.contains(&forger) && !view.voters.contains(&name));
        assert!(
            view.map
                .shards()
                .all(|(_, shard)| shard.owner.is_none_or(|owner| !owner.node.is_edge()))
        );
    }
}
