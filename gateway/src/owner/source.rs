//! The owners of a node as storage asks them for what they know, a piece at a time.

use super::OwnerHandle;
use crate::storage::{self, Marks, Share};
use std::ops::Range;
use std::sync::mpsc;
use tidings_protocol::{ShardCount, ShardId};

/// A piece of what is to be kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece {
    Versions { shard: ShardId, piece: usize },
    Marks { piece: usize },
}

/// What a [`Piece`] holds.
#[derive(Debug)]
pub(super) enum Kept {
    Versions(Share),
    Marks(Marks),
}

/// The owners of a node as storage asks them, from a thread that may wait.
#[derive(Debug)]
pub struct OwnerSource {
    /// The owners.
    pub owners: Vec<OwnerHandle>,
    /// Shard `s` belongs to owner `s % owners.len()`.
    pub shards: ShardCount,
}

impl OwnerSource {
    fn ask(&self, owner: usize, piece: Piece) -> Option<Kept> {
        let (reply, answer) = mpsc::channel();
        self.owners.get(owner)?.keep(piece, reply);
        answer.recv().ok()
    }
}

impl storage::Source for OwnerSource {
    fn owners(&self) -> usize {
        self.owners.len()
    }

    fn versions(&self, shard: ShardId, pieces: Range<usize>) -> Option<Share> {
        let owner = self.owners.get(usize::from(shard.0) % self.owners.len())?;
        let (reply, answers) = mpsc::channel();
        let count = pieces.len();
        for piece in pieces {
            owner.keep(Piece::Versions { shard, piece }, reply.clone());
        }
        // Without this a process that ends would be waited for.
        drop(reply);
        let mut all = Vec::new();
        let mut last = None;
        for _ in 0..count {
            match answers.recv().ok()? {
                Kept::Versions(Share::Here { versions, tenure }) => {
                    all.extend(versions);
                    last = Some(tenure);
                }
                // It went meanwhile.
                Kept::Versions(Share::Absent) => return Some(Share::Absent),
                Kept::Marks(_) => return None,
            }
        }
        Some(Share::Here {
            versions: all,
            tenure: last?,
        })
    }

    fn marks(&self, owner: usize, piece: usize) -> Option<Marks> {
        match self.ask(owner, Piece::Marks { piece })? {
            Kept::Marks(marks) => Some(marks),
            Kept::Versions(_) => None,
        }
    }
}
