//! Copies, leases and the control plane; and both halves together.

use super::front::ONE;
use crate::copies::{Budget, Copies};
use crate::front::Shape;
use crate::rule::Rules;
use crate::whole::Whole;

const PAIR: Copies = Copies {
    nodes: 2,
    copies: 2,
    room: 2,
    epochs: 2,
    torn: false,
    gossip_lies: true,
    disks: false,
    learns_first: false,
    budget: Budget {
        publishes: 2,
        retries: 0,
        crashes: 0,
        power_losses: 0,
        joins: 0,
        removals: 0,
        replacements: 1,
        releases: 0,
        losses: 0,
        closes: 1,
        evictions: 0,
        raises: 0,
    },
    rules: Rules::all(),
};

pub(super) fn copies() -> Vec<(&'static str, &'static str, Copies)> {
    let budget = PAIR.budget;
    let three = Copies { nodes: 3, ..PAIR };
    vec![
        (
            "pair",
            "an owner and a copy; the owner is replaced while it goes on",
            Copies {
                budget: Budget {
                    raises: 1,
                    retries: 1,
                    ..budget
                },
                ..PAIR
            },
        ),
        (
            "alone",
            "an owner without a copy is replaced by an empty one",
            Copies {
                copies: 1,
                torn: true,
                budget: Budget { closes: 0, ..budget },
                ..PAIR
            },
        ),
        (
            "alone-crash",
            "an owner without a copy, and a restart",
            Copies {
                copies: 1,
                gossip_lies: false,
                budget: Budget {
                    crashes: 1,
                    closes: 0,
                    ..budget
                },
                ..PAIR
            },
        ),
        (
            "membership",
            "a copy is removed, another joins, and the owner is replaced",
            Copies {
                budget: Budget {
                    joins: 1,
                    removals: 1,
                    closes: 0,
                    ..budget
                },
                gossip_lies: false,
                ..PAIR
            },
        ),
        (
            "membership-retry",
            "a copy is removed, joins again and is promoted, while a publisher calls again",
            Copies {
                budget: Budget {
                    publishes: 1,
                    retries: 1,
                    joins: 1,
                    removals: 1,
                    closes: 0,
                    ..budget
                },
                gossip_lies: false,
                ..PAIR
            },
        ),
        (
            "rejoin",
            "a copy crashes, joins again, and is promoted",
            Copies {
                budget: Budget {
                    joins: 1,
                    crashes: 1,
                    closes: 0,
                    ..budget
                },
                gossip_lies: false,
                ..PAIR
            },
        ),
        (
            "join",
            "a copy joins an owner that is replaced",
            Copies {
                copies: 1,
                budget: Budget {
                    joins: 1,
                    crashes: 1,
                    closes: 0,
                    ..budget
                },
                gossip_lies: false,
                ..PAIR
            },
        ),
        (
            "three",
            "three copies, of which two take over in turn",
            Copies {
                copies: 3,
                epochs: 3,
                gossip_lies: false,
                budget: Budget {
                    publishes: 1,
                    retries: 1,
                    replacements: 2,
                    closes: 0,
                    ..budget
                },
                ..three
            },
        ),
        (
            "three-crash",
            "three copies, a crash, a retry",
            Copies {
                copies: 3,
                gossip_lies: false,
                epochs: 2,
                budget: Budget {
                    publishes: 1,
                    retries: 1,
                    crashes: 1,
                    closes: 0,
                    ..budget
                },
                ..three
            },
        ),
        (
            "hand-over",
            "a planned move, its proposal lost or late",
            Copies {
                gossip_lies: false,
                epochs: 3,
                budget: Budget {
                    releases: 1,
                    losses: 1,
                    replacements: 1,
                    closes: 0,
                    ..budget
                },
                ..PAIR
            },
        ),
        (
            "hand-over-alone",
            "a planned move to a copy that has to join first",
            Copies {
                gossip_lies: false,
                copies: 1,
                epochs: 3,
                budget: Budget {
                    releases: 1,
                    losses: 1,
                    joins: 1,
                    replacements: 0,
                    closes: 0,
                    ..budget
                },
                ..PAIR
            },
        ),
        (
            "restart",
            "the new owner removes the old one, dies and starts again",
            Copies {
                gossip_lies: false,
                budget: Budget {
                    removals: 1,
                    crashes: 1,
                    closes: 0,
                    ..budget
                },
                ..PAIR
            },
        ),
        (
            "restart-rejoin",
            "the new owner removes the old one, dies, starts again, and joins whoever asks",
            Copies {
                gossip_lies: false,
                budget: Budget {
                    publishes: 1,
                    retries: 1,
                    removals: 1,
                    joins: 1,
                    crashes: 1,
                    closes: 0,
                    ..budget
                },
                ..PAIR
            },
        ),
        (
            "loss-join",
            "a shard is lost, its next owner gets a copy, and dies",
            Copies {
                gossip_lies: false,
                copies: 1,
                epochs: 3,
                budget: Budget {
                    publishes: 1,
                    crashes: 2,
                    joins: 1,
                    replacements: 2,
                    closes: 0,
                    ..budget
                },
                ..PAIR
            },
        ),
        (
            "three-join",
            "a third copy joins while the owner changes",
            Copies {
                gossip_lies: false,
                epochs: 3,
                budget: Budget {
                    publishes: 1,
                    joins: 1,
                    replacements: 2,
                    closes: 0,
                    ..budget
                },
                ..three
            },
        ),
        (
            "copy-eviction",
            "the owner evicts, a copy is brought up and promoted",
            Copies {
                gossip_lies: false,
                copies: 1,
                budget: Budget {
                    evictions: 1,
                    joins: 1,
                    closes: 0,
                    ..budget
                },
                ..PAIR
            },
        ),
        (
            "disks",
            "copies on disks: a crash, and a copy that counts because its disk is complete",
            Copies {
                gossip_lies: false,
                disks: true,
                budget: Budget {
                    publishes: 1,
                    crashes: 1,
                    power_losses: 1,
                    closes: 0,
                    ..budget
                },
                ..PAIR
            },
        ),
        (
            "disks-power",
            "copies on disks: a crash, a power loss, two owners in turn",
            Copies {
                gossip_lies: false,
                disks: true,
                epochs: 3,
                budget: Budget {
                    crashes: 1,
                    power_losses: 1,
                    replacements: 2,
                    closes: 0,
                    ..budget
                },
                ..PAIR
            },
        ),
    ]
}

pub(super) fn whole() -> Vec<(&'static str, &'static str, Whole)> {
    let budget = Budget {
        publishes: 1,
        closes: 0,
        ..PAIR.budget
    };
    let model = Whole {
        copies: Copies {
            budget,
            gossip_lies: false,
            ..PAIR
        },
        shape: ONE.shape,
        closes: 1,
        cuts: 0,
        leaves: 1,
    };
    vec![
        (
            "whole",
            "two copies, one of which takes over; one edge, one client that stays",
            Whole { leaves: 0, ..model },
        ),
        ("whole-leaves", "the same with a client that comes back", model),
        (
            "whole-alone",
            "one copy, replaced by an empty owner while it lives; one edge, one client",
            Whole {
                copies: Copies {
                    copies: 1,
                    gossip_lies: true,
                    ..model.copies
                },
                shape: Shape {
                    nothing_lost: false,
                    ..ONE.shape
                },
                ..model
            },
        ),
    ]
}
