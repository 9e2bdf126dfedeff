//! Many subscribers: connects them, subscribes them, and keeps what each was told.

use crate::frame;
use crate::message::{self, ServerMessage};
use crate::net::{Dial, Happening, Net, SocketId, Speech};
use crate::report::Report;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Connections being made at one time: fewer than any server's backlog.
const CONNECTING: usize = 256;
/// How long the set-up of a scenario may make no progress.
const STUCK: Duration = Duration::from_secs(30);

/// Opens `count` connections and returns their ids in order. Frames that arrive meanwhile (hello) must be good ones.
pub(crate) fn connect(net: &mut Net, to: SocketAddr, speech: Speech, count: usize) -> io::Result<Vec<SocketId>> {
    connect_each(net, count, |index| Dial::nth(to, speech, index))
}

/// The same with a say in how each connects.
pub(crate) fn connect_each(net: &mut Net, count: usize, dial: impl Fn(usize) -> Dial) -> io::Result<Vec<SocketId>> {
    let mut ids = Vec::with_capacity(count);
    let (mut open, mut trouble, mut progress) = (0, None, Instant::now());
    while open < count {
        while ids.len() < count && ids.len() - open < CONNECTING {
            ids.push(net.dial(dial(ids.len()))?);
        }
        net.turn(Some(Duration::from_millis(100)), |id, happening| match happening {
            Happening::Open => {
                open += 1;
                progress = Instant::now();
            }
            Happening::Text(text) => trouble = trouble.take().or_else(|| trouble_in(text)),
            Happening::Answer { .. } => {}
            Happening::Closed(why) => trouble = Some(format!("connection {id} of {count}: {why}")),
        })?;
        check(trouble.take(), progress, || {
            format!("{open} of {count} connections were made")
        })?;
    }
    Ok(ids)
}

/// What a set of subscribes came to.
#[derive(Debug)]
pub(crate) struct SubscribedAll {
    /// Each subscriber's first cursor after its answer.
    pub(crate) cursors: Vec<String>,
    pub(crate) time: Duration,
    /// Changes told meanwhile: what the server took for newer than what the subscriber knows.
    pub(crate) changes: usize,
}

/// Sends each subscriber its text (`ids[n]` gets `text(n)`), at most `window` unanswered at a time, and waits until each was
/// answered for all `objects_each` objects and has its cursor.
pub(crate) fn subscribe(
    net: &mut Net,
    ids: &[SocketId],
    objects_each: usize,
    window: usize,
    mut text: impl FnMut(usize) -> String,
) -> io::Result<SubscribedAll> {
    let began = Instant::now();
    let first = ids.first().copied().unwrap_or(0);
    let mut waiting = vec![Waiting::default(); ids.len()];
    let (mut sent, mut done, mut changes) = (0, 0, 0);
    let (mut trouble, mut progress) = (None, Instant::now());
    while done < ids.len() {
        while sent < ids.len() && sent - done < window {
            net.send(ids[sent], &frame::text(text(sent).as_bytes()))?;
            sent += 1;
        }
        net.turn(Some(Duration::from_millis(100)), |id, happening| match happening {
            Happening::Text(frame) => {
                let Some(one) = id.checked_sub(first).and_then(|at| waiting.get_mut(at)) else {
                    return;
                };
                let read = message::each(frame, |message| {
                    if one.hear(&message) {
                        done += 1;
                        progress = Instant::now();
                    }
                    changes += message.changes.len();
                    trouble = trouble.take().or_else(|| message.trouble());
                });
                trouble = trouble.take().or(read.err());
            }
            Happening::Closed(why) => trouble = Some(format!("connection {id} while subscribing: {why}")),
            Happening::Open | Happening::Answer { .. } => {}
        })?;
        check(trouble.take(), progress, || {
            format!("{done} of {} subscribers were answered", ids.len())
        })?;
    }
    if let Some(short) = waiting.iter().find(|one| one.answered != objects_each) {
        return Err(io::Error::other(format!(
            "{} objects of {objects_each} were answered",
            short.answered
        )));
    }
    let cursors = waiting.into_iter().map(|one| one.cursor.unwrap_or_default()).collect();
    Ok(SubscribedAll {
        cursors,
        time: began.elapsed(),
        changes,
    })
}

impl SubscribedAll {
    /// Says what a first subscribe, without a cursor, was told besides its answer.
    pub(crate) fn note(&self, report: &mut Report) {
        if self.changes > 0 {
            report.note(format!(
                "the first subscribes, without a cursor, were told of {} changes",
                self.changes
            ));
        }
    }
}

/// One subscriber between its subscribe and its first cursor.
#[derive(Debug, Clone, Default)]
struct Waiting {
    answered: usize,
    cursor: Option<String>,
}

impl Waiting {
    /// Whether this message completes the subscribe: only a cursor after the answer counts.
    fn hear(&mut self, message: &ServerMessage<'_>) -> bool {
        if let Some(subscribed) = &message.subscribed {
            self.answered += subscribed.objects.len();
        }
        match &message.cursor {
            Some(cursor) if self.answered > 0 => self.cursor.replace(cursor.0.to_string()).is_none(),
            _ => false,
        }
    }
}

/// Serves the sockets for a while in which nothing but heartbeats is expected.
pub(crate) fn idle(net: &mut Net, time: Duration) -> io::Result<()> {
    let until = Instant::now() + time;
    let mut trouble = None;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        net.turn(
            Some(left.min(Duration::from_millis(100))),
            |id, happening| match happening {
                Happening::Closed(why) => trouble = Some(format!("idle connection {id}: {why}")),
                Happening::Text(text) => trouble = trouble.take().or_else(|| trouble_in(text)),
                Happening::Open | Happening::Answer { .. } => {}
            },
        )?;
        if let Some(trouble) = trouble {
            return Err(io::Error::other(trouble));
        }
    }
}

/// What is wrong with a frame, if anything is.
pub(crate) fn trouble_in(text: &[u8]) -> Option<String> {
    let mut trouble = None;
    let read = message::each(text, |message| trouble = trouble.take().or_else(|| message.trouble()));
    trouble.or(read.err())
}

fn check(trouble: Option<String>, progress: Instant, so_far: impl FnOnce() -> String) -> io::Result<()> {
    match trouble {
        Some(trouble) => Err(io::Error::other(trouble)),
        None if progress.elapsed() > STUCK => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("stuck: {}", so_far())))
        }
        None => Ok(()),
    }
}
