//! A model of what keeps the replicated log: one leader a term, proposals that count only in the term they were made in,
//! entries that are agreed on late or never, and one order for all.
//!
//! The log is what a quorum has agreed on, and the map is that log applied at once. What the world makes of it are elections,
//! delays, leaders that do not know yet that they are none, and nodes that apply late. What a leader had proposed when the
//! next one is elected is in that one's log or it is not: nobody can say before.
//!
//! It does not know roads, clocks or processes beyond their names, nor what commands mean.

use crate::plan::{CLUSTER, Plan};
use std::rc::Rc;
use tidings_router::control::command::{Command, Refusal};
use tidings_router::control::map::{Map, Process};

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// In which term it was proposed.
    pub term: u64,
    /// What it says. Nothing: a new leader's first entry.
    pub commands: Vec<Command>,
}

/// What was proposed in the present term, and nobody has agreed to yet.
#[derive(Clone, Debug)]
struct Flight {
    number: u64,
    /// The leader's own name for it.
    proposal: Option<u64>,
    commands: Vec<Command>,
    /// A quorum has it.
    kept: bool,
}

/// What became of one command when it was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The command.
    pub command: Command,
    /// Who owned the shard that it assigns, before.
    pub replaced: Option<Process>,
    /// Why it changed nothing, if it did not.
    pub result: Result<(), Refusal>,
}

/// A proposal that is agreed on: what came of its commands, and the leader's own name for it.
pub type Agreed = (Vec<Applied>, Option<u64>);

/// See the module.
#[derive(Debug)]
pub struct Agreement {
    log: Vec<Rc<Entry>>,
    map: Map,
    term: u64,
    leader: Option<Process>,
    flights: Vec<Flight>,
    flown: u64,
}

impl Agreement {
    /// A new cluster: an empty log.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            log: Vec::new(),
            map: Self::empty_map(plan),
            term: 0,
            leader: None,
            flights: Vec::new(),
            flown: 0,
        }
    }

    /// The map before the first entry.
    #[must_use]
    pub fn empty_map(plan: &Plan) -> Map {
        Map::new(CLUSTER, plan.shards, plan.copies)
    }

    /// Everything agreed on so far, applied.
    #[must_use]
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// Everything agreed on so far, in order.
    #[must_use]
    pub fn log(&self) -> &[Rc<Entry>] {
        &self.log
    }

    /// Counts elections.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Who was elected last.
    #[must_use]
    pub fn leader(&self) -> Option<Process> {
        self.leader
    }

    /// Commands that were proposed in this term and are not agreed on.
    pub fn open(&self) -> impl Iterator<Item = &Command> {
        self.flights.iter().flat_map(|flight| &flight.commands)
    }

    /// Whether a command about some shard is among them.
    #[must_use]
    pub fn is_any_shard_open(&self) -> bool {
        let of_shard = |command: &Command| !matches!(command, Command::RaiseCeiling { .. } | Command::Register { .. });
        self.open().any(of_shard)
    }

    /// Proposes, in a term. `None`: that is not the present one. Else a name under which to agree to it.
    pub fn propose(&mut self, term: u64, proposal: Option<u64>, commands: Vec<Command>) -> Option<u64> {
        if term != self.term {
            return None;
        }
        self.flown += 1;
        self.flights.push(Flight {
            number: self.flown,
            proposal,
            commands,
            kept: false,
        });
        Some(self.flown)
    }

    /// A quorum has a proposal, unless its fate was decided before. Agreed on is what a quorum has with all that was proposed
    /// before it.
    pub fn agree(&mut self, flight: u64) -> Vec<Agreed> {
        for known in self.flights.iter_mut().filter(|known| known.number == flight) {
            known.kept = true;
        }
        let agreed = self.flights.iter().take_while(|flight| flight.kept).count();
        let agreed: Vec<Flight> = self.flights.drain(..agreed).collect();
        agreed
            .into_iter()
            .map(|flight| (self.append(flight.commands), flight.proposal))
            .collect()
    }

    /// Another leader. What was proposed before, as far as it `survives`, was in its log and counts; the rest never will.
    /// Gives what was applied, and how many proposals were lost.
    pub fn elect(&mut self, leader: Process, mut survives: impl FnMut() -> bool) -> (Vec<Applied>, u64) {
        let flights = std::mem::take(&mut self.flights);
        // A log is cut off somewhere; what comes behind is gone.
        let kept = flights.iter().take_while(|_| survives()).count();
        let lost = (flights.len() - kept) as u64;
        let applied = flights
            .into_iter()
            .take(kept)
            .flat_map(|flight| self.append(flight.commands));
        let applied = applied.collect();
        self.term += 1;
        self.leader = Some(leader);
        // The first entry of its own term: behind it everything older is decided.
        self.append(Vec::new());
        (applied, lost)
    }

    fn append(&mut self, commands: Vec<Command>) -> Vec<Applied> {
        let apply = |command: &Command| Applied {
            command: command.clone(),
            replaced: match command {
                Command::Assign { seen, .. } => self.map.shard(seen.shard).and_then(|shard| shard.owner),
                _ => None,
            },
            result: self.map.apply(command),
        };
        let applied = commands.iter().map(apply).collect();
        let term = self.term;
        self.log.push(Rc::new(Entry { term, commands }));
        applied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_protocol::{NodeId, Version};

    fn process(node: u64) -> Process {
        Process {
            node: NodeId(node),
            incarnation: 1,
        }
    }

    fn raise(to: u64) -> Vec<Command> {
        vec![Command::RaiseCeiling { to: Version(to) }]
    }

    fn agreement() -> Agreement {
        let mut agreement = Agreement::new(&Plan::draw(1, None));
        agreement.elect(process(0), || true);
        agreement
    }

    #[test]
    fn what_is_agreed_to_is_applied_once() {
        let mut agreement = agreement();
        let flight = agreement.propose(1, Some(7), raise(10)).unwrap_or_default();
        assert_eq!(agreement.map().ceiling(), Version::ZERO);
        let agreed = agreement.agree(flight);
        assert_eq!((agreed.len(), agreed[0].0.len(), agreed[0].1), (1, 1, Some(7)));
        assert_eq!(agreed[0].0[0].result, Ok(()));
        assert_eq!(agreement.map().ceiling(), Version(10));
        assert!(agreement.agree(flight).is_empty());
    }

    #[test]
    fn a_proposal_waits_for_those_before_it() {
        let mut agreement = agreement();
        let first = agreement.propose(1, None, raise(10)).unwrap_or_default();
        let second = agreement.propose(1, None, raise(20)).unwrap_or_default();
        assert!(agreement.agree(second).is_empty());
        assert_eq!(agreement.agree(first).len(), 2);
        assert_eq!(agreement.map().ceiling(), Version(20));
    }

    #[test]
    fn a_proposal_of_another_term_is_refused() {
        let mut agreement = agreement();
        agreement.elect(process(1), || true);
        assert_eq!(agreement.propose(1, None, raise(10)), None);
    }

    #[test]
    fn an_election_decides_what_is_open() {
        for survives in [false, true] {
            let mut agreement = agreement();
            let flight = agreement.propose(1, None, raise(10)).unwrap_or_default();
            let (applied, lost) = agreement.elect(process(1), || survives);
            assert_eq!(
                (applied.len() as u64, lost),
                (u64::from(survives), u64::from(!survives))
            );
            assert!(agreement.agree(flight).is_empty(), "its fate was decided");
            assert_eq!(agreement.log().last().map(|entry| entry.term), Some(2));
        }
    }
}
