//! The server as the command line sees it: an address, and one HTTP request at a time.
//!
//! Every request has a connection of its own, so that a request is never written to a connection that the server is just
//! closing: a failure before the connection stands surely changed nothing.

use super::{ServerArgs, one_line};
use crate::names;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How long a connection may take to stand.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read. 10,000 results, each with an error of some length, fit.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// The largest token file.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Where the server is.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Host and port as written into `Host`.
    pub(super) authority: String,
    /// Path in front of `/v1`, without a slash at its end; usually empty.
    base: String,
    token_file: Option<PathBuf>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// The server asked to be left alone for so long.
    pub(super) retry_after: Option<Duration>,
    /// The body.
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// **Nothing was sent**, so nothing was changed.
    #[error("{0}")]
    NotSent(String),
    /// The request was sent, at least in part. **Whether it was carried out is unknown.**
    #[error("{0}")]
    NoAnswer(String),
}

impl Server {
    /// Reads `http://host[:port][/base]`.
    pub(super) fn new(args: &ServerArgs) -> Result<Self, String> {
        let text = args.server.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => {}
            "https" | "wss" => {
                return Err(format!(
                    "{}: this program speaks no TLS; use http:// to the server itself or to a proxy on this machine",
                    one_line(text)
                ));
            }
            _ => {
                return Err(format!("{}: the server must be an http:// address", one_line(text)));
            }
        }
        let (authority, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let parsed: http::uri::Authority = authority
            .parse()
            .map_err(|_| format!("{}: not a host and port", one_line(authority)))?;
        if parsed.host().is_empty() || authority.contains('@') {
            return Err(format!("{}: not a host and port", one_line(authority)));
        }
        let base = base.trim_end_matches('/').to_owned();
        if base.contains(['?', '#']) || format!("{base}/").parse::<http::uri::PathAndQuery>().is_err() {
            return Err(format!("{}: not a path", one_line(&base)));
        }
        Ok(Self {
            authority: authority.to_owned(),
            base,
            token_file: args.token_file.clone(),
        })
    }

    /// A path of the public surface below this server's base.
    pub(super) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The value of `Authorization`, read anew: a token may be renewed while the program runs.
    pub(super) fn authorization(&self) -> Result<Option<http::HeaderValue>, String> {
        let Some(file) = &self.token_file else { return Ok(None) };
        let failed = |why: String| format!("cannot use the token in {}: {why}", file.display());
        let token = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(failed(format!("longer than {MAX_TOKEN_BYTES} bytes")));
        }
        let mut value = http::HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_| failed("it holds characters that no header may hold".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// A connection to the server, within [`CONNECT_TIMEOUT`].
    pub(super) async fn connect(&self) -> Result<TcpStream, String> {
        // `host:port`; an address without a port means port 80, as everywhere on the web.
        let with_port = match self.authority.parse::<http::uri::Authority>() {
            Ok(authority) if authority.port_u16().is_none() => format!("{}:80", self.authority),
            Ok(_) | Err(_) => self.authority.clone(),
        };
        let connecting = async { TcpStream::connect(&*names::look_up(&with_port).await?).await };
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(stream)) => {
                // Only a matter of speed, and never worth failing for.
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Ok(Err(error)) => Err(format!("cannot reach {}: {error}", self.authority)),
            Err(_) => Err(format!(
                "cannot reach {} within {} s",
                self.authority,
                CONNECT_TIMEOUT.as_secs()
            )),
        }
    }

    /// Sends one `POST` and reads the answer, within `timeout` if there is one.
    pub(super) async fn post<B>(
        &self,
        path_and_query: &str,
        headers: &[(header::HeaderName, String)],
        body: B,
        timeout: Option<Duration>,
    ) -> Result<Answer, CallError>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut request = Request::post(self.path(path_and_query));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.call(request, body, timeout).await
    }

    /// Sends one `GET` and reads the answer, within `timeout`.
    pub(super) async fn get(&self, path_and_query: &str, timeout: Duration) -> Result<Answer, CallError> {
        let request = Request::get(self.path(path_and_query));
        let nothing = http_body_util::Empty::<Bytes>::new();
        self.call(request, nothing, Some(timeout)).await
    }

    async fn call<B>(
        &self,
        request: http::request::Builder,
        body: B,
        timeout: Option<Duration>,
    ) -> Result<Answer, CallError>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut request = request
            .header(header::HOST, &self.authority)
            .header(header::CONNECTION, "close")
            .header(header::USER_AGENT, concat!("tidings/", env!("CARGO_PKG_VERSION")));
        if let Some(value) = self.authorization().map_err(CallError::NotSent)? {
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request
            .body(body)
            .map_err(|error| CallError::NotSent(error.to_string()))?;
        let stream = self.connect().await.map_err(CallError::NotSent)?;
        let exchange = Box::pin(exchange(stream, request));
        match timeout {
            None => exchange.await,
            Some(limit) => tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
                Err(CallError::NoAnswer(format!(
                    "no answer from {} within {} s",
                    self.authority,
                    limit.as_secs()
                )))
            }),
        }
    }
}

/// Sends a request over a connection that stands and reads the answer.
pub(super) async fn exchange<S, B>(stream: S, request: Request<B>) -> Result<Answer, CallError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| CallError::NotSent(error.to_string()))?;
    let connection = AbortOnDrop(tokio::spawn(connection));
    let no_answer = |error: &dyn std::fmt::Display| {
        CallError::NoAnswer(format!("the connection was lost before the answer came: {error}"))
    };
    let response = sender.send_request(request).await.map_err(|error| no_answer(&error))?;
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    let body = body.collect().await.map_err(|error| no_answer(&error))?.to_bytes();
    drop(connection);
    Ok(Answer {
        status,
        retry_after,
        body,
    })
}

/// Ends the task that carries a connection together with whoever waits for its answer.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Result<Server, String> {
        Server::new(&ServerArgs {
            server: text.to_owned(),
            token_file: None,
        })
    }

    #[test]
    fn an_address_is_a_host_a_port_and_maybe_a_path() {
        for (text, authority, path) in [
            ("http://127.0.0.1:7400", "127.0.0.1:7400", "/v1/ws"),
            ("http://127.0.0.1:7400/", "127.0.0.1:7400", "/v1/ws"),
            ("ws://host:1/base/", "host:1", "/base/v1/ws"),
            ("localhost:7400", "localhost:7400", "/v1/ws"),
            ("HTTP://[::1]:7400", "[::1]:7400", "/v1/ws"),
        ] {
            let server = server(text).expect(text);
            assert_eq!(
                (server.authority.as_str(), server.path("/v1/ws").as_str()),
                (authority, path)
            );
        }
    }

    #[test]
    fn tls_and_nonsense_are_refused_in_words() {
        assert!(server("https://host").expect_err("no TLS").contains("no TLS"));
        assert!(server("wss://host").expect_err("no TLS").contains("no TLS"));
        for text in [
            "ftp://host",
            "http://",
            "http://a b",
            "http://user:pass@host",
            "http://host/a?b",
        ] {
            assert!(server(text).is_err(), "{text}");
        }
    }
}
