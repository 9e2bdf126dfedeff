//! While a node looks for its cluster: it says so to whoever asks.
//!
//! It lives, is not ready, and can do nothing for anybody yet. Its answers end their connections, so that everybody comes to
//! the node itself once that is there. Connections that nobody has taken wait at the socket for it.

use super::StartError;
use crate::control::{self, ControlError, Formed};
use crate::problem::{Refusal, in_a_stream, is_event_source};
use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONNECTION, HeaderValue};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tidings_protocol::error::{Applied, Code};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

/// Connections answered at one time.
const AT_ONCE: usize = 64;
/// From the connection to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after the system gave no connection.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module. Dropping it gives up.
pub(super) struct Forming {
    /// Where other nodes reach this one.
    pub(super) node_address: SocketAddr,
    stop: Arc<dyn Fn() + Send + Sync>,
    thread: Option<JoinHandle<Result<Formed, ControlError>>>,
}

impl std::fmt::Debug for Forming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forming")
            .field("node_address", &self.node_address)
            .finish_non_exhaustive()
    }
}

impl Forming {
    pub(super) fn begin(starting: control::Starting, listener: std::net::TcpListener) -> Result<Self, StartError> {
        let stop = Arc::new(starting.stopper());
        let node_address = starting.address;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let body = move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                tokio::select! {
                    formed = starting.formed() => formed,
                    never = serve(listener) => match never {},
                }
            })
        };
        let thread = std::thread::Builder::new().name("tidings-forming".to_owned());
        Ok(Self {
            node_address,
            stop,
            thread: Some(thread.spawn(body)?),
        })
    }

    pub(super) fn stopper(&self) -> impl Fn() + Send + Sync + use<> {
        let stop = Arc::clone(&self.stop);
        move || stop()
    }

    /// Waits until the node is part of its cluster.
    pub(super) fn finish(mut self) -> Result<Formed, StartError> {
        let thread = self.thread.take().map(JoinHandle::join);
        match thread {
            Some(Ok(formed)) => Ok(formed?),
            Some(Err(_)) | None => Err(StartError::System(
                "the thread that forms a cluster panicked".to_owned(),
            )),
        }
    }
}

impl Drop for Forming {
    fn drop(&mut self) {
        if self.thread.is_some() {
            (self.stop)();
        }
    }
}

async fn serve(listener: std::net::TcpListener) -> Infallible {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "nobody is answered while this node looks for its cluster");
            return std::future::pending().await;
        }
    };
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(async move {
                    // Whoever is slow loses nothing by coming again.
                    _ = tokio::time::timeout(PATIENCE, connection(stream)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "no connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let mut response = answer(request.uri().path());
        if is_event_source(&request) {
            response = in_a_stream(response);
        }
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        Ok::<_, Infallible>(response)
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection ended");
    }
}

fn answer(path: &str) -> Response<Body> {
    match path {
        "/healthz" => "ok\n".into_response(),
        "/readyz" => {
            let document = serde_json::json!({ "ready": false, "reasons": ["forming"] });
            (
                StatusCode::SERVICE_UNAVAILABLE,
                [(CACHE_CONTROL, "no-store")],
                Json(document),
            )
                .into_response()
        }
        _ => Refusal::new(Code::NoOwner, "this node is not part of its cluster yet")
            .applied(Applied::No)
            .into_response(),
    }
}
