//! A whole cluster on virtual time: members, and a network that delays, loses, copies and cuts.
//!
//! One seed, one run.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each user needs another part; a failure here is a failure of the test"
)]

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use tidings_membership::{
    Config, Event, Incarnation, Input, Key, KeyRing, Membership, Metadata, MonoUs, Output, Roles, Seed, Setup, Text,
};
use tidings_protocol::{ClusterId, NodeId};

pub const MS: u64 = 1_000;
pub const S: u64 = 1_000_000;
pub const CLUSTER: ClusterId = ClusterId(0x0c1d);

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        (self.next() >> 11) as f64 / ((1_u64 << 53) as f64) < probability
    }
}

pub fn key(id: u8) -> Key {
    Key { id, secret: [id; 32] }
}

/// Where slot `i` listens.
pub fn addr(i: usize) -> SocketAddr {
    let i = u32::try_from(i).unwrap();
    SocketAddr::new(Ipv4Addr::from(0x0a00_0001 + i).into(), 7_946)
}

/// The node in slot `i`: random-looking, as real ones are, and in no order.
pub fn node(i: usize) -> NodeId {
    NodeId(Dice::new(i as u64 + 1).next())
}

pub fn metadata(i: usize) -> Metadata {
    Metadata {
        roles: Roles {
            edge: true,
            owner: true,
            voter: i < 3,
        },
        zone: Text::new(&format!("zone-{}", i % 3)).unwrap(),
        node_addr: Some(SocketAddr::new(addr(i).ip(), 7_947)),
        client_url: Text::new(&format!("http://node-{i}.example:8080")).unwrap(),
        protocol: (1, 1),
        release: Text::new("0.1.0").unwrap(),
        ..Metadata::default()
    }
}

pub struct Slot {
    pub machine: Option<Membership>,
    pub node: NodeId,
    pub incarnation: u64,
    paused: bool,
    inbox: Vec<(SocketAddr, Vec<u8>)>,
    wake: Option<MonoUs>,
}

enum What {
    Deliver {
        to: usize,
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    Wake(usize),
}

struct Due(MonoUs, u64, What);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.0, other.1).cmp(&(self.0, self.1))
    }
}

pub struct World {
    pub now: MonoUs,
    pub slots: Vec<Slot>,
    by_addr: HashMap<SocketAddr, usize>,
    queue: BinaryHeap<Due>,
    seq: u64,
    pub dice: Dice,
    pub config: Config,
    pub loss: f64,
    pub copies: f64,
    /// The slowest datagram, in microseconds; the fastest takes 100.
    pub delay_us: u64,
    /// Directed: nothing gets from the first to the second.
    pub cuts: BTreeSet<(usize, usize)>,
    /// Directed: the share of datagrams lost from the first to the second.
    pub lossy: BTreeMap<(usize, usize), f64>,
    /// A socket's buffer: a paused process keeps so many datagrams.
    pub buffer: usize,
    /// When a paused process goes on: whether it looks at its timers before it reads.
    pub timers_first: bool,
    pub log: Vec<(MonoUs, usize, Event)>,
    /// Which events are logged: those of a thousand nodes would fill gigabytes.
    pub worth: fn(&Event) -> bool,
    /// Every datagram sent, if wanted: from, to, bytes.
    pub tape: Option<Vec<(usize, SocketAddr, Vec<u8>)>>,
    pub sent: u64,
    pub sent_bytes: u64,
    pub largest: usize,
    out: Vec<Output>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            now: S,
            slots: Vec::new(),
            by_addr: HashMap::new(),
            queue: BinaryHeap::new(),
            seq: 0,
            dice: Dice::new(seed),
            config: Config::default(),
            loss: 0.0,
            copies: 0.0,
            delay_us: 2 * MS,
            cuts: BTreeSet::new(),
            lossy: BTreeMap::new(),
            buffer: 256,
            timers_first: true,
            log: Vec::new(),
            worth: |_| true,
            tape: None,
            sent: 0,
            sent_bytes: 0,
            largest: 0,
            out: Vec::new(),
        }
    }

    /// So many nodes, each told of the first three, all in reach of one another.
    pub fn cluster(seed: u64, size: usize) -> Self {
        let mut world = Self::new(seed);
        world.grow(size);
        world
    }

    pub fn grow(&mut self, size: usize) {
        for i in 0..size {
            self.start(i);
            self.input(i, Input::Seeds((0..3.min(size)).map(addr).collect()));
        }
    }

    pub fn setup(&mut self, i: usize) -> Setup {
        let mut seed = [0; 32];
        for chunk in seed.chunks_mut(8) {
            chunk.copy_from_slice(&self.dice.next().to_le_bytes());
        }
        Setup {
            config: self.config.clone(),
            cluster: CLUSTER,
            keys: KeyRing::new(key(1), None).unwrap(),
            node: node(i),
            incarnation: Incarnation(1),
            addr: addr(i),
            metadata: metadata(i),
            seed: Seed(seed),
        }
    }

    /// Starts the next slot, or starts a slot again with the next incarnation.
    pub fn start(&mut self, i: usize) {
        let mut setup = self.setup(i);
        if let Some(slot) = self.slots.get(i) {
            setup.incarnation = Incarnation(slot.incarnation + 1);
        }
        self.start_as(i, setup);
    }

    pub fn start_as(&mut self, i: usize, setup: Setup) {
        let (node, incarnation, at) = (setup.node, setup.incarnation.0, setup.addr);
        let machine = Membership::new(self.now, setup).unwrap();
        let slot = Slot {
            machine: Some(machine),
            node,
            incarnation,
            paused: false,
            inbox: Vec::new(),
            wake: None,
        };
        if i < self.slots.len() {
            self.slots[i] = slot;
        } else {
            assert_eq!(i, self.slots.len());
            self.slots.push(slot);
        }
        self.by_addr.entry(at).or_insert(i);
        self.rearm(i);
    }

    /// Datagrams to this address go to this slot from now on.
    pub fn listen(&mut self, at: SocketAddr, i: usize) {
        self.by_addr.insert(at, i);
    }

    pub fn crash(&mut self, i: usize) {
        self.slots[i].machine = None;
        self.slots[i].wake = None;
        self.slots[i].inbox.clear();
        self.slots[i].paused = false;
    }

    pub fn pause(&mut self, i: usize) {
        self.slots[i].paused = true;
    }

    pub fn resume(&mut self, i: usize) {
        self.slots[i].paused = false;
        if self.timers_first {
            self.deadline(i);
        }
        for (from, bytes) in std::mem::take(&mut self.slots[i].inbox) {
            self.input(i, Input::Datagram { from, bytes: &bytes });
        }
        self.deadline(i);
    }

    pub fn cut(&mut self, one: usize, other: usize) {
        self.cuts.insert((one, other));
        self.cuts.insert((other, one));
    }

    pub fn part(&mut self, left: &[usize], right: &[usize]) {
        for &one in left {
            for &other in right {
                self.cut(one, other);
            }
        }
    }

    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    pub fn input(&mut self, i: usize, input: Input<'_>) {
        let now = self.now;
        let mut out = std::mem::take(&mut self.out);
        if let Some(machine) = &mut self.slots[i].machine {
            machine.handle(now, input, &mut out);
        }
        self.perform(i, &mut out);
        self.out = out;
        self.rearm(i);
    }

    fn deadline(&mut self, i: usize) {
        let now = self.now;
        let mut out = std::mem::take(&mut self.out);
        if let Some(machine) = &mut self.slots[i].machine {
            machine.handle_deadline(now, &mut out);
        }
        self.perform(i, &mut out);
        self.out = out;
        self.slots[i].wake = None;
        self.rearm(i);
    }

    fn rearm(&mut self, i: usize) {
        let slot = &mut self.slots[i];
        let due = slot.machine.as_ref().and_then(Membership::next_deadline);
        let Some(due) = due.map(|due| due.max(self.now)) else {
            return;
        };
        if slot.wake.is_none_or(|wake| due < wake) {
            slot.wake = Some(due);
            self.push(due, What::Wake(i));
        }
    }

    fn push(&mut self, at: MonoUs, what: What) {
        self.seq += 1;
        self.queue.push(Due(at, self.seq, what));
    }

    fn perform(&mut self, i: usize, out: &mut Vec<Output>) {
        for output in out.drain(..) {
            match output {
                Output::Event(event) => {
                    if (self.worth)(&event) {
                        self.log.push((self.now, i, event));
                    }
                }
                Output::Send { to, datagram } => {
                    self.sent += 1;
                    self.sent_bytes += datagram.len() as u64;
                    self.largest = self.largest.max(datagram.len());
                    if let Some(tape) = &mut self.tape {
                        tape.push((i, to, datagram.clone()));
                    }
                    self.carry(i, to, datagram);
                }
            }
        }
    }

    fn carry(&mut self, from: usize, to: SocketAddr, bytes: Vec<u8>) {
        let Some(&to) = self.by_addr.get(&to) else {
            return;
        };
        let loss = self.lossy.get(&(from, to)).copied().unwrap_or(self.loss);
        if self.cuts.contains(&(from, to)) || self.dice.chance(loss) {
            return;
        }
        let source = addr(from);
        if self.copies > 0.0 && self.dice.chance(self.copies) {
            let at = self.now + 100 + self.dice.below(self.delay_us * 10);
            self.push(
                at,
                What::Deliver {
                    to,
                    from: source,
                    bytes: bytes.clone(),
                },
            );
        }
        let at = self.now + 100 + self.dice.below(self.delay_us);
        self.push(
            at,
            What::Deliver {
                to,
                from: source,
                bytes,
            },
        );
    }

    /// Lets so much time pass.
    pub fn run(&mut self, time: MonoUs) {
        let end = self.now + time;
        while let Some(due) = self.queue.peek() {
            if due.0 > end {
                break;
            }
            let Some(Due(at, _, what)) = self.queue.pop() else {
                break;
            };
            self.now = at;
            match what {
                What::Deliver { to, from, bytes } => {
                    let slot = &mut self.slots[to];
                    if slot.paused {
                        if slot.inbox.len() < self.buffer {
                            slot.inbox.push((from, bytes));
                        }
                    } else if slot.machine.is_some() {
                        self.input(to, Input::Datagram { from, bytes: &bytes });
                    }
                }
                What::Wake(i) => {
                    let slot = &self.slots[i];
                    if slot.wake == Some(at) && !slot.paused {
                        self.deadline(i);
                    }
                }
            }
        }
        self.now = end;
    }

    /// Lets time pass until it is so, at most so much of it. Says how long it took.
    pub fn until(&mut self, most: MonoUs, mut so: impl FnMut(&Self) -> bool) -> Option<MonoUs> {
        let begun = self.now;
        loop {
            if so(self) {
                return Some(self.now - begun);
            }
            if self.now - begun >= most {
                return None;
            }
            self.run(if self.slots.len() > 100 { 100 * MS } else { 10 * MS });
        }
    }

    pub fn machine(&self, i: usize) -> &Membership {
        self.slots[i].machine.as_ref().unwrap()
    }

    pub fn alive(&self) -> Vec<usize> {
        (0..self.slots.len())
            .filter(|i| self.slots[*i].machine.is_some())
            .collect()
    }

    /// The nodes that slot `i` sees.
    pub fn view(&self, i: usize) -> BTreeSet<NodeId> {
        self.machine(i).members().map(|peer| peer.node).collect()
    }

    /// Whether all that run see just those that run.
    pub fn agreed(&self) -> bool {
        let alive = self.alive();
        self.agreed_among(&alive)
    }

    pub fn agreed_among(&self, slots: &[usize]) -> bool {
        let counted = slots.iter().all(|i| self.machine(*i).member_count() + 1 == slots.len());
        counted
            && slots
                .iter()
                .all(|i| slots.iter().all(|other| i == other || self.sees(*i, *other)))
    }

    /// Whether slot `by` holds slot `i` alive.
    pub fn sees(&self, by: usize, i: usize) -> bool {
        self.machine(by).member(self.slots[i].node).is_some()
    }

    /// Whether nobody who runs sees slot `i`.
    pub fn unseen(&self, i: usize) -> bool {
        let others = self.alive().into_iter().filter(|other| *other != i);
        others.into_iter().all(|by| !self.sees(by, i))
    }

    /// What happened that is of this kind.
    pub fn events(&self, mut kind: impl FnMut(&Event) -> bool) -> Vec<(MonoUs, usize, Event)> {
        self.log.iter().filter(|(_, _, event)| kind(event)).cloned().collect()
    }

    pub fn downs(&self) -> Vec<(MonoUs, usize, Event)> {
        self.events(|event| matches!(event, Event::Down { .. }))
    }
}
