//! Which release this is: the version of the workspace and the commit that it was built from.
//!
//! The commit comes from `TIDINGS_COMMIT` of the environment of the compiler, which `deploy/build` sets. Other builds do not
//! know theirs: asking git on every build would build the program anew for every commit.

use std::sync::LazyLock;

/// The version, as in `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What stands for the commit where it is not known.
const UNKNOWN: &str = "unknown";

/// The commit that it was built from, or `unknown`.
#[must_use]
pub fn commit() -> &'static str {
    option_env!("TIDINGS_COMMIT")
        .filter(|commit| !commit.is_empty())
        .unwrap_or(UNKNOWN)
}

/// Version and commit as `tidings --version` says them.
#[must_use]
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{VERSION} (commit {})", commit()));
    &TEXT
}
