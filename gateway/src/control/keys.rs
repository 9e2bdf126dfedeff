//! What follows from the cluster's name and secret: the name in short, and a key for each use.
//!
//! Each use has a key of its own (HMAC-BLAKE2s of a label under the secret's hash), so that one never helps against
//! another. It does not know where the secret comes from.

use crate::mesh::ClusterKey;
use snow::params::HashChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use tidings_membership::Key;
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

/// The key of connections between nodes.
pub(super) fn mesh(secret: &str) -> Option<ClusterKey> {
    derive(secret.as_bytes(), "tidings connections between nodes 1").map(ClusterKey::new)
}

/// The key of gossip.
pub(super) fn gossip(secret: &str) -> Option<Key> {
    let secret = derive(secret.as_bytes(), "tidings gossip 1")?;
    Some(Key { id: 1, secret })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_the_secret_and_on_their_use_and_never_change_between_releases() {
        let secret = "a secret of more than thirty-two characters";
        let mesh_key = derive(secret.as_bytes(), "tidings connections between nodes 1");
        let gossip_key = gossip(secret).map(|key| key.secret);
        assert!(mesh_key.is_some() && gossip_key.is_some() && mesh_key != gossip_key);
        assert_ne!(gossip(secret), gossip(&secret.to_uppercase()));
        // As Python's `hmac` and `hashlib.blake2s` give it.
        assert_eq!(name("tidings"), Some(ClusterId(FROZEN)));
        assert_ne!(name("tidings"), name("tidings2"));
    }

    const FROZEN: u64 = 0x8825_7896_65c4_c367;
}
