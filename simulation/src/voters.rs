//! Voters and operators: elections, what a quorum agrees to, and commands from outside.
//!
//! What is agreed on is kept in [`crate::agreement`]; here it meets roads that are cut and nodes that sleep.

use crate::node::{Word, process_of};
use crate::world::{Event, World};
use tidings_router::control::command::Command;

/// How often voters look whether there is a leader.
const LOOK_US: u64 = 100_000;

impl World {
    /// Whether a node, running or not, is connected both ways with voters that, with itself, are a majority.
    #[must_use]
    pub fn reaches_quorum(&self, node: usize) -> bool {
        let reaches = |voter: &usize| {
            let open = !self.network.is_blocked(node, *voter) && !self.network.is_blocked(*voter, node);
            *voter == node || open && self.nodes[*voter].runs()
        };
        2 * (0..self.plan.voters).filter(reaches).count() > self.plan.voters
    }

    /// Whether the process that was elected last still leads: it lives, is awake, and reaches a majority.
    #[must_use]
    pub fn has_leader(&self) -> bool {
        self.agreement.leader().is_some_and(|leader| {
            let node = leader.node.0 as usize;
            self.nodes[node].incarnation == leader.incarnation && self.nodes[node].runs() && self.reaches_quorum(node)
        })
    }

    /// There and back, to whoever makes the quorum.
    pub fn quorum_us(&mut self, leader: usize) -> u64 {
        let other = (leader + 1) % self.plan.voters;
        self.network.delay_us(&mut self.chance, leader, other) + self.network.delay_us(&mut self.chance, other, leader)
    }

    /// Voters look whether there is a leader.
    pub fn voters_look(&mut self) {
        self.after(LOOK_US, Event::Voters);
        if self.has_leader() {
            self.leaderless_since = None;
        } else {
            let since = *self.leaderless_since.get_or_insert(self.now);
            let patience_us = self.chance.range(300_000, 1_200_000);
            if self.now - since > patience_us {
                self.elect();
            }
        }
        let forgotten = (0..self.plan.nodes).filter(|node| self.gone[*node]);
        let mut known = forgotten.map(|node| tidings_protocol::NodeId(node as u64));
        if let Some(node) = known.find(|node| self.agreement.map().node(*node).is_some()) {
            self.operate(Command::Forget { node });
        }
        if self.healing {
            let gone = |node: tidings_protocol::NodeId| self.gone[node.0 as usize];
            let draining = self.agreement.map().nodes();
            let draining = draining.filter(|(node, known)| known.draining && !gone(*node));
            let draining = draining.map(|(node, _)| node).next();
            if let Some(node) = draining {
                self.operate(Command::Drain { node, draining: false });
            }
        }
    }

    /// Another leader, if a majority can have one.
    pub fn elect(&mut self) {
        let able: Vec<usize> = (0..self.plan.voters)
            .filter(|node| self.nodes[*node].runs() && self.reaches_quorum(*node))
            .collect();
        if able.is_empty() {
            return;
        }
        let node = *self.chance.pick(&able);
        let incarnation = self.nodes[node].incarnation;
        let chance = &mut self.chance;
        let (applied, lost) = self
            .agreement
            .elect(process_of(node, incarnation), || chance.percent(50));
        self.coverage.add("proposal lost", lost);
        self.coverage.add("proposal outlived its leader", applied.len() as u64);
        self.note_applied(&applied);
        self.leaderless_since = None;
        self.coverage.saw("election");
        self.oracle.elected(self.now);
        let (term, length) = (self.agreement.term(), self.agreement.log().len());
        self.trace
            .note(self.now, "log", || format!("n{node} leads, term {term}"));
        let us = self.quorum_us(node);
        self.after(us, Event::Word(node, incarnation, Word::Elected(term, length)));
    }

    /// A quorum agrees to a proposal, unless another leader was elected since: then its fate is decided.
    pub fn commit(&mut self, term: u64, flight: u64) {
        if term != self.agreement.term() {
            return;
        }
        if !self.has_leader() {
            // As long as it is not deposed a leader goes on trying.
            return self.after(50_000, Event::Commit(term, flight));
        }
        let agreed = self.agreement.agree(flight);
        let Some(leader) = self.agreement.leader().filter(|_| !agreed.is_empty()) else {
            return;
        };
        let (node, length) = (leader.node.0 as usize, self.agreement.log().len());
        for (applied, proposal) in agreed {
            self.note_applied(&applied);
            if let Some(proposal) = proposal {
                let us = self.chance.range(1, 20_000);
                self.after(
                    us,
                    Event::Word(node, leader.incarnation, Word::Settled(proposal, length)),
                );
            }
        }
        self.spread_log(node);
    }

    /// An operator's command goes to the leader, if there is one.
    pub fn operate(&mut self, command: Command) {
        if self.has_leader() {
            self.propose(self.agreement.term(), None, vec![command]);
        }
    }
}
