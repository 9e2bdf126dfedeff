//! Every datagram is sealed under the cluster's key, so that nobody outside is heard, and nobody outside hears.
//!
//! ```text
//! format 1 | key ID 1 | cluster 8 | nonce 24 | sealed text … | tag 16
//! ```
//!
//! XChaCha20-Poly1305; what stands before the nonce is associated data. The nonce is a prefix of 16 bytes, which each
//! process has for itself, and a counter. The prefix comes from entropy drawn by the caller and from node and incarnation:
//! to use a nonce twice, two starts would have to draw the same 128 bits, and even then node or start differ. A copy of a
//! running process (a virtual machine resumed twice from one snapshot) would repeat nonces; nothing in here can notice.
//!
//! The counter also tells copies of a datagram apart: see `Window`.

use crate::config::ConfigError;
use crate::identity::Incarnation;
use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use siphasher::sip128::{Hasher128 as _, SipHasher24};
use std::hash::Hasher as _;
use tidings_protocol::{ClusterId, NodeId};

/// The first byte of every datagram.
const FORMAT: u8 = 1;
const NONCE: usize = 10;
const TEXT: usize = NONCE + 24;
const TAG: usize = 16;
/// What sealing adds to a text, in bytes.
pub(crate) const OVERHEAD: usize = TEXT + TAG;

/// 256 bits of entropy, drawn by the caller for this start and used for nothing else.
///
/// All randomness in this crate is derived from it: one seed, one run.
#[derive(Clone)]
pub struct Seed(pub [u8; 32]);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}

impl Seed {
    /// 128 bits that depend on the seed, the purpose, and who asks.
    pub(crate) fn derive(&self, purpose: u8, node: NodeId, incarnation: Incarnation) -> [u8; 16] {
        let mut out = [0; 16];
        let (left, right) = self.0.split_at(16);
        for (key, half) in [left, right].into_iter().zip(out.chunks_mut(8)) {
            let mut hasher = SipHasher24::new_with_key(&key.try_into().unwrap_or_default());
            hasher.write_u8(purpose);
            hasher.write_u64(node.0);
            hasher.write_u64(incarnation.0);
            half.copy_from_slice(&hasher.finish128().h1.to_le_bytes());
        }
        out
    }
}

/// A key of the cluster, for gossip only.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Which key this is: told in the open with every datagram, so that two can be in use while one takes over.
    pub id: u8,
    /// The key itself.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// The key to seal with, and a second one that is accepted too: the next one or the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRing {
    first: Key,
    second: Option<Key>,
}

impl KeyRing {
    /// A ring that seals with the first key and opens with both.
    ///
    /// To change keys without a gap: give all nodes (old, new), then all (new, old), then all (new).
    ///
    /// # Errors
    /// If both have one ID.
    pub fn new(first: Key, second: Option<Key>) -> Result<Self, ConfigError> {
        if second.as_ref().is_some_and(|second| second.id == first.id) {
            return Err(ConfigError::KeyId);
        }
        Ok(Self { first, second })
    }
}

/// Why a datagram was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not one of ours at all: too short, or another format.
    Garbage,
    /// Larger than `Config::max_datagram`.
    Oversized,
    /// Sent by a node of another cluster, or so it says: what it says cannot be checked without its key.
    OtherCluster(ClusterId),
    /// Our cluster's name, and a key that we do not have.
    UnknownKey(u8),
    /// Our cluster's name, the ID of a key we have, and another secret; or damaged on its way.
    Unsealed,
    /// Opened, and then not understood: sent by another release, or by a bug.
    Malformed,
}

/// Which process sent a datagram, and the how-many-eth of its datagrams it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) prefix: [u8; 16],
    pub(crate) count: u64,
}

/// Seals and opens datagrams.
pub(crate) struct Seal {
    cluster: ClusterId,
    first: (u8, XChaCha20Poly1305),
    second: Option<(u8, XChaCha20Poly1305)>,
    prefix: [u8; 16],
    count: u64,
}

fn cipher(key: &Key) -> (u8, XChaCha20Poly1305) {
    (key.id, XChaCha20Poly1305::new(&key.secret.into()))
}

impl Seal {
    pub(crate) fn new(cluster: ClusterId, keys: &KeyRing, prefix: [u8; 16]) -> Self {
        Self {
            cluster,
            first: cipher(&keys.first),
            second: keys.second.as_ref().map(cipher),
            prefix,
            count: 0,
        }
    }

    /// Takes other keys; the counter goes on.
    pub(crate) fn turn(&mut self, keys: &KeyRing) {
        self.first = cipher(&keys.first);
        self.second = keys.second.as_ref().map(cipher);
    }

    /// The datagram for a text, which is given in pieces.
    pub(crate) fn seal(&mut self, pieces: [&[u8]; 2]) -> Vec<u8> {
        self.count += 1;
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut datagram = Vec::with_capacity(len + OVERHEAD);
        datagram.push(FORMAT);
        datagram.push(self.first.0);
        datagram.extend(self.cluster.0.to_be_bytes());
        datagram.extend(self.prefix);
        datagram.extend(self.count.to_le_bytes());
        for piece in pieces {
            datagram.extend(piece);
        }
        let (head, text) = datagram.split_at_mut(TEXT);
        let (open, nonce) = head.split_at(NONCE);
        // Sealing fails for texts of 256 GiB only; an empty tag would be refused by whoever gets it.
        let tag = XNonce::try_from(nonce)
            .ok()
            .and_then(|nonce| self.first.1.encrypt_inout_detached(&nonce, open, text.into()).ok())
            .unwrap_or_default();
        datagram.extend_from_slice(&tag);
        datagram
    }

    /// The text of a datagram, written over `text`.
    pub(crate) fn open(&self, datagram: &[u8], text: &mut Vec<u8>) -> Result<Origin, Refusal> {
        text.clear();
        let Some((body, tag)) = datagram.split_last_chunk::<TAG>() else {
            return Err(Refusal::Garbage);
        };
        let Some((head, sealed)) = body.split_first_chunk::<TEXT>() else {
            return Err(Refusal::Garbage);
        };
        let (open, nonce) = head.split_at(NONCE);
        let (Some((&[format, key], cluster)), Some((prefix, count))) =
            (open.split_first_chunk(), nonce.split_first_chunk())
        else {
            return Err(Refusal::Garbage);
        };
        if format != FORMAT {
            return Err(Refusal::Garbage);
        }
        let cluster = ClusterId(u64::from_be_bytes(cluster.try_into().map_err(|_| Refusal::Garbage)?));
        if cluster != self.cluster {
            return Err(Refusal::OtherCluster(cluster));
        }
        let mut keys = std::iter::once(&self.first).chain(&self.second);
        let (_, cipher) = keys.find(|(id, _)| *id == key).ok_or(Refusal::UnknownKey(key))?;
        text.extend(sealed);
        let nonce = XNonce::try_from(nonce).map_err(|_| Refusal::Garbage)?;
        cipher
            .decrypt_inout_detached(&nonce, open, text.as_mut_slice().into(), &Tag::from(*tag))
            .map_err(|_| Refusal::Unsealed)?;
        Ok(Origin {
            prefix: *prefix,
            count: u64::from_le_bytes(count.try_into().map_err(|_| Refusal::Garbage)?),
        })
    }
}

/// Which datagrams of one process have been seen, so that each counts once.
///
/// Remembers the highest number and which of the 128 below it came. What is older is taken for a copy: on a network that
/// delays a datagram by more than 128 others of its sender it is lost, as any datagram may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    prefix: [u8; 16],
    highest: u64,
    seen: u128,
}

impl Window {
    /// A window that has seen one datagram.
    pub(crate) fn open(origin: Origin) -> Self {
        Self {
            prefix: origin.prefix,
            highest: origin.count,
            seen: 1,
        }
    }

    /// Whether the datagram is of the process whose datagrams are counted.
    pub(crate) fn is_of(&self, origin: Origin) -> bool {
        self.prefix == origin.prefix
    }

    /// Whether this one is new. Another process begins anew.
    pub(crate) fn admit(&mut self, origin: Origin) -> bool {
        if origin.prefix != self.prefix {
            *self = Self::open(origin);
            return true;
        }
        if let Some(ahead) = origin.count.checked_sub(self.highest).filter(|ahead| *ahead > 0) {
            let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = origin.count;
            return true;
        }
        let Some(bit) = u32::try_from(self.highest - origin.count)
            .ok()
            .and_then(|back| 1_u128.checked_shl(back))
        else {
            return false;
        };
        let new = self.seen & bit == 0;
        self.seen |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(id: u8, byte: u8) -> Key {
        Key { id, secret: [byte; 32] }
    }

    fn ring(first: Key, second: Option<Key>) -> KeyRing {
        KeyRing::new(first, second).unwrap()
    }

    fn seal(cluster: u64, keys: &KeyRing) -> Seal {
        Seal::new(ClusterId(cluster), keys, [9; 16])
    }

    fn opened(seal: &Seal, datagram: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut text = Vec::new();
        seal.open(datagram, &mut text).map(|_| text)
    }

    #[test]
    fn what_is_sealed_is_opened_by_whoever_has_key_and_cluster() {
        let old = ring(key(1, 1), None);
        let new = ring(key(2, 2), Some(key(1, 1)));
        let datagram = seal(5, &old).seal([b"hel", b"lo"]);
        assert_eq!(datagram.len(), 5 + OVERHEAD);
        assert_eq!(opened(&seal(5, &new), &datagram), Ok(b"hello".to_vec()));
        let refused = opened(&seal(5, &ring(key(2, 2), None)), &datagram);
        assert_eq!(refused, Err(Refusal::UnknownKey(1)));
        assert_eq!(
            opened(&seal(6, &old), &datagram),
            Err(Refusal::OtherCluster(ClusterId(5)))
        );
        assert_eq!(
            opened(&seal(5, &ring(key(1, 3), None)), &datagram),
            Err(Refusal::Unsealed)
        );
    }

    #[test]
    fn two_keys_with_one_id_make_no_ring() {
        assert_eq!(KeyRing::new(key(1, 1), Some(key(1, 2))), Err(ConfigError::KeyId));
    }

    #[test]
    fn every_flipped_bit_and_every_missing_byte_is_noticed() {
        let keys = ring(key(1, 1), None);
        let datagram = seal(5, &keys).seal([b"text", b""]);
        for at in 0..datagram.len() {
            for bit in 0..8 {
                let mut damaged = datagram.clone();
                damaged[at] ^= 1 << bit;
                assert!(opened(&seal(5, &keys), &damaged).is_err(), "bit {bit} of byte {at}");
            }
            assert!(opened(&seal(5, &keys), &datagram[..at]).is_err(), "cut to {at}");
        }
    }

    #[test]
    fn no_two_datagrams_and_no_two_starts_share_a_nonce() {
        let seed = Seed([3; 32]);
        let prefix = |node, start| seed.derive(0, NodeId(node), Incarnation(start));
        let prefixes = [
            prefix(1, 1),
            prefix(1, 2),
            prefix(2, 1),
            Seed([4; 32]).derive(0, NodeId(1), Incarnation(1)),
        ];
        for (at, one) in prefixes.iter().enumerate() {
            assert!(!prefixes[..at].contains(one));
        }
        let mut seal = seal(5, &ring(key(1, 1), None));
        let nonces: Vec<_> = (0..3).map(|_| seal.seal([b"", b""])[NONCE..TEXT].to_vec()).collect();
        seal.turn(&ring(key(2, 2), None));
        let last = seal.seal([b"", b""])[NONCE..TEXT].to_vec();
        assert!(nonces[0] != nonces[1] && nonces[1] != nonces[2] && !nonces.contains(&last));
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?} {:?}", key(7, 1), Seed([1; 32])), "Key(7) Seed(..)");
    }

    proptest! {
        #[test]
        fn each_datagram_is_admitted_once_in_whatever_order_copies_come(
            counts in proptest::collection::vec(0_u64..400, 1..300),
        ) {
            let mut admitted = std::collections::BTreeSet::new();
            let mut highest = 0;
            let mut window: Option<Window> = None;
            for count in counts {
                let origin = Origin { prefix: [1; 16], count };
                let new = match &mut window {
                    Some(window) => window.admit(origin),
                    None => { window = Some(Window::open(origin)); true }
                };
                prop_assert!(!new || admitted.insert(count), "{count} twice");
                prop_assert!(new || admitted.contains(&count) || highest >= count + 128, "{count} refused");
                highest = highest.max(count);
            }
        }

        #[test]
        fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(opened(&seal(5, &ring(key(1, 1), None)), &bytes).is_err());
        }
    }
}
