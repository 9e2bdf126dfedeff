//! The answer to a long-poll.

use super::{ChangeView, Pen, write_changes, write_refused, write_resync};
use crate::error::Problem;
use crate::hint::SharedHint;
use crate::id::ShardId;
use crate::version::{Epoch, Version};

/// One change, kept until the answer is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedChange {
    /// The object's ID.
    pub object: Box<str>,
    /// Its newest version.
    pub version: Version,
    /// What the publisher said about it, if it is at hand.
    pub hint: Option<SharedHint>,
    /// Where the version came from, if the poll asked to be told.
    pub trace: Option<(ShardId, Epoch)>,
}

impl OwnedChange {
    /// The change as the encoders take it.
    #[must_use]
    pub fn view(&self) -> ChangeView<'_> {
        ChangeView {
            object: &self.object,
            version: self.version,
            hint: self.hint.as_deref(),
            trace: self.trace,
        }
    }
}

/// "These may have changed: fetch them."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resync {
    /// Which ones.
    pub scope: ResyncScope,
    /// A stable word for the cause.
    pub cause: &'static str,
}

/// What to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResyncScope {
    /// Everything the subscriber watches.
    All,
    /// These.
    Objects(Vec<Box<str>>),
}

/// The answer to a long-poll.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PollAnswer {
    /// What is newer than the poll's cursor.
    pub changes: Vec<OwnedChange>,
    /// What the server cannot vouch for.
    pub resync: Option<Resync>,
    /// Objects that the subscriber will not hear of.
    pub refused: Vec<(String, Problem)>,
    /// Where to go on.
    pub cursor: String,
    /// Saves sending the list of objects again.
    pub session: Option<String>,
    /// The answer was cut: poll again at once. Left out when false.
    pub more: bool,
    /// Do not poll again before this long. Left out when `None`.
    pub poll_after_ms: Option<u64>,
}

impl PollAnswer {
    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + 64 * self.changes.len());
        self.write(&mut Pen::json(&mut out));
        out
    }

    /// As MessagePack.
    #[must_use]
    pub fn to_msgpack(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + 64 * self.changes.len());
        self.write(&mut Pen::message_pack(&mut out));
        out
    }

    fn write(&self, pen: &mut Pen<'_>) {
        let map = pen.open_map();
        let mut count = 4;
        pen.key("changes");
        write_changes(pen, self.changes.iter().map(OwnedChange::view));
        pen.key("resync");
        match &self.resync {
            None => pen.null(),
            Some(Resync {
                scope: ResyncScope::All,
                cause,
            }) => write_resync(pen, None::<std::iter::Empty<&str>>, cause),
            Some(Resync {
                scope: ResyncScope::Objects(objects),
                cause,
            }) => {
                write_resync(pen, Some(objects.iter().map(AsRef::as_ref)), cause);
            }
        }
        pen.key("refused");
        write_refused(
            pen,
            self.refused.iter().map(|(object, problem)| (object.as_str(), problem)),
        );
        pen.key("cursor");
        pen.text(&self.cursor);
        if let Some(session) = &self.session {
            pen.key("session");
            pen.text(session);
            count += 1;
        }
        if self.more {
            pen.key("more");
            pen.flag(true);
            count += 1;
        }
        if let Some(after_ms) = self.poll_after_ms {
            pen.key("poll_after_ms");
            pen.number(after_ms);
            count += 1;
        }
        pen.close_map(map, count);
    }
}
