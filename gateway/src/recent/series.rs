//! Figures over time: readings come in, points at even distances are kept, the oldest fall out.
//!
//! Counters become rates, the histogram of delays becomes quantiles of what came between two points. It does not know where
//! readings come from.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use tidings_router::edge::Delays;

/// What only grows, since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) published: u64,
    pub(super) told: u64,
    pub(super) coalesced: u64,
    pub(super) refused: u64,
    pub(super) requests: u64,
    pub(super) resyncs: u64,
    /// Of processor time, in microseconds.
    pub(super) cpu_us: u64,
}

/// What goes both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gauges {
    pub(super) open: u64,
    pub(super) web_sockets: u64,
    pub(super) event_streams: u64,
    pub(super) polls: u64,
    pub(super) sessions: u64,
    pub(super) busy: u64,
    pub(super) pending: u64,
    pub(super) subscriptions: u64,
    pub(super) watched: u64,
    pub(super) versions: u64,
    /// Bytes of memory that the process occupies; zero where the system does not say.
    pub(super) memory: u64,
    /// How far what is closed is behind the clock.
    pub(super) lag_ms: u64,
}

impl Gauges {
    fn add(&mut self, other: &Self) {
        self.open += other.open;
        self.web_sockets += other.web_sockets;
        self.event_streams += other.event_streams;
        self.polls += other.polls;
        self.sessions += other.sessions;
        self.busy += other.busy;
        self.pending += other.pending;
        self.subscriptions += other.subscriptions;
        self.watched += other.watched;
        self.versions += other.versions;
        self.memory += other.memory;
        self.lag_ms = self.lag_ms.max(other.lag_ms);
    }
}

/// A node at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub(super) mono_us: u64,
    pub(super) wall_ms: u64,
    pub(super) counters: Counters,
    pub(super) gauges: Gauges,
    pub(super) delays: Delays,
}

/// What there was at a moment, and came since the moment before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    pub(super) wall_ms: u64,
    /// Each second.
    rates: [f32; 7],
    p50_us: Option<u64>,
    p99_us: Option<u64>,
    gauges: Gauges,
}

impl Point {
    /// Adds what there was at another node. Of delays and of what is closed the worse counts: they cannot be added.
    pub(super) fn add(&mut self, other: &Self) {
        for (rate, more) in self.rates.iter_mut().zip(other.rates) {
            *rate += more;
        }
        self.p50_us = self.p50_us.max(other.p50_us);
        self.p99_us = self.p99_us.max(other.p99_us);
        self.gauges.add(&other.gauges);
    }

    fn between(earlier: &Reading, later: &Reading) -> Self {
        let seconds = later.mono_us.saturating_sub(earlier.mono_us).max(1) as f64 / 1e6;
        let (before, after) = (&earlier.counters, &later.counters);
        let rate = |before: u64, after: u64| (after.saturating_sub(before) as f64 / seconds) as f32;
        let delays = later.delays.since(&earlier.delays);
        Self {
            wall_ms: later.wall_ms,
            rates: [
                rate(before.published, after.published),
                rate(before.told, after.told),
                rate(before.coalesced, after.coalesced),
                rate(before.refused, after.refused),
                rate(before.requests, after.requests),
                rate(before.resyncs, after.resyncs),
                // Microseconds each second to hundredths of a processor.
                rate(before.cpu_us, after.cpu_us) / 1e4,
            ],
            p50_us: delays.quantile_us(0.5),
            p99_us: delays.quantile_us(0.99),
            gauges: later.gauges,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Series {
    step_ms: u64,
    most: usize,
    points: VecDeque<Point>,
    /// How many points there have ever been.
    taken: u64,
    last: Option<Reading>,
}

/// Points by columns, oldest first. `next` is for asking for what comes after.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Columns {
    pub(super) step_ms: u64,
    pub(super) most: usize,
    pub(super) next: u64,
    at_ms: Vec<u64>,
    published: Vec<f32>,
    told: Vec<f32>,
    coalesced: Vec<f32>,
    refused: Vec<f32>,
    requests: Vec<f32>,
    resyncs: Vec<f32>,
    cpu_percent: Vec<f32>,
    p50_us: Vec<Option<u64>>,
    p99_us: Vec<Option<u64>>,
    open: Vec<u64>,
    web_sockets: Vec<u64>,
    event_streams: Vec<u64>,
    polls: Vec<u64>,
    sessions: Vec<u64>,
    busy: Vec<u64>,
    pending: Vec<u64>,
    subscriptions: Vec<u64>,
    watched: Vec<u64>,
    versions: Vec<u64>,
    memory: Vec<u64>,
    lag_ms: Vec<u64>,
}

impl Series {
    pub(super) fn new(step_ms: u64, most: usize) -> Self {
        Self {
            step_ms,
            most,
            points: VecDeque::with_capacity(most),
            taken: 0,
            last: None,
        }
    }

    /// Takes a reading in. It becomes a point if the last one is long enough ago.
    pub(super) fn take(&mut self, reading: &Reading) {
        let Some(last) = &self.last else {
            self.last = Some(reading.clone());
            return;
        };
        // Readings come a little early or late.
        let early_us = self.step_ms * 50;
        if reading.mono_us.saturating_sub(last.mono_us) + early_us < self.step_ms * 1_000 {
            return;
        }
        if self.points.len() == self.most {
            self.points.pop_front();
        }
        self.points.push_back(Point::between(last, reading));
        self.taken += 1;
        self.last = Some(reading.clone());
    }

    /// The points after the first `after` that there have ever been, as far as they are remembered.
    pub(super) fn columns(&self, after: u64) -> Columns {
        let forgotten = self.taken - self.points.len() as u64;
        // Who asks for what is still to come has been told by another life of the node: everything is new.
        let after = if after > self.taken { 0 } else { after };
        let skip = usize::try_from(after.saturating_sub(forgotten)).unwrap_or(usize::MAX);
        Columns::of(self.step_ms, self.most, self.taken, &self.points.iter().skip(skip))
    }

    /// The newest point alone.
    pub(super) fn newest(&self) -> Columns {
        Columns::of(self.step_ms, self.most, self.taken, &self.points.iter().rev().take(1))
    }

    /// The points since a moment, as far as they are remembered.
    pub(super) fn since(&self, wall_ms: u64) -> Columns {
        let points = self.points.iter().filter(|point| point.wall_ms >= wall_ms);
        Columns::of(self.step_ms, self.most, self.taken, &points)
    }
}

impl Columns {
    pub(super) fn of<'a>(
        step_ms: u64,
        most: usize,
        next: u64,
        all: &(impl Iterator<Item = &'a Point> + Clone),
    ) -> Self {
        let points = || all.clone();
        let rate = |of: usize| {
            points()
                .map(|point| (point.rates[of] * 100.0).round() / 100.0)
                .collect()
        };
        let gauge = |of: fn(&Gauges) -> u64| points().map(|point| of(&point.gauges)).collect();
        Self {
            step_ms,
            most,
            next,
            at_ms: points().map(|point| point.wall_ms).collect(),
            published: rate(0),
            told: rate(1),
            coalesced: rate(2),
            refused: rate(3),
            requests: rate(4),
            resyncs: rate(5),
            cpu_percent: rate(6),
            p50_us: points().map(|point| point.p50_us).collect(),
            p99_us: points().map(|point| point.p99_us).collect(),
            open: gauge(|of| of.open),
            web_sockets: gauge(|of| of.web_sockets),
            event_streams: gauge(|of| of.event_streams),
            polls: gauge(|of| of.polls),
            sessions: gauge(|of| of.sessions),
            busy: gauge(|of| of.busy),
            pending: gauge(|of| of.pending),
            subscriptions: gauge(|of| of.subscriptions),
            watched: gauge(|of| of.watched),
            versions: gauge(|of| of.versions),
            memory: gauge(|of| of.memory),
            lag_ms: gauge(|of| of.lag_ms),
        }
    }

    /// Whether there is a figure of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        let columns = serde_json::to_value(self).ok();
        columns.is_some_and(|columns| columns.get(name).is_some_and(serde_json::Value::is_array))
    }

    /// The points that they are of. What another release does not tell is nothing.
    pub(super) fn points(&self) -> impl Iterator<Item = Point> {
        fn at<T: Copy + Default>(column: &[T], n: usize) -> T {
            column.get(n).copied().unwrap_or_default()
        }
        self.at_ms.iter().enumerate().map(|(n, wall_ms)| Point {
            wall_ms: *wall_ms,
            rates: [
                at(&self.published, n),
                at(&self.told, n),
                at(&self.coalesced, n),
                at(&self.refused, n),
                at(&self.requests, n),
                at(&self.resyncs, n),
                at(&self.cpu_percent, n),
            ],
            p50_us: at(&self.p50_us, n),
            p99_us: at(&self.p99_us, n),
            gauges: Gauges {
                open: at(&self.open, n),
                web_sockets: at(&self.web_sockets, n),
                event_streams: at(&self.event_streams, n),
                polls: at(&self.polls, n),
                sessions: at(&self.sessions, n),
                busy: at(&self.busy, n),
                pending: at(&self.pending, n),
                subscriptions: at(&self.subscriptions, n),
                watched: at(&self.watched, n),
                versions: at(&self.versions, n),
                memory: at(&self.memory, n),
                lag_ms: at(&self.lag_ms, n),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(second: u64, published: u64) -> Reading {
        Reading {
            mono_us: second * 1_000_000,
            wall_ms: 1_700_000_000_000 + second * 1_000,
            counters: Counters {
                published,
                ..Counters::default()
            },
            ..Reading::default()
        }
    }

    #[test]
    fn counters_become_rates_of_the_time_that_really_passed() {
        let mut series = Series::new(1_000, 10);
        series.take(&reading(1, 100));
        assert_eq!(series.columns(0).next, 0, "one reading is no point");
        series.take(&reading(2, 150));
        series.take(&reading(6, 250));
        assert_eq!(series.columns(0).published, [50.0, 25.0]);
    }

    #[test]
    fn quantiles_are_of_what_came_between_two_points() {
        let mut series = Series::new(1_000, 10);
        let mut now = reading(1, 0);
        now.delays.record(50_000);
        series.take(&now);
        now.mono_us = 2_000_000;
        series.take(&now);
        now.mono_us = 3_000_000;
        now.delays.record(5);
        series.take(&now);
        assert_eq!(series.columns(0).p99_us, [None, Some(5)]);
    }

    #[test]
    fn the_oldest_points_fall_out_and_who_knows_some_gets_only_the_rest() {
        let mut series = Series::new(1_000, 3);
        (0..=5).for_each(|second| series.take(&reading(second, second * second)));
        let all = series.columns(0);
        assert_eq!((all.next, all.published.as_slice()), (5, &[5.0, 7.0, 9.0][..]));
        assert_eq!(series.columns(4).published, [9.0]);
        assert!(series.columns(5).published.is_empty());
        assert_eq!(
            series.columns(900).published.len(),
            3,
            "told by another life of the node"
        );
    }

    #[test]
    fn coarse_points_leave_readings_out() {
        let mut series = Series::new(12_000, 10);
        (0..=24).for_each(|second| series.take(&reading(second, second * 10)));
        assert_eq!(series.columns(0).published, [10.0, 10.0]);
    }
}
