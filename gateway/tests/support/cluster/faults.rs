//! What is done to a cluster in one round: one thing of a list, with whom and when drawn from a seed, so that a round can be had
//! again. It judges nothing.

use super::{Cluster, Gate};
use crate::support::{LONG, Mount, PATIENCE, publish_at};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long what does not end by itself lasts at least, in leases.
const LASTS: f64 = 1.5;

/// How long a node stands still, in leases: less than one, and more.
const SHORT: [f64; 2] = [0.1, 0.8];
const LONGER: [f64; 2] = [1.2, 2.8];

/// How big the disk of the node is whose disk becomes full.
const DISK: &str = "size=48m";

/// Objects whose shards are asked for after a kill, at most.
const ASKED: usize = 8;

/// Numbers from a seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }

    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (1..list.len()).rev() {
            list.swap(end, self.below(end + 1));
        }
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// `kill -9` of a node that does not lead.
    KillOwner,
    /// Of the one that leads.
    KillLeader,
    /// Of two at once, the leader or not among them.
    KillTwo,
    /// It is there again at once, with its disk.
    KillAndBack,
    /// It comes back without its disk.
    Replace,
    /// It stands still for less than a lease.
    PauseShort,
    /// For more.
    PauseLong,
    /// One stands still for more than a lease, and another is killed meanwhile.
    PauseAndKill,
    /// One can reach nobody and nobody it: connections are refused.
    Refused,
    /// What it says does not arrive, and nobody is told.
    Mute,
    /// What it is told does not arrive.
    Deaf,
    /// Two cannot reach each other; all others reach both.
    Pair,
    /// Two halves that only one node reaches.
    Bridge,
    /// Each is asked to stop and started again, one after the other.
    Roll,
    /// The disk of one is full for a while.
    DiskFull,
}

impl Fault {
    pub(crate) const ALL: [Self; 15] = [
        Self::KillOwner,
        Self::Refused,
        Self::PauseLong,
        Self::KillTwo,
        Self::Mute,
        Self::KillLeader,
        Self::KillAndBack,
        Self::Replace,
        Self::PauseShort,
        Self::PauseAndKill,
        Self::Deaf,
        Self::Pair,
        Self::Bridge,
        Self::Roll,
        Self::DiskFull,
    ];
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Struck {
    /// Nodes that shards cannot be taken over from: killed, or not answering for longer than a lease.
    pub(crate) gone: BTreeSet<usize>,
    /// From a kill to the acknowledgement of a publish to a shard of the dead.
    pub(crate) gaps: Vec<Duration>,
}

/// Does things to a cluster. `probes` are objects that nobody else publishes, with their shards.
#[derive(Debug)]
pub(crate) struct Hand<'a> {
    cluster: &'a mut Cluster,
    dice: Dice,
    probes: &'a [(String, u64)],
    disk: Option<&'a Disk>,
    struck: Struck,
}

/// The small disk of one node.
#[derive(Debug)]
pub(crate) struct Disk {
    node: usize,
    mount: Mount,
}

impl Disk {
    /// Gives a node that does not run yet a small disk; why not, where the machine does not allow it.
    pub(crate) fn small(cluster: &Cluster, node: usize) -> Result<Self, String> {
        let at = cluster.folder(node);
        std::fs::create_dir_all(&at).map_err(|error| error.to_string())?;
        let mut mount = Command::new("mount");
        let output = mount.args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(&at).output();
        let output = output.map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(Self { node, mount: Mount(at) })
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.mount.0.join("filler")).expect("a file");
        // Ever less at once, until not a byte fits.
        for size in [1 << 20, 1 << 12, 1] {
            let piece = vec![7; size];
            while file.write_all(&piece).is_ok() {}
        }
    }

    fn clear(&self) {
        std::fs::remove_file(self.mount.0.join("filler")).expect("removed");
    }
}

impl<'a> Hand<'a> {
    pub(crate) fn new(
        cluster: &'a mut Cluster,
        seed: u64,
        probes: &'a [(String, u64)],
        disk: Option<&'a Disk>,
    ) -> Self {
        Self {
            cluster,
            dice: Dice::new(seed),
            probes,
            disk,
            struck: Struck::default(),
        }
    }

    /// Does it, and undoes what can be undone: afterwards all nodes run and reach each other.
    #[track_caller]
    pub(crate) fn strike(mut self, fault: Fault) -> Struck {
        let leader = self.cluster.leader(0);
        let mut all: Vec<usize> = (0..self.cluster.count()).collect();
        self.dice.shuffle(&mut all);
        all.retain(|node| *node != leader);
        let other = all[0];
        // The leader every third time, as it is.
        let any = if self.dice.below(3) == 0 { leader } else { other };
        println!("    the leader is n{leader}, the others in the order n{all:?}, any is n{any}");
        match fault {
            Fault::KillOwner => self.kill(&[other], true),
            Fault::KillLeader => self.kill(&[leader], true),
            Fault::KillTwo => {
                let second = if self.dice.coin() { leader } else { all[1] };
                self.kill(&[other, second], true);
            }
            Fault::KillAndBack => self.kill(&[any], false),
            Fault::Replace => self.replace(other),
            Fault::PauseShort => self.pause(any, SHORT),
            Fault::PauseLong => self.pause(any, LONGER),
            Fault::PauseAndKill => self.pause_and_kill(any, if any == all[1] { all[0] } else { all[1] }),
            Fault::Refused => {
                let others = self.cluster.others(any);
                self.cut(&[any], |gates| gates.between(&[any], &others, Gate::Cut));
            }
            Fault::Mute => {
                let others = self.cluster.others(any);
                self.cut(&[any], |gates| {
                    others.iter().for_each(|other| gates.set(any, *other, Gate::Held))
                });
            }
            Fault::Deaf => {
                let others = self.cluster.others(any);
                self.cut(&[any], |gates| {
                    others.iter().for_each(|other| gates.set(*other, any, Gate::Held))
                });
            }
            Fault::Pair => {
                let gate = self.dice.one(&[Gate::Cut, Gate::Held]);
                self.cut(&[], |gates| gates.between(&[any], &[all[1]], gate));
            }
            // The map stands: whoever the leader does not reach is gone.
            Fault::Bridge => self.cut(&all[..2], |gates| {
                gates.between(&all[..2], &[leader, all[3]], Gate::Cut);
            }),
            Fault::Roll => self.roll(),
            Fault::DiskFull => self.fill_disk(),
        }
        self.struck
    }

    fn lease(&self) -> Duration {
        Duration::from_millis(self.cluster.plan.lease_ms)
    }

    fn living(&self, dead: &[usize]) -> Vec<usize> {
        (0..self.cluster.count()).filter(|node| !dead.contains(node)).collect()
    }

    /// Kills them, waits until others own everything if so wished, and starts them again.
    #[track_caller]
    fn kill(&mut self, victims: &[usize], wait: bool) {
        let living = self.living(victims);
        let asked = self.of_these(living[0], victims);
        let since = Instant::now();
        for &victim in victims {
            self.cluster.kill(victim);
            self.struck.gone.insert(victim);
        }
        if !wait {
            std::thread::sleep(Duration::from_millis(self.dice.next() % 300));
            victims.iter().for_each(|victim| self.cluster.launch(*victim));
        }
        let address = self.cluster.address(living[0]);
        let waits: Vec<_> = asked
            .into_iter()
            .map(|object| {
                std::thread::spawn(move || {
                    // What was under way to the dead node is answered with "unknown": asked again.
                    while let Err(why) = publish_at(address, &object, 10_000) {
                        assert!(since.elapsed() < LONG, "{object}: {why}");
                    }
                    since.elapsed()
                })
            })
            .collect();
        let gaps = waits.into_iter().map(|wait| wait.join().expect("accepted in the end"));
        self.struck.gaps.extend(gaps);
        if wait {
            self.cluster.until_owned_by(&living);
            if self.dice.coin() {
                self.cluster.until_copied(&living);
            }
            victims.iter().for_each(|victim| self.cluster.launch(*victim));
        }
    }

    /// Probes of which these own the shards.
    #[track_caller]
    fn of_these(&self, asked: usize, nodes: &[usize]) -> Vec<String> {
        let owners = self.cluster.owners(asked);
        let of_these = self.probes.iter().filter(|(_, shard)| nodes.contains(&owners[shard]));
        let mut seen = BTreeSet::new();
        let each = of_these.filter(|(_, shard)| seen.insert(*shard));
        each.take(ASKED).map(|(object, _)| object.clone()).collect()
    }

    #[track_caller]
    fn replace(&mut self, victim: usize) {
        let is_small = self.disk.is_some_and(|disk| disk.node == victim);
        self.cluster.kill(victim);
        self.struck.gone.insert(victim);
        let folder = self.cluster.folder(victim);
        let emptied = if is_small {
            // It is a mount: its content goes.
            let mut entries = std::fs::read_dir(&folder).expect("a folder");
            entries.try_for_each(|entry| {
                let path = entry?.path();
                if path.is_dir() {
                    std::fs::remove_dir_all(path)
                } else {
                    std::fs::remove_file(path)
                }
            })
        } else {
            std::fs::remove_dir_all(&folder)
        };
        emptied.expect("its disk is gone");
        let living = self.living(&[victim]);
        self.cluster.until_owned_by(&living);
        self.cluster.launch(victim);
    }

    #[track_caller]
    fn pause(&mut self, node: usize, leases: [f64; 2]) {
        let leases = leases[0] + (leases[1] - leases[0]) * self.dice.below(100) as f64 / 100.0;
        self.cluster.pause(node);
        std::thread::sleep(self.lease().mul_f64(leases));
        self.cluster.resume(node);
        self.struck.gone.insert(node);
    }

    #[track_caller]
    fn pause_and_kill(&mut self, paused: usize, killed: usize) {
        self.cluster.pause(paused);
        std::thread::sleep(self.lease().mul_f64(0.1 * self.dice.below(12) as f64));
        self.cluster.kill(killed);
        self.struck.gone.extend([paused, killed]);
        let living = self.living(&[paused, killed]);
        self.cluster.until_owned_by(&living);
        self.cluster.resume(paused);
        self.cluster.launch(killed);
    }

    fn cut(&mut self, gone: &[usize], close: impl FnOnce(&super::Gates)) {
        self.struck.gone.extend(gone);
        close(self.cluster.gates());
        let leases = LASTS + 0.25 * self.dice.below(6) as f64;
        std::thread::sleep(self.lease().mul_f64(leases));
        self.cluster.gates().open_all();
    }

    #[track_caller]
    fn roll(&mut self) {
        for node in 0..self.cluster.count() {
            self.cluster.stop(node);
            self.cluster.launch(node);
            self.cluster.until_healed();
        }
    }

    #[track_caller]
    fn fill_disk(&mut self) {
        let Some(disk) = self.disk else {
            println!("    no disk can be made small here: nothing is done");
            return;
        };
        self.struck.gone.insert(disk.node);
        disk.fill();
        std::thread::sleep(self.lease().mul_f64(LASTS));
        disk.clear();
        // A node whose own log cannot be written ends rather than go on without: whoever runs it starts it again.
        let since = Instant::now();
        while since.elapsed() < self.lease() || !self.cluster.is_ready(disk.node) {
            if !self.cluster.is_running(disk.node) {
                println!("    n{} ended when its disk was full", disk.node);
                self.cluster.ended(disk.node);
                self.cluster.launch(disk.node);
                return;
            }
            assert!(
                since.elapsed() < PATIENCE,
                "n{} neither serves nor ends after its disk was full",
                disk.node
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
