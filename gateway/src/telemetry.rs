//! What the server counts and logs.
//!
//! Handles are held in structs and never looked up on the way of a request. There are no labels per object, address or
//! client: every label set is a small enum.

use crate::config::{self, Config};
use crate::release;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::fmt::Write as _;
use std::sync::Mutex;

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident = $key:literal;)*) => {
        /// A bound whose refusals are counted. Each is named like its configuration key.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Limit { $($(#[$doc])* $name,)* }

        impl Limit {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name in metrics and messages: the key inside `[limits]`.
            #[must_use]
            pub fn name(self) -> &'static str { match self { $(Self::$name => $key,)* } }
        }
    };
}

limits! {
    /// A connection that sent nothing.
    FirstByte = "first_byte_ms";
    /// Headers that took too long.
    Head = "head_ms";
    /// A connection at rest for too long.
    Idle = "idle_ms";
    /// A body that paused for too long.
    BodyIdle = "body_idle_ms";
    /// A reader that took nothing.
    WriteStall = "write_stall_ms";
    /// Headers too large.
    HeaderBytes = "header_bytes";
    /// A target too long.
    UrlBytes = "url_bytes";
    /// A publish too large.
    PublishBodyBytes = "publish_body_bytes";
    /// Too many changes in one publish.
    PublishChanges = "publish_changes";
    /// A line too long.
    PublishLineBytes = "publish_line_bytes";
    /// A publish that was not answered in time.
    PublishTimeout = "publish_timeout_ms";
    /// An owner's queue that stayed full.
    OwnerQueue = "owner_queue";
    /// Too much under way to the owner on another node.
    ForwardBytes = "forward_bytes";
    /// A frame from a client too large.
    ClientFrameBytes = "client_frame_bytes";
    /// Too many objects.
    ObjectsPerConnection = "objects_per_connection";
    /// Too many subscriptions in all.
    Subscriptions = "subscriptions";
    /// Too many WebSockets that have yet to say who they are.
    Unauthenticated = "unauthenticated";
    /// A WebSocket that did not say who it is in time.
    Auth = "auth_ms";
    /// Too many connections of one subject.
    ConnectionsPerSubject = "connections_per_subject";
    /// A handshake of TLS that took too long.
    TlsHandshake = "tls_handshake_ms";
    /// Too many connections.
    Connections = "connections";
    /// Too many connections from one address.
    ConnectionsPerAddress = "connections_per_address";
    /// Connections from one address that came too fast.
    ConnectionsPerAddressPerS = "connections_per_address_per_s";
    /// Connections that came too fast, all together.
    ConnectionsPerS = "connections_per_s";
    /// A connection that is as old as it may become.
    ConnectionLifetime = "connection_lifetime_ms";
    /// Requests of a WebSocket that came too fast and were taken later.
    MessagesPerS = "messages_per_s";
    /// Objects that a WebSocket subscribed to too fast, taken later.
    SubscribesPerS = "subscribes_per_s";
    /// Too many sessions.
    Sessions = "sessions";
    /// A poll's body too large.
    PollBodyBytes = "poll_body_bytes";
    /// A poll that asked to wait too long.
    PollWait = "poll_wait_ms_max";
    /// No pong in time.
    Pong = "pong_ms";
    /// A subscriber's socket that took nothing.
    Stuck = "stuck_ms";
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    commit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameLabels {
    name: &'static str,
}

/// Which way a request was refused at the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GateRefusal {
    /// Its `Host` is not ours.
    Host,
    /// Its `Origin` is foreign.
    Origin,
    /// Its framing is ambiguous or it has no `Host`.
    Malformed,
    /// A proxy did not begin as the PROXY protocol asks.
    Proxy,
}

impl EncodeLabelValue for GateRefusal {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Malformed => "malformed",
            Self::Proxy => "proxy",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GateLabels {
    reason: GateRefusal,
}

/// Everything the gateway counts. Lanes register their own beside it with [`Metrics::register`].
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    limits: Family<NameLabels, Gauge>,
    refused: Family<LimitLabels, Counter>,
    gate: Family<GateLabels, Counter>,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections open now, upgraded ones included.
    pub open: Gauge,
    /// Failures of `accept`.
    pub accept_errors: Counter,
    /// HTTP requests begun.
    pub requests: Counter,
    /// Changes that got a version.
    pub published: Counter,
    /// Changes that had happened already.
    pub duplicates: Counter,
    /// Changes refused before an owner saw them.
    pub rejected: Counter,
    /// What was asked for by somebody to whom it is not granted.
    pub forbidden: Counter,
    /// Publishes whose outcome is unknown.
    pub outcome_unknown: Counter,
    /// Publishes refused because the disk fails.
    pub storage_refused: Counter,
    /// Times that subscribers were sent to other nodes because this one was cut off.
    pub sent_away: Counter,
    /// Commands that an owner handled before it passed its answers on.
    pub owner_burst: Histogram,
}

impl Metrics {
    /// All counters at zero and the configured limits.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut registry = Registry::with_prefix("tidings");
        let limit = Family::<NameLabels, Gauge>::default();
        registry.register(
            "limit",
            "Configured bounds, named like their keys in [limits]",
            limit.clone(),
        );
        let build = Family::<BuildLabels, Gauge>::default();
        let (version, commit) = (release::VERSION, release::commit());
        build.get_or_create(&BuildLabels { version, commit }).set(1);
        registry.register(
            "build_info",
            "1, with the version and the commit of this program",
            build,
        );
        let refused = Family::<LimitLabels, Counter>::default();
        for limit in Limit::ALL {
            drop(refused.get_or_create(&LimitLabels { limit: limit.name() }));
        }
        let new = Self {
            limits: limit,
            refused,
            gate: Family::default(),
            accepted: Counter::default(),
            open: Gauge::default(),
            accept_errors: Counter::default(),
            requests: Counter::default(),
            published: Counter::default(),
            duplicates: Counter::default(),
            rejected: Counter::default(),
            forbidden: Counter::default(),
            outcome_unknown: Counter::default(),
            storage_refused: Counter::default(),
            sent_away: Counter::default(),
            owner_burst: Histogram::new(exponential_buckets(1.0, 4.0, 8)),
            registry: Mutex::new(Registry::default()),
        };
        for reason in [GateRefusal::Host, GateRefusal::Origin, GateRefusal::Malformed] {
            drop(new.gate.get_or_create(&GateLabels { reason }));
        }
        registry.register(
            "refused",
            "Refusals, by the bound that was reached",
            new.refused.clone(),
        );
        registry.register(
            "gate_refused",
            "Requests refused for their Host, Origin or form",
            new.gate.clone(),
        );
        registry.register(
            "forbidden",
            "What was asked for by somebody to whom it is not granted",
            new.forbidden.clone(),
        );
        registry.register("connections_accepted", "Connections accepted", new.accepted.clone());
        registry.register("connections_open", "Connections open now", new.open.clone());
        registry.register(
            "accept_errors",
            "Failures to accept a connection",
            new.accept_errors.clone(),
        );
        registry.register("http_requests", "HTTP requests begun", new.requests.clone());
        registry.register("changes_published", "Changes that got a version", new.published.clone());
        registry.register(
            "changes_duplicate",
            "Changes that had happened already",
            new.duplicates.clone(),
        );
        registry.register(
            "changes_rejected",
            "Changes refused before an owner saw them",
            new.rejected.clone(),
        );
        registry.register(
            "publish_outcome_unknown",
            "Publishes whose outcome is unknown",
            new.outcome_unknown.clone(),
        );
        registry.register(
            "storage_refused",
            "Batches of changes refused because the disk fails",
            new.storage_refused.clone(),
        );
        registry.register(
            "cut_off_sent_away",
            "Times that subscribers were sent to other nodes because this one was cut off",
            new.sent_away.clone(),
        );
        registry.register(
            "owner_burst",
            "Commands an owner handled at one go",
            new.owner_burst.clone(),
        );
        let new = Self {
            registry: Mutex::new(registry),
            ..new
        };
        new.configured(config);
        new
    }

    /// Exports the configured bounds.
    pub fn configured(&self, config: &Config) {
        for key in config::KEYS.iter().filter(|key| key.section == "limits") {
            if let Some(value) = config::integer(config, key) {
                let limit = self.limits.get_or_create(&NameLabels { name: key.name });
                limit.set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
    }

    /// Exports a bound that was worked out at the start.
    pub fn limit(&self, limit: Limit, value: u64) {
        self.limits
            .get_or_create(&NameLabels { name: limit.name() })
            .set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// Counts one refusal.
    pub fn refused(&self, limit: Limit) {
        self.refused.get_or_create(&LimitLabels { limit: limit.name() }).inc();
    }

    /// Refusals so far, by the bound that was reached.
    pub fn refusals(&self) -> impl Iterator<Item = (Limit, u64)> {
        let count = |limit: Limit| self.refused.get_or_create(&LimitLabels { limit: limit.name() }).get();
        Limit::ALL.iter().map(move |limit| (*limit, count(*limit)))
    }

    /// Counts one refusal at the gate.
    pub fn gate_refused(&self, reason: GateRefusal) {
        self.gate.get_or_create(&GateLabels { reason }).inc();
    }

    /// Adds metrics of another room.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    /// Everything in the OpenMetrics text format, with `more` and `histograms` appended before its end mark.
    #[must_use]
    pub fn encode(&self, more: &[Sample], histograms: &str) -> String {
        let mut text = String::with_capacity(8192);
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Writing to a String does not fail.
        _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        drop(registry);
        let end = text.strip_suffix("# EOF\n").map_or(text.len(), str::len);
        text.truncate(end);
        let mut last = "";
        for sample in more {
            if sample.name != last {
                _ = writeln!(
                    text,
                    "# HELP tidings_{} {}.\n# TYPE tidings_{} {}",
                    sample.name,
                    sample.help,
                    sample.name,
                    sample.kind.word()
                );
                last = sample.name;
            }
            _ = write!(
                text,
                "tidings_{}{}{{thread=\"{}\"",
                sample.name,
                sample.kind.suffix(),
                sample.thread
            );
            if let Some(cause) = sample.cause {
                _ = write!(text, ",cause=\"{cause}\"");
            }
            _ = writeln!(text, "}} {}", sample.value);
        }
        text.push_str(histograms);
        text.push_str("# EOF\n");
        text
    }
}

/// One number of one thread, gathered when somebody asks.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Without the prefix `tidings_`.
    pub name: &'static str,
    /// One sentence without its full stop.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: SampleKind,
    /// Whose it is.
    pub thread: usize,
    /// Why it was counted, where that is told apart.
    pub cause: Option<&'static str>,
    /// The number.
    pub value: u64,
}

/// Whether a number only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleKind {
    /// It only grows.
    Counter,
    /// It goes both ways.
    Gauge,
}

impl SampleKind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }

    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Gauge => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counted_limit_is_a_configured_limit() {
        for limit in Limit::ALL {
            let path = format!("limits.{}", limit.name());
            assert!(config::KEYS.iter().any(|key| key.path == path), "{path}");
        }
    }

    #[test]
    fn limits_and_refusals_are_exported() {
        let metrics = Metrics::new(&Config::default());
        metrics.refused(Limit::Head);
        let more = Sample {
            name: "x",
            help: "An x",
            kind: SampleKind::Counter,
            thread: 1,
            cause: Some("y"),
            value: 7,
        };
        let text = metrics.encode(&[more], "");
        assert!(text.contains("tidings_limit{name=\"head_ms\"} 5000\n"), "{text}");
        assert!(text.contains("tidings_refused_total{limit=\"head_ms\"} 1\n"), "{text}");
        assert!(text.contains("tidings_refused_total{limit=\"idle_ms\"} 0\n"), "{text}");
        assert!(
            text.ends_with("tidings_x_total{thread=\"1\",cause=\"y\"} 7\n# EOF\n"),
            "{text}"
        );
        assert_eq!(text.matches("# EOF").count(), 1);
    }
}
