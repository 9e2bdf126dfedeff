//! Axes: where a value lies between the ends, and which values deserve a line and a label.

/// Marks on an axis are never more than this.
const MOST_TICKS: usize = 9;

/// An axis of values; positions run from 0 at its low end to 1 at its high end.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    /// Values worth a line, ascending.
    pub(super) ticks: Vec<f64>,
}

impl Scale {
    /// From zero to a little over the largest value; bytes get marks that are round in their own units.
    pub(super) fn linear(largest: f64, bytes: bool) -> Self {
        let largest = if largest.is_finite() && largest > 0.0 {
            largest
        } else {
            1.0
        };
        let unit = if bytes {
            1024_f64.powf(largest.log(1024.0).floor())
        } else {
            1.0
        };
        let step = nice(largest / unit / 4.0) * unit;
        let steps = (largest / step - 1e-9).ceil().max(1.0);
        Self {
            low: 0.0,
            high: steps * step,
            logarithmic: false,
            ticks: (0..=steps as u32).map(|n| f64::from(n) * step).collect(),
        }
    }

    /// Around values above zero, each factor of ten as high as the next.
    pub(super) fn logarithmic(smallest: f64, largest: f64) -> Self {
        let smallest = if smallest.is_finite() { smallest.max(1.0) } else { 1.0 };
        let largest = if largest.is_finite() {
            largest.max(smallest)
        } else {
            smallest
        };
        let decades = (largest / smallest).log10();
        let wanted: &[f64] = if decades < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let (from, to) = (smallest.log10().floor() as i32, largest.log10().ceil() as i32 + 1);
        let marks = (from..=to).flat_map(|decade| wanted.iter().map(move |m| m * 10_f64.powi(decade)));
        let marks: Vec<f64> = marks.collect();
        let low = marks.iter().copied().rfind(|m| *m <= smallest).unwrap_or(smallest);
        let high = marks
            .iter()
            .copied()
            .find(|m| *m >= largest && *m > low)
            .unwrap_or(largest * 2.0);
        Self {
            low,
            high,
            logarithmic: true,
            ticks: marks.into_iter().filter(|m| (low..=high).contains(m)).collect(),
        }
    }

    /// Where a value lies; what is outside lies on the nearer end.
    pub(super) fn position(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }
}

/// The next of 1, 2, 2.5, 5 times a power of ten.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let factors = [1.0, 2.0, 2.5, 5.0, 10.0];
    factors
        .iter()
        .map(|factor| factor * power)
        .find(|step| *step >= value * 0.999_999)
        .unwrap_or(value)
}

/// Moments worth a mark in a run of so many milliseconds.
pub(super) fn moments(duration_ms: u64) -> Vec<u64> {
    const STEPS_S: [u64; 17] = [
        1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400,
    ];
    let fits = |step: &&u64| duration_ms / (**step * 1_000) < MOST_TICKS as u64;
    let step = STEPS_S.iter().find(fits).copied().unwrap_or(duration_ms / 8_000).max(1) * 1_000;
    (0..=duration_ms / step).map(|n| n * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_from_zero_ends_at_a_round_number_above_the_largest() {
        for (largest, high, ticks) in [
            (7.0, 8.0, 5),
            (300.0, 300.0, 4),
            (0.03, 0.03, 4),
            (0.0, 1.0, 5),
            (f64::NAN, 1.0, 5),
        ] {
            let scale = Scale::linear(largest, false);
            assert!(
                (scale.high - high).abs() < 1e-9 && scale.ticks.len() == ticks,
                "{largest}: {scale:?}"
            );
        }
        assert_eq!(Scale::linear(8.0, false).position(4.0), 0.5);
        assert_eq!(Scale::linear(8.0, false).position(9.0), 1.0);
    }

    #[test]
    fn an_axis_of_bytes_has_marks_that_are_round_in_mebibytes() {
        let marks: Vec<String> = Scale::linear(36e6, true)
            .ticks
            .into_iter()
            .map(crate::words::bytes)
            .collect();
        assert_eq!(marks, ["0 B", "10 MiB", "20 MiB", "30 MiB", "40 MiB"]);
    }

    #[test]
    fn a_logarithmic_axis_holds_its_values_between_round_ends() {
        for (smallest, largest, low, high) in [
            (41.0, 97.0, 20.0, 100.0),
            (41.0, 900_000.0, 10.0, 1e6),
            (100.0, 100.0, 100.0, 200.0),
            (0.0, 0.0, 1.0, 2.0),
            (f64::INFINITY, f64::NEG_INFINITY, 1.0, 2.0),
        ] {
            let scale = Scale::logarithmic(smallest, largest);
            assert_eq!((scale.low, scale.high), (low, high), "{smallest}..{largest}");
            assert!((2..=MOST_TICKS).contains(&scale.ticks.len()), "{scale:?}");
            assert!((0.0..=1.0).contains(&scale.position(smallest)));
        }
        let decade = Scale::logarithmic(1.0, 1e6);
        assert!((decade.position(1e3) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn every_length_of_run_has_a_few_moments() {
        for seconds in [1, 9, 10, 60, 77, 600, 3_600, 86_400, 4_000_000] {
            let marks = moments(seconds * 1_000);
            assert!((1..=MOST_TICKS + 1).contains(&marks.len()), "{seconds}: {marks:?}");
            assert!(marks.iter().all(|at| *at <= seconds * 1_000));
        }
    }
}
