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
    /// What edges asked for or claimed that only nodes which own or vote may.
    pub refused_roles: Counter,
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
    /// The term of office of the log.
    pub term: Gauge,
    /// Entries of the log that were agreed and are applied here.
    pub applied: Gauge,
    /// Times this node held another one suspect.
    pub suspicions: Counter,
    /// Times this node spoke up because others held it suspect.
    pub refutations: Counter,
    /// Times this process stood still for so long that it did not count what it had not heard meanwhile.
    pub stalls: Counter,
    /// Bytes of datagrams of gossip that were sent.
    pub gossip_sent: Counter,
    /// Bytes of datagrams of gossip that came.
    pub gossip_came: Counter,
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
                "control_refused_roles",
                "What edges asked for or claimed that only nodes which own or vote may",
                &self.refused_roles,
            ),
            (
                "control_refused_datagrams",
                "Datagrams of gossip that were dropped",
                &self.refused_datagrams,
            ),
            (
                "control_suspicions",
                "Times this node held another one suspect",
                &self.suspicions,
            ),
            (
                "control_refutations",
                "Times this node spoke up because others held it suspect",
                &self.refutations,
            ),
            (
                "control_stalls",
                "Times this process stood still for longer than gossip bears",
                &self.stalls,
            ),
            (
                "control_gossip_sent_bytes",
                "Bytes of datagrams of gossip that were sent",
                &self.gossip_sent,
            ),
            (
                "control_gossip_received_bytes",
                "Bytes of datagrams of gossip that came",
                &self.gossip_came,
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
            ("control_term", "The term of office of the cluster's log", &self.term),
            (
                "control_applied_entries",
                "Entries of the cluster's log that were agreed and are applied here",
                &self.applied,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }
}
