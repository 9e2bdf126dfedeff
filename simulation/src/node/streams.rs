//! The connections for copies between processes: dialled by the one that owns, watched by both.
//!
//! What passes on them is none of their business: batches and answers are handed on to the shells of copies.

use super::TICK_US;
use crate::network::{Body, StreamName, StreamWord};
use crate::sabotage::Sabotage;
use crate::world::World;
use std::collections::BTreeSet;
use tidings_protocol::copy::Frame;
use tidings_router::MonoUs;
use tidings_router::control::map::Process as Name;

/// The process that dialled takes a connection on which nothing came for this long for dead.
const ROAD_PATIENCE_US: u64 = 2_500_000;
/// The other end hears a ping at each tick.
const GUEST_PATIENCE_US: u64 = 4_000_000;
/// How long a dial may take.
const DIAL_PATIENCE_US: u64 = 1_500_000;

/// A connection as the process sees it that dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
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
    /// The senders know it.
    Up {
        /// This life of it.
        generation: u32,
        /// When something came last.
        heard_us: MonoUs,
    },
}

impl Road {
    fn generation(self) -> Option<u32> {
        match self {
            Self::Down { .. } => None,
            Self::Dialling { generation, .. } | Self::Up { generation, .. } => Some(generation),
        }
    }
}

/// A connection as the process sees it that was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// This life of it.
    pub generation: u32,
    /// When something came last.
    pub heard_us: MonoUs,
}

fn node_of(process: Name) -> usize {
    process.node.0 as usize
}

impl World {
    pub(super) fn say_to_copy(&mut self, stream: StreamName, word: StreamWord) {
        let (from, to) = (node_of(stream.from), node_of(stream.to));
        self.send(from, to, Some(stream.to.incarnation), Body::ToCopy(stream, word));
    }

    pub(super) fn say_from_copy(&mut self, stream: StreamName, word: StreamWord) {
        let (from, to) = (node_of(stream.to), node_of(stream.from));
        self.send(from, to, Some(stream.from.incarnation), Body::FromCopy(stream, word));
    }

    /// The connection to a process that holds copies, if it is up.
    pub(super) fn stream_to(&self, node: usize, to: Name) -> Option<StreamName> {
        let from = self.process_name(node);
        match self.nodes[node].process.as_ref()?.roads.get(&to)? {
            Road::Up { generation, .. } => Some(StreamName {
                from,
                to,
                generation: *generation,
            }),
            Road::Down { .. } | Road::Dialling { .. } => None,
        }
    }

    /// The connection from a process that owns, if there is one.
    pub(super) fn stream_from(&self, node: usize, from: Name) -> Option<StreamName> {
        let to = self.process_name(node);
        let guest = self.nodes[node].process.as_ref()?.guests.get(&from)?;
        let generation = guest.generation;
        Some(StreamName { from, to, generation })
    }

    /// Looks at each connection of a node: dials, pings, gives up.
    pub(super) fn look_at_streams(&mut self, node: usize) {
        let now_us = self.clock(node).mono_us;
        let me = self.process_name(node);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        process
            .guests
            .retain(|_, guest| now_us.saturating_sub(guest.heard_us) <= GUEST_PATIENCE_US);
        let named = process.owners.iter().flat_map(|owner| owner.sender.processes());
        let wanted: BTreeSet<Name> = named.filter(|to| process.seat.map.is_current(*to)).collect();
        let known: Vec<Name> = process.roads.keys().copied().collect();
        for to in known.into_iter().filter(|to| !wanted.contains(to)) {
            self.drop_road(node, to, None);
        }
        for to in wanted {
            let Some(process) = self.nodes[node].process.as_mut() else {
                return;
            };
            let road = process.roads.get(&to).copied();
            match road.unwrap_or(Road::Down { not_before_us: 0 }) {
                Road::Down { not_before_us } if not_before_us <= now_us => self.dial_copy(me, to, now_us),
                Road::Dialling { since_us, .. } if now_us - since_us > DIAL_PATIENCE_US => {
                    self.dial_copy(me, to, now_us);
                }
                Road::Up { heard_us, .. } if now_us - heard_us > ROAD_PATIENCE_US => {
                    self.coverage.saw("copy's connection taken for dead");
                    self.drop_road(node, to, Some(0));
                }
                Road::Up { generation, .. } => {
                    let stream = StreamName {
                        from: me,
                        to,
                        generation,
                    };
                    self.say_to_copy(stream, StreamWord::Ping);
                }
                Road::Down { .. } | Road::Dialling { .. } => {}
            }
        }
    }

    fn dial_copy(&mut self, from: Name, to: Name, since_us: MonoUs) {
        let stream = self.network.next_stream(from, to);
        if let Some(process) = self.nodes[node_of(from)].process.as_mut() {
            let generation = stream.generation;
            process.roads.insert(to, Road::Dialling { generation, since_us });
        }
        self.say_to_copy(stream, StreamWord::Dial);
    }

    /// A connection is given up by the process that dialled it, which dials no other for a while; `None`: ever.
    pub(crate) fn drop_road(&mut self, node: usize, to: Name, rest_us: Option<u64>) {
        let now_us = self.clock(node).mono_us;
        let from = self.process_name(node);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let Some(road) = process.roads.remove(&to) else { return };
        if let Some(rest_us) = rest_us {
            let not_before_us = now_us + rest_us;
            process.roads.insert(to, Road::Down { not_before_us });
        }
        if let Road::Up { .. } = road {
            self.tell_senders(node, to, false);
        }
        if let Some(generation) = road.generation() {
            self.say_to_copy(StreamName { from, to, generation }, StreamWord::Reset);
        }
    }

    fn tell_senders(&mut self, node: usize, to: Name, up: bool) {
        let threads = self.plan.threads;
        for owner in node * threads..(node + 1) * threads {
            self.sender_step(owner, |sender, _, now, out| sender.link(now, to, up, out));
        }
    }

    /// A word reaches the process that holds copies.
    pub(super) fn copy_hears(&mut self, node: usize, stream: StreamName, word: StreamWord) {
        let now_us = self.clock(node).mono_us;
        let unread = self.plan.breaks(Sabotage::MapUnread);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let generation = stream.generation;
        let known = process.guests.get(&stream.from).map(|guest| guest.generation);
        if let StreamWord::Dial = word {
            // A process that has not read the map takes nothing from anybody (rule R2).
            if (process.seat.confirmed || unread) && known.is_none_or(|known| known < generation) {
                let heard_us = now_us;
                process.guests.insert(stream.from, Guest { generation, heard_us });
                self.say_from_copy(stream, StreamWord::Accepted);
            }
            return;
        }
        if known != Some(generation) {
            self.coverage.saw("words of an older connection reached a copy");
            if let StreamWord::Ping = word {
                self.say_from_copy(stream, StreamWord::Reset);
            }
            return;
        }
        if let Some(guest) = process.guests.get_mut(&stream.from) {
            guest.heard_us = now_us;
        }
        match word {
            StreamWord::Ping => self.say_from_copy(stream, StreamWord::Pong),
            StreamWord::Reset => _ = process.guests.remove(&stream.from),
            StreamWord::Frame(Frame::Batch {
                owner,
                life,
                place,
                sync,
                entries,
            }) => {
                let arrived = tidings_router::copies::receiver::Arrived {
                    owner,
                    life,
                    place,
                    sync,
                    entries: entries.as_ref().clone(),
                };
                self.batch_arrived(node, stream, arrived);
            }
            StreamWord::Dial | StreamWord::Accepted | StreamWord::Pong | StreamWord::Frame(_) => {}
        }
    }

    /// A word reaches the process that owns.
    pub(super) fn copy_says(&mut self, node: usize, stream: StreamName, word: StreamWord) {
        let now_us = self.clock(node).mono_us;
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let Some(road) = process.roads.get_mut(&stream.to) else {
            return;
        };
        if road.generation() != Some(stream.generation) {
            return;
        }
        let generation = stream.generation;
        match (word, *road) {
            (StreamWord::Accepted, Road::Dialling { .. }) => {
                let heard_us = now_us;
                *road = Road::Up { generation, heard_us };
                self.tell_senders(node, stream.to, true);
            }
            (StreamWord::Reset, _) => self.drop_road(node, stream.to, Some(TICK_US)),
            (StreamWord::Pong, Road::Up { heard_us, .. }) => {
                *road = Road::Up {
                    generation,
                    heard_us: heard_us.max(now_us),
                };
            }
            (StreamWord::Frame(frame), Road::Up { .. }) => {
                let heard_us = now_us;
                *road = Road::Up { generation, heard_us };
                self.copy_answers(node, stream.to, &frame);
            }
            _ => {}
        }
    }
}
