//! What a copy lacks, read from the owner piece by piece, as much as its stream takes.

use super::receiver::halves;
use super::sender::{Level, Sender};
use super::stream::Stream;
use crate::now::Now;
use crate::owner::Owner;
use crate::owner::keeping::{MARK_PIECES, SHARD_PIECES};
use tidings_protocol::copy::{CopiedAnswer, CopiedRevision, Entry};
use tidings_protocol::{Epoch, ObjectHash, ShardCount, ShardId};

/// So many pieces are read at one go: the owner's thread has others to serve.
const PIECES_AT_ONCE: usize = 96;

/// Marks of one entry: a frame between nodes has a limit.
pub(super) const MARKS_AT_ONCE: usize = 8_192;

impl Sender {
    pub(super) fn send_pieces(&mut self, now: Now, owner: &Owner) {
        let mut done = Vec::new();
        let mut left = PIECES_AT_ONCE;
        for key in &self.sending {
            let (shard, process) = *key;
            let (Some(part), Some(stream)) = (self.parts.get_mut(key), self.streams.get_mut(&process)) else {
                done.push(*key);
                continue;
            };
            while let Level::Sending(piece) = part.level {
                if stream.bytes() >= self.config.window_bytes {
                    break;
                }
                if left == 0 {
                    // Others had their turn, then it goes on at once.
                    self.look_us = now.mono_us;
                    break;
                }
                left -= 1;
                let (epoch, next) = (part.epoch, piece + 1);
                if piece < MARK_PIECES {
                    // Younger ones first: if halves change meanwhile, what was young is read again as old.
                    let piece = MARK_PIECES - 1 - piece;
                    push_marks(stream, owner, self.config.shards, (shard, epoch), piece, now);
                } else if piece < MARK_PIECES + SHARD_PIECES {
                    let versions = owner.kept_versions(shard, piece - MARK_PIECES);
                    if !versions.is_empty() {
                        stream.push(Entry::Versions { shard, epoch, versions });
                    }
                } else {
                    stream.push(Entry::Complete { shard, epoch });
                    // Whatever was given so far lies in this batch or before it, and from here on is waited for.
                    part.level = Level::Sent(stream.last_place());
                    part.waited_for = true;
                    done.push(*key);
                    break;
                }
                part.level = Level::Sending(next);
            }
        }
        for key in done {
            self.sending.remove(&key);
        }
    }
}

fn push_marks(
    stream: &mut Stream,
    owner: &Owner,
    shards: ShardCount,
    (shard, epoch): (ShardId, Epoch),
    piece: usize,
    now: Now,
) {
    // The low bits of a mark's key name its shard.
    let ours = |key: u128| shards.shard(ObjectHash(((key & 0xffff) as u64) << 48)) == shard;
    let revisions = owner.kept_revisions(piece).into_iter().filter(|mark| ours(mark.key));
    let revisions: Vec<_> = revisions
        .map(|mark| CopiedRevision {
            key: halves(mark.key),
            revision: mark.revision,
            version: mark.version,
        })
        .collect();
    let answers = owner
        .kept_answers(piece, now)
        .into_iter()
        .filter(|answer| ours(answer.key));
    let answers: Vec<_> = answers
        .map(|answer| CopiedAnswer {
            key: halves(answer.key),
            version: answer.version,
            wall_us: answer.wall_us,
        })
        .collect();
    for revisions in revisions.chunks(MARKS_AT_ONCE) {
        stream.push(Entry::Marks {
            shard,
            epoch,
            revisions: revisions.to_vec(),
            answers: Vec::new(),
        });
    }
    for answers in answers.chunks(MARKS_AT_ONCE) {
        stream.push(Entry::Marks {
            shard,
            epoch,
            revisions: Vec::new(),
            answers: answers.to_vec(),
        });
    }
}
