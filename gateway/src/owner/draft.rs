//! What is written of changes, and what copies are told of them: made when they are taken, completed when their versions are
//! known. And what is written of what came as a copy.

use crate::storage::frame::{Deed, Payload, Tenure};
use std::collections::BTreeMap;
use tidings_protocol::copy::{CopiedAnswer, CopiedRevision, Entry};
use tidings_protocol::{ObjectHash, ShardCount, ShardId, Version};
use tidings_router::Now;
use tidings_router::copies::receiver::{Standing, halves, wide};
use tidings_router::owner::keeping::{Floor, KeptAnswer, KeptRevision};
use tidings_router::owner::{Publish, Published};

/// What is written of one batch, before its versions are known.
#[derive(Debug)]
pub(super) struct Draft {
    objects: Vec<ObjectHash>,
    marks: Vec<Mark>,
    wall_us: u64,
}

/// By what a repetition of one change will be recognised.
#[derive(Debug)]
struct Mark {
    place: usize,
    revision: Option<(u128, u64)>,
    key: Option<u128>,
}

fn accepted(published: &Published) -> Option<Version> {
    match published {
        Published::Accepted(version) => Some(*version),
        Published::Duplicate(_) | Published::NotOwner(_) | Published::Paused(_) => None,
    }
}

impl Draft {
    pub(super) fn of(changes: &[Publish], now: Now) -> Self {
        let marks = changes.iter().enumerate().filter_map(|(place, change)| {
            let extra = change.extra.as_ref()?;
            (extra.revision.is_some() || extra.idempotency.is_some()).then_some(Mark {
                place,
                revision: extra.revision,
                key: extra.idempotency,
            })
        });
        Self {
            objects: changes.iter().map(|change| change.object).collect(),
            marks: marks.collect(),
            wall_us: now.wall_us,
        }
    }

    /// The changes that were accepted.
    fn changes(&self, results: &[Published]) -> impl Iterator<Item = (ObjectHash, Version)> {
        let changes = self.objects.iter().zip(results);
        changes.filter_map(|(object, published)| Some((*object, accepted(published)?)))
    }

    fn revisions(&self, results: &[Published]) -> impl Iterator<Item = (ObjectHash, KeptRevision)> {
        self.marks.iter().filter_map(|mark| {
            let version = accepted(results.get(mark.place)?)?;
            let (key, revision) = mark.revision?;
            Some((self.objects[mark.place], KeptRevision { key, revision, version }))
        })
    }

    fn answers(&self, results: &[Published]) -> impl Iterator<Item = (ObjectHash, KeptAnswer)> {
        self.marks.iter().filter_map(|mark| {
            let version = accepted(results.get(mark.place)?)?;
            let answer = KeptAnswer {
                key: mark.key?,
                version,
                wall_us: self.wall_us,
            };
            Some((self.objects[mark.place], answer))
        })
    }

    /// What is written, and the highest version in it.
    pub(super) fn payload(&self, results: &[Published], clustered: bool) -> (Payload, Version) {
        let mut payload = Payload::default();
        let mut highest = Version::ZERO;
        payload.changes(
            self.changes(results)
                .inspect(|(_, version)| highest = highest.max(*version)),
        );
        let revisions = self.revisions(results).map(|(_, mark)| mark);
        if clustered {
            payload.dated_revisions(revisions);
        } else {
            payload.revisions(revisions);
        }
        payload.answers(self.answers(results).map(|(_, answer)| answer));
        (payload, highest)
    }

    /// What copies are told of the changes, and the shards that were touched, each once: a word about an earlier change has to
    /// wait for its copies too (rule R5).
    pub(super) fn copied(&self, results: &[Published], shards: ShardCount) -> BTreeMap<ShardId, Copied> {
        let mut copied: BTreeMap<ShardId, Copied> = BTreeMap::new();
        for (object, published) in self.objects.iter().zip(results) {
            match published {
                Published::Accepted(version) => {
                    let of = copied.entry(shards.shard(*object)).or_default();
                    of.versions.push((*object, *version));
                }
                Published::Duplicate(_) => _ = copied.entry(shards.shard(*object)).or_default(),
                Published::NotOwner(_) | Published::Paused(_) => {}
            }
        }
        for (object, mark) in self.revisions(results) {
            let of = copied.entry(shards.shard(object)).or_default();
            of.revisions.push(CopiedRevision {
                key: halves(mark.key),
                revision: mark.revision,
                version: mark.version,
            });
        }
        for (object, answer) in self.answers(results) {
            let of = copied.entry(shards.shard(object)).or_default();
            of.answers.push(CopiedAnswer {
                key: halves(answer.key),
                version: answer.version,
                wall_us: answer.wall_us,
            });
        }
        copied
    }
}

/// What copies of one shard are told.
#[derive(Debug, Default)]
pub(super) struct Copied {
    pub(super) versions: Vec<(ObjectHash, Version)>,
    pub(super) revisions: Vec<CopiedRevision>,
    pub(super) answers: Vec<CopiedAnswer>,
}

/// What is written of a batch of a copy's stream, in its order, and the highest version in it.
pub(crate) fn of_copy(entries: &[Entry], standings: &[Standing]) -> (Payload, Version) {
    let mut payload = Payload::default();
    let mut highest = Version::ZERO;
    let mut standings = standings.iter();
    for entry in entries {
        match entry {
            Entry::Versions { versions, .. } => {
                payload.changes(
                    versions
                        .iter()
                        .copied()
                        .inspect(|(_, version)| highest = highest.max(*version)),
                );
            }
            Entry::Marks { revisions, answers, .. } => {
                payload.dated_revisions(revisions.iter().map(kept_revision));
                payload.answers(answers.iter().map(kept_answer));
            }
            Entry::Floor {
                shard, floor, cause, ..
            } => {
                let floor = Floor {
                    version: *floor,
                    cause: *cause,
                };
                payload.floors([(*shard, floor)].into_iter());
            }
            Entry::Begin { .. } | Entry::Complete { .. } | Entry::End { .. } => {
                payload.tenures(
                    standings
                        .next()
                        .into_iter()
                        .map(|standing| standing_of(entry, standing)),
                );
            }
        }
    }
    (payload, highest)
}

fn standing_of(entry: &Entry, standing: &Standing) -> Tenure {
    let (deed, floor) = match entry {
        Entry::Begin { floor, cause, .. } => {
            let floor = Floor {
                version: *floor,
                cause: *cause,
            };
            (if standing.complete { Deed::Kept } else { Deed::Filling }, Some(floor))
        }
        Entry::End { .. } => (Deed::Ended, None),
        _ => (Deed::Whole, None),
    };
    let none = Tenure::ended(standing.shard, standing.epoch);
    Tenure {
        deed,
        floor: floor.unwrap_or(none.floor),
        ..none
    }
}

/// A revision as owner and disk keep it.
pub(super) fn kept_revision(mark: &CopiedRevision) -> KeptRevision {
    KeptRevision {
        key: wide(mark.key),
        revision: mark.revision,
        version: mark.version,
    }
}

/// An answer likewise.
pub(super) fn kept_answer(answer: &CopiedAnswer) -> KeptAnswer {
    KeptAnswer {
        key: wide(answer.key),
        version: answer.version,
        wall_us: answer.wall_us,
    }
}
