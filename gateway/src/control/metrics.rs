//! What the control plane counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters and gauges of one node's control plane.
#[derive(Debug, Default)]
pub struct ControlMetrics {
    /// Terms of office that were seen to begin, whoever leads.
    pub elections: Counter,
    /// Renewals of this node's lease that were granted.
    pub renewals: Counter,
    /// Renewals that were not answered in time.
    pub renewals_unanswered: Counter,
    /// Nodes that were refused, or refused us: another cluster, another secret, a version that is not spoken.
    pub refused_peers: Counter,
    /// Datagrams of gossip that were dropped.
    pub refused_datagrams: Counter,
    /// Nodes that gossip holds alive, this one among them.
    pub members: Gauge,
    /// Nodes that vote.
    pub voters: Gauge,
    /// How often the map of nodes and shards changed.
    pub map_revision: Gauge,
    /// 1 while this node leads the replicated log.
    pub is_leader: Gauge,
    /// Milliseconds for which this node may still give versions.
    pub lease_remaining_ms: Gauge,
}

impl ControlMetrics {
    /// Makes them readable.
    pub fn register(&self, registry: &mut Registry) {
        let counters = [
            (
                "control_elections",
                "Leaders of the cluster's log that were seen",
                &self.elections,
            ),
            (
                "control_renewals",
                "Renewals of this node's lease that were granted",
                &self.renewals,
            ),
            (
                "control_renewals_unanswered",
                "Renewals of this node's lease that were not answered in time",
                &self.renewals_unanswered,
            ),
            (
                "control_refused_peers",
                "Nodes that were refused: another cluster, secret or version",
                &self.refused_peers,
            ),
            (
                "control_refused_datagrams",
                "Datagrams of gossip that were dropped",
                &self.refused_datagrams,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let gauges = [
            (
                "control_members",
                "Nodes held alive, this one among them",
                &self.members,
            ),
            ("control_voters", "Nodes that vote in the cluster's log", &self.voters),
            (
                "control_map_revision",
                "Changes of the map of nodes and shards",
                &self.map_revision,
            ),
            (
                "control_is_leader",
                "1 while this node leads the cluster's log",
                &self.is_leader,
            ),
            (
                "control_lease_remaining_ms",
                "Milliseconds for which this node may give versions",
                &self.lease_remaining_ms,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }
}
