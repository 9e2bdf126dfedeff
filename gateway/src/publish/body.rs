//! Request bodies, within their bounds of size and time.

use super::not_applied;
use crate::problem::Refusal;
use crate::server::App;
use crate::telemetry::Limit;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use std::time::Duration;
use tidings_protocol::Problem;
use tidings_protocol::error::{Applied, Code};

/// The next piece of a body; `None` at its end.
pub(super) async fn piece(app: &App, body: &mut Incoming) -> Result<Option<Bytes>, Refusal> {
    let idle = Duration::from_millis(app.node.config.limits.body_idle_ms);
    loop {
        return match tokio::time::timeout(idle, body.frame()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Ok(Some(data)),
                // Trailers mean nothing here.
                Err(_trailers) => continue,
            },
            Ok(Some(Err(error))) => {
                Err(Refusal::new(Code::BadRequest, format!("the body broke off: {error}")).applied(Applied::No).closing())
            }
            Err(_elapsed) => {
                app.node.metrics.refused(Limit::BodyIdle);
                let detail = format!("no byte of the body came for {} ms (limits.body_idle_ms)", idle.as_millis());
                Err(Refusal::new(Code::RequestTimeout, detail).applied(Applied::No).closing())
            }
        };
    }
}

/// A whole body of bounded size.
pub(super) async fn whole(app: &App, mut body: Incoming) -> Result<Bytes, Refusal> {
    let limit = app.node.config.limits.publish_body_bytes;
    let too_large = || {
        app.node.metrics.refused(Limit::PublishBodyBytes);
        let detail = format!("a publish has at most {limit} bytes (limits.publish_body_bytes); send a stream of lines instead");
        not_applied(Problem::new(Code::TooLarge, detail)).closing()
    };
    if body.size_hint().lower() > limit {
        return Err(too_large());
    }
    let Some(first) = piece(app, &mut body).await? else { return Ok(Bytes::new()) };
    if body.is_end_stream() {
        // Nearly always: the whole body came with one read and is not copied again.
        return if first.len() as u64 > limit { Err(too_large()) } else { Ok(first) };
    }
    let mut whole = BytesMut::from(first);
    while let Some(piece) = piece(app, &mut body).await? {
        if (whole.len() + piece.len()) as u64 > limit {
            return Err(too_large());
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}
