//! `tidings publish --from-dir`: a directory as a source of changes.
//!
//! A change waits twice: as a hint until its file is at rest, and as a change until the server has taken it. Both places
//! hold one entry a path and are bounded; while the second is full the directory is not looked at, and since only states
//! are compared nothing is lost by that.

use super::answer::Outcome;
use super::{Change, Page, Publisher, print};
use crate::cli::backoff::{Backoff, random};
use crate::cli::signals::Interrupt;
use crate::cli::{count, note};
use pending::Unsent;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tree::{Tree, TreeError};

#[cfg(target_os = "linux")]
mod inotify;
mod names;
mod pending;
mod snapshot;
mod tree;

/// After the wish to end, so long is still spent on telling the server the rest.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// The first wait after a failure, at most.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// A server's wish to be left alone is obeyed up to here.
const LONGEST_WISH: Duration = Duration::from_secs(300);

/// What to watch and how.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// The directory.
    pub(super) root: PathBuf,
    /// Put in front of each path.
    pub(super) prefix: String,
    /// Also what version control and editors keep for themselves.
    pub(super) all: bool,
    /// Publish what is there at the start.
    pub(super) initial: bool,
    /// At most so many files, directories, and changes waiting.
    pub(super) max_files: usize,
    /// Look at everything this often in spite of hints.
    pub(super) rescan: Option<Duration>,
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Created,
    Updated,
    Deleted,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
        }
    }

    /// This and then `newer`, as one.
    fn then(self, newer: Self) -> Self {
        match (self, newer) {
            (_, Self::Deleted) => Self::Deleted,
            (Self::Created, _) => Self::Created,
            (Self::Updated | Self::Deleted, _) => Self::Updated,
        }
    }
}

/// Publishes until asked to end. `true` if it was, and everything seen by then is published.
pub(super) async fn run(options: Options, publisher: Publisher) -> bool {
    let Ok(mut interrupt) = Interrupt::listen() else {
        note("cannot listen for signals");
        return false;
    };
    let mut source = match Source::open(options, publisher).await {
        Ok(source) => source,
        Err(error) => {
            note(&format!("{error}; nothing was published"));
            return false;
        }
    };
    let stopped = Box::pin(source.follow(Box::pin(interrupt.asked()), &mut print)).await;
    if let Err(why) = &stopped {
        note(why);
    }
    let mut print = print;
    let all_told = tokio::select! {
        all_told = Box::pin(source.finish(&mut print)) => Some(all_told),
        // Asked twice: at once.
        () = interrupt.asked() => None,
    };
    all_told.unwrap_or_else(|| source.leave()) && stopped.is_ok()
}

/// Done when somebody wants it to end.
type Asked<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

type Batch = Vec<(String, Kind)>;

/// The directory and what the server has yet to be told of it.
struct Source {
    /// `None` while a step is on its way, and after one failed for good.
    tree: Option<Tree>,
    max_unsent: usize,
    unsent: Unsent,
    publisher: Publisher,
    in_flight: Option<JoinHandle<(Batch, Page)>>,
    backoff: Backoff,
    retry_at: Option<Instant>,
    /// It was said that the server takes nothing at the moment.
    failing: bool,
    refused: u64,
    #[cfg(target_os = "linux")]
    readable: Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>,
}

/// What woke the loop.
enum Woken {
    Asked,
    Look,
    Told(Batch, Page),
    /// The task that asked the server is gone; its batch with it.
    Failed(String),
}

impl Source {
    async fn open(options: Options, publisher: Publisher) -> Result<Self, String> {
        let shown = tree::shown(&options.root);
        let (max_unsent, initial) = (options.max_files, options.initial);
        let opened = tokio::task::spawn_blocking(move || {
            let (mut tree, mut changes) = (Tree::open(&options)?, Batch::new());
            tree.take_for_known(initial.then_some(&mut changes))?;
            Ok::<_, TreeError>((tree, changes))
        });
        let (tree, changes) = opened
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("{shown}: {error}"))?;
        // The constructor is deprecated because a type may lie about its descriptor; the standard library's does not.
        #[cfg(target_os = "linux")]
        #[expect(deprecated, reason = "sound for an OwnedFd, and its replacement is unsafe to call")]
        let readable = match tree.descriptor().map(tokio::io::unix::AsyncFd::new).transpose() {
            Ok(readable) => readable,
            Err(error) => return Err(format!("{shown}: cannot wait for hints: {error}")),
        };
        note(&format!(
            "watching {} below {shown}",
            count(tree.files() as u64, "file")
        ));
        let mut unsent = Unsent::default();
        changes.into_iter().for_each(|(object, kind)| unsent.add(object, kind));
        Ok(Self {
            tree: Some(tree),
            max_unsent,
            unsent,
            publisher,
            in_flight: None,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            retry_at: None,
            failing: false,
            refused: 0,
            #[cfg(target_os = "linux")]
            readable,
        })
    }

    /// Publishes what changes until asked to end. Fails with the reason why it cannot go on.
    ///
    /// Must not be cut short in any other way than by `asked`: the directory may be on another thread.
    async fn follow(&mut self, mut asked: Asked<'_>, print: &mut dyn FnMut(&str)) -> Result<(), String> {
        loop {
            self.send();
            match self.woken(&mut asked).await {
                Woken::Asked => return Ok(()),
                Woken::Look => self.step(Tree::step).await?,
                Woken::Told(batch, page) => self.told(batch, page, print)?,
                Woken::Failed(why) => return Err(why),
            }
        }
    }

    /// Looks a last time, tells the server the rest within [`LAST_WORDS`], and says what it could not tell. `true` if
    /// everything is told.
    async fn finish(&mut self, print: &mut dyn FnMut(&str)) -> bool {
        let last_words = async {
            let _ = self.step(Tree::last_step).await;
            // Whether or not it is time: there is no later.
            self.retry_at = None;
            loop {
                self.send();
                let Some(in_flight) = &mut self.in_flight else { return };
                let Ok((batch, page)) = in_flight.await else { return };
                self.in_flight = None;
                if self.told(batch, page, print).is_err() {
                    return;
                }
                if let Some(at) = self.retry_at.take() {
                    tokio::time::sleep_until(at.into()).await;
                }
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, Box::pin(last_words)).await;
        self.leave()
    }

    /// Says what stays untold. `true` if nothing does.
    fn leave(&mut self) -> bool {
        let in_flight = self.in_flight.take().is_some();
        if self.unsent.len() > 0 || in_flight {
            let more = if in_flight {
                ", and the outcome of the last request is not known"
            } else {
                ""
            };
            note(&format!(
                "ended with {} not published{more}",
                count(self.unsent.len() as u64, "change")
            ));
        }
        if self.refused > 0 {
            note(&format!("the server refused {}", count(self.refused, "change")));
        }
        self.unsent.len() == 0 && !in_flight && self.refused == 0
    }

    /// Sends the next batch, unless one is on its way or it is not time.
    fn send(&mut self) {
        let early = self.retry_at.is_some_and(|at| at > Instant::now());
        if self.in_flight.is_some() || early || self.unsent.len() == 0 {
            return;
        }
        let batch = self.unsent.take(super::PAGE_CHANGES);
        let publisher = self.publisher.clone();
        self.in_flight = Some(tokio::spawn(async move {
            let changes: Vec<_> = batch
                .iter()
                .map(|(object, kind)| Change {
                    object,
                    kind: Some(kind.as_str()),
                    data: None,
                    revision: None,
                })
                .collect();
            let page = publisher.page(&changes, None).await;
            drop(changes);
            (batch, page)
        }));
    }

    async fn woken(&mut self, asked: &mut Asked<'_>) -> Woken {
        let room = self.room() > 0;
        let due = if room {
            self.tree.as_ref().and_then(Tree::next_due)
        } else {
            None
        };
        let retry = if self.in_flight.is_none() && self.unsent.len() > 0 {
            self.retry_at
        } else {
            None
        };
        let wake = due.into_iter().chain(retry).min();
        #[cfg(target_os = "linux")]
        let readable = &self.readable;
        let in_flight = &mut self.in_flight;
        tokio::select! {
            () = asked => Woken::Asked,
            told = async { match in_flight { Some(task) => task.await, None => std::future::pending().await } } => {
                self.in_flight = None;
                match told {
                    Ok((batch, page)) => Woken::Told(batch, page),
                    Err(error) => Woken::Failed(error.to_string()),
                }
            }
            () = async {
                match wake { Some(at) => tokio::time::sleep_until(at.into()).await, None => std::future::pending().await }
            } => Woken::Look,
            () = async {
                #[cfg(target_os = "linux")]
                if let Some(readable) = readable && room && let Ok(mut ready) = readable.readable().await {
                    // Cleared before it is read to the end, so that what comes meanwhile wakes again.
                    ready.clear_ready();
                    return;
                }
                std::future::pending::<()>().await;
            } => Woken::Look,
        }
    }

    fn room(&self) -> usize {
        self.max_unsent.saturating_sub(self.unsent.len())
    }

    /// Lets the directory take one step on a thread that may wait for the disk.
    async fn step(&mut self, step: fn(&mut Tree, usize, &mut Batch) -> Result<(), TreeError>) -> Result<(), String> {
        let Some(mut tree) = self.tree.take() else {
            return Ok(());
        };
        let room = self.room();
        let stepping = tokio::task::spawn_blocking(move || {
            let mut changes = Batch::new();
            let result = step(&mut tree, room, &mut changes);
            (tree, changes, result)
        });
        let (tree, changes, result) = stepping.await.map_err(|error| error.to_string())?;
        self.tree = Some(tree);
        changes
            .into_iter()
            .for_each(|(object, kind)| self.unsent.add(object, kind));
        result.map_err(|error| error.to_string())
    }

    /// The server answered, or did not.
    fn told(&mut self, batch: Batch, page: Page, print: &mut dyn FnMut(&str)) -> Result<(), String> {
        let mut last_failure = None;
        let mut permanent = None;
        for ((object, kind), outcome) in batch.into_iter().zip(page.outcomes) {
            match &outcome {
                Outcome::Published { .. } => print(&format!("{}  {}", kind.as_str(), outcome.line(&object))),
                Outcome::Failed { retryable: true, .. } => {
                    last_failure = Some(outcome.reason());
                    self.unsent.put_back(object, kind);
                }
                Outcome::Failed { .. } if page.whole => {
                    permanent = Some(outcome.reason());
                    self.unsent.put_back(object, kind);
                }
                Outcome::Failed { .. } => {
                    self.refused += 1;
                    note(&outcome.line(&object));
                }
            }
        }
        if let Some(why) = permanent {
            return Err(format!("the server takes no changes like these: {why}"));
        }
        match last_failure {
            None => {
                self.retry_at = None;
                if std::mem::replace(&mut self.failing, false) {
                    note("publishing again");
                }
                self.backoff.reset();
            }
            Some(why) => {
                let wish = page.retry_after.unwrap_or_default().min(LONGEST_WISH);
                let at = Instant::now() + self.backoff.next(random()).max(wish);
                self.retry_at = Some(at);
                if !std::mem::replace(&mut self.failing, true) {
                    note(&format!(
                        "{why}; {} kept, trying again until it works",
                        count(self.unsent.len() as u64, "change")
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Tree {
    /// Reads what the system has to say and looks at what is due.
    fn step(&mut self, room: usize, changes: &mut Batch) -> Result<(), TreeError> {
        self.read_hints(Instant::now())?;
        self.settle(Instant::now(), room, false, changes)
    }

    /// Looks at everything that was hinted at, at rest or not.
    fn last_step(&mut self, _room: usize, changes: &mut Batch) -> Result<(), TreeError> {
        let read = self.read_hints(Instant::now());
        self.settle(Instant::now(), usize::MAX, true, changes)?;
        read
    }
}

#[cfg(test)]
#[path = "directory/tests.rs"]
mod tests;
