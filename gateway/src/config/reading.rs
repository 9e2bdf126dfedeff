//! A configuration file, read strictly: what is wrong is named with its line, its key and what would be right.

use super::ConfigError;
use super::schema::{KEYS, Key, Kind};
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Bytes of a configuration file: more is not read.
const MOST_BYTES: u64 = 1 << 20;

/// Where a value was given, in words: `tidings.toml, line 3`.
pub(super) type Origin = (&'static str, String);

/// The text of a file.
pub(super) fn text(path: &Path) -> Result<String, ConfigError> {
    use std::io::Read as _;
    let mut text = String::new();
    let unreadable = |cause| ConfigError::Unreadable {
        path: path.display().to_string(),
        cause,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MOST_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(ConfigError::File {
            from: path.display().to_string(),
            reason: format!("it has more than {MOST_BYTES} bytes"),
        });
    }
    Ok(text)
}

/// Checks keys and types of a file and says where each key stands.
pub(super) fn check(path: &Path, text: &str) -> Result<Vec<Origin>, ConfigError> {
    let place = |at: usize| {
        let line = text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        format!("{}, line {line}", path.display())
    };
    // Never the parser's own rendering: it quotes the line, in which a secret may stand.
    let table = DeTable::parse(text).map_err(|error| ConfigError::File {
        from: place(error.span().map_or(0, |span| span.start)),
        reason: format!("it is not TOML: {}", error.message()),
    })?;
    let mut origins = Vec::new();
    for (section, value) in table.get_ref() {
        let name: &str = section.get_ref();
        let from = place(section.span().start);
        let known = KEYS.iter().any(|key| key.section == name);
        match value.get_ref() {
            DeValue::Table(keys) if known => {
                for (key, value) in keys {
                    let from = place(key.span().start);
                    let path = format!("{name}.{}", key.get_ref());
                    let key = KEYS.iter().find(|known| known.path == path);
                    let key = key.ok_or_else(|| unknown(from.clone(), &path))?;
                    check_type(key, value, &from)?;
                    origins.push((key.path, from));
                }
            }
            _ if known => {
                let reason = format!("`{name}` is a section: write [{name}] and its keys below it");
                return Err(ConfigError::File { from, reason });
            }
            DeValue::Table(keys) => {
                // The key may be right and only its section wrong.
                let first = keys.iter().next().map(|(key, _)| format!("{name}.{}", key.get_ref()));
                return Err(unknown(from, first.as_deref().unwrap_or(name)));
            }
            _ => return Err(unknown(from, name)),
        }
    }
    Ok(origins)
}

fn check_type(key: &'static Key, value: &Spanned<DeValue<'_>>, from: &str) -> Result<(), ConfigError> {
    let text = |value: &DeValue<'_>| matches!(value, DeValue::String(_));
    let fine = match (key.kind, value.get_ref()) {
        (Kind::Integer, DeValue::Integer(number)) => {
            let digits = number.as_str().replace('_', "");
            i64::from_str_radix(&digits, number.radix()).is_ok_and(|number| number >= 0)
        }
        (Kind::Switch, DeValue::Boolean(_)) => true,
        (Kind::Text, value) => text(value),
        (Kind::List, DeValue::Array(items)) => items.iter().all(|item| text(item.get_ref())),
        _ => false,
    };
    if fine {
        return Ok(());
    }
    let given = match value.get_ref() {
        DeValue::String(text) if key.path != "cluster.secret" => format!("\"{}\"", text.escape_debug()),
        DeValue::String(_) => "text".to_owned(),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    Err(ConfigError::NotAValue {
        from: from.to_owned(),
        key: key.path,
        text: given,
        expected: match key.kind {
            Kind::Integer => "a whole number that is not negative",
            Kind::List => "a list of texts",
            Kind::Switch | Kind::Text => key.kind.expected(),
        },
    })
}

/// There is no such key; perhaps one that is spelled alike was meant.
pub(super) fn unknown(from: String, path: &str) -> ConfigError {
    let name = path.rsplit('.').next().unwrap_or(path);
    // The right name in a wrong section, else the path with the fewest mistakes, at most one in three characters.
    let elsewhere = KEYS.iter().find(|key| key.name == name);
    let distance = |key: &Key| strsim::damerau_levenshtein(key.path, path);
    let alike = KEYS
        .iter()
        .map(|key| (distance(key), key))
        .min_by_key(|(distance, _)| *distance);
    let alike = alike.filter(|(distance, _)| distance * 3 <= path.len());
    let near = match (alike, elsewhere) {
        (Some((distance, key)), _) if distance <= 2 => Some(key),
        (_, Some(key)) => Some(key),
        (Some((_, key)), None) => Some(key),
        (None, None) => None,
    };
    ConfigError::UnknownKey {
        from,
        key: path.escape_debug().to_string(),
        near: near.map(|key| key.path),
    }
}
