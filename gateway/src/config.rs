//! What can be configured: every key with its meaning, unit, default and cost, parsed once into typed values.
//!
//! Layers, later ones win: defaults, one TOML file, environment (`TIDINGS_SECTION__KEY`), flags (`--section.key value`).
//! The section `cluster` must be equal on all nodes; every other section may differ from node to node. Nothing below this
//! module sees strings.

mod cluster;
mod layers;
mod safety;
mod schema;

pub use layers::{Flags, Sources, load};
pub use safety::warnings;
pub(crate) use schema::integer;
pub use schema::{
    Auth, Cluster, Config, Drain, KEYS, Key, Kind, Limits, Log, Owner, Server, Storage, default_toml, docs_markdown,
    validate,
};

/// Why a configuration is refused. **Nothing was started.**
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {cause}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A text is not a value of its key's type.
    #[error("{from}: `{text}` is not {expected}, as `{key}` needs")]
    NotAValue {
        /// Where it came from: a variable or a flag.
        from: String,
        /// The key.
        key: &'static str,
        /// What was given.
        text: String,
        /// What is needed.
        expected: &'static str,
    },
    /// A variable of our prefix names no key.
    #[error("the environment variable {name} names no configuration key (see `tidings config docs`)")]
    UnknownVariable {
        /// The variable.
        name: String,
    },
    /// The file has an unknown key, a wrong type or is not TOML.
    #[error("{0}")]
    File(String),
    /// The values do not make sense.
    #[error("{key}: {reason}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}
