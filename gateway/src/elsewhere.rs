//! What operators ask of any node at one node: `node=NAME` in a question means that node, `node=*` all of them together.
//!
//! The node that is asked judges who asks, and passes the question on over the links between nodes. What comes back is what
//! that node would have said itself. Nothing is passed on twice.

use crate::control;
use crate::node::Node;
use crate::peers::Told;
use crate::problem::Refusal;
use crate::server::App;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode, Uri};
use std::sync::Arc;
use std::time::Duration;
use tidings_protocol::client::query_pairs;
use tidings_protocol::mesh::{MAX_TARGET_BYTES, MAX_TOLD_BYTES, Verb};
use tidings_protocol::{Code, NodeId, Problem};
use tokio::time::Instant;
use tower::ServiceExt as _;

/// How long other nodes may take. A person waits.
const PATIENCE: Duration = Duration::from_secs(3);

/// The routes that can be asked of another node.
pub(crate) fn routes() -> axum::Router<App> {
    crate::edge::own_routes().merge(crate::recent::own_routes())
}

/// The same for those who ask here: with `node` they are about another node.
pub(crate) fn asked_routes(app: &App) -> axum::Router<App> {
    routes().route_layer(axum::middleware::from_fn_with_state(app.clone(), pass_on))
}

/// What a node answers to others.
pub(crate) fn answers(node: &Arc<Node>) -> axum::Router {
    let app = App {
        node: Arc::clone(node),
        thread: 0,
    };
    crate::finished(routes(), app)
}

/// Answers a question that another node passed on, or this one has about itself.
pub(crate) async fn answer(routes: &axum::Router, verb: Verb, target: &str) -> Told {
    let method = match verb {
        Verb::Get => Method::GET,
        Verb::Delete => Method::DELETE,
    };
    let request = Request::builder().method(method).uri(target).body(Body::empty());
    let Ok(request) = request else {
        return told(Refusal::new(Code::BadRequest, "not a path and a query").into_response()).await;
    };
    let Ok(response) = routes.clone().oneshot(request).await;
    told(response).await
}

async fn told(response: Response) -> Told {
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), MAX_TOLD_BYTES).await.ok();
    match bytes.and_then(|bytes| String::from_utf8(bytes.into()).ok()) {
        Some(body) => Told { status, body },
        None => Told {
            status: Code::TooLarge.status(),
            body: format!(
                "{{\"code\":\"too_large\",\"retryable\":false,\"detail\":\"an answer of another node has at most {MAX_TOLD_BYTES} bytes: ask for less\"}}"
            ),
        },
    }
}

/// Whom a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Here,
    Node(NodeId),
    All,
}

/// Takes `node` out of a question: whom it is about by name, and the question without that.
fn taken_out(uri: &Uri) -> Result<Option<(String, String)>, Problem> {
    let query = uri.query().unwrap_or_default();
    let (mut name, mut rest) = (None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match query_pairs(pair).next().transpose()? {
            Some((key, value)) if key == "node" => {
                if name.replace(value.into_owned()).is_some() {
                    return Err(Problem::new(Code::InvalidField, "`node` is given once"));
                }
            }
            _ => rest.push(pair),
        }
    }
    let target = match rest.is_empty() {
        true => uri.path().to_owned(),
        false => format!("{}?{}", uri.path(), rest.join("&")),
    };
    Ok(name.map(|name| (name, target)))
}

fn about(node: &Node, name: &str) -> Result<About, Refusal> {
    if name == "*" {
        return Ok(About::All);
    }
    match &node.control {
        None if name == node.name => Ok(About::Here),
        None => Err(Refusal::new(Code::NotFound, "`node`: no such node")),
        Some(control) => {
            let found = crate::admin::node_called(&control.status(), &node.name, name)?;
            let here = found == control.view().me.node;
            Ok(if here { About::Here } else { About::Node(found) })
        }
    }
}

/// What becomes of a question.
enum Course {
    /// It is about this node. With the address in place of its own, if it named this node.
    Here(Option<Uri>),
    Answered(Response),
}

async fn pass_on(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    match course(&app, &method, &uri).await {
        Ok(Course::Answered(response)) => response,
        Ok(Course::Here(instead)) => {
            if let Some(uri) = instead {
                *request.uri_mut() = uri;
            }
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn course(app: &App, method: &Method, uri: &Uri) -> Result<Course, Refusal> {
    let Some((name, target)) = taken_out(uri)? else {
        return Ok(Course::Here(None));
    };
    match about(&app.node, &name)? {
        About::Here => {
            let uri = target.parse();
            let uri = uri.map_err(|_| Problem::new(Code::BadRequest, "not a path and a query"))?;
            Ok(Course::Here(Some(uri)))
        }
        About::All => together(app, method, uri.path(), &target).await.map(Course::Answered),
        About::Node(node) => {
            let verb = match *method {
                Method::DELETE => Verb::Delete,
                Method::GET | Method::HEAD => Verb::Get,
                // No route takes it, and says so.
                _ => return Ok(Course::Here(None)),
            };
            if target.len() > MAX_TARGET_BYTES {
                let detail = format!("a question about another node has at most {MAX_TARGET_BYTES} bytes");
                return Err(Refusal::new(Code::TooLarge, detail));
            }
            let peers = app.node.peers.as_ref();
            let told = match peers {
                Some(peers) => peers.ask(node, verb, &target, Instant::now() + PATIENCE).await,
                None => None,
            };
            let told = told.ok_or_else(|| silent(app, node))?;
            Ok(Course::Answered(response(told)))
        }
    }
}

fn silent(app: &App, node: NodeId) -> Refusal {
    let name = app.node.name_of(Some(node));
    let detail = format!("{name} does not answer this node, or has no connection to it: ask it itself");
    Refusal::new(Code::NodeSilent, detail)
}

async fn together(app: &App, method: &Method, path: &str, target: &str) -> Result<Response, Refusal> {
    match (method, path) {
        (&Method::GET | &Method::HEAD, "/v1/live") => crate::recent::of_all(app, target).await,
        (&Method::GET | &Method::HEAD, "/v1/connections") => crate::edge::connections_of_all(app, target).await,
        _ => Err(Refusal::new(
            Code::InvalidField,
            "`node` is the name of one node here, not `*`",
        )),
    }
}

fn response(told: Told) -> Response {
    let status = StatusCode::from_u16(told.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = match status.is_success() {
        true => "application/json",
        false => "application/problem+json",
    };
    if told.body.is_empty() {
        return status.into_response();
    }
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, told.body).into_response()
}

/// What one node said to a question that was asked of all; `None` if it did not answer.
pub(crate) struct Said {
    pub(crate) node: String,
    pub(crate) told: Option<Told>,
}

impl Said {
    /// What it said, read; `None` if it did not answer, refused, or says something else.
    pub(crate) fn read<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        let told = self.told.as_ref().filter(|told| told.status == 200)?;
        serde_json::from_str(&told.body).ok()
    }
}

/// Asks every node of the cluster, this one first. Those that seem dead are not waited for.
pub(crate) async fn ask_all(app: &App, target: &str) -> Vec<Said> {
    let here = async {
        Said {
            node: app.node.name.clone(),
            told: Some(answer(&answers(&app.node), Verb::Get, target).await),
        }
    };
    let (Some(control), Some(peers)) = (&app.node.control, &app.node.peers) else {
        return vec![here.await];
    };
    let view = control.view();
    let deadline = Instant::now() + PATIENCE;
    let others = view.map.nodes().map(|(id, _)| id).filter(|id| *id != view.me.node);
    let others = others.map(|id| {
        let alive = view.peers.get(&id).is_some_and(|peer: &control::Peer| peer.alive);
        async move {
            let told = match alive {
                true => peers.ask(id, Verb::Get, target, deadline).await,
                false => None,
            };
            Said {
                node: app.node.name_of(Some(id)),
                told,
            }
        }
    });
    let (first, others) = futures_util::future::join(here, futures_util::future::join_all(others)).await;
    std::iter::once(first).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn of(uri: &str) -> Option<(String, String)> {
        taken_out(&uri.parse().expect("a path")).expect("a query")
    }

    #[test]
    fn the_node_is_taken_out_and_the_rest_stays_as_it_was() {
        let some = |name: &str, target: &str| Some((name.to_owned(), target.to_owned()));
        assert_eq!(of("/v1/live"), None);
        assert_eq!(of("/v1/live?after=3"), None);
        assert_eq!(of("/v1/live?node=n2"), some("n2", "/v1/live"));
        assert_eq!(
            of("/v1/live?after=3&node=*&span=hour"),
            some("*", "/v1/live?after=3&span=hour")
        );
        assert_eq!(
            of("/v1/x?n%6Fde=a%20b&c=%26&nodes=1"),
            some("a b", "/v1/x?c=%26&nodes=1")
        );
        assert_eq!(of("/v1/x?node="), some("", "/v1/x"));
        assert!(taken_out(&"/v1/x?node=a&node=b".parse().expect("a path")).is_err());
        assert!(taken_out(&"/v1/x?node=%zz".parse().expect("a path")).is_err());
    }
}
