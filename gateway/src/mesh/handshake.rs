//! The first words of a connection.
//!
//! Both say hello in the clear, so that a wrong address, another cluster or a version that is not spoken can be *named*;
//! then Noise `NNpsk0` (Perrin, *The Noise Protocol Framework*, revision 34) proves that both know the cluster's key and
//! makes fresh keys for this connection. Both hellos are its prologue: a hello that was changed on the way ends it.
//!
//! The first message of that pattern could be replayed, so the end that was dialled believes the other only after its
//! first sealed record.

use super::sealed::{Opener, Sealer};
use super::{Identity, Peer};
use snow::params::NoiseParams;
use snow::{Builder, HandshakeState};
use std::sync::Arc;
use tidings_protocol::mesh::{Class, FrameError, Hello};
use tidings_protocol::{ClusterId, NodeId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// An ephemeral key and a tag: both messages have this length.
const MESSAGE_BYTES: usize = 32 + 16;

/// The verdict on a hello, one byte.
const WELCOME: u8 = 0;
const OTHER_CLUSTER: u8 = 1;
const NO_COMMON_VERSION: u8 = 2;
const OURSELVES: u8 = 3;

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
        WELCOME | OTHER_CLUSTER | NO_COMMON_VERSION | OURSELVES => {}
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
    let mut noise = state(us, &ours, &theirs, true)?;
    write_message(&mut to, &mut noise).await?;
    read_message(&mut from, &mut noise, theirs.node).await?;
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
        Err(_) => OURSELVES,
    };
    to.write_u8(verdict).await?;
    to.write_all(&ours.encode()).await?;
    let version = judged?;
    let mut noise = state(us, &theirs, &ours, false)?;
    read_message(&mut from, &mut noise, theirs.node).await?;
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

fn state(us: &Identity, dialler: &Hello, dialled: &Hello, first: bool) -> Result<HandshakeState, HandshakeError> {
    let params: NoiseParams = PATTERN.parse().map_err(|error| broken(&error))?;
    let prologue = [dialler.encode(), dialled.encode()].concat();
    let builder = Builder::new(params)
        .psk(0, &us.key.0)
        .and_then(|builder| builder.prologue(&prologue))
        .map_err(|error| broken(&error))?;
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
    noise: &mut HandshakeState,
    node: NodeId,
) -> Result<(), HandshakeError> {
    let mut bytes = [0; MESSAGE_BYTES];
    match from.read_exact(&mut bytes).await {
        Ok(_) => {}
        // Who cannot read our message hangs up.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err(HandshakeError::WrongKey { node });
        }
        Err(error) => return Err(error.into()),
    }
    let read = noise.read_message(&bytes, &mut []);
    read.map(drop).map_err(|_| HandshakeError::WrongKey { node })
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
