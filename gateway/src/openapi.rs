//! The HTTP surface as an OpenAPI 3.1 document, and the page that shows it.
//!
//! The functions here are never called: each carries the description of one route. A test holds them against the routes
//! that the server really has.
#![expect(dead_code, reason = "routes are described here, not served")]

mod shapes;

use crate::server::App;
use axum::Router;
use shapes::{
    Change, Cluster, CopiesOrder, CopiesWanted, DrainOrder, EventsRequest, MoveOrder, NodeLeft, NodeRemoved,
    PollAnswer, PollRequest, Problem, PublishAnswer, PublishRequest, Reloaded, RemoveOrder, Revocation, Session,
    SessionRequest, ShardMoved, SubjectDisconnect, SubjectDone, SubjectObjects, Ticket,
};
use utoipa::OpenApi;
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
        close_connection, connection_objects, explain, cluster, cluster_map, cluster_events, cluster_figures, live, drain, relocate, remove, copies,
        healthz, readyz, metrics, tickets, revocations, revoke, reload, subject_subscribe, subject_unsubscribe, subject_disconnect
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
        (status = 410, description = "The session is not known here", body = Problem, content_type = "application/problem+json"),
        (status = 400, description = "Bad input", body = Problem, content_type = "application/problem+json")))]
fn poll_by_query() {}

#[utoipa::path(post, path = "/v1/sessions", tag = "subscribe", request_body = SessionRequest,
    responses((status = 201, description = "The list is kept under this name", body = Session),
        (status = 413, description = "Too many objects", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many sessions", body = Problem, content_type = "application/problem+json"),
        (status = 400, description = "Bad input", body = Problem, content_type = "application/problem+json")))]
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
    params(
        ("search" = Option<String>, Query, description = "Part of a connection's name or address"),
        ("watching" = Option<String>, Query, description = "Only those that watch this object"),
        ("transport" = Option<String>, Query, description = "`websocket`, `sse`, `poll` or `session`"),
        ("behind" = Option<u8>, Query, description = "1: only those that have something to be told yet, or do not read"),
        ("order" = Option<String>, Query, description = "The first `limit` of all by `pending`, `lag`, `objects`, `told` or `oldest`; then there are no pages"),
        ("after" = Option<String>, Query, description = "From the last answer: the next page"),
        ("limit" = Option<u16>, Query, description = "At most so many, 1 to 1000; 100 if not said"),
        ("node" = Option<String>, Query, description = "The name of the node they are at, this one if not said; `*`: all nodes, with a limit of at most 100 and without pages"),
    ),
    responses((status = 200, description = "The subscribers connected to the node, or to all"),
        (status = 400, description = "No such order, transport or page", body = Problem, content_type = "application/problem+json")))]
fn connections() {}

#[utoipa::path(get, path = "/v1/connections/{connection}", tag = "operate",
    params(("connection" = String, Path, description = "As told in `hello`"),
        ("objects" = Option<u16>, Query, description = "How many of its objects are named, at most 10000"),
        ("node" = Option<String>, Query, description = "The name of the node it is at, this one if not said")),
    responses((status = 200, description = "One subscriber and what it watches"),
        (status = 404, description = "No such connection", body = Problem, content_type = "application/problem+json"),
        (status = 400, description = "Bad input", body = Problem, content_type = "application/problem+json")))]
fn connection() {}

#[utoipa::path(delete, path = "/v1/connections/{connection}", operation_id = "close_connection", tag = "operate",
    params(("connection" = String, Path, description = "As told in `hello`"),
        ("node" = Option<String>, Query, description = "The name of the node it is at, this one if not said")),
    responses((status = 204, description = "It is closed with code 4506"),
        (status = 404, description = "No such connection", body = Problem, content_type = "application/problem+json")))]
fn close_connection() {}

#[utoipa::path(get, path = "/v1/connections/{connection}/objects", operation_id = "connection_objects", tag = "operate",
    params(("connection" = String, Path, description = "As told in `hello`"),
        ("search" = Option<String>, Query, description = "Part of an object's ID"),
        ("behind" = Option<u8>, Query, description = "1: only those it has yet to be told of"),
        ("after" = Option<u32>, Query, description = "From the last answer: the next page"),
        ("limit" = Option<u16>, Query, description = "At most so many, 1 to 1000; 100 if not said"),
        ("node" = Option<String>, Query, description = "The name of the node it is at, this one if not said")),
    responses((status = 200, description = "What it watches, and how far it was told of each"),
        (status = 404, description = "No such connection", body = Problem, content_type = "application/problem+json"),
        (status = 400, description = "Bad input", body = Problem, content_type = "application/problem+json")))]
fn connection_objects() {}

#[utoipa::path(get, path = "/v1/explain", tag = "operate",
    params(("connection" = String, Query, description = "A subscriber"), ("object" = String, Query, description = "An object"),
        ("node" = Option<String>, Query, description = "The name of the node it is at, this one if not said")),
    responses((status = 200, description = "Why this subscriber did or did not hear of this object"),
        (status = 404, description = "No such connection", body = Problem, content_type = "application/problem+json"),
        (status = 400, description = "Bad input", body = Problem, content_type = "application/problem+json")))]
fn explain() {}

#[utoipa::path(get, path = "/v1/cluster", tag = "operate",
    responses((status = 200, description = "Nodes, and for each shard its owner, epoch and floor; in a cluster also what was agreed and how long this node may act on it", body = Cluster)))]
fn cluster() {}

#[utoipa::path(get, path = "/v1/cluster/map", operation_id = "cluster_map", tag = "operate",
    responses((status = 200, description = "As /v1/cluster, with the shards as columns of a few bytes each")))]
fn cluster_map() {}

#[utoipa::path(get, path = "/v1/cluster/events", operation_id = "cluster_events", tag = "operate",
    params(("after" = Option<u64>, Query, description = "`next` of the last answer: only what began or grew since"),
        ("limit" = Option<u16>, Query, description = "At most so many, 1 to 500; 100 if not said")),
    responses((status = 200, description = "What became of nodes and shards since this node started, newest first"),
        (status = 400, description = "Bad input", body = Problem, content_type = "application/problem+json")))]
fn cluster_events() {}

#[utoipa::path(get, path = "/v1/cluster/figures", operation_id = "cluster_figures", tag = "operate",
    params(("order" = Option<String>, Query, description = "A figure, as `published` or `memory`: where it is highest comes first, behind nodes that do not answer or are not ready"),
        ("search" = Option<String>, Query, description = "Part of a node's name"),
        ("limit" = Option<u16>, Query, description = "At most so many nodes, 1 to 1000; 1000 if not said")),
    responses((status = 200, description = "The newest figures of each node, its lease, and its limit that is fullest"),
        (status = 400, description = "No such figure", body = Problem, content_type = "application/problem+json")))]
fn cluster_figures() {}

#[utoipa::path(get, path = "/v1/live", tag = "operate",
    params(("span" = Option<String>, Query, description = "`minutes` (default) or `hour`"),
        ("after" = Option<u64>, Query, description = "`next` of the last answer: only the points that came since"),
        ("since_ms" = Option<u64>, Query, description = "In place of `after`: the points since this moment, in milliseconds since 1970"),
        ("newest" = Option<u8>, Query, description = "1: the newest point alone"),
        ("node" = Option<String>, Query, description = "The name of a node, this one if not said; `*`: all nodes added up, where of delays the slowest node counts")),
    responses((status = 200, description = "The node's figures over the last five minutes or the last hour, its limits and how full they are"),
        (status = 400, description = "Bad input", body = Problem, content_type = "application/problem+json")))]
fn live() {}

#[utoipa::path(post, path = "/v1/cluster/drain", tag = "operate", request_body = DrainOrder,
    responses((status = 200, description = "Agreed. What the node has yet to give up", body = NodeLeft),
        (status = 400, description = "Not an order", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such node", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not as things are; nothing was changed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Nobody leads; nothing was changed", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "It may have been carried out", body = Problem, content_type = "application/problem+json")))]
fn drain() {}

#[utoipa::path(post, path = "/v1/cluster/move", tag = "operate", request_body = MoveOrder, operation_id = "move_shard",
    responses((status = 200, description = "Agreed. It goes as soon as the target has a copy", body = ShardMoved),
        (status = 400, description = "Not an order", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such node or shard", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not as things are; nothing was changed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Nobody leads; nothing was changed", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "It may have been carried out", body = Problem, content_type = "application/problem+json")))]
fn relocate() {}

#[utoipa::path(post, path = "/v1/cluster/remove", tag = "operate", request_body = RemoveOrder,
    responses((status = 200, description = "It is forgotten", body = NodeRemoved),
        (status = 202, description = "Some of its shards are yet to get another owner: order it again", body = NodeRemoved),
        (status = 400, description = "Not an order", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such node", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not as things are; nothing was changed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Nobody leads; nothing was changed", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "It may have been carried out", body = Problem, content_type = "application/problem+json")))]
fn remove() {}

#[utoipa::path(post, path = "/v1/cluster/copies", tag = "operate", request_body = CopiesOrder,
    responses((status = 200, description = "Agreed", body = CopiesWanted),
        (status = 400, description = "Not an order", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such node", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not as things are; nothing was changed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Nobody leads; nothing was changed", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "It may have been carried out", body = Problem, content_type = "application/problem+json")))]
fn copies() {}

#[utoipa::path(get, path = "/healthz", tag = "operate", responses((status = 200, description = "Alive", body = String)))]
fn healthz() {}

#[utoipa::path(get, path = "/readyz", tag = "operate",
    responses((status = 200, description = "Fit to serve"), (status = 503, description = "Not fit, and why")))]
fn readyz() {}

#[utoipa::path(get, path = "/metrics", tag = "operate",
    responses((status = 200, description = "Counters and gauges in the OpenMetrics text format, or in Prometheus' own for who accepts only `text/plain`",
        body = String, content_type = "application/openmetrics-text")))]
fn metrics() {}

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
    responses((status = 200, description = "Configuration, policy, certificate and log filter were read again", body = Reloaded),
        (status = 400, description = "Something in them makes no sense; nothing was changed", body = Problem, content_type = "application/problem+json")))]
fn reload() {}

#[utoipa::path(post, path = "/v1/subjects/subscribe", tag = "operate", request_body = SubjectObjects,
    responses((status = 200, description = "What was done on each node", body = SubjectDone),
        (status = 400, description = "Bad input", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Nobody has to authenticate here", body = Problem, content_type = "application/problem+json")))]
fn subject_subscribe() {}

#[utoipa::path(post, path = "/v1/subjects/unsubscribe", tag = "operate", request_body = SubjectObjects,
    responses((status = 200, description = "What was done on each node", body = SubjectDone),
        (status = 400, description = "Bad input", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Nobody has to authenticate here", body = Problem, content_type = "application/problem+json")))]
fn subject_unsubscribe() {}

#[utoipa::path(post, path = "/v1/subjects/disconnect", tag = "operate", request_body = SubjectDisconnect,
    responses((status = 200, description = "What was done on each node", body = SubjectDone),
        (status = 400, description = "Bad input", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Nobody has to authenticate here", body = Problem, content_type = "application/problem+json")))]
fn subject_disconnect() {}

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
        assert_eq!(count, 32);
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
