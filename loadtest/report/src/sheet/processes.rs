//! Tables of what processes used: servers and the generator's own.

use super::{Sheet, Tone};
use crate::record::{Process, Record};
use crate::words;

pub(super) fn servers(record: &Record) -> Sheet {
    let columns = [
        "server",
        "#CPU, mean",
        "#CPU, most",
        "#memory, first",
        "#last",
        "#most",
        "#descriptors",
    ];
    let mut sheet = Sheet::new("Servers", &columns);
    for system in std::iter::once(record).chain(&record.neighbours) {
        for server in &system.servers {
            let name = if record.neighbours.is_empty() {
                server.name.clone()
            } else {
                format!("{}: {}", system.system, server.name)
            };
            if let Some(cells) = used(name, server) {
                sheet.row(Tone::Plain, cells);
            }
        }
    }
    sheet
}

pub(super) fn generators(record: &Record) -> Sheet {
    let columns = [
        "generator",
        "#CPU, mean",
        "#CPU, most",
        "#memory, most",
        "#latest send",
        "#p99",
        "#delivered",
    ];
    let mut sheet = Sheet::new("Generator", &columns);
    for generator in &record.generators {
        let Some(mut cells) = used(generator.name.clone(), generator) else {
            continue;
        };
        // Of memory only the most: whether a generator grows is nobody's question.
        cells.drain(3..5);
        cells.truncate(4);
        let latest = generator.samples.iter().filter_map(|sample| sample.late_us).max();
        cells.push(latest.map_or_else(String::new, |us| words::duration_us(us as f64)));
        let latency = generator.latency.as_ref().filter(|latency| !latency.is_empty());
        cells.push(latency.map_or_else(String::new, |l| words::duration_us(l.percentile_us(99.0) as f64)));
        let counts = generator.counts.as_ref();
        cells.push(counts.map_or_else(String::new, |counts| words::count(counts.delivered as f64)));
        sheet.row(Tone::Plain, cells);
    }
    sheet
}

/// Name, mean and most CPU, first, last and most memory, descriptors; `None` of a process never looked at.
fn used(name: String, process: &Process) -> Option<Vec<String>> {
    let (first, last) = (process.samples.first()?, process.samples.last()?);
    let time = last.at_ms.saturating_sub(first.at_ms) as f64;
    let busy: f64 = process
        .samples
        .windows(2)
        .map(|pair| pair[1].cpu_cores * pair[1].at_ms.saturating_sub(pair[0].at_ms) as f64)
        .sum();
    let mean = if time > 0.0 { busy / time } else { first.cpu_cores };
    let most_cpu = process
        .samples
        .iter()
        .map(|sample| sample.cpu_cores)
        .fold(0.0, f64::max);
    let most_memory = process
        .samples
        .iter()
        .map(|sample| sample.memory_bytes)
        .max()
        .unwrap_or(0);
    let descriptors = process
        .samples
        .iter()
        .map(|sample| sample.descriptors)
        .max()
        .unwrap_or(0);
    Some(vec![
        name,
        words::cores(mean),
        words::cores(most_cpu),
        words::bytes(first.memory_bytes as f64),
        words::bytes(last.memory_bytes as f64),
        words::bytes(most_memory as f64),
        if descriptors > 0 {
            words::count(descriptors as f64)
        } else {
            String::new()
        },
    ])
}
