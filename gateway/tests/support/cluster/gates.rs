//! Forwarders between nodes, with a gate for each direction of each pair.
//!
//! A node tells the others its forwarder's address. Who is behind a connection that arrives there stands in its first words,
//! which are in the clear, so one address for all is enough. Until it is known which node calls itself what
//! ([`Gates::is_called`]), its gates are open.

use crate::support::PATIENCE;
use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidings_protocol::NodeId;
use tidings_protocol::mesh::Hello;

/// How often a gate is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What becomes of what one node sends to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It arrives.
    #[default]
    Open,
    /// Connections are refused and cut, datagrams dropped.
    Cut,
    /// Nothing arrives and nobody is told: connections stand still, datagrams are dropped.
    Held,
}

#[derive(Debug, Default)]
struct State {
    /// From, to.
    gates: HashMap<(usize, usize), Gate>,
    /// Which node calls itself what.
    names: HashMap<NodeId, usize>,
    /// Where each node sends datagrams from.
    sources: HashMap<SocketAddr, usize>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Gates {
    state: Mutex<State>,
    addresses: Vec<SocketAddr>,
    stop: AtomicBool,
}

impl Gates {
    /// A forwarder in front of each of these.
    pub(super) fn new(targets: &[SocketAddr]) -> Arc<Self> {
        let pairs: Vec<(TcpListener, UdpSocket)> = targets.iter().map(|_| pair()).collect();
        let addresses = pairs.iter().map(|(tcp, _)| tcp.local_addr().expect("an address"));
        let state = State {
            sources: targets.iter().copied().zip(0..).collect(),
            ..State::default()
        };
        let gates = Arc::new(Self {
            addresses: addresses.collect(),
            state: Mutex::new(state),
            stop: AtomicBool::new(false),
        });
        for ((to, target), (tcp, udp)) in targets.iter().copied().enumerate().zip(pairs) {
            let streams = Arc::clone(&gates);
            std::thread::spawn(move || streams.streams(&tcp, to, target));
            let datagrams = Arc::clone(&gates);
            std::thread::spawn(move || datagrams.datagrams(&Arc::new(udp), to, target));
        }
        gates
    }

    pub(super) fn address(&self, node: usize) -> SocketAddr {
        self.addresses[node]
    }

    pub(super) fn is_called(&self, node: usize, name: NodeId) {
        self.state.lock().expect("a lock").names.insert(name, node);
    }

    /// From now on.
    pub(crate) fn set(&self, from: usize, to: usize, gate: Gate) {
        self.state.lock().expect("a lock").gates.insert((from, to), gate);
    }

    /// Between all nodes of one side and all of the other, both ways.
    pub(crate) fn between(&self, one: &[usize], other: &[usize], gate: Gate) {
        for (&a, &b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
            self.set(a, b, gate);
            self.set(b, a, gate);
        }
    }

    pub(crate) fn open_all(&self) {
        self.state.lock().expect("a lock").gates.clear();
    }

    fn gate(&self, from: usize, to: usize) -> Gate {
        let state = self.state.lock().expect("a lock");
        state.gates.get(&(from, to)).copied().unwrap_or_default()
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Between a node of which the name is known and one of which the place is.
    fn gate_of(&self, name: NodeId, place: usize, to_place: bool) -> Gate {
        let known = self.state.lock().expect("a lock").names.get(&name).copied();
        known.map_or(Gate::Open, |other| {
            if to_place {
                self.gate(other, place)
            } else {
                self.gate(place, other)
            }
        })
    }

    fn streams(self: Arc<Self>, listener: &TcpListener, to: usize, target: SocketAddr) {
        listener.set_nonblocking(true).expect("a listener");
        while !self.is_over() {
            let Ok((stream, _)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            let gates = Arc::clone(&self);
            // A stream that cannot be carried is closed, as it would be by a node.
            std::thread::spawn(move || _ = gates.stream(stream, to, target));
        }
    }

    fn stream(self: Arc<Self>, mut stream: TcpStream, to: usize, target: SocketAddr) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut words = [0; Hello::BYTES];
        stream.read_exact(&mut words)?;
        let hello = Hello::decode(&words).map_err(io::Error::other)?;
        let dialler = hello.node;
        if [true, false]
            .iter()
            .any(|onward| self.gate_of(dialler, to, *onward) == Gate::Cut)
        {
            return Ok(());
        }
        let mut onward = TcpStream::connect(target)?;
        onward.write_all(&words)?;
        let back = (onward.try_clone()?, stream.try_clone()?);
        let gates = Arc::clone(&self);
        std::thread::spawn(move || gates.carry(dialler, to, false, back.0, back.1));
        self.carry(dialler, to, true, stream, onward);
        Ok(())
    }

    /// One direction of one connection.
    fn carry(&self, dialler: NodeId, place: usize, onward: bool, mut reader: TcpStream, mut writer: TcpStream) {
        let mut run = || -> io::Result<()> {
            reader.set_read_timeout(Some(LOOK))?;
            writer.set_nodelay(true)?;
            let mut piece = vec![0; 64 * 1024];
            loop {
                let gate = self.gate_of(dialler, place, onward);
                if self.is_over() || gate == Gate::Cut {
                    return Ok(());
                }
                if gate == Gate::Held {
                    std::thread::sleep(LOOK);
                    continue;
                }
                match reader.read(&mut piece) {
                    Ok(0) => return Ok(()),
                    // The gate may have closed while this waited.
                    Ok(count) if self.gate_of(dialler, place, onward) != Gate::Cut => {
                        writer.write_all(&piece[..count])?
                    }
                    Ok(_) => return Ok(()),
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                    Err(error) => return Err(error),
                }
            }
        };
        // Whatever ended it, both ends learn of it.
        _ = run();
        _ = reader.shutdown(Shutdown::Both);
        _ = writer.shutdown(Shutdown::Both);
    }

    fn datagrams(self: Arc<Self>, socket: &Arc<UdpSocket>, to: usize, target: SocketAddr) {
        socket.set_read_timeout(Some(LOOK)).expect("a timeout");
        // A socket of its own for each who sends here, so that answers find back.
        let mut doors: HashMap<SocketAddr, UdpSocket> = HashMap::new();
        let mut piece = vec![0; 64 * 1024];
        while !self.is_over() {
            let Ok((count, source)) = socket.recv_from(&mut piece) else {
                continue;
            };
            let from = self.state.lock().expect("a lock").sources.get(&source).copied();
            if from.is_some_and(|from| self.gate(from, to) != Gate::Open) {
                continue;
            }
            let door = doors.entry(source).or_insert_with(|| {
                let door = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                let answers = door.try_clone().expect("a second handle");
                if let Some(from) = from {
                    self.state
                        .lock()
                        .expect("a lock")
                        .sources
                        .insert(door.local_addr().expect("an address"), from);
                }
                let (gates, socket) = (Arc::clone(&self), Arc::clone(socket));
                std::thread::spawn(move || gates.answers(&answers, &socket, source, from, to));
                door
            });
            // A node that is down refuses; that is how it is.
            _ = door.send_to(&piece[..count], target);
        }
    }

    /// What the node behind says to whoever sent to it through its forwarder.
    fn answers(&self, door: &UdpSocket, socket: &UdpSocket, source: SocketAddr, other: Option<usize>, node: usize) {
        door.set_read_timeout(Some(LOOK)).expect("a timeout");
        let mut piece = vec![0; 64 * 1024];
        while !self.is_over() {
            let Ok((count, _)) = door.recv_from(&mut piece) else {
                continue;
            };
            if other.is_none_or(|other| self.gate(node, other) == Gate::Open) {
                _ = socket.send_to(&piece[..count], source);
            }
        }
    }
}

/// Two sockets on one free port.
fn pair() -> (TcpListener, UdpSocket) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("an address")) {
            return (tcp, udp);
        }
    }
}
