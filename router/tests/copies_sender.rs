//! The sender of copies rule by rule, where random lives would seldom look.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "support/lab.rs"]
#[allow(dead_code, unreachable_pub)]
mod lab;

use lab::config;
use tidings_protocol::copy::{CopiedAnswer, Entry, Frame, encode};
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Epoch, NodeId, ObjectHash, ShardId, Version};
use tidings_router::Now;
use tidings_router::control::map::{Process, Shard};
use tidings_router::copies::sender::{self, Output, Sender, Wish};
use tidings_router::owner::{Input, Owner};

const OWNER: Process = process(1);
const COPY: Process = process(2);
const NOW: Now = Now {
    mono_us: 1_000_000,
    wall_us: 1_000_000,
};

const fn process(node: u64) -> Process {
    Process {
        node: NodeId(node),
        incarnation: 1,
    }
}

/// Owned in epoch 1, with one copy in sync.
fn shard(moving: Option<Process>) -> Shard {
    Shard {
        epoch: Epoch(1),
        owner: Some(OWNER),
        begins: Version(10),
        floor: Version(10),
        cause: FloorCause::Lost,
        in_sync: vec![COPY],
        filling: Vec::new(),
        moving,
        turn: 1,
        pinned: None,
    }
}

struct Bench {
    owner: Owner,
    sender: Sender,
    out: Vec<Output>,
}

impl Bench {
    /// Shards 0 and 1 are owned, and level with their copy.
    fn new() -> Self {
        Self::with_queue(1 << 20)
    }

    /// The same with so many bytes that may be unconfirmed.
    fn with_queue(queue_bytes: usize) -> Self {
        let mut owner = Owner::new(config());
        let assign = Input::Assign {
            shards: vec![ShardId(0), ShardId(1)],
            epoch: Epoch(1),
            floor: Version(10),
            cause: FloorCause::Lost,
        };
        owner.handle(NOW, assign, &mut Vec::new());
        let config = sender::Config {
            shards: config().shards,
            window_bytes: 1 << 20,
            queue_bytes,
            silence_us: 1_000_000,
            again_us: 1_000,
        };
        let mut new = Self {
            owner,
            sender: Sender::new(OWNER, config),
            out: Vec::new(),
        };
        for id in [ShardId(0), ShardId(1)] {
            new.sender.heed(NOW, id, &shard(None), &new.owner, &mut new.out);
        }
        new.sender.link(NOW, COPY, true, &mut new.out);
        // So many pieces go at one time that the second shard is whole with the second batch.
        let sent = [new.flush(), new.flush()].concat();
        new.confirm(*sent.last().unwrap());
        assert_eq!(new.sender.behind(), (0, 0));
        new
    }

    /// Sends what there is; the numbers of the batches.
    fn flush(&mut self) -> Vec<u64> {
        self.sender.flush(NOW, &self.owner, &mut self.out);
        let sent = self.out.drain(..).filter_map(|output| match output {
            Output::Send { batch, .. } => Some(batch.place),
            _ => None,
        });
        sent.collect()
    }

    fn confirm(&mut self, written: u64) {
        assert!(self.sender.confirmed(NOW, COPY, 1, (written, 0), &mut self.out));
    }

    fn change(&mut self, id: u16) {
        let object = ObjectHash(u64::from(id) << 62);
        self.sender.versions(ShardId(id), &[(object, Version(20))]);
    }

    fn hands_over(&mut self, id: u16) -> bool {
        let mut out = Vec::new();
        self.sender.handle_deadline(
            Now {
                mono_us: NOW.mono_us + 10_000,
                ..NOW
            },
            &mut out,
        );
        out.iter()
            .any(|output| matches!(output, Output::Propose(Wish::HandOver { shard, .. }) if *shard == ShardId(id)))
    }
}

#[test]
fn a_shard_at_rest_is_handed_over_although_others_of_its_stream_are_busy() {
    let mut bench = Bench::new();
    bench.change(0);
    let first = bench.flush();
    bench
        .sender
        .heed(NOW, ShardId(0), &shard(Some(COPY)), &bench.owner, &mut bench.out);
    assert!(bench.sender.is_leaving(ShardId(0)));
    bench.change(1);
    bench.flush();
    assert!(!bench.hands_over(0), "its own last change is not confirmed");
    bench.confirm(*first.last().unwrap());
    assert!(bench.hands_over(0), "what is not confirmed is the other shard's");
}

#[test]
fn an_answer_about_an_earlier_change_waits_for_that_and_not_for_other_shards() {
    let mut bench = Bench::new();
    bench.change(0);
    let first = bench.flush();
    bench.change(1);
    bench.flush();
    assert!(bench.sender.request(7, &[ShardId(0)], false), "it is not on the copy");
    bench.confirm(*first.last().unwrap());
    assert!(bench.out.contains(&Output::Confirmed { request: 7 }));
    assert!(!bench.sender.request(8, &[ShardId(0)], false), "it is there");
    assert!(bench.sender.request(9, &[ShardId(1)], false));
}

#[test]
fn an_answer_that_wants_a_sync_waits_for_one_although_the_change_is_written() {
    let mut bench = Bench::new();
    bench.change(0);
    let place = *bench.flush().last().unwrap();
    bench.confirm(place);
    assert!(!bench.sender.request(1, &[ShardId(0)], false));
    assert!(bench.sender.request(2, &[ShardId(0)], true));
    let synced = *bench.flush().last().unwrap();
    assert!(bench.sender.confirmed(NOW, COPY, 1, (synced, synced), &mut bench.out));
    assert!(bench.out.contains(&Output::Confirmed { request: 2 }));
}

#[test]
fn a_hand_over_is_proposed_anew_when_something_else_was_agreed_about_the_shard() {
    let mut bench = Bench::new();
    bench
        .sender
        .heed(NOW, ShardId(0), &shard(Some(COPY)), &bench.owner, &mut bench.out);
    assert!(bench.hands_over(0));
    assert!(!bench.hands_over(0), "its fate is not known yet");
    // A third one is to be filled: the proposal took the turn before for granted and is void.
    let filled = Shard {
        filling: vec![process(3)],
        turn: 2,
        ..shard(Some(COPY))
    };
    bench
        .sender
        .heed(NOW, ShardId(0), &filled, &bench.owner, &mut bench.out);
    assert!(bench.hands_over(0));
}

#[test]
fn what_waits_for_a_copy_that_was_taken_out_holds_nobody_up() {
    let mut bench = Bench::new();
    // More than may wait on one stream.
    let many: Vec<(ObjectHash, Version)> = (0..200_000).map(|number| (ObjectHash(number), Version(20))).collect();
    bench.sender.versions(ShardId(0), &many);
    bench.flush();
    assert!(bench.sender.is_congested());
    // It stands still: its connection is up.
    let without = Shard {
        in_sync: Vec::new(),
        turn: 2,
        ..shard(None)
    };
    for id in [ShardId(0), ShardId(1)] {
        assert!(bench.sender.is_congested(), "it is waited for");
        bench.sender.heed(NOW, id, &without, &bench.owner, &mut bench.out);
    }
    assert!(!bench.sender.is_congested());
}

#[test]
fn marks_of_one_request_go_in_entries_that_a_frame_holds() {
    let mut bench = Bench::new();
    let answers: Vec<CopiedAnswer> = (0..200_000)
        .map(|number| CopiedAnswer {
            key: (u64::MAX, number),
            version: Version(u64::from(u32::MAX)),
            wall_us: 1 << 52,
        })
        .collect();
    bench.sender.marks(ShardId(0), &[], &answers);
    bench.sender.flush(NOW, &bench.owner, &mut bench.out);
    let mut count = 0;
    for output in &bench.out {
        let Output::Send { batch, .. } = output else { continue };
        let frame = Frame::Batch {
            owner: 0,
            life: batch.life,
            place: batch.place,
            sync: batch.sync,
            entries: batch.entries.clone(),
        };
        encode(&frame, &mut Vec::new()).expect("a frame holds it");
        let marks = batch.entries.iter().map(|entry| match entry {
            Entry::Marks { answers, .. } => answers.len(),
            _ => 0,
        });
        count += marks.sum::<usize>();
    }
    assert_eq!(count, answers.len());
}

#[test]
fn no_more_is_taken_when_more_than_the_limit_is_unconfirmed_and_not_before() {
    // One change with its head.
    let change = 24 + 20;
    let mut at_limit = Bench::with_queue(2 * change);
    let mut one_past = Bench::with_queue(2 * change - 1);
    for bench in [&mut at_limit, &mut one_past] {
        bench.change(0);
        bench.flush();
        bench.change(0);
    }
    assert_eq!(at_limit.sender.behind().1, 2 * change);
    assert!(!at_limit.sender.is_congested());
    assert!(one_past.sender.is_congested());
    let last = *one_past.flush().last().unwrap();
    one_past.confirm(last - 1);
    assert!(!one_past.sender.is_congested(), "the copy has caught up");
}

#[test]
fn what_a_copy_refuses_is_never_acknowledged_although_it_confirms_the_batch() {
    let mut bench = Bench::new();
    bench.change(0);
    bench.change(1);
    assert!(bench.sender.request(7, &[ShardId(0)], false));
    assert!(bench.sender.request(8, &[ShardId(1)], false));
    let place = *bench.flush().last().unwrap();
    // It read the batch, and nothing of shard 0 in it was taken. Both words come in one go.
    bench.sender.refused(ShardId(0), Epoch(2), &mut bench.out);
    bench.confirm(place);
    let deposed = Output::Deposed {
        shard: ShardId(0),
        epoch: Epoch(2),
    };
    assert_eq!(bench.out, [deposed, Output::Confirmed { request: 8 }]);
    // Whatever it says until the shard is let go is refused as well.
    assert!(bench.sender.request(9, &[ShardId(0)], false));
    bench.out.clear();
    bench.sender.end(ShardId(0), &mut bench.out);
    assert_eq!(bench.out, [Output::Lost { request: 7 }, Output::Lost { request: 9 }]);
}

#[test]
fn what_was_refused_is_lost_also_when_the_copy_is_no_part_any_more() {
    let mut bench = Bench::new();
    bench.change(0);
    assert!(bench.sender.request(7, &[ShardId(0)], false));
    bench.flush();
    bench.sender.refused(ShardId(0), Epoch(2), &mut bench.out);
    bench.out.clear();
    // A map of before: there the copy had been taken out.
    let without = Shard {
        in_sync: Vec::new(),
        turn: 2,
        ..shard(None)
    };
    bench
        .sender
        .heed(NOW, ShardId(0), &without, &bench.owner, &mut bench.out);
    assert_eq!(bench.out, [Output::Lost { request: 7 }]);
}

#[test]
fn an_owner_that_has_a_shard_again_in_the_epoch_it_was_refused_for_acknowledges_in_it() {
    let mut bench = Bench::new();
    bench.change(0);
    assert!(bench.sender.request(7, &[ShardId(0)], false));
    bench.flush();
    bench.sender.refused(ShardId(0), Epoch(2), &mut bench.out);
    let again = Shard {
        epoch: Epoch(2),
        turn: 2,
        ..shard(None)
    };
    bench.sender.heed(NOW, ShardId(0), &again, &bench.owner, &mut bench.out);
    bench.out.clear();
    let sent = [bench.flush(), bench.flush()].concat();
    bench.confirm(*sent.last().unwrap());
    assert_eq!(bench.out, [Output::Confirmed { request: 7 }]);
}
