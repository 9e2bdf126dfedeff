//! A watch in the world: the machine of [`crate::watch`] with sockets, a clock and a task of its own.
//!
//! The task reads on however slow the application is: what it has not taken yet coalesces in the machine.

mod link;
mod polls;
mod socket;
mod streams;

use crate::net::{Net, random};
use crate::watch::{Change, Machine, RefusedObject, Settings, Status, Stop, Ticket, Transport};
use futures_util::Stream;
use link::Link;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tidings_protocol::Version;
use tidings_protocol::id::{IdError, check_object_id};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// So many changes may be handed out and not acknowledged; then the next one waits.
const MAX_UNHANDLED: usize = 65_536;

/// A text that names no object. **Nothing was changed.**
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{object}` is no object ID: {why}")]
pub struct InvalidObject {
    /// The text, shortened and printable.
    pub object: String,
    /// What is wrong with it.
    pub why: IdError,
}

pub(crate) fn check(object: &str) -> Result<(), InvalidObject> {
    check_object_id(object).map_err(|why| InvalidObject {
        object: crate::watch::printable(&object.chars().take(64).collect::<String>()),
        why,
    })
}

/// How to watch; made by [`Client::watch`](crate::Client::watch).
#[derive(Debug)]
pub struct WatchBuilder {
    net: Net,
    settings: Settings,
    objects: BTreeMap<String, Option<Version>>,
    cursor: Option<String>,
    trace: bool,
    by_hand: bool,
}

impl WatchBuilder {
    pub(crate) fn new(net: Net, settings: Settings, objects: BTreeMap<String, Option<Version>>) -> Self {
        Self {
            net,
            settings,
            objects,
            cursor: None,
            trace: false,
            by_hand: false,
        }
    }

    /// Goes on where an earlier watch of the same objects came to: what changed since then is told first.
    ///
    /// A cursor speaks only for objects that were held throughout since it was issued.
    #[must_use]
    pub fn resume(mut self, cursor: impl Into<String>) -> Self {
        self.cursor = Some(cursor.into());
        self
    }

    /// The version of this object is known: only newer ones are told. It is watched from now on if it was not named.
    #[must_use]
    pub fn known(mut self, object: impl Into<String>, version: Version) -> Self {
        self.objects.insert(object.into(), Some(version));
        self
    }

    /// Listens in this way, whatever the client's own setting is.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.settings.transport = transport;
        self
    }

    /// Each change says from which shard and epoch its version came.
    #[must_use]
    pub fn trace(mut self) -> Self {
        self.trace = true;
        self
    }

    /// Changes count as handled when [`Watch::ack`] says so, and not when the next one is asked for.
    #[must_use]
    pub fn ack_by_hand(mut self) -> Self {
        self.by_hand = true;
        self
    }

    /// Begins.
    ///
    /// # Errors
    /// If a text names no object. Nothing was begun.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(self) -> Result<Watch, InvalidObject> {
        for object in self.objects.keys() {
            check(object)?;
        }
        let named = self.objects.iter().map(|(object, known)| (object.as_str(), *known));
        let mut machine = Machine::new(self.settings, named, self.cursor.as_deref(), random());
        machine.start(0);
        let status = watch::Sender::new(machine.status().clone());
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                machine,
                reader: None,
                closed: false,
            }),
            changed: Notify::new(),
            status,
            began: Instant::now(),
        });
        let link = Link::new(self.net, self.trace);
        tokio::spawn(Arc::clone(&shared).drive(link));
        Ok(Watch {
            handle: WatchHandle { shared },
            by_hand: self.by_hand,
        })
    }
}

/// What the task, the watch and its handles share.
#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// Tells the task that there is something to do.
    changed: Notify,
    status: watch::Sender<Status>,
    began: Instant,
}

#[derive(Debug)]
struct Inner {
    machine: Machine,
    /// Who waits for the next change.
    reader: Option<Waker>,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Does something with the machine, and tells whoever waits for its outcome.
    fn with<T>(&self, act: impl FnOnce(&mut Machine, u64) -> T) -> T {
        let now_ms = self.now_ms();
        let (result, reader) = {
            let mut inner = self.lock();
            let result = act(&mut inner.machine, now_ms);
            let status = inner.machine.status();
            let over = matches!(status, Status::Stopped(_));
            self.status.send_if_modified(|shown| {
                let differs = shown != status;
                if differs {
                    shown.clone_from(status);
                }
                differs
            });
            let wakes = over || inner.machine.has_news();
            (result, if wakes { inner.reader.take() } else { None })
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        result
    }

    /// The task: performs what the machine asks for, and hands in what comes.
    async fn drive(self: Arc<Self>, mut link: Link) {
        loop {
            while let Some(output) = self.with(|machine, _| machine.next_output()) {
                link.perform(output);
            }
            let deadline = {
                let inner = self.lock();
                if inner.closed || matches!(inner.machine.status(), Status::Stopped(_)) {
                    break;
                }
                inner.machine.next_deadline()
            };
            let at = deadline.map(|ms| self.began + std::time::Duration::from_millis(ms));
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = until(at) => self.with(Machine::handle_deadline),
                () = link.next(|number, input| self.with(|machine, now_ms| machine.handle(now_ms, number, input))) => {}
            }
        }
        link.close(1000);
    }
}

/// At this time, or never.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Changes of the objects that are watched: `watch.next().await` or a [`Stream`]. It ends when coming back is no use;
/// [`Watch::stopped`] then says why. Dropping it ends the watching.
///
/// Asking for the next change says that the former ones are handled, unless
/// [`ack_by_hand`](WatchBuilder::ack_by_hand) was chosen. The cursor moves on behind what is handled.
#[derive(Debug)]
pub struct Watch {
    handle: WatchHandle,
    by_hand: bool,
}

impl Watch {
    /// The next change; `None` once coming back is no use.
    ///
    /// Giving this future up loses nothing.
    pub async fn next(&mut self) -> Option<Change> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// The next change, if one is there already. The former ones count as handled like with [`Watch::next`].
    pub fn try_next(&mut self) -> Option<Change> {
        self.take(&mut self.handle.shared.lock())
    }

    /// This change is handled: the cursor may move on behind it. Of use with
    /// [`ack_by_hand`](WatchBuilder::ack_by_hand); in any order.
    pub fn ack(&self, change: &Change) {
        self.handle.ack(change);
    }

    /// A handle for other tasks.
    #[must_use]
    pub fn handle(&self) -> WatchHandle {
        self.handle.clone()
    }

    /// See [`WatchHandle::add`].
    ///
    /// # Errors
    /// If a text names no object. Nothing was added.
    pub fn add<S: AsRef<str>>(&self, objects: impl IntoIterator<Item = S>) -> Result<(), InvalidObject> {
        self.handle.add(objects)
    }

    /// See [`WatchHandle::remove`].
    pub fn remove<S: AsRef<str>>(&self, objects: impl IntoIterator<Item = S>) {
        self.handle.remove(objects);
    }

    /// See [`WatchHandle::cursor`].
    #[must_use]
    pub fn cursor(&self) -> Option<Arc<str>> {
        self.handle.cursor()
    }

    /// See [`WatchHandle::ready`].
    ///
    /// # Errors
    /// Why it has stopped.
    pub async fn ready(&self) -> Result<(), Stop> {
        self.handle.ready().await
    }

    /// See [`WatchHandle::status`].
    #[must_use]
    pub fn status(&self) -> Status {
        self.handle.status()
    }

    /// Why it has ended, once it has.
    #[must_use]
    pub fn stopped(&self) -> Option<Stop> {
        match self.handle.status() {
            Status::Stopped(stop) => Some(stop),
            _ => None,
        }
    }

    fn take(&self, inner: &mut Inner) -> Option<Change> {
        if !self.by_hand {
            inner.machine.handled_all();
        } else if inner.machine.unhandled() >= MAX_UNHANDLED {
            return None;
        }
        inner.machine.hand_out()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        let mut inner = self.handle.shared.lock();
        if let Some(change) = self.take(&mut inner) {
            return Poll::Ready(Some(change));
        }
        if matches!(inner.machine.status(), Status::Stopped(_)) && !inner.machine.has_news() {
            return Poll::Ready(None);
        }
        inner.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Stream for Watch {
    type Item = Change;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        self.poll(cx)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.handle.shared.lock().closed = true;
        self.handle.shared.changed.notify_one();
    }
}

/// Speaks to a watch from anywhere.
#[derive(Clone, Debug)]
pub struct WatchHandle {
    shared: Arc<Shared>,
}

impl WatchHandle {
    /// Watches these too, from now on. Fetch their state once [`ready`](Self::ready) says that they are live.
    ///
    /// # Errors
    /// If a text names no object. Nothing was added.
    pub fn add<S: AsRef<str>>(&self, objects: impl IntoIterator<Item = S>) -> Result<(), InvalidObject> {
        self.add_known(objects.into_iter().map(|object| (object, None)))
    }

    /// Watches these too, each from the version on that is known of it. The cursor speaks for them once
    /// [`vouches`](Self::vouches) says so.
    ///
    /// # Errors
    /// If a text names no object. Nothing was added.
    pub fn add_known<S: AsRef<str>>(
        &self,
        objects: impl IntoIterator<Item = (S, Option<Version>)>,
    ) -> Result<(), InvalidObject> {
        let objects: Vec<(S, Option<Version>)> = objects.into_iter().collect();
        for (object, _) in &objects {
            check(object.as_ref())?;
        }
        let named = objects.iter().map(|(object, known)| (object.as_ref(), *known));
        self.shared.with(|machine, now_ms| machine.add(now_ms, named));
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Watches these no longer: nothing more is handed out of them.
    pub fn remove<S: AsRef<str>>(&self, objects: impl IntoIterator<Item = S>) {
        let objects: Vec<S> = objects.into_iter().collect();
        let named = objects.iter().map(AsRef::as_ref);
        self.shared.with(|machine, now_ms| machine.remove(now_ms, named));
        self.shared.changed.notify_one();
    }

    /// See [`Watch::ack`].
    pub fn ack(&self, change: &Change) {
        self.ack_ticket(change.ticket());
    }

    /// The same by the change's ticket.
    pub fn ack_ticket(&self, ticket: Ticket) {
        let reader = {
            let mut inner = self.shared.lock();
            inner.machine.handled(ticket);
            inner.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// A place that may be stored: everything before it has been handled. With it and the same objects, a later watch
    /// misses nothing. `None` until there is one.
    #[must_use]
    pub fn cursor(&self) -> Option<Arc<str>> {
        self.shared.lock().machine.cursor()
    }

    /// Whether that cursor speaks for the object: for one that was added by [`add_known`](Self::add_known), only once a
    /// cursor has come since.
    #[must_use]
    pub fn vouches(&self, object: &str) -> bool {
        self.shared.lock().machine.vouches(object)
    }

    /// Waits until everything that is watched is live, or refused: what changes from now on is told. Then is the time to
    /// fetch the state of what is watched, unless the watch resumed by a cursor.
    ///
    /// # Errors
    /// Why it has stopped.
    pub async fn ready(&self) -> Result<(), Stop> {
        let mut status = self.shared.status.subscribe();
        let reached =
            status.wait_for(|status| matches!(status, Status::Idle | Status::Live { .. } | Status::Stopped(_)));
        match reached.await.as_deref() {
            Ok(Status::Stopped(stop)) => Err(stop.clone()),
            // The sender lives as long as this handle.
            _ => Ok(()),
        }
    }

    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.lock().machine.status().clone()
    }

    /// Waits until it is doing as `wanted` says.
    pub async fn until(&self, wanted: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.shared.status.subscribe();
        match status.wait_for(wanted).await {
            Ok(status) => status.clone(),
            Err(_) => self.status(),
        }
    }

    /// What is watched.
    #[must_use]
    pub fn objects(&self) -> Vec<Arc<str>> {
        self.shared.lock().machine.objects().cloned().collect()
    }

    /// The objects that are not watched, or not for now, and why.
    #[must_use]
    pub fn refused(&self) -> Vec<(Arc<str>, RefusedObject)> {
        let inner = self.shared.lock();
        let refused = inner.machine.refused();
        refused.map(|(object, why)| (Arc::clone(object), why.clone())).collect()
    }

    /// The newest version that is known of an object: told, or current when it was first subscribed.
    #[must_use]
    pub fn version(&self, object: &str) -> Option<Version> {
        self.shared.lock().machine.version(object)
    }
}
