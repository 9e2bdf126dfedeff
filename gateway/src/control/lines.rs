//! Questions to other nodes: one connection to each and class, dialled when something is asked, kept up while there are
//! questions; many questions at a time, each answered by its number.
//!
//! A question that was sent may have been heard although no answer comes. It does not know what is asked.

use super::notices::Notices;
use super::words::{self, Answer, Frame, Request};
use crate::control::metrics::ControlMetrics;
use crate::mesh::dial::{Backoff, connect};
use crate::mesh::handshake::{Connection, HandshakeError};
use crate::mesh::session::{Outbox, run};
use crate::mesh::{Identity, Limits};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidings_protocol::NodeId;
use tidings_protocol::mesh::Class;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

/// Questions that may wait for one connection.
const WAITING: usize = 256;
/// A connection is closed when nothing was asked for so long.
const IDLE: Duration = Duration::from_secs(60);

/// One question on its way.
struct Call {
    request: Request,
    reply: oneshot::Sender<Result<Answer, String>>,
}

type Open = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Answer, String>>>>>;

/// What all lines share.
struct Common {
    us: Identity,
    limits: Limits,
    /// Where nodes are now, as gossip has it.
    book: Mutex<BTreeMap<NodeId, String>>,
    lines: Mutex<BTreeMap<(NodeId, Class), mpsc::Sender<Call>>>,
    metrics: Arc<ControlMetrics>,
    notices: Arc<Notices>,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lines(Arc<Common>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lines {
    /// None yet.
    pub(super) fn new(us: Identity, limits: Limits, metrics: Arc<ControlMetrics>, notices: Arc<Notices>) -> Self {
        Self(Arc::new(Common {
            us,
            limits,
            book: Mutex::default(),
            lines: Mutex::default(),
            metrics,
            notices,
        }))
    }

    /// Nodes are found here from now on, wherever else a question says.
    pub(super) fn found(&self, book: BTreeMap<NodeId, String>) {
        *locked(&self.0.book) = book;
    }

    /// Where a node is, as gossip has it.
    pub(super) fn address(&self, node: NodeId) -> Option<String> {
        locked(&self.0.book).get(&node).cloned()
    }

    /// Asks, and waits at most `within`.
    ///
    /// # Errors
    /// Says why there is no answer. The question may have been heard.
    pub(super) async fn ask(
        &self,
        (to, address): (NodeId, &str),
        class: Class,
        request: Request,
        within: Duration,
    ) -> Result<Answer, String> {
        let (reply, answer) = oneshot::channel();
        let line = self.line(to, address, class);
        line.try_send(Call { request, reply })
            .map_err(|_| format!("too many questions wait for node {to}"))?;
        match timeout(within, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(format!("the connection to node {to} ended")),
            Err(_) => Err(format!("node {to} did not answer in time")),
        }
    }

    fn line(&self, to: NodeId, address: &str, class: Class) -> mpsc::Sender<Call> {
        let mut lines = locked(&self.0.lines);
        if let Some(line) = lines.get(&(to, class)).filter(|line| !line.is_closed()) {
            return line.clone();
        }
        let (line, calls) = mpsc::channel(WAITING);
        let keeper = Keeper {
            common: Arc::clone(&self.0),
            to,
            address: address.to_owned(),
            class,
        };
        tokio::spawn(keeper.run(calls));
        lines.insert((to, class), line.clone());
        line
    }
}

/// Keeps one line.
struct Keeper {
    common: Arc<Common>,
    to: NodeId,
    address: String,
    class: Class,
}

impl Keeper {
    async fn run(self, mut calls: mpsc::Receiver<Call>) {
        let mut backoff = Backoff::new(&self.common.limits);
        while let Some(first) = calls.recv().await {
            if first.reply.is_closed() {
                continue;
            }
            match self.dial().await {
                Ok(connection) => {
                    backoff.reset();
                    self.talk(connection, first, &mut calls).await;
                }
                Err(error) => {
                    let why = self.explain(&error);
                    _ = first.reply.send(Err(why.clone()));
                    let mut chance = [0; 4];
                    _ = getrandom::fill(&mut chance);
                    let until = Instant::now() + backoff.pause(u32::from_le_bytes(chance));
                    refuse(&mut calls, until, &why).await;
                }
            }
        }
    }

    async fn dial(&self) -> Result<Connection, HandshakeError> {
        let known = locked(&self.common.book).get(&self.to).cloned();
        let address = known.as_deref().unwrap_or(&self.address);
        connect(address, &self.common.us, self.class, Some(self.to), &self.common.limits).await
    }

    /// What is wrong; the operator is told where it is not just that nobody answers.
    fn explain(&self, error: &HandshakeError) -> String {
        let quiet = matches!(error, HandshakeError::Io(_) | HandshakeError::Slow);
        if !quiet {
            self.common.metrics.refused_peers.inc();
            if self.common.notices.is_news(&format!("dial {} {error}", self.to)) {
                tracing::warn!(node = %self.to, %error, "a node cannot be spoken to");
            }
        }
        format!("node {} cannot be reached: {error}", self.to)
    }

    /// Asks while the connection lasts.
    async fn talk(&self, connection: Connection, first: Call, calls: &mut mpsc::Receiver<Call>) {
        let outbox = Outbox::new(self.common.limits.queue_bytes);
        let open: Open = Arc::default();
        let hear = {
            let open = Arc::clone(&open);
            move |_, bytes: &[u8]| match words::decode(bytes)? {
                Frame::Answer(number, answer) => {
                    if let Some(reply) = locked(&open).remove(&number) {
                        // Whoever asked may not wait any more.
                        _ = reply.send(Ok(answer));
                    }
                    Ok(())
                }
                Frame::Ask(..) => Err("a question from who was dialled".to_owned()),
            }
        };
        let asking = ask_all(first, calls, &outbox, &open);
        let end = tokio::select! {
            end = run(connection, &self.common.limits, &outbox, hear) => Some(end),
            () = asking => None,
        };
        if let Some(end) = end {
            tracing::debug!(node = %self.to, %end, "a connection to another node's control plane ended");
        }
        // Those still open are answered by the end of their channels.
    }
}

/// Sends questions as they come; ends when none came for long.
async fn ask_all(first: Call, calls: &mut mpsc::Receiver<Call>, outbox: &Outbox, open: &Open) {
    let mut call = Some(first);
    let mut number = 0;
    while let Some(Call { request, reply }) = call {
        number += 1;
        match words::encode(&Frame::Ask(number, request)) {
            Ok(bytes) => {
                let mut open = locked(open);
                open.retain(|_, reply| !reply.is_closed());
                if outbox.push(bytes) {
                    open.insert(number, reply);
                }
            }
            Err(why) => _ = reply.send(Err(why)),
        }
        call = match timeout(IDLE, calls.recv()).await {
            Ok(next) => next,
            Err(_) => return,
        };
    }
}

/// Nobody is reached for now: says so at once to whoever asks.
async fn refuse(calls: &mut mpsc::Receiver<Call>, until: Instant, why: &str) {
    loop {
        tokio::select! {
            biased;
            () = sleep_until(until) => return,
            call = calls.recv() => match call {
                Some(call) => _ = call.reply.send(Err(why.to_owned())),
                None => return,
            },
        }
    }
}
