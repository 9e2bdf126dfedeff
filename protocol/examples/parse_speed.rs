//! How long the two hot paths take on this machine: reading one line of a publish stream, and writing one change.
//!
//! `cargo run --release -p tidings-protocol --example parse_speed`

use std::hint::black_box;
use std::time::Instant;
use tidings_protocol::client::parse_publish_line;
use tidings_protocol::codec::{self, ChangeView, Encoding};
use tidings_protocol::{Hint, Version};

const ROUNDS: u32 = 2_000_000;

fn report(what: &str, mut round: impl FnMut()) {
    for _ in 0..ROUNDS / 10 {
        round();
    }
    let start = Instant::now();
    for _ in 0..ROUNDS {
        round();
    }
    println!(
        "{what:44} {:7.1} ns",
        start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
    );
}

fn main() {
    let lines: [(&str, &[u8]); 3] = [
        ("read a line, object alone", br#"{"object":"order:12345678"}"#),
        (
            "read a line, kind and revision",
            br#"{"object":"order:12345678","kind":"updated","revision":17}"#,
        ),
        (
            "read a line, kind and data",
            br#"{"object":"order:12345678","kind":"updated","data":{"total":12,"at":"now"}}"#,
        ),
    ];
    for (what, line) in lines {
        report(what, || {
            black_box(parse_publish_line(black_box(line)).is_ok());
        });
    }
    let hint = Hint {
        kind: Some("updated".into()),
        data: Some(r#"{"total":12,"at":"now"}"#.into()),
    };
    let mut out = Vec::with_capacity(1024);
    for (what, hint) in [
        ("write a change", None),
        ("write a change with kind and data", Some(&hint)),
    ] {
        for encoding in Encoding::ALL {
            report(&format!("{what}, {encoding:?}"), || {
                out.clear();
                let version = Version(black_box(1_795_170_000_000_000));
                let change = ChangeView {
                    object: black_box("order:12345678"),
                    version,
                    hint,
                    trace: None,
                };
                codec::changes(encoding, &mut out, std::iter::once(change));
                black_box(&out);
            });
        }
    }
}
