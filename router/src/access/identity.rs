//! Who somebody was found to be.

use super::grants::{Action, Permission};
use super::policy::KeyHash;

/// A subject of one issuer. The same name from two issuers is two subjects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// Who vouches for it; empty for API keys, and for tokens that name nobody.
    pub issuer: Box<str>,
    /// Its name there.
    pub name: Box<str>,
    /// It was proven by an API key: another world of names than that of tokens.
    pub by_key: bool,
}

/// What a credential was worth when it was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whose it is.
    pub subject: Subject,
    /// The hash of the API key that proved it. `None`: a token did.
    pub key: Option<KeyHash>,
    /// The token's own name, if it has one.
    pub token_id: Option<Box<str>>,
    /// When the token was made, in seconds since the Unix epoch. Zero for an API key.
    pub issued_s: u64,
    /// When it ends. `None`: an API key does not.
    pub expires_s: Option<u64>,
    /// What it allows.
    pub permission: Permission,
    /// What to subscribe its bearer to at connect.
    pub objects: Vec<Box<str>>,
}

impl Identity {
    /// Whether the action is allowed.
    #[must_use]
    pub fn allows(&self, action: Action, object: &str) -> bool {
        self.permission.allow(action, object)
    }

    /// Whether it may do what operators do.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.permission.admin()
    }
}
