//! The scenarios that come with the program. The files beside the sources are these very ones.

/// A scenario that needs no file.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// What it is called.
    pub name: &'static str,
    /// The file's text.
    pub text: &'static str,
}

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        &[$(BuiltIn { name: $name, text: include_str!(concat!("../../scenarios/", $name, ".toml")) }),*]
    };
}

/// All of them, in the order to list them.
#[must_use]
pub fn built_ins() -> &'static [BuiltIn] {
    built_in!["seed", "firehose", "hot", "storm", "slow", "churn", "idle", "soak"]
}

/// One of them.
#[must_use]
pub fn built_in(name: &str) -> Option<&'static BuiltIn> {
    built_ins().iter().find(|scenario| scenario.name == name)
}
