//! A length of time as people write it: `250ms`, `30s`, `5m`, `2h`, or a number of seconds.

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A length of time in whole microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(u64);

impl Span {
    /// None at all.
    pub const ZERO: Self = Self(0);
    /// More than any run.
    const MAX_S: f64 = 3e9;

    /// So many seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds * 1_000_000)
    }

    /// So many milliseconds.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Self(millis * 1_000)
    }

    /// In microseconds.
    #[must_use]
    pub const fn us(self) -> u64 {
        self.0
    }

    /// In milliseconds, rounded down.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0 / 1_000
    }

    /// In seconds.
    #[must_use]
    pub fn secs(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// For the standard library.
    #[must_use]
    pub const fn duration(self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0)
    }

    fn of_seconds(seconds: f64) -> Option<Self> {
        (0.0..=Self::MAX_S)
            .contains(&seconds)
            .then(|| Self((seconds * 1e6).round() as u64))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            us if us % 1_000 != 0 => write!(f, "{us}us"),
            us if us % 1_000_000 != 0 => write!(f, "{}ms", us / 1_000),
            us if us == 0 || us % 60_000_000 != 0 => write!(f, "{}s", us / 1_000_000),
            us if us % 3_600_000_000 != 0 => write!(f, "{}m", us / 60_000_000),
            us => write!(f, "{}h", us / 3_600_000_000),
        }
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let factor = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "" | "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return Err(format!("`{text}` is not a time: use us, ms, s, m or h, as in 250ms")),
        };
        let number: Option<f64> = number.trim().parse().ok();
        number
            .and_then(|number| Self::of_seconds(number * factor))
            .ok_or_else(|| format!("`{text}` is not a time such as 250ms, 30s or 5m"))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time such as \"250ms\", \"30s\" or \"5m\", or a number of seconds")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_f64<E: Error>(self, seconds: f64) -> Result<Span, E> {
                Span::of_seconds(seconds).ok_or_else(|| E::custom(format!("{seconds} is not a number of seconds")))
            }

            fn visit_i64<E: Error>(self, seconds: i64) -> Result<Span, E> {
                self.visit_f64(seconds as f64)
            }

            fn visit_u64<E: Error>(self, seconds: u64) -> Result<Span, E> {
                self.visit_f64(seconds as f64)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_people_write_them_and_print_the_same_way() {
        for (text, us) in [
            ("250ms", 250_000),
            ("30s", 30_000_000),
            ("5m", 300_000_000),
            ("2h", 7_200_000_000),
        ] {
            let span: Span = text.parse().expect("a time");
            assert_eq!((span.us(), span.to_string().as_str()), (us, text));
        }
        assert_eq!("1.5".parse::<Span>().expect("a time").us(), 1_500_000);
        for bad in ["", "s", "-1s", "3 weeks", "1e99", "nan"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }
}
