//! One change or a list of them on a node of a cluster: sent to their owners wherever they are, and told apart again.

use super::answer::{ChangeError, Outcome, Results};
use super::batch::{epochs, no_owner, outcome};
use super::dispatch::Dispatch;
use super::{Terms, failed, not_applied};
use crate::control;
use crate::owner::{PublishFailure, count_failure};
use crate::problem::Refusal;
use crate::server::App;
use axum::response::Response;
use tidings_protocol::error::Applied;
use tidings_protocol::{ObjectHash, Problem};
use tidings_router::owner::{Publish, Published};

/// Publishes one change and says what became of it.
pub(super) async fn one(
    app: &App,
    control: &control::Handle,
    terms: &Terms,
    change: Publish,
) -> Result<Response, Refusal> {
    let object = change.object;
    let dispatch = Dispatch::begin(&app.node, control, vec![change], terms.ack_level(), terms.deadline).await;
    let fate = dispatch.settle().await.into_iter().next();
    let published = fate.unwrap_or(Err(PublishFailure::OutcomeUnknown)).map_err(|failure| {
        count_failure(&app.node.metrics, failure);
        let (problem, applied) = failed(failure);
        Refusal::from(problem).applied(applied)
    })?;
    if let (Published::Accepted(version), false) = (published, terms.options.trace) {
        app.node.metrics.published.inc();
        return Ok(terms.format.version(version));
    }
    let epochs = epochs(app, terms, &[object]).await;
    match outcome(app, published, object, epochs.as_ref()) {
        Outcome::Told(told) => Ok(terms.format.response(&told)),
        Outcome::Refused { .. } => Err(not_applied(no_owner(app.node.shards.shard(object)))),
    }
}

/// Publishes several changes. If not one of them has an answer, the request fails as a whole.
pub(super) async fn several(
    app: &App,
    control: &control::Handle,
    terms: &Terms,
    changes: Vec<Result<Publish, Problem>>,
) -> Result<Response, Refusal> {
    let mut results: Vec<Option<Outcome>> = Vec::with_capacity(changes.len());
    let (mut fine, mut places) = (Vec::new(), Vec::new());
    for (place, change) in changes.into_iter().enumerate() {
        results.push(match change {
            Ok(change) => {
                fine.push(change);
                places.push(place);
                None
            }
            Err(problem) => {
                app.node.metrics.rejected.inc();
                let error = ChangeError::new(problem, Applied::No);
                Some(Outcome::Refused { error })
            }
        });
    }
    let mut answered = results.iter().any(Option::is_some);
    let objects: Vec<ObjectHash> = fine.iter().map(|change| change.object).collect();
    let dispatch = Dispatch::begin(&app.node, control, fine, terms.ack_level(), terms.deadline).await;
    let fates = dispatch.settle().await;
    let epochs = epochs(app, terms, &objects).await;
    let mut worst = None;
    for ((fate, place), object) in fates.into_iter().zip(places).zip(objects) {
        results[place] = Some(match fate {
            Ok(published) => {
                answered = true;
                outcome(app, published, object, epochs.as_ref())
            }
            Err(failure) => {
                worst = worse(worst, failure);
                let (problem, applied) = failed(failure);
                let error = ChangeError::new(problem, applied);
                Outcome::Refused { error }
            }
        });
    }
    if let Some(failure) = worst {
        count_failure(&app.node.metrics, failure);
        if !answered {
            let (problem, applied) = failed(failure);
            return Err(Refusal::from(problem).applied(applied));
        }
    }
    Ok(terms.format.response(&Results {
        results: results.into_iter().flatten().collect(),
    }))
}

/// The failure that casts more doubt.
pub(super) fn worse(before: Option<PublishFailure>, failure: PublishFailure) -> Option<PublishFailure> {
    let doubtful = |failure: &PublishFailure| failed(*failure).1 == Applied::Unknown;
    before.filter(doubtful).or(Some(failure))
}
