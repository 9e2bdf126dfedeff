//! What values make sense: the bounds of numbers, the words that are allowed, and what keys mean together.

use super::ConfigError;
use super::schema::{Config, KEYS, Key, Kind, integer};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use tidings_router::control::map::MOST_COPIES;

/// Thirty days. No time here is meant to be longer, and none overflows when it is counted in microseconds.
const LONGEST_MS: u64 = 2_592_000_000;
/// What a TOML file can hold.
const LARGEST: u64 = i64::MAX as u64;

/// Bounds of single numbers, where they are narrower than those of their kind ([`bounds`]).
const BOUNDS: &[(&str, RangeInclusive<u64>)] = &[
    // Below, an election does not fit in; above, an owner that died is missed for longer than anybody wants to wait.
    ("cluster.lease_ms", 500..=60_000),
    ("cluster.shards", 1..=4_096),
    ("cluster.copies", 1..=MOST_COPIES as u64),
    // None holds shards where they are.
    ("cluster.moves", 0..=256),
    // Without any, no copy would ever be whole again.
    ("cluster.fills", 1..=64),
    // A voter is not replaced for a short pause.
    ("cluster.replace_voter_ms", 5_000..=86_400_000),
    // A node that starts again must find itself known.
    ("cluster.forget_node_ms", 10_000..=LONGEST_MS),
    ("server.threads", 0..=1_024),
    ("auth.leeway_s", 0..=tidings_router::access::claims::MOST_LEEWAY_S),
    ("auth.token_lifetime_s", 60..=31_536_000),
    ("auth.ticket_ms", 1_000..=LONGEST_MS),
    ("auth.cut_off_ms", 1_000..=LONGEST_MS),
    // 0: as long as they like.
    ("limits.connection_lifetime_ms", 0..=LONGEST_MS),
    ("limits.header_bytes", 8_192..=LARGEST),
    ("limits.url_bytes", 1..=65_535),
    ("limits.headers", 8..=LARGEST),
    ("limits.objects_per_connection", 1..=10_000),
    ("limits.owner_queue", 1..=LARGEST),
    ("limits.publish_line_bytes", 1_024..=LARGEST),
    // What fills copies, on its way to one node, and changes on their way there: together below what a connection holds.
    ("owner.copy_window_bytes", 65_536..=16_777_216),
    ("owner.copy_queue_bytes", 1_048_576..=41_943_040),
    ("owner.closed_busy_ms", 1..=LONGEST_MS),
];

/// The smallest and the largest value of a number. A deadline in `[limits]` is at least 1: none would refuse everyone.
#[must_use]
pub(crate) fn bounds(key: &Key) -> RangeInclusive<u64> {
    let own = BOUNDS.iter().find(|(path, _)| *path == key.path);
    let of_its_kind = match (key.section, key.name.ends_with("_ms") || key.name.ends_with("_ms_max")) {
        ("limits", true) => 1..=LONGEST_MS,
        (_, true) => 0..=LONGEST_MS,
        (_, false) => 0..=LARGEST,
    };
    own.map_or(of_its_kind, |(_, range)| range.clone())
}

/// What is allowed under a key, in words.
#[must_use]
pub(crate) fn allowed(key: &Key) -> String {
    let special = match key.path {
        "cluster.expect" => "1, 3 or 5",
        "cluster.shards" => "a power of two from 1 to 4096",
        "log.format" => "`text` or `json`",
        "server.roles" => "of `edge`, `owner`, `voter`",
        "server.listen" | "server.node_listen" => "address:port",
        "server.admin_listen" => "address:port or nothing",
        "server.node_advertise" => "host:port or nothing",
        "cluster.join" => "host:port or @FILE each",
        "server.allowed_origins" => "scheme://host[:port] each",
        "cluster.secret" => "at least 32 characters or nothing",
        _ => "",
    };
    match key.kind {
        _ if !special.is_empty() => special.to_owned(),
        Kind::Integer => in_words(&bounds(key)),
        Kind::Switch => "`true` or `false`".to_owned(),
        Kind::Text => "text".to_owned(),
        Kind::List => "texts".to_owned(),
    }
}

fn in_words(range: &RangeInclusive<u64>) -> String {
    match (*range.start(), *range.end()) {
        (0, LARGEST) => "any".to_owned(),
        (least, LARGEST) => format!("at least {least}"),
        (least, most) => format!("from {least} to {most}"),
    }
}

pub(super) fn address(key: &'static str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| ConfigError::Invalid {
        key,
        reason: format!("`{text}` is not an address and port such as 127.0.0.1:7400 or [::1]:7400"),
    })
}

/// Checks what single types cannot express.
///
/// # Errors
/// The first key that makes no sense, and why.
pub fn validate(config: &Config) -> Result<(), ConfigError> {
    let require = |fine: bool, key: &'static str, reason: &str| {
        if fine {
            Ok(())
        } else {
            Err(ConfigError::Invalid {
                key,
                reason: reason.to_owned(),
            })
        }
    };
    let listen = config.listen()?;
    address("server.node_listen", &config.server.node_listen)?;
    for key in KEYS {
        let range = bounds(key);
        let fine = integer(config, key).is_none_or(|value| range.contains(&value));
        require(fine, key.path, &format!("must be {}", allowed(key)))?;
    }
    super::safety::validate(config, listen)?;
    require(
        tidings_protocol::ShardCount::new(u16::try_from(config.cluster.shards).unwrap_or(0)).is_some(),
        "cluster.shards",
        "must be a power of two from 1 to 4096",
    )?;
    super::cluster::validate(config)?;
    let limits = &config.limits;
    require(
        limits.publish_timeout_ms <= limits.publish_timeout_ms_max,
        "limits.publish_timeout_ms",
        "must be at most limits.publish_timeout_ms_max",
    )?;
    require(
        config.owner.closed_idle_ms >= config.owner.closed_busy_ms,
        "owner.closed_idle_ms",
        "must be at least owner.closed_busy_ms",
    )?;
    require(
        matches!(config.log.format.as_str(), "text" | "json"),
        "log.format",
        "must be `text` or `json`",
    )?;
    crate::logging::check_filter(&config.log.filter)?;
    for origin in &config.server.allowed_origins {
        let fine = origin.starts_with("http://") || origin.starts_with("https://");
        require(
            fine && !origin.ends_with('/') && origin.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()),
            "server.allowed_origins",
            &format!("`{origin}` is not an origin as browsers send it: scheme://host[:port], lower case, no path"),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_belongs_to_a_number_and_holds_its_default() {
        for (path, _) in BOUNDS {
            let key = KEYS.iter().find(|key| key.path == *path).expect(path);
            assert_eq!(key.kind, Kind::Integer, "{path}");
        }
        let default = Config::default();
        for key in KEYS {
            if let Some(value) = integer(&default, key) {
                assert!(bounds(key).contains(&value), "{}", key.path);
            }
        }
    }

    #[test]
    fn each_number_is_taken_at_its_bounds_and_refused_one_past_them() {
        let with = |key: &Key, value: u64| {
            let mut all = toml::Value::try_from(Config::default()).expect("a table");
            let value = i64::try_from(value).expect("small enough");
            all[key.section][key.name] = toml::Value::Integer(value);
            validate(&all.try_into::<Config>().expect("a configuration"))
        };
        // Those that must fit to another key as well.
        let together = [
            "cluster.expect",
            "limits.publish_timeout_ms",
            "limits.publish_timeout_ms_max",
            "owner.closed_busy_ms",
            "owner.closed_idle_ms",
        ];
        for key in KEYS.iter().filter(|key| key.kind == Kind::Integer) {
            let range = bounds(key);
            let (least, most) = (*range.start(), *range.end());
            if !together.contains(&key.path) {
                assert!(with(key, least).is_ok(), "{} {:?}", key.path, with(key, least));
                assert!(with(key, most).is_ok(), "{} {:?}", key.path, with(key, most));
            }
            let past = [least.checked_sub(1), (most < LARGEST).then_some(most + 1)];
            for value in past.into_iter().flatten() {
                let error = with(key, value).expect_err(key.path).to_string();
                assert!(error.starts_with(&format!("{}: must be ", key.path)), "{error}");
            }
        }
    }
}
