//! A line of the time line as a sentence.

use super::{Event, Kind};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::recent) enum Weight {
    /// As it should be.
    Good,
    /// To be known.
    Plain,
    /// To be looked at.
    Warning,
    /// Somebody is hurt.
    Bad,
}

impl Event {
    pub(in crate::recent) fn weight(&self) -> Weight {
        match self.kind {
            Kind::Silent | Kind::NoLeader | Kind::LeaseLost | Kind::Lost => Weight::Bad,
            Kind::Removed | Kind::DrainBegan | Kind::CopyGone | Kind::FloorRaised | Kind::TakenOver => Weight::Warning,
            Kind::Back | Kind::LeaseBack | Kind::Joined | Kind::CopyReady | Kind::Kept => Weight::Good,
            Kind::Started
            | Kind::Restarted
            | Kind::DrainEnded
            | Kind::Leads
            | Kind::VoterAdded
            | Kind::VoterRemoved
            | Kind::Assigned
            | Kind::Moved
            | Kind::MovePlanned
            | Kind::Copying => Weight::Plain,
        }
    }

    /// What happened, in words.
    pub(in crate::recent) fn says(&self) -> String {
        let node = self.node.as_deref().unwrap_or("nobody");
        let other = self.other.as_deref().unwrap_or("nobody");
        let shards = match self.count {
            1 => "1 shard".to_owned(),
            count => format!("{count} shards"),
        };
        let times = match self.count {
            1 => String::new(),
            count => format!(", {count} times"),
        };
        match self.kind {
            Kind::Started => format!("{node} started; what it remembers begins here"),
            Kind::Joined => format!("{node} is part of the cluster"),
            Kind::Removed => format!("{node} is no longer part of the cluster"),
            Kind::Silent => format!("{node} does not answer{times}"),
            Kind::Back => format!("{node} answers again{times}"),
            Kind::Restarted => format!("{node} started again"),
            Kind::DrainBegan => format!("{node} gives up its shards"),
            Kind::DrainEnded => format!("{node} takes shards again"),
            Kind::Leads => format!("{node} leads the control plane"),
            Kind::NoLeader => "nobody leads the control plane".to_owned(),
            Kind::VoterAdded => format!("{node} votes"),
            Kind::VoterRemoved => format!("{node} votes no longer"),
            Kind::LeaseLost => format!("{node} may not give versions: its lease ran out{times}"),
            Kind::LeaseBack => format!("{node} may give versions now: its lease holds{times}"),
            Kind::Assigned => format!("{node} got {shards} that had no owner"),
            Kind::TakenOver => format!("{node} took over {shards} of {other}, from copies: nothing is lost"),
            Kind::Lost if self.node == self.other => {
                format!("{node} took {shards} anew without what it knew of them: their subscribers fetch again")
            }
            Kind::Lost => format!("{node} took over {shards} of {other} without a copy: their subscribers fetch again"),
            Kind::Kept => format!("{node} is back with its disk and goes on with {shards}"),
            Kind::Moved => format!("{other} handed {shards} over to {node}"),
            Kind::MovePlanned => format!("{other} is to hand {shards} over to {node}"),
            Kind::Copying => format!("{node} is being given copies of {shards}"),
            Kind::CopyReady => format!("{node} has copies of {shards}"),
            Kind::CopyGone => format!("{node} no longer counts as a copy of {shards}"),
            Kind::FloorRaised => format!("{node} cannot vouch for old versions of {shards} any more"),
        }
    }
}
