//! How fast messages are read: the fast reader, the full one, and frames, in messages a second.
//! `cargo run --release --example read_speed`.

use std::hint::black_box;
use std::time::Instant;
use tidings_client::websocket::{Incoming, Message};
use tidings_client::wire::{EventParser, ServerMessage, messages};

const CHANGE: &str = r#"{"changes":[{"object":"order:42","version":1795170000000000}]}"#;
const TRACED: &str = r#"{"changes":[{"object":"order:42","version":1795170000000000,"shard":17,"epoch":3}]}"#;
const HINTED: &str =
    r#"{"changes":[{"object":"order:42","version":1795170000000000,"kind":"paid","data":{"total":12}}]}"#;
const CURSOR: &str = r#"{"cursor":"AQEjRWeJq83v-_AQEjRWeJq83v-_"}"#;

fn per_second(what: &str, count: u64, mut run: impl FnMut(u64)) {
    let mut rates: Vec<f64> = (0..5)
        .map(|_| {
            let began = Instant::now();
            run(count);
            count as f64 / began.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    println!("{what:<44} {:>7.2} million/s", rates[2] / 1e6);
}

fn changes(text: &str) -> u64 {
    let count = |message| match message {
        Ok(ServerMessage::Changes(changes)) => changes.map(|change| change.version.map_or(0, |v| v.0)).sum(),
        _ => 0,
    };
    messages(black_box(text.as_bytes()))
        .map(count)
        .fold(0, u64::wrapping_add)
}

fn main() {
    for (what, text) in [
        ("a change", CHANGE),
        ("a change with shard and epoch", TRACED),
        ("a change with data (full reader)", HINTED),
        ("a cursor", CURSOR),
    ] {
        per_second(what, 1_000_000, |count| {
            (0..count).for_each(|_| _ = black_box(changes(text)))
        });
    }
    per_second("a change by serde_json::Value, to compare", 200_000, |count| {
        (0..count).for_each(|_| _ = black_box(serde_json::from_str::<serde_json::Value>(black_box(CHANGE))));
    });
    let mut frames = Vec::new();
    for _ in 0..100 {
        frames.extend_from_slice(&[0x81, CHANGE.len() as u8]);
        frames.extend_from_slice(CHANGE.as_bytes());
    }
    let mut incoming = Incoming::default();
    per_second("a change in its WebSocket frame", 1_000_000, |count| {
        for _ in 0..count / 100 {
            let read = incoming.feed(black_box(&frames), |message| {
                if let Message::Text(text) = message {
                    black_box(changes(text));
                }
            });
            assert!(read.is_ok());
        }
    });
    let block = "data: {\"object\":\"order:42\",\"version\":1795170000000000}\n\n".repeat(100);
    let mut parser = EventParser::default();
    per_second("a change in its block of an event stream", 1_000_000, |count| {
        for _ in 0..count / 100 {
            parser.push(black_box(block.as_bytes()));
            while let Ok(Some(block)) = parser.next_block() {
                black_box(block.message().is_ok());
            }
        }
    });
}
