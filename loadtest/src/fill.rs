//! Publishes every object once before anybody listens, so that the server knows them all.

use crate::http::{CHUNK_ROOM, Client, close_chunk};
use crate::messages::Target;
use crate::names::Names;
use std::thread;
use std::time::Duration;
use tidings_client::wire::{ProblemDocument, Sum};

const CONNECTIONS: u32 = 4;
const CHUNK_BYTES: usize = 128 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes objects `0..count` over a few streams.
pub(crate) fn fill(targets: &[Target], prefix: &str, count: u32) -> Result<(), String> {
    let threads = (0..CONNECTIONS).filter_map(|nth| {
        let target = targets.get(nth as usize % targets.len().max(1))?.clone();
        let cut = |nth: u32| (u64::from(count) * u64::from(nth) / u64::from(CONNECTIONS)) as u32;
        let (range, names) = (cut(nth)..cut(nth + 1), Names::new(prefix));
        Some(thread::spawn(move || stream(&target, &names, range)))
    });
    let threads: Vec<_> = threads.collect();
    let mut result = Ok(());
    for thread in threads {
        let one = thread
            .join()
            .unwrap_or_else(|_| Err("a filling thread panicked".to_owned()));
        result = result.and(one);
    }
    result.map_err(|why| format!("the objects could not be filled in: {why}"))
}

fn stream(target: &Target, names: &Names, range: std::ops::Range<u32>) -> Result<(), String> {
    let lines = u64::from(range.end - range.start);
    if lines == 0 {
        return Ok(());
    }
    let run = || -> std::io::Result<(u16, Vec<u8>)> {
        let mut client = Client::connect(target.address, &target.host, PATIENCE)?;
        client.begin_lines("/v1/publish?ack=accepted")?;
        let mut chunk = vec![0; CHUNK_ROOM];
        for object in range {
            chunk.extend_from_slice(b"{\"object\":\"");
            names.write(object, &mut chunk);
            chunk.extend_from_slice(b"\"}\n");
            if chunk.len() >= CHUNK_BYTES {
                close_chunk(&mut chunk, 0);
                client.send(&chunk)?;
                chunk.truncate(CHUNK_ROOM);
            }
        }
        if chunk.len() > CHUNK_ROOM {
            close_chunk(&mut chunk, 0);
            client.send(&chunk)?;
        }
        client.send(b"0\r\n\r\n")?;
        client.read_answer()
    };
    let (status, body) = run().map_err(|error| error.to_string())?;
    if status != 200 {
        let problem = ProblemDocument::read(&body);
        let detail = problem.detail.as_deref().unwrap_or("");
        return Err(format!("status {status} {}: {detail}", &*problem.code));
    }
    let sum = Sum::read(&body).map_err(|error| error.to_string())?;
    match sum.accepted == lines {
        true => Ok(()),
        false => Err(format!("of {lines} changes {} were accepted", sum.accepted)),
    }
}
