//! The history of a run: what outside observers saw, one event each, stamped with the host's monotonic clock.
//!
//! It does not know what any event proves. A history is one file or several (one per thread that sees events), merged
//! by stamp when they are read: so all processes of a run are on one host, or their stamps cannot be compared.
//!
//! Two forms. **JSON lines** are for people and small runs: a header line
//! `{"event":"history","format":1,"prefix":"order:"}`, then events such as
//! `{"at":1200,"event":"notify","client":7,"obj":42,"version":1795170000000000}`. The **compact form** is for load: 8 to
//! 15 bytes an event, written by [`Writer`]; `tidings-check --to-json` and `--to-binary` convert.
//!
//! # How a load generator uses it
//!
//! ```
//! use tidings_checker::history::{Event, Header, NotRecorded, Object, What, Writer, now_us};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("run-0.tidings");
//! // One writer per thread; objects are `order:<n>`.
//! let mut history = Writer::create(path, &Header::new("order:"))?;
//!
//! // Publishers: the call is stamped and recorded BEFORE the request is sent ...
//! let call = What::PubCall {
//!     publisher: 3, call: 17, obj: Object::Number(42), key: 0, revision: None, level: Default::default(),
//! };
//! history.record_blocking(&Event { at_us: now_us(), what: call })?;
//! // ... and its outcome AFTER the answer was read. A call without outcome counts as unknown.
//! let ok = What::PubOk { publisher: 3, call: 17, version: 1_795_170_000_000_000, duplicate: false, trace: None };
//! history.record_blocking(&Event { at_us: now_us(), what: ok })?;
//!
//! // Subscribers, in the order in which one connection told them.
//! let told = Event {
//!     at_us: now_us(),
//!     what: What::Notify { client: 7, obj: 42.into(), version: 1_795_170_000_000_000, trace: None },
//! };
//! match history.record(&told) {
//!     Ok(()) => {}
//!     // The disk is behind: read no more from the network until `record` of this same event succeeds.
//!     Err(NotRecorded::Full) => history.record_blocking(&told)?,
//!     Err(error) => return Err(error.into()),
//! }
//! history.record(&Event { at_us: now_us(), what: What::Cursor { client: 7, text: "AQ…".into() } })?;
//! history.finish()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What a client records:
//!
//! - `conn.open` before it connects, with the cursor that it will present. **Without a cursor it starts anew** and holds
//!   nothing. `conn.close` when the connection is gone.
//! - `sub.call` and `sub.ok` once for each object it begins to hold, not again when it comes back; `version` as the
//!   `subscribed` answer told it, 0 for `null`, `None` where the transport tells none (long-poll, event streams: there `sub.ok` is
//!   recorded when the first cursor has come, just before it).
//! - After `conn.open` with a cursor: every change as `notify`, then `resume.ok` when the answer is complete (just before
//!   the first cursor of the new connection is recorded), then that `cursor`.
//! - Long-poll: `conn.open` only for the first poll and after an error, a lost answer or a change of node. Each
//!   answer is its `notify`s, its `resync`, then its `cursor`.
//! - `unsub.call` before an unsubscription is sent.
//! - The cursor that is presented is always the last one recorded.
//!
//! At the end: heal, let every client come back, wait for the settle window, `final` for what was published, then
//! [`Writer::finish`] of every file.

mod binary;
mod event;
mod reader;
mod writer;

pub use event::{Event, Level, Object, Trace, What};
pub use reader::{FileReader, Files, Header, History, HistoryError, Replayed};
pub use writer::{NotRecorded, Writer};

/// Microseconds of the host's monotonic clock, the same for all processes of the host until it starts anew.
#[must_use]
pub fn now_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}
