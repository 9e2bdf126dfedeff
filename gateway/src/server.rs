//! From a listening socket to requests: accepting, guarding, the gate, and HTTP/1.1.
//!
//! One acceptor deals connections out to the threads in turn; from then on a connection belongs to its thread. It does not
//! know what requests mean.

mod accept;
mod admission;
mod arrivals;
mod connection;
mod forwarded;
mod gate;
mod guard;
mod head;
mod proxied;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

pub use accept::{Accepted, accept, bind};
pub use admission::{Admission, Permit, Place};
pub use connection::{Behind, Http, PeerAddress};
pub use forwarded::TrustedProxies;
pub(crate) use forwarded::network;
pub use gate::{Gate, Passage};
pub use guard::{Deadlines, GuardedStream};
pub use tls::{Tls, TlsError};
pub use wire::Wire;

use crate::config::Config;
use crate::node::Node;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;

/// What every route can reach.
#[derive(Clone, Debug)]
pub struct App {
    /// The node.
    pub node: Arc<Node>,
    /// The thread this request is on.
    pub thread: usize,
}

/// Makes a socket fit for a subscriber: what the kernel buffers is stale by the time it is read, so it buffers little.
///
/// # Errors
/// Whatever the system says; the socket works all the same.
pub fn subscriber_socket(stream: &TcpStream, config: &Config) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    socket.set_send_buffer_size(usize::try_from(config.limits.send_buffer_bytes).unwrap_or(usize::MAX))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(u32::try_from(config.limits.notsent_lowat_bytes).unwrap_or(u32::MAX))?;
    Ok(())
}
