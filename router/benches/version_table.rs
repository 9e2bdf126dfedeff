//! What an owner's tables cost: `cargo bench -p tidings-router --bench version_table -- [versions|interest|publish]`.
//!
//! Each part runs alone (resident memory is the process's), with the allocator of the gateway. Time of the thread's own
//! processor, where it says so, does not count what other programs took.

// The clock of a thread's processor time has no safe wrapper among our dependencies.
#![allow(unsafe_code, clippy::unwrap_used, clippy::disallowed_methods, clippy::cast_lossless)]

use std::hint::black_box;
use std::time::Instant;
use tidings_protocol::{Epoch, ObjectHash, ShardCount, Version, peer::EdgeToOwner, peer::FloorCause};
use tidings_router::Now;
use tidings_router::owner::interest::Interest;
use tidings_router::owner::version_table::VersionTable;
use tidings_router::owner::{Config, Input, Owner, Publish};

#[global_allocator]
static ALLOCATOR: jemallocator::Jemalloc = jemallocator::Jemalloc;

const SHARDS: ShardCount = ShardCount::DEFAULT;
const MILLION: u64 = 1_000_000;

/// SplitMix64 (Steele, Lea and Flood, 2014) in place of the keyed hash.
fn object(number: u64) -> ObjectHash {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ObjectHash(z ^ (z >> 31))
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn processor_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Nanoseconds of processor time a call, over a million calls with numbers from `range` in an order that jumps about.
fn ns_each(range: std::ops::Range<u64>, mut call: impl FnMut(ObjectHash)) -> f64 {
    let begun = processor_ns();
    for number in 0..MILLION {
        call(object(range.start + object(number).0 % (range.end - range.start)));
    }
    (processor_ns() - begun) as f64 / MILLION as f64
}

fn versions() {
    const BLOCK: u64 = 256;
    let base = resident_bytes();
    let mut tables: Vec<_> = SHARDS.all().map(|_| VersionTable::new(SHARDS.bits())).collect();
    let of = |object: ObjectHash| usize::from(SHARDS.shard(object).0);
    let (mut worst_block, mut worst_wall, mut begun, mut peak) = (0, 0, processor_ns(), 0.0_f64);
    println!("million  table B  resident B  settled B  insert ns  hit ns  miss ns  update ns");
    for number in 0..25 * MILLION {
        if number % BLOCK == 0 {
            let now = processor_ns();
            worst_block = worst_block.max(now - begun);
            begun = now;
        }
        if number % 100_000 == 0 && number >= 5 * MILLION {
            peak = peak.max((resident_bytes() - base) as f64 / number as f64);
        }
        let clock = Instant::now();
        let hash = object(number);
        tables[of(hash)].set(hash, Version(1_795_000_000_000_000 + number));
        worst_wall = worst_wall.max(clock.elapsed().as_nanos());
        let count = number + 1;
        if [15 * MILLION, 20 * MILLION, 25 * MILLION].contains(&count) {
            let resident = (resident_bytes() - base) as f64 / count as f64;
            std::thread::sleep(std::time::Duration::from_secs(11));
            let settled = (resident_bytes() - base) as f64 / count as f64;
            let bytes = tables.iter().map(VersionTable::bytes).sum::<usize>() as f64 / count as f64;
            let hit = ns_each(0..count, |o| {
                black_box(tables[of(o)].get(o));
            });
            let miss = ns_each(1 << 40..1 << 41, |o| {
                black_box(tables[of(o)].get(o));
            });
            let update = ns_each(0..count, |o| {
                tables[of(o)].set(o, Version(1_796_000_000_000_000));
            });
            let mut copy = tables[..8].to_vec();
            let begun_inserts = processor_ns();
            let mut inserted = 0;
            for number in 1 << 42..(1 << 42) + MILLION {
                let hash = object(number);
                if of(hash) < 8 {
                    copy[of(hash)].set(hash, Version(1));
                    inserted += 1;
                }
            }
            let insert = (processor_ns() - begun_inserts) as f64 / f64::from(inserted);
            println!(
                "{:7}  {bytes:7.2}  {resident:10.2}  {settled:9.2}  {insert:9.0}  {hit:6.0}  {miss:7.0}  {update:9.0}",
                count / MILLION
            );
            begun = processor_ns();
        }
    }
    println!("most resident bytes an object from 5 million on: {peak:.2}");
    println!("worst {BLOCK} inserts: {} us of processor time", worst_block / 1000);
    println!(
        "worst insert: {} us on the wall clock, others' time included",
        worst_wall / 1000
    );
}

fn interest() {
    let base = resident_bytes();
    let mut tables: Vec<_> = SHARDS.all().map(|_| Interest::new(SHARDS.bits())).collect();
    let of = |object: ObjectHash| usize::from(SHARDS.shard(object).0);
    for number in 0..MILLION {
        tables[of(object(number))].insert(object(number), 0);
    }
    std::thread::sleep(std::time::Duration::from_secs(11));
    println!(
        "a million objects, one link: {} resident B each",
        (resident_bytes() - base) / MILLION
    );
    for number in 0..MILLION {
        tables[of(object(number))].insert(object(number), 1);
    }
    std::thread::sleep(std::time::Duration::from_secs(11));
    println!(
        "a million objects, two links: {} resident B each",
        (resident_bytes() - base) / MILLION
    );
    let ns = ns_each(0..MILLION, |o| {
        black_box(tables[of(o)].seats(o));
    });
    println!("look-up: {ns:.0} ns");
}

fn publish() {
    const BATCH: u64 = 2_500;
    let mut owner = Owner::new(Config {
        shards: SHARDS,
        version_table_bytes: 1 << 30,
        revisions: 100_000,
        idempotency_keys: 100_000,
        idempotency_window_us: 300_000_000,
        link_window_changes: 4096,
        link_hint_bytes: 1 << 20,
        closed_busy_us: 50_000,
        closed_idle_us: 1_000_000,
    });
    let mut out = Vec::new();
    let start = Now {
        mono_us: 1,
        wall_us: 1_795_000_000_000_000,
    };
    let mut now = start;
    let shards = SHARDS.all().collect();
    let floor = Version(start.wall_us);
    owner.handle(
        start,
        Input::Assign {
            shards,
            epoch: Epoch(1),
            floor,
            cause: FloorCause::Lost,
        },
        &mut out,
    );
    let mut run = |what: &str, batches: u64, number: &mut dyn FnMut(u64) -> u64, owner: &mut Owner| {
        let mut spent = 0;
        for batch in 0..batches {
            let changes = (batch * BATCH..(batch + 1) * BATCH)
                .map(|at| Publish {
                    object: object(number(at)),
                    extra: None,
                })
                .collect();
            now.mono_us += 10_000;
            now.wall_us += 10_000;
            out.clear();
            let begun = processor_ns();
            owner.handle(
                now,
                Input::Publish {
                    request: batch,
                    changes,
                },
                &mut out,
            );
            spent += processor_ns() - begun;
        }
        println!("{what}: {} ns a change", spent / (batches * BATCH));
    };
    run("10 million new objects", 4_000, &mut |at| at, &mut owner);
    run(
        "changes of 10 million objects",
        800,
        &mut |at| object(at).0 % (10 * MILLION),
        &mut owner,
    );
    owner.handle(start, Input::LinkUp { link: 0, generation: 1 }, &mut Vec::new());
    for batch in 0..100 {
        let objects = (batch * 10_000..(batch + 1) * 10_000).map(object).collect();
        let frame = EdgeToOwner::Register { objects };
        owner.handle(
            start,
            Input::FromEdge {
                link: 0,
                generation: 1,
                frame,
            },
            &mut Vec::new(),
        );
    }
    run(
        "changes of the 9 million that nobody watches, beside a million that one link does",
        800,
        &mut |at| MILLION + object(at).0 % (9 * MILLION),
        &mut owner,
    );
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("interest") => interest(),
        Some("publish") => publish(),
        _ => versions(),
    }
}
