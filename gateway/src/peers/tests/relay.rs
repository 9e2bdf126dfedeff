//! A stretch of network in front of a node, which can be cut, and stand still.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidings_protocol::mesh::Hello;

#[derive(Debug, Default)]
struct Road {
    closed: AtomicBool,
    still: AtomicBool,
    /// Only what this node dialled stands still; zero: nothing.
    still_for: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    road: Arc<Road>,
}

impl Relay {
    pub(super) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let road = Arc::new(Road::default());
        let shared = Arc::clone(&road);
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.closed.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(onward) = TcpStream::connect(target) else {
                    continue;
                };
                // Whoever dials says its name first, in the clear.
                let mut hello = [0; Hello::BYTES];
                while matches!(stream.peek(&mut hello), Ok(count) if (1..hello.len()).contains(&count)) {}
                let node = Hello::decode(&hello).map_or(0, |hello| hello.node.0);
                for (from, to) in [(&stream, &onward), (&onward, &stream)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let road = Arc::clone(&shared);
                    std::thread::spawn(move || carry(&road, node, from, to));
                }
                shared.open.lock().unwrap().extend([stream, onward]);
            }
        });
        Self { address, road }
    }

    /// Breaks every connection. Whether new ones come about is for `close` to say.
    pub(super) fn cut(&self) {
        for stream in self.road.open.lock().unwrap().drain(..) {
            _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether new connections are refused.
    pub(super) fn close(&self, closed: bool) {
        self.road.closed.store(closed, Ordering::SeqCst);
    }

    /// Whether nothing is carried, either way.
    pub(super) fn still(&self, still: bool) {
        self.road.still.store(still, Ordering::SeqCst);
    }

    /// The same for what one node dialled.
    pub(super) fn still_for(&self, node: u64, still: bool) {
        self.road
            .still_for
            .store(if still { node } else { 0 }, Ordering::SeqCst);
    }
}

fn carry(road: &Road, node: u64, mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        while road.still.load(Ordering::SeqCst) || (node > 0 && road.still_for.load(Ordering::SeqCst) == node) {
            std::thread::sleep(Duration::from_millis(2));
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    _ = to.shutdown(Shutdown::Both);
    _ = from.shutdown(Shutdown::Both);
}
