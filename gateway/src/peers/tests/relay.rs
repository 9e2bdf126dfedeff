//! A stretch of network in front of a node, which can be cut, and stand still.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug, Default)]
struct Road {
    closed: AtomicBool,
    still: AtomicBool,
    /// Only the connection that came first stands still.
    first_still: AtomicBool,
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
            for (number, stream) in listener.incoming().flatten().enumerate() {
                if shared.closed.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(onward) = TcpStream::connect(target) else {
                    continue;
                };
                for (from, to) in [(&stream, &onward), (&onward, &stream)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let road = Arc::clone(&shared);
                    std::thread::spawn(move || carry(&road, number == 0, from, to));
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

    /// The same for the connection that came first.
    pub(super) fn still_for_oldest(&self, still: bool) {
        self.road.first_still.store(still, Ordering::SeqCst);
    }
}

fn carry(road: &Road, first: bool, mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        while road.still.load(Ordering::SeqCst) || (first && road.first_still.load(Ordering::SeqCst)) {
            std::thread::sleep(Duration::from_millis(2));
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    _ = to.shutdown(Shutdown::Both);
    _ = from.shutdown(Shutdown::Both);
}
