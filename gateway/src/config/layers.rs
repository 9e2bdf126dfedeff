//! Defaults, file, environment and flags, laid over each other.

use super::ConfigError;
use super::schema::{Config, KEYS, Key, Kind, validate};
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
    if let Some(path) = sources.file {
        let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable {
            path: path.display().to_string(),
            cause,
        })?;
        // Read strictly by itself first: this error names the line, and that of a merged configuration does not.
        toml::from_str::<Config>(&text).map_err(|error| ConfigError::File(format!("{}: {error}", path.display())))?;
        builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
    }
    for (name, text) in &sources.variables {
        let Some(path) = name.strip_prefix("TIDINGS_").filter(|path| path.contains("__")) else {
            continue;
        };
        let path = path.replace("__", ".").to_ascii_lowercase();
        let key = KEYS
            .iter()
            .find(|key| key.path == path)
            .ok_or_else(|| ConfigError::UnknownVariable { name: name.clone() })?;
        builder = lay(builder, key, text, || format!("environment variable {name}"))?;
    }
    for (path, text) in &sources.flags {
        if let Some(key) = KEYS.iter().find(|key| key.path == *path) {
            builder = lay(builder, key, text, || format!("--{path}"))?;
        }
    }
    let config: Config = builder
        .build()
        .and_then(config::Config::try_deserialize)
        .map_err(|error| ConfigError::File(error.to_string()))?;
    validate(&config)?;
    Ok(config)
}

type Builder = config::ConfigBuilder<config::builder::DefaultState>;

fn lay(builder: Builder, key: &Key, text: &str, from: impl Fn() -> String) -> Result<Builder, ConfigError> {
    let refuse = || ConfigError::NotAValue {
        from: from(),
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
        .map_err(|error| ConfigError::File(error.to_string()))
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

    #[test]
    fn an_unknown_key_in_the_file_is_an_error_that_names_it() {
        for text in ["[limits]\nfirst_byte = 5\n", "[limit]\nhead_ms = 5\n", "head_ms = 5\n"] {
            let file = file(text);
            let error = load(&Sources {
                file: Some(file.path()),
                ..Sources::default()
            })
            .expect_err("refused");
            assert!(error.to_string().contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn an_unknown_variable_with_our_shape_is_an_error_and_others_are_not_ours() {
        let error = load(&Sources {
            variables: variables(&[("TIDINGS_LIMITS__HAED_MS", "1")]),
            ..Sources::default()
        });
        assert!(matches!(error, Err(ConfigError::UnknownVariable { .. })));
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

    #[test]
    fn the_default_file_is_the_defaults() {
        let read: Config = toml::from_str(&super::super::default_toml()).expect("it is TOML");
        assert_eq!(read, Config::default());
    }

    #[test]
    fn every_key_is_documented() {
        for key in KEYS {
            assert!(!key.docs.is_empty(), "{}", key.path);
            assert!(
                super::super::docs_markdown().contains(&format!("| `{}` |", key.name)),
                "{}",
                key.path
            );
        }
    }
}
