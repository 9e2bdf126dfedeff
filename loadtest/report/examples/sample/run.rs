//! A made-up run: what a report looks like when much is in it. No figure here was measured.

use tidings_report::record::{
    Counts, Distribution, Event, Interval, Machine, Phase, Process, Record, Sample, Setting, Status, Verdict, kind,
};
use tidings_report::thresholds::Thresholds;

/// Numbers that look like chance and are the same every time (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A latency with a tail, in microseconds: one in a hundred is some ten times the usual.
    fn latency(&mut self, usual_us: f64) -> u64 {
        let slow = if self.next() < 0.01 {
            1.0 + 14.0 * self.next()
        } else {
            1.0
        };
        (usual_us * (0.7 + 0.5 * self.next() - 0.12 * self.next().max(1e-9).ln()) * slow) as u64
    }
}

/// The scenario `storm` against two nodes, of which one is killed: `seconds` long.
pub(crate) fn storm(seconds: u64, usual_us: f64) -> Record {
    let mut chance = Chance(seconds ^ usual_us as u64);
    let mut record = Record::new("storm", "tidings 0.1.0", 1_795_194_312_000, 1_000);
    record.about =
        "2,000 subscribers of 100 out of 10 million objects, 3,000 events a second; half of the subscribers \
                    are cut off at once and come back with their cursors."
            .into();
    record.command =
        "tidings-loadtest scenarios/storm.toml --node 127.0.0.1:7411 --node 127.0.0.1:7412 --html storm.html".into();
    record.duration_ms = seconds * 1_000;
    let cut = seconds * 6 / 10;
    for second in 0..seconds {
        record.push(interval(&mut chance, second, seconds, cut, usual_us));
    }
    let mut catch_up = Distribution::new();
    (0..1_000).for_each(|_| catch_up.record(40_000 + chance.latency(30_000.0)));
    record.latency.insert(kind::CATCH_UP.into(), catch_up);
    for (name, from, to) in [
        ("ramp", 0, seconds / 10),
        ("steady", seconds / 10, cut),
        ("storm", cut, seconds),
    ] {
        record.phases.push(Phase {
            name: name.into(),
            from_ms: from * 1_000,
            to_ms: to * 1_000,
        });
    }
    record.events.push(Event {
        at_ms: cut * 1_000,
        until_ms: Some((cut + seconds / 20 + 1) * 1_000),
        fault: true,
        text: "kill -9 of n2, started again".into(),
    });
    for name in ["n1", "n2"] {
        record.servers.push(process(&mut chance, name, seconds, (0.12, 34.0)));
    }
    for name in ["generator 1", "generator 2"] {
        let mut generator = process(&mut chance, name, seconds, (0.4, 60.0));
        for sample in &mut generator.samples {
            sample.late_us = Some(chance.latency(120.0));
            sample.delivered_per_s = Some(140.0 + 20.0 * chance.next());
        }
        record.generators.push(generator);
    }
    describe(&mut record);
    record.verdicts = verdicts();
    let demanded = [
        ("latency.p99_ms@steady", "<= 5"),
        ("latency.catch_up.max_s", "< 2"),
        ("lost", "== 0"),
        ("server.memory_mb", "<= 50"),
    ];
    if let Ok(thresholds) = Thresholds::parse(demanded) {
        record.thresholds = thresholds.evaluate(&record);
    }
    record
}

fn interval(chance: &mut Chance, second: u64, seconds: u64, cut: u64, usual_us: f64) -> Interval {
    let disturbed = (cut..cut + seconds / 20 + 1).contains(&second);
    let ramp = second < seconds / 10;
    let share = if ramp {
        second as f64 / (seconds as f64 / 10.0)
    } else {
        1.0
    };
    let usual_us = if disturbed { usual_us * 6.0 } else { usual_us };
    let n = ((280.0 + 40.0 * chance.next()) * share) as u64;
    let (mut deliver, mut publish) = (Distribution::new(), Distribution::new());
    for _ in 0..n {
        deliver.record(chance.latency(usual_us));
        publish.record(chance.latency(usual_us * 1.6));
    }
    Interval {
        at_ms: second * 1_000,
        warm_up: ramp,
        counts: Counts {
            intended: 300,
            published: 300 - u64::from(disturbed) * 20,
            publish_retried: u64::from(disturbed) * 20,
            delivered: n,
            coalesced: u64::from(disturbed) * 35,
            disconnects: u64::from(second == cut) * 1_000,
            reconnects: u64::from(disturbed && second > cut) * 1_000 / (seconds / 20).max(1),
            duplicates: u64::from(second == cut + 1) * 3,
            ..Counts::default()
        },
        connections: if second == cut { 1_000 } else { (2_000.0 * share) as u64 },
        latency: [(kind::DELIVER.to_owned(), deliver), (kind::PUBLISH.to_owned(), publish)].into(),
    }
}

fn process(chance: &mut Chance, name: &str, seconds: u64, (cpu, mib): (f64, f64)) -> Process {
    let sample = |second: u64| Sample {
        at_ms: second * 1_000,
        cpu_cores: cpu * (0.85 + 0.3 * chance.next()),
        memory_bytes: (mib * 1_048_576.0 * (1.0 + 0.02 * chance.next())) as u64,
        descriptors: 2_014,
        ..Sample::default()
    };
    Process {
        name: name.into(),
        samples: (0..=seconds).map(sample).collect(),
        ..Process::default()
    }
}

fn describe(record: &mut Record) {
    for (name, value) in [
        ("subscribers", "2,000"),
        ("objects of each", "100"),
        ("objects in all", "10,000,000"),
        ("events a second", "300"),
        ("transports", "80 % WebSocket, 10 % SSE, 10 % long-poll"),
        ("seed", "17"),
    ] {
        record.settings.push(Setting {
            name: name.into(),
            value: value.into(),
        });
    }
    record.machine = Machine {
        cpu: "a made-up processor".into(),
        cores: 2,
        memory_bytes: 24 << 30,
        os: "Linux 6.18".into(),
        descriptors: 20_000,
    };
    record.warn("The generator was itself the bottleneck for 3 s: its busiest thread used 98 % of a core and sent 412 changes late.");
}

fn verdicts() -> Vec<Verdict> {
    let verdict = |name: &str, title: &str, status, text: &str, coverage: &[(&str, u64)]| Verdict {
        name: name.into(),
        title: title.into(),
        status,
        text: text.into(),
        coverage: coverage.iter().map(|(what, n)| ((*what).to_owned(), *n)).collect(),
        ..Verdict::default()
    };
    let mut verdicts = vec![
        verdict(
            "I1",
            "Never silent",
            Status::Held,
            "",
            &[("acknowledged changes with a subscriber", 17_402)],
        ),
        verdict(
            "I2",
            "Cursor is sound",
            Status::Held,
            "",
            &[("cursors", 41_880), ("cursors used to resume", 1_000)],
        ),
        verdict(
            "I6",
            "No travel back",
            Status::Violated,
            "s0412 was told o/8841 at 7310 and later at 7295.",
            &[("notices", 17_402)],
        ),
        verdict(
            "I14",
            "Resync is rare and true",
            Status::Inconclusive,
            "No shard lost every copy: there was nothing to resync.",
            &[("resyncs", 0)],
        ),
    ];
    verdicts[2].violations = 1;
    verdicts[2].excerpt = [
        r#"{"at":36018221,"ev":"notify","client":"s0412","obj":"o/8841","version":7310,"epoch":1}"#,
        r#"{"at":36020114,"ev":"conn.close","client":"s0412"}"#,
        r#"{"at":36422817,"ev":"conn.open","client":"s0412","edge":"n1","cursor":7301}"#,
        r#"{"at":36423550,"ev":"notify","client":"s0412","obj":"o/8841","version":7295,"epoch":1}"#,
    ]
    .map(str::to_owned)
    .to_vec();
    verdicts
}

/// The same load on another made-up system.
pub(crate) fn neighbour(system: &str, seconds: u64, usual_us: f64) -> Record {
    let mut record = storm(seconds, usual_us);
    record.system = system.into();
    record.verdicts.clear();
    record.thresholds.clear();
    record.warnings.clear();
    record.counts.lost = 1_204;
    record.caveats = vec!["What is published while a subscriber is away is gone, and it is not told so.".into()];
    record.servers.truncate(1);
    record
}
