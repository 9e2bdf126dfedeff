//! What the leader of the replicated log does beside keeping the log: answers renewals, notices who is gone, proposes.
//!
//! A renewal is answered from one applied map, after a quorum confirmed the leadership that the answer rests on. What was
//! answered is remembered, because nobody may take over without a copy before the lease has surely run out; what an
//! earlier leader answered is covered by counting from the election (`docs/architecture.md`, *Leases*).
//!
//! Gossip's verdicts are hints: they make it look sooner, they never decide. It does not know sockets, or the library that
//! elects it and replicates what it proposes. What should change is found in [`super::review`].

use super::command::Command;
use super::lease::{Grant, Renewal};
use super::map::{Map, Process};
use crate::now::{MonoUs, Now};
use std::collections::{BTreeMap, BTreeSet};
use tidings_protocol::{Epoch, NodeId, ShardId, Version};

/// Times and bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a lease is valid, in microseconds. Longer bears longer elections and pauses; shorter heals sooner.
    pub lease_us: u64,
    /// How far the ceiling is kept ahead of the clock, in microseconds. A twentieth of that is kept ahead of the highest
    /// version in use.
    pub ceiling_ahead_us: u64,
    /// After its election it waits so long for renewals before it takes silence for absence or places anything new.
    pub settle_us: u64,
    /// How long a shard without a copy waits for the disk of an owner that has restarted, before it is given away empty.
    pub disk_patience_us: u64,
    /// Shards on the move at one time. None: shards stay where they are.
    pub moves: usize,
    /// Copies that one node fills at one time. None: nobody gets a copy.
    pub fills: usize,
    /// From one look at the map to the next, in microseconds.
    pub review_us: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_us: 2_000_000,
            ceiling_ahead_us: 5_000_000,
            settle_us: 1_000_000,
            disk_patience_us: 2_000_000,
            moves: 8,
            fills: 4,
            review_us: 100_000,
        }
    }
}

impl Config {
    /// When a lease that was granted at zero has surely run out, whatever the rates of both clocks within 5 %.
    #[must_use]
    pub fn surely_over_us(&self) -> u64 {
        self.lease_us + self.lease_us / 10
    }
}

/// What gossip holds of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answers.
    Alive,
    /// It does not answer.
    Dead,
}

/// What happens to a coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// This node leads the log, and an entry of its own term has been applied.
    Elected {
        /// The term.
        term: u64,
    },
    /// It does not lead any more.
    Deposed,
    /// An owner wants to go on.
    Renew(Renewal),
    /// A quorum confirmed the leadership, asked after [`Output::Confirm`] with this token.
    Confirmed {
        /// The token.
        token: u64,
    },
    /// That could not be had.
    Unconfirmed {
        /// The token.
        token: u64,
    },
    /// The proposal was applied, or surely never will be. Not to be said while its outcome is unknown.
    Settled {
        /// Which.
        proposal: u64,
    },
    /// Gossip holds a process for this.
    Heard {
        /// The process.
        process: Process,
        /// For this.
        verdict: Verdict,
    },
}

/// What a coordinator wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask a quorum, from now on, whether this node still leads, in this term.
    Confirm {
        /// The term of office.
        term: u64,
        /// Comes back with the answer.
        token: u64,
    },
    /// Put these commands into the log, in this order, as one entry, in this term. In another they must not be applied,
    /// even if this node leads again: others may have granted leases since.
    Propose {
        /// The term of office.
        term: u64,
        /// Comes back when its fate is known.
        proposal: u64,
        /// The commands.
        commands: Vec<Command>,
    },
    /// Answer an owner.
    Grant {
        /// Whom.
        to: Process,
        /// With this.
        grant: Grant,
    },
}

/// What is known of a node since the election.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) process: Process,
    pub(super) granted_us: MonoUs,
    pub(super) on_disk: BTreeMap<ShardId, Epoch>,
}

/// A proposal whose outcome is not known yet.
#[derive(Debug, Default)]
struct Open {
    /// Owners that it replaces: they are not renewed meanwhile (rule R6).
    replaced: BTreeSet<Process>,
    shards: BTreeSet<ShardId>,
    ceiling: bool,
}

/// What it keeps while it leads.
#[derive(Debug)]
pub(super) struct Office {
    term: u64,
    /// Since when silence counts: the election, or the end of a time in which no quorum heard this leader either.
    pub(super) since_us: MonoUs,
    /// When a quorum last confirmed the leadership.
    confirmed_us: MonoUs,
    pub(super) heard: BTreeMap<NodeId, Heard>,
    /// Since when a shard is known to be without an owner and without a copy.
    pub(super) orphaned_us: BTreeMap<ShardId, MonoUs>,
    asked: Vec<Renewal>,
    confirming: Option<(u64, Vec<Renewal>)>,
    open: BTreeMap<u64, Open>,
    /// The highest version in use that was reported.
    highest: Version,
    review_us: MonoUs,
}

/// See the module.
#[derive(Debug)]
pub struct Coordinator {
    pub(super) config: Config,
    pub(super) verdicts: BTreeMap<NodeId, (u64, Verdict)>,
    pub(super) office: Option<Office>,
    /// Tokens and proposals are numbered through all terms of office.
    next: u64,
}

impl Coordinator {
    /// One that does not lead.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            verdicts: BTreeMap::new(),
            office: None,
            next: 1,
        }
    }

    /// Whether it leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.office.is_some()
    }

    /// Whether the node's present process renewed lately with this coordinator, and so may be given something.
    #[must_use]
    pub fn hears(&self, now_us: MonoUs, map: &Map, node: NodeId) -> bool {
        let (Some(office), Some(known)) = (&self.office, map.node(node)) else {
            return false;
        };
        let incarnation = known.incarnation;
        self.is_live(office, now_us, map, Process { node, incarnation })
    }

    /// Takes one step. `map` is what has been applied here so far.
    pub fn handle(&mut self, now: Now, map: &Map, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Elected { term } => {
                self.office = Some(Office {
                    term,
                    since_us: now.mono_us,
                    confirmed_us: now.mono_us,
                    heard: BTreeMap::new(),
                    orphaned_us: BTreeMap::new(),
                    asked: Vec::new(),
                    confirming: None,
                    open: BTreeMap::new(),
                    highest: Version::ZERO,
                    review_us: now.mono_us,
                });
            }
            Input::Deposed => self.office = None,
            Input::Renew(renewal) => self.renew(renewal, out),
            Input::Confirmed { token } => self.confirmed(now, map, token, out),
            Input::Unconfirmed { token } => self.unconfirmed(token),
            Input::Settled { proposal } => {
                if let Some(office) = &mut self.office {
                    office.open.remove(&proposal);
                    office.review_us = now.mono_us;
                }
            }
            Input::Heard { process, verdict } => {
                let known = self
                    .verdicts
                    .entry(process.node)
                    .or_insert((process.incarnation, verdict));
                if process.incarnation >= known.0 {
                    *known = (process.incarnation, verdict);
                }
            }
        }
    }

    /// When [`Coordinator::handle_deadline`] wants to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoUs> {
        self.office.as_ref().map(|office| office.review_us)
    }

    /// Looks at the map and proposes what should change.
    pub fn handle_deadline(&mut self, now: Now, map: &Map, out: &mut Vec<Output>) {
        let Some(office) = self.office.as_mut().filter(|office| now.mono_us >= office.review_us) else {
            return;
        };
        office.review_us = now.mono_us + self.config.review_us;
        let unconfirmed_us = now.mono_us.saturating_sub(office.confirmed_us);
        if unconfirmed_us >= self.config.lease_us / 4 {
            // Whoever asks for a lease has it confirmed on the way; nobody did.
            self.ask_quorum(out);
        }
        if unconfirmed_us >= self.config.lease_us / 2 {
            // Nobody could be granted anything meanwhile: that says nothing about who is there.
            return;
        }
        self.verdicts.retain(|node, _| map.node(*node).is_some());
        let mut commands = self.review(now, map);
        commands.extend(self.ceiling(now, map, &commands));
        if !commands.is_empty() {
            self.propose(map, commands, out);
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn renew(&mut self, renewal: Renewal, out: &mut Vec<Output>) {
        let Some(office) = &mut self.office else { return };
        // Of one process only the newest counts, so there are at most as many as processes.
        office.asked.retain(|older| older.from != renewal.from);
        office.asked.push(renewal);
        self.confirm(out);
    }

    /// Asks for a confirmation if somebody waits for one.
    fn confirm(&mut self, out: &mut Vec<Output>) {
        if self.office.as_ref().is_some_and(|office| !office.asked.is_empty()) {
            self.ask_quorum(out);
        }
    }

    /// Asks for a confirmation unless one is under way: it would not cover what was asked after it began.
    fn ask_quorum(&mut self, out: &mut Vec<Output>) {
        let token = self.next;
        let Some(office) = &mut self.office else { return };
        if office.confirming.is_none() {
            office.confirming = Some((token, std::mem::take(&mut office.asked)));
            self.next += 1;
            let term = office.term;
            out.push(Output::Confirm { term, token });
        }
    }

    fn confirmed(&mut self, now: Now, map: &Map, token: u64, out: &mut Vec<Output>) {
        let lease_us = self.config.lease_us;
        let Some(office) = &mut self.office else { return };
        let Some((_, asked)) = office.confirming.take_if(|(waiting, _)| *waiting == token) else {
            return;
        };
        if now.mono_us.saturating_sub(office.confirmed_us) >= lease_us / 2 {
            office.since_us = now.mono_us;
        }
        office.confirmed_us = now.mono_us;
        for renewal in asked {
            let from = renewal.from;
            let replaced = office.open.values().any(|open| open.replaced.contains(&from));
            if replaced || !map.is_current(from) {
                continue;
            }
            office.highest = office.highest.max(renewal.highest.min(map.ceiling()));
            let heard = Heard {
                process: from,
                granted_us: now.mono_us,
                on_disk: renewal.on_disk.into_iter().collect(),
            };
            office.heard.insert(from.node, heard);
            let grant = Grant {
                number: renewal.number,
                revision: map.revision(),
                ceiling: map.ceiling(),
                valid_us: lease_us,
            };
            out.push(Output::Grant { to: from, grant });
        }
        self.confirm(out);
    }

    fn unconfirmed(&mut self, token: u64) {
        if let Some(office) = &mut self.office {
            // Who asked asks again.
            office.confirming.take_if(|(waiting, _)| *waiting == token);
        }
    }

    /// Whether a proposal about this shard is under way.
    pub(super) fn is_open(&self, shard: ShardId) -> bool {
        let office = self.office.as_ref();
        office.is_some_and(|office| office.open.values().any(|open| open.shards.contains(&shard)))
    }

    /// Whether a proposal about any shard is under way.
    pub(super) fn is_any_open(&self) -> bool {
        let office = self.office.as_ref();
        office.is_some_and(|office| office.open.values().any(|open| !open.shards.is_empty()))
    }

    /// The ceiling that should be, if it should be higher. Every new epoch begins above the ceiling and needs room: also one
    /// that an owner began by handing over.
    fn ceiling(&self, now: Now, map: &Map, commands: &[Command]) -> Option<Command> {
        let office = self.office.as_ref()?;
        let ahead = self.config.ceiling_ahead_us;
        // Above versions only as much as the next changes need: whatever begins above the ceiling is further ahead of clocks.
        let room = ahead / 20;
        let begins = commands.iter().any(|command| matches!(command, Command::Assign { .. }));
        let raising = office.open.values().any(|open| open.ceiling);
        let begun = map.shards().map(|(_, shard)| shard.begins.0).max().unwrap_or_default();
        let used = office.highest.0.max(begun);
        let above = |clock_us, used_us| now.wall_us.saturating_add(clock_us).max(used.saturating_add(used_us));
        let low = map.ceiling().0 < above(ahead - ahead / 5, room / 2);
        if !begins && (!low || raising) {
            return None;
        }
        let mut to = above(ahead, room);
        if begins {
            to = to.max(map.ceiling().0).saturating_add(room);
        }
        let to = Version(to.min(Version::LIMIT - 1));
        (to > map.ceiling()).then_some(Command::RaiseCeiling { to })
    }

    fn propose(&mut self, map: &Map, commands: Vec<Command>, out: &mut Vec<Output>) {
        let proposal = self.number();
        let mut open = Open::default();
        for command in &commands {
            match command {
                Command::Assign { seen, .. } => {
                    open.replaced
                        .extend(map.shard(seen.shard).and_then(|shard| shard.owner));
                    open.shards.insert(seen.shard);
                }
                Command::Fill { seen, .. }
                | Command::Join { seen, .. }
                | Command::Remove { seen, .. }
                | Command::Move { seen, .. }
                | Command::Release { seen, .. } => {
                    open.shards.insert(seen.shard);
                }
                Command::RaiseCeiling { .. } => open.ceiling = true,
                Command::Register { .. }
                | Command::Drain { .. }
                | Command::Forget { .. }
                | Command::SetCopies { .. }
                | Command::Pin { .. }
                | Command::Revoke { .. }
                | Command::RaiseFloor { .. } => {}
            }
        }
        if let Some(office) = &mut self.office {
            office.open.insert(proposal, open);
            out.push(Output::Propose {
                term: office.term,
                proposal,
                commands,
            });
        }
    }
}
