//! `tidings publish --stdin`: lines of standard input as one streamed request.
//!
//! Memory is bounded whatever the length of the input: a few chunks are on their way at any time, and a line has a limit.
//! What was read is sent at once, so that lines typed or trickling in are published as they come.

use super::Publisher;
use super::answer::{self, Outcome};
use crate::cli::server::CallError;
use crate::cli::signals::Interrupt;
use crate::cli::{count, note, one_line, print_line};
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::CONTENT_TYPE;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::convert::Infallible;
use std::io::BufRead;
use std::time::Duration;
use tidings_protocol::limits::MAX_DATA_BYTES;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// The longest line: the largest `data`, every byte of it written as an escape of six, and room for the rest.
const MAX_LINE_BYTES: usize = MAX_DATA_BYTES * 6 + 8 * 1024;
/// Chunks that wait between the reader and the socket.
const CHUNKS_WAITING: usize = 4;
/// While the input pauses, a blank is sent this often: the server gives up on a body of which no byte comes for long.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// Lines refused here that are listed, as many as the server lists.
const MAX_ERRORS: u64 = 100;

/// The server's answer to the whole stream.
#[derive(Debug, Default, Deserialize)]
struct Sum {
    accepted: Option<u64>,
    #[serde(default)]
    rejected: u64,
    #[serde(default)]
    errors: Vec<LineError>,
    version: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct LineError {
    #[serde(default)]
    line: u64,
    code: Option<String>,
    message: Option<String>,
    detail: Option<String>,
}

/// What the reader of standard input says when it is done.
#[derive(Debug, Default)]
struct ReadSum {
    /// Lines read.
    lines: u64,
    /// Lines that were not sent because they cannot name an object.
    refused: u64,
    failed: Option<String>,
}

/// Streams standard input and prints the counts. `true` if every line was published.
pub(super) async fn run(publisher: &Publisher, kind: Option<String>, data: Option<Box<RawValue>>) -> bool {
    let (chunks_in, mut chunks) = mpsc::channel(CHUNKS_WAITING);
    let (sum_in, read_sum) = tokio::sync::oneshot::channel();
    // A thread of its own, never joined: a read of a terminal cannot be cut short.
    let reader = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut lines = Lines {
            kind,
            data,
            sum: ReadSum::default(),
            line: Vec::new(),
            skipping: false,
        };
        lines.read(std::io::stdin().lock(), |chunk| chunks_in.blocking_send(chunk).is_ok());
        let _ = sum_in.send(lines.sum);
    });
    let interrupt = Interrupt::listen();
    let (Ok(_), Ok(mut interrupt)) = (reader, interrupt) else {
        note("cannot start reading standard input; nothing was published");
        return false;
    };
    let (body_in, body) = mpsc::channel(1);
    let forward = tokio::spawn(async move {
        loop {
            tokio::select! {
                chunk = chunks.recv() => match chunk {
                    // The request is over before the input is: its answer says why.
                    Some(chunk) => if body_in.send(chunk).await.is_err() { return },
                    None => return,
                },
                // White space before the next line.
                () = tokio::time::sleep(KEEP_ALIVE) => if body_in.send(Bytes::from_static(b" ")).await.is_err() { return },
                // Being asked to end is the end of the input: what was read is still answered.
                () = interrupt.asked() => return,
            }
        }
    });
    let body = StreamBody::new(ReceiverStream::new(body).map(|chunk| Ok::<_, Infallible>(Frame::data(chunk))));
    let headers = [(CONTENT_TYPE, "application/x-ndjson".to_owned())];
    let answer = publisher.server.post(&publisher.path(), &headers, body, None).await;
    forward.abort();
    // Missing when the input was cut short.
    let mut read_sum = read_sum;
    let read = read_sum.try_recv().unwrap_or_default();
    if let Some(why) = &read.failed {
        note(&format!("standard input: {why}; the lines before that were sent"));
    }
    match answer {
        Ok(answer) if (200..300).contains(&answer.status) => tell(&answer.body, &read),
        Ok(answer) => {
            note(&format!(
                "the stream was refused: {}",
                answer::refusal(answer.status, &answer.body).reason()
            ));
            note("lines before the refusal may have been published; publishing them again is harmless");
            false
        }
        Err(CallError::NotSent(why)) => {
            note(&Outcome::not_sent(&why).reason());
            false
        }
        Err(CallError::NoAnswer(why)) => {
            note(&format!(
                "{why}; some of the lines may have been published; publishing them again is harmless"
            ));
            false
        }
    }
}

/// Prints the counts and the first errors. `true` if every line was published.
fn tell(body: &[u8], read: &ReadSum) -> bool {
    let sum: Sum = serde_json::from_slice(body).unwrap_or_default();
    let Some(accepted) = sum.accepted else {
        note("the answer makes no sense: is this a Tidings server? The lines may or may not have been published");
        return false;
    };
    for error in &sum.errors {
        let code = error.code.as_deref().unwrap_or("refused");
        let why = error
            .message
            .as_deref()
            .or(error.detail.as_deref())
            .unwrap_or("not published");
        note(&format!("line {}: {} ({})", error.line, one_line(why), one_line(code)));
    }
    let rejected = sum.rejected + read.refused;
    let newest = sum
        .version
        .map(|version| format!("  newest version {version}"))
        .unwrap_or_default();
    print_line(&format!("{accepted} published, {rejected} rejected{newest}"));
    if rejected > sum.errors.len() as u64 + read.refused {
        note(&format!(
            "only the first {} are listed",
            count(sum.errors.len() as u64, "error")
        ));
    }
    rejected == 0 && read.failed.is_none()
}

/// Turns lines of input into chunks of newline-delimited JSON.
struct Lines {
    kind: Option<String>,
    data: Option<Box<RawValue>>,
    sum: ReadSum,
    /// The beginning of a line whose end has not been read.
    line: Vec<u8>,
    /// The rest of a line that is too long is being passed over.
    skipping: bool,
}

impl Lines {
    /// Reads to the end, or until nobody wants more.
    fn read(&mut self, mut input: impl BufRead, mut wants: impl FnMut(Bytes) -> bool) {
        loop {
            let available = match input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.sum.failed = Some(error.to_string());
                    return;
                }
            };
            let (bytes, at_end) = (available.len(), available.is_empty());
            let mut chunk = Vec::with_capacity(bytes + 256);
            if at_end && !self.line.is_empty() {
                self.end_of_line(&mut chunk);
            }
            for part in available.split_inclusive(|byte| *byte == b'\n') {
                self.part(part, &mut chunk);
            }
            input.consume(bytes);
            if !chunk.is_empty() && !wants(Bytes::from(chunk)) || at_end {
                return;
            }
        }
    }

    fn part(&mut self, part: &[u8], chunk: &mut Vec<u8>) {
        let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
        if !self.skipping && self.line.len() + text.len() > MAX_LINE_BYTES {
            self.skipping = true;
            self.line = Vec::new();
            self.refuse(&format!("longer than {MAX_LINE_BYTES} bytes"));
        }
        if !self.skipping {
            self.line.extend_from_slice(text);
        }
        if ends {
            self.end_of_line(chunk);
        }
    }

    /// Counts the line being read as not published.
    fn refuse(&mut self, why: &str) {
        self.sum.refused += 1;
        if self.sum.refused <= MAX_ERRORS {
            note(&format!("line {}: {why}, so not published", self.sum.lines + 1));
        }
    }

    /// A line is read. For each one exactly one is sent, be it an empty one, so that the server counts as the reader does.
    fn end_of_line(&mut self, chunk: &mut Vec<u8>) {
        self.skipping = false;
        let line = std::mem::take(&mut self.line);
        let text = line.trim_ascii();
        if text.starts_with(b"{") {
            chunk.extend_from_slice(text);
        } else if let Ok(object) = std::str::from_utf8(text) {
            let (kind, data) = (self.kind.as_deref(), self.data.as_deref());
            if !object.is_empty() {
                // Writing to memory does not fail.
                let _ = serde_json::to_writer(
                    &mut *chunk,
                    &super::Change {
                        object,
                        kind,
                        data,
                        revision: None,
                    },
                );
            }
        } else {
            self.refuse("not UTF-8");
        }
        chunk.push(b'\n');
        self.sum.lines += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8], buffer: usize) -> (String, ReadSum) {
        let mut lines = Lines {
            kind: Some("k".to_owned()),
            data: None,
            sum: ReadSum::default(),
            line: Vec::new(),
            skipping: false,
        };
        let mut sent = Vec::new();
        lines.read(std::io::BufReader::with_capacity(buffer, input), |chunk| {
            assert!(chunk.len() <= MAX_LINE_BYTES + buffer * 32, "a chunk is bounded");
            sent.extend_from_slice(&chunk);
            true
        });
        (String::from_utf8(sent).expect("the stream is text"), lines.sum)
    }

    #[test]
    fn plain_names_and_json_lines_become_one_stream_however_the_input_is_cut() {
        for buffer in [1, 3, 7, 4096] {
            let (sent, sum) = read(b"a b\r\n\n{\"object\":\"c\"}\n  d\"q", buffer);
            assert_eq!(
                sent,
                "{\"object\":\"a b\",\"kind\":\"k\"}\n\n{\"object\":\"c\"}\n{\"object\":\"d\\\"q\",\"kind\":\"k\"}\n",
                "{buffer}"
            );
            assert_eq!((sum.lines, sum.refused), (4, 0));
        }
    }

    #[test]
    fn a_line_that_cannot_name_an_object_is_sent_empty_and_not_kept() {
        let mut input = b"a\n".to_vec();
        input.extend(vec![b'x'; 3 * MAX_LINE_BYTES]);
        input.extend(b"\n\xff\nb\n");
        let (sent, sum) = read(&input, 512);
        assert_eq!(
            sent,
            "{\"object\":\"a\",\"kind\":\"k\"}\n\n\n{\"object\":\"b\",\"kind\":\"k\"}\n"
        );
        assert_eq!((sum.lines, sum.refused), (4, 2));
    }
}
