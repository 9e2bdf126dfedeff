//! I2. **The cursor is sound.** When a client is handed a cursor, every acknowledged change up to what it claims, of what
//! the client holds, was told or is to be fetched; and no new version up to it is acknowledged later.
//!
//! The cursor of an answer that was cut may claim an object up to a version that was not told, because a newer one of the
//! same object is yet to come and will be told by whatever comes next.

use super::Invariant;
use crate::oracle::{Acked, Fact, History};
use crate::plan::Plan;
use std::collections::BTreeSet;
use tidings_protocol::{Cursor, Version};

/// See the module.
#[derive(Debug)]
pub(super) struct CursorSound {
    /// By shard: when a higher claim was handed out, and which.
    claims: Vec<Vec<(u64, Version)>>,
}

impl CursorSound {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            claims: vec![Vec::new(); plan.shards.get().into()],
        }
    }

    fn handed(&mut self, now: u64, cursor: &Cursor) {
        for (shard, claims) in self.claims.iter_mut().enumerate() {
            let claim = cursor.at(tidings_protocol::ShardId(shard as u16));
            if claims.last().is_none_or(|(_, last)| *last < claim) {
                claims.push((now, claim));
            }
        }
    }

    fn acked(&self, history: &History, ack: &Acked) -> Option<String> {
        let claims = &self.claims[usize::from(ack.shard.0)];
        let before = claims.partition_point(|(at, _)| *at < ack.first_called);
        if let Some((at, claim)) = before.checked_sub(1).map(|last| claims[last])
            && ack.version <= claim
        {
            return Some(format!(
                "p{} was called after a cursor claimed shard {} up to {claim} (at {at} us), and is acknowledged as {}",
                ack.publish, ack.shard, ack.version
            ));
        }
        // Somebody's cursor may have claimed it before its publisher heard of it.
        for (client, knowledge) in history.clients.iter().enumerate() {
            let Some(held) = knowledge.held.get(&ack.object) else {
                continue;
            };
            let told = knowledge
                .told
                .get(&ack.object)
                .copied()
                .unwrap_or_default()
                .max(held.version);
            let resynced = knowledge
                .resynced
                .get(&ack.object)
                .is_some_and(|at| *at >= ack.first_called);
            // A key of a change that was lost, and confessed since: whoever comes with that cursor is told to fetch.
            let confessed = history
                .lost_above(ack.object, held.claimed)
                .is_some_and(|loss| loss.at >= ack.first_called);
            let superseded = held.superseded_by.is_some_and(|by| by > ack.version);
            let owed = ack.first_called > held.since && told < ack.version && !resynced && !confessed && !superseded;
            if owed && held.claimed >= ack.version {
                return Some(format!(
                    "c{client}'s cursor claimed object-{} up to {}, but nobody told it of {}, acknowledged now",
                    ack.object, held.claimed, ack.version
                ));
            }
        }
        None
    }
}

fn claims_untold(
    history: &History,
    client: usize,
    cursor: &Cursor,
    cut: bool,
    live: &BTreeSet<usize>,
) -> Option<String> {
    for (object, held) in &history.clients[client].held {
        if !live.contains(object) {
            continue;
        }
        let claim = history.claim(cursor, *object);
        let Some(missing) = history.missing(client, *object, claim) else {
            continue;
        };
        let newest = history.objects[*object]
            .applied
            .last_key_value()
            .map(|(version, _)| *version);
        if cut && newest.is_some_and(|newest| newest > claim) {
            continue;
        }
        if held.superseded_by.is_some_and(|by| missing < by && claim < by) {
            continue;
        }
        return Some(format!(
            "c{client}'s cursor claims object-{object} up to {claim}, but nobody told it of {missing}"
        ));
    }
    None
}

impl Invariant for CursorSound {
    fn name(&self) -> &'static str {
        "I2"
    }

    fn see(&mut self, history: &History, now: u64, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Cursor(client, cursor, cut, live) => {
                self.handed(now, cursor);
                claims_untold(history, *client, cursor, *cut, live)
            }
            Fact::Acked(ack) => self.acked(history, ack),
            _ => None,
        }
    }
}
