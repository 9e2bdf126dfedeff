//! What follows from the cluster's name and secret: the name in short, and a key for each use.
//!
//! Each use has a key of its own (HMAC-BLAKE2s of a label under the secret's hash), so that one never helps against
//! another. It does not know where the secret comes from.

use crate::mesh::ClusterKey;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use snow::params::HashChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use tidings_membership::{Key, KeyRing};
use tidings_protocol::ClusterId;

/// The least characters of a secret.
pub(super) const SECRET_CHARS: usize = 32;

/// HMAC-BLAKE2s of `label`, under the hash of `secret`. `None` if the library has no BLAKE2s.
fn derive(secret: &[u8], label: &str) -> Option<[u8; 32]> {
    let mut hash = DefaultResolver.resolve_hash(&HashChoice::Blake2s)?;
    let (mut key, mut derived) = ([0; 32], [0; 32]);
    hash.reset();
    hash.input(secret);
    hash.result(&mut key);
    hash.hmac(&key, label.as_bytes(), &mut derived);
    Some(derived)
}

/// The name of a cluster as nodes say it to each other before they know whether they may trust each other.
pub(super) fn name(text: &str) -> Option<ClusterId> {
    let [a, b, c, d, e, f, g, h, ..] = derive(text.as_bytes(), "tidings cluster name 1")?;
    Some(ClusterId(u64::from_be_bytes([a, b, c, d, e, f, g, h])))
}

/// What the text of an edge's secret begins with.
const OF_EDGES: &str = "tidings-edge-1.";

/// One generation of the secret, and what follows from it.
pub(super) struct Secret {
    /// For connections.
    pub(super) mesh: ClusterKey,
    /// For gossip.
    pub(super) gossip: Key,
}

/// The secret in use, and perhaps a second one that is accepted too.
pub(super) struct Secrets {
    pub(super) first: Secret,
    pub(super) second: Option<Secret>,
}

fn no_hash() -> String {
    "cannot be used: the library of ciphers lacks BLAKE2s or Curve25519".to_owned()
}

fn full(secret: &str) -> Option<ClusterKey> {
    let part = |label| derive(secret.as_bytes(), label);
    ClusterKey::full(
        part("tidings connections between nodes 1")?,
        part("tidings nodes that own and vote 1")?,
        part("tidings edges 1")?,
    )
}

/// What edges are given in place of this secret of the cluster. Nothing that only nodes which own or vote may do follows from it.
///
/// # Errors
/// If it is no such secret.
pub fn for_edges(secret: &str) -> Result<String, String> {
    if secret.starts_with(OF_EDGES) {
        return Err("is one of edges already".to_owned());
    }
    let chars = secret.chars().count();
    if chars < SECRET_CHARS {
        return Err(format!("has {chars} characters, at least {SECRET_CHARS} are needed"));
    }
    let (edges, public) = full(secret).ok_or_else(no_hash)?.for_edges();
    let text = URL_SAFE_NO_PAD.encode([edges, public].concat());
    Ok(format!("{OF_EDGES}{text}"))
}

fn one(secret: &str) -> Result<Secret, String> {
    let mesh = match secret.strip_prefix(OF_EDGES) {
        Some(text) => {
            let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
            let (edges, public) = bytes.split_first_chunk().ok_or("is a damaged secret of edges")?;
            let public = public.try_into().map_err(|_| "is a damaged secret of edges")?;
            ClusterKey::of_edge(*edges, public)
        }
        None => full(secret).ok_or_else(no_hash)?,
    };
    let (edges, _) = mesh.for_edges();
    let ([id, ..], Some(secret)) = (
        derive(&edges, "tidings key id 1").ok_or_else(no_hash)?,
        derive(&edges, "tidings gossip 1"),
    ) else {
        return Err(no_hash());
    };
    let gossip = Key { id, secret };
    Ok(Secret { mesh, gossip })
}

/// Reads a secret, or two of them, a line each: the first is used, both are accepted.
///
/// # Errors
/// Says what is wrong with it, for behind the name of the key that it stands in.
pub(super) fn read(text: &str) -> Result<Secrets, String> {
    let mut lines = text.lines().filter(|line| !line.is_empty());
    let first = one(lines.next().ok_or("is missing")?)?;
    let second = lines.next().map(one).transpose()?;
    if lines.next().is_some() {
        return Err("has more than two lines: the secret in use, and one that is accepted too".to_owned());
    }
    if let Some(second) = &second {
        if second.mesh.is_of_edge() != first.mesh.is_of_edge() {
            return Err("has one secret of edges and one of nodes that own and vote".to_owned());
        }
        if second.gossip.id == first.gossip.id {
            return Err("has two secrets that cannot be told apart: draw another one".to_owned());
        }
    }
    Ok(Secrets { first, second })
}

impl Secrets {
    /// For gossip.
    pub(super) fn ring(&self) -> Result<KeyRing, String> {
        let second = self.second.as_ref().map(|second| second.gossip.clone());
        KeyRing::new(self.first.gossip.clone(), second).map_err(|error| error.to_string())
    }

    /// For connections.
    pub(super) fn mesh(&self) -> (ClusterKey, Option<ClusterKey>) {
        let second = self.second.as_ref().map(|second| second.mesh.clone());
        (self.first.mesh.clone(), second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a secret of more than thirty-two characters";

    #[test]
    fn keys_depend_on_the_secret_and_on_their_use_and_never_change_between_releases() {
        let key = |secret: &str| one(secret).expect("a secret");
        assert!(key(SECRET).mesh == key(SECRET).mesh);
        assert!(key(SECRET).mesh != key(&SECRET.to_uppercase()).mesh);
        assert_ne!(key(SECRET).gossip, key(&SECRET.to_uppercase()).gossip);
        // As Python's `hmac` and `hashlib.blake2s` give it.
        assert_eq!(name("tidings"), Some(ClusterId(FROZEN)));
        assert_ne!(name("tidings"), name("tidings2"));
    }

    const FROZEN: u64 = 0x8825_7896_65c4_c367;

    #[test]
    fn edges_gossip_with_all_and_have_nothing_of_what_others_prove_themselves_by() {
        let text = for_edges(SECRET).expect("a secret");
        let (ours, theirs) = (one(SECRET).expect("ours"), one(&text).expect("an edge's"));
        assert_eq!(ours.gossip, theirs.gossip);
        assert!(theirs.mesh.is_of_edge() && !ours.mesh.is_of_edge());
        assert_eq!(ours.mesh.for_edges(), theirs.mesh.for_edges());
        assert!(for_edges(&text).is_err(), "nothing more is to be had from it");
        assert!(for_edges(&"x".repeat(31)).is_err() && for_edges(&"x".repeat(32)).is_ok());
    }

    #[test]
    fn two_lines_are_two_secrets_and_nothing_else_is() {
        let edge = for_edges(SECRET).expect("a secret");
        let other = "another secret that is as long as it has to be";
        let both = read(&format!("{SECRET}\n{other}\n")).expect("two");
        assert!(both.second.is_some() && both.ring().is_ok());
        assert!(read(SECRET).expect("one").second.is_none());
        for wrong in [
            String::new(),
            format!("{SECRET}\n{other}\n{other}x\n"),
            format!("{SECRET}\n{edge}\n"),
            format!("{SECRET}\n{SECRET}\n"),
            format!("{OF_EDGES}AAAA"),
            format!("{edge}A"),
            edge[..edge.len() - 4].to_owned(),
        ] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }
}
