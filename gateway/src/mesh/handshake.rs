//! The first words of a connection.
//!
//! Both say hello in the clear, so that a wrong address, another cluster or a version that is not spoken can be *named*;
//! then Noise (Perrin, *The Noise Protocol Framework*, revision 34) proves that both belong and makes fresh keys for this connection.
//! Both hellos are its prologue: a hello that was changed on the way ends it.
//!
//! The names say which of both is an edge, and so what each has to prove. Between nodes that may own and vote it is `NNpsk0`: both
//! know their key. Where one is an edge, both know the edges' key, and the other one also has the private key of nodes that may own
//! and vote (`NKpsk0` if an edge dials, `KNpsk0` if it is dialled): no edge can pass for one of these. Edges do not speak to each
//! other. With two generations of the secret, who was dialled finds out which one was meant by the first message.
//!
//! The first message of these patterns could be replayed, so the end that was dialled believes the other only after its
//! first sealed record.

use super::sealed::{Opener, Sealer};
use super::{ClusterKey, Identity, Peer};
use snow::params::NoiseParams;
use snow::{Builder, HandshakeState};
use std::sync::Arc;
use tidings_protocol::mesh::{Class, FrameError, Hello};
use tidings_protocol::{ClusterId, NodeId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

const BETWEEN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const EDGE_DIALS: &str = "Noise_NKpsk0_25519_ChaChaPoly_BLAKE2s";
const EDGE_IS_DIALLED: &str = "Noise_KNpsk0_25519_ChaChaPoly_BLAKE2s";
/// An ephemeral key and a tag: both messages have this length.
const MESSAGE_BYTES: usize = 32 + 16;

/// The verdict on a hello, one byte.
const WELCOME: u8 = 0;
const OTHER_CLUSTER: u8 = 1;
const NO_COMMON_VERSION: u8 = 2;
const OURSELVES: u8 = 3;
const BOTH_EDGES: u8 = 4;

/// Why a connection did not come about. **Nothing was said to whoever is at the other end beyond a hello.**
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection failed or ended.
    #[error("the connection failed in the handshake: {0}")]
    Io(#[from] std::io::Error),
    /// Took longer than allowed.
    #[error("the handshake was not over in time")]
    Slow,
    /// Somebody else is there.
    #[error(transparent)]
    NotTidings(#[from] FrameError),
    /// A node of another cluster.
    #[error("the other end is node {node} of another cluster ({theirs:016x}, ours is {ours:016x})")]
    OtherCluster {
        /// The other's.
        theirs: u64,
        /// Ours.
        ours: u64,
        /// Its name.
        node: NodeId,
    },
    /// No version is spoken by both.
    #[error("node {node} speaks versions {} to {} of the protocol between nodes, this one {} to {}", .theirs.0, .theirs.1, .ours.0, .ours.1)]
    NoCommonVersion {
        /// The other's.
        theirs: (u16, u16),
        /// Ours.
        ours: (u16, u16),
        /// Its name.
        node: NodeId,
    },
    /// The address leads back to this node, or to one with its name.
    #[error("the other end has this node's own name: the address leads back here, or a data directory was copied")]
    Ourselves,
    /// Another node than was looked for.
    #[error("the other end is node {found}, not {wanted}")]
    OtherNode {
        /// It.
        found: NodeId,
        /// Who was looked for.
        wanted: NodeId,
    },
    /// It does not know the cluster's key, or somebody on the way changed what was said.
    #[error("node {node} does not prove that it knows the cluster's key")]
    WrongKey {
        /// What it calls itself.
        node: NodeId,
    },
    /// Edges have nothing to say to each other.
    #[error("node {node} is an edge, as this one is")]
    BothEdges {
        /// Its name.
        node: NodeId,
    },
    /// Our name and our key do not belong together.
    #[error("this node has an edge's secret and another node's name, or the other way round")]
    OurKey,
    /// A word that the handshake does not have.
    #[error("the other end answered {0}, which means nothing here")]
    Nonsense(u8),
}

/// A connection that came about.
#[derive(Debug)]
pub struct Connection {
    /// The other end.
    pub peer: Peer,
    pub(super) sealer: Sealer<OwnedWriteHalf>,
    pub(super) opener: Opener<OwnedReadHalf>,
}

impl Connection {
    /// Moves the connection to the runtime this is called on. A socket is watched by the runtime on which it was made: with
    /// whoever accepted it busy, or at its end, the connection would stand still.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn here(self) -> std::io::Result<Self> {
        let Self { peer, sealer, opener } = self;
        let (to, sealer) = sealer.apart();
        let (from, opener) = opener.apart();
        let stream = from.reunite(to).map_err(std::io::Error::other)?;
        let (from, to) = TcpStream::from_std(stream.into_std()?)?.into_split();
        Ok(Self {
            peer,
            sealer: sealer.joined(to),
            opener: opener.joined(from),
        })
    }
}

/// Dials: speaks first.
///
/// # Errors
/// Says who is there instead, or what failed. To be called within a time limit.
pub async fn dial(
    stream: TcpStream,
    us: &Identity,
    class: Class,
    wanted: Option<NodeId>,
) -> Result<Connection, HandshakeError> {
    stream.set_nodelay(true)?;
    let (mut from, mut to) = stream.into_split();
    let ours = us.hello(class);
    to.write_all(&ours.encode()).await?;
    let verdict = from.read_u8().await?;
    let theirs = read_hello(&mut from).await?;
    match verdict {
        WELCOME | OTHER_CLUSTER | NO_COMMON_VERSION | OURSELVES | BOTH_EDGES => {}
        other => return Err(HandshakeError::Nonsense(other)),
    }
    let version = judge(us, &ours, &theirs)?;
    if verdict != WELCOME {
        return Err(HandshakeError::Nonsense(verdict));
    }
    if let Some(wanted) = wanted.filter(|wanted| *wanted != theirs.node) {
        let found = theirs.node;
        return Err(HandshakeError::OtherNode { found, wanted });
    }
    let (first, _) = us.keys.both();
    let mut noise = state(&first, &ours, &theirs, true)?;
    write_message(&mut to, &mut noise).await?;
    let message = read_message(&mut from, theirs.node).await?;
    let read = noise.read_message(&message, &mut []);
    read.map_err(|_| HandshakeError::WrongKey { node: theirs.node })?;
    let mut connection = finish(noise, (from, to), &theirs, version, class)?;
    // Without a record of ours the other end would not believe us yet.
    connection.sealer.beat();
    connection.sealer.flush().await?;
    Ok(connection)
}

/// Was dialled: answers.
///
/// # Errors
/// Says who is there instead, or what failed. To be called within a time limit.
pub async fn accept(stream: TcpStream, us: &Identity) -> Result<Connection, HandshakeError> {
    stream.set_nodelay(true)?;
    let (mut from, mut to) = stream.into_split();
    let theirs = read_hello(&mut from).await?;
    let ours = us.hello(theirs.class);
    let judged = judge(us, &ours, &theirs);
    let verdict = match &judged {
        Ok(_) => WELCOME,
        Err(HandshakeError::OtherCluster { .. }) => OTHER_CLUSTER,
        Err(HandshakeError::NoCommonVersion { .. }) => NO_COMMON_VERSION,
        Err(HandshakeError::BothEdges { .. }) => BOTH_EDGES,
        Err(_) => OURSELVES,
    };
    to.write_u8(verdict).await?;
    to.write_all(&ours.encode()).await?;
    let version = judged?;
    let message = read_message(&mut from, theirs.node).await?;
    let (first, second) = us.keys.both();
    let mut meant = None;
    for key in std::iter::once(first).chain(second) {
        let mut noise = state(&key, &theirs, &ours, false)?;
        if noise.read_message(&message, &mut []).is_ok() {
            meant = Some(noise);
            break;
        }
    }
    let mut noise = meant.ok_or(HandshakeError::WrongKey { node: theirs.node })?;
    write_message(&mut to, &mut noise).await?;
    let mut connection = finish(noise, (from, to), &theirs, version, theirs.class)?;
    let wrong = HandshakeError::WrongKey { node: theirs.node };
    connection.opener.first_record().await.map_err(|_| wrong)?;
    Ok(connection)
}

fn judge(us: &Identity, ours: &Hello, theirs: &Hello) -> Result<u16, HandshakeError> {
    let node = theirs.node;
    if theirs.cluster != us.cluster {
        let (ClusterId(theirs), ClusterId(ours)) = (theirs.cluster, us.cluster);
        return Err(HandshakeError::OtherCluster { theirs, ours, node });
    }
    let version = ours.common(theirs).ok_or(HandshakeError::NoCommonVersion {
        theirs: (theirs.oldest, theirs.newest),
        ours: us.versions,
        node,
    })?;
    if node == us.node {
        return Err(HandshakeError::Ourselves);
    }
    if node.is_edge() && us.node.is_edge() {
        return Err(HandshakeError::BothEdges { node });
    }
    Ok(version)
}

async fn read_hello(from: &mut (impl AsyncRead + Unpin)) -> Result<Hello, HandshakeError> {
    let mut bytes = [0; Hello::BYTES];
    from.read_exact(&mut bytes).await?;
    Ok(Hello::decode(&bytes)?)
}

fn broken(error: &snow::Error) -> HandshakeError {
    HandshakeError::Io(std::io::Error::other(error.to_string()))
}

fn state(key: &ClusterKey, dialler: &Hello, dialled: &Hello, first: bool) -> Result<HandshakeState, HandshakeError> {
    let (dialler_is_edge, dialled_is_edge) = (dialler.node.is_edge(), dialled.node.is_edge());
    let pattern = match (dialler_is_edge, dialled_is_edge) {
        (false, false) => BETWEEN,
        (true, false) => EDGE_DIALS,
        (false, true) => EDGE_IS_DIALLED,
        (true, true) => return Err(HandshakeError::BothEdges { node: dialled.node }),
    };
    let with_edge = dialler_is_edge || dialled_is_edge;
    let we_are_edge = if first { dialler_is_edge } else { dialled_is_edge };
    if key.is_of_edge() != we_are_edge {
        return Err(HandshakeError::OurKey);
    }
    let secret = match &key.full {
        Some(full) if !with_edge => &full.between,
        _ => &key.edges,
    };
    let params: NoiseParams = pattern.parse().map_err(|error| broken(&error))?;
    let prologue = [dialler.encode(), dialled.encode()].concat();
    let mut builder = Builder::new(params)
        .psk(0, secret)
        .and_then(|builder| builder.prologue(&prologue))
        .map_err(|error| broken(&error))?;
    if with_edge {
        let proved = match &key.full {
            Some(full) => builder.local_private_key(&full.private),
            None => builder.remote_public_key(&key.public),
        };
        builder = proved.map_err(|error| broken(&error))?;
    }
    let built = if first {
        builder.build_initiator()
    } else {
        builder.build_responder()
    };
    built.map_err(|error| broken(&error))
}

async fn write_message(to: &mut (impl AsyncWrite + Unpin), noise: &mut HandshakeState) -> Result<(), HandshakeError> {
    let mut bytes = [0; MESSAGE_BYTES];
    noise.write_message(&[], &mut bytes).map_err(|error| broken(&error))?;
    Ok(to.write_all(&bytes).await?)
}

async fn read_message(
    from: &mut (impl AsyncRead + Unpin),
    node: NodeId,
) -> Result<[u8; MESSAGE_BYTES], HandshakeError> {
    let mut bytes = [0; MESSAGE_BYTES];
    match from.read_exact(&mut bytes).await {
        Ok(_) => Ok(bytes),
        // Who cannot read our message hangs up.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(HandshakeError::WrongKey { node }),
        Err(error) => Err(error.into()),
    }
}

fn finish(
    noise: HandshakeState,
    (from, to): (OwnedReadHalf, OwnedWriteHalf),
    theirs: &Hello,
    version: u16,
    class: Class,
) -> Result<Connection, HandshakeError> {
    let noise = noise.into_stateless_transport_mode().map_err(|error| broken(&error))?;
    let noise = Arc::new(noise);
    Ok(Connection {
        peer: Peer {
            node: theirs.node,
            incarnation: theirs.incarnation,
            version,
            class,
        },
        sealer: Sealer::new(to, Arc::clone(&noise)),
        opener: Opener::new(from, noise),
    })
}
