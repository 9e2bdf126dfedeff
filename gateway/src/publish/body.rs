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
    let idle = Duration::from_millis(app.node.live().limits.body_idle_ms);
    loop {
        return match tokio::time::timeout(idle, body.frame()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Ok(Some(data)),
                // Trailers mean nothing here.
                Err(_trailers) => continue,
            },
            Ok(Some(Err(error))) => Err(Refusal::new(Code::BadRequest, format!("the body broke off: {error}"))
                .applied(Applied::No)
                .closing()),
            Err(_elapsed) => {
                app.node.metrics.refused(Limit::BodyIdle);
                let detail = format!(
                    "no byte of the body came for {} ms (limits.body_idle_ms)",
                    idle.as_millis()
                );
                Err(Refusal::new(Code::RequestTimeout, detail)
                    .applied(Applied::No)
                    .closing())
            }
        };
    }
}

/// How much more than the limit is read and thrown away so that the sender gets to read its refusal: as many times the
/// limit. Closing on unread bytes would reset the connection under it.
const DISCARD: u64 = 4;

/// A whole body of bounded size. `asked` is whether the sender waits for a word before it sends the body.
pub(super) async fn whole(app: &App, mut body: Incoming, asked: bool) -> Result<Bytes, Refusal> {
    let limit = app.node.live().limits.publish_body_bytes;
    if body.size_hint().lower() > limit {
        let discard = if asked { 0 } else { limit.saturating_mul(DISCARD) };
        return Err(too_large(app, body, discard).await);
    }
    let Some(first) = piece(app, &mut body).await? else {
        return Ok(Bytes::new());
    };
    if body.is_end_stream() && first.len() as u64 <= limit {
        // Nearly always: the whole body came with one read and is not copied again.
        return Ok(first);
    }
    let mut whole = BytesMut::from(first);
    loop {
        if whole.len() as u64 > limit {
            drop(whole);
            return Err(too_large(app, body, limit.saturating_mul(DISCARD)).await);
        }
        match piece(app, &mut body).await? {
            Some(piece) => whole.extend_from_slice(&piece),
            None => return Ok(whole.freeze()),
        }
    }
}

async fn too_large(app: &App, mut body: Incoming, discard: u64) -> Refusal {
    let limit = app.node.live().limits.publish_body_bytes;
    app.node.metrics.refused(Limit::PublishBodyBytes);
    let mut left = discard;
    while left > 0
        && let Ok(Some(piece)) = piece(app, &mut body).await
    {
        left = left.saturating_sub(piece.len() as u64);
    }
    let detail =
        format!("a publish has at most {limit} bytes (limits.publish_body_bytes); send a stream of lines instead");
    not_applied(Problem::new(Code::TooLarge, detail)).closing()
}
