//! What the tables tell, whatever a run has or lacks.

use super::*;
use crate::record::ThresholdResult;

#[test]
fn every_row_has_a_cell_for_each_column() {
    let mut record = Record::new("seed", "tidings", 0, 1_000);
    record.counts.extra.insert("close.4008".into(), 3);
    record.thresholds.push(ThresholdResult {
        metric: "latency.p99_ms".into(),
        limit: "<= 5".into(),
        ..ThresholdResult::default()
    });
    record.neighbours.push(Record::new("seed", "nats", 0, 1_000));
    let sheets = sheets(&record);
    assert_eq!(
        sheets.iter().map(|s| s.title.as_str()).collect::<Vec<_>>(),
        ["Side by side", "Thresholds", "Counted"]
    );
    for sheet in sheets {
        assert!(
            sheet.rows.iter().all(|row| row.cells.len() == sheet.columns.len()),
            "{sheet:?}"
        );
    }
}

#[test]
fn a_threshold_is_told_in_the_words_of_its_figure() {
    let mut record = Record::new("seed", "tidings", 0, 1_000);
    for (metric, limit, measured) in [
        ("latency.p99_ms", "<= 5", Some(1.24)),
        ("lost", "== 0", None),
        ("from a newer version", "~", Some(2.0)),
    ] {
        record.thresholds.push(ThresholdResult {
            metric: metric.into(),
            limit: limit.into(),
            measured,
            passed: measured.is_some(),
        });
    }
    let cells: Vec<_> = thresholds(&record)
        .rows
        .into_iter()
        .map(|row| row.cells[1..].join(" "))
        .collect();
    assert_eq!(
        cells,
        ["1.24 ms ≤ 5 ms passed", "not measured = 0 failed", "2 ~ passed"]
    );
}

#[test]
fn losses_are_told_when_there_are_none() {
    let record = Record::new("seed", "tidings", 0, 1_000);
    let names: Vec<_> = counts(&record)
        .rows
        .into_iter()
        .map(|row| row.cells[0].clone())
        .collect();
    assert_eq!(names, ["Published", "Delivered", "Lost"]);
}
