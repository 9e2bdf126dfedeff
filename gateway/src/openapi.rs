//! The HTTP surface as an OpenAPI 3.1 document, and the page that shows it.
//!
//! The functions here are never called: each carries the description of one route. A test holds them against the routes
//! that the server really has.
#![expect(dead_code, reason = "routes are described here, not served")]

use crate::server::App;
use axum::Router;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};
use utoipa_swagger_ui::SwaggerUi;

/// `/openapi.json`, and `/docs` with everything it needs: nothing is fetched from elsewhere.
pub(crate) fn routes() -> Router<App> {
    SwaggerUi::new("/docs").url("/openapi.json", Document::openapi()).into()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidings",
        description = "Tells people which of the things they watch have changed. Versions are microseconds since the Unix \
                       epoch, strictly increasing per object, below 2^53. Wherever JSON is read or written, MessagePack of \
                       the same shapes is too (`application/msgpack`).",
    ),
    paths(
        publish, object, poll, poll_by_query, sessions, events, events_by_body, ws, connections, connection,
        close_connection, explain, cluster, healthz, readyz, metrics, tickets, revocations, revoke, reload
    ),
    tags(
        (name = "publish", description = "Say that something changed"),
        (name = "subscribe", description = "Hear of it"),
        (name = "operate", description = "Look after the server"),
    ),
    security((), ("bearer" = [])),
    modifiers(&Bearer)
)]
pub(crate) struct Document;

/// A token or API key, where the server has a policy.
struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// An object ID: 1 to 255 bytes of UTF-8 without control characters, compared byte for byte.
#[derive(Serialize, ToSchema)]
#[schema(example = "order:42")]
struct ObjectId(String);

/// One change to publish.
#[derive(Serialize, ToSchema)]
struct Change {
    #[schema(value_type = String, example = "order:42")]
    object: ObjectId,
    /// A short tag, at most 32 bytes.
    #[schema(example = "updated")]
    kind: Option<String>,
    /// Any JSON value of at most 64 KiB.
    #[schema(value_type = Option<Object>)]
    data: Option<()>,
    /// The publisher's own number of this state of the object, below 2^53. One at or below the last changes nothing.
    revision: Option<u64>,
}

/// One change, or a list of them.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum PublishRequest {
    One(Change),
    Several { changes: Vec<Change> },
}

/// What became of one change.
#[derive(Serialize, ToSchema)]
struct Published {
    /// The version the change got.
    #[schema(example = 1_795_170_000_000_000_u64)]
    version: Option<u64>,
    /// Present and true if it had happened already: nobody was notified again.
    duplicate: Option<bool>,
    /// With `trace=1`: the object's shard.
    shard: Option<u16>,
    /// With `trace=1`: the epoch of its owner.
    epoch: Option<u64>,
    /// Instead of all others, in a list: why this change was refused.
    error: Option<ChangeError>,
}

/// Why one change of several was refused.
#[derive(Serialize, ToSchema)]
struct ChangeError {
    #[schema(example = "invalid_object")]
    code: String,
    message: String,
    retryable: bool,
    /// `no` or `unknown`.
    applied: String,
}

/// The answer to one change, to a list, or to a stream of lines.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum PublishAnswer {
    One(Published),
    Several {
        results: Vec<Published>,
    },
    Lines {
        accepted: u64,
        rejected: u64,
        duplicates: Option<u64>,
        errors: Vec<LineError>,
        version: Option<u64>,
    },
}

/// One of the first hundred refused lines.
#[derive(Serialize, ToSchema)]
struct LineError {
    line: u64,
    code: String,
    message: String,
    retryable: bool,
    applied: String,
}

/// An RFC 9457 problem document.
#[derive(Serialize, ToSchema)]
struct Problem {
    #[schema(example = "urn:tidings:problem:invalid_object")]
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    /// Stable, snake_case.
    code: String,
    /// Whether the same request may succeed later.
    retryable: bool,
    /// Of a publish: whether it may have happened, `no` or `unknown`.
    applied: Option<String>,
}

/// An object to watch: its ID, or a map that says more.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Entry {
    Id(String),
    Known {
        object: String,
        /// The version the client knows already.
        version: Option<u64>,
        /// A version that the answer must include; else the object is refused with `not_yet`.
        at_least: Option<u64>,
    },
}

/// A long-poll.
#[derive(Serialize, ToSchema)]
struct PollRequest {
    /// What to watch; may be left out with a `session`.
    objects: Option<Vec<Entry>>,
    /// From the last answer. Without it the answer comes at once, with a cursor and no changes.
    cursor: Option<String>,
    /// Saves sending the list again.
    session: Option<String>,
    /// How long to wait for a change, 0 to 60000.
    #[schema(example = 25_000)]
    wait_ms: Option<u64>,
    /// Objects to add to the session's list.
    add: Option<Vec<Entry>>,
    /// Objects to take from the session's list.
    remove: Option<Vec<Entry>>,
}

/// A list of objects to watch as an event stream.
#[derive(Serialize, ToSchema)]
struct EventsRequest {
    objects: Option<Vec<Entry>>,
    cursor: Option<String>,
    session: Option<String>,
}

/// A list of objects to keep.
#[derive(Serialize, ToSchema)]
struct SessionRequest {
    objects: Vec<Entry>,
}

/// A list that is kept under a name.
#[derive(Serialize, ToSchema)]
struct Session {
    session: String,
}

/// Something changed.
#[derive(Serialize, ToSchema)]
struct Changed {
    object: String,
    version: u64,
    kind: Option<String>,
    #[schema(value_type = Option<Object>)]
    data: Option<()>,
}

/// These objects may have changed: fetch them.
#[derive(Serialize, ToSchema)]
struct Resync {
    objects: Option<Vec<String>>,
    all: Option<bool>,
    cause: String,
}

/// An object that is not watched, and why.
#[derive(Serialize, ToSchema)]
struct Refused {
    object: String,
    error: ChangeError,
}

/// What a long-poll brings.
#[derive(Serialize, ToSchema)]
struct PollAnswer {
    changes: Vec<Changed>,
    resync: Option<Resync>,
    refused: Vec<Refused>,
    /// For the next poll. Opaque; at most 2 KiB.
    cursor: String,
    session: Option<String>,
    /// Poll again at once: there is more.
    more: Option<bool>,
    /// The server is busy: wait this long before the next poll.
    poll_after_ms: Option<u64>,
}

/// The cluster as one node sees it.
#[derive(Serialize, ToSchema)]
struct Cluster {
    /// Its identity; empty before there is one.
    cluster: String,
    /// What it is called.
    name: String,
    /// The node that answers.
    node: String,
    nodes: Vec<ClusterNode>,
    /// Those that have or had an owner.
    shards: Vec<ClusterShard>,
    /// In a cluster only, as all below: counts the changes of nodes and shards.
    revision: Option<u64>,
    /// No version above was ever allowed.
    ceiling: Option<u64>,
    /// Counts the offices of leaders.
    term: Option<u64>,
    /// The id of the node that leads the control plane.
    leader: Option<String>,
    shard_count: Option<u64>,
    /// How long this node may give versions without hearing from the leader.
    lease_left_ms: Option<u64>,
    /// A quorum confirmed the map since this node started.
    confirmed: Option<bool>,
}

/// A node as another knows it.
#[derive(Serialize, ToSchema)]
struct ClusterNode {
    /// Its name; its id where nobody named it.
    node: String,
    id: Option<String>,
    /// Higher with each start.
    incarnation: Option<u64>,
    /// Where clients reach it, `host:port`.
    address: String,
    client_url: Option<String>,
    node_address: Option<String>,
    /// `edge`, `owner`, `voter`.
    roles: Vec<String>,
    zone: String,
    /// As gossip says.
    alive: bool,
    voter: bool,
    leader: bool,
    draining: bool,
    /// Whether the cluster agreed on it; else it is on its way in.
    member: bool,
    /// Of the node that answers only.
    threads: Option<u64>,
    /// Of the node that answers only.
    uptime_ms: Option<u64>,
}

/// A slice of the hash space.
#[derive(Serialize, ToSchema)]
struct ClusterShard {
    shard: u16,
    owner: String,
    owner_id: Option<String>,
    /// Counts its owners.
    epoch: u64,
    /// Below, nobody can vouch for it.
    floor: u64,
    /// Why the floor is where it is.
    cause: Option<String>,
    /// Who else has everything that was acknowledged.
    copies: Vec<String>,
    /// Its owner lives and is the process it was assigned to.
    owned: bool,
}

#[utoipa::path(post, path = "/v1/publish", tag = "publish",
    params(
        ("object" = Option<Vec<String>>, Query, description = "Instead of a body: what changed, also repeated", example = json!(["order:42"])),
        ("kind" = Option<String>, Query, description = "With `object`: a tag for all of them"),
        ("revision" = Option<u64>, Query, description = "With `object`: a revision for all of them"),
        ("ack" = Option<String>, Query, description = "`accepted`, `replicated` (default) or `durable`"),
        ("timeout_ms" = Option<u64>, Query, description = "Within which the publish is answered; 4000 if not said"),
        ("trace" = Option<u8>, Query, description = "1 adds shard and epoch to the answer"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeat within 5 minutes gets the first answer and notifies nobody"),
    ),
    request_body(content(
        (PublishRequest = "application/json"),
        (PublishRequest = "application/msgpack"),
        (Change = "application/x-ndjson"),
    ), description = "One change, a list of at most 10,000 and 4 MiB, or a stream of any length with one change a line"),
    responses(
        (status = 200, description = "What became of each change", body = PublishAnswer),
        (status = 400, description = "Bad input", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body did not arrive in time", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The acknowledgement asked for cannot be given", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too large or too many", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not a content type it reads", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not now; nothing happened", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "It may have happened", body = Problem, content_type = "application/problem+json"),
    ))]
fn publish() {}

#[utoipa::path(get, path = "/v1/object", tag = "publish",
    params(("object" = String, Query, description = "The object")),
    responses((status = 200, description = "Its version (null where none is known), shard, owner and number of subscribers"),
        (status = 400, description = "Not an object", body = Problem, content_type = "application/problem+json")))]
fn object() {}

#[utoipa::path(post, path = "/v1/poll", tag = "subscribe", request_body = PollRequest,
    responses((status = 200, description = "What changed", body = PollAnswer),
        (status = 400, description = "Bad input", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A newer poll of the session took over", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The session is not known here: send the list again", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too many objects", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many sessions", body = Problem, content_type = "application/problem+json")))]
fn poll() {}

#[utoipa::path(get, path = "/v1/poll", operation_id = "poll_by_query", tag = "subscribe",
    params(
        ("object" = Option<Vec<String>>, Query, description = "What to watch, also repeated"),
        ("session" = Option<String>, Query, description = "Instead of objects"),
        ("cursor" = Option<String>, Query, description = "From the last answer"),
        ("wait_ms" = Option<u64>, Query, description = "How long to wait for a change, 0 to 60000; 25000 if not said"),
    ),
    responses((status = 200, description = "What changed", body = PollAnswer),
        (status = 410, description = "The session is not known here", body = Problem, content_type = "application/problem+json")))]
fn poll_by_query() {}

#[utoipa::path(post, path = "/v1/sessions", tag = "subscribe", request_body = SessionRequest,
    responses((status = 201, description = "The list is kept under this name", body = Session),
        (status = 413, description = "Too many objects", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many sessions", body = Problem, content_type = "application/problem+json")))]
fn sessions() {}

#[utoipa::path(get, path = "/v1/events", tag = "subscribe",
    params(
        ("object" = Option<Vec<String>>, Query, description = "What to watch, also repeated"),
        ("session" = Option<String>, Query, description = "Instead of objects"),
        ("cursor" = Option<String>, Query, description = "Where to go on, if there is no Last-Event-ID"),
        ("Last-Event-ID" = Option<String>, Header, description = "Where to go on; EventSource sends it by itself"),
    ),
    responses((status = 200, description = "Changes as default events, a cursor as `id`; named events hello, resync, refused, stale, reconnect, session_unknown",
        body = String, content_type = "text/event-stream")))]
fn events() {}

#[utoipa::path(post, path = "/v1/events", operation_id = "events_by_body", tag = "subscribe", request_body = EventsRequest,
    responses((status = 200, description = "As with GET", body = String, content_type = "text/event-stream")))]
fn events_by_body() {}

#[utoipa::path(get, path = "/v1/ws", tag = "subscribe",
    responses((status = 101, description = "A WebSocket with the subprotocol tidings.v1.json or tidings.v1.msgpack; its messages are described in the protocol document")))]
fn ws() {}

#[utoipa::path(get, path = "/v1/connections", tag = "operate",
    responses((status = 200, description = "The subscribers connected to this node")))]
fn connections() {}

#[utoipa::path(get, path = "/v1/connections/{connection}", tag = "operate",
    params(("connection" = String, Path, description = "As told in `hello`")),
    responses((status = 200, description = "One subscriber and what it watches"),
        (status = 404, description = "No such connection", body = Problem, content_type = "application/problem+json")))]
fn connection() {}

#[utoipa::path(delete, path = "/v1/connections/{connection}", operation_id = "close_connection", tag = "operate",
    params(("connection" = String, Path, description = "As told in `hello`")),
    responses((status = 204, description = "It is closed with code 4506"),
        (status = 404, description = "No such connection", body = Problem, content_type = "application/problem+json")))]
fn close_connection() {}

#[utoipa::path(get, path = "/v1/explain", tag = "operate",
    params(("connection" = String, Query, description = "A subscriber"), ("object" = String, Query, description = "An object")),
    responses((status = 200, description = "Why this subscriber did or did not hear of this object"),
        (status = 404, description = "No such connection", body = Problem, content_type = "application/problem+json")))]
fn explain() {}

#[utoipa::path(get, path = "/v1/cluster", tag = "operate",
    responses((status = 200, description = "Nodes, and for each shard its owner, epoch and floor; in a cluster also what was agreed and how long this node may act on it", body = Cluster)))]
fn cluster() {}

#[utoipa::path(get, path = "/healthz", tag = "operate", responses((status = 200, description = "Alive", body = String)))]
fn healthz() {}

#[utoipa::path(get, path = "/readyz", tag = "operate",
    responses((status = 200, description = "Fit to serve"), (status = 503, description = "Not fit, and why")))]
fn readyz() {}

#[utoipa::path(get, path = "/metrics", tag = "operate",
    responses((status = 200, description = "Counters and gauges in the OpenMetrics text format",
        body = String, content_type = "application/openmetrics-text")))]
fn metrics() {}

/// In place of a token, for an EventSource.
#[derive(Serialize, ToSchema)]
struct Ticket {
    ticket: String,
    #[schema(example = 60_000)]
    open_within_ms: u64,
}

/// Which tokens count no more: one of `subject`, `token` and `everybody`.
#[derive(Serialize, ToSchema)]
struct Revocation {
    subject: Option<String>,
    /// The token's `jti`.
    token: Option<String>,
    everybody: Option<bool>,
    /// Of this issuer only.
    issuer: Option<String>,
    /// Tokens issued up to then, in seconds since the Unix epoch; now if not said.
    issued_to: Option<u64>,
}

#[utoipa::path(post, path = "/v1/tickets", tag = "subscribe",
    responses((status = 201, description = "For one event stream", body = Ticket),
        (status = 401, description = "Not authenticated", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Nobody has to authenticate here", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The token is too long for a URL", body = Problem, content_type = "application/problem+json")))]
fn tickets() {}

#[utoipa::path(get, path = "/v1/revocations", tag = "operate",
    responses((status = 200, description = "Those in force"),
        (status = 404, description = "Nobody has to authenticate here", body = Problem, content_type = "application/problem+json")))]
fn revocations() {}

#[utoipa::path(post, path = "/v1/revocations", operation_id = "revoke", tag = "operate", request_body = Revocation,
    responses((status = 204, description = "These tokens count no more, on any node"),
        (status = 400, description = "Not one thing is named", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Nobody has to authenticate here", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many are in force", body = Problem, content_type = "application/problem+json")))]
fn revoke() {}

#[utoipa::path(post, path = "/v1/reload", tag = "operate",
    responses((status = 204, description = "Policy and certificate were read again"),
        (status = 400, description = "They make no sense; nothing was changed", body = Problem, content_type = "application/problem+json")))]
fn reload() {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ask, node};

    #[test]
    fn every_described_route_is_served() {
        let node = node(|_| {});
        let document = serde_json::to_value(Document::openapi()).expect("JSON");
        let mut count = 0;
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for method in methods.as_object().expect("methods").keys() {
                let line = format!("{} {}", method.to_uppercase(), path.replace("{connection}", "0-0-0"));
                let answer = ask(
                    node.addr,
                    &format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
                );
                let unknown =
                    answer.status == 404 && answer.json()["detail"].as_str().unwrap_or("").starts_with("no route");
                assert!(
                    !unknown && answer.status != 405 && answer.status < 500,
                    "{line}: {answer:?}"
                );
                count += 1;
            }
        }
        assert_eq!(count, 20);
    }

    #[test]
    fn the_page_of_documents_refers_to_nothing_elsewhere() {
        let node = node(|_| {});
        let answer = ask(node.addr, "GET /docs/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let page = String::from_utf8(answer.body).expect("text");
        assert_eq!(answer.status, 200);
        assert!(page.contains("swagger-ui-bundle.js") && !page.contains("://"), "{page}");
    }
}
