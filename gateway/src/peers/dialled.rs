//! Connections dialled to nodes with owners: one each, kept up as long as the map names the node.
//!
//! Behind the other node's welcome every lane here has a link to each of its owners. At the connection's end all of them are
//! down at once.

use super::Stage;
use super::gather::Gather;
use super::questions::Desk;
use super::ways::Way;
use crate::control::View;
use crate::mesh::dial::{Backoff, connect};
use crate::mesh::handshake::Connection;
use crate::mesh::session::{self, End, Outbox};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use tidings_protocol::NodeId;
use tidings_protocol::mesh::{Class, Frame, LinkName, decode};
use tidings_protocol::peer::OwnerToEdge;
use tidings_router::control::map::Process;
use tokio::sync::{Notify, watch};

/// Whom to dial, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) process: Process,
    pub(super) address: String,
    pub(super) alive: bool,
}

/// Where a node is dialled; `None` if it is not to be: it is not in the map, has no owners, or is this one.
pub(super) fn target(view: &View, node: NodeId) -> Option<Target> {
    let known = view.map.node(node).filter(|known| known.info.roles.owner)?;
    if node == view.me.node {
        return None;
    }
    let peer = view.peers.get(&node);
    Some(Target {
        process: Process {
            node,
            incarnation: known.incarnation,
        },
        address: peer.map_or_else(|| known.info.peer_address.clone(), |peer| peer.address.to_string()),
        alive: peer.is_none_or(|peer| peer.alive),
    })
}

/// Keeps a connection to a node up until the map names it no more.
pub(super) async fn keep(stage: Rc<Stage>, node: NodeId) {
    let mut view = stage.control.watch();
    let mut backoff = Backoff::new(&stage.limits);
    loop {
        let wanted = target(&view.borrow_and_update(), node);
        let Some(target) = wanted else { break };
        match connect(
            &target.address,
            &stage.identity,
            Class::Links,
            Some(node),
            &stage.limits,
        )
        .await
        {
            Ok(connection) if connection.peer.incarnation >= target.process.incarnation => {
                let (welcome, end) = hold(&stage, connection, &mut view).await;
                tracing::info!(%node, %end, "the connection to a node with owners ended");
                if welcome {
                    backoff.reset();
                }
            }
            Ok(connection) => {
                let incarnation = connection.peer.incarnation;
                tracing::info!(%node, incarnation, "a node answers that has started again since");
            }
            Err(error) => tracing::info!(%node, address = target.address, %error, "a node with owners is not reached"),
        }
        stage.handle.counts().reconnects.inc();
        let pause = if target.alive {
            backoff.pause(getrandom::u32().unwrap_or(u32::MAX / 2))
        } else {
            stage.limits.retry_longest
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = other_target(&mut view, node, &target) => backoff.reset(),
        }
    }
    stage.owners.borrow_mut().release(node);
    stage.kept.borrow_mut().remove(&node);
}

/// Waits until the node is to be dialled otherwise than thought. That it seems dead is no reason to hurry.
pub(super) async fn other_target(view: &mut watch::Receiver<Arc<View>>, node: NodeId, thought: &Target) {
    loop {
        if view.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let now = target(&view.borrow_and_update(), node);
        let same = now.is_some_and(|now| {
            now.process == thought.process
                && now.address == thought.address
                && (now.alive == thought.alive || !now.alive)
        });
        if !same {
            return;
        }
    }
}

/// Waits until the map names the node no more, or in a later life than this one.
pub(super) async fn superseded(view: &mut watch::Receiver<Arc<View>>, process: Process) {
    loop {
        let wanted = target(&view.borrow_and_update(), process.node);
        if wanted.is_none_or(|target| target.process.incarnation > process.incarnation) {
            return;
        }
        if view.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Runs a connection until it ends. Whether the other node served us, and why it ended.
async fn hold(stage: &Rc<Stage>, connection: Connection, view: &mut watch::Receiver<Arc<View>>) -> (bool, End) {
    let process = Process {
        node: connection.peer.node,
        incarnation: connection.peer.incarnation,
    };
    let outbox = Outbox::new(stage.limits.queue_bytes);
    let ear = RefCell::new(Ear {
        stage: Rc::clone(stage),
        node: process.node,
        desk: Desk::new(stage, process.node, &outbox),
        outbox: outbox.clone(),
        way: None,
        gather: Gather::new(),
    });
    let gathered = Notify::new();
    let hear = |_, bytes: &[u8]| {
        gathered.notify_one();
        ear.borrow_mut().hear(bytes)
    };
    // It runs when nothing more is there to be read, or the runtime gives it a turn.
    let hand_on = async {
        loop {
            gathered.notified().await;
            ear.borrow_mut().hand_on();
        }
    };
    let end = tokio::select! {
        end = session::run(connection, &stage.limits, &outbox, hear) => end,
        () = superseded(view, process) => End::Dismissed,
        () = hand_on => End::Dismissed,
    };
    outbox.dismiss();
    let welcome = ear.borrow_mut().end();
    (welcome, end)
}

struct Ear {
    stage: Rc<Stage>,
    node: NodeId,
    outbox: Outbox,
    desk: Desk,
    way: Option<Arc<Way>>,
    /// By lane and owner's number.
    gather: Gather<(usize, usize), OwnerToEdge>,
}

impl Ear {
    fn hear(&mut self, bytes: &[u8]) -> Result<(), String> {
        let frame = decode(bytes).map_err(|error| error.to_string())?;
        self.stage.handle.counts().came.count(&frame, bytes.len());
        let frame = match self.way {
            Some(_) => match self.desk.take(frame) {
                Some(frame) => frame,
                None => return Ok(()),
            },
            None => frame,
        };
        match (frame, &self.way) {
            (Frame::Welcome { owners }, None) => self.welcome(owners),
            (_, None) => Err("the first word is not a welcome".to_owned()),
            (
                Frame::FromOwner {
                    link,
                    generation,
                    frame,
                },
                Some(way),
            ) => {
                let (lane, number) = self.place(way, link)?;
                if generation != way.generation {
                    self.stage.handle.counts().late.inc();
                } else if self.gather.put((lane, number), frame) {
                    self.hand_on();
                }
                Ok(())
            }
            (Frame::Published { request, results }, Some(way)) => {
                sense(way.published(request, results), "an answer to nothing that was sent")
            }
            (Frame::Inspected { request, known }, Some(way)) => {
                // The question may have been given up.
                _ = way.inspected(request, known);
                Ok(())
            }
            (Frame::LinkDown { link, .. }, Some(_)) => Err(format!("{link} is refused")),
            (
                Frame::Welcome { .. }
                | Frame::LinkUp { .. }
                | Frame::FromEdge { .. }
                | Frame::Publish { .. }
                | Frame::Inspect { .. }
                | Frame::Ask { .. }
                | Frame::Told { .. }
                | Frame::Order { .. }
                | Frame::Ordered { .. },
                Some(_),
            ) => Err("a frame of the other direction".to_owned()),
        }
    }

    /// The lane and the number of the owner at the ends of a link.
    fn place(&self, way: &Way, link: LinkName) -> Result<(usize, usize), String> {
        let number = way.owners.get(usize::from(link.owner));
        let lane = usize::from(link.lane);
        match number {
            Some(number) if lane < self.stage.node.lanes.len() => Ok((lane, *number)),
            _ => Err(format!("{link} does not exist")),
        }
    }

    fn welcome(&mut self, owners: u16) -> Result<(), String> {
        let stage = &self.stage;
        let numbers = stage.owners.borrow_mut().of(self.node, owners);
        let numbers = numbers.ok_or("there are more owners than lanes take")?;
        let generation = stage.next_generation();
        let counts = Arc::clone(stage.handle.counts());
        let lanes = stage.node.lanes.len();
        counts.dialled.inc();
        counts.to_owners.inc_by((numbers.len() * lanes) as i64);
        let way = Way::new(self.node, generation, numbers, self.outbox.clone(), counts);
        // The links are announced before any lane can say something on them.
        for (owner, lane) in links(way.owners.len(), lanes) {
            let link = LinkName {
                lane: lane as u16,
                owner: owner as u16,
            };
            _ = way.send(&Frame::LinkUp { link, generation });
        }
        stage.handle.open(&way);
        for (owner, lane) in links(way.owners.len(), lanes) {
            stage.node.lanes[lane].owner_up(way.owners[owner], generation);
        }
        self.way = Some(way);
        Ok(())
    }

    /// Tells lanes what was gathered for them.
    fn hand_on(&mut self) {
        let Some(way) = &self.way else { return };
        let lanes = &self.stage.node.lanes;
        self.gather
            .empty(|(lane, owner), frames| lanes[lane].from_owner(owner, way.generation, frames));
    }

    /// The connection is over, and so are its links. Whether it had any.
    fn end(&mut self) -> bool {
        self.hand_on();
        let Some(way) = self.way.take() else { return false };
        self.stage.handle.close(&way);
        let lanes = &self.stage.node.lanes;
        for (owner, lane) in links(way.owners.len(), lanes.len()) {
            lanes[lane].owner_down(way.owners[owner], way.generation);
        }
        let counts = self.stage.handle.counts();
        counts.dialled.dec();
        counts.to_owners.dec_by((way.owners.len() * lanes.len()) as i64);
        true
    }
}

fn links(owners: usize, lanes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..owners).flat_map(move |owner| (0..lanes).map(move |lane| (owner, lane)))
}

pub(super) fn sense(so: bool, what: &str) -> Result<(), String> {
    if so { Ok(()) } else { Err(what.to_owned()) }
}
