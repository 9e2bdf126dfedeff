//! What a run is to do, as a file says it: the whole of it is plain data with defaults.
//!
//! Keys nobody knows are errors that name what is allowed. It does not know how anything is done.

mod library;
mod reading;
mod span;

pub use library::{BuiltIn, built_in, built_ins};
pub use reading::{ScenarioError, parse};
pub use span::Span;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A run: who publishes, who listens, what disturbs them, and what must come out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Its name; that of the file unless it is given.
    pub name: String,
    /// What it does and what for, in a sentence or two.
    pub about: String,
    /// How long and with how many hands.
    pub run: Run,
    /// What can change.
    pub objects: Objects,
    /// Who listens.
    pub subscribers: Subscribers,
    /// Who publishes.
    pub publishers: Publishers,
    /// Subscribers that come and go.
    pub churn: Churn,
    /// All reconnecting at once.
    pub storm: Storm,
    /// Subscribers that read slowly or not at all.
    pub slow: Slow,
    /// What happens to the server (only one that the run started itself).
    pub faults: Faults,
    /// The server that `--start-server` starts.
    pub server: Server,
    /// What must come out: a figure's name and its limit, e.g. `"latency.p99_ms" = "<= 5"`.
    pub thresholds: BTreeMap<String, toml::Value>,
}

/// How long and with how many hands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// How long the load lasts, warm-up included.
    pub duration: Span,
    /// How much of its beginning stays out of the latency figures.
    pub warm_up: Span,
    /// How long everybody may take at the end to be told the newest of everything.
    pub settle: Span,
    /// How long setting up may take without progress.
    pub patience: Span,
    /// Everything random follows from it.
    pub seed: u64,
    /// Threads in each generating process; 0: half of the cores, at least one.
    pub threads: usize,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            duration: Span::seconds(30),
            warm_up: Span::seconds(2),
            settle: Span::seconds(10),
            patience: Span::seconds(30),
            seed: 1,
            threads: 0,
        }
    }
}

/// What can change: objects named by a prefix and a number from 0 on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objects {
    /// How many there are.
    pub count: u32,
    /// What their IDs begin with; a number follows.
    pub prefix: String,
    /// Whether each is published once before anybody listens, so that the server knows them all.
    pub fill: bool,
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            count: 100_000,
            prefix: "object:".to_owned(),
            fill: false,
        }
    }
}

/// How objects are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// All alike.
    #[default]
    Uniform,
    /// Object `n` with a weight of `1 / (n + 1)^skew`.
    Zipf,
}

/// Who listens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Subscribers {
    /// How many.
    pub count: u32,
    /// Objects each of them holds.
    pub objects: u32,
    /// They choose from the first so many objects; 0: from all.
    pub among: u32,
    /// How they choose.
    pub choice: Choice,
    /// The exponent of `choice = "zipf"`.
    pub skew: f64,
    /// Which transports they use.
    pub transports: Transports,
    /// Connections being made at a time in each thread.
    pub connecting: u32,
    /// How long a subscriber waits at most before it first tries to come back; doubles up to `back_off_max`.
    pub back_off: Span,
    /// The longest such wait.
    pub back_off_max: Span,
    /// How long a long-poll waits.
    pub poll_wait: Span,
    /// How long a connection may be silent before it is given up.
    pub silence: Span,
}

impl Default for Subscribers {
    fn default() -> Self {
        Self {
            count: 100,
            objects: 10,
            among: 0,
            choice: Choice::Uniform,
            skew: 1.0,
            transports: Transports::default(),
            connecting: 256,
            back_off: Span::millis(1_000),
            back_off_max: Span::seconds(30),
            poll_wait: Span::seconds(25),
            silence: Span::seconds(60),
        }
    }
}

/// Weights of the transports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transports {
    /// WebSocket.
    pub websocket: u32,
    /// Server-Sent Events.
    pub events: u32,
    /// Long-poll.
    pub poll: u32,
}

impl Default for Transports {
    fn default() -> Self {
        Self {
            websocket: 1,
            events: 0,
            poll: 0,
        }
    }
}

/// How changes are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One change a request over kept connections.
    #[default]
    Single,
    /// `batch` changes a request.
    Batch,
    /// Lines of a request that goes on.
    Stream,
}

/// When changes are due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// At equal distances.
    Uniform,
    /// Independently of each other, as many small sources together are.
    #[default]
    Poisson,
}

/// Which acknowledgement is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// The owner has written it.
    Accepted,
    /// So have all copies.
    #[default]
    Replicated,
    /// It is on disk everywhere.
    Durable,
}

impl Ack {
    /// As the protocol writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Replicated => "replicated",
            Self::Durable => "durable",
        }
    }
}

/// Who publishes. The loop is open: what is due is due, whatever the server does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Publishers {
    /// Changes a second of all together; 0: nobody publishes.
    pub rate: f64,
    /// Publish as fast as the server takes it instead: a closed loop, whose latencies mean little.
    pub unlimited: bool,
    /// How changes are sent.
    pub mode: Mode,
    /// Changes in a request of `mode = "batch"`.
    pub batch: u32,
    /// Connections of all together.
    pub connections: u32,
    /// When changes are due.
    pub arrivals: Arrivals,
    /// The share of changes on objects that somebody watches; the others are on objects that nobody watches.
    pub watched: f64,
    /// How objects are chosen among those.
    pub choice: Choice,
    /// The exponent of `choice = "zipf"`.
    pub skew: f64,
    /// Which acknowledgement is asked for.
    pub ack: Ack,
    /// How late a change may be before the generator gives it up as never sent.
    pub give_up: Span,
    /// How long an answer may take before a publish counts as in doubt.
    pub timeout: Span,
    /// How late the generator itself may send before that counts as late.
    pub tolerance: Span,
}

impl Default for Publishers {
    fn default() -> Self {
        Self {
            rate: 100.0,
            unlimited: false,
            mode: Mode::Single,
            batch: 100,
            connections: 16,
            arrivals: Arrivals::Poisson,
            watched: 1.0,
            choice: Choice::Uniform,
            skew: 1.0,
            ack: Ack::Replicated,
            give_up: Span::seconds(5),
            timeout: Span::seconds(6),
            tolerance: Span::millis(1),
        }
    }
}

/// Subscribers that come and go, and change what they hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Churn {
    /// Subscribers a second that leave, to return with their cursors.
    pub leave_per_s: f64,
    /// How long they stay away, give or take half of it.
    pub away: Span,
    /// Objects a second that a WebSocket subscriber gives up for another.
    pub swap_per_s: f64,
}

impl Default for Churn {
    fn default() -> Self {
        Self {
            leave_per_s: 0.0,
            away: Span::seconds(2),
            swap_per_s: 0.0,
        }
    }
}

/// All reconnecting at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storm {
    /// How often; 0: never.
    pub every: Span,
    /// The share of subscribers that is cut off, all in one moment.
    pub share: f64,
    /// How long they stay away before all of them come back at once.
    pub away: Span,
}

impl Default for Storm {
    fn default() -> Self {
        Self {
            every: Span::ZERO,
            share: 1.0,
            away: Span::seconds(1),
        }
    }
}

/// Subscribers that read slowly or not at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Slow {
    /// Subscribers that stop reading for a while: the first ones.
    pub stopped: u32,
    /// When they stop, after the load began.
    pub stop_after: Span,
    /// For how long.
    pub stop_for: Span,
    /// Subscribers that read at most `bytes_per_s`: the ones after those that stop.
    pub slow: u32,
    /// How fast these read.
    pub bytes_per_s: u32,
}

impl Default for Slow {
    fn default() -> Self {
        Self {
            stopped: 0,
            stop_after: Span::seconds(5),
            stop_for: Span::seconds(10),
            slow: 0,
            bytes_per_s: 1_000,
        }
    }
}

/// Something that is done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultKind {
    /// `kill -9`, and a new start after `down`.
    Kill,
    /// Stopped by a signal and continued after `pause`.
    Pause,
    /// Asked to end, waited for, and started again.
    Restart,
}

/// What is done to the server, when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// What may be done; each time one of them is drawn. Empty: nothing.
    pub kinds: Vec<FaultKind>,
    /// When the first comes, after the load began.
    pub first: Span,
    /// How long from one to the next, give or take half of it; 0: only once.
    pub every: Span,
    /// How long a killed server stays down.
    pub down: Span,
    /// How long a paused one is paused.
    pub pause: Span,
    /// The schedule follows from it; 0: from the run's seed.
    pub seed: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            kinds: Vec::new(),
            first: Span::seconds(5),
            every: Span::ZERO,
            down: Span::millis(500),
            pause: Span::seconds(2),
            seed: 0,
        }
    }
}

/// The server that `--start-server` starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Its threads; 0: its default.
    pub threads: u32,
    /// Whether it keeps its versions in memory only.
    pub in_memory: bool,
    /// Further arguments, e.g. `["--limits.stuck_ms", "5000"]`.
    pub arguments: Vec<String>,
}

impl Scenario {
    /// The objects that subscribers choose from.
    pub(crate) fn among(&self) -> u32 {
        match self.subscribers.among {
            0 => self.objects.count,
            among => among.min(self.objects.count),
        }
    }

    /// Whether anybody publishes.
    pub(crate) fn publishes(&self) -> bool {
        self.publishers.unlimited || self.publishers.rate > 0.0
    }
}
