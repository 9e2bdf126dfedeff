//! Edges and clients under scripted owners.

use crate::front::{Listening, Shape};
use crate::rule::Rules;
use crate::scripted::{Action, Budget, Scripted, Start};

pub(super) const ONE: Scripted = Scripted {
    shape: Shape {
        nodes: 2,
        edges: 1,
        clients: 1,
        shards: 1,
        objects: 1,
        listening: Listening::Stream,
        nothing_lost: true,
        trusting: false,
        rules: Rules::all(),
    },
    budget: Budget {
        publishes: 1,
        unacked: 0,
        closes: 1,
        moves: 0,
        losses: 0,
        crashes: 0,
        cuts: 0,
        leaves: 1,
        adds: 0,
        evictions: 0,
        lingers: 0,
    },
    room: 3,
    holds: 1,
    start: Start::OneOwner,
    prefix: &[],
};

/// The new owner's other object changed, and a client of edge 0 went away with a cursor above that change.
const AWAY: &[Action] = &[
    Action::Publish { n: 1, o: 1 },
    Action::Close {
        n: 1,
        e: 0,
        ceiling: false,
    },
    Action::EdgeReads { n: 1, e: 0 },
    Action::Connect { c: 0, e: 0 },
    Action::OwnerReads { n: 1, e: 0 },
    Action::EdgeReads { n: 1, e: 0 },
    Action::GiveCursor { c: 0, lags: false },
    Action::Leave { c: 0 },
];

pub(super) fn front() -> Vec<(&'static str, &'static str, Scripted)> {
    let shape = ONE.shape;
    let budget = ONE.budget;
    let lossy = Shape {
        nothing_lost: false,
        ..shape
    };
    let one_node = Shape { nodes: 1, ..shape };
    let two_shards = Shape {
        shards: 2,
        objects: 2,
        ..shape
    };
    vec![
        (
            "moves",
            "one shard moves between two owners; one edge, one client",
            Scripted {
                budget: Budget {
                    closes: 2,
                    moves: 1,
                    ..budget
                },
                ..ONE
            },
        ),
        (
            "links",
            "one owner, a link that breaks, interest that comes and goes",
            Scripted {
                shape: one_node,
                budget: Budget {
                    publishes: 2,
                    closes: 1,
                    cuts: 1,
                    lingers: 1,
                    ..budget
                },
                ..ONE
            },
        ),
        (
            "links-moves",
            "a link breaks while the shard moves",
            Scripted {
                budget: Budget {
                    moves: 1,
                    cuts: 1,
                    leaves: 0,
                    ..budget
                },
                ..ONE
            },
        ),
        (
            "loss",
            "the shard moves without a copy",
            Scripted {
                shape: lossy,
                budget: Budget { losses: 1, ..budget },
                ..ONE
            },
        ),
        (
            "loss-twice",
            "the shard moves without a copy, then with one, after a crash",
            Scripted {
                shape: lossy,
                budget: Budget {
                    losses: 1,
                    moves: 1,
                    crashes: 1,
                    leaves: 1,
                    ..budget
                },
                room: 2,
                ..ONE
            },
        ),
        (
            "known",
            "a client that remembers versions instead of a cursor",
            Scripted {
                shape: Shape {
                    listening: Listening::KnownVersions,
                    ..lossy
                },
                budget: Budget {
                    publishes: 2,
                    losses: 1,
                    ..budget
                },
                ..ONE
            },
        ),
        (
            "edges",
            "a client moves between two edges that know different owners",
            Scripted {
                shape: Shape { edges: 2, ..shape },
                budget: Budget {
                    closes: 2,
                    moves: 1,
                    ..budget
                },
                room: 2,
                ..ONE
            },
        ),
        (
            "edges-loss",
            "a client moves between two edges; the shard moves without a copy",
            Scripted {
                shape: Shape { edges: 2, ..lossy },
                budget: Budget { losses: 1, ..budget },
                room: 2,
                ..ONE
            },
        ),
        (
            "objects",
            "a client adds an object",
            Scripted {
                shape: Shape {
                    objects: 2,
                    nodes: 1,
                    ..shape
                },
                budget: Budget {
                    publishes: 2,
                    closes: 2,
                    adds: 1,
                    ..budget
                },
                ..ONE
            },
        ),
        (
            "edges-objects",
            "a client that trusts `subscribed` moves between edges that know different owners, and adds an object",
            Scripted {
                shape: Shape {
                    edges: 2,
                    objects: 2,
                    trusting: true,
                    ..shape
                },
                budget: Budget {
                    closes: 2,
                    adds: 1,
                    leaves: 2,
                    ..budget
                },
                room: 2,
                start: Start::Split,
                prefix: AWAY,
                ..ONE
            },
        ),
        (
            "loss-after-move",
            "a shard moves, then comes back to its first owner without a copy",
            Scripted {
                shape: lossy,
                budget: Budget {
                    publishes: 1,
                    moves: 1,
                    losses: 1,
                    ..budget
                },
                room: 2,
                ..ONE
            },
        ),
        (
            "clients",
            "two clients at one edge, and a shard that moves without a copy",
            Scripted {
                shape: Shape { clients: 2, ..lossy },
                budget: Budget {
                    losses: 1,
                    closes: 1,
                    ..budget
                },
                room: 2,
                ..ONE
            },
        ),
        (
            "eviction",
            "the oldest version is evicted, and the shard moves with its copy",
            Scripted {
                shape: lossy,
                budget: Budget {
                    publishes: 2,
                    moves: 1,
                    evictions: 1,
                    closes: 1,
                    ..budget
                },
                room: 3,
                ..ONE
            },
        ),
        (
            "shards",
            "two shards under one cursor, of which one moves",
            Scripted {
                shape: two_shards,
                budget: Budget {
                    publishes: 1,
                    closes: 2,
                    moves: 1,
                    ..budget
                },
                room: 2,
                holds: 3,
                ..ONE
            },
        ),
        (
            "polls",
            "long-poll with what was told above the cursor",
            Scripted {
                shape: Shape {
                    listening: Listening::Poll,
                    ..two_shards
                },
                budget: Budget {
                    publishes: 2,
                    closes: 2,
                    leaves: 2,
                    ..budget
                },
                room: 3,
                holds: 3,
                start: Start::OwnerEach,
                ..ONE
            },
        ),
        (
            "polls-edges",
            "long-poll at two edges, with polls that time out",
            Scripted {
                shape: Shape {
                    listening: Listening::Poll,
                    nodes: 1,
                    edges: 2,
                    ..shape
                },
                budget: Budget { leaves: 2, ..budget },
                ..ONE
            },
        ),
        (
            "polls-cut",
            "long-poll with answers that are cut",
            Scripted {
                shape: Shape {
                    listening: Listening::Poll,
                    nodes: 1,
                    objects: 2,
                    ..shape
                },
                budget: Budget {
                    publishes: 2,
                    closes: 1,
                    leaves: 2,
                    ..budget
                },
                holds: 3,
                ..ONE
            },
        ),
        (
            "polls-loss",
            "long-poll while a shard moves without a copy",
            Scripted {
                shape: Shape {
                    listening: Listening::Poll,
                    ..lossy
                },
                budget: Budget {
                    publishes: 2,
                    closes: 1,
                    losses: 1,
                    leaves: 2,
                    ..budget
                },
                room: 2,
                ..ONE
            },
        ),
    ]
}
