//! Numbers as people write them: few digits, a unit that suits, thousands apart.

/// A count: `12,345`; with a fraction only where there is one.
#[must_use]
pub fn count(value: f64) -> String {
    if value.fract() == 0.0 {
        grouped(value)
    } else {
        significant(value)
    }
}

/// So many a second: `12,345/s`, `1.24 million/s`.
#[must_use]
pub fn rate(value: f64) -> String {
    if value.abs() >= 1e6 {
        format!("{} million/s", significant(value / 1e6))
    } else {
        format!("{}/s", significant(value))
    }
}

/// A duration: `84 µs`, `1.24 ms`, `12.5 s`, `3 min 20 s`, `2 h 5 min`.
#[must_use]
pub fn duration_us(us: f64) -> String {
    let size = us.abs();
    if size < 999.5 {
        format!("{} µs", significant(us))
    } else if size < 999.5e3 {
        format!("{} ms", significant(us / 1e3))
    } else if size < 120e6 {
        format!("{} s", significant(us / 1e6))
    } else if size < 7_200e6 {
        let s = (us / 1e6).round();
        format!("{} min {} s", (s / 60.0).trunc(), (s % 60.0).abs())
    } else {
        let min = (us / 60e6).round();
        format!("{} h {} min", (min / 60.0).trunc(), (min % 60.0).abs())
    }
}

/// Memory: `812 KiB`, `35.2 MiB`, `1.21 GiB`.
#[must_use]
pub fn bytes(value: f64) -> String {
    let size = value.abs();
    for (unit, name) in [(1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1_024.0, "KiB")] {
        if size >= unit * 0.9995 {
            return format!("{} {name}", significant(value / unit));
        }
    }
    format!("{value:.0} B")
}

/// Processor cores: `0.42 cores`.
#[must_use]
pub fn cores(value: f64) -> String {
    format!("{value:.2} cores")
}

/// A share: `12.5 %`.
#[must_use]
pub fn percent(value: f64) -> String {
    format!("{} %", significant(value))
}

/// A moment of a run: `0:07`, `12:30`, `1:02:30`.
#[must_use]
pub fn moment(ms: u64) -> String {
    let s = ms / 1_000;
    let (h, min, s) = (s / 3_600, s / 60 % 60, s % 60);
    if h > 0 {
        format!("{h}:{min:02}:{s:02}")
    } else {
        format!("{min}:{s:02}")
    }
}

/// A moment of the world, in UTC: `2026-11-20 17:05:12 UTC`.
#[must_use]
pub fn utc(unix_ms: u64) -> String {
    // Civil from days, after Howard Hinnant, "chrono-compatible low-level date algorithms" (2013).
    let days = (unix_ms / 86_400_000) as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let s = unix_ms / 1_000 % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        s / 3_600,
        s / 60 % 60,
        s % 60
    )
}

/// Three significant digits, thousands apart, no trailing zeros behind the point.
pub(crate) fn significant(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    if size >= 99.95 || size == 0.0 {
        return grouped(value.round());
    }
    let digits = if size >= 9.995 {
        1
    } else if size >= 0.9995 {
        2
    } else {
        (1 - size.log10().floor() as i32 + 1).clamp(2, 6)
    };
    let text = format!("{value:.*}", usize::try_from(digits).unwrap_or(2));
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn grouped(value: f64) -> String {
    let plain = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in plain.chars().enumerate() {
        if at > 0 && (plain.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 && text != "0" {
        format!("-{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count_and_a_unit_that_suits() {
        let shown = [0.0, 84.0, 999.4, 999.6, 1_240.0, 12_500.0, 1.5e6, 200e6, 7_500e6].map(duration_us);
        assert_eq!(
            shown,
            [
                "0 µs",
                "84 µs",
                "999 µs",
                "1 ms",
                "1.24 ms",
                "12.5 ms",
                "1.5 s",
                "3 min 20 s",
                "2 h 5 min"
            ]
        );
        assert_eq!(
            [0.0, 999.0, 1_048_576.0, 1.3e9].map(bytes),
            ["0 B", "999 B", "1 MiB", "1.21 GiB"]
        );
        assert_eq!(
            [1_234_567.0, -1_234.0, 0.0, 2.5].map(count),
            ["1,234,567", "-1,234", "0", "2.5"]
        );
        assert_eq!(
            [12_345.6, 1_240_000.0, 0.0123].map(rate),
            ["12,346/s", "1.24 million/s", "0.0123/s"]
        );
        assert_eq!([0.05, f64::NAN].map(percent), ["0.05 %", "– %"]);
    }

    #[test]
    fn moments_are_those_of_a_calendar() {
        assert_eq!([7_000, 750_000, 3_750_000].map(moment), ["0:07", "12:30", "1:02:30"]);
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_399_000), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_795_194_312_000), "2026-11-20 17:05:12 UTC");
    }
}
