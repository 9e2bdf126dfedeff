//! `tidings watch`: print what changes, over one WebSocket at a time, coming back after every interruption.
//!
//! What a line says is flushed before the cursor that vouches for it is saved: a run that is killed repeats a few lines
//! rather than losing one.

use super::backoff::{Backoff, random};
use super::server::{CONNECT_TIMEOUT, Server};
use super::signals::Interrupt;
use super::{FAILED, ServerArgs, USAGE, count, note, one_line};
use cursor_file::CursorFile;
use futures_util::{SinkExt, StreamExt};
use line::Line;
use progress::{Output, Progress};
use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tidings_protocol::id::check_object_id;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use verdict::Verdict;

mod cursor_file;
mod line;
mod progress;
mod verdict;

/// More objects than any server allows on one connection.
const MAX_OBJECTS: usize = 1_000_000;
/// The longest wait before coming back is drawn from this, the first from [`FIRST_WAIT`].
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// A connection that lasted so long was a good one: the next wait is a first one again.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// `hello` comes first, and within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A frame that cannot be sent for so long never will be.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the close frame may take that follows `reconnect`.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The cursor is saved at most this often, and at the end.
const SAVE_EVERY: Duration = Duration::from_millis(250);
/// A server's wish to be left alone is obeyed up to here.
const LONGEST_WISH: Duration = Duration::from_secs(600);
/// The largest message that is read.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// What to watch, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct WatchArgs {
    /// The objects to watch
    #[arg(value_name = "OBJECT", required_unless_present = "stdin_objects")]
    pub objects: Vec<String>,
    /// Also watch the objects named on standard input, one a line; read to its end first
    #[arg(long)]
    pub stdin_objects: bool,
    /// Resume here: also tell what changed since
    #[arg(long, value_name = "C")]
    pub cursor: Option<String>,
    /// Resume from the cursor in this file, and keep it up to date; without the file, start from now
    #[arg(long, value_name = "FILE", conflicts_with = "cursor")]
    pub cursor_file: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Prints what changes until asked to end, or until the server says that coming back is no use.
pub async fn run(args: WatchArgs) -> ExitCode {
    let prepared = objects(&args).and_then(|objects| Watch::new(&args, objects, std::io::stdout()));
    let mut watch = match prepared {
        Ok(watch) => watch,
        Err(why) => {
            note(&why);
            return ExitCode::from(USAGE);
        }
    };
    let Ok(mut interrupt) = Interrupt::listen() else {
        note("cannot listen for signals");
        return ExitCode::from(FAILED);
    };
    let ended = tokio::select! {
        why = Box::pin(watch.follow()) => why,
        () = interrupt.asked() => None,
    };
    watch.save();
    match ended {
        None => ExitCode::SUCCESS,
        Some(why) => {
            note(&why);
            if let Some(cursor) = watch.progress.cursor() {
                note(&format!("told up to cursor {cursor}"));
            }
            ExitCode::from(FAILED)
        }
    }
}

/// The objects of the command line and, if wanted, of standard input.
fn objects(args: &WatchArgs) -> Result<BTreeSet<String>, String> {
    let mut objects = BTreeSet::new();
    let mut add = |object: &str, place: &str| {
        check_object_id(object).map_err(|error| format!("{place}{}: {error}", one_line(object)))?;
        objects.insert(object.to_owned());
        if objects.len() > MAX_OBJECTS {
            Err(format!("more than {MAX_OBJECTS} objects"))
        } else {
            Ok(())
        }
    };
    for object in &args.objects {
        add(object, "")?;
    }
    if args.stdin_objects {
        let mut input = std::io::stdin().lock();
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            // A line is read no further than shows that it is too long.
            let limit = tidings_protocol::id::MAX_ID_BYTES as u64 + 256;
            let bytes = std::io::Read::take(&mut input, limit).read_until(b'\n', &mut line);
            if bytes.map_err(|error| format!("standard input: {error}"))? == 0 {
                break;
            }
            let text = std::str::from_utf8(&line).map_err(|_| format!("standard input, line {number}: not UTF-8"))?;
            if !text.trim().is_empty() {
                add(text.trim(), &format!("standard input, line {number}: "))?;
            }
        }
    }
    if objects.is_empty() {
        Err("no objects to watch".to_owned())
    } else {
        Ok(objects)
    }
}

/// Everything that outlives a connection.
struct Watch<W> {
    server: Server,
    progress: Progress,
    cursor_file: Option<CursorFile>,
    json: bool,
    out: W,
    backoff: Backoff,
    /// What was last said about the connection, so that it is said once.
    said: Option<String>,
    save_failed: bool,
}

/// Why a connection ended.
enum Ended {
    /// Come back: after so long if the server said so, else after a wait of our own.
    ComeBack(Option<Duration>, String),
    /// Do not. No reason: nobody reads the output any more.
    Stop(Option<String>),
}

impl From<Verdict> for Ended {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::ComeBack(why) => Self::ComeBack(None, why),
            Verdict::Stop(why) => Self::Stop(Some(why)),
        }
    }
}

type Socket = WebSocketStream<TcpStream>;

/// One connection's times.
struct Times {
    silent_at: Instant,
    silence: Duration,
    ask_again_at: Option<Instant>,
    asking: Backoff,
    save_at: Option<Instant>,
    /// The server asked to leave: when to go at the latest, and what to do then.
    leave: Option<(Instant, Duration, String)>,
}

impl<W: Write> Watch<W> {
    fn new(args: &WatchArgs, objects: BTreeSet<String>, out: W) -> Result<Self, String> {
        let server = Server::new(&args.server)?;
        let cursor_file = args.cursor_file.as_deref().map(CursorFile::open).transpose()?;
        if let Some(cursor) = &args.cursor {
            cursor_file::check(cursor).map_err(|why| format!("--cursor: {why}"))?;
        }
        let cursor = args
            .cursor
            .clone()
            .or_else(|| Some(cursor_file.as_ref()?.saved()?.to_owned()));
        Ok(Self {
            server,
            progress: Progress::new(objects, cursor.filter(|cursor| !cursor.is_empty())),
            cursor_file,
            json: args.json,
            out,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            said: None,
            save_failed: false,
        })
    }

    /// Connects again and again. Gives back why it stops; no reason if nobody reads the output any more.
    async fn follow(&mut self) -> Option<String> {
        loop {
            let began = Instant::now();
            let ended = match Box::pin(self.connect()).await {
                Ok(socket) => Box::pin(self.connection(socket)).await,
                Err(ended) => ended,
            };
            self.save();
            let (wish, why) = match ended {
                Ended::Stop(why) => return why,
                Ended::ComeBack(wish, why) => (wish, why),
            };
            if began.elapsed() >= GOOD_AFTER {
                self.backoff.reset();
            }
            if self.said.as_deref() != Some(&why) {
                note(&format!("{why}; coming back"));
                self.said = Some(why);
            }
            // The server spreads its clients out by its wishes; without one, chance does.
            let wait = wish.map_or_else(|| self.backoff.next(random()), |wish| wish.min(LONGEST_WISH));
            tokio::time::sleep(wait).await;
        }
    }

    async fn connect(&mut self) -> Result<Socket, Ended> {
        let come_back = |why| Ended::ComeBack(None, why);
        let stop = |why: String| Ended::Stop(Some(why));
        let url = format!("ws://{}{}", self.server.authority, self.server.path("/v1/ws"));
        let mut request = url.into_client_request().map_err(|error| stop(error.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(
            "sec-websocket-protocol",
            http::HeaderValue::from_static("tidings.v1.json"),
        );
        // A token being replaced may not be readable for a moment.
        if let Some(value) = self.server.authorization().map_err(come_back)? {
            headers.insert(http::header::AUTHORIZATION, value);
        }
        let stream = self.server.connect().await.map_err(come_back)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(16 * 1024)
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let handshake = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
        match timeout(CONNECT_TIMEOUT, handshake).await {
            Err(_) => Err(come_back("the server does not answer".to_owned())),
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(Error::Http(response))) => {
                let body = response.body().as_deref().unwrap_or_default();
                let retry_after = response.headers().get(http::header::RETRY_AFTER);
                let wish = retry_after
                    .and_then(|value| value.to_str().ok()?.trim().parse().ok())
                    .map(Duration::from_secs);
                Err(match verdict::of_status(response.status().as_u16(), body) {
                    // Everyone is told the same time: spread out behind it.
                    Verdict::ComeBack(why) => Ended::ComeBack(wish.map(|wish| wish + self.backoff.next(random())), why),
                    Verdict::Stop(why) => stop(why),
                })
            }
            Ok(Err(error)) => Err(come_back(format!("no connection: {error}"))),
        }
    }

    /// One connection, to its end.
    async fn connection(&mut self, mut socket: Socket) -> Ended {
        self.progress.connected();
        let mut times = Times {
            silent_at: Instant::now() + HELLO_TIMEOUT,
            silence: HELLO_TIMEOUT,
            ask_again_at: None,
            asking: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            save_at: None,
            leave: None,
        };
        loop {
            let (mut out, mut heard) = (Vec::new(), false);
            let leave_at = times.leave.as_ref().map(|(at, _, _)| *at);
            tokio::select! {
                message = socket.next() => {
                    heard = true;
                    if let Err(ended) = self.message(message, &mut out) {
                        // The answer to a close frame.
                        let _ = timeout(Duration::from_secs(1), socket.flush()).await;
                        return leaving(ended, times.leave);
                    }
                }
                () = at(leave_at) => {
                    let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
                    return leaving(Ended::ComeBack(None, String::new()), times.leave);
                }
                () = at(times.ask_again_at) => {
                    times.ask_again_at = None;
                    self.progress.ask_again(&mut out);
                }
                () = at(times.save_at) => {
                    times.save_at = None;
                    self.save();
                }
                () = sleep_until(times.silent_at) => {
                    let why = format!("nothing was heard for {} s", times.silence.as_secs_f32());
                    return leaving(Ended::ComeBack(None, why), times.leave);
                }
            }
            if let Err(ended) = self.perform(&mut socket, out, &mut times).await {
                return ended;
            }
            if heard {
                // After the output is written: a slow reader of ours is no silence of the server's.
                times.silent_at = Instant::now() + times.silence;
            }
        }
    }

    /// What came over the socket.
    fn message(&mut self, message: Option<Result<Message, Error>>, out: &mut Vec<Output>) -> Result<(), Ended> {
        match message {
            Some(Ok(Message::Text(text))) => {
                self.progress.frame(text.as_str(), out);
                Ok(())
            }
            Some(Ok(Message::Close(Some(frame)))) => {
                Err(verdict::of_close(frame.code.into(), frame.reason.as_str()).into())
            }
            Some(Ok(Message::Close(None))) | None => Err(verdict::of_close(1006, "").into()),
            Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
            Some(Err(error)) => Err(Ended::ComeBack(None, format!("the connection was cut: {error}"))),
        }
    }

    async fn perform(&mut self, socket: &mut Socket, out: Vec<Output>, times: &mut Times) -> Result<(), Ended> {
        let mut lines = Vec::new();
        let mut end = None;
        for output in out {
            match output {
                Output::Tell(line) => lines.push(line),
                Output::Note(text) => note(&text),
                Output::PingEvery(ms) => {
                    times.silence = Duration::from_millis(ms.saturating_mul(2).clamp(1000, 3_600_000));
                    times.silent_at = Instant::now() + times.silence;
                }
                Output::AskLater => times.ask_again_at = Some(Instant::now() + times.asking.next(random())),
                Output::Ready => self.ready(),
                Output::Leave(ms, why) => {
                    times.leave = Some((Instant::now() + LEAVE_TIMEOUT, Duration::from_millis(ms), why));
                }
                Output::Send(frame) => match timeout(SEND_TIMEOUT, socket.send(Message::text(frame))).await {
                    Ok(Ok(())) => {}
                    // Reading tells why, e.g. by a close code that has already come.
                    Ok(Err(_)) => {}
                    Err(_) => end = Some(Ended::ComeBack(None, "the server takes nothing".to_owned())),
                },
                Output::End(verdict) => end = Some(verdict.into()),
            }
        }
        if !self.tell(&lines) {
            return Err(Ended::Stop(None));
        }
        let saved = self.cursor_file.as_ref().map(CursorFile::saved);
        if times.save_at.is_none() && saved.is_some_and(|saved| saved != self.progress.cursor()) {
            times.save_at = Some(Instant::now() + SAVE_EVERY);
        }
        match end {
            None => Ok(()),
            Some(ended) => {
                let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
                Err(ended)
            }
        }
    }

    fn ready(&mut self) {
        let objects = count(self.progress.len() as u64, "object");
        let text = format!("watching {objects} at {}", self.server.authority);
        if self.said.as_deref() != Some(&text) {
            note(&text);
            self.said = Some(text);
        }
    }

    /// Prints. `false` when nobody reads any more.
    fn tell(&mut self, lines: &[Line]) -> bool {
        if lines.is_empty() {
            return true;
        }
        let time = line::now();
        let render = |line: &Line| if self.json { line.json(&time) } else { line.text(&time) };
        let text: String = lines.iter().map(|line| render(line) + "\n").collect();
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        written.is_ok()
    }

    /// Saves the cursor if it moved.
    fn save(&mut self) {
        let (Some(file), Some(cursor)) = (&mut self.cursor_file, self.progress.cursor()) else {
            return;
        };
        if file.saved() == Some(cursor) {
            return;
        }
        match file.save(cursor) {
            Ok(()) => self.save_failed = false,
            Err(error) => {
                if !std::mem::replace(&mut self.save_failed, true) {
                    note(&format!(
                        "cannot save the cursor: {error}; the file holds the one before. Going on"
                    ));
                }
            }
        }
    }
}

/// At this time, or never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// A connection that the server asked to leave ends as it asked, unless it now says to stop.
fn leaving(ended: Ended, leave: Option<(Instant, Duration, String)>) -> Ended {
    match (ended, leave) {
        (Ended::ComeBack(..), Some((_, wait, why))) => Ended::ComeBack(Some(wait), why),
        (ended, _) => ended,
    }
}

#[cfg(test)]
#[path = "watch/tests.rs"]
mod tests;
