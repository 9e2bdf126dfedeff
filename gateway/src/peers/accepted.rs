//! Connections that other nodes opened: their lanes have links to the owners here, and their publishes come to them.
//!
//! Only nodes of the map are served, in their present life. Of one node the newest connection counts.

use super::dialled::sense;
use super::forwarded::Inlet;
use super::gather::Gather;
use super::questions::Desk;
use super::remote::RemoteLane;
use super::ways::put;
use super::{Accepted, Stage, route};
use crate::control::View;
use crate::mesh::handshake::Connection;
use crate::mesh::session::{self, End, Outbox};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tidings_protocol::mesh::{Frame, LinkName, MAX_OWNERS_OF_NODE, decode};
use tidings_protocol::peer::EdgeToOwner;
use tidings_protocol::{NodeId, ObjectHash};
use tidings_router::control::map::Process;
use tokio::sync::{Notify, watch};

/// How long a node may wait here until the map names it: it may have heard of that before us.
const PATIENCE: Duration = Duration::from_secs(1);

/// Questions of one node that wait for an owner at once. They are asked by people.
const QUESTIONS: usize = 1_000;

/// Serves a connection until it ends.
pub(super) async fn serve(stage: Rc<Stage>, connection: Connection) {
    // It was accepted on another thread.
    let connection = match connection.here() {
        Ok(connection) => connection,
        Err(error) => return tracing::warn!(%error, "a connection of a node cannot be taken over"),
    };
    let process = Process {
        node: connection.peer.node,
        incarnation: connection.peer.incarnation,
    };
    let node = process.node;
    let counts = Arc::clone(stage.handle.counts());
    let mut view = stage.control.watch();
    if !is_current(&mut view, process).await {
        counts.strangers.inc();
        tracing::info!(%node, incarnation = process.incarnation, "a node is not in the map in this life: not served");
        return;
    }
    let outbox = Outbox::new(stage.limits.queue_bytes);
    let serial = stage.next_generation();
    if !take_over(&stage.accepted, process, serial, &outbox) {
        counts.strangers.inc();
        return;
    }
    counts.accepted.inc();
    let ear = Ear {
        stage: Rc::clone(&stage),
        process,
        inlet: Inlet::new(&stage, &outbox),
        desk: Desk::new(&stage, node, &outbox),
        outbox: outbox.clone(),
        links: HashMap::new(),
        questions: Rc::default(),
        gather: Gather::new(),
    };
    ear.say(&Frame::Welcome {
        owners: (stage.node.owners.len() as u16).min(MAX_OWNERS_OF_NODE),
    });
    stage.handle.asking().open(node, serial, &outbox);
    let ear = RefCell::new(ear);
    let gathered = Notify::new();
    let hear = |_, bytes: &[u8]| {
        gathered.notify_one();
        ear.borrow_mut().hear(bytes)
    };
    let hand_on = async {
        loop {
            gathered.notified().await;
            ear.borrow_mut().hand_on();
        }
    };
    let end = tokio::select! {
        end = session::run(connection, &stage.limits, &outbox, hear) => end,
        () = gone(&mut view, process) => End::Dismissed,
        () = hand_on => End::Dismissed,
    };
    outbox.dismiss();
    ear.borrow_mut().end();
    stage.handle.asking().close(node, serial);
    counts.accepted.dec();
    let mut accepted = stage.accepted.borrow_mut();
    if accepted.get(&node).is_some_and(|newest| newest.serial == serial) {
        accepted.remove(&node);
    }
    tracing::info!(%node, %end, "the connection of a node ended");
}

/// Whether the map names this life of the node now, or soon.
pub(super) async fn is_current(view: &mut watch::Receiver<Arc<View>>, process: Process) -> bool {
    let known = view.wait_for(|view| view.map.is_current(process) || view.map.is_superseded(process));
    match tokio::time::timeout(PATIENCE, known).await {
        Ok(Ok(view)) => view.map.is_current(process),
        Ok(Err(_)) | Err(_) => false,
    }
}

/// Waits until the map names this life of the node no more.
pub(super) async fn gone(view: &mut watch::Receiver<Arc<View>>, process: Process) {
    if view.wait_for(|view| !view.map.is_current(process)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Takes the place of the node's connection before this one; `false` if that is of a later life.
pub(super) fn take_over(
    accepted: &RefCell<HashMap<NodeId, Accepted>>,
    process: Process,
    serial: u32,
    outbox: &Outbox,
) -> bool {
    let mut accepted = accepted.borrow_mut();
    if let Some(before) = accepted.get(&process.node) {
        if before.incarnation > process.incarnation {
            return false;
        }
        before.outbox.dismiss();
    }
    let newest = Accepted {
        incarnation: process.incarnation,
        serial,
        outbox: outbox.clone(),
    };
    accepted.insert(process.node, newest);
    true
}

/// One life of a link: its generation there, and its name and generation here.
#[derive(Clone, Copy)]
struct Life {
    theirs: u32,
    link: u32,
    ours: u32,
}

struct Ear {
    stage: Rc<Stage>,
    process: Process,
    outbox: Outbox,
    inlet: Inlet,
    desk: Desk,
    links: HashMap<LinkName, Life>,
    /// Questions that are not answered.
    questions: Rc<Cell<usize>>,
    /// By owner, link and our generation of it.
    gather: Gather<(u16, u32, u32), EdgeToOwner>,
}

impl Ear {
    fn say(&self, frame: &Frame) {
        // A connection that is over tells so itself.
        _ = put(&self.outbox, self.stage.handle.counts(), frame);
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<(), String> {
        let frame = decode(bytes).map_err(|error| error.to_string())?;
        let counts = self.stage.handle.counts();
        counts.came.count(&frame, bytes.len());
        let Some(frame) = self.desk.take(frame) else {
            return Ok(());
        };
        match frame {
            Frame::LinkUp { link, generation } => self.link_up(link, generation),
            Frame::LinkDown { link, generation } => {
                match self.links.get(&link) {
                    Some(life) if life.theirs == generation => self.link_down(link),
                    _ => _ = counts.late.inc(),
                }
                Ok(())
            }
            Frame::FromEdge {
                link,
                generation,
                frame,
            } => {
                match self.links.get(&link) {
                    Some(life) if life.theirs == generation => {
                        if self.gather.put((link.owner, life.link, life.ours), frame) {
                            self.hand_on();
                        }
                    }
                    _ => _ = counts.late.inc(),
                }
                Ok(())
            }
            Frame::Publish {
                request,
                ack,
                within_ms,
                changes,
            } => {
                self.inlet.publish(bytes.len(), request, (ack, within_ms), changes);
                Ok(())
            }
            Frame::Inspect { request, object, lane } => {
                self.inspect(request, object, lane);
                Ok(())
            }
            Frame::Welcome { .. }
            | Frame::FromOwner { .. }
            | Frame::Published { .. }
            | Frame::Inspected { .. }
            | Frame::Ask { .. }
            | Frame::Told { .. }
            | Frame::Order { .. }
            | Frame::Ordered { .. } => Err("a frame of the other direction".to_owned()),
        }
    }

    fn link_up(&mut self, link: LinkName, theirs: u32) -> Result<(), String> {
        let stage = Rc::clone(&self.stage);
        let owner = stage.node.owners.get(usize::from(link.owner));
        let owner = owner.ok_or_else(|| format!("{link}: there is no such owner"))?;
        sense(link.lane < MAX_OWNERS_OF_NODE, "a node has fewer lanes")?;
        if let Some(before) = self.links.get(&link) {
            sense(
                before.theirs < theirs,
                "a link comes again with a generation that is not higher",
            )?;
            self.link_down(link);
        }
        let life = Life {
            theirs,
            link: stage.links.borrow_mut().of(self.process.node, link.lane),
            ours: stage.next_generation(),
        };
        let counts = Arc::clone(stage.handle.counts());
        counts.from_lanes.inc();
        let lane = RemoteLane::new(self.outbox.clone(), counts, link, theirs);
        owner.link_up(life.link, life.ours, lane);
        self.links.insert(link, life);
        Ok(())
    }

    fn link_down(&mut self, link: LinkName) {
        self.hand_on();
        let owner = self.stage.node.owners.get(usize::from(link.owner));
        if let (Some(life), Some(owner)) = (self.links.remove(&link), owner) {
            owner.link_down(life.link, life.ours);
            self.stage.handle.counts().from_lanes.dec();
        }
    }

    /// Answers what the owner of an object knows, if it is here.
    fn inspect(&self, request: u64, object: ObjectHash, lane: Option<u16>) {
        if self.questions.get() >= QUESTIONS {
            return self.say(&Frame::Inspected { request, known: None });
        }
        let questions = Rc::clone(&self.questions);
        questions.set(questions.get() + 1);
        let stage = Rc::clone(&self.stage);
        let link = lane.and_then(|lane| stage.links.borrow().find(self.process.node, lane));
        let outbox = self.outbox.clone();
        tokio::task::spawn_local(async move {
            let threads = stage.node.owners.len();
            let shard = usize::from(stage.node.shards.shard(object).0);
            let owner = shard
                .checked_rem(threads)
                .and_then(|thread| stage.node.owners.get(thread));
            let known = match owner {
                Some(owner) => owner.inspect(object).await,
                None => None,
            };
            let known = known.and_then(|known| route::known(&known, link.map(|link| link as usize)));
            questions.set(questions.get() - 1);
            _ = put(&outbox, stage.handle.counts(), &Frame::Inspected { request, known });
        });
    }

    /// Tells owners what was gathered for them.
    fn hand_on(&mut self) {
        let owners = &self.stage.node.owners;
        self.gather.empty(|(owner, link, generation), frames| {
            owners[usize::from(owner)].from_lane(link as usize, generation, frames);
        });
    }

    fn end(&mut self) {
        self.hand_on();
        let links: Vec<LinkName> = self.links.keys().copied().collect();
        links.into_iter().for_each(|link| self.link_down(link));
    }
}
