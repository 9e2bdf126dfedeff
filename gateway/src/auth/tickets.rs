//! Tickets: what an EventSource, which cannot send headers, names in its URL instead of a token.
//!
//! A ticket is the credential itself, sealed with a secret of the cluster, so that any node can open it. It is good for one
//! opening within a minute, and after that for the reconnects of the stream that was opened, for as long as the credential
//! counts. Those show by their `Last-Event-ID` that they are: the stream's IDs carry a proof behind the cursor, which
//! whoever only saw the URL does not have. It is good for event streams only. Each node counts openings by itself.

use super::{crypto, lock};
use crate::problem::Refusal;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;
use std::time::Duration;
use tidings_protocol::{Code, HashKey};

/// Bytes of a credential that a ticket can hold: it has to fit into a URL (`limits.url_bytes`) with some objects.
pub(super) const MOST_CREDENTIAL_BYTES: usize = 2_048;

/// Openings remembered. Beyond it the oldest are forgotten; a minute of 1,000 tickets a second.
const MOST_OPENED: usize = 65_536;

const ID: usize = 16;
/// Id of the ticket, and until when it may be opened.
const HEAD: usize = ID + 8;

/// Bytes of a proof before they are text.
const PROOF: usize = 12;

#[derive(Debug)]
struct Keys {
    seal: LessSafeKey,
    prove: hmac::Key,
}

/// What a ticket says.
struct Opening {
    id: [u8; ID],
    until_s: u64,
    credential: String,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tickets {
    keys: Mutex<Option<Keys>>,
    open_within_s: u64,
    opened: Mutex<Opened>,
}

#[derive(Debug, Default)]
struct Opened {
    ids: HashSet<[u8; ID]>,
    order: VecDeque<([u8; ID], u64)>,
}

impl Opened {
    /// Whether this is the first time.
    fn first(&mut self, id: [u8; ID], until_s: u64, now_s: u64) -> bool {
        let past = |order: &VecDeque<([u8; ID], u64)>| order.front().is_some_and(|(_, until_s)| *until_s < now_s);
        while past(&self.order) || self.order.len() >= MOST_OPENED {
            if let Some((id, _)) = self.order.pop_front() {
                self.ids.remove(&id);
            }
        }
        let first = self.ids.insert(id);
        if first {
            self.order.push_back((id, until_s));
        }
        first
    }
}

impl Tickets {
    pub(super) fn new(open_within: Duration) -> Self {
        Self {
            keys: Mutex::new(None),
            open_within_s: open_within.as_secs().max(1),
            opened: Mutex::default(),
        }
    }

    pub(super) fn set_secret(&self, secret: &HashKey) {
        // The cluster's secret for hashing, put to another use by another name.
        let derive = |names: [&[u8]; 2]| {
            let wide = names.map(|name| secret.wide(&[b"tickets", name]).to_le_bytes());
            crypto::hash(&wide.concat())
        };
        let seal = UnboundKey::new(&AES_256_GCM, &derive([b"1", b"2"]));
        *lock(&self.keys) = seal.ok().map(|seal| Keys {
            seal: LessSafeKey::new(seal),
            prove: hmac::Key::new(hmac::HMAC_SHA256, &derive([b"3", b"4"])),
        });
    }

    pub(super) fn seal(&self, credential: &str, now_s: u64) -> Result<String, Refusal> {
        if credential.len() > MOST_CREDENTIAL_BYTES {
            let detail = format!("a token of more than {MOST_CREDENTIAL_BYTES} bytes cannot become a ticket");
            return Err(Refusal::new(Code::TooLarge, detail));
        }
        let failed = || Refusal::new(Code::Internal, "no ticket could be made");
        let mut random = [0; ID + NONCE_LEN];
        getrandom::fill(&mut random).map_err(|_| failed())?;
        let (id, nonce) = random.split_at(ID);
        let mut sealed = id.to_vec();
        sealed.extend_from_slice(&(now_s + self.open_within_s).to_le_bytes());
        sealed.extend_from_slice(credential.as_bytes());
        let keys = lock(&self.keys);
        let keys = keys.as_ref().ok_or_else(failed)?;
        let unique = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        keys.seal
            .seal_in_place_append_tag(unique, Aad::empty(), &mut sealed)
            .map_err(|_| failed())?;
        Ok(URL_SAFE_NO_PAD.encode([nonce, &sealed].concat()))
    }

    /// The credential of a ticket that may be opened now: for the first time, or by whoever proves to have had it open.
    pub(super) fn open(&self, ticket: &str, proof: Option<&str>, now_s: u64) -> Option<String> {
        let opening = self.unseal(ticket)?;
        let again = proof.is_some_and(|proof| self.proves(&opening.id, proof));
        let first = || now_s <= opening.until_s && lock(&self.opened).first(opening.id, opening.until_s, now_s);
        (again || first()).then_some(opening.credential)
    }

    /// What the stream of a ticket proves itself by.
    pub(super) fn proof(&self, ticket: &str) -> Option<String> {
        let opening = self.unseal(ticket)?;
        let tag = hmac::sign(&lock(&self.keys).as_ref()?.prove, &opening.id);
        Some(URL_SAFE_NO_PAD.encode(&tag.as_ref()[..PROOF]))
    }

    fn proves(&self, id: &[u8; ID], proof: &str) -> bool {
        let keys = lock(&self.keys);
        let Some(keys) = keys.as_ref() else { return false };
        let tag = hmac::sign(&keys.prove, id);
        let known = URL_SAFE_NO_PAD.encode(&tag.as_ref()[..PROOF]);
        aws_lc_rs::constant_time::verify_slices_are_equal(known.as_bytes(), proof.as_bytes()).is_ok()
    }

    fn unseal(&self, ticket: &str) -> Option<Opening> {
        if ticket.len() > 2 * MOST_CREDENTIAL_BYTES {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(ticket).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let mut sealed = sealed.to_vec();
        let opened = {
            let keys = lock(&self.keys);
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            keys.as_ref()?
                .seal
                .open_in_place(nonce, Aad::empty(), &mut sealed)
                .ok()?
                .to_vec()
        };
        let (head, credential) = opened.split_at_checked(HEAD)?;
        let (id, until) = head.split_first_chunk::<ID>()?;
        Some(Opening {
            id: *id,
            until_s: u64::from_le_bytes(until.try_into().ok()?),
            credential: String::from_utf8(credential.to_vec()).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn tickets() -> Tickets {
        let tickets = Tickets::new(Duration::from_secs(60));
        tickets.set_secret(&HashKey::new([7; 16]));
        tickets
    }

    #[test]
    fn a_ticket_opens_once_and_then_again_for_its_reconnects() {
        let tickets = tickets();
        let ticket = tickets.seal("a.b.c", NOW_S).expect("a ticket");
        assert!(!ticket.contains("a.b.c"));
        let proof = tickets.proof(&ticket).expect("a proof");
        assert_eq!(tickets.open(&ticket, None, NOW_S + 1).as_deref(), Some("a.b.c"));
        assert_eq!(tickets.open(&ticket, None, NOW_S + 1), None, "opened already");
        assert_eq!(
            tickets.open(&ticket, Some(&proof), NOW_S + 3_600).as_deref(),
            Some("a.b.c")
        );
        // Another node of the cluster, which did not open it.
        let elsewhere = self::tickets();
        assert_eq!(
            elsewhere.open(&ticket, Some(&proof), NOW_S + 3_600).as_deref(),
            Some("a.b.c")
        );
    }

    #[test]
    fn whoever_has_the_ticket_and_not_the_proof_of_its_stream_opens_it_no_second_time() {
        let tickets = tickets();
        let (ticket, other) = (tickets.seal("a.b.c", NOW_S), tickets.seal("a.b.c", NOW_S));
        let (ticket, other) = (ticket.expect("a ticket"), other.expect("a ticket"));
        assert!(tickets.open(&ticket, None, NOW_S).is_some());
        let proof = tickets.proof(&ticket).expect("a proof");
        let foreign = tickets.proof(&other).expect("a proof");
        for wrong in ["", "x", &foreign, &proof[1..], &format!("{proof}A"), &"A".repeat(16)] {
            assert_eq!(tickets.open(&ticket, Some(wrong), NOW_S), None, "{wrong}");
        }
        assert!(
            tickets.open(&other, Some(&proof), NOW_S).is_some(),
            "it is the first time for the other"
        );
        assert_eq!(tickets.proof("no ticket"), None);
    }

    #[test]
    fn a_ticket_that_was_not_opened_in_time_opens_no_more() {
        let tickets = tickets();
        let (in_time, late) = (tickets.seal("k", NOW_S), tickets.seal("k", NOW_S));
        assert!(tickets.open(&in_time.expect("a ticket"), None, NOW_S + 60).is_some());
        assert!(tickets.open(&late.expect("a ticket"), None, NOW_S + 61).is_none());
    }

    #[test]
    fn what_is_no_ticket_of_this_cluster_opens_nothing() {
        let tickets = tickets();
        let good = tickets.seal("a.b.c", NOW_S).expect("a ticket");
        let mut changed = URL_SAFE_NO_PAD.decode(&good).expect("base64");
        for place in 0..changed.len() {
            changed[place] ^= 1;
            assert_eq!(
                tickets.open(&URL_SAFE_NO_PAD.encode(&changed), None, NOW_S),
                None,
                "{place}"
            );
            changed[place] ^= 1;
        }
        for text in [
            "",
            "x",
            "....",
            &good[..good.len() - 1],
            &"A".repeat(100_000),
            "../../etc/passwd",
            "é",
        ] {
            assert_eq!(tickets.open(text, None, NOW_S), None, "{text:.30}");
        }
        let elsewhere = Tickets::new(Duration::from_secs(60));
        assert_eq!(elsewhere.open(&good, None, NOW_S), None, "without a secret");
        elsewhere.set_secret(&HashKey::new([8; 16]));
        assert_eq!(elsewhere.open(&good, None, NOW_S), None, "with another one");
    }

    #[test]
    fn a_credential_has_as_many_bytes_as_the_limit_and_not_one_more() {
        let tickets = tickets();
        let longest = "x".repeat(MOST_CREDENTIAL_BYTES);
        let ticket = tickets.seal(&longest, NOW_S).expect("a ticket");
        assert_eq!(tickets.open(&ticket, None, NOW_S), Some(longest.clone()));
        assert!(tickets.seal(&format!("{longest}x"), NOW_S).is_err());
    }

    #[test]
    fn openings_are_forgotten_when_they_can_do_no_harm_and_never_grow_beyond_their_bound() {
        let mut opened = Opened::default();
        let id = |n: u64| {
            let mut id = [0; ID];
            id[..8].copy_from_slice(&n.to_le_bytes());
            id
        };
        assert!(opened.first(id(0), 10, 5) && !opened.first(id(0), 10, 5));
        assert!(opened.first(id(1), 20, 11));
        assert_eq!(opened.ids.len(), 1, "the first had its time");
        for n in 2..(MOST_OPENED as u64 + 10) {
            assert!(opened.first(id(n), 100, 11));
        }
        assert_eq!((opened.ids.len(), opened.order.len()), (MOST_OPENED, MOST_OPENED));
    }
}
