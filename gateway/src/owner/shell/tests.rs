//! An owner of a cluster's member whose control plane is played by the test.

use super::{Begin, Offered, start};
use crate::config::Config;
use crate::control::{self, View};
use crate::node::Node;
use crate::owner::{self, OwnerHandle, OwnerSource, PublishFailure};
use crate::server::Admission;
use crate::storage::disk::{Disk, Folder};
use crate::storage::{self, Identity};
use crate::telemetry::Metrics;
use crate::{clock, edge};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tidings_protocol::mesh::AckLevel;
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{ClusterId, Epoch, HashKey, NodeId, ObjectHash, ShardCount, ShardId, Version};
use tidings_router::control::command::{Command, Seen, With};
use tidings_router::control::map::{Map, NodeInfo, Process, Roles};
use tidings_router::owner::{Publish, Published};
use tokio::sync::watch;
use tokio::task::LocalSet;

const CLUSTER: u64 = 7;
/// Generous: machines that run tests are busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of shard 1 of two.
const OBJECT: ObjectHash = ObjectHash(1 << 63 | 5);
const SHARD: ShardId = ShardId(1);

fn shards() -> ShardCount {
    ShardCount::new(2).expect("a power of two")
}

fn process(node: u64, incarnation: u64) -> Process {
    Process {
        node: NodeId(node),
        incarnation,
    }
}

/// What the cluster agreed on, as the test has it.
struct Agreed {
    map: Map,
    view: watch::Sender<Arc<View>>,
}

impl Agreed {
    fn new(me: Process) -> Self {
        let view = View {
            me,
            map: Arc::new(Map::new(ClusterId(CLUSTER), shards(), 1)),
            until_us: 0,
            ceiling: Version::ZERO,
            confirmed: false,
            peers: Arc::default(),
            leader: None,
            voters: Default::default(),
        };
        let mut new = Self {
            map: (*view.map).clone(),
            view: watch::Sender::new(Arc::new(view)),
        };
        new.know(me);
        new
    }

    fn know(&mut self, process: Process) {
        let info = NodeInfo {
            roles: Roles {
                owner: true,
                edge: true,
            },
            zone: String::new(),
            peer_address: String::new(),
            client_address: String::new(),
        };
        self.map
            .apply(&Command::Register { process, info })
            .expect("registered");
    }

    /// Gives the shard to a process; the ceiling is well above the clock.
    fn give(&mut self, to: Process, with: With) {
        let ceiling = Version(self.map.ceiling().0.max(clock::now().wall_us) + 1_000_000);
        self.map.apply(&Command::RaiseCeiling { to: ceiling }).expect("raised");
        let seen = Seen::of(&self.map, SHARD).expect("a shard");
        self.map.apply(&Command::Assign { seen, to, with }).expect("assigned");
        let room = Version(ceiling.0 + 5_000_000);
        self.map.apply(&Command::RaiseCeiling { to: room }).expect("raised");
    }

    /// Shows the map, with this permission.
    fn show(&self, confirmed: bool, lease: Duration) {
        let until_us = clock::mono_us() + u64::try_from(lease.as_micros()).expect("not that long");
        self.view.send_modify(|view| {
            *view = Arc::new(View {
                map: Arc::new(self.map.clone()),
                confirmed,
                until_us,
                ceiling: self.map.ceiling(),
                ..(**view).clone()
            });
        });
    }

    /// The same map, as another process sees it.
    fn in_the_life_of(self, process: Process) -> Self {
        let mut other = Self::new(process);
        other.map = self.map;
        other.know(process);
        other
    }

    fn epoch(&self) -> Epoch {
        self.map.shard(SHARD).expect("a shard").epoch
    }
}

/// A node of one owner.
struct Stage {
    owner: OwnerHandle,
    control: control::Handle,
    storage: Option<storage::Running>,
    offered: Vec<(ShardId, Epoch)>,
}

fn begin(agreed: &Agreed, folder: Option<&Path>) -> Stage {
    let config = Config::default();
    let control = control::Handle::fixed(agreed.view.subscribe());
    let (owner, receiver) = owner::channel(64);
    let metrics = Arc::new(Metrics::new(&config));
    let node = Arc::new(Node {
        cluster: ClusterId(CLUSTER),
        key: HashKey::new([7; 16]),
        shards: shards(),
        owners: vec![owner.clone()],
        lanes: vec![edge::channel().0],
        name: "one".to_owned(),
        address: "127.0.0.1:1".parse().expect("an address"),
        first_version: Version(clock::now().wall_us),
        started: Instant::now(),
        serving: watch::Sender::new(0),
        leaving: watch::Sender::new(false),
        draining: watch::Sender::new(false),
        admission: Admission::new(&config, 10, Arc::clone(&metrics)),
        storage: None,
        control: Some(control.clone()),
        auth: None,
        tls: None,
        admin_address: None,
        peers: None,
        cut_off: false.into(),
        elsewhere: watch::Sender::new(None),
        recent: crate::recent::Recent::default(),
        live: crate::node::Live::new(&config),
        metrics,
        config,
    });
    let mut begin = Begin::in_memory(receiver);
    let (mut running, mut offered) = (None, Vec::new());
    if let Some(folder) = folder {
        let disk: Arc<dyn Disk> = Arc::new(Folder::open(folder).expect("free"));
        let opened = storage::open(&disk, &plan(&node.config)).expect("usable");
        offered = opened.on_shelves().collect();
        control.set_on_disk(offered.clone());
        begin.offered = Offered::new(Mutex::new(offered.iter().copied().collect()));
        begin.kept = opened.machines.into_iter().zip(opened.handles).next();
        begin.shelf = opened.shelves.into_iter().next();
        let source = OwnerSource {
            owners: vec![owner.clone()],
            shards: shards(),
        };
        running = Some(opened.idle.start(source).expect("threads"));
    }
    start(0, &node, begin);
    Stage {
        owner,
        control,
        storage: running,
        offered,
    }
}

fn plan(config: &Config) -> storage::Plan {
    storage::Plan {
        fresh: Identity {
            cluster: CLUSTER,
            key: [9; 16],
            shards: shards().get(),
            since: Version(1),
        },
        clustered: true,
        owners: 1,
        machine: owner::machine_config(config, shards(), 1),
        now: clock::now(),
        wall_us: || clock::now().wall_us,
        boot: storage::boot_id(),
        log_file_bytes: 1 << 20,
        log_bytes: 1 << 20,
        queue_bytes: 1 << 20,
    }
}

impl Stage {
    async fn publish(&self) -> Result<Published, PublishFailure> {
        let change = Publish {
            object: OBJECT,
            extra: None,
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let results = self.owner.publish(vec![change], AckLevel::Replicated, deadline).await?;
        Ok(results[0])
    }

    async fn epoch(&self) -> Option<Epoch> {
        self.known().await.epoch
    }

    /// What it knows once it has acted on what it was shown: questions do not wait for that, publishes do.
    async fn known(&self) -> owner::Inspection {
        let nothing = self
            .owner
            .publish(Vec::new(), AckLevel::Replicated, tokio::time::Instant::now() + PATIENCE);
        assert_eq!(nothing.await, Ok(Vec::new()));
        self.owner.inspect(OBJECT).await.expect("it lives")
    }
}

async fn in_place(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

fn accepted(published: Result<Published, PublishFailure>) -> Version {
    match published {
        Ok(Published::Accepted(version)) => version,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_shard_is_taken_only_once_the_map_is_confirmed_and_used_only_under_a_lease() {
    in_place(async {
        let me = process(1, 4);
        let mut agreed = Agreed::new(me);
        let stage = begin(&agreed, None);
        assert_eq!(stage.publish().await, Ok(Published::NotOwner(SHARD)));
        agreed.give(me, With::Fresh);
        agreed.show(false, Duration::from_secs(600));
        assert_eq!(
            stage.publish().await,
            Ok(Published::NotOwner(SHARD)),
            "the map may be old"
        );
        agreed.show(true, Duration::ZERO);
        assert_eq!(stage.publish().await, Ok(Published::Paused(SHARD)), "no lease yet");
        assert_eq!(stage.epoch().await, Some(Epoch(1)));
        agreed.show(true, Duration::from_secs(600));
        let version = accepted(stage.publish().await);
        let begins = agreed.map.shard(SHARD).expect("a shard").begins;
        assert!(version >= begins && version <= agreed.map.ceiling());
        assert!(stage.control.highest() >= version, "the lease is renewed with it");
        // The lease ends, and begins again.
        agreed.show(true, Duration::ZERO);
        assert_eq!(stage.publish().await, Ok(Published::Paused(SHARD)));
        agreed.show(true, Duration::from_secs(600));
        assert!(accepted(stage.publish().await) > version);
    })
    .await;
}

#[tokio::test]
async fn a_shard_that_is_given_to_another_is_let_go_and_comes_back_empty() {
    in_place(async {
        let (me, other) = (process(1, 4), process(2, 9));
        let mut agreed = Agreed::new(me);
        agreed.know(other);
        let stage = begin(&agreed, None);
        agreed.give(me, With::Fresh);
        agreed.show(true, Duration::from_secs(600));
        let version = accepted(stage.publish().await);
        agreed.give(other, With::Nothing(FloorCause::Lost));
        // Also without a lease, and unconfirmed.
        agreed.show(false, Duration::ZERO);
        assert_eq!(stage.publish().await, Ok(Published::NotOwner(SHARD)));
        agreed.give(me, With::Nothing(FloorCause::Lost));
        agreed.show(true, Duration::from_secs(600));
        let known = stage.known().await;
        assert_eq!((known.version, known.epoch), (Version::ZERO, Some(Epoch(3))));
        assert!(known.floor > version, "and vouches for nothing of before");
        assert!(accepted(stage.publish().await) >= known.floor);
    })
    .await;
}

#[tokio::test]
async fn what_a_process_leaves_on_its_disk_the_next_one_offers_and_goes_on_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let (me, back) = (process(1, 4), process(1, 5));
    let mut agreed = Agreed::new(me);
    let version = in_a_life(async {
        let first = begin(&agreed, Some(folder.path()));
        assert_eq!(first.offered, []);
        agreed.give(me, With::Fresh);
        agreed.show(true, Duration::from_secs(600));
        let version = accepted(first.publish().await);
        (first, version)
    })
    .await;

    let mut again = agreed.in_the_life_of(back);
    in_a_life(async {
        let second = begin(&again, Some(folder.path()));
        assert_eq!(second.offered, [(SHARD, again.epoch())]);
        again.show(false, Duration::ZERO);
        assert_eq!(
            second.publish().await,
            Ok(Published::NotOwner(SHARD)),
            "a new process owns nothing"
        );
        assert_eq!(second.control.on_disk(), second.offered, "and offers what it has");
        again.give(back, With::Disk);
        again.show(true, Duration::from_secs(600));
        let known = second.known().await;
        assert_eq!((known.version, known.epoch), (version, Some(Epoch(2))));
        assert!(known.floor <= version, "nothing has to be fetched");
        assert_eq!(second.control.on_disk(), [], "it is not offered any more");
        accepted(second.publish().await);
        (second, ())
    })
    .await;

    // Another gets it: what lies here is of no use.
    let mut last = again.in_the_life_of(process(1, 6));
    last.know(process(2, 1));
    in_a_life(async {
        let third = begin(&last, Some(folder.path()));
        assert_eq!(third.offered, [(SHARD, Epoch(2))]);
        last.give(process(2, 1), With::Nothing(FloorCause::Lost));
        last.show(false, Duration::ZERO);
        assert_eq!(third.epoch().await, None);
        assert_eq!(third.control.on_disk(), []);
        (third, ())
    })
    .await;
    in_a_life(async {
        let fourth = begin(&last, Some(folder.path()));
        assert_eq!(fourth.offered, [], "it was dropped");
        (fourth, ())
    })
    .await;
}

/// Runs an owner until the test is done with it, ends it, and waits for its storage.
async fn in_a_life<T>(test: impl Future<Output = (Stage, T)>) -> T {
    let local = LocalSet::new();
    let (stage, result) = local.run_until(test).await;
    drop(local);
    let storage = stage.storage.expect("on a disk");
    let ended = tokio::task::spawn_blocking(move || storage.join());
    assert!(ended.await.expect("no panic"), "everything is written");
    result
}
