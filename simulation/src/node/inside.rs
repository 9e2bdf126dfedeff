//! What is looked at from inside: what leaders propose and grant, and what the log made of it. Nothing here changes anything.

use super::seat::LEASE_US;
use crate::agreement::Applied;
use crate::world::World;
use tidings_router::control::command::{Command, With};
use tidings_router::control::map::Process;

/// Whoever asked for a lease, and got it, within this time is certainly known to live by who leads.
const FRESH_US: u64 = 700_000;

impl World {
    /// Whether it is proposed to give a shard of this process to another one.
    pub(super) fn is_being_replaced(&self, process: Process) -> bool {
        self.agreement.open().any(|command| match command {
            Command::Assign { seen, to, .. } => {
                let known = self.agreement.map().shard(seen.shard);
                // If the shard has gone on since, the command will be refused.
                let known = known.filter(|shard| shard.epoch == seen.epoch && shard.owner == Some(process));
                known.is_some() && *to != process
            }
            _ => false,
        })
    }

    /// Rule R6, looked at from inside: the present leader renews nothing for whom it is about to replace.
    pub(super) fn judge_grant(&mut self, node: usize, to: Process) {
        if self.agreement.leader() == Some(self.process_name(node)) && self.is_being_replaced(to) {
            let what = format!("n{node} renews the lease of {to:?} while it proposes to replace it");
            self.oracle.object_to("R6", what);
        }
    }

    /// P5, looked at from inside: nobody gets a shard with nothing while the lease of its owner runs, on that one's own clock.
    fn judge_replacement(&mut self, replaced: Process) {
        let node = replaced.node.0 as usize;
        let now = self.clock(node);
        let process = self.process(node, replaced.incarnation);
        if process.is_some_and(|process| process.seat.lease.holds(now)) {
            let what = format!("{replaced:?} is replaced with nothing while its lease runs");
            self.oracle.object_to("P5", what);
        }
    }

    /// I9, looked at from inside: no shard is given away with nothing while a copy in sync has only just been told that it may go on.
    pub(super) fn judge_proposal(&mut self, node: usize, commands: &[Command]) {
        if self.agreement.leader() != Some(self.process_name(node)) {
            return;
        }
        for command in commands {
            let Command::Assign {
                seen,
                with: With::Nothing(_),
                ..
            } = command
            else {
                continue;
            };
            for copy in &seen.in_sync {
                let there = copy.node.0 as usize;
                let fresh_us = self.clock(there).mono_us + LEASE_US - FRESH_US;
                let process = self.process(there, copy.incarnation);
                if process.is_some_and(|process| process.seat.lease.until_us() > fresh_us) {
                    let what = format!("{seen:?} is to be replaced with nothing, though {copy:?} lives");
                    self.oracle.object_to("I9", what);
                }
            }
        }
    }

    /// What the log did is counted and shown to the oracle.
    pub(crate) fn note_applied(&mut self, applied: &[Applied]) {
        if let Err(what) = self.agreement.map().check() {
            self.oracle.object_to("map", what);
        }
        for Applied {
            command,
            replaced,
            result,
        } in applied
        {
            if let Err(refusal) = result {
                self.coverage.saw("command refused when applied");
                self.trace
                    .note(self.now, "log", || format!("refuses {command:?}: {refusal}"));
                continue;
            }
            let shard = match command {
                Command::Assign { seen, with, .. } => {
                    if let (With::Nothing(_), Some(process)) = (with, replaced) {
                        self.judge_replacement(*process);
                    }
                    self.coverage.saw(match with {
                        With::Fresh => "shard assigned for the first time",
                        With::Copy => "shard assigned to a copy",
                        With::Disk => "shard assigned to its disk",
                        With::Nothing(_) => "shard assigned with nothing",
                    });
                    Some(seen.shard)
                }
                Command::Release { seen, from, to } => {
                    self.coverage.saw(if from == to {
                        "shard taken back from a move"
                    } else {
                        "shard handed over"
                    });
                    Some(seen.shard)
                }
                Command::Fill { .. } => {
                    self.coverage.saw("copy to be filled");
                    None
                }
                Command::Join { .. } => {
                    self.coverage.saw("copy joined");
                    None
                }
                Command::Remove { member, .. } => {
                    let runs = self.nodes[member.node.0 as usize].process.is_some();
                    let runs = runs && self.process_name(member.node.0 as usize) == *member;
                    self.coverage.saw(if runs {
                        "copy taken out that lives"
                    } else {
                        "copy taken out that is gone"
                    });
                    None
                }
                Command::RaiseCeiling { .. } => {
                    self.coverage.saw("ceiling raised");
                    None
                }
                Command::RaiseFloor { .. } => {
                    self.coverage.saw("floor raised in the map");
                    None
                }
                _ => None,
            };
            self.trace.note(self.now, "log", || format!("{command:?}"));
            if let Some(shard) = shard
                && let Some(known) = self.agreement.map().shard(shard)
            {
                self.oracle.assigned(self.now, shard, known);
            }
        }
    }
}
