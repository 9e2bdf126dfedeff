//! Publishes fast: streams of NDJSON and large JSON batches over blocking connections, a thread each.

use crate::http::Client;
use crate::message::{BatchPublished, StreamPublished};
use crate::random::Random;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

const CHUNK_BYTES: usize = 128 * 1024;
/// Room before a chunk for its size line.
const RESERVED: usize = 16;
/// Changes in one JSON batch: the protocol's limit.
const BATCH: usize = 10_000;

/// What one connection is to publish.
#[derive(Debug, Clone)]
enum Plan {
    /// Every object of this range once.
    Range(std::ops::Range<u64>),
    /// Random objects below `objects` until the time is over.
    Random { objects: u64, time: Duration, seed: u64 },
}

impl Plan {
    /// The objects in order.
    fn objects(self) -> Box<dyn Iterator<Item = u64>> {
        match self {
            Self::Range(range) => Box::new(range),
            Self::Random { objects, time, seed } => {
                let (mut random, began, mut left) = (Random::new(seed), Instant::now(), 0_u32);
                Box::new(std::iter::from_fn(move || {
                    // The clock is looked at once in a thousand changes.
                    left = match left {
                        0 if began.elapsed() >= time => return None,
                        0 => 1000,
                        left => left - 1,
                    };
                    Some(random.below(objects))
                }))
            }
        }
    }
}

/// What publishing came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Published {
    pub(crate) changes: u64,
    pub(crate) time: Duration,
}

/// Publishes each object of `0..objects` once over `connections` streams.
pub(crate) fn fill(server: SocketAddr, objects: u64, connections: u64) -> io::Result<Published> {
    let share = objects.div_ceil(connections);
    let plans = (0..connections).map(|at| Plan::Range(at * share..((at + 1) * share).min(objects)));
    run(server, plans.collect(), ndjson)
}

/// Publishes random objects as NDJSON streams for `time`.
pub(crate) fn random_ndjson(at: SocketAddr, objects: u64, connections: u64, time: Duration) -> io::Result<Published> {
    run(
        at,
        (1..=connections)
            .map(|seed| Plan::Random { objects, time, seed })
            .collect(),
        ndjson,
    )
}

/// The same as JSON batches of 10,000.
pub(crate) fn random_batches(at: SocketAddr, objects: u64, connections: u64, time: Duration) -> io::Result<Published> {
    run(
        at,
        (1..=connections)
            .map(|seed| Plan::Random { objects, time, seed })
            .collect(),
        batches,
    )
}

fn run(server: SocketAddr, plans: Vec<Plan>, how: fn(SocketAddr, Plan) -> io::Result<u64>) -> io::Result<Published> {
    let began = Instant::now();
    let threads: Vec<_> = plans
        .into_iter()
        .map(|plan| thread::spawn(move || how(server, plan)))
        .collect();
    let mut changes = 0;
    for thread in threads {
        changes += thread
            .join()
            .map_err(|_| io::Error::other("a publishing thread panicked"))??;
    }
    Ok(Published {
        changes,
        time: began.elapsed(),
    })
}

/// One stream of changes; the number the server took, which must be the number sent.
fn ndjson(server: SocketAddr, plan: Plan) -> io::Result<u64> {
    let mut client = Client::connect(server)?;
    client.begin_stream("/v1/publish?ack=accepted")?;
    let mut buffer = vec![0; RESERVED];
    let mut sent = 0;
    for object in plan.objects() {
        writeln!(buffer, r#"{{"object":"{}"}}"#, Decimal::of(object).text())?;
        sent += 1;
        if buffer.len() >= CHUNK_BYTES {
            client.chunk(&mut buffer, RESERVED)?;
            buffer.truncate(RESERVED);
        }
    }
    if buffer.len() > RESERVED {
        client.chunk(&mut buffer, RESERVED)?;
    }
    let StreamPublished { accepted, rejected } = client.finish()?.read()?;
    if (accepted, rejected) == (sent, 0) {
        return Ok(sent);
    }
    Err(io::Error::other(format!(
        "of {sent} changes {accepted} were accepted, {rejected} rejected"
    )))
}

fn batches(server: SocketAddr, plan: Plan) -> io::Result<u64> {
    let mut client = Client::connect(server)?;
    let mut objects = plan.objects().peekable();
    let mut sent = 0;
    let mut body = Vec::with_capacity(BATCH * 24);
    while objects.peek().is_some() {
        body.clear();
        body.extend_from_slice(br#"{"changes":["#);
        let mut count = 0;
        for object in objects.by_ref().take(BATCH) {
            let comma = if count == 0 { "" } else { "," };
            write!(body, r#"{comma}{{"object":"{}"}}"#, Decimal::of(object).text())?;
            count += 1;
        }
        body.extend_from_slice(b"]}");
        let answer = client.post("/v1/publish?ack=accepted", &body)?;
        check_batch(&answer, count)?;
        sent += count as u64;
    }
    Ok(sent)
}

/// Counts versions in the text instead of reading it whole: this side must not be the slow one.
fn check_batch(answer: &crate::http::Answer, count: usize) -> io::Result<()> {
    let versions = answer.body.windows(9).filter(|nine| nine == b"\"version\"").count();
    if answer.status == 200 && versions == count {
        return Ok(());
    }
    let read: BatchPublished = answer.read()?;
    let accepted = read.results.iter().filter(|result| result.version.is_some()).count();
    Err(io::Error::other(format!("of {count} changes {accepted} were accepted")))
}

/// A number as decimal text, without the formatting machinery (this runs a million times a second).
#[derive(Debug)]
struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    fn of(mut number: u64) -> Self {
        let (mut digits, mut start) = ([b'0'; 20], 20);
        loop {
            start -= 1;
            digits[start] = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
            if number == 0 {
                return Self { digits, start };
            }
        }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.digits[self.start..]).unwrap_or("0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_read_as_numbers() {
        for number in [0, 7, 10, 4096, 9_999_999, u64::MAX] {
            assert_eq!(Decimal::of(number).text(), number.to_string());
        }
    }

    #[test]
    fn ranges_of_several_connections_cover_every_object_once() {
        let all: Vec<u64> = [0..4, 4..8, 8..10]
            .into_iter()
            .flat_map(|range| Plan::Range(range).objects())
            .collect();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
    }
}
