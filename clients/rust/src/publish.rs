//! Publishing: one change, several, or a stream of them.
//!
//! A request is repeated only where that cannot happen twice unknown: if it surely was not applied, or if an idempotency
//! key makes the repeat harmless, or if the caller says that a second notification is. Whatever the outcome, an error says
//! whether it may have happened.

mod change;
mod error;
mod request;
mod tries;

pub use change::{Ack, IntoData, NewChange};
pub use error::{ChangeError, PublishError, RequestError};
pub(crate) use request::Requests;
pub use request::{ObjectState, Publish, PublishBatch, PublishStream, Published, StreamSum};
