//! The links of an owner, each generation of one at a seat of its own.
//!
//! Interests name seats, not links. When a link goes down its seat is left at once, so that nothing more is said there,
//! but given out again only after a sweep has erased its interests everywhere. So nothing of an older generation can
//! reach or harm a newer one (rule R9), and a link that comes and goes costs no pause.

use super::interest::{SEATS, Seat};
use super::{LinkId, Output};
use crate::link::{Limits, Link};
use crate::now::MonoUs;
use hashbrown::HashMap;
use tidings_protocol::peer::OwnerToEdge;

/// A link that is up.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) link_id: LinkId,
    pub(super) generation: u32,
    pub(super) interests: usize,
    pub(super) sending: Link,
}

#[derive(Debug)]
enum Place {
    Free,
    Taken(Box<Peer>),
    /// Left before the sweep under way began, which will free it.
    Swept,
    /// Left since: to be freed by the next sweep.
    Left,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Seats {
    limits: Limits,
    places: Vec<Place>,
    links: HashMap<LinkId, Seat>,
}

impl Seats {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            places: Vec::new(),
            links: HashMap::new(),
        }
    }

    /// Seats a link, which takes the place of an older generation. `None` if this or a newer one is seated.
    pub(super) fn enter(&mut self, link_id: LinkId, generation: u32) -> Option<Seat> {
        if let Some(peer) = self.links.get(&link_id).and_then(|seat| self.peer(*seat)) {
            let older = peer.generation;
            if older >= generation || !self.leave(link_id, older) {
                return None;
            }
        }
        let free = self.places.iter().position(|place| matches!(place, Place::Free));
        let seat = u32::try_from(free.unwrap_or(self.places.len()))
            .ok()
            .filter(|seat| *seat < SEATS)?;
        if free.is_none() {
            self.places.push(Place::Free);
        }
        let sending = Link::new(self.limits);
        self.places[seat as usize] = Place::Taken(Box::new(Peer {
            link_id,
            generation,
            interests: 0,
            sending,
        }));
        self.links.insert(link_id, seat);
        Some(seat)
    }

    /// Unseats exactly this generation of a link; `false` if it is not seated.
    pub(super) fn leave(&mut self, link_id: LinkId, generation: u32) -> bool {
        let Some(seat) = self.find(link_id, generation) else {
            return false;
        };
        self.links.remove(&link_id);
        self.places[seat as usize] = Place::Left;
        true
    }

    /// Where exactly this generation of a link sits.
    pub(super) fn find(&self, link_id: LinkId, generation: u32) -> Option<Seat> {
        let seat = *self.links.get(&link_id)?;
        self.peer(seat)
            .is_some_and(|peer| peer.generation == generation)
            .then_some(seat)
    }

    #[inline]
    pub(super) fn peer(&self, seat: Seat) -> Option<&Peer> {
        match self.places.get(seat as usize)? {
            Place::Taken(peer) => Some(peer),
            Place::Free | Place::Swept | Place::Left => None,
        }
    }

    #[inline]
    pub(super) fn peer_mut(&mut self, seat: Seat) -> Option<&mut Peer> {
        match self.places.get_mut(seat as usize)? {
            Place::Taken(peer) => Some(peer),
            Place::Free | Place::Swept | Place::Left => None,
        }
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = &Peer> {
        (0..self.places.len() as Seat).filter_map(|seat| self.peer(seat))
    }

    pub(super) fn peers_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.places.iter_mut().filter_map(|place| match place {
            Place::Taken(peer) => Some(&mut **peer),
            Place::Free | Place::Swept | Place::Left => None,
        })
    }

    /// Says something other than changes and `Closed` at one seat.
    pub(super) fn tell(&mut self, seat: Seat, frame: OwnerToEdge, out: &mut Vec<Output>) {
        if let Some(peer) = self.peer_mut(seat) {
            peer.sending.sent();
            out.push(Output::ToEdge {
                link: peer.link_id,
                generation: peer.generation,
                frame,
            });
        }
    }

    /// Says it at every seat.
    pub(super) fn tell_all(&mut self, frame: &OwnerToEdge, out: &mut Vec<Output>) {
        for seat in 0..self.places.len() as Seat {
            if self.peer(seat).is_some() {
                self.tell(seat, frame.clone(), out);
            }
        }
    }

    /// Sends the changes that are ready at a seat.
    pub(super) fn flush(&mut self, seat: Seat, out: &mut Vec<Output>) {
        let Some(peer) = self.peer_mut(seat).filter(|peer| peer.sending.is_ready()) else {
            return;
        };
        let frame = OwnerToEdge::Changed {
            changes: peer.sending.take_ready(),
        };
        out.push(Output::ToEdge {
            link: peer.link_id,
            generation: peer.generation,
            frame,
        });
    }

    /// When the first `Closed` is due.
    pub(super) fn closed_due_us(&self) -> Option<MonoUs> {
        self.peers().filter_map(|peer| peer.sending.closed_due_us()).min()
    }

    /// Whether seats were left that still have interests.
    pub(super) fn must_sweep(&self) -> bool {
        self.places
            .iter()
            .any(|place| matches!(place, Place::Left | Place::Swept))
    }

    /// Begins a sweep for the seats left so far; `false` if none were.
    pub(super) fn begin_sweep(&mut self) -> bool {
        let mut any = false;
        for place in &mut self.places {
            if matches!(place, Place::Left) {
                *place = Place::Swept;
                any = true;
            }
        }
        any
    }

    /// Whether the sweep under way is for this seat.
    pub(super) fn is_swept(&self, seat: Seat) -> bool {
        matches!(self.places.get(seat as usize), Some(Place::Swept))
    }

    /// The sweep was everywhere: its seats are free.
    pub(super) fn end_sweep(&mut self) {
        for place in &mut self.places {
            if matches!(place, Place::Swept) {
                *place = Place::Free;
            }
        }
    }
}
