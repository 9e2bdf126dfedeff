//! The keys themselves. One table makes the structs, the defaults, the documents, the variables and the flags.

use super::ConfigError;
use super::checks::address;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The type of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number, not negative.
    Integer,
    /// `true` or `false`.
    Switch,
    /// Text.
    Text,
    /// Several texts; in a variable or flag separated by commas.
    List,
}

impl Kind {
    /// How messages call it.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            Self::Integer => "a whole number",
            Self::Switch => "true or false",
            Self::Text => "text",
            Self::List => "a list separated by commas",
        }
    }
}

/// One key with its document.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `section.key`.
    pub path: &'static str,
    /// Its section.
    pub section: &'static str,
    /// Its name inside the section.
    pub name: &'static str,
    /// Lines of meaning, unit and cost.
    pub docs: &'static [&'static str],
    /// Its type.
    pub kind: Kind,
}

impl Key {
    /// What a number under it counts; empty for what is no number.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        if self.kind != Kind::Integer {
            return "";
        }
        let name = self.name.trim_end_matches("_max");
        let units = [
            ("_per_s", "a second"),
            ("_ms", "milliseconds"),
            ("_s", "seconds"),
            ("_bytes", "bytes"),
        ];
        let of_name = units.iter().find(|(suffix, _)| name.ends_with(suffix));
        of_name.map_or("count", |(_, unit)| unit)
    }

    /// Whether a changed value counts after a reload. Others need a restart.
    #[must_use]
    pub fn counts_at_reload(&self) -> bool {
        AT_RELOAD.contains(&self.path)
    }
}

trait Typed {
    const KIND: Kind;
}
impl Typed for u64 {
    const KIND: Kind = Kind::Integer;
}
impl Typed for bool {
    const KIND: Kind = Kind::Switch;
}
impl Typed for String {
    const KIND: Kind = Kind::Text;
}
impl Typed for Vec<String> {
    const KIND: Kind = Kind::List;
}

macro_rules! sections {
    ($($(#[doc = $about:literal])* $section:ident: $Section:ident {
        $($(#[doc = $doc:literal])* $key:ident: $Type:ty = $default:expr;)*
    })*) => {
        /// The whole configuration.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Config { $($(#[doc = $about])* pub $section: $Section,)* }

        $(
            $(#[doc = $about])*
            #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
            #[serde(default, deny_unknown_fields)]
            pub struct $Section { $($(#[doc = $doc])* pub $key: $Type,)* }

            impl Default for $Section {
                fn default() -> Self { Self { $($key: $default,)* } }
            }
        )*

        /// Every key, in the order of the documents.
        pub const KEYS: &[Key] = &[$($(Key {
            path: concat!(stringify!($section), ".", stringify!($key)),
            section: stringify!($section),
            name: stringify!($key),
            docs: &[$($doc),*],
            kind: <$Type as Typed>::KIND,
        },)*)*];

        pub(super) const SECTIONS: &[(&str, &[&str])] = &[$((stringify!($section), &[$($about),*]),)*];
    };
}

/// Keys whose new values count after a reload, because whoever uses them asks [`crate::Node::live`] each time.
pub(super) const AT_RELOAD: &[&str] = &[
    "server.tls_cert_file",
    "server.tls_key_file",
    "auth.policy_file",
    "limits.first_byte_ms",
    "limits.head_ms",
    "limits.idle_ms",
    "limits.body_idle_ms",
    "limits.write_stall_ms",
    "limits.publish_body_bytes",
    "limits.publish_changes",
    "limits.publish_line_bytes",
    "limits.publish_timeout_ms",
    "limits.publish_timeout_ms_max",
    "limits.client_frame_bytes",
    "limits.unauthenticated",
    "limits.auth_ms",
    "limits.connections_per_subject",
    "limits.tls_handshake_ms",
    "limits.connections",
    "limits.connections_per_address",
    "limits.poll_wait_ms_max",
    "limits.poll_body_bytes",
    "limits.send_buffer_bytes",
    "limits.notsent_lowat_bytes",
    "drain.deadline_ms",
    "drain.spread_ms",
    "drain.leave_ms",
    "log.filter",
    "log.lines_per_second",
];

sections! {
    /// What must be equal on all nodes of a cluster, but for `join`.
    cluster: Cluster {
        /// What the cluster is called. Nodes of another name, or with another secret, are strangers.
        name: String = "tidings".to_owned();
        /// Nodes of the cluster, `host:port` of their `node_listen`, to find the others by; a name may resolve to many addresses,
        /// and `@FILE` names a file with one of them a line. Some may be dead or this node itself. Empty, with `expect` 1: a
        /// node that is alone.
        join: Vec<String> = Vec::new();
        /// How many nodes form a new cluster together, and vote in it: 3 or 5; 1 for a node that is alone or joins a cluster that
        /// is there. Until so many have agreed nobody is served.
        expect: u64 = 1;
        /// The secret by which the nodes of a cluster know each other, at least 32 characters. Better in a file.
        secret: String = String::new();
        /// A file with the secret, or with two while it is changed, a line each: the first is used, both are accepted. Read again
        /// by `POST /v1/reload`. For edges: what `tidings cluster edge-secret` prints.
        secret_file: String = String::new();
        /// Milliseconds for which an owner of shards may go on without hearing from the control plane. Longer bears longer
        /// elections and pauses; shorter heals sooner. From 500 to 60000.
        lease_ms: u64 = 2_000;
        /// Into how many slices the hash space is cut: a power of two from 1 to 4096. Fixed when a cluster is created. More
        /// shards spread load more finely and cost a little memory each.
        shards: u64 = 256;
        /// Copies of each shard, its owner's among them: 1 to 3. Counts when a cluster is formed; `tidings cluster copies` changes it
        /// later. More bear the loss of more nodes; each costs the memory and the writing of one more.
        copies: u64 = 2;
        /// Shards on their way to another owner at one time: 0 to 256. More empties a node sooner and costs more at once; with 0
        /// shards stay where they are, also on a node that drains.
        moves: u64 = 16;
        /// Copies that one node fills at one time: 1 to 64. More brings copies back sooner and costs more at once.
        fills: u64 = 16;
        /// Milliseconds after which a voter that does not answer is replaced by another node: 5000 to 86400000. Shorter than a
        /// restart takes, a restart costs a vote.
        replace_voter_ms: u64 = 60_000;
        /// Milliseconds after which a node that is not there and holds nothing is forgotten: 10000 to 2592000000 (30 days).
        forget_node_ms: u64 = 3_600_000;
        /// Milliseconds for which an `Idempotency-Key` is remembered. Longer costs 40 bytes for each keyed change in that time.
        idempotency_window_ms: u64 = 300_000;
    }
    /// This node's place: where it listens and what it is called.
    server: Server {
        /// Address and port for clients, publishers and operators.
        listen: String = "127.0.0.1:7400".to_owned();
        /// Address and port for operators: `/metrics`, `/v1/cluster`, `/v1/connections` and the like, which `listen` then has no
        /// more. Empty: on `listen`.
        admin_listen: String = String::new();
        /// Certificate chain in PEM. With it and `tls_key_file`, `listen` speaks TLS only. Read again at `SIGHUP` and
        /// `POST /v1/reload`.
        tls_cert_file: String = String::new();
        /// The certificate's private key in PEM.
        tls_key_file: String = String::new();
        /// Address and port for other nodes, TCP and UDP. Not used by a node that is alone.
        node_listen: String = "127.0.0.1:7401".to_owned();
        /// Where other nodes reach this one, `host:port`. Empty: `node_listen`.
        node_advertise: String = String::new();
        /// Where clients reach this node, the base of a URL: others send clients there. Empty: `http://` and `listen`.
        client_url: String = String::new();
        /// What this node does in a cluster: `edge` (holds subscribers), `owner` (owns shards), `voter` (may vote).
        roles: Vec<String> = ["edge", "owner", "voter"].map(str::to_owned).to_vec();
        /// Where this node stands: things that fail together. Copies are spread over zones.
        zone: String = String::new();
        /// Folder for what outlives the process: versions and the secret under which IDs are hashed. `none`: everything is kept
        /// in memory only, and a restart tells every subscriber to fetch again.
        data_dir: String = "tidings-data".to_owned();
        /// The node's name in answers and metrics. Empty: `node-` and the port.
        name: String = String::new();
        /// Threads that serve; each has its share of connections, subscribers and shards. 0: as many as there are cores.
        threads: u64 = 0;
        /// Listen beyond loopback although nobody has to authenticate. Everyone who reaches the port may publish and listen.
        insecure: bool = false;
        /// Names this server answers to in `Host` beside `localhost`, loopback addresses and `listen`: `name` (any port)
        /// or `name:port`.
        allowed_hosts: Vec<String> = Vec::new();
        /// Proxies in front of this node, addresses or networks (`10.0.0.0/8`): whom they say they saw counts for limits and is
        /// shown. Nobody else is believed.
        trusted_proxies: Vec<String> = Vec::new();
        /// Where they say it: `x-forwarded-for` or `forwarded` (RFC 7239), whichever they write themselves. The other is not read.
        forwarded_header: String = "x-forwarded-for".to_owned();
        /// Connections of theirs to `listen` begin with the PROXY protocol, version 1 or 2, before TLS.
        proxy_protocol: bool = false;
        /// Origins of web pages that may use this server, exactly as browsers send them: `https://app.example`. Pages served
        /// under this server's own host are always allowed.
        allowed_origins: Vec<String> = Vec::new();
    }
    /// Who is let in. The policy itself, with API keys and issuers of tokens, is a file of its own (`docs/security.md`).
    auth: Auth {
        /// The policy. Empty: nobody has to say who they are, and the server listens on loopback only. Read again at `SIGHUP` and
        /// `POST /v1/reload`.
        policy_file: String = String::new();
        /// Seconds by which the clocks of issuers and this node may differ. At most 30.
        leeway_s: u64 = 30;
        /// The longest life of a token, from `iat` to `exp`, in seconds. A revocation is kept about as long. Equal on all nodes.
        token_lifetime_s: u64 = 86_400;
        /// Milliseconds for which a connection lives on behind the end of its token, after it was told.
        grace_ms: u64 = 25_000;
        /// Milliseconds within which a ticket must be opened.
        ticket_ms: u64 = 60_000;
        /// A cookie that holds a token, for pages whose browser can send nothing else with a WebSocket or EventSource. It counts beside an
        /// allowed `Origin` only. Empty: no cookie is read.
        cookie: String = String::new();
        /// Milliseconds after which a node of a cluster that hears nothing from the control plane, and so of no revocation, lets
        /// nobody new in.
        cut_off_ms: u64 = 30_000;
    }
    /// Bounds. Each is exported as `tidings_limit{name="…"}`, and each refusal counts in `tidings_refused_total{limit="…"}`.
    limits: Limits {
        /// Milliseconds a new connection may stay silent. Longer lets silent strangers hold more descriptors.
        first_byte_ms: u64 = 5_000;
        /// Milliseconds from a request's first byte to the end of its headers.
        head_ms: u64 = 5_000;
        /// Milliseconds a connection may rest between two requests.
        idle_ms: u64 = 75_000;
        /// Milliseconds a request's body may pause.
        body_idle_ms: u64 = 10_000;
        /// Milliseconds an HTTP answer may make no progress because its reader takes nothing.
        write_stall_ms: u64 = 60_000;
        /// Bytes of a request's line and headers together. At least 8192.
        header_bytes: u64 = 16_384;
        /// Headers of one request.
        headers: u64 = 64;
        /// Bytes of a request's target (path and query).
        url_bytes: u64 = 4_096;
        /// Bytes of the body of one publish. A stream of lines (NDJSON) has no such limit.
        publish_body_bytes: u64 = 4_194_304;
        /// Changes in one publish that is not a stream.
        publish_changes: u64 = 10_000;
        /// Bytes of one line of an NDJSON stream. The default holds 64 KiB of data however it is escaped.
        publish_line_bytes: u64 = 401_408;
        /// Milliseconds within which a publish is answered unless it asks for another deadline.
        publish_timeout_ms: u64 = 4_000;
        /// Milliseconds that a publish may ask for at most.
        publish_timeout_ms_max: u64 = 60_000;
        /// Batches of changes that may wait for one owner. More smooths bursts and lengthens the wait of those behind.
        owner_queue: u64 = 1_024;
        /// Bytes of changes that may be under way to their owner on one other node. More bears longer roads, and costs as much
        /// memory there.
        forward_bytes: u64 = 16_777_216;
        /// Bytes of one frame from a WebSocket client.
        client_frame_bytes: u64 = 262_144;
        /// Objects one connection or session may watch.
        objects_per_connection: u64 = 1_000;
        /// Subscriptions of all connections and sessions together; each thread has its share. Each takes about 90 bytes.
        /// Beyond it sessions that wait for their next poll are forgotten first, then more objects are refused.
        subscriptions: u64 = 20_000_000;
        /// WebSockets that have yet to say who they are, together.
        unauthenticated: u64 = 2_000;
        /// Milliseconds within which a WebSocket must say who it is.
        auth_ms: u64 = 10_000;
        /// WebSockets and event streams of one subject on this node.
        connections_per_subject: u64 = 50;
        /// Milliseconds that the handshake of TLS may take.
        tls_handshake_ms: u64 = 5_000;
        /// Open connections. 0: 90 % of the descriptors the process may open.
        connections: u64 = 0;
        /// Open connections from one address (IPv6: one /64 network). Loopback is exempt.
        connections_per_address: u64 = 1_000;
        /// New connections from one address a second; behind a trusted proxy, WebSockets and event streams. 0: without limit.
        /// Loopback is exempt.
        connections_per_address_per_s: u64 = 100;
        /// New connections from one address at once, after a rest.
        connections_per_address_burst: u64 = 1_000;
        /// The same for all addresses together, a second and at once. 0: without limit.
        connections_per_s: u64 = 5_000;
        /// Milliseconds after which a WebSocket or event stream is asked to come back, a tenth more or less by chance. 0: never. Shorter
        /// spreads clients over new nodes sooner, and costs them more reconnects.
        connection_lifetime_ms: u64 = 7_200_000;
        /// Requests a second that are taken of one WebSocket; more wait, and nothing is read from it meanwhile. 0: without limit.
        messages_per_s: u64 = 100;
        /// Requests at once, after a rest.
        messages_burst: u64 = 1_000;
        /// Objects a second to which one WebSocket may subscribe; more wait likewise. 0: without limit.
        subscribes_per_s: u64 = 200;
        /// Objects at once, after a rest. At least `objects_per_connection`, so that everybody can come back with all they had.
        subscribes_burst: u64 = 1_000;
        /// Long-poll sessions kept for clients that come back.
        sessions: u64 = 100_000;
        /// Milliseconds a long-poll may ask to wait.
        poll_wait_ms_max: u64 = 60_000;
        /// Bytes of the body of a long-poll, event stream or session request.
        poll_body_bytes: u64 = 1_048_576;
        /// Milliseconds between pings to a WebSocket client; a cursor is sent at least as often.
        ping_ms: u64 = 25_000;
        /// Milliseconds a WebSocket client has to answer a ping. Suspended while output is unsent.
        pong_ms: u64 = 10_000;
        /// Milliseconds a subscriber's socket may take nothing of what is sent before it is closed.
        stuck_ms: u64 = 60_000;
        /// Bytes of one frame or block that tells a subscriber of several changes. Larger ones block slow sockets longer.
        batch_frame_bytes: u64 = 16_384;
        /// Milliseconds between cursors to a subscriber that is told of changes.
        cursor_ms: u64 = 1_000;
        /// Milliseconds for which interest in an object outlives its last subscriber. Longer spares registering again, and
        /// costs memory for objects nobody watches any more.
        linger_ms: u64 = 30_000;
        /// Objects that one thread keeps registered without a subscriber. Beyond it the longest unwatched go at once.
        lingering_objects: u64 = 1_000_000;
        /// Milliseconds without a word from the owner of an object's shard after which its subscribers on WebSockets and event streams are
        /// told that they are `stale`. Longer than a failover takes. Only in a cluster.
        stale_ms: u64 = 5000;
        /// Milliseconds that `at_least` may wait on a WebSocket or event stream for a version to arrive. A long-poll has its
        /// own wait.
        at_least_ms: u64 = 4_000;
        /// Milliseconds a long-poll session is kept after its last poll.
        session_ms: u64 = 60_000;
        /// Bytes of `kind` and `data` that one thread keeps for subscribers yet to be told. Beyond it changes come without.
        hint_bytes: u64 = 67_108_864;
        /// Bytes the kernel may buffer for one subscriber (`SO_SNDBUF`, which the kernel doubles). Larger hides stale frames.
        send_buffer_bytes: u64 = 16_384;
        /// Unsent bytes at which the kernel calls a subscriber's socket writable again (`TCP_NOTSENT_LOWAT`).
        notsent_lowat_bytes: u64 = 4_096;
    }
    /// The shards this node owns.
    owner: Owner {
        /// Bytes for versions on this node, over all its shards. Beyond it the oldest are dropped and those who ask for
        /// them are told to resync. 20 million objects take about 0.5 GB.
        version_table_bytes: u64 = 1_073_741_824;
        /// Objects whose publisher's revision is remembered on this node. A forgotten one means accepting again.
        revisions: u64 = 4_000_000;
        /// Changes with an `Idempotency-Key` remembered on this node.
        idempotency_keys: u64 = 1_000_000;
        /// Changes that may be on their way to one lane before it says that it handled them. Beyond it, they coalesce.
        link_window_changes: u64 = 16_384;
        /// Bytes of `kind` and `data` that may wait for one lane. Beyond it changes are told without.
        link_hint_bytes: u64 = 16_777_216;
        /// Bytes of what a copy lacks that may be on their way to one node before it has confirmed them. More fills a far node sooner.
        copy_window_bytes: u64 = 4_194_304;
        /// Bytes of changes that one node with copies may have unconfirmed. Beyond it no more changes are taken until it has caught up
        /// or was taken out; publishers then meet `limits.owner_queue`.
        copy_queue_bytes: u64 = 33_554_432;
        /// Milliseconds between two promises that all was sent (`Closed`), while there is traffic.
        closed_busy_ms: u64 = 50;
        /// The same without traffic.
        closed_idle_ms: u64 = 250;
    }
    /// What is kept in `server.data_dir`.
    storage: Storage {
        /// Bytes of one file of the log. Larger ones are begun less often and freed later.
        log_file_bytes: u64 = 67_108_864;
        /// Bytes to which the log may grow, or to the size of the snapshots if that is more, before snapshots replace it. More
        /// means less writing, more disk and a slower start.
        log_bytes: u64 = 67_108_864;
        /// Bytes that may wait to be written. Beyond it owners take no more changes until the disk has caught up.
        queue_bytes: u64 = 67_108_864;
    }
    /// How the server stops.
    drain: Drain {
        /// Milliseconds until it stops even if something is still open.
        deadline_ms: u64 = 10_000;
        /// Milliseconds over which subscribers are asked to come back elsewhere.
        spread_ms: u64 = 5_000;
        /// Milliseconds that a node of a cluster waits, before it stops, for others to take its shards over. 0: it does not give them
        /// up; others find out by themselves.
        leave_ms: u64 = 15_000;
        /// Milliseconds for which a node of a cluster that is cut off sends its subscribers to other nodes; then it takes whoever still
        /// comes for twice as long, and tries again. 0: it keeps them, and only says `stale`.
        cut_off_ms: u64 = 60_000;
    }
    /// What the server says about itself.
    log: Log {
        /// Which events are logged: `error`, `warn`, `info`, `debug`, `trace`, also by target as in `info,tidings=debug`.
        filter: String = "info,openraft=error".to_owned();
        /// `text` or `json`, on standard error.
        format: String = "text".to_owned();
        /// Lines of one cause (one place in the program) that are written in one second; one line a second says how many more were
        /// left out. 0: as many as come. More says more in a storm, and costs as much disk and time.
        lines_per_second: u64 = 10;
    }
}

impl Config {
    /// The address for clients.
    ///
    /// # Errors
    /// Says what is wrong with `server.listen`.
    pub fn listen(&self) -> Result<SocketAddr, ConfigError> {
        address("server.listen", &self.server.listen)
    }

    /// The address for operators, if they have one of their own.
    ///
    /// # Errors
    /// Says what is wrong with `server.admin_listen`.
    pub fn admin_listen(&self) -> Result<Option<SocketAddr>, ConfigError> {
        match self.server.admin_listen.as_str() {
            "" => Ok(None),
            text => address("server.admin_listen", text).map(Some),
        }
    }

    /// Whether callers have to say who they are.
    #[must_use]
    pub fn has_auth(&self) -> bool {
        !self.auth.policy_file.is_empty()
    }

    /// Whether `listen` speaks TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        !self.server.tls_cert_file.is_empty()
    }

    /// The folder for what outlives the process; `None` if everything is kept in memory only.
    #[must_use]
    pub fn data_dir(&self) -> Option<std::path::PathBuf> {
        let text = &self.server.data_dir;
        (!text.is_empty() && text != "none").then(|| text.into())
    }

    /// How many threads serve.
    #[must_use]
    pub fn threads(&self) -> usize {
        match self.server.threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads as usize,
        }
    }
}

/// The integer under `key`, if it is one.
#[must_use]
pub(crate) fn integer(config: &Config, key: &Key) -> Option<u64> {
    toml::Value::try_from(config)
        .ok()?
        .get(key.section)?
        .get(key.name)?
        .as_integer()?
        .try_into()
        .ok()
}
