//! What a member says of itself, and how the newest of it wins.
//!
//! A record is told as bytes and handed on as the same bytes, so that a node of an older release passes on what it cannot
//! read: fields are only ever added at the end.

use crate::identity::Incarnation;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use tidings_protocol::{ClusterId, NodeId};

/// A short text without control characters, of at most `MAX` bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text<const MAX: usize>(Box<str>);

/// Why a text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Longer than allowed.
    #[error("{len} bytes, {max} are allowed")]
    TooLong {
        /// How long it is.
        len: usize,
        /// How long it may be.
        max: usize,
    },
    /// It would garble a log or a console.
    #[error("control characters are not allowed")]
    Control,
}

impl<const MAX: usize> Text<MAX> {
    /// Checks the text.
    ///
    /// # Errors
    /// If it is too long or has control characters.
    pub fn new(text: &str) -> Result<Self, TextError> {
        if text.len() > MAX {
            return Err(TextError::TooLong {
                len: text.len(),
                max: MAX,
            });
        }
        if text.chars().any(char::is_control) {
            return Err(TextError::Control);
        }
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> TryFrom<String> for Text<MAX> {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        Self::new(&text)
    }
}

impl<const MAX: usize> From<Text<MAX>> for String {
    fn from(text: Text<MAX>) -> Self {
        text.0.into()
    }
}

/// What a node does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// Holds subscribers.
    pub edge: bool,
    /// Owns shards, or keeps copies of them.
    pub owner: bool,
    /// Is willing to vote in the control plane.
    pub voter: bool,
}

/// What a member says of itself. At most some 450 bytes on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// What it does.
    pub roles: Roles,
    /// Where it stands, as the operator names places whose failures are independent; empty if nobody said.
    pub zone: Text<64>,
    /// Where other nodes open links to it.
    pub node_addr: Option<SocketAddr>,
    /// Where clients reach it: the base of a URL.
    pub client_url: Text<200>,
    /// How busy it is, in thousandths of what it can bear.
    pub load_permille: u16,
    /// The newest revision of the shard map that it applied.
    pub map_revision: u64,
    /// The oldest and the newest version of the link protocol it speaks.
    pub protocol: (u16, u16),
    /// The release it runs, for people.
    pub release: Text<32>,
    /// The cluster its data belongs to, once it belongs to one. Nodes that have not formed a cluster yet gossip already.
    pub formed: Option<ClusterId>,
    /// What people call it; empty if nobody said.
    pub name: Text<64>,
}

/// The largest record in bytes, fields of later releases included.
pub(crate) const MAX_RECORD: usize = 512;

/// Which of two records of one node is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edition {
    pub(crate) incarnation: Incarnation,
    pub(crate) revision: u64,
}

/// A node's metadata, with what makes the newest win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) node: NodeId,
    pub(crate) edition: Edition,
    /// It said good-bye: what follows is no crash.
    pub(crate) parting: bool,
    pub(crate) metadata: Metadata,
    /// As it was told, to be handed on.
    pub(crate) bytes: Box<[u8]>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    node: [u8; 8],
    incarnation: Incarnation,
    revision: u64,
    parting: bool,
}

impl Record {
    pub(crate) fn new(node: NodeId, edition: Edition, parting: bool, metadata: &Metadata) -> Self {
        let head = Head {
            node: node.0.to_le_bytes(),
            incarnation: edition.incarnation,
            revision: edition.revision,
            parting,
        };
        // Encoding into memory fails for types that have no length only; there are none here.
        let bytes = postcard::to_allocvec(&(head, metadata)).unwrap_or_default();
        Self {
            node,
            edition,
            parting,
            metadata: metadata.clone(),
            bytes: bytes.into(),
        }
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_RECORD {
            return None;
        }
        let ((head, metadata), _later): ((Head, Metadata), _) = postcard::take_from_bytes(bytes).ok()?;
        Some(Self {
            node: NodeId(u64::from_le_bytes(head.node)),
            edition: Edition {
                incarnation: head.incarnation,
                revision: head.revision,
            },
            parting: head.parting,
            metadata,
            bytes: bytes.into(),
        })
    }
}

/// Lets the SWIM library hand records on; which of them are news is decided before it sees them.
pub(crate) struct Rumours;

/// What a record in the library's backlog is about.
pub(crate) struct RumourKey(NodeId, Edition);

/// Never told: records are checked before.
#[derive(Debug, thiserror::Error)]
#[error("not a record")]
pub(crate) struct NotARecord;

impl foca::Invalidates for RumourKey {
    fn invalidates(&self, other: &Self) -> bool {
        self.0 == other.0 && self.1 >= other.1
    }
}

impl foca::BroadcastHandler<crate::identity::Identity> for Rumours {
    type Key = RumourKey;
    type Error = NotARecord;

    fn receive_item(
        &mut self,
        data: &[u8],
        _sender: Option<&crate::identity::Identity>,
    ) -> Result<Option<RumourKey>, NotARecord> {
        let (head, _): (Head, _) = postcard::take_from_bytes(data).map_err(|_| NotARecord)?;
        let edition = Edition {
            incarnation: head.incarnation,
            revision: head.revision,
        };
        Ok(Some(RumourKey(NodeId(u64::from_le_bytes(head.node)), edition)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn largest() -> Metadata {
        Metadata {
            roles: Roles {
                edge: true,
                owner: true,
                voter: true,
            },
            zone: Text::new(&"z".repeat(64)).unwrap(),
            node_addr: Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap()),
            client_url: Text::new(&"u".repeat(200)).unwrap(),
            load_permille: u16::MAX,
            map_revision: u64::MAX,
            protocol: (u16::MAX, u16::MAX),
            release: Text::new(&"r".repeat(32)).unwrap(),
            formed: Some(ClusterId(u64::MAX)),
            name: Text::new(&"n".repeat(64)).unwrap(),
        }
    }

    fn edition(incarnation: u64, revision: u64) -> Edition {
        Edition {
            incarnation: Incarnation(incarnation),
            revision,
        }
    }

    #[test]
    fn the_largest_metadata_leaves_room_for_later_fields_in_a_record() {
        let record = Record::new(NodeId(u64::MAX), edition(u64::MAX, u64::MAX), true, &largest());
        assert!(record.bytes.len() <= 450, "{}", record.bytes.len());
        assert_eq!(Record::read(&record.bytes), Some(record));
    }

    #[test]
    fn a_record_with_fields_of_a_later_release_is_read_and_kept_whole() {
        let mut bytes = Record::new(NodeId(1), edition(1, 2), false, &largest())
            .bytes
            .into_vec();
        bytes.extend(b"later");
        let record = Record::read(&bytes).unwrap();
        assert_eq!(record.metadata, largest());
        assert_eq!(*record.bytes, *bytes);
    }

    #[test]
    fn a_record_with_a_text_that_would_garble_a_console_is_no_record() {
        let mut metadata = largest();
        metadata.zone = Text("a\u{1b}[2J".into());
        assert_eq!(
            Record::read(&Record::new(NodeId(1), edition(1, 1), false, &metadata).bytes),
            None
        );
        assert_eq!(Text::<4>::new("12345"), Err(TextError::TooLong { len: 5, max: 4 }));
    }

    #[test]
    fn the_later_start_wins_then_the_later_revision() {
        assert!(edition(2, 0) > edition(1, 9));
        assert!(edition(2, 1) > edition(2, 0));
    }
}
