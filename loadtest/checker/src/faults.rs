//! When which fault was in force.

use std::collections::BTreeMap;

/// All faults of a run.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Name, start, stop; the ones without stop last to the end.
    spans: Vec<(String, u64, u64)>,
    /// By kind, and under `run` all: disjoint spans in order.
    merged: BTreeMap<String, Vec<(u64, u64)>>,
    all: Vec<(u64, u64)>,
    /// The stamp of the last start or stop.
    last_us: u64,
}

impl Faults {
    pub(crate) fn start(&mut self, fault: &str, at_us: u64) {
        self.spans.push((fault.to_owned(), at_us, u64::MAX));
        self.last_us = at_us;
    }

    pub(crate) fn stop(&mut self, fault: &str, at_us: u64) {
        self.last_us = at_us;
        if let Some(span) = self.spans.iter_mut().find(|span| span.0 == fault && span.2 == u64::MAX) {
            span.2 = at_us;
        }
    }

    /// To be called when all are known.
    pub(crate) fn settle(&mut self) {
        for (name, start, stop) in &self.spans {
            self.merged
                .entry(kind(name).to_owned())
                .or_default()
                .push((*start, *stop));
            self.all.push((*start, *stop));
        }
        for spans in self.merged.values_mut() {
            merge(spans);
        }
        merge(&mut self.all);
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = (&str, &[(u64, u64)])> {
        self.merged
            .iter()
            .map(|(kind, spans)| (kind.as_str(), spans.as_slice()))
    }

    pub(crate) fn first_us(&self) -> Option<u64> {
        self.all.first().map(|span| span.0)
    }

    pub(crate) fn last_us(&self) -> u64 {
        self.last_us
    }

    /// Whether any fault was in force at some time of this span, ends included.
    pub(crate) fn overlap(&self, from_us: u64, to_us: u64) -> bool {
        overlaps(&self.all, from_us, to_us)
    }
}

fn kind(name: &str) -> &str {
    name.split(' ').next().unwrap_or(name)
}

fn merge(spans: &mut Vec<(u64, u64)>) {
    spans.sort_unstable();
    spans.dedup_by(|later, earlier| {
        let touch = later.0 <= earlier.1;
        if touch {
            earlier.1 = earlier.1.max(later.1);
        }
        touch
    });
}

/// Whether one of these disjoint spans in order has a time in common with another.
pub(crate) fn overlaps(spans: &[(u64, u64)], from_us: u64, to_us: u64) -> bool {
    let next = spans.partition_point(|span| span.1 < from_us);
    spans.get(next).is_some_and(|span| span.0 <= to_us)
}
