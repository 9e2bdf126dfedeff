//! Sockets: where servers are reached, with which credentials, and plain requests of HTTP/1.1.
//!
//! It does not know what is asked or answered, nor whether to try again.

use crate::address::Address;
use crate::watch::Ended;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// The longest answer that is read whole.
const MAX_ANSWER_BYTES: usize = crate::wire::MAX_MESSAGE_BYTES;

/// The body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

pub(crate) fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Where the present token comes from.
pub(crate) type Token = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// What all connections of a client share.
#[derive(Clone)]
pub(crate) struct Net {
    pub(crate) servers: Arc<[Address]>,
    pub(crate) token: Option<Token>,
    pub(crate) connect_timeout: Duration,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the token.
        f.debug_struct("Net")
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

/// Why there is no answer, or not the one asked for.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// Nothing was sent.
    Unreachable(String),
    /// Something was sent, and nobody knows what became of it.
    Cut(String),
    Refused {
        status: u16,
        retry_after_s: Option<u64>,
        body: Bytes,
    },
    Unusable(String),
}

impl Failure {
    pub(crate) fn ended(&self) -> Ended<'_> {
        match self {
            Self::Unreachable(why) => Ended::Unreachable(why.clone()),
            Self::Cut(why) => Ended::Cut(why.clone()),
            Self::Unusable(why) => Ended::Unusable(why.clone()),
            Self::Refused {
                status,
                retry_after_s,
                body,
            } => Ended::Refused {
                status: *status,
                retry_after_s: *retry_after_s,
                body,
            },
        }
    }
}

impl Net {
    pub(crate) async fn connect(&self, server: usize) -> Result<TcpStream, Failure> {
        let address = &self.servers[server % self.servers.len()];
        let connecting = TcpStream::connect((address.host.as_str(), address.port));
        let unreachable = |why: String| Failure::Unreachable(format!("{}: {why}", address.authority));
        match timeout(self.connect_timeout, connecting).await {
            Ok(Ok(stream)) => {
                // Requests are small and whole: waiting for more to send with them gains nothing.
                _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable("no answer".to_owned())),
        }
    }

    pub(crate) fn address(&self, server: usize) -> &Address {
        &self.servers[server % self.servers.len()]
    }

    /// `Bearer …`, if there is a token.
    pub(crate) fn authorization(&self) -> Option<String> {
        let token = self.token.as_ref().and_then(|token| token())?;
        Some(format!("Bearer {token}"))
    }

    /// A connection for requests.
    pub(crate) async fn open(&self, server: usize) -> Result<Wire, Failure> {
        let stream = self.connect(server).await?;
        let handshake = http1::Builder::new().handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| Failure::Unreachable(error.to_string()))?;
        let task = tokio::spawn(async move { _ = connection.await }).abort_handle();
        Ok(Wire { sender, server, task })
    }

    /// A request for a route of this server.
    ///
    /// # Errors
    /// [`Failure::Unusable`] if a header cannot be written.
    pub(crate) fn request(
        &self,
        server: usize,
        method: Method,
        route: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Request<Body>, Failure> {
        let address = self.address(server);
        let mut request = Request::new(body);
        *request.method_mut() = method;
        let unusable = |_| Failure::Unusable("an address or token with forbidden characters".to_owned());
        *request.uri_mut() = address.target(route).parse().map_err(|error| {
            let error: http::uri::InvalidUri = error;
            Failure::Unusable(error.to_string())
        })?;
        *request.headers_mut() = headers;
        let host = HeaderValue::from_str(&address.authority).map_err(unusable)?;
        request.headers_mut().insert(HOST, host);
        if let Some(authorization) = self.authorization() {
            let mut value = HeaderValue::from_str(&authorization).map_err(unusable)?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }
}

pub(crate) fn json() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}

/// A connection for one request after the other. It is closed when dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    sender: SendRequest<Body>,
    pub(crate) server: usize,
    task: AbortHandle,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    /// Whether it can take another request.
    pub(crate) async fn is_ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends; gives the head of the answer.
    pub(crate) async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        match self.sender.try_send_request(request).await {
            Ok(response) => Ok(response),
            Err(mut error) => {
                let sent = error.take_message().is_none();
                let why = error.into_error().to_string();
                Err(if sent {
                    Failure::Cut(why)
                } else {
                    Failure::Unreachable(why)
                })
            }
        }
    }

    /// Sends; gives the body of a 200 or 201.
    pub(crate) async fn ask(&mut self, request: Request<Body>) -> Result<Bytes, Failure> {
        let response = self.send(request).await?;
        let good = matches!(response.status(), StatusCode::OK | StatusCode::CREATED);
        if !good {
            return Err(refused(response).await);
        }
        read(response.into_body()).await
    }
}

async fn read(body: Incoming) -> Result<Bytes, Failure> {
    match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(Failure::Cut(error.to_string())),
    }
}

/// What a refusal says. One whose body does not come is one without.
pub(crate) async fn refused(response: Response<Incoming>) -> Failure {
    let retry_after = response.headers().get(RETRY_AFTER);
    let retry_after_s = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let status = response.status().as_u16();
    let body = timeout(Duration::from_secs(2), read(response.into_body())).await;
    Failure::Refused {
        status,
        retry_after_s,
        body: body.ok().and_then(Result::ok).unwrap_or_default(),
    }
}

/// A random number. Without a source of randomness, a fixed one: waits then are longer, never shorter.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX / 2)
}
