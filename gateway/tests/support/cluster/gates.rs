//! Forwarders between nodes, with a gate for each direction of each pair.
//!
//! A node tells the others its forwarder's address. Who is behind a connection that arrives there is found by the process
//! that has the other end (`/proc`), so one address for all is enough.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
    /// The process of each node.
    processes: HashMap<usize, u32>,
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

    pub(super) fn belongs(&self, node: usize, process: u32) {
        self.state.lock().expect("a lock").processes.insert(node, process);
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

    fn streams(self: Arc<Self>, listener: &TcpListener, to: usize, target: SocketAddr) {
        listener.set_nonblocking(true).expect("a listener");
        while !self.is_over() {
            let Ok((stream, from)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            let processes = self.state.lock().expect("a lock").processes.clone();
            let Some(from) = behind(from.port(), &processes) else {
                continue;
            };
            let through = [(from, to), (to, from)];
            if through.iter().any(|&(a, b)| self.gate(a, b) == Gate::Cut) {
                continue;
            }
            let Ok(onward) = TcpStream::connect(target) else {
                continue;
            };
            for ((a, b), (reader, writer)) in through.into_iter().zip([(&stream, &onward), (&onward, &stream)]) {
                let (Ok(reader), Ok(writer)) = (reader.try_clone(), writer.try_clone()) else {
                    continue;
                };
                let gates = Arc::clone(&self);
                std::thread::spawn(move || gates.carry(a, b, reader, writer));
            }
        }
    }

    /// One direction of one connection.
    fn carry(&self, from: usize, to: usize, mut reader: TcpStream, mut writer: TcpStream) {
        let mut run = || -> io::Result<()> {
            reader.set_nonblocking(false)?;
            reader.set_read_timeout(Some(LOOK))?;
            writer.set_nodelay(true)?;
            let mut piece = vec![0; 64 * 1024];
            loop {
                let gate = self.gate(from, to);
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
                    Ok(count) if self.gate(from, to) != Gate::Cut => writer.write_all(&piece[..count])?,
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

/// Which node's process has the end of a loopback connection with this port.
fn behind(port: u16, processes: &HashMap<usize, u32>) -> Option<usize> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let end = format!("0100007F:{port:04X}");
    let inode = table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1) == Some(&end.as_str())).then(|| words.get(9).map(|&inode| inode.to_owned()))?
    })?;
    let wanted = format!("socket:[{inode}]");
    let has = |process: u32| {
        let files = std::fs::read_dir(format!("/proc/{process}/fd")).ok();
        let mut files = files.into_iter().flatten().filter_map(Result::ok);
        files.any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str()))
    };
    processes
        .iter()
        .find(|(_, process)| has(**process))
        .map(|(node, _)| *node)
}
