//! The shell of the data plane between nodes: links from lanes here to owners elsewhere and back, and forwarded publishes.
//!
//! It runs on a thread of its own, with one connection of class `Links` to every node that owns shards (dialled here) and one
//! from every node that speaks to owners here (dialled there). It moves frames and knows who is at the other end; what they
//! mean is known to lanes and owners. What goes out is encoded by whoever says it and put straight into the connection's
//! outbox; what comes in is read here and handed on.
//!
//! A connection that ends takes its links with it: both ends are told at once, and compare anew on the next one (rule R9).

mod accepted;
mod copies;
mod counts;
mod cut;
mod dialled;
mod forwarded;
mod gather;
mod numbers;
mod questions;
mod remote;
pub mod route;
#[cfg(test)]
mod tests;
mod ways;

pub use copies::{CopyReply, CopyRoad};
pub(crate) use cut::{FORWARD_BYTES, forwarded_bytes};
pub(crate) use questions::{NoAnswer, Told};
pub use remote::RemoteLane;
pub use ways::{Forwarded, Handle, NotSent};

use crate::control;
use crate::mesh::handshake::Connection;
use crate::mesh::session::Outbox;
use crate::mesh::{Identity, Limits};
use crate::node::{Node, spawn_vital};
use numbers::{LinkIds, OwnerNumbers};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use tidings_protocol::NodeId;
use tidings_protocol::mesh::Class;
use tokio::sync::{mpsc, oneshot};

/// What the thread starts with.
#[derive(Debug)]
pub struct Begin {
    /// The way to it, as the node holds it already.
    pub handle: Handle,
    /// The node whose lanes and owners are linked.
    pub node: Arc<Node>,
    /// Who is there and who owns what.
    pub control: control::Handle,
    /// Who this node is to others.
    pub identity: Identity,
    /// Times and bounds of connections.
    pub limits: Limits,
    /// Connections of the classes `Links` and `Copies` that were accepted.
    pub links: mpsc::UnboundedReceiver<Connection>,
}

/// The thread as whoever started it holds it.
#[derive(Debug)]
pub struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Cuts all connections and waits for the thread. Returns whether it ended in order. To be called when the node's own
    /// threads have ended: until then they may need the others, and the others them.
    #[must_use]
    pub fn join(self) -> bool {
        _ = self.stop.send(());
        self.thread.join().is_ok()
    }
}

/// Starts the thread `tidings-peers`.
///
/// # Errors
/// If the system gives no thread.
pub fn start(begin: Begin) -> io::Result<Running> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("tidings-peers".to_owned())
        .spawn(move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, run(begin, stopped));
        })?;
    Ok(Running { stop, thread })
}

/// What the tasks of the thread share.
struct Stage {
    node: Arc<Node>,
    control: control::Handle,
    identity: Identity,
    limits: Limits,
    handle: Handle,
    /// What is answered to operators who ask at another node.
    answers: axum::Router,
    /// Nodes that somebody keeps a connection to.
    kept: RefCell<HashSet<NodeId>>,
    /// Nodes that somebody keeps a connection for copies to.
    copied: RefCell<HashSet<NodeId>>,
    /// The connection that each node last opened to us.
    accepted: RefCell<HashMap<NodeId, Accepted>>,
    /// The same of those whose shards are copied here.
    copying: RefCell<HashMap<NodeId, Accepted>>,
    owners: RefCell<OwnerNumbers>,
    links: RefCell<LinkIds>,
    generation: Cell<u32>,
}

/// A connection that another node opened.
struct Accepted {
    incarnation: u64,
    serial: u32,
    outbox: Outbox,
}

impl Stage {
    /// Higher each time, for the whole life of the process: no two lives of a link share one.
    fn next_generation(&self) -> u32 {
        let next = self.generation.get() + 1;
        self.generation.set(next);
        next
    }

    /// Looks at what was agreed: keeps connections to newcomers, forgets the numbers of whoever left.
    fn look(self: &Rc<Self>, view: &control::View) {
        let living = |id| dialled::target(view, id).is_some_and(|target| target.alive);
        let wanted = view.map.nodes().filter(|(id, _)| living(*id)).count();
        let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
        self.handle.counts().wanted.set(wanted);
        for (id, _) in view.map.nodes() {
            if dialled::target(view, id).is_some() && self.kept.borrow_mut().insert(id) {
                spawn_vital("connection to a node", dialled::keep(Rc::clone(self), id));
            }
        }
        for id in copies::holders(view) {
            if dialled::target(view, id).is_some() && self.copied.borrow_mut().insert(id) {
                spawn_vital("connection to a node with copies", copies::keep(Rc::clone(self), id));
            }
        }
        let known = |node: NodeId| view.map.node(node).is_some();
        self.links.borrow_mut().retain(known);
    }
}

async fn run(begin: Begin, mut stopped: oneshot::Receiver<()>) {
    let Begin {
        handle,
        node,
        control,
        identity,
        limits,
        mut links,
    } = begin;
    node.metrics.register(|registry| handle.counts().register(registry));
    let mut view = control.watch();
    let stage = Rc::new(Stage {
        owners: RefCell::new(OwnerNumbers::new(node.owners.len())),
        links: RefCell::new(LinkIds::new(node.lanes.len())),
        answers: crate::elsewhere::answers(&node),
        node,
        control,
        identity,
        limits,
        handle,
        kept: RefCell::default(),
        copied: RefCell::default(),
        accepted: RefCell::default(),
        copying: RefCell::default(),
        generation: Cell::new(0),
    });
    loop {
        let seen = Arc::clone(&view.borrow_and_update());
        stage.look(&seen);
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            Some(connection) = links.recv() => if connection.peer.class == Class::Copies {
                spawn_vital("connection of a node with shards", copies::serve(Rc::clone(&stage), connection));
            } else {
                spawn_vital("connection of a node", accepted::serve(Rc::clone(&stage), connection));
            },
            // Without a control plane nothing changes any more.
            Ok(()) = view.changed() => {}
            else => break,
        }
    }
    _ = stopped.await;
}
