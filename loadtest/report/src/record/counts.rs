//! What can be counted in a load test, each with its name, what it means, and whether more of it is good.
//!
//! The names are those of thresholds, of the JSON and of the tables. What one scenario alone counts goes into `extra`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which way a figure should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Neither is better in itself.
    Neither,
}

macro_rules! counts {
    ($($name:ident: $title:literal, $better:ident, $doc:literal;)*) => {
        /// Counters of one interval, one process, or one run.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Counts {
            $(
                #[doc = $doc]
                #[serde(skip_serializing_if = "is_zero")]
                pub $name: u64,
            )*
            /// What only one scenario or one system counts, e.g. `close.4008`.
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            pub extra: BTreeMap<String, u64>,
        }

        impl Counts {
            /// Every counter that has a field: name, title, meaning, and which way it should go.
            pub const KNOWN: &'static [Counter] = &[
                $(Counter { name: stringify!($name), title: $title, meaning: $doc, better: Better::$better },)*
            ];

            /// Adds every counter of `other`.
            pub fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.saturating_add(other.$name);)*
                for (name, n) in &other.extra {
                    let sum = self.extra.entry(name.clone()).or_default();
                    *sum = sum.saturating_add(*n);
                }
            }

            /// A counter by its name; `None` if there is none of that name.
            #[must_use]
            pub fn get(&self, name: &str) -> Option<u64> {
                match name {
                    $(stringify!($name) => Some(self.$name),)*
                    _ => self.extra.get(name).copied(),
                }
            }
        }
    };
}

/// What there is to say about one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// As in thresholds and JSON.
    pub name: &'static str,
    /// As in a table.
    pub title: &'static str,
    /// One sentence.
    pub meaning: &'static str,
    /// Which way it should go.
    pub better: Better,
}

counts! {
    intended: "Changes due", Neither, "Changes that the plan wanted published by now.";
    published: "Published", Higher, "Changes whose publish was acknowledged.";
    publish_failed: "Publishes refused", Lower, "Changes whose publish was surely not applied.";
    publish_unknown: "Publishes in doubt", Lower, "Changes whose publish was never answered: applied or not.";
    publish_retried: "Publishes retried", Lower, "Publishes that were sent again.";
    late_sends: "Sent late", Lower, "Publishes that the generator itself sent later than its tolerance after they were due.";
    expected: "Deliveries due", Neither, "Deliveries due by what was published and who listened, as far as the scenario can tell.";
    delivered: "Delivered", Higher, "Notices of a change that subscribers received.";
    coalesced: "Coalesced", Neither, "Versions that were never told because a newer one of the same object was.";
    lost: "Lost", Lower, "Changes due to a subscriber that it was told neither of, nor of a newer version, nor to resync.";
    duplicates: "Repeated", Lower, "Notices of a version that the subscriber had been told before.";
    went_back: "Went back", Lower, "Notices of a version older than one that the subscriber had been told of the same object.";
    phantoms: "Phantoms", Lower, "Notices of a version that nobody published.";
    resyncs: "Resyncs", Lower, "Messages that told a subscriber to fetch objects anew.";
    resynced_objects: "Objects resynced", Lower, "Objects named by those messages.";
    connects: "Connects", Neither, "Connections made, the first ones and later ones.";
    connects_failed: "Connects failed", Lower, "Attempts to connect that failed.";
    disconnects: "Disconnects", Lower, "Connections that ended before the plan wanted it.";
    reconnects: "Reconnects", Neither, "Connections made in place of one that had ended.";
    subscribes: "Subscriptions", Neither, "Objects that a server confirmed a subscription of.";
    errors: "Errors", Lower, "Whatever else went wrong, as the warnings tell.";
    bytes_received: "Bytes received", Lower, "Bytes that subscribers received.";
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}
