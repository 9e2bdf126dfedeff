//! Each system for real, for two seconds. A system that is not installed is only asked to say how to get it.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::time::Duration;
use tidings_neighbours::{Failure, Load, System, run, server::StartError};
use tidings_report::record::{Record, kind};

fn load(cut: f64) -> Load {
    Load {
        scenario: "short".into(),
        subscribers: 40,
        topics: 5,
        objects: 50,
        rate: 200.0,
        watched: 1.0,
        length: Duration::from_secs(2),
        cut,
        away: Duration::from_millis(400),
        seed: 7,
    }
}

/// `None` if the system is not on this machine.
fn measured(system: System, load: &Load) -> Option<Record> {
    match run(system, load, None) {
        Ok(record) => Some(record),
        Err(Failure::Start(StartError::NotInstalled { how, .. })) => {
            assert_eq!(how, system.how_to_install());
            eprintln!("{system} is not installed, so this says nothing of it: {how}");
            None
        }
        Err(failure) => panic!("{system}: {failure}"),
    }
}

#[test]
fn undisturbed_every_system_tells_every_subscriber_everything_once() {
    for system in [System::Nats, System::Redis, System::Nchan] {
        let Some(record) = measured(system, &load(0.0)) else {
            continue;
        };
        let counts = &record.counts;
        assert_eq!((counts.intended, counts.published), (400, 400), "{system}");
        assert!(counts.expected > 0);
        assert_eq!(counts.delivered, counts.expected, "{system}");
        let wrong = [
            counts.lost,
            counts.coalesced,
            counts.duplicates,
            counts.went_back,
            counts.phantoms,
            counts.errors,
        ];
        assert_eq!(wrong, [0; 6], "{system}: {counts:?}");
        assert_eq!((counts.connects, counts.subscribes), (40, 200), "{system}");
        assert_eq!(record.latency[kind::DELIVER].count(), counts.delivered, "{system}");
        assert_eq!(record.latency[kind::PUBLISH].count(), 400, "{system}");
        assert!(
            record.servers[0].samples.iter().all(|sample| sample.memory_bytes > 0),
            "{system}"
        );
        assert!(
            !record.caveats.is_empty() && record.system.chars().any(|c| c.is_ascii_digit()),
            "{}",
            record.system
        );
    }
}

#[test]
fn what_is_published_while_subscribers_are_away_is_missing_with_nats_and_redis() {
    for system in [System::Nats, System::Redis] {
        let Some(record) = measured(system, &load(0.5)) else {
            continue;
        };
        let counts = &record.counts;
        assert_eq!((counts.disconnects, counts.reconnects), (20, 20), "{system}");
        assert!(counts.lost + counts.coalesced > 0, "{system}: {counts:?}");
        assert_eq!(
            counts.delivered + counts.lost + counts.coalesced,
            counts.expected,
            "{system}"
        );
    }
}

#[test]
fn nchan_replays_what_its_buffer_holds() {
    let few = Load {
        rate: 20.0,
        ..load(0.5)
    };
    let Some(record) = measured(System::Nchan, &few) else {
        return;
    };
    let counts = &record.counts;
    assert_eq!(counts.reconnects, 20);
    assert_eq!(
        (counts.lost, counts.coalesced),
        (0, 0),
        "under ten messages of each object: {counts:?}"
    );
}

#[test]
fn a_load_that_is_none_is_refused_before_anything_starts() {
    for (load, why) in [
        (
            Load {
                subscribers: 0,
                ..load(0.0)
            },
            "at least one subscriber",
        ),
        (
            Load {
                rate: f64::NAN,
                ..load(0.0)
            },
            "a rate above 0",
        ),
        (
            Load {
                length: Duration::ZERO,
                ..load(0.0)
            },
            "a length above 0",
        ),
        (
            Load {
                subscribers: u32::MAX,
                ..load(0.0)
            },
            "descriptors",
        ),
    ] {
        let refused = run(System::Nats, &load, None).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}
