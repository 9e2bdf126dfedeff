//! One connection: HTTP/1.1 on a guarded stream, the gate before every request.

use super::App;
use super::accept::{Accepted, turn_away};
use super::admission::{Permit, Place};
use super::gate::Gate;
use super::guard::{Carrier, Deadlines, GuardedStream, Watch};
use super::proxied;
use super::tls::Tls;
use crate::auth::{self, Caller};
use crate::problem::{Refusal, in_a_stream, is_event_source};
use crate::publish;
use crate::telemetry::{GateRefusal, Limit};
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tidings_protocol::Code;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

/// Who is at the other end; in the extensions of every request. Behind a proxy that is believed it is whom that one saw; the
/// port is 0 where it did not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// The place of somebody behind a proxy among those of one address; in the extensions of their requests. A request holds it
/// until its answer is out; what outlives the request keeps it.
#[derive(Clone, Debug)]
pub struct Behind(#[expect(dead_code, reason = "held, and given back when dropped")] Arc<Place>);

/// What all connections of one thread share.
#[derive(Debug)]
pub struct Http {
    app: App,
    router: Router,
    gate: Arc<Gate>,
    builder: http1::Builder,
    tls: Option<Arc<Tls>>,
    tracker: TaskTracker,
    draining: CancellationToken,
}

impl Http {
    /// Serves `router` on one thread, through TLS if there is any.
    #[must_use]
    pub fn new(app: App, router: Router, gate: Arc<Gate>, tls: Option<Arc<Tls>>) -> Rc<Self> {
        let limits = &app.node.config.limits;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut builder = http1::Builder::new();
        builder
            .max_headers(size(limits.headers))
            .max_header_size(size(limits.header_bytes))
            // Also the size of reads of a body: a firehose wants them large.
            .max_buf_size(size(limits.header_bytes).max(128 * 1024))
            .header_read_timeout(None);
        Rc::new(Self {
            app,
            router,
            gate,
            builder,
            tls,
            tracker: TaskTracker::new(),
            draining: CancellationToken::new(),
        })
    }

    /// Serves one connection in a task of its own, inside the thread's `LocalSet`.
    pub fn spawn(self: &Rc<Self>, accepted: Accepted) {
        let Accepted {
            stream,
            peer,
            permit,
            operator,
        } = accepted;
        let mut whose = Whose { peer, permit, operator };
        let Ok(stream) = TcpStream::from_std(stream) else {
            return;
        };
        let local = self
            .gate
            .wants_local_address()
            .then(|| stream.local_addr().ok())
            .flatten();
        let http = Rc::clone(self);
        self.tracker.spawn_local(async move {
            let Some(stream) = http.introduced(stream, &mut whose).await else {
                return;
            };
            let Some(carrier) = http.carrier(stream).await else {
                return;
            };
            let proxied = http.app.node.admission.proxies().trusts(whose.peer.ip());
            let metrics = Arc::clone(&http.app.node.metrics);
            let deadlines = Deadlines::new(&http.app.node.live().limits);
            let stream = GuardedStream::new(carrier, deadlines, metrics, whose.permit);
            let watch = stream.watch();
            let service = ConnectionService(Rc::new(ConnectionShared {
                http: Rc::clone(&http),
                watch: Arc::clone(&watch),
                peer: whose.peer,
                proxied,
                local: local.map(|local| local.ip()),
            }));
            let connection = http
                .builder
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::pin!(connection);
            let result = tokio::select! {
                biased;
                result = connection.as_mut() => result,
                () = http.draining.cancelled() => {
                    if watch.silent() {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = result {
                if error.is_parse_too_large() {
                    http.app.node.metrics.refused(Limit::HeaderBytes);
                }
                tracing::debug!(%error, "a connection ended");
            }
        });
    }

    /// What follows the header of the PROXY protocol, if the connection must have one; from then on it counts as that of whom the
    /// proxy saw. `None`: it is not taken.
    async fn introduced(&self, mut stream: TcpStream, whose: &mut Whose) -> Option<TcpStream> {
        let node = &self.app.node;
        let speaks = node.config.server.proxy_protocol && !whose.operator;
        if !speaks || !node.admission.proxies().trusts(whose.peer.ip()) {
            return Some(stream);
        }
        let within = Duration::from_millis(node.live().limits.head_ms);
        let seen = tokio::select! {
            biased;
            () = self.draining.cancelled() => return None,
            seen = tokio::time::timeout(within, proxied::read(&mut stream)) => seen,
        };
        match seen {
            Ok(Ok(None)) => Some(stream),
            Ok(Ok(Some(seen))) => {
                whose.peer = seen;
                let Err(limit) = whose.permit.stands_for(seen.ip()) else {
                    return Some(stream);
                };
                if let (None, Ok(stream)) = (&self.tls, stream.into_std()) {
                    turn_away(stream, limit);
                }
                None
            }
            Ok(Err(error)) => {
                node.metrics.gate_refused(GateRefusal::Proxy);
                tracing::debug!(%error, "a proxy's connection was not taken");
                None
            }
            Err(_) => {
                node.metrics.refused(Limit::Head);
                None
            }
        }
    }

    /// The connection's bytes: after a handshake, where TLS is spoken. `None`: it did not come to one.
    async fn carrier(&self, stream: TcpStream) -> Option<Carrier> {
        let Some(tls) = &self.tls else {
            return Some(Carrier::Plain(stream));
        };
        let node = &self.app.node;
        let within = Duration::from_millis(node.live().limits.tls_handshake_ms);
        tokio::select! {
            biased;
            () = self.draining.cancelled() => None,
            shaken = tokio::time::timeout(within, tls.acceptor().accept(stream)) => match shaken {
                Ok(Ok(stream)) => Some(Carrier::Tls(Box::new(stream))),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a handshake of TLS failed");
                    None
                }
                Err(_) => {
                    node.metrics.refused(Limit::TlsHandshake);
                    None
                }
            },
        }
    }

    /// Lets requests in flight be answered and returns when all connections have ended.
    pub async fn drain(&self) {
        self.draining.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Whose connection it is.
struct Whose {
    peer: SocketAddr,
    permit: Permit,
    operator: bool,
}

struct ConnectionShared {
    http: Rc<Http>,
    watch: Arc<Watch>,
    peer: SocketAddr,
    /// The peer is a proxy that is believed.
    proxied: bool,
    local: Option<IpAddr>,
}

struct ConnectionService(Rc<ConnectionShared>);

impl hyper::service::Service<Request<Incoming>> for ConnectionService {
    type Response = http::Response<GuardedBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let shared = Rc::clone(&self.0);
        let length = shared.watch.request_began();
        Box::pin(async move {
            let (response, behind) = shared.answer(request, length).await;
            let watch = Arc::clone(&shared.watch);
            if response.status().is_client_error() {
                tracing::debug!(peer = %shared.peer, status = response.status().as_u16(), "a request was refused");
            }
            Ok(response.map(|body| GuardedBody {
                body,
                watch,
                _behind: behind,
            }))
        })
    }
}

impl ConnectionShared {
    async fn answer(&self, request: Request<Incoming>, length: Option<bool>) -> (Response, Option<Behind>) {
        let event_source = is_event_source(&request);
        match self.answer_plainly(request, length).await {
            (response, behind) if event_source => (in_a_stream(response), behind),
            answered => answered,
        }
    }

    async fn answer_plainly(&self, mut request: Request<Incoming>, length: Option<bool>) -> (Response, Option<Behind>) {
        let Http { app, gate, .. } = &*self.http;
        app.node.metrics.requests.inc();
        // Bytes of a body that nobody reads must not be taken for the next request: then the connection ends.
        let has_body = !request.body().is_end_stream();
        let passage = match gate.check(&request, length, self.local, &app.node.metrics) {
            Ok(passage) => passage,
            Err(refusal) => return (refusal.closing_if(has_body).into_response(), None),
        };
        let takes_cookie = gate.takes_cookie(&request);
        let behind = match self.behind(&mut request) {
            Ok(behind) => behind,
            Err(refusal) => {
                let mut response = refusal.closing_if(has_body).into_response();
                passage.finish(response.headers_mut(), takes_cookie);
                return (response, None);
            }
        };
        let mut response = if let Some(response) = Gate::preflight(&request, &passage) {
            closing_if(has_body, response)
        } else {
            match auth::admit(app.node.auth.as_deref(), &request) {
                Ok(caller) => self.route(request, caller, has_body).await,
                Err(refusal) => refusal.closing_if(has_body).into_response(),
            }
        };
        passage.finish(response.headers_mut(), takes_cookie);
        (response, behind)
    }

    /// Who is at the other end: the peer, or whom a proxy saw, and then with a place of theirs.
    fn behind(&self, request: &mut Request<Incoming>) -> Result<Option<Behind>, Refusal> {
        let (mut peer, mut behind) = (self.peer, None);
        if self.proxied {
            let admission = &self.http.app.node.admission;
            let client = admission.proxies().client(peer.ip(), request.headers());
            if client != peer.ip() {
                peer = SocketAddr::new(client, 0);
            }
            let stays = matches!(request.uri().path(), "/v1/ws" | "/v1/events");
            let arrived = if stays { admission.arrive(client) } else { Ok(()) };
            let place = arrived.and_then(|()| admission.place(client)).map_err(|limit| {
                let detail = format!("too many connections and requests (limits.{})", limit.name());
                Refusal::new(Code::TooMany, detail)
            })?;
            let place = Behind(Arc::new(place));
            request.extensions_mut().insert(place.clone());
            behind = Some(place);
        }
        request.extensions_mut().insert(PeerAddress(peer));
        Ok(behind)
    }

    async fn route(&self, mut request: Request<Incoming>, caller: Caller, has_body: bool) -> Response {
        let Http { app, router, .. } = &*self.http;
        if request.uri().path() == publish::PATH {
            // The busiest route does without the router's layers, and closes where it leaves a body unread.
            publish::answer(app, &caller, request).await
        } else {
            request.extensions_mut().insert(caller);
            let reads_body = request.method() == Method::POST;
            let response = match router.clone().call(request.map(Body::new)).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let unread = has_body && !(reads_body && response.status().is_success());
            closing_if(unread, response)
        }
    }
}

fn closing_if(unread: bool, mut response: Response) -> Response {
    if unread {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// An answer's body that tells the guard when it was handed over.
#[derive(Debug)]
pub(super) struct GuardedBody {
    body: Body,
    watch: Arc<Watch>,
    _behind: Option<Behind>,
}

impl HttpBody for GuardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for GuardedBody {
    fn drop(&mut self) {
        self.watch.request_ended();
    }
}
