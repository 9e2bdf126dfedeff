//! A stream of Server-Sent Events over HTTP/1.1.

use crate::net::{Failure, Net, Wire, json, refused, whole};
use crate::watch::{Ended, Input};
use crate::wire::EventParser;
use http::Method;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

type Opening = Pin<Box<dyn Future<Output = Result<(Wire, Incoming), Failure>> + Send>>;

/// See the module.
pub(super) struct EventStream {
    number: u64,
    state: State,
    parser: EventParser,
}

enum State {
    Opening(Opening),
    /// The connection lives as long as its wire.
    Open(#[expect(dead_code, reason = "held, not used")] Wire, Incoming),
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl EventStream {
    pub(super) fn open(net: &Net, number: u64, server: usize, route: String, body: Vec<u8>) -> Self {
        let net = net.clone();
        Self {
            number,
            state: State::Opening(Box::pin(async move { open(&net, server, &route, body).await })),
            parser: EventParser::default(),
        }
    }

    /// What comes next; `true`: nothing will come any more.
    pub(super) async fn next(&mut self, mut take: impl FnMut(u64, Input<'_>)) -> bool {
        let number = self.number;
        let mut take = |input: Input<'_>| take(number, input);
        let body = match &mut self.state {
            State::Opening(opening) => match opening.await {
                Ok((wire, body)) => {
                    self.state = State::Open(wire, body);
                    return false;
                }
                Err(failure) => {
                    take(Input::Ended(failure.ended()));
                    return true;
                }
            },
            State::Open(_, body) => body,
        };
        let ended = match body.frame().await {
            Some(Ok(frame)) => {
                take(Input::Sign);
                let Some(bytes) = frame.data_ref() else { return false };
                self.parser.push(bytes);
                loop {
                    match self.parser.next_block() {
                        Ok(Some(block)) => take(Input::Block(&block)),
                        Ok(None) => return false,
                        Err(error) => break Ended::Cut(error.to_string()),
                    }
                }
            }
            Some(Err(error)) => Ended::Cut(error.to_string()),
            None => Ended::Cut("the stream is over".to_owned()),
        };
        take(Input::Ended(ended));
        true
    }
}

async fn open(net: &Net, server: usize, route: &str, body: Vec<u8>) -> Result<(Wire, Incoming), Failure> {
    let mut headers = json();
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    let request = net.request(server, Method::POST, route, headers, whole(body))?;
    let mut wire = net.open(server).await?;
    let response = wire.send(request).await?;
    if response.status() != 200 {
        return Err(refused(response).await);
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
        return Err(Failure::Unusable("what answers sends no event stream".to_owned()));
    }
    Ok((wire, response.into_body()))
}
