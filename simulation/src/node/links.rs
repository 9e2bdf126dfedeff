//! The links between lanes and owners of different nodes: dialled by the lane's node, watched by both.

use super::TICK_US;
use crate::network::{Body, LinkName, Side};
use crate::world::World;
use tidings_router::MonoUs;
use tidings_router::owner::Input;

/// A lane takes a link on which nothing came for this long for dead. Even a silent owner closes four times a second.
const LANE_PATIENCE_US: u64 = 2_500_000;
/// An owner hears a ping at each tick of the other node.
const OWNER_PATIENCE_US: u64 = 4_000_000;
/// How long a dial may take.
const DIAL_PATIENCE_US: u64 = 1_500_000;

/// A link as its lane's node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// There is none. Not dialled before this time.
    Down {
        /// On the node's monotonic clock.
        not_before_us: MonoUs,
    },
    /// Dialled.
    Dialling {
        /// This life of it.
        generation: u32,
        /// Since then.
        since_us: MonoUs,
    },
    /// The machine knows it.
    Up {
        /// This life of it.
        generation: u32,
        /// When something came last.
        heard_us: MonoUs,
    },
}

impl LinkState {
    /// Its name, if there is one.
    #[must_use]
    pub fn name(&self, lane: usize, owner: usize) -> Option<LinkName> {
        match *self {
            Self::Down { .. } => None,
            Self::Dialling { generation, .. } | Self::Up { generation, .. } => Some(LinkName {
                lane,
                owner,
                generation,
            }),
        }
    }
}

impl World {
    fn link_state(&mut self, lane: usize, owner: usize) -> Option<&mut LinkState> {
        self.lane_shell(lane)?.links.get_mut(owner)
    }

    /// A link inside a process: there from its start to its end.
    pub(super) fn link_inside(&mut self, lane: usize, owner: usize) {
        let link = self.network.next_link(lane, owner);
        self.lane_up(link);
        self.owner_link_up(link);
    }

    fn lane_up(&mut self, link: LinkName) {
        let now_us = self.clock(self.plan.node_of(link.lane)).mono_us;
        if let Some(state) = self.link_state(link.lane, link.owner) {
            *state = LinkState::Up {
                generation: link.generation,
                heard_us: now_us,
            };
        }
        self.trace.note(self.now, format_args!("l{}", link.lane), || {
            format!("is linked with o{} ({})", link.owner, link.generation)
        });
        self.lane_step(link.lane, |lane, now, out| {
            lane.owner_up(now, link.owner, link.generation, out);
        });
    }

    fn owner_link_up(&mut self, link: LinkName) {
        let now_us = self.clock(self.plan.node_of(link.owner)).mono_us;
        if let Some(shell) = self.owner_shell(link.owner) {
            shell
                .links
                .retain(|other, _| other.lane != link.lane || other.generation > link.generation);
            if shell.links.keys().any(|other| other.lane == link.lane) {
                // A dial that was overtaken by a later one.
            } else {
                shell.links.insert(link, now_us);
            }
        }
        self.owner_input(
            link.owner,
            Input::LinkUp {
                link: link.lane as u32,
                generation: link.generation,
            },
        );
    }

    /// Looks at each link of a node: dials, pings, gives up.
    pub(super) fn look_at_links(&mut self, node: usize) {
        let now_us = self.clock(node).mono_us;
        let threads = self.plan.threads;
        for lane in node * threads..(node + 1) * threads {
            for owner in 0..self.plan.machines() {
                let to = self.plan.node_of(owner);
                let Some(state) = self.link_state(lane, owner).copied() else {
                    return;
                };
                if to == node {
                    continue;
                }
                match state {
                    LinkState::Down { not_before_us } if not_before_us <= now_us => self.dial(lane, owner),
                    LinkState::Dialling { since_us, .. } if now_us - since_us > DIAL_PATIENCE_US => {
                        self.dial(lane, owner);
                    }
                    LinkState::Up { heard_us, generation } if now_us - heard_us > LANE_PATIENCE_US => {
                        self.coverage.saw("link taken for dead by an edge");
                        let link = LinkName {
                            lane,
                            owner,
                            generation,
                        };
                        self.give_up(link, 0);
                    }
                    LinkState::Up { generation, .. } => {
                        let link = LinkName {
                            lane,
                            owner,
                            generation,
                        };
                        self.send(node, to, None, Body::Ping(link));
                    }
                    LinkState::Down { .. } | LinkState::Dialling { .. } => {}
                }
            }
        }
        for owner in node * threads..(node + 1) * threads {
            let Some(shell) = self.owner_shell(owner) else { return };
            let silent = shell
                .links
                .iter()
                .filter(|(_, heard_us)| now_us - **heard_us > OWNER_PATIENCE_US);
            let silent: Vec<LinkName> = silent.map(|(link, _)| *link).collect();
            for link in silent {
                if self.plan.node_of(link.lane) == node {
                    continue;
                }
                self.coverage.saw("link taken for dead by an owner");
                self.owner_link_down(link);
                self.send(node, self.plan.node_of(link.lane), None, Body::Reset(link, Side::Owner));
            }
        }
    }

    fn dial(&mut self, lane: usize, owner: usize) {
        let link = self.network.next_link(lane, owner);
        let node = self.plan.node_of(lane);
        let now_us = self.clock(node).mono_us;
        self.trace.note(self.now, format_args!("l{lane}"), || {
            format!("dials o{owner} ({})", link.generation)
        });
        if let Some(state) = self.link_state(lane, owner) {
            *state = LinkState::Dialling {
                generation: link.generation,
                since_us: now_us,
            };
        }
        self.send(node, self.plan.node_of(owner), None, Body::Dial(link));
    }

    /// A lane's node lets go of a link, and dials no other for a while.
    pub fn give_up(&mut self, link: LinkName, rest_us: u64) {
        let node = self.plan.node_of(link.lane);
        let now_us = self.clock(node).mono_us;
        let Some(state) = self.link_state(link.lane, link.owner) else {
            return;
        };
        let was_up = matches!(state, LinkState::Up { .. });
        *state = LinkState::Down {
            not_before_us: now_us + rest_us,
        };
        self.trace.note(self.now, format_args!("l{}", link.lane), || {
            format!("lets go of its link to o{} ({})", link.owner, link.generation)
        });
        if was_up {
            self.lane_step(link.lane, |lane, now, out| {
                lane.owner_down(now, link.owner, link.generation, out)
            });
        }
        self.send(node, self.plan.node_of(link.owner), None, Body::Reset(link, Side::Lane));
    }

    fn owner_link_down(&mut self, link: LinkName) {
        if let Some(shell) = self.owner_shell(link.owner) {
            shell.links.remove(&link);
        }
        self.owner_input(
            link.owner,
            Input::LinkDown {
                link: link.lane as u32,
                generation: link.generation,
            },
        );
    }

    pub(super) fn dialled(&mut self, link: LinkName, from: usize) {
        let newer = |shell: &mut super::OwnerShell| {
            let known = shell.links.keys().filter(|known| known.lane == link.lane);
            known.map(|known| known.generation).max().unwrap_or(0) >= link.generation
        };
        if self.owner_shell(link.owner).is_none_or(newer) {
            return;
        }
        self.send(self.plan.node_of(link.owner), from, None, Body::Accepted(link));
        self.owner_link_up(link);
    }

    pub(super) fn dial_accepted(&mut self, link: LinkName) {
        let state = self.link_state(link.lane, link.owner).copied();
        match state {
            Some(LinkState::Dialling { generation, .. }) if generation == link.generation => self.lane_up(link),
            Some(_) | None => {}
        }
    }

    pub(super) fn link_reset(&mut self, link: LinkName, side: Side) {
        match side {
            // The lane's end is gone: the owner hears it.
            Side::Lane => self.owner_link_down(link),
            Side::Owner => {
                let state = self.link_state(link.lane, link.owner).copied();
                if state.and_then(|state| state.name(link.lane, link.owner)) == Some(link) {
                    self.give_up(link, TICK_US);
                }
            }
        }
    }

    pub(super) fn pinged(&mut self, link: LinkName) {
        let now_us = self.clock(self.plan.node_of(link.owner)).mono_us;
        let known = match self.owner_shell(link.owner) {
            Some(shell) => shell.links.get_mut(&link).map(|heard_us| *heard_us = now_us),
            None => return,
        };
        if known.is_none() {
            let (from, to) = (self.plan.node_of(link.owner), self.plan.node_of(link.lane));
            self.send(from, to, None, Body::Reset(link, Side::Owner));
        }
    }

    pub(super) fn frames_to_lane(&mut self, link: LinkName, frames: Vec<tidings_protocol::peer::OwnerToEdge>) {
        let now_us = self.clock(self.plan.node_of(link.lane)).mono_us;
        let mut current = false;
        if let Some(LinkState::Up { generation, heard_us }) = self.link_state(link.lane, link.owner)
            && *generation == link.generation
        {
            *heard_us = now_us;
            current = true;
        }
        if !current {
            self.coverage.saw("frames of an older link reached an edge");
        }
        // Older ones too: that they are ignored is the machine's business (rule R9).
        self.lane_step(link.lane, |lane, now, out| {
            lane.owner_frames(now, link.owner, link.generation, frames, out);
        });
    }

    pub(super) fn frames_to_owner(&mut self, link: LinkName, frames: Vec<tidings_protocol::peer::EdgeToOwner>) {
        let now_us = self.clock(self.plan.node_of(link.owner)).mono_us;
        let known = self
            .owner_shell(link.owner)
            .and_then(|shell| shell.links.get_mut(&link));
        match known {
            Some(heard_us) => *heard_us = now_us,
            None => self.coverage.saw("frames of an older link reached an owner"),
        }
        for frame in frames {
            self.owner_input(
                link.owner,
                Input::FromEdge {
                    link: link.lane as u32,
                    generation: link.generation,
                    frame,
                },
            );
        }
    }
}
