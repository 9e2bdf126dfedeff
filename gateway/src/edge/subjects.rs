//! What a backend does with the connections and sessions of one of its subjects, on every node: `POST /v1/subjects/…`.
//!
//! A lane does its share of it in one step; a connection with a request of its own under way is tried again for a while. The
//! node that was asked has the others do the same, and says of each what was done there.

use super::shell::Shell;
use super::sinks::{Sink, State};
use super::{LaneCommand, poll};
use crate::auth::Caller;
use crate::clock;
use crate::node::Node;
use crate::peers::NoAnswer;
use crate::problem::Refusal;
use crate::server::App;
use axum::Json;
use axum::extract::{Request, State as Asked};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use futures_util::future::join_all;
use http::header::CACHE_CONTROL;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tidings_protocol::client::Entry;
use tidings_protocol::close::CloseCode;
use tidings_protocol::id::check_object_id;
use tidings_protocol::subject::{Deed, MAX_NAME_BYTES, SubjectOrder, SubjectTally};
use tidings_protocol::{Code, Problem};
use tidings_router::access::{Action, Identity, Subject};
use tidings_router::edge::{Page, PollPage, RequestError, SubscriberKey};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Within which all nodes are to have answered.
const WITHIN: Duration = Duration::from_secs(4);
/// How long a connection may be busy with requests of its own.
const BUSY_FOR: Duration = Duration::from_secs(3);
const BUSY_EVERY: Duration = Duration::from_millis(20);
/// A client that is asked to come back does so within this, in milliseconds.
const BACK_WITHIN_MS: u64 = 1_000;
/// Objects of one order.
const MOST_OBJECTS: usize = 10_000;

pub(super) fn routes() -> axum::Router<App> {
    axum::Router::new()
        .route("/v1/subjects/subscribe", post(subscribe))
        .route("/v1/subjects/unsubscribe", post(unsubscribe))
        .route("/v1/subjects/disconnect", post(disconnect))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Objects {
    subject: String,
    issuer: Option<String>,
    objects: Vec<Box<str>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disconnect {
    subject: String,
    issuer: Option<String>,
    #[serde(default)]
    come_back: bool,
}

/// What was done on one node.
#[derive(Debug, Serialize)]
struct OnNode {
    node: String,
    #[serde(flatten)]
    tally: Option<Tally>,
    /// `unreached` and `refused`: nothing was done there. `unknown`: it may have been.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Tally {
    connections: u64,
    sessions: u64,
    objects: u64,
    refused: u64,
    busy: u64,
}

impl From<SubjectTally> for Tally {
    fn from(tally: SubjectTally) -> Self {
        let SubjectTally {
            connections,
            sessions,
            objects,
            refused,
            busy,
        } = tally;
        Self {
            connections,
            sessions,
            objects,
            refused,
            busy,
        }
    }
}

#[derive(Debug, Serialize)]
struct Done {
    /// Every node answered, and no connection was too busy.
    complete: bool,
    #[serde(flatten)]
    sum: Tally,
    nodes: Vec<OnNode>,
}

async fn subscribe(Asked(app): Asked<App>, request: Request) -> Result<Response, Refusal> {
    let asked: Objects = read(&app, request).await?;
    order(
        &app,
        asked.issuer,
        asked.subject,
        Deed::Subscribe(checked(asked.objects)?),
    )
    .await
}

async fn unsubscribe(Asked(app): Asked<App>, request: Request) -> Result<Response, Refusal> {
    let asked: Objects = read(&app, request).await?;
    order(
        &app,
        asked.issuer,
        asked.subject,
        Deed::Unsubscribe(checked(asked.objects)?),
    )
    .await
}

async fn disconnect(Asked(app): Asked<App>, request: Request) -> Result<Response, Refusal> {
    let asked: Disconnect = read(&app, request).await?;
    let deed = Deed::Disconnect {
        come_back: asked.come_back,
    };
    order(&app, asked.issuer, asked.subject, deed).await
}

async fn read<T: for<'de> Deserialize<'de>>(app: &App, request: Request) -> Result<T, Refusal> {
    let (_, body) = poll::read_body(app, request).await?;
    serde_json::from_slice(&body).map_err(|error| Refusal::new(Code::BadRequest, format!("the body: {error}")))
}

fn checked(objects: Vec<Box<str>>) -> Result<Vec<Box<str>>, Refusal> {
    if objects.is_empty() {
        return Err(Problem::new(Code::NoObjects, "`objects` must name at least one object").into());
    }
    if objects.len() > MOST_OBJECTS {
        let detail = format!("`objects` names at most {MOST_OBJECTS} objects");
        return Err(Problem::new(Code::TooLarge, detail).into());
    }
    for object in &objects {
        check_object_id(object).map_err(|error| Problem::new(Code::InvalidObject, format!("`objects`: {error}")))?;
    }
    Ok(objects)
}

async fn order(app: &App, issuer: Option<String>, subject: String, deed: Deed) -> Result<Response, Refusal> {
    let node = &app.node;
    if node.auth.is_none() {
        let detail = "nobody has to authenticate here, so there are no subjects (auth.policy_file)";
        return Err(Refusal::new(Code::NotFound, detail));
    }
    let order = SubjectOrder { issuer, subject, deed };
    if let Some(fault) = order.fault() {
        let detail = format!("the {fault} is empty, or longer than {MAX_NAME_BYTES} bytes");
        return Err(Problem::new(Code::InvalidField, detail).into());
    }
    let deadline = Instant::now() + WITHIN;
    let (here, elsewhere) = tokio::join!(act(node, order.clone()), have_others_act(node, &order, deadline));
    let mut nodes = vec![(node.name.clone(), Ok(here))];
    nodes.extend(elsewhere);
    let mut sum = SubjectTally::default();
    nodes.iter().for_each(|(_, done)| sum.add(done.unwrap_or_default()));
    let complete = sum.busy == 0 && nodes.iter().all(|(_, done)| done.is_ok());
    let nodes = nodes.into_iter().map(|(node, done)| OnNode {
        node,
        tally: done.ok().map(Tally::from),
        error: done.err().map(|error| match error {
            NoAnswer::Unreached => "unreached",
            NoAnswer::Refused => "refused",
            NoAnswer::Unknown => "unknown",
        }),
    });
    let done = Done {
        complete,
        sum: sum.into(),
        nodes: nodes.collect(),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(done)).into_response())
}

type Answered = (String, Result<SubjectTally, NoAnswer>);

async fn have_others_act(node: &Node, order: &SubjectOrder, deadline: Instant) -> Vec<Answered> {
    let (Some(control), Some(peers)) = (&node.control, &node.peers) else {
        return Vec::new();
    };
    let view = control.view();
    let others = view.map.nodes().filter(|(id, _)| *id != view.me.node);
    let asked = others.filter(|(_, known)| known.info.roles.edge).map(|(id, _)| {
        let name = view
            .peers
            .get(&id)
            .map_or_else(|| id.to_string(), |peer| peer.name.clone());
        async move { (name, peers.order(id, order, deadline).await) }
    });
    join_all(asked).await
}

/// Does it on this node, from any thread.
pub(crate) async fn act(node: &Node, order: SubjectOrder) -> SubjectTally {
    let order = Arc::new(order);
    let asked = node.lanes.iter().map(|lane| {
        let order = Arc::clone(&order);
        lane.ask(|reply| LaneCommand::Act { order, reply })
    });
    let mut sum = SubjectTally::default();
    for tally in join_all(asked).await.into_iter().flatten() {
        sum.add(tally);
    }
    sum
}

fn is_meant(subject: &Subject, order: &SubjectOrder) -> bool {
    let vouched = order.issuer.as_deref().is_none_or(|issuer| *subject.issuer == *issuer);
    vouched && !subject.by_key && *subject.name == *order.subject
}

/// What came of one connection.
enum Outcome {
    Done,
    /// It has a request of its own under way.
    Busy,
}

impl State {
    fn is_stream(&mut self, who: SubscriberKey) -> bool {
        let sink = self.entry(who).map(|entry| &entry.sink);
        matches!(sink, Some(Sink::Socket(_) | Sink::Events(_)))
    }

    /// Everybody who is meant.
    fn meant(&mut self, order: &SubjectOrder) -> Vec<SubscriberKey> {
        let mut meant = Vec::new();
        for index in 0..self.places() {
            if let Some((who, bearer)) = self.bearer_at(index)
                && bearer.subject().is_some_and(|subject| is_meant(subject, order))
            {
                meant.push(who);
            }
        }
        // A session that the machine forgot may still stand there.
        meant.retain(|who| self.lane.connection(*who).is_some());
        meant
    }

    fn act_on(&mut self, who: SubscriberKey, order: &SubjectOrder, tally: &mut SubjectTally) -> Outcome {
        let bearer = self.entry(who).and_then(|entry| entry.bearer.as_deref());
        let identity = bearer.and_then(|bearer| bearer.identity().cloned());
        // It may have left, or somebody else come in its place.
        let Some(identity) = identity.filter(|identity| is_meant(&identity.subject, order)) else {
            return Outcome::Done;
        };
        let stream = self.is_stream(who);
        let now = clock::now();
        match &order.deed {
            Deed::Disconnect { come_back } => self.send_away(who, *come_back),
            Deed::Unsubscribe(objects) => {
                let named: HashSet<&str> = objects.iter().map(|object| &**object).collect();
                let why = Problem::new(Code::Forbidden, "you were unsubscribed by the application");
                let keep = |object: &str| !named.contains(object);
                let taken = self.lane.withdraw(now, who, keep, &why, &mut self.out);
                tally.objects += taken as u64;
            }
            Deed::Subscribe(objects) => match self.subscribe_for(who, &identity, objects, stream) {
                Ok((objects, refused)) => {
                    tally.objects += objects;
                    tally.refused += refused;
                }
                Err(RequestError::Busy) => return Outcome::Busy,
                Err(RequestError::Unknown) => return Outcome::Done,
            },
        }
        match stream {
            true => tally.connections += 1,
            false => tally.sessions += 1,
        }
        Outcome::Done
    }

    fn subscribe_for(
        &mut self,
        who: SubscriberKey,
        identity: &Arc<Identity>,
        objects: &[Box<str>],
        stream: bool,
    ) -> Result<(u64, u64), RequestError> {
        let caller = Caller::Known(Arc::clone(identity));
        let granted = objects.iter().filter(|object| caller.may(Action::Subscribe, object));
        let entry = |object: &str| Entry {
            object: object.into(),
            version: None,
            at_least: None,
        };
        let entries: Vec<_> = granted.map(|object| Ok(entry(object))).collect();
        let (count, now) = (entries.len() as u64, clock::now());
        let refused = objects.len() as u64 - count;
        if count == 0 {
            return Ok((0, refused));
        }
        if stream {
            let page = Page {
                entries,
                ..Page::default()
            };
            self.lane.subscribe(now, who, page, &mut self.out)?;
        } else {
            // A poll that waits is answered: the next one has the new objects as well.
            self.end_wait(who);
            let page = PollPage {
                entries,
                ..PollPage::default()
            };
            self.lane.poll(now, who, page, &mut self.out)?;
        }
        Ok((count, refused))
    }

    fn send_away(&mut self, who: SubscriberKey, come_back: bool) {
        let now = clock::now();
        let (code, after_ms) = match come_back {
            true => (CloseCode::Recalled, Some(self.jitter_ms(BACK_WITHIN_MS))),
            false => (CloseCode::Operator, None),
        };
        let reason = "disconnected_by_application";
        if self.is_stream(who) {
            return self.lane.dismiss(now, who, code, reason, after_ms, &mut self.out);
        }
        // A poll that waits is answered, and its session is not known any more.
        self.end_wait(who);
        self.lane.dismiss(now, who, code, reason, None, &mut self.out);
        if self.lane.connection(who).is_none() {
            self.remove(who);
        }
    }
}

impl State {
    fn end_wait(&mut self, who: SubscriberKey) {
        if matches!(self.entry(who).map(|entry| &entry.sink), Some(Sink::Poll { .. })) {
            self.lane.poll_over(clock::now(), who, None, &mut self.out);
        }
    }
}

impl Shell {
    /// This lane's share of an order.
    pub(super) fn act(self: &Rc<Self>, order: Arc<SubjectOrder>, reply: oneshot::Sender<SubjectTally>) {
        let mut tally = SubjectTally::default();
        let mut busy = self.step(|state| state.meant(&order));
        self.act_on_all(&mut busy, &order, &mut tally);
        if busy.is_empty() {
            // Nobody may wait any more.
            _ = reply.send(tally);
            return;
        }
        let shell = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let until = Instant::now() + BUSY_FOR;
            while !busy.is_empty() && Instant::now() < until {
                tokio::time::sleep(BUSY_EVERY).await;
                shell.act_on_all(&mut busy, &order, &mut tally);
            }
            tally.busy = busy.len() as u64;
            _ = reply.send(tally);
        });
    }

    fn act_on_all(&self, whom: &mut Vec<SubscriberKey>, order: &SubjectOrder, tally: &mut SubjectTally) {
        self.step(|state| whom.retain(|who| matches!(state.act_on(*who, order, tally), Outcome::Busy)));
    }
}
