//! What can be configured: every key with its meaning, unit, default and cost, parsed once into typed values.
//!
//! Layers, later ones win: defaults, one TOML file, environment (`TIDINGS_SECTION__KEY`), flags (`--section.key value`).
//! The section `cluster` must be equal on all nodes; every other section may differ from node to node. Nothing below this
//! module sees strings.

mod checks;
mod cluster;
mod documents;
mod layers;
mod reading;
mod safety;
mod schema;

pub use checks::validate;
pub use documents::{default_toml, docs_markdown};
pub(crate) use layers::shown;
pub use layers::{Flags, Sources, load};
pub use safety::warnings;
pub(crate) use schema::integer;
pub use schema::{Auth, Cluster, Config, Drain, KEYS, Key, Kind, Limits, Log, Owner, Server, Storage};

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
    /// A file or a variable names a key that does not exist.
    #[error("{from}: there is no key `{key}`{}", suggest(.near))]
    UnknownKey {
        /// Where it stands.
        from: String,
        /// What was written.
        key: String,
        /// The key that is spelled most alike.
        near: Option<&'static str>,
    },
    /// The file is not TOML, or not of our form.
    #[error("{from}: {reason}")]
    File {
        /// The file, and where in it.
        from: String,
        /// What is wrong.
        reason: String,
    },
    /// A value does not make sense, with where it came from.
    #[error("{from}: {key} = {value}: {reason}")]
    Given {
        /// File and line, variable or flag.
        from: String,
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        reason: String,
    },
    /// The values do not make sense.
    #[error("{key}: {reason}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

fn suggest(near: &Option<&str>) -> String {
    match near {
        Some(near) => format!("; did you mean `{near}`?"),
        None => " (`tidings config docs` has all)".to_owned(),
    }
}
