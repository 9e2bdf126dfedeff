//! Small numbers for those at the far ends of links: lanes here know owners elsewhere by number, owners here the lanes.
//!
//! A number stays with its owner or lane while the node is in the map. Lives of one number are told apart by generations,
//! which rise for ever, so that giving one out again confuses nobody. It does not know connections.

use std::collections::HashMap;
use tidings_protocol::NodeId;
use tidings_router::edge::MAX_OWNERS;

/// Owners of other nodes, numbered on from those of this one.
#[derive(Debug)]
pub(super) struct OwnerNumbers {
    known: HashMap<(NodeId, u16), usize>,
    free: Vec<usize>,
    next: usize,
}

impl OwnerNumbers {
    /// `owners`: how many this node has itself.
    pub(super) fn new(owners: usize) -> Self {
        Self {
            known: HashMap::new(),
            free: Vec::new(),
            next: owners,
        }
    }

    /// The numbers of a node's owners, in their order; `None` if there are no numbers left.
    pub(super) fn of(&mut self, node: NodeId, owners: u16) -> Option<Vec<usize>> {
        (0..owners).map(|owner| self.one(node, owner)).collect()
    }

    fn one(&mut self, node: NodeId, owner: u16) -> Option<usize> {
        if let Some(number) = self.known.get(&(node, owner)) {
            return Some(*number);
        }
        let number = self.free.pop().or_else(|| {
            self.next += 1;
            Some(self.next - 1).filter(|number| *number < MAX_OWNERS)
        })?;
        self.known.insert((node, owner), number);
        Some(number)
    }

    /// The node is gone for good: its numbers are given out again. Lanes go through all numbers, so few is better.
    pub(super) fn release(&mut self, node: NodeId) {
        let free = &mut self.free;
        self.known.retain(|(of, _), number| {
            if *of == node {
                free.push(*number);
            }
            *of != node
        });
        // The smallest is given out first.
        self.free.sort_unstable_by(|a, b| b.cmp(a));
    }
}

/// Lanes of other nodes as links of the owners here, numbered on from the lanes of this one.
#[derive(Debug)]
pub(super) struct LinkIds {
    known: HashMap<(NodeId, u16), u32>,
    next: u32,
}

impl LinkIds {
    /// `lanes`: how many this node has itself.
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            known: HashMap::new(),
            next: u32::try_from(lanes).unwrap_or(u32::MAX),
        }
    }

    /// The link of a lane; the same for each owner of this node.
    pub(super) fn of(&mut self, node: NodeId, lane: u16) -> u32 {
        *self.known.entry((node, lane)).or_insert_with(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// The same for a lane that may never have had a link.
    pub(super) fn find(&self, node: NodeId, lane: u16) -> Option<u32> {
        self.known.get(&(node, lane)).copied()
    }

    /// Forgets the lanes of nodes that are not in the map any more.
    pub(super) fn retain(&mut self, is_known: impl Fn(NodeId) -> bool) {
        self.known.retain(|(node, _), _| is_known(*node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_keeps_its_number_until_its_node_is_gone() {
        let mut numbers = OwnerNumbers::new(2);
        assert_eq!(numbers.of(NodeId(7), 2), Some(vec![2, 3]));
        assert_eq!(numbers.of(NodeId(8), 1), Some(vec![4]));
        assert_eq!(numbers.of(NodeId(7), 3), Some(vec![2, 3, 5]));
        numbers.release(NodeId(7));
        assert_eq!(numbers.of(NodeId(9), 4), Some(vec![2, 3, 5, 6]));
        assert_eq!(numbers.of(NodeId(8), 1), Some(vec![4]));
    }

    #[test]
    fn numbers_end_where_lanes_take_no_more() {
        let mut numbers = OwnerNumbers::new(MAX_OWNERS - 1);
        assert_eq!(numbers.of(NodeId(7), 1), Some(vec![MAX_OWNERS - 1]));
        assert_eq!(numbers.of(NodeId(8), 1), None);
        assert_eq!(numbers.of(NodeId(7), 1), Some(vec![MAX_OWNERS - 1]));
    }

    #[test]
    fn a_lane_keeps_its_link_and_one_that_is_gone_gets_another() {
        let mut links = LinkIds::new(3);
        assert_eq!(
            (links.of(NodeId(7), 0), links.of(NodeId(7), 1), links.of(NodeId(7), 0)),
            (3, 4, 3)
        );
        links.retain(|node| node != NodeId(7));
        assert_eq!(links.find(NodeId(7), 0), None);
        assert_eq!(links.of(NodeId(7), 0), 5);
    }
}
