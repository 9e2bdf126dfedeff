//! What a change of the picture is told as.

use super::*;

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);

fn process(node: NodeId, incarnation: u64) -> Process {
    Process { node, incarnation }
}

/// Three nodes, all alive; node `n % 3 + 1` owns shard `n` and the next has a copy.
fn picture() -> Picture {
    let nodes = [N1, N2, N3].map(|id| {
        let state = NodeState {
            name: format!("n{}", id.0),
            incarnation: 1,
            alive: true,
            member: true,
            draining: false,
            voter: true,
        };
        (id, state)
    });
    let shards = (0..6_u64).map(|shard| ShardState {
        owner: Some(process(NodeId(shard % 3 + 1), 1)),
        epoch: Epoch(1),
        floor: Version(100),
        in_sync: vec![process(NodeId((shard + 1) % 3 + 1), 1)],
        filling: Vec::new(),
        moving: None,
    });
    Picture {
        revision: 1,
        me: "n1".to_owned(),
        nodes: nodes.into(),
        leader: Some(N1),
        lease: Some(true),
        shards: shards.collect(),
    }
}

fn told(changes: &[fn(&mut Picture)]) -> Vec<String> {
    let mut timeline = Timeline::new(50);
    let mut last = picture();
    for (second, change) in (1..).zip(changes) {
        let mut now = last.clone();
        now.revision += 1;
        change(&mut now);
        timeline.compare(second * 1_000, Some(&last), &now);
        last = now;
    }
    timeline.after(0).map(Event::says).collect()
}

#[test]
fn memory_begins_with_a_line_that_says_so() {
    let mut timeline = Timeline::new(5);
    timeline.compare(1, None, &picture());
    let lines: Vec<_> = timeline.after(0).map(Event::says).collect();
    assert_eq!(lines, ["n1 started; what it remembers begins here"]);
}

#[test]
fn nothing_is_told_while_nothing_changes() {
    assert!(told(&[|_| {}, |now| now.revision += 1]).is_empty());
}

#[test]
fn a_failover_is_told_in_a_few_lines_that_grow() {
    let lines = told(&[
        |now| now.nodes.get_mut(&N2).expect("there").alive = false,
        |now| {
            now.shards[1].owner = Some(process(N3, 1));
            now.shards[1].in_sync.clear();
        },
        |now| {
            now.shards[4].owner = Some(process(N3, 1));
            now.shards[4].in_sync.clear();
            now.shards[0].in_sync.clear();
        },
    ]);
    let expected = [
        "n2 does not answer",
        "n3 took over 2 shards of n2, from copies: nothing is lost",
        "n2 no longer counts as a copy of 1 shard",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn without_a_copy_it_says_that_subscribers_fetch_again() {
    let lines = told(&[|now| {
        now.nodes.get_mut(&N2).expect("there").alive = false;
        now.shards[1].owner = Some(process(N1, 1));
        now.shards[1].floor = Version(900);
        now.shards[1].in_sync.clear();
    }]);
    assert!(
        lines.contains(&"n1 took over 1 shard of n2 without a copy: their subscribers fetch again".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn an_owner_that_lives_hands_over_and_stays_as_a_copy() {
    let lines = told(&[
        |now| now.shards[0].moving = Some(process(N2, 1)),
        |now| {
            now.shards[0].moving = None;
            now.shards[0].owner = Some(process(N2, 1));
            now.shards[0].in_sync = vec![process(N1, 1)];
        },
    ]);
    assert_eq!(
        lines,
        ["n1 is to hand 1 shard over to n2", "n1 handed 1 shard over to n2"]
    );
}

#[test]
fn a_restart_with_its_disk_keeps_its_shards() {
    let lines = told(&[|now| {
        now.nodes.get_mut(&N1).expect("there").incarnation = 2;
        now.shards[0].owner = Some(process(N1, 2));
        now.shards[3].owner = Some(process(N1, 2));
    }]);
    assert_eq!(
        lines,
        ["n1 started again", "n1 is back with its disk and goes on with 2 shards"]
    );
}

#[test]
fn drains_leaders_leases_and_members_are_told() {
    let lines = told(&[
        |now| now.nodes.get_mut(&N3).expect("there").draining = true,
        |now| now.leader = None,
        |now| now.leader = Some(N2),
        |now| now.lease = Some(false),
        |now| now.lease = Some(true),
        |now| drop(now.nodes.remove(&N3)),
    ]);
    let expected = [
        "n3 gives up its shards",
        "nobody leads the control plane",
        "n2 leads the control plane",
        "n1 may not give versions: its lease ran out",
        "n1 may give versions now: its lease holds",
        "n3 is no longer part of the cluster",
        "n3 votes no longer",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn old_lines_fall_out_and_a_line_that_grew_is_told_again() {
    let mut timeline = Timeline::new(2);
    let note = |timeline: &mut Timeline, at_ms, kind, shard| {
        timeline.note(at_ms, kind, Some("n1".to_owned()), None, shard);
    };
    note(&mut timeline, 1, Kind::Silent, None);
    note(&mut timeline, 2, Kind::Assigned, Some(1));
    let seen = timeline.number();
    note(&mut timeline, 3, Kind::Assigned, Some(2));
    let grown: Vec<_> = timeline.after(seen).map(|event| (event.id, event.count)).collect();
    assert_eq!(grown, [(2, 2)]);
    note(&mut timeline, 3 + TOGETHER_MS + 1, Kind::Assigned, Some(3));
    let kept: Vec<_> = timeline.after(0).map(|event| (event.kind, event.count)).collect();
    assert_eq!(kept, [(Kind::Assigned, 2), (Kind::Assigned, 1)]);
}
