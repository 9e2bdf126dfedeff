//! A run cut into as many equal pieces as a plot has room for, and what each piece holds.
//!
//! It does not know how anything is drawn.

use crate::record::{Distribution, Interval, Process, Record, Sample};

/// A plot has at most this many points for a line.
pub(super) const MOST: u64 = 240;

/// The pieces' common length and number: also for the neighbours' runs, so that one axis serves them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    /// How long a piece is.
    pub(super) width_ms: u64,
    /// How many there are.
    pub(super) number: usize,
}

/// The same with its neighbours' runs moved so that their loads begin together: some take longer to get ready.
pub(super) fn aligned(record: &Record) -> Record {
    let lead = |run: &Record| {
        run.timeline
            .iter()
            .find(|i| !i.warm_up)
            .map_or(0, |interval| interval.at_ms)
    };
    let latest = std::iter::once(record)
        .chain(&record.neighbours)
        .map(lead)
        .max()
        .unwrap_or(0);
    let mut aligned = record.clone();
    if !record.neighbours.is_empty() {
        let ms = latest - lead(record);
        delay(&mut aligned, ms);
        for neighbour in &mut aligned.neighbours {
            let ms = latest - lead(neighbour);
            delay(neighbour, ms);
        }
    }
    aligned
}

fn delay(run: &mut Record, ms: u64) {
    run.duration_ms += ms;
    run.timeline.iter_mut().for_each(|interval| interval.at_ms += ms);
    let processes = run.servers.iter_mut().chain(&mut run.generators);
    processes
        .flat_map(|process| &mut process.samples)
        .for_each(|sample| sample.at_ms += ms);
    for phase in &mut run.phases {
        phase.from_ms += ms;
        phase.to_ms += ms;
    }
    for event in &mut run.events {
        event.at_ms += ms;
        event.until_ms = event.until_ms.map(|until| until + ms);
    }
}

impl Grid {
    /// Whole intervals a piece, so that no interval is split.
    pub(super) fn of(record: &Record) -> Self {
        let runs = || std::iter::once(record).chain(&record.neighbours);
        let end = |run: &Record| {
            let last = run
                .timeline
                .last()
                .map_or(0, |interval| interval.at_ms.saturating_add(1));
            last.max(run.duration_ms).max(1)
        };
        let end = runs().map(end).max().unwrap_or(1);
        let interval = runs().map(|run| run.interval_ms).max().unwrap_or(1).max(1);
        // Several runs share the room: a page of four is no larger than a page of one.
        let most = MOST / (1 + record.neighbours.len() as u64 / 2).min(4);
        let width_ms = interval.saturating_mul(end.div_ceil(interval.saturating_mul(most)).max(1));
        Self {
            width_ms,
            number: usize::try_from(end.div_ceil(width_ms)).unwrap_or(1).max(1),
        }
    }

    /// The whole axis in milliseconds.
    pub(super) fn end_ms(self) -> u64 {
        self.width_ms * self.number as u64
    }

    /// The moment in the middle of a piece.
    pub(super) fn middle_ms(self, at: usize) -> u64 {
        at as u64 * self.width_ms + self.width_ms / 2
    }

    fn slot(self, at_ms: u64) -> usize {
        usize::try_from(at_ms / self.width_ms)
            .unwrap_or(usize::MAX)
            .min(self.number - 1)
    }

    /// Each piece with its intervals; most pieces of a short run hold one.
    fn pieces(self, record: &Record) -> Vec<Vec<&Interval>> {
        let mut pieces = vec![Vec::new(); self.number];
        for interval in &record.timeline {
            pieces[self.slot(interval.at_ms)].push(interval);
        }
        pieces
    }

    /// The latencies of one kind in each piece.
    pub(super) fn latency(self, record: &Record, kind: &str) -> Vec<Distribution> {
        let sum = |intervals: Vec<&Interval>| {
            let mut all = Distribution::new();
            intervals
                .iter()
                .filter_map(|i| i.latency.get(kind))
                .for_each(|d| all.add(d));
            all
        };
        self.pieces(record).into_iter().map(sum).collect()
    }

    /// A counter a second in each piece; a piece outside the run has none.
    pub(super) fn rate(self, record: &Record, counter: &str) -> Vec<Option<f64>> {
        let rate = |(at, intervals): (usize, Vec<&Interval>)| {
            let from = at as u64 * self.width_ms;
            let to = (from + self.width_ms).min(record.duration_ms.max(from));
            // The run ends inside its last piece: a sliver of it says nothing of a second.
            let time = if to - from < self.width_ms / 4 && at > 0 {
                return None;
            } else {
                to - from
            };
            let counted = intervals.iter().filter_map(|interval| interval.counts.get(counter));
            let n: f64 = counted.map(|n| n as f64).sum();
            (time > 0).then(|| n * 1e3 / time as f64)
        };
        self.pieces(record).into_iter().enumerate().map(rate).collect()
    }

    /// Connections open at the end of each piece.
    pub(super) fn connections(self, record: &Record) -> Vec<Option<f64>> {
        let last = |intervals: Vec<&Interval>| intervals.last().map(|interval| interval.connections as f64);
        self.pieces(record).into_iter().map(last).collect()
    }

    /// What samples of a process say in each piece: their mean.
    pub(super) fn sampled(self, process: &Process, what: fn(&Sample) -> Option<f64>) -> Vec<Option<f64>> {
        let mut sums = vec![(0.0, 0_u32); self.number];
        for sample in &process.samples {
            if let Some(value) = what(sample).filter(|value| value.is_finite()) {
                let slot = &mut sums[self.slot(sample.at_ms.saturating_sub(1))];
                *slot = (slot.0 + value, slot.1 + 1);
            }
        }
        sums.into_iter()
            .map(|(sum, n)| (n > 0).then(|| sum / f64::from(n)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Counts;

    fn run(seconds: u64) -> Record {
        let mut record = Record::new("seed", "tidings", 0, 1_000);
        record.duration_ms = seconds * 1_000;
        for second in 0..seconds {
            record.push(Interval {
                at_ms: second * 1_000,
                counts: Counts {
                    delivered: 10,
                    ..Counts::default()
                },
                connections: second,
                ..Interval::default()
            });
        }
        record
    }

    #[test]
    fn a_short_run_has_a_piece_for_each_interval_and_a_long_one_no_more_than_there_is_room_for() {
        let short = Grid::of(&run(10));
        assert_eq!((short.width_ms, short.number), (1_000, 10));
        let hour = Grid::of(&run(3_600));
        assert_eq!((hour.width_ms, hour.number), (15_000, 240));
        let odd = Grid::of(&run(241));
        assert_eq!((odd.width_ms, odd.number), (2_000, 121));
    }

    #[test]
    fn every_piece_of_a_steady_run_has_the_same_rate_the_last_included() {
        for seconds in [10, 241, 3_601] {
            let record = run(seconds);
            let rates = Grid::of(&record).rate(&record, "delivered");
            let known: Vec<f64> = rates.into_iter().flatten().collect();
            assert!(
                !known.is_empty() && known.iter().all(|rate| (*rate - 10.0).abs() < 1e-9),
                "{known:?}"
            );
        }
    }

    #[test]
    fn loads_that_began_at_different_times_are_shown_together() {
        let ramped = |seconds: u64| {
            let mut record = run(10);
            record
                .timeline
                .iter_mut()
                .for_each(|i| i.warm_up = i.at_ms < seconds * 1_000);
            record.phases.push(crate::record::Phase {
                name: "steady".into(),
                from_ms: seconds * 1_000,
                to_ms: 10_000,
            });
            record
        };
        let mut record = ramped(1);
        record.neighbours = vec![ramped(3), ramped(0)];
        let shown = aligned(&record);
        let begin = |run: &Record| {
            (
                run.phases[0].from_ms,
                run.timeline.iter().find(|i| !i.warm_up).unwrap().at_ms,
            )
        };
        assert_eq!(begin(&shown), (3_000, 3_000));
        assert!(
            shown
                .neighbours
                .iter()
                .all(|neighbour| begin(neighbour) == (3_000, 3_000))
        );
        assert_eq!(aligned(&ramped(2)), ramped(2), "alone nothing moves");
    }

    #[test]
    fn a_longer_neighbour_makes_the_axis_longer() {
        let mut record = run(10);
        record.neighbours.push(run(20));
        let grid = Grid::of(&record);
        assert_eq!(grid.number, 20);
        assert_eq!(grid.connections(&record)[9..11], [Some(9.0), None]);
        assert_eq!(grid.rate(&record, "delivered")[10], None);
    }
}
