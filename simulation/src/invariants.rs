//! What must hold, one room each. Every room quotes its statement; numbers are those of `docs/testing.md`.
//!
//! I19, "membership may lie", has no room: hostile verdicts are among the faults of every run, and all others must hold.
//! I12, "coalescing keeps the last", is I1 for readers that stop, who are among the clients of every run.

mod ack_survives;
mod bounded_memory;
mod calls_end;
mod clocks_may_lie;
mod copies_level;
mod cursor_lag;
mod cursor_sound;
mod elections;
mod fencing;
mod handover_floor;
mod minority;
mod never_silent;
mod no_phantoms;
mod no_travel_back;
mod nothing_unasked;
mod one_loss;
mod one_version_one_change;
mod real_time_order;
mod resume_exact;
mod resync_true;
mod served_again;
mod subscribe_gap;
mod whole_again;

use crate::oracle::{Fact, History};
use crate::plan::Plan;
use crate::world::World;
use std::fmt::Debug;

/// One invariant, with what it has to remember.
pub trait Invariant: Debug {
    /// Its number.
    fn name(&self) -> &'static str;

    /// Looks at a fact that is not yet part of the history. Says what is wrong, if something is.
    fn see(&mut self, history: &History, now: u64, fact: &Fact<'_>) -> Option<String> {
        _ = (history, now, fact);
        None
    }

    /// Looks at the world, now and then and at the end. Says what is wrong, if something is.
    fn look(&mut self, history: &History, world: &World) -> Option<String> {
        _ = (history, world);
        None
    }
}

/// All of them.
#[must_use]
pub fn all(plan: &Plan) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(never_silent::NeverSilent),
        Box::new(cursor_sound::CursorSound::new(plan)),
        Box::new(real_time_order::RealTimeOrder::default()),
        Box::new(one_version_one_change::OneVersionOneChange::new(plan)),
        Box::new(no_phantoms::NoPhantoms),
        Box::new(no_travel_back::NoTravelBack),
        Box::new(fencing::Fencing::new(plan)),
        Box::new(handover_floor::HandoverFloor::new(plan)),
        Box::new(ack_survives::AckSurvives),
        Box::new(copies_level::CopiesLevel),
        Box::new(one_loss::OneLoss::new(plan)),
        Box::new(resume_exact::ResumeExact),
        Box::new(subscribe_gap::SubscribeGap),
        Box::new(resync_true::ResyncTrue),
        Box::new(nothing_unasked::NothingUnasked),
        Box::new(clocks_may_lie::ClocksMayLie),
        Box::new(bounded_memory::BoundedMemory),
        Box::new(calls_end::CallsEnd),
        Box::new(minority::Minority),
        Box::new(served_again::ServedAgain::default()),
        Box::new(elections::Elections::default()),
        Box::new(whole_again::WholeAgain),
        Box::new(cursor_lag::CursorLag),
    ]
}
