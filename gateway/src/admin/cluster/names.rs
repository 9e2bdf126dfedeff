//! Who is who: nodes by their numbers and by what people call them.

use crate::control::{Member, Status, Verdict, View};
use crate::problem::Refusal;
use std::collections::{BTreeMap, BTreeSet};
use tidings_protocol::{Code, NodeId};

/// See the module.
pub(super) struct Names<'a> {
    pub(super) view: &'a View,
    pub(super) members: &'a BTreeMap<NodeId, Member>,
    pub(super) mine: &'a str,
}

/// Why a text names no node. Nothing was looked at beyond that.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// None is called so.
    Unknown,
    /// Several are.
    Ambiguous(Vec<NodeId>),
}

impl Lost {
    /// As who named it in this field is told.
    pub(super) fn refusal(&self, field: &str) -> Refusal {
        match self {
            Self::Unknown => {
                let detail = format!(
                    "`{field}`: the cluster knows no node of this name or id (a node that is gone may have kept only its id)"
                );
                Refusal::new(Code::NotFound, detail)
            }
            Self::Ambiguous(nodes) => {
                let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
                let detail = format!(
                    "`{field}`: several nodes are called so: say which by its id ({})",
                    nodes.join(", ")
                );
                Refusal::new(Code::OrderRefused, detail)
            }
        }
    }
}

impl<'a> Names<'a> {
    pub(super) fn of_status(status: &'a Status, mine: &'a str) -> Self {
        Self {
            view: &status.view,
            members: &status.members,
            mine,
        }
    }

    /// What people call a node; its number if nobody said.
    pub(super) fn of(&self, node: NodeId) -> String {
        self.said(node).map_or_else(|| node.to_string(), str::to_owned)
    }

    fn said(&self, node: NodeId) -> Option<&str> {
        if node == self.view.me.node {
            return Some(self.mine);
        }
        let of_members = self.members.get(&node).map(|member| &member.name);
        let of_peers = self.view.peers.get(&node).map(|peer| &peer.name);
        let mut said = of_members.into_iter().chain(of_peers);
        said.find(|name| !name.is_empty()).map(String::as_str)
    }

    /// The one node of the map that is called so, by its number or its name.
    pub(super) fn find(&self, text: &str) -> Result<NodeId, Lost> {
        let called = |node: &NodeId| node.to_string() == text || self.said(*node) == Some(text);
        let found: Vec<NodeId> = self.view.map.nodes().map(|(node, _)| node).filter(called).collect();
        match found[..] {
            [] => Err(Lost::Unknown),
            [one] => Ok(one),
            _ => Err(Lost::Ambiguous(found)),
        }
    }

    pub(super) fn is_alive(&self, node: NodeId) -> bool {
        let by_gossip = || {
            self.members
                .get(&node)
                .is_some_and(|member| member.verdict == Verdict::Alive)
        };
        node == self.view.me.node || self.view.peers.get(&node).map_or_else(by_gossip, |peer| peer.alive)
    }

    /// The nodes of the map that live.
    pub(super) fn alive(&self) -> BTreeSet<NodeId> {
        let nodes = self.view.map.nodes().map(|(node, _)| node);
        nodes.filter(|node| self.is_alive(*node)).collect()
    }
}
