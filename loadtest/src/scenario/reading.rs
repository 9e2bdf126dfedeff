//! From a file's text and what the command line changes in it to a scenario that makes sense.

use super::{Choice, Scenario};
use toml::{Table, Value};

/// Why a scenario cannot be run. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The text is not a scenario.
    #[error("{name}: {message}")]
    Text {
        /// Which scenario.
        name: String,
        /// What is wrong, where, and what is allowed.
        message: String,
    },
    /// A `--set` makes no sense.
    #[error("--set {given}: {message}")]
    Set {
        /// As it was given.
        given: String,
        /// What is wrong.
        message: String,
    },
    /// A value makes no sense.
    #[error("{name}: {key} {message}")]
    Value {
        /// Which scenario.
        name: String,
        /// Which key.
        key: &'static str,
        /// What is wrong.
        message: String,
    },
}

/// Reads a scenario and puts `key=value` pairs over it (`publishers.rate=500`, `objects.prefix=x:`).
///
/// # Errors
/// Keys nobody knows, values of the wrong type, and values that make no sense.
pub fn parse(name: &str, text: &str, sets: &[String]) -> Result<Scenario, ScenarioError> {
    let wrong = |message: String| ScenarioError::Text {
        name: name.to_owned(),
        message: message.trim_end().to_owned(),
    };
    // First as it stands, so that its mistakes are told with their lines.
    let plain: Scenario = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let mut scenario = if sets.is_empty() {
        plain
    } else {
        let mut table: Table = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        for given in sets {
            let before = table.clone();
            put(&mut table, given).map_err(|message| ScenarioError::Set {
                given: given.clone(),
                message,
            })?;
            // A set that is wrong by itself is told by its own name.
            if let Err(error) = Scenario::try_from(table.clone()) {
                // Text without quotes is easier to type than TOML.
                table = before;
                put_text(&mut table, given).map_err(|message| ScenarioError::Set {
                    given: given.clone(),
                    message,
                })?;
                if Scenario::try_from(table.clone()).is_err() {
                    return Err(ScenarioError::Set {
                        given: given.clone(),
                        message: one_line(&error.to_string()),
                    });
                }
            }
        }
        Scenario::try_from(table).map_err(|error| wrong(error.to_string()))?
    };
    if scenario.name.is_empty() {
        scenario.name = name.to_owned();
    }
    validate(&scenario)?;
    Ok(scenario)
}

impl TryFrom<Table> for Scenario {
    type Error = toml::de::Error;

    fn try_from(table: Table) -> Result<Self, toml::de::Error> {
        Value::Table(table).try_into()
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn put(table: &mut Table, given: &str) -> Result<(), String> {
    let (path, text) = split(given)?;
    let value = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut read| read.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()));
    insert(table, path, value)
}

fn put_text(table: &mut Table, given: &str) -> Result<(), String> {
    let (path, text) = split(given)?;
    insert(table, path, Value::String(text.to_owned()))
}

fn split(given: &str) -> Result<(&str, &str), String> {
    let (path, text) = given
        .split_once('=')
        .ok_or("is not `key=value`, e.g. publishers.rate=500")?;
    Ok((path.trim(), text.trim()))
}

/// The names of thresholds hold dots of their own.
fn insert(table: &mut Table, path: &str, value: Value) -> Result<(), String> {
    let mut steps: Vec<&str> = match path.strip_prefix("thresholds.") {
        Some(name) => vec!["thresholds", name],
        None => path.split('.').collect(),
    };
    let last = steps.pop().filter(|last| !last.is_empty()).ok_or("names no key")?;
    let mut at = table;
    for step in steps {
        let below = at.entry(step).or_insert_with(|| Value::Table(Table::new()));
        at = below
            .as_table_mut()
            .ok_or_else(|| format!("`{step}` has no keys below it"))?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

fn validate(scenario: &Scenario) -> Result<(), ScenarioError> {
    let require = |fine: bool, key: &'static str, message: &str| match fine {
        true => Ok(()),
        false => Err(ScenarioError::Value {
            name: scenario.name.clone(),
            key,
            message: message.to_owned(),
        }),
    };
    let (run, objects) = (&scenario.run, &scenario.objects);
    let (subscribers, publishers) = (&scenario.subscribers, &scenario.publishers);
    require(run.duration.us() > 0, "run.duration", "must be longer than nothing")?;
    require(
        run.warm_up < run.duration,
        "run.warm_up",
        &format!("({}) must be shorter than run.duration ({})", run.warm_up, run.duration),
    )?;
    require(run.threads <= 64, "run.threads", "must be at most 64")?;
    require(
        (1..=100_000_000).contains(&objects.count),
        "objects.count",
        "must be from 1 to 100,000,000",
    )?;
    let prefix = objects
        .prefix
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    require(
        prefix && (1..=64).contains(&objects.prefix.len()),
        "objects.prefix",
        "must be 1 to 64 printable ASCII characters without blanks, quotes and backslashes",
    )?;
    require(
        subscribers.among <= objects.count,
        "subscribers.among",
        "must be at most objects.count",
    )?;
    require(
        subscribers.objects >= 1 && subscribers.objects <= scenario.among().min(10_000),
        "subscribers.objects",
        "must be from 1 to the number of objects that can be chosen from, at most 10,000",
    )?;
    let weights = &subscribers.transports;
    require(
        subscribers.count == 0
            || u64::from(weights.websocket) + u64::from(weights.events) + u64::from(weights.poll) > 0,
        "subscribers.transports",
        "must have a weight above 0 for one of them",
    )?;
    require(
        subscribers.connecting >= 1,
        "subscribers.connecting",
        "must be at least 1",
    )?;
    let skews = [
        ("subscribers.skew", subscribers.choice, subscribers.skew),
        ("publishers.skew", publishers.choice, publishers.skew),
    ];
    for (key, choice, skew) in skews {
        let fine = choice == Choice::Uniform || (skew > 0.0 && skew <= 10.0);
        require(fine, key, "must be above 0 and at most 10")?;
    }
    validate_load(scenario, require)
}

fn validate_load(
    scenario: &Scenario,
    require: impl Fn(bool, &'static str, &str) -> Result<(), ScenarioError>,
) -> Result<(), ScenarioError> {
    let (publishers, churn, storm) = (&scenario.publishers, &scenario.churn, &scenario.storm);
    let share = |share: f64| (0.0..=1.0).contains(&share);
    let rate = |rate: f64| (0.0..=1e8).contains(&rate);
    require(
        rate(publishers.rate),
        "publishers.rate",
        "must be from 0 to 100,000,000 a second",
    )?;
    require(share(publishers.watched), "publishers.watched", "must be from 0 to 1")?;
    require(
        (1..=10_000).contains(&publishers.batch),
        "publishers.batch",
        "must be from 1 to 10,000",
    )?;
    require(
        !scenario.publishes() || publishers.connections >= 1,
        "publishers.connections",
        "must be at least 1",
    )?;
    require(
        publishers.timeout.us() > 0 && publishers.give_up.us() > 0,
        "publishers.timeout",
        "and publishers.give_up must be longer than nothing",
    )?;
    require(rate(churn.leave_per_s), "churn.leave_per_s", "must be 0 or more")?;
    require(rate(churn.swap_per_s), "churn.swap_per_s", "must be 0 or more")?;
    require(share(storm.share), "storm.share", "must be from 0 to 1")?;
    require(
        scenario.slow.slow == 0 || scenario.slow.bytes_per_s >= 1,
        "slow.bytes_per_s",
        "must be at least 1",
    )?;
    require(
        u64::from(scenario.slow.stopped) + u64::from(scenario.slow.slow) <= u64::from(scenario.subscribers.count),
        "slow.stopped",
        "and slow.slow together must not exceed subscribers.count",
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Span, built_ins};
    use super::*;

    fn message(text: &str, sets: &[&str]) -> String {
        let sets: Vec<_> = sets.iter().map(|set| (*set).to_owned()).collect();
        parse("mine", text, &sets).expect_err("wrong").to_string()
    }

    #[test]
    fn every_scenario_that_comes_along_makes_sense_and_says_what_it_is_for() {
        for built_in in built_ins() {
            let scenario = parse(built_in.name, built_in.text, &[]).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(scenario.name, built_in.name);
            assert!(scenario.about.len() > 40, "{}", built_in.name);
            assert!(
                built_in.text.contains('#'),
                "{} has a comment for people",
                built_in.name
            );
        }
    }

    #[test]
    fn a_key_that_nobody_knows_is_an_error_that_names_it_and_what_is_allowed() {
        let message = message("[publishers]\nrat = 3\n", &[]);
        assert!(
            message.contains("rat") && message.contains("`rate`") && message.contains("line 2"),
            "{message}"
        );
    }

    #[test]
    fn a_set_changes_one_value_with_or_without_quotes() {
        let sets = [
            "publishers.rate=500",
            "objects.prefix=x:",
            "run.duration=5s",
            "thresholds.latency.p99_ms=<= 5",
        ];
        let sets: Vec<_> = sets.iter().map(|set| (*set).to_owned()).collect();
        let scenario = parse("mine", "[publishers]\nrate = 3\n", &sets).expect("fine");
        assert!((scenario.publishers.rate - 500.0).abs() < 1e-9);
        assert_eq!(scenario.objects.prefix, "x:");
        assert_eq!(scenario.run.duration, Span::seconds(5));
        assert_eq!(scenario.thresholds["latency.p99_ms"].as_str(), Some("<= 5"));
    }

    #[test]
    fn a_set_that_makes_no_sense_is_told_by_its_name() {
        for (set, part) in [
            ("publishers.rat=5", "`rate`"),
            ("publishers.rate=fast", "fast"),
            ("publishers", "key=value"),
            ("name.x=1", "no keys below"),
        ] {
            let message = message("name = \"x\"", &[set]);
            assert!(
                message.contains("--set") && message.contains(set) && message.contains(part),
                "{message}"
            );
        }
    }

    #[test]
    fn values_that_make_no_sense_are_refused_with_their_bounds() {
        for (text, part) in [
            ("[objects]\ncount = 0\n", "objects.count must be from 1"),
            ("[subscribers]\nobjects = 0\n", "subscribers.objects must be"),
            (
                "[publishers]\nwatched = 1.5\n",
                "publishers.watched must be from 0 to 1",
            ),
            ("[run]\nwarm_up = \"1m\"\n", "shorter than run.duration (30s)"),
            ("[slow]\nstopped = 101\n", "must not exceed subscribers.count"),
            ("[run]\nduration = \"soon\"\n", "not a time"),
        ] {
            let message = message(text, &[]);
            assert!(message.contains(part), "{message}");
        }
    }
}
