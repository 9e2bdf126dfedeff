//! The thread `tidings-control`: how it starts, what runs on it, how it stops.

use super::forming::{Forming, Input, Sighting, Wish as FormingWish};
use super::gossip::{self, Gossip, Roll, Wish};
use super::life::{self, Told};
use super::lines::Lines;
use super::metrics::ControlMetrics;
use super::notices::Notices;
use super::plane::{Desk, Part, Plane};
use super::seat::Seat;
use super::settings::metadata;
use super::words::{Answer, Founding, Request};
use super::{Ask, ControlError, Handle, ProposeError, Settings, Turner, keys, listener, office, tending};
use crate::mesh::handshake::Connection;
use crate::mesh::{Identity, Keys, Limits};
use crate::storage;
use crate::{clock, names};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tidings_membership::{Config, Incarnation, Membership, Seed, Setup};
use tidings_protocol::Version;
use tidings_router::control::map::Process;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Forming looks around so often.
const FORMING_EVERY: Duration = Duration::from_millis(250);
/// While it waits, what it waits for is said so often.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// Questions that may wait for the thread.
const ASKS: usize = 256;
/// Renewals that may wait for the office.
const RENEWALS: usize = 4_096;
/// A proposal through [`Handle::propose`] waits at most so long for a leader.
const PATIENCE: Duration = Duration::from_secs(10);
/// What stopping in order may take.
const FAREWELL: Duration = Duration::from_millis(1_500);
/// What showing the last view may take.
const LAST_VIEW: Duration = Duration::from_millis(100);
/// A free port for TCP is looked for so often that is free for UDP too.
const PORT_TRIES: usize = 20;

/// How it is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Not yet.
    Not,
    /// With a good-bye.
    Orderly,
    /// As if the process were killed.
    Abrupt,
}

/// A control plane that runs. Dropping it stops it in order without waiting.
#[derive(Debug)]
pub struct Running {
    end: watch::Sender<End>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Hands the leadership on, says good-bye, stops, and waits until the thread has ended and the log's file is closed. Whether it
    /// ended in order.
    #[must_use]
    pub fn stop(mut self) -> bool {
        self.end.send_replace(End::Orderly);
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }

    /// Stops as if the process were killed: others find out by themselves. For tests.
    pub fn kill(mut self) {
        self.end.send_replace(End::Abrupt);
        // Whether it ended in order does not matter to who kills it.
        _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end.send_if_modified(|end| {
            let first = *end == End::Not;
            if first {
                *end = End::Orderly;
            }
            first
        });
    }
}

/// A node that is part of a cluster.
#[derive(Debug)]
pub struct Formed {
    /// Which cluster, and the secret by which IDs are hashed.
    pub identity: storage::Identity,
    /// Where others reach this node.
    pub address: SocketAddr,
    /// Who this node is on connections to others.
    pub mesh: Identity,
    /// The way to the control plane.
    pub handle: Handle,
    /// Connections of class `Links` that others dialled.
    pub links: mpsc::UnboundedReceiver<Connection>,
    /// Ends it.
    pub running: Running,
}

/// A control plane that looks for its cluster.
#[derive(Debug)]
pub struct Starting {
    /// This life of this node.
    pub me: Process,
    /// Where others reach it.
    pub address: SocketAddr,
    mesh: Identity,
    formed: oneshot::Receiver<(storage::Identity, Handle)>,
    links: mpsc::UnboundedReceiver<Connection>,
    over: watch::Receiver<Option<String>>,
    running: Running,
}

impl Starting {
    /// Waits until this node is part of a cluster, however long that takes. What it waits for is logged every few seconds.
    /// Dropping the future stops the control plane.
    ///
    /// # Errors
    /// If it cannot go on.
    pub async fn formed(self) -> Result<Formed, ControlError> {
        match self.formed.await {
            Ok((identity, handle)) => Ok(Formed {
                identity,
                address: self.address,
                mesh: self.mesh,
                handle,
                links: self.links,
                running: self.running,
            }),
            Err(_) => Err(match self.over.borrow().clone() {
                Some(why) => ControlError::Over(why),
                None => ControlError::Stopped,
            }),
        }
    }

    /// Stops it from elsewhere while somebody waits in [`Starting::formed`].
    pub fn stopper(&self) -> impl Fn() + Send + Sync + use<> {
        let end = self.running.end.clone();
        move || _ = end.send_replace(End::Orderly)
    }
}

/// TCP and UDP on one port.
fn bind(address: SocketAddr) -> Result<(TcpListener, UdpSocket), ControlError> {
    let mut last = None;
    for _ in 0..PORT_TRIES {
        let both = TcpListener::bind(address).and_then(|tcp| {
            let udp = UdpSocket::bind(tcp.local_addr()?)?;
            tcp.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            Ok((tcp, udp))
        });
        match both {
            Ok(both) => return Ok(both),
            Err(cause) => last = Some(cause),
        }
        if address.port() != 0 {
            break;
        }
    }
    let cause = last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into());
    Err(ControlError::Listen { address, cause })
}

/// Where others reach this node.
fn advertised(settings: &Settings, bound: SocketAddr) -> Result<SocketAddr, ControlError> {
    let wrong = |reason: String| ControlError::Config {
        key: "server.node_advertise",
        reason,
    };
    let address = match &settings.node_advertise {
        None => bound,
        Some(text) => {
            let found = names::look_up_blocking(text);
            let found = found.map_err(|error| wrong(format!("({text}) is not found: {error}")))?;
            *found.first().ok_or_else(|| wrong(format!("({text}) has no address")))?
        }
    };
    if address.ip().is_unspecified() {
        let text = format!(
            "is needed: other nodes cannot reach {}",
            IpAddr::to_string(&address.ip())
        );
        return Err(wrong(text));
    }
    let port = if address.port() == 0 {
        bound.port()
    } else {
        address.port()
    };
    Ok(SocketAddr::new(address.ip(), port))
}

fn random<const N: usize>() -> Result<[u8; N], ControlError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| ControlError::System(format!("no randomness: {error}")))?;
    Ok(bytes)
}

/// Everything that the thread begins with.
struct Parts {
    plane: Arc<Plane>,
    identity: Identity,
    limits: Limits,
    machine: Membership,
    sockets: (TcpListener, UdpSocket),
    roll: watch::Sender<Arc<Roll>>,
    wishes: mpsc::UnboundedReceiver<Wish>,
    renewals: mpsc::Receiver<office::OfficeAsk>,
    links: mpsc::UnboundedSender<Connection>,
    formed: oneshot::Sender<(storage::Identity, Handle)>,
    end: watch::Receiver<End>,
}

/// Takes the node's seat, opens its port for other nodes, and begins to look for its cluster on a thread of its own.
///
/// # Errors
/// If the configuration makes no sense, the port is taken, or nobody can say who this node is.
pub fn start(settings: Settings) -> Result<Starting, ControlError> {
    let no_hash = || ControlError::System("the library of ciphers lacks BLAKE2s".to_owned());
    let name = keys::name(&settings.name).ok_or_else(no_hash)?;
    let system = |error: &dyn std::fmt::Display| ControlError::System(error.to_string());
    let secrets = keys::read(&settings.secret).map_err(|reason| ControlError::Config {
        key: "cluster.secret",
        reason,
    })?;
    let (first, second) = secrets.mesh();
    let edge = first.is_of_edge();
    let mesh_keys = Keys::new(first, second);
    let sockets = bind(settings.node_listen)?;
    let bound = sockets
        .0
        .local_addr()
        .map_err(|error| ControlError::System(error.to_string()))?;
    let address = advertised(&settings, bound)?;
    let now = clock::now();
    let cluster = settings.identity.map(|identity| identity.cluster);
    let seat = Seat::take(settings.data_dir.as_deref(), cluster, now.wall_us, edge)?;
    let record = seat.record().clone();
    let me = Process {
        node: record.node,
        incarnation: record.incarnation,
    };
    let wish = FormingWish {
        me: me.node,
        address: address.to_string(),
        expect: settings.expect,
        voter: settings.voter,
        belongs: record.belongs,
    };
    let formed = record.kept.bound();
    let forming = Forming::new(now.mono_us, wish, record.kept);
    let machine = Membership::new(
        now.mono_us,
        Setup {
            config: Config::default(),
            cluster: name,
            keys: secrets.ring().map_err(|error| system(&error))?,
            node: me.node,
            incarnation: Incarnation(me.incarnation),
            addr: address,
            metadata: metadata(&settings, address, formed, forming.is_willing()),
            seed: Seed(random()?),
        },
    )
    .map_err(|error| system(&error))?;
    let identity = Identity::new(name, me.node, me.incarnation, mesh_keys.clone());
    let limits = Limits {
        handshake: Duration::from_secs(2),
        heartbeat: Duration::from_millis(300),
        silence: Duration::from_secs(2),
        queue_bytes: 16 * 1024 * 1024,
        retry_first: Duration::from_millis(50),
        retry_longest: Duration::from_millis(500),
    };
    let (metrics, notices) = (Arc::<ControlMetrics>::default(), Arc::<Notices>::default());
    let (roll, rolled) = watch::channel(Arc::default());
    let (wish, wishes) = mpsc::unbounded_channel();
    let (office, renewals) = mpsc::channel(RENEWALS);
    let plane = Arc::new(Plane {
        lines: Lines::new(identity.clone(), limits, Arc::clone(&metrics), Arc::clone(&notices)),
        settings,
        me,
        address,
        keys: mesh_keys,
        desk: Mutex::new(Desk { forming, seat }),
        part: watch::Sender::new(None),
        roll: rolled,
        wishes: wish,
        office,
        metrics,
        notices,
        over: watch::Sender::new(None),
        ends: AtomicBool::new(false),
    });
    let (links, handed_out) = mpsc::unbounded_channel();
    let (formed, is_formed) = oneshot::channel();
    let (end, ended) = watch::channel(End::Not);
    let over = plane.over.subscribe();
    let mesh = identity.clone();
    let parts = Parts {
        plane,
        identity,
        limits,
        machine,
        sockets,
        roll,
        wishes,
        renewals,
        links,
        formed,
        end: ended,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| system(&error))?;
    let thread = std::thread::Builder::new()
        .name("tidings-control".to_owned())
        .spawn(move || {
            runtime.block_on(parts.run());
            // Names may still be looked up.
            runtime.shutdown_timeout(Duration::from_millis(100));
        })
        .map_err(|error| system(&error))?;
    Ok(Starting {
        me,
        address,
        mesh,
        formed: is_formed,
        links: handed_out,
        over,
        running: Running {
            end,
            thread: Some(thread),
        },
    })
}

impl Parts {
    async fn run(self) {
        let Self {
            plane,
            identity,
            limits,
            machine,
            sockets: (tcp, udp),
            roll,
            wishes,
            renewals,
            links,
            formed,
            mut end,
        } = self;
        let sockets =
            tokio::net::TcpListener::from_std(tcp).and_then(|tcp| Ok((tcp, tokio::net::UdpSocket::from_std(udp)?)));
        let (tcp, udp) = match sockets {
            Ok(sockets) => sockets,
            Err(error) => return plane.fail(error.to_string()),
        };
        tokio::spawn(listener::listen(tcp, (identity, limits), Arc::clone(&plane), links));
        tokio::spawn(Gossip::new(machine, udp, roll, wishes, Arc::clone(&plane)).run());
        let (names, join) = (plane.settings.names.clone(), plane.settings.join.clone());
        tokio::spawn(gossip::resolve(names, join, plane.wishes.clone(), plane.roll.clone()));
        tokio::spawn(keep_book(Arc::clone(&plane)));
        tokio::spawn(live(Arc::clone(&plane), renewals, formed));
        let mut over = plane.over.subscribe();
        let how = tokio::select! {
            how = end.wait_for(|end| *end != End::Not) => how.map_or(End::Abrupt, |end| *end),
            _ = over.wait_for(Option::is_some) => {
                // The last view says that nothing may be done any more. Then nothing is said either: another process may
                // be this node now, and is not to be mistaken for this one.
                sleep(LAST_VIEW).await;
                End::Abrupt
            }
        };
        if how == End::Orderly && timeout(FAREWELL, farewell(&plane)).await.is_err() {
            tracing::warn!("the control plane took too long to say good-bye");
        }
        plane.ends.store(true, Ordering::Relaxed);
        if let Some(part) = plane.part() {
            if how == End::Orderly {
                tending::mark_now(&plane, &part).await;
            }
            // What it wrote last is on disk, and its file is free, when this returns.
            _ = timeout(FAREWELL, part.consensus.stop()).await;
        }
    }
}

/// Keeps where nodes are reached, for questions to them.
async fn keep_book(plane: Arc<Plane>) {
    let mut roll = plane.roll.clone();
    loop {
        let now = Arc::clone(&roll.borrow_and_update());
        let book = now.alive.values().filter_map(|peer| {
            let address = peer.metadata.node_addr?;
            Some((peer.node, address.to_string()))
        });
        plane.lines.found(book.collect());
        if roll.changed().await.is_err() {
            return;
        }
    }
}

/// Forms or joins, and then takes part.
async fn live(
    plane: Arc<Plane>,
    renewals: mpsc::Receiver<office::OfficeAsk>,
    formed: oneshot::Sender<(storage::Identity, Handle)>,
) {
    let part = form(&plane).await;
    let founding = part.founding;
    let told = metadata(&plane.settings, plane.address, Some(founding.cluster), true);
    // Gossip ends with the thread only.
    _ = plane.wishes.send(Wish::Tell(told));
    let (shown, view) = watch::channel(Arc::new(life::first_view(&plane, &part)));
    let on_disk = Arc::new(watch::Sender::new(Vec::new()));
    let (asks, asked) = mpsc::channel(ASKS);
    let (standing, stood) = watch::channel((0, Default::default()));
    let handle = Handle {
        view,
        highest: Arc::default(),
        on_disk,
        asks,
        roll: plane.roll.clone(),
        standing: stood,
        metrics: Arc::clone(&plane.metrics),
        over: plane.over.subscribe(),
        secrets: Some(Arc::new(Turner {
            keys: plane.keys.clone(),
            wishes: plane.wishes.clone(),
            edge: plane.me.node.is_edge(),
        })),
    };
    let told = Told {
        highest: Arc::clone(&handle.highest),
        on_disk: handle.on_disk.subscribe(),
    };
    tokio::spawn(office::run(Arc::clone(&plane), part.clone(), renewals));
    tokio::spawn(tending::run(Arc::clone(&plane), part.clone()));
    tokio::spawn(tending::mark(Arc::clone(&plane), part.clone()));
    tokio::spawn(life::run(Arc::clone(&plane), part.clone(), told, shown));
    tokio::spawn(life::register(
        Arc::clone(&plane),
        part.clone(),
        handle.on_disk.subscribe(),
    ));
    tokio::spawn(life::show_standing(part, standing));
    tokio::spawn(serve(plane, asked));
    // Whoever waited may have given up: then the thread is about to be stopped.
    _ = formed.send((founding.into(), handle));
}

/// Takes steps of forming until this node is part of a cluster.
async fn form(plane: &Arc<Plane>) -> Part {
    {
        let mut desk = plane.desk.lock().await;
        // A node that was part of a cluster is so still.
        _ = plane.settle(&mut desk).await;
    }
    let mut part = plane.part.subscribe();
    let mut ticks = interval(FORMING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut say = interval(SAY_EVERY);
    say.tick().await;
    loop {
        if let Some(part) = part.borrow_and_update().clone() {
            return part;
        }
        tokio::select! {
            // The sender is in `plane`.
            _ = part.changed() => {}
            _ = say.tick() => {
                let waits = plane.desk.lock().await.forming.waits_for();
                tracing::info!(node = %plane.me.node, "{waits}");
            }
            _ = ticks.tick() => {
                plane.step(Input::Seen(sightings(plane))).await;
                match (fresh(plane), random()) {
                    (Ok(fresh), Ok(chance)) => {
                        let chance = u32::from_le_bytes(chance);
                        plane.step(Input::Tick { fresh, chance }).await;
                    }
                    (Err(error), _) | (_, Err(error)) => plane.fail(error.to_string()),
                }
            }
        }
    }
}

fn sightings(plane: &Plane) -> BTreeMap<tidings_protocol::NodeId, Sighting> {
    let roll = Arc::clone(&plane.roll.borrow());
    let seen = roll.alive.values().filter_map(|peer| {
        let formed = peer.metadata.formed.map(|formed| formed.0);
        let sighting = Sighting {
            address: peer.metadata.node_addr?.to_string(),
            willing: peer.metadata.roles.voter && !peer.node.is_edge() && formed.is_none(),
            formed,
        };
        Some((peer.node, sighting))
    });
    seen.collect()
}

/// A cluster that nobody has seen before.
fn fresh(plane: &Plane) -> Result<Founding, ControlError> {
    let identity = storage::Identity {
        cluster: u64::from_le_bytes(random()?),
        key: random()?,
        shards: plane.settings.shards.get(),
        since: Version(clock::now().wall_us),
    };
    Ok(identity.into())
}

/// Answers handles.
async fn serve(plane: Arc<Plane>, mut asked: mpsc::Receiver<Ask>) {
    while let Some(ask) = asked.recv().await {
        let plane = Arc::clone(&plane);
        tokio::spawn(async move {
            // Whoever asked may not wait any more.
            match ask {
                Ask::Propose(commands, reply) => {
                    let outcome = plane.propose(&commands, PATIENCE).await;
                    let done = outcome.and_then(|outcome| match outcome.refused.first() {
                        Some((_, refusal)) => Err(ProposeError::Changed(*refusal)),
                        None => Ok(()),
                    });
                    _ = reply.send(done);
                }
                Ask::Voters(voters, reply) => {
                    let request = |cluster| Request::Voters {
                        cluster,
                        voters: voters.clone(),
                    };
                    let done = plane.ask_leader(request, PATIENCE).await;
                    _ = reply.send(done.and_then(|answer| match answer {
                        Answer::Done => Ok(()),
                        other => Err(ProposeError::Unknown(format!("answered {other:?}"))),
                    }));
                }
            }
        });
    }
}

/// Hands the leadership on, if this node has it, and says good-bye.
async fn farewell(plane: &Plane) {
    if let Some(part) = plane.part()
        && part.consensus.office().borrow().ours
    {
        let roll = Arc::clone(&plane.roll.borrow());
        let voters = part.consensus.standing().voters;
        let heir = voters.iter().find(|voter| roll.alive.contains_key(voter));
        if let Some(heir) = heir
            && part.consensus.hand_over(*heir).await.is_ok()
        {
            let mut office = part.consensus.office();
            _ = timeout(FAREWELL / 2, office.wait_for(|office| !office.ours)).await;
        }
    }
    let (done, said) = oneshot::channel();
    if plane.wishes.send(Wish::Leave(done)).is_ok() {
        _ = said.await;
    }
    // Datagrams are on their way.
    sleep(Duration::from_millis(10)).await;
}
