//! The numbers of owners and lanes under their names in the metrics.

use crate::owner::CopyStats;
use crate::telemetry::{Sample, SampleKind};
use std::fmt::Write as _;
use tidings_protocol::peer::FloorCause;
use tidings_router::edge::LaneStats;
use tidings_router::owner::Stats;

/// `epoch`: the highest of the shards owned there.
pub(super) fn of_owner(thread: usize, stats: &Stats, epoch: u64) -> Vec<Sample> {
    use SampleKind::{Counter, Gauge};
    let number = |number: usize| number as u64;
    [
        ("owner_shards", "Shards owned", Gauge, number(stats.shards)),
        ("owner_epoch_max", "The highest epoch of the shards owned", Gauge, epoch),
        (
            "owner_objects",
            "Objects whose version is known",
            Gauge,
            number(stats.objects),
        ),
        (
            "owner_version_bytes",
            "Bytes of the version tables",
            Gauge,
            number(stats.bytes),
        ),
        (
            "owner_interests",
            "Interests of links that are up",
            Gauge,
            number(stats.interests),
        ),
        (
            "owner_interest_bytes",
            "Bytes of the interest tables",
            Gauge,
            number(stats.interest_bytes),
        ),
        (
            "owner_revisions",
            "Revisions remembered",
            Gauge,
            number(stats.revisions),
        ),
        (
            "owner_idempotency_keys",
            "Idempotency keys remembered",
            Gauge,
            number(stats.idempotency_keys),
        ),
        (
            "owner_mark_bytes",
            "Bytes of revisions and idempotency keys",
            Gauge,
            number(stats.mark_bytes),
        ),
        (
            "owner_pending",
            "Changes that wait on some link",
            Gauge,
            number(stats.pending),
        ),
        (
            "owner_evicted",
            "Versions dropped for want of memory",
            Counter,
            stats.evicted,
        ),
        (
            "owner_coalesced",
            "Waiting changes replaced by newer ones",
            Counter,
            stats.coalesced,
        ),
        (
            "owner_hints_dropped",
            "Hints dropped for want of room",
            Counter,
            stats.hints_dropped,
        ),
        (
            "owner_duplicates",
            "Changes recognised as repeated",
            Counter,
            stats.duplicates,
        ),
        ("owner_ignored", "Inputs that made no sense", Counter, stats.ignored),
    ]
    .into_iter()
    .map(|(name, help, kind, value)| Sample {
        name,
        help,
        kind,
        thread,
        cause: None,
        value,
    })
    .collect()
}

/// Of the copies that an owner feeds, and of those that lie on its thread.
pub(super) fn of_copies(thread: usize, copies: &CopyStats) -> Vec<Sample> {
    [
        (
            "copies_behind",
            "Copies elsewhere of shards owned here that have not everything yet",
            copies.behind,
        ),
        (
            "copies_unconfirmed_bytes",
            "Bytes for copies elsewhere that they have not confirmed",
            copies.unconfirmed_bytes,
        ),
        (
            "copies_held",
            "Whole copies here of shards owned elsewhere",
            copies.held,
        ),
        ("copies_filling", "Copies here that are being filled", copies.filling),
        (
            "copies_bytes",
            "Bytes of the version tables of copies here",
            copies.held_bytes,
        ),
    ]
    .into_iter()
    .map(|(name, help, value)| Sample {
        name,
        help,
        kind: SampleKind::Gauge,
        thread,
        cause: None,
        value: value as u64,
    })
    .collect()
}

/// Why an object may have to be fetched again.
const CAUSES: [&str; 7] = [
    "cursor_unreadable",
    "cursor_foreign",
    "cursor_future",
    FloorCause::Lost.as_str(),
    FloorCause::Evicted.as_str(),
    FloorCause::PowerLost.as_str(),
    FloorCause::Damaged.as_str(),
];

pub(super) fn of_lane(thread: usize, stats: &LaneStats) -> Vec<Sample> {
    use SampleKind::{Counter, Gauge};
    let number = |number: usize| number as u64;
    let one = |(name, help, kind, value)| Sample {
        name,
        help,
        kind,
        thread,
        cause: None,
        value,
    };
    let mut samples: Vec<Sample> = [
        ("lane_web_sockets", "WebSockets open", Gauge, number(stats.web_sockets)),
        (
            "lane_event_streams",
            "Event streams open",
            Gauge,
            number(stats.event_streams),
        ),
        ("lane_polls", "Polls that wait", Gauge, number(stats.polls)),
        (
            "lane_idle_sessions",
            "Sessions without poll or stream",
            Gauge,
            number(stats.idle_sessions),
        ),
        (
            "lane_subscriptions",
            "Subscriptions of all subscribers",
            Gauge,
            number(stats.subscriptions),
        ),
        (
            "lane_objects",
            "Objects registered with owners",
            Gauge,
            number(stats.objects),
        ),
        (
            "lane_lingering",
            "Objects that may linger without a subscriber",
            Gauge,
            number(stats.lingering),
        ),
        (
            "lane_pending",
            "Objects that subscribers have yet to be told of",
            Gauge,
            number(stats.pending),
        ),
        (
            "lane_hint_bytes",
            "Bytes of kind and data kept for subscribers",
            Gauge,
            number(stats.hint_bytes),
        ),
        (
            "lane_closed_version",
            "The version up to which everything has arrived",
            Gauge,
            stats.closed.0,
        ),
        (
            "lane_lagging_shards",
            "Shards that lag behind the closed version",
            Gauge,
            number(stats.lagging_shards),
        ),
        ("lane_told", "Changes told", Counter, stats.told),
        (
            "lane_coalesced",
            "Changes that replaced an older one not yet told",
            Counter,
            stats.coalesced,
        ),
        (
            "lane_hints_dropped",
            "Hints dropped for want of memory",
            Counter,
            stats.hints_dropped,
        ),
        (
            "lane_stuck",
            "Subscribers cut because they took nothing",
            Counter,
            stats.stuck,
        ),
        (
            "lane_no_pong",
            "Subscribers cut because no pong came",
            Counter,
            stats.no_pong,
        ),
        (
            "lane_sessions_evicted",
            "Sessions forgotten because there were too many",
            Counter,
            stats.sessions_evicted,
        ),
        (
            "lane_ignored_frames",
            "Frames of owners that made no sense",
            Counter,
            stats.ignored_frames,
        ),
    ]
    .into_iter()
    .map(one)
    .collect();
    // A rate begins with the first one only where there was a zero before.
    let never = CAUSES
        .into_iter()
        .filter(|cause| stats.resyncs.iter().all(|(c, _)| c != cause));
    let resyncs = stats.resyncs.iter().copied().chain(never.map(|cause| (cause, 0)));
    samples.extend(resyncs.map(|(cause, value)| Sample {
        cause: Some(cause),
        ..one(("lane_resyncs", "Objects to be fetched again, by cause", Counter, value))
    }));
    samples
}

/// The histogram of how late streams were told, in powers of two of microseconds, as text.
pub(super) fn of_delays(lanes: &[(usize, LaneStats)]) -> String {
    let name = "tidings_lane_delay_seconds";
    let mut text = format!(
        "# HELP {name} Seconds from a change's version to the write that told a stream of it.\n# TYPE {name} histogram\n"
    );
    for (thread, LaneStats { delays: of_thread, .. }) in lanes {
        for power in (6..=26).step_by(2) {
            let (end_s, below) = ((1_u64 << power) as f64 / 1e6, of_thread.below(power));
            // Writing to a String does not fail.
            _ = writeln!(text, "{name}_bucket{{thread=\"{thread}\",le=\"{end_s}\"}} {below}");
        }
        let (count, sum_s) = (of_thread.count(), of_thread.sum_us() as f64 / 1e6);
        _ = writeln!(text, "{name}_bucket{{thread=\"{thread}\",le=\"+Inf\"}} {count}");
        _ = writeln!(
            text,
            "{name}_sum{{thread=\"{thread}\"}} {sum_s}\n{name}_count{{thread=\"{thread}\"}} {count}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_up_to_each_bound_and_in_all() {
        let mut stats = LaneStats::default();
        [50, 200, 300_000_000]
            .into_iter()
            .for_each(|us| stats.delays.record(us));
        let text = of_delays(&[(0, stats)]);
        let of = |bound: &str| {
            let line = format!("tidings_lane_delay_seconds_bucket{{thread=\"0\",le=\"{bound}\"}} ");
            let found = text.lines().find_map(|text| text.strip_prefix(&line));
            found.map(str::to_owned).unwrap_or_else(|| panic!("{bound} in {text}"))
        };
        assert_eq!(
            [of("0.000064"), of("0.000256"), of("67.108864"), of("+Inf")],
            ["1", "2", "2", "3"]
        );
        assert!(text.contains("_sum{thread=\"0\"} 300.00025\n"), "{text}");
        assert!(text.ends_with("_count{thread=\"0\"} 3\n"), "{text}");
    }
}
