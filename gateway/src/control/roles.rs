//! What an edge may ask of other nodes: pure. It holds subscribers and takes publishes; it does not own, vote, or decide for others.

use super::words::Request;
use tidings_protocol::NodeId;
use tidings_router::control::command::Command;

/// What is asked too much, in words, if it is.
pub(super) fn too_much(from: NodeId, request: &Request) -> Option<&'static str> {
    if !from.is_edge() {
        return None;
    }
    match request {
        Request::Fate { .. } | Request::Join { .. } => None,
        Request::Propose { commands, .. } => commands.iter().find_map(|command| decides(from, command)),
        Request::Raft { .. } => Some("for a part in the cluster's log"),
        Request::Promise(_) | Request::Renounce { .. } => Some("to form a cluster"),
        Request::Renew { .. } => Some("for a lease"),
        Request::Voters { .. } => Some("who votes"),
        Request::WentBack { .. } => Some("to lead"),
    }
}

/// It may say what it is and that it leaves, and hand on what only takes rights away.
fn decides(from: NodeId, command: &Command) -> Option<&'static str> {
    match command {
        Command::Register { process, info } if process.node == from && !info.roles.owner => None,
        Command::Register { .. } => Some("to own shards, or to be another node"),
        Command::Drain { node, .. } if *node == from => None,
        Command::Revoke { .. } => None,
        _ => Some("for a change of the map"),
    }
}
