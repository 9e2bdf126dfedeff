//! Defaults, file, environment and flags, laid over each other.

use super::ConfigError;
use super::checks::validate;
use super::reading::{self, Origin};
use super::schema::{Config, KEYS, Key, Kind};
use clap::{Arg, ArgMatches, Command};
use std::path::Path;

/// Values given as `--section.key value`, one flag for each key of [`KEYS`].
#[derive(Clone, Debug, Default)]
pub struct Flags(pub Vec<(&'static str, String)>);

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = KEYS
            .iter()
            .filter_map(|key| Some((key.path, matches.get_one::<String>(key.path)?.clone())));
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        KEYS.iter().fold(command, |command, key| {
            command.arg(
                Arg::new(key.path)
                    .long(key.path)
                    .value_name(match key.kind {
                        Kind::Integer => "N",
                        Kind::Switch => "BOOL",
                        Kind::Text => "TEXT",
                        Kind::List => "LIST",
                    })
                    .help(key.docs.concat().trim().to_owned())
                    .help_heading("Configuration keys")
                    .hide_short_help(true),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Where values come from beside the defaults.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    /// A TOML file.
    pub file: Option<&'a Path>,
    /// Environment variables; those that do not look like `TIDINGS_SECTION__KEY` are not ours.
    pub variables: Vec<(String, String)>,
    /// Flags. Of two for one key the later wins.
    pub flags: Vec<(&'static str, String)>,
}

/// Lays all sources over each other and checks the result.
///
/// # Errors
/// Says which file, variable, flag or key is wrong and why.
pub fn load(sources: &Sources<'_>) -> Result<Config, ConfigError> {
    let mut builder = config::Config::builder();
    let mut origins: Vec<Origin> = Vec::new();
    if let Some(path) = sources.file {
        let text = reading::text(path)?;
        origins = reading::check(path, &text)?;
        builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
    }
    for (name, text) in &sources.variables {
        let Some(path) = name.strip_prefix("TIDINGS_").filter(|path| path.contains("__")) else {
            continue;
        };
        let path = path.replace("__", ".").to_ascii_lowercase();
        let from = format!("the environment variable {name}");
        let key = KEYS
            .iter()
            .find(|key| key.path == path)
            .ok_or_else(|| reading::unknown(from.clone(), &path))?;
        builder = lay(builder, key, text, &from)?;
        origins.push((key.path, from));
    }
    for (path, text) in &sources.flags {
        if let Some(key) = KEYS.iter().find(|key| key.path == *path) {
            let from = format!("--{path}");
            builder = lay(builder, key, text, &from)?;
            origins.push((key.path, from));
        }
    }
    let config: Config = builder
        .build()
        .and_then(config::Config::try_deserialize)
        .map_err(|error| ConfigError::File {
            from: "the configuration".to_owned(),
            reason: error.to_string(),
        })?;
    validate(&config).map_err(|error| given(error, &config, &origins))?;
    Ok(config)
}

/// The same with where the value came from, and the value.
fn given(error: ConfigError, config: &Config, origins: &[Origin]) -> ConfigError {
    let ConfigError::Invalid { key, reason } = error else {
        return error;
    };
    // The layer that won was laid last.
    let origin = origins.iter().rev().find(|(path, _)| *path == key);
    ConfigError::Given {
        from: origin.map_or_else(|| "the default".to_owned(), |(_, from)| from.clone()),
        key,
        value: shown(config, key),
        reason,
    }
}

/// A value as messages show it: never the secret.
#[must_use]
pub(crate) fn shown(config: &Config, path: &str) -> String {
    let value = toml::Value::try_from(config).ok().and_then(|all| {
        let (section, name) = path.split_once('.')?;
        Some(all.get(section)?.get(name)?.clone())
    });
    match value {
        Some(toml::Value::String(text)) if path == "cluster.secret" && !text.is_empty() => "(not shown)".to_owned(),
        Some(value) => value.to_string(),
        None => String::new(),
    }
}

type Builder = config::ConfigBuilder<config::builder::DefaultState>;

fn lay(builder: Builder, key: &'static Key, text: &str, from: &str) -> Result<Builder, ConfigError> {
    let refuse = || ConfigError::NotAValue {
        from: from.to_owned(),
        key: key.path,
        text: text.to_owned(),
        expected: key.kind.expected(),
    };
    let value: config::Value = match key.kind {
        Kind::Integer => {
            let number: u64 = text.replace('_', "").parse().map_err(|_| refuse())?;
            i64::try_from(number).map_err(|_| refuse())?.into()
        }
        Kind::Switch => text.parse::<bool>().map_err(|_| refuse())?.into(),
        Kind::Text => text.into(),
        Kind::List => text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .collect::<Vec<_>>()
            .into(),
    };
    builder
        .set_override(key.path, value)
        .map_err(|error| ConfigError::File {
            from: from.to_owned(),
            reason: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("written");
        file
    }

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn every_key_is_a_flag_that_may_be_given_once() {
        use clap::{Args as _, FromArgMatches as _};
        let command = || Flags::augment_args(Command::new("tidings"));
        for key in KEYS {
            let matches = command()
                .try_get_matches_from(["tidings", &format!("--{}", key.path), "x"])
                .expect("a flag");
            assert_eq!(
                Flags::from_arg_matches(&matches).expect("flags").0,
                [(key.path, "x".to_owned())]
            );
        }
        assert!(
            command()
                .try_get_matches_from(["tidings", "--limits.head", "1"])
                .is_err()
        );
        let twice = ["tidings", "--limits.head_ms", "1", "--limits.head_ms", "2"];
        assert!(command().try_get_matches_from(twice).is_err());
    }

    #[test]
    fn nothing_given_means_the_defaults() {
        assert_eq!(load(&Sources::default()).expect("fine"), Config::default());
    }

    #[test]
    fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
        let file = file("[limits]\nhead_ms = 1\nidle_ms = 1\nbody_idle_ms = 1\n");
        let config = load(&Sources {
            file: Some(file.path()),
            variables: variables(&[("TIDINGS_LIMITS__IDLE_MS", "2"), ("TIDINGS_LIMITS__BODY_IDLE_MS", "2")]),
            flags: vec![("limits.body_idle_ms", "3".to_owned())],
        })
        .expect("fine");
        assert_eq!(
            (config.limits.head_ms, config.limits.idle_ms, config.limits.body_idle_ms),
            (1, 2, 3)
        );
        assert_eq!(config.limits.first_byte_ms, Config::default().limits.first_byte_ms);
    }

    fn message(text: &str) -> String {
        let file = file(text);
        let error = load(&Sources {
            file: Some(file.path()),
            ..Sources::default()
        });
        let message = error.expect_err("refused").to_string();
        let path = file.path().display().to_string();
        message.strip_prefix(&path).expect("the file is named").to_owned()
    }

    #[test]
    fn an_unknown_key_in_the_file_is_an_error_that_names_the_line_and_the_near_key() {
        for (text, says) in [
            (
                "\n[limits]\nhaed_ms = 5\n",
                ", line 3: there is no key `limits.haed_ms`; did you mean `limits.head_ms`?",
            ),
            (
                "[limit]\nhead_ms = 5\n",
                ", line 1: there is no key `limit.head_ms`; did you mean `limits.head_ms`?",
            ),
            (
                "[limits]\nlisten = \"\"\n",
                ", line 2: there is no key `limits.listen`; did you mean `server.listen`?",
            ),
            (
                "head_ms = 5\n",
                ", line 1: there is no key `head_ms`; did you mean `limits.head_ms`?",
            ),
            (
                "[wholly]\ndifferent = 5\n",
                ", line 1: there is no key `wholly.different` (`tidings config docs` has all)",
            ),
            (
                "limits = 5\n",
                ", line 1: `limits` is a section: write [limits] and its keys below it",
            ),
        ] {
            assert_eq!(message(text), says, "{text}");
        }
    }

    #[test]
    fn a_wrong_type_in_the_file_is_named_with_its_line_and_value() {
        for (text, says) in [
            (
                "[limits]\nhead_ms = \"5 s\"\n",
                ", line 2: `\"5 s\"` is not a whole number that is not negative, as `limits.head_ms` needs",
            ),
            (
                "[limits]\nhead_ms = -5\n",
                ", line 2: `-5` is not a whole number that is not negative, as `limits.head_ms` needs",
            ),
            (
                "[server]\ninsecure = 1\n",
                ", line 2: `1` is not true or false, as `server.insecure` needs",
            ),
            (
                "[cluster]\njoin = \"a:1\"\n",
                ", line 2: `\"a:1\"` is not a list of texts, as `cluster.join` needs",
            ),
        ] {
            assert_eq!(message(text), says, "{text}");
        }
        assert!(message("[limits]\nhead_ms = = 1\n").starts_with(", line 2: it is not TOML: "));
    }

    #[test]
    fn a_value_out_of_bounds_is_named_with_where_it_was_given() {
        assert_eq!(
            message("[limits]\nidle_ms = 5\nhead_ms = 0\n"),
            ", line 3: limits.head_ms = 0: must be from 1 to 2592000000"
        );
        let error = load(&Sources {
            variables: variables(&[("TIDINGS_CLUSTER__COPIES", "4")]),
            ..Sources::default()
        });
        assert_eq!(
            error.expect_err("refused").to_string(),
            "the environment variable TIDINGS_CLUSTER__COPIES: cluster.copies = 4: must be from 1 to 3"
        );
        // What only makes sense together names the key that was left at its default.
        let error = load(&Sources {
            flags: vec![("cluster.expect", "3".to_owned())],
            ..Sources::default()
        });
        let message = error.expect_err("refused").to_string();
        assert!(message.starts_with("the default: cluster.secret = \"\": "), "{message}");
    }

    #[test]
    fn the_secret_is_never_shown() {
        let secret = "too short a secret";
        for text in [
            format!("[cluster]\nsecret = \"{secret}\"\n"),
            format!("[cluster]\nsecret = \"{secret}\" x\n"),
            format!("[cluster]\nsecret = [\"{secret}\"]\n"),
            format!("[cluster]\nsecret = \"{secret}{secret}{secret}\"\nlease_ms = 1\n"),
        ] {
            assert!(!message(&text).contains("secret a"), "{}", message(&text));
            assert!(!message(&text).contains(secret), "{}", message(&text));
        }
    }

    #[test]
    fn an_unknown_variable_with_our_shape_is_an_error_and_others_are_not_ours() {
        let error = load(&Sources {
            variables: variables(&[("TIDINGS_LIMITS__HAED_MS", "1")]),
            ..Sources::default()
        });
        assert!(matches!(
            error,
            Err(ConfigError::UnknownKey {
                near: Some("limits.head_ms"),
                ..
            })
        ));
        let fine = load(&Sources {
            variables: variables(&[("TIDINGS_URL", "x"), ("HOME", "/")]),
            ..Sources::default()
        });
        assert!(fine.is_ok());
    }

    #[test]
    fn a_text_that_is_no_value_names_its_source() {
        let error = load(&Sources {
            flags: vec![("limits.head_ms", "soon".to_owned())],
            ..Sources::default()
        });
        let message = error.expect_err("refused").to_string();
        assert_eq!(
            message,
            "--limits.head_ms: `soon` is not a whole number, as `limits.head_ms` needs"
        );
    }

    #[test]
    fn lists_are_separated_by_commas_and_large_numbers_survive() {
        let config = load(&Sources {
            variables: variables(&[
                (
                    "TIDINGS_SERVER__ALLOWED_ORIGINS",
                    "https://a.example, https://b.example:8443",
                ),
                ("TIDINGS_OWNER__VERSION_TABLE_BYTES", "8_589_934_592"),
            ]),
            ..Sources::default()
        })
        .expect("fine");
        assert_eq!(
            config.server.allowed_origins,
            ["https://a.example", "https://b.example:8443"]
        );
        assert_eq!(config.owner.version_table_bytes, 8 << 30);
    }

    #[test]
    fn listening_beyond_loopback_needs_the_word_insecure() {
        let public = |insecure: &str| {
            load(&Sources {
                flags: vec![
                    ("server.listen", "0.0.0.0:7400".to_owned()),
                    ("server.insecure", insecure.to_owned()),
                ],
                ..Sources::default()
            })
        };
        assert!(
            public("false")
                .expect_err("refused")
                .to_string()
                .contains("server.insecure")
        );
        assert!(public("true").is_ok());
    }
}
