//! What is counted of who is let in. Labels are words of fixed lists, never a name.

use super::Denial;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// See the module.
#[derive(Debug, Default)]
pub struct AuthMetrics {
    /// Credentials that were believed.
    pub accepted: Counter,
    denied: Family<Reason, Counter>,
    /// Revocations in force.
    pub revocations: Gauge,
    /// Policies read again.
    pub reloads: Counter,
    /// 1 while nobody new is let in because nothing is heard of revocations.
    pub cut_off: Gauge,
    /// Connections ended because their token was revoked.
    pub ended_revoked: Counter,
    /// Connections ended because their token had expired.
    pub ended_expired: Counter,
    /// Subscriptions ended because a token no longer granted them.
    pub withdrawn: Counter,
    /// Connections that have yet to say who they are.
    pub unauthenticated: Gauge,
}

impl AuthMetrics {
    /// A credential was not believed.
    pub(super) fn denied(&self, denial: Denial) {
        self.denied.get_or_create(&Reason { reason: denial.word() }).inc();
    }

    /// Shows them.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("auth");
        registry.register("accepted", "Credentials that were believed", self.accepted.clone());
        registry.register(
            "denied",
            "Credentials that were not believed, by reason",
            self.denied.clone(),
        );
        registry.register("revocations", "Revocations in force", self.revocations.clone());
        registry.register("reloads", "Times the policy was read again", self.reloads.clone());
        registry.register(
            "cut_off",
            "1 while nobody new is let in because nothing is heard of revocations",
            self.cut_off.clone(),
        );
        registry.register(
            "ended_revoked",
            "Connections ended because their token was revoked",
            self.ended_revoked.clone(),
        );
        registry.register(
            "ended_expired",
            "Connections ended because their token had expired",
            self.ended_expired.clone(),
        );
        registry.register(
            "withdrawn",
            "Subscriptions ended because a token no longer granted them",
            self.withdrawn.clone(),
        );
        registry.register(
            "unauthenticated",
            "Connections that have yet to say who they are",
            self.unauthenticated.clone(),
        );
    }
}
