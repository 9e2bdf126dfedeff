//! Writes changes as JSON lines, and goes on where it was stopped: `cargo run --example tail -- CURSOR_FILE OBJECT…`.
//!
//! A line is written before the cursor that vouches for it is stored: a run that is killed repeats a few lines rather than
//! losing one.

use std::io::Write as _;
use tidings_client::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let file = words.next().ok_or("usage: tail CURSOR_FILE OBJECT…")?;
    let server = std::env::var("TIDINGS_URL").unwrap_or_else(|_| "http://127.0.0.1:7400".to_owned());
    let client = Client::builder(server).build()?;
    let mut watch = client.watch(words);
    if let Ok(cursor) = std::fs::read_to_string(&file) {
        watch = watch.resume(cursor.trim());
    }
    let mut watch = watch.start()?;
    let mut stored = None;
    let mut out = std::io::stdout().lock();
    while let Some(change) = watch.next().await {
        let line = serde_json::json!({
            "object": &*change.object,
            "version": change.version,
            "kind": change.kind,
            "data": change.data.as_deref().map(serde_json::from_str::<serde_json::Value>).transpose()?,
            "cause": change.cause,
        });
        writeln!(out, "{line}")?;
        out.flush()?;
        // It speaks for the changes before this one: this one is still in our hands.
        let cursor = watch.cursor();
        if cursor != stored {
            if let Some(cursor) = &cursor {
                let new = format!("{file}.new");
                std::fs::write(&new, &**cursor)?;
                std::fs::rename(&new, &file)?;
            }
            stored = cursor;
        }
    }
    Err(watch.stopped().map_or("stopped".into(), Into::into))
}
