//! What stands in an opened datagram: a packet of the SWIM library, or a note between two of us.
//!
//! Nothing is believed here and nothing decided: bytes become values, or are refused. The library gets to see only what
//! was read here first and then put together again from the pieces that were let through.

use crate::identity::Identity;
use crate::metadata::Record;
use foca::{Codec as _, Header, Member, Message, PostcardCodec};
use serde::{Deserialize, Serialize};
use tidings_protocol::NodeId;

/// The first byte of a text that holds a packet of the library, after `Standing`.
const SWIM: u8 = 0;
/// The first byte of a text that holds a note.
const NOTE: u8 = 1;
/// What stands before the library's packet at most, in bytes.
pub(crate) const SWIM_HEAD: usize = 1 + 10 + 5 + 5;
/// So many members are asked for by name at once, at most.
pub(crate) const MAX_NAMED: usize = 32;

/// What we say to one another beside SWIM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// "Tell me about members." Also how one joins, and how one asks whether somebody is there.
    Ask { from: Identity, token: u64, wanted: Wanted },
    /// The answer.
    Page(Page),
    /// "I suspect you": so that it need not wait until the rumour finds it. Lifeguard calls this the buddy system.
    Doubt {
        from: Identity,
        about: Identity,
        refutation: u16,
    },
    /// "I hold you dead; the newest of your node that I know is this one."
    Dead {
        from: Identity,
        about: Identity,
        newest: Identity,
    },
    /// "These are gone, and you seem not to know": a rumour of death that passed somebody by.
    Gone {
        from: Identity,
        /// Members held dead; a record stands beside those that said good-bye.
        gone: Vec<Entry>,
    },
}

/// Which members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Wanted {
    /// A page of all, in order of their nodes, those after this one.
    After(Option<NodeId>),
    /// These.
    Named(Vec<NodeId>),
}

/// Some members, and the one who tells of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) from: Identity,
    pub(crate) token: u64,
    /// The teller's own record.
    pub(crate) record: Vec<u8>,
    pub(crate) entries: Vec<Entry>,
    /// There are more, after this one.
    pub(crate) next: Option<NodeId>,
}

/// A member, and its record if the teller has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) member: Member<Identity>,
    pub(crate) record: Vec<u8>,
}

impl Note {
    pub(crate) fn from(&self) -> &Identity {
        match self {
            Self::Page(page) => &page.from,
            Self::Ask { from, .. } | Self::Doubt { from, .. } | Self::Dead { from, .. } | Self::Gone { from, .. } => {
                from
            }
        }
    }

    /// The text of a note.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut text = vec![NOTE];
        // Encoding into memory fails for types without a length only; there are none here.
        text.extend(postcard::to_allocvec(self).unwrap_or_default());
        text
    }
}

/// What everybody says of itself with each packet, so that whoever missed something notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// Of the sender's metadata.
    pub(crate) revision: u64,
    /// How many members it holds alive, itself included.
    pub(crate) members: u32,
    /// Which ones: see `Roster::digest`.
    pub(crate) digest: u32,
}

/// What precedes a packet of the library.
pub(crate) fn swim_head(standing: Standing) -> Vec<u8> {
    let mut head = vec![SWIM];
    head.extend(postcard::to_allocvec(&standing).unwrap_or_default());
    head
}

/// An opened datagram.
pub(crate) enum Opened<'a> {
    Swim { standing: Standing, packet: Packet<'a> },
    Note(Note),
}

/// Reads a text. `None` for whatever we would not have written.
pub(crate) fn read(text: &[u8]) -> Option<Opened<'_>> {
    let (&kind, rest) = text.split_first()?;
    match kind {
        SWIM => {
            let (standing, packet) = postcard::take_from_bytes(rest).ok()?;
            Some(Opened::Swim {
                standing,
                packet: Packet::read(packet)?,
            })
        }
        NOTE => {
            let (note, rest) = postcard::take_from_bytes(rest).ok()?;
            let named = matches!(&note, Note::Ask { wanted: Wanted::Named(named), .. } if named.len() > MAX_NAMED);
            (rest.is_empty() && !named).then_some(Opened::Note(note))
        }
        _ => None,
    }
}

/// A packet of the library, taken apart.
pub(crate) struct Packet<'a> {
    pub(crate) header: Header<Identity>,
    header_bytes: &'a [u8],
    /// What it says of members, each with its bytes.
    pub(crate) updates: Vec<(Member<Identity>, &'a [u8])>,
    pub(crate) records: Vec<Record>,
}

impl<'a> Packet<'a> {
    fn read(packet: &'a [u8]) -> Option<Self> {
        let mut rest = packet;
        let header: Header<Identity> = PostcardCodec.decode_header(&mut rest).ok()?;
        let header_bytes = &packet[..packet.len() - rest.len()];
        let mut read = Self {
            header,
            header_bytes,
            updates: Vec::new(),
            records: Vec::new(),
        };
        match read.header.message {
            Message::Announce => return rest.is_empty().then_some(read),
            // Never sent by us: the one carries nothing that the others do not, the other is replaced by `Note::Dead`.
            Message::Broadcast | Message::TurnUndead => return None,
            Message::Ping(_)
            | Message::Ack(_)
            | Message::PingReq { .. }
            | Message::IndirectPing { .. }
            | Message::IndirectAck { .. }
            | Message::ForwardedAck { .. }
            | Message::Feed
            | Message::Gossip => {}
        }
        if rest.is_empty() {
            return Some(read);
        }
        let count = take_u16(&mut rest)?;
        for _ in 0..count {
            let before = rest;
            let member = PostcardCodec.decode_member(&mut rest).ok()?;
            read.updates.push((member, &before[..before.len() - rest.len()]));
        }
        while !rest.is_empty() {
            let len = take_u16(&mut rest)?;
            let (record, more) = rest.split_at_checked(len.into())?;
            read.records.push(Record::read(record)?);
            rest = more;
        }
        Some(read)
    }

    /// Who else this packet makes the library send to.
    pub(crate) fn third(&self) -> Option<&Identity> {
        match &self.header.message {
            Message::PingReq { target, .. } | Message::IndirectAck { target, .. } => Some(target),
            Message::IndirectPing { origin, .. } | Message::ForwardedAck { origin, .. } => Some(origin),
            Message::Ping(_)
            | Message::Ack(_)
            | Message::Announce
            | Message::Feed
            | Message::Gossip
            | Message::Broadcast
            | Message::TurnUndead => None,
        }
    }

    /// The packet as the library gets it: with those of its updates that were let through, without records.
    pub(crate) fn write(&self, keep: &[bool], out: &mut Vec<u8>) {
        out.clear();
        out.extend(self.header_bytes);
        let kept = || self.updates.iter().zip(keep).filter(|(_, keep)| **keep);
        let count = u16::try_from(kept().count()).unwrap_or(u16::MAX);
        if count > 0 {
            out.extend(count.to_be_bytes());
            for ((_, bytes), _) in kept().take(count.into()) {
                out.extend(*bytes);
            }
        }
    }
}

fn take_u16(rest: &mut &[u8]) -> Option<u16> {
    let (number, more) = rest.split_first_chunk()?;
    *rest = more;
    Some(u16::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Incarnation;
    use proptest::prelude::*;

    fn identity(node: u64) -> Identity {
        Identity::new(NodeId(node), Incarnation(1), "10.0.0.1:7".parse().unwrap())
    }

    #[test]
    fn notes_are_read_as_they_were_written() {
        let entry = Entry {
            member: Member::alive(identity(3)),
            record: vec![1, 2],
        };
        let page = Page {
            from: identity(1),
            token: 5,
            record: vec![],
            entries: vec![entry],
            next: Some(NodeId(3)),
        };
        let named = Wanted::Named(vec![NodeId(1), NodeId(2)]);
        let gone = Entry {
            member: Member::down(identity(4)),
            record: vec![],
        };
        for note in [
            Note::Gone {
                from: identity(1),
                gone: vec![gone],
            },
            Note::Page(page),
            Note::Ask {
                from: identity(1),
                token: 9,
                wanted: named,
            },
            Note::Doubt {
                from: identity(1),
                about: identity(2),
                refutation: 3,
            },
            Note::Dead {
                from: identity(1),
                about: identity(2),
                newest: identity(2),
            },
        ] {
            let text = note.write();
            assert!(matches!(read(&text), Some(Opened::Note(same)) if same == note));
            for cut in 0..text.len() {
                assert!(read(&text[..cut]).is_none(), "cut to {cut}");
            }
        }
    }

    #[test]
    fn who_asks_for_too_many_by_name_is_not_heard() {
        let ask = |count| {
            let wanted = Wanted::Named((0..count).map(NodeId).collect());
            read(
                &Note::Ask {
                    from: identity(1),
                    token: 9,
                    wanted,
                }
                .write(),
            )
            .is_some()
        };
        assert!(ask(MAX_NAMED as u64));
        assert!(!ask(MAX_NAMED as u64 + 1));
    }

    proptest! {
        #[test]
        fn whatever_bytes_come_there_is_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            for kind in [SWIM, NOTE] {
                let text: Vec<u8> = std::iter::once(kind).chain(bytes.iter().copied()).collect();
                if let Some(Opened::Swim { packet, .. }) = read(&text) {
                    let mut again = Vec::new();
                    packet.write(&vec![true; packet.updates.len()], &mut again);
                    prop_assert!(again.len() <= text.len());
                }
            }
        }
    }
}
