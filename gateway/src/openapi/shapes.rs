//! The shapes that routes take and answer with, as the document describes them.

use serde::Serialize;
use utoipa::ToSchema;

/// An object ID: 1 to 255 bytes of UTF-8 without control characters, compared byte for byte.
#[derive(Serialize, ToSchema)]
#[schema(example = "order:42")]
pub(super) struct ObjectId(String);

/// One change to publish.
#[derive(Serialize, ToSchema)]
pub(super) struct Change {
    #[schema(value_type = String, example = "order:42")]
    object: ObjectId,
    /// A short tag, at most 32 bytes.
    #[schema(example = "updated")]
    kind: Option<String>,
    /// Any JSON value of at most 64 KiB.
    #[schema(value_type = Option<Object>)]
    data: Option<()>,
    /// The publisher's own number of this state of the object, below 2^53. One at or below the last changes nothing.
    revision: Option<u64>,
}

/// One change, or a list of them.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum PublishRequest {
    One(Change),
    Several { changes: Vec<Change> },
}

/// What became of one change.
#[derive(Serialize, ToSchema)]
pub(super) struct Published {
    /// The version the change got.
    #[schema(example = 1_795_170_000_000_000_u64)]
    version: Option<u64>,
    /// Present and true if it had happened already: nobody was notified again.
    duplicate: Option<bool>,
    /// With `trace=1`: the object's shard.
    shard: Option<u16>,
    /// With `trace=1`: the epoch of its owner.
    epoch: Option<u64>,
    /// Instead of all others, in a list: why this change was refused.
    error: Option<ChangeError>,
}

/// Why one change of several was refused.
#[derive(Serialize, ToSchema)]
pub(super) struct ChangeError {
    #[schema(example = "invalid_object")]
    code: String,
    message: String,
    retryable: bool,
    /// `no` or `unknown`.
    applied: String,
}

/// The answer to one change, to a list, or to a stream of lines.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum PublishAnswer {
    One(Published),
    Several {
        results: Vec<Published>,
    },
    Lines {
        accepted: u64,
        rejected: u64,
        duplicates: Option<u64>,
        errors: Vec<LineError>,
        version: Option<u64>,
    },
}

/// One of the first hundred refused lines.
#[derive(Serialize, ToSchema)]
pub(super) struct LineError {
    line: u64,
    code: String,
    message: String,
    retryable: bool,
    applied: String,
}

/// An RFC 9457 problem document.
#[derive(Serialize, ToSchema)]
pub(super) struct Problem {
    #[schema(example = "urn:tidings:problem:invalid_object")]
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    /// Stable, snake_case.
    code: String,
    /// Whether the same request may succeed later.
    retryable: bool,
    /// Of a publish: whether it may have happened, `no` or `unknown`.
    applied: Option<String>,
}

/// An object to watch: its ID, or a map that says more.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Entry {
    Id(String),
    Known {
        object: String,
        /// The version the client knows already.
        version: Option<u64>,
        /// A version that the answer must include; else the object is refused with `not_yet`.
        at_least: Option<u64>,
    },
}

/// A long-poll.
#[derive(Serialize, ToSchema)]
pub(super) struct PollRequest {
    /// What to watch; may be left out with a `session`.
    objects: Option<Vec<Entry>>,
    /// From the last answer. Without it the answer comes at once, with a cursor and no changes.
    cursor: Option<String>,
    /// Saves sending the list again.
    session: Option<String>,
    /// How long to wait for a change, 0 to 60000.
    #[schema(example = 25_000)]
    wait_ms: Option<u64>,
    /// Objects to add to the session's list.
    add: Option<Vec<Entry>>,
    /// Objects to take from the session's list.
    remove: Option<Vec<Entry>>,
}

/// A list of objects to watch as an event stream.
#[derive(Serialize, ToSchema)]
pub(super) struct EventsRequest {
    objects: Option<Vec<Entry>>,
    cursor: Option<String>,
    session: Option<String>,
}

/// A list of objects to keep.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionRequest {
    objects: Vec<Entry>,
}

/// A list that is kept under a name.
#[derive(Serialize, ToSchema)]
pub(super) struct Session {
    session: String,
}

/// Something changed.
#[derive(Serialize, ToSchema)]
pub(super) struct Changed {
    object: String,
    version: u64,
    kind: Option<String>,
    #[schema(value_type = Option<Object>)]
    data: Option<()>,
}

/// These objects may have changed: fetch them.
#[derive(Serialize, ToSchema)]
pub(super) struct Resync {
    objects: Option<Vec<String>>,
    all: Option<bool>,
    cause: String,
}

/// An object that is not watched, and why.
#[derive(Serialize, ToSchema)]
pub(super) struct Refused {
    object: String,
    error: ChangeError,
}

/// What a long-poll brings.
#[derive(Serialize, ToSchema)]
pub(super) struct PollAnswer {
    changes: Vec<Changed>,
    resync: Option<Resync>,
    refused: Vec<Refused>,
    /// For the next poll. Opaque; at most 2 KiB.
    cursor: String,
    session: Option<String>,
    /// Poll again at once: there is more.
    more: Option<bool>,
    /// The server is busy: wait this long before the next poll.
    poll_after_ms: Option<u64>,
}

/// What a reload did.
#[derive(Serialize, ToSchema)]
pub(super) struct Reloaded {
    /// What was read again, of `certificate`, `policy`, `log` and `limits`.
    read: Vec<String>,
    /// Keys whose new values count from now on.
    changed: Vec<KeyChange>,
    /// Keys whose new values count after a restart.
    needs_restart: Vec<KeyChange>,
}

/// A configuration key with another value than before.
#[derive(Serialize, ToSchema)]
pub(super) struct KeyChange {
    key: String,
    from: String,
    to: String,
}

/// The cluster as one node sees it.
#[derive(Serialize, ToSchema)]
pub(super) struct Cluster {
    /// Its identity; empty before there is one.
    cluster: String,
    /// What it is called.
    name: String,
    /// The node that answers.
    node: String,
    nodes: Vec<ClusterNode>,
    /// Those that have or had an owner.
    shards: Vec<ClusterShard>,
    /// In a cluster only, as all below: counts the changes of nodes and shards.
    revision: Option<u64>,
    /// No version above was ever allowed.
    ceiling: Option<u64>,
    /// Counts the offices of leaders.
    term: Option<u64>,
    /// The id of the node that leads the control plane.
    leader: Option<String>,
    shard_count: Option<u64>,
    /// How long this node may give versions without hearing from the leader.
    lease_left_ms: Option<u64>,
    /// A quorum confirmed the map since this node started.
    confirmed: Option<bool>,
    /// How many copies each shard should have, its owner's among them.
    copies: Option<u8>,
    /// Shards that lack copies.
    short_of_copies: Option<u64>,
}

/// A node as another knows it.
#[derive(Serialize, ToSchema)]
pub(super) struct ClusterNode {
    /// Its name; its id where nobody named it.
    node: String,
    id: Option<String>,
    /// Higher with each start.
    incarnation: Option<u64>,
    /// Where clients reach it, `host:port`.
    address: String,
    client_url: Option<String>,
    node_address: Option<String>,
    /// `edge`, `owner`, `voter`.
    roles: Vec<String>,
    zone: String,
    /// As gossip says.
    alive: bool,
    voter: bool,
    leader: bool,
    draining: bool,
    /// Whether the cluster agreed on it; else it is on its way in.
    member: bool,
    /// Shards that it owns.
    owned: u64,
    /// Shards of which it has a complete copy.
    copies: u64,
    /// Shards of which it is getting a copy.
    filling: u64,
    /// Of the node that answers only.
    threads: Option<u64>,
    /// Of the node that answers only.
    uptime_ms: Option<u64>,
}

/// A slice of the hash space.
#[derive(Serialize, ToSchema)]
pub(super) struct ClusterShard {
    shard: u16,
    owner: String,
    owner_id: Option<String>,
    /// Counts its owners.
    epoch: u64,
    /// Below, nobody can vouch for it.
    floor: u64,
    /// Why the floor is where it is.
    cause: Option<String>,
    /// Who else has everything that was acknowledged.
    copies: Vec<String>,
    /// Who is getting a copy.
    filling: Option<Vec<String>>,
    /// To whom it goes as soon as that one has everything.
    moving: Option<String>,
    /// How many copies of living nodes it lacks.
    missing: u64,
    /// Its owner lives and is the process it was assigned to.
    owned: bool,
}

/// A node is to give up what it has, or to take part again.
#[derive(Serialize, ToSchema)]
pub(super) struct DrainOrder {
    /// Its name or id.
    #[schema(example = "node-7400")]
    node: String,
    /// It is to take part again.
    undo: Option<bool>,
}

/// A shard is to go to a node and stay there.
#[derive(Serialize, ToSchema)]
pub(super) struct MoveOrder {
    shard: u16,
    /// The node's name or id.
    #[schema(example = "node-7400")]
    to: String,
}

/// A node is gone for good.
#[derive(Serialize, ToSchema)]
pub(super) struct RemoveOrder {
    /// Its name or id.
    #[schema(example = "node-7400")]
    node: String,
    /// Also if only it has some shards: they then begin empty, and everybody who watches one of their objects is told to fetch.
    force: Option<bool>,
}

/// So many copies should a shard have, its owner's among them.
#[derive(Serialize, ToSchema)]
pub(super) struct CopiesOrder {
    /// 1 to 3.
    #[schema(example = 2)]
    copies: u8,
}

/// What a node has left.
#[derive(Serialize, ToSchema)]
pub(super) struct NodeLeft {
    node: String,
    id: String,
    draining: bool,
    owned: u64,
    copies: u64,
    filling: u64,
}

/// Where a shard is, and where it goes.
#[derive(Serialize, ToSchema)]
pub(super) struct ShardMoved {
    shard: u16,
    owner: String,
    to: String,
    /// It is there.
    done: bool,
}

/// How far a removal has come.
#[derive(Serialize, ToSchema)]
pub(super) struct NodeRemoved {
    node: String,
    id: String,
    removed: bool,
    /// Shards that still name it.
    shards: u64,
}

/// How many copies there should be, and how many shards lack some.
#[derive(Serialize, ToSchema)]
pub(super) struct CopiesWanted {
    copies: u8,
    short: u64,
}

/// In place of a token, for an EventSource.
#[derive(Serialize, ToSchema)]
pub(super) struct Ticket {
    ticket: String,
    #[schema(example = 60_000)]
    open_within_ms: u64,
}

/// Which tokens count no more: one of `subject`, `token` and `everybody`.
#[derive(Serialize, ToSchema)]
pub(super) struct Revocation {
    subject: Option<String>,
    /// The token's `jti`.
    token: Option<String>,
    everybody: Option<bool>,
    /// Of this issuer only.
    issuer: Option<String>,
    /// Tokens issued up to then, in seconds since the Unix epoch; now if not said.
    issued_to: Option<u64>,
}

/// What a subject's connections and sessions are to watch, or to watch no more.
#[derive(Serialize, ToSchema)]
pub(super) struct SubjectObjects {
    subject: String,
    /// Who vouches for the subject; whoever does, if not said.
    issuer: Option<String>,
    /// At most 10,000.
    objects: Vec<String>,
}

/// Ends a subject's connections and sessions.
#[derive(Serialize, ToSchema)]
pub(super) struct SubjectDisconnect {
    subject: String,
    /// Who vouches for the subject; whoever does, if not said.
    issuer: Option<String>,
    /// Their clients are asked to come back (4007) instead of told to stop (4506).
    come_back: Option<bool>,
}

/// What was done with a subject's connections: in all, and on each node.
#[derive(Serialize, ToSchema)]
pub(super) struct SubjectDone {
    /// Every node answered, and no connection was too busy.
    complete: bool,
    connections: u64,
    sessions: u64,
    objects: u64,
    refused: u64,
    busy: u64,
    nodes: Vec<SubjectOnNode>,
}

/// What was done on one node.
#[derive(Serialize, ToSchema)]
pub(super) struct SubjectOnNode {
    node: String,
    /// WebSockets and event streams that it was done with.
    connections: Option<u64>,
    /// Sessions of long-polls that it was done with.
    sessions: Option<u64>,
    /// Objects, counted for each connection and session.
    objects: Option<u64>,
    /// Objects that are not granted to them, counted likewise.
    refused: Option<u64>,
    /// Connections that were busy with requests of their own for too long: nothing was done with them.
    busy: Option<u64>,
    /// `unreached`: nothing was done there. `unknown`: it may have been.
    error: Option<String>,
}
