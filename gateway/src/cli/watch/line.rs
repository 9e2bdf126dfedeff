//! A line of output: for people, or as JSON for programs.

use crate::cli::one_line;
use serde::Serialize;
use serde_json::value::RawValue;
use std::time::{Duration, SystemTime};

/// Something to tell.
#[derive(Debug)]
pub(super) enum Line {
    /// An object changed.
    Change(Change),
    /// These objects may have changed: fetch them. `None`: all that are watched.
    Resync(Option<Vec<String>>, Option<String>),
    /// The server is cut off from the owners of some objects (`true`), or whole again.
    Stale(bool),
}

/// A change as the server tells it.
#[derive(Debug, Serialize, serde::Deserialize)]
pub(super) struct Change {
    pub(super) object: String,
    pub(super) version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Box<RawValue>>,
}

impl Line {
    /// For people: time, object, version, kind, data.
    pub(super) fn text(&self, time: &str) -> String {
        let because = |cause: &Option<String>| cause.as_ref().map(|cause| format!("  ({})", one_line(cause)));
        match self {
            Self::Change(change) => {
                let version = change
                    .version
                    .map_or_else(|| "unknown".to_owned(), |version| version.to_string());
                let mut line = format!("{time}  {}  version {version}", one_line(&change.object));
                if let Some(kind) = &change.kind {
                    line += &format!("  {}", one_line(kind));
                }
                if let Some(data) = &change.data {
                    line += &format!("  {}", flat(data));
                }
                line
            }
            Self::Resync(None, cause) => {
                format!(
                    "{time}  resync  all objects may have changed: fetch them{}",
                    because(cause).unwrap_or_default()
                )
            }
            Self::Resync(Some(objects), cause) => {
                let because = because(cause).unwrap_or_default();
                let line = |object: &String| {
                    format!(
                        "{time}  resync  {} may have changed: fetch it{because}",
                        one_line(object)
                    )
                };
                objects.iter().map(line).collect::<Vec<_>>().join("\n")
            }
            Self::Stale(true) => format!("{time}  stale  the server is cut off: changes may come late"),
            Self::Stale(false) => format!("{time}  stale  no longer: the server is whole again"),
        }
    }

    /// For programs: one JSON object, with `time` and what the server sent.
    pub(super) fn json(&self, time: &str) -> String {
        #[derive(Serialize)]
        struct Timed<'a, T> {
            time: &'a str,
            #[serde(flatten)]
            line: T,
        }
        #[derive(Serialize)]
        struct Told<'a> {
            time: &'a str,
            object: &'a str,
            version: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            kind: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            data: Option<Box<RawValue>>,
        }
        #[derive(Serialize)]
        struct Resync<'a> {
            resync: Which<'a>,
        }
        #[derive(Serialize)]
        struct Which<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            all: Option<bool>,
            #[serde(skip_serializing_if = "Option::is_none")]
            objects: Option<&'a [String]>,
            #[serde(skip_serializing_if = "Option::is_none")]
            cause: Option<&'a str>,
        }
        #[derive(Serialize)]
        struct Stale {
            stale: bool,
        }
        let line = match self {
            // Not flattened: that would take the raw data apart.
            Self::Change(Change {
                object,
                version,
                kind,
                data,
            }) => {
                let data = data.as_deref().and_then(|data| RawValue::from_string(flat(data)).ok());
                serde_json::to_string(&Told {
                    time,
                    object,
                    version: *version,
                    kind: kind.as_deref(),
                    data,
                })
            }
            Self::Resync(objects, cause) => {
                let all = objects.is_none().then_some(true);
                let resync = Which {
                    all,
                    objects: objects.as_deref(),
                    cause: cause.as_deref(),
                };
                serde_json::to_string(&Timed {
                    time,
                    line: Resync { resync },
                })
            }
            Self::Stale(stale) => serde_json::to_string(&Timed {
                time,
                line: Stale { stale: *stale },
            }),
        };
        // Writing plain values to memory does not fail.
        line.unwrap_or_default()
    }
}

/// On one line: between the tokens of JSON a line break is as good as a space, and inside them there is none. The rest of
/// what a terminal would obey is written as JSON's own escapes.
fn flat(data: &RawValue) -> String {
    let mut flat = String::with_capacity(data.get().len());
    for c in data.get().chars() {
        match c {
            '\n' | '\r' | '\t' => flat.push(' '),
            c if c.is_control() => flat += &format!("\\u{:04x}", u32::from(c)),
            c => flat.push(c),
        }
    }
    flat
}

/// The time now as RFC 3339 with milliseconds, in UTC.
pub(super) fn now() -> String {
    rfc3339(
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

/// From the time since the Unix epoch. Days to date after H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn rfc3339(since_epoch: Duration) -> String {
    let (days, seconds) = (since_epoch.as_secs() / 86_400, since_epoch.as_secs() % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        since_epoch.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(data: Option<&str>) -> Line {
        Line::Change(Change {
            object: "order:42".to_owned(),
            version: Some(1_795_170_000_000_000),
            kind: Some("updated".to_owned()),
            data: data.map(|data| RawValue::from_string(data.to_owned()).expect("JSON")),
        })
    }

    #[test]
    fn a_change_is_one_line_whatever_its_data() {
        assert_eq!(
            change(Some("{\"total\":\n 12,\"t\":\"\u{9b}\"}")).text("T"),
            "T  order:42  version 1795170000000000  updated  {\"total\":  12,\"t\":\"\\u009b\"}"
        );
        assert_eq!(change(None).text("T"), "T  order:42  version 1795170000000000  updated");
    }

    #[test]
    fn json_lines_keep_the_servers_shapes_and_numbers() {
        assert_eq!(
            change(Some("1.10")).json("T"),
            r#"{"time":"T","object":"order:42","version":1795170000000000,"kind":"updated","data":1.10}"#
        );
        let all = Line::Resync(None, Some("floor".to_owned()));
        assert_eq!(all.json("T"), r#"{"time":"T","resync":{"all":true,"cause":"floor"}}"#);
        let some = Line::Resync(Some(vec!["a".to_owned()]), None);
        assert_eq!(some.json("T"), r#"{"time":"T","resync":{"objects":["a"]}}"#);
        assert_eq!(Line::Stale(true).json("T"), r#"{"time":"T","stale":true}"#);
    }

    #[test]
    fn a_resync_is_told_clearly_for_each_object() {
        let some = Line::Resync(
            Some(vec!["a".to_owned(), "b".to_owned()]),
            Some("owner lost".to_owned()),
        );
        assert_eq!(
            some.text("T"),
            "T  resync  a may have changed: fetch it  (owner lost)\nT  resync  b may have changed: fetch it  (owner lost)"
        );
        assert_eq!(
            Line::Resync(None, None).text("T"),
            "T  resync  all objects may have changed: fetch them"
        );
    }

    #[test]
    fn times_are_utc_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (1_795_170_000, "2026-11-20T10:20:00.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(seconds) + Duration::from_millis(7)), text);
        }
    }
}
