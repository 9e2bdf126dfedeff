//! Who may do what. Decisions only: what a credential is worth now, and which objects its bearer may watch or change.
//!
//! A [`policy::Policy`] names API keys (by hash) and issuers of tokens. [`token::judge`] reads a token strictly, finds the one
//! key that its issuer and key id name, has the signature checked by its caller, and then the claims. What comes out is an
//! [`identity::Identity`]: a subject, until when, and its grants. Everything is denied that is not granted.
//! [`revocations::Revocations`] says which identities count no more, [`rate::Bucket`] how often somebody may do something.
//!
//! It does not know cryptography (whoever calls brings a function that checks one signature), clocks (the time comes in,
//! in seconds since the Unix epoch), files, or connections.

pub mod claims;
pub mod grants;
pub mod identity;
pub mod jose;
pub mod policy;
pub mod rate;
pub mod revocations;
mod strict;
pub mod token;

pub use grants::{Action, Grants, Permission, Template, Templates};
pub use identity::{Identity, Subject};
pub use policy::Policy;
pub use rate::{Bucket, Rate};
pub use revocations::Revocations;
pub use token::TokenFault;
