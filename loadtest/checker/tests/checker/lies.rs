//! Histories with one lie in each: the lies.

mod published;
mod told;

use crate::witness::{
    Fate, Publish, fate, held_since, is_lossy, is_resynced, is_shard_known, known, number, publishes,
};
use crate::world::{Random, Setup};
use published::{false_failure, forget, invert, low_epoch, old_epoch, one_version, two_for_a_key};
use tidings_checker::Invariant::{self, I1, I2, I3, I4, I5, I6, I7, I8, I9, I11, I12, I13};
use tidings_checker::history::{Event, What};
use told::{
    advance_cursor, drop_notice, drop_resync, false_list, go_back, invent, lose_last, needless_resync, omit, phantom,
    stale_answer, swap_told, tell_twice,
};

pub(crate) type Events = Vec<Event<'static>>;

/// A way to falsify a history.
pub(crate) struct Lie {
    pub(crate) name: &'static str,
    /// Which lives it is told of.
    pub(crate) setup: fn(u64) -> Setup,
    /// Falsifies the history at a random place that is fit; says which invariants must notice, one of them at least.
    /// `None` if no place is fit.
    pub(crate) tell: fn(&mut Events, &mut Random) -> Option<Vec<Invariant>>,
    /// What else may notice.
    pub(crate) also: &'static [Invariant],
}

/// Everything but resyncs follows from versions, so a false version may be noticed anywhere.
const ALL: &[Invariant] = &[I1, I2, I3, I4, I5, I6, I7, I8, I9, I11, I12, I13];

pub(crate) const LIES: &[Lie] = &[
    Lie {
        name: "a dropped notice",
        setup: Setup::any,
        tell: drop_notice,
        also: &[I1, I2, I11, I12, I13],
    },
    Lie {
        name: "two versions swapped",
        setup: Setup::any,
        tell: swap_told,
        also: &[I1, I2, I4, I5, I11, I12, I13],
    },
    Lie {
        name: "a cursor advanced early",
        setup: Setup::any,
        tell: advance_cursor,
        also: &[I11, I13],
    },
    Lie {
        name: "a phantom",
        setup: Setup::any,
        tell: phantom,
        also: &[I6],
    },
    Lie {
        name: "a version that goes back",
        setup: Setup::any,
        tell: go_back,
        also: &[I11],
    },
    Lie {
        name: "a version told twice",
        setup: Setup::any,
        tell: tell_twice,
        also: &[],
    },
    Lie {
        name: "a missing resync",
        setup: Setup::lossy,
        tell: drop_resync,
        also: &[I1, I2, I11, I12, I13],
    },
    Lie {
        name: "one version for two publishes",
        setup: Setup::any,
        tell: one_version,
        also: ALL,
    },
    Lie {
        name: "two versions for one key",
        setup: Setup::quiet,
        tell: two_for_a_key,
        also: ALL,
    },
    Lie {
        name: "a resume that omits",
        setup: Setup::quiet,
        tell: omit,
        also: &[I1, I2, I12, I13],
    },
    Lie {
        name: "a resume that invents",
        setup: Setup::quiet,
        tell: invent,
        also: &[],
    },
    Lie {
        name: "a stale answer to a subscription",
        setup: Setup::quiet,
        tell: stale_answer,
        also: &[I2, I6, I12],
    },
    Lie {
        name: "the last value lost",
        setup: Setup::any,
        tell: lose_last,
        also: &[I1, I2, I11, I13],
    },
    Lie {
        name: "two sequential publishes inverted",
        setup: Setup::any,
        tell: invert,
        also: ALL,
    },
    Lie {
        name: "a resync without need",
        setup: Setup::quiet,
        tell: needless_resync,
        also: &[],
    },
    Lie {
        name: "an old epoch",
        setup: Setup::faulty,
        tell: old_epoch,
        also: &[I8],
    },
    Lie {
        name: "a new epoch below the old",
        setup: Setup::faulty,
        tell: low_epoch,
        also: ALL,
    },
    Lie {
        name: "an acknowledged change that the owner forgot",
        setup: Setup::faulty,
        tell: forget,
        also: &[I4],
    },
    Lie {
        name: "a told-above list with too much",
        setup: Setup::any,
        tell: false_list,
        also: &[],
    },
    Lie {
        name: "a failed publish that was told",
        setup: Setup::quiet,
        tell: false_failure,
        also: ALL,
    },
];

/// A random place among those that are fit.
fn pick<T>(random: &mut Random, mut fit: Vec<T>) -> Option<T> {
    if fit.is_empty() {
        None
    } else {
        Some(fit.swap_remove(random.below(fit.len())))
    }
}

/// Every notice: place, client, object, version.
fn notices(events: &Events) -> Vec<(usize, u32, usize, u64)> {
    let told = events.iter().enumerate().filter_map(|(at, event)| match &event.what {
        What::Notify {
            client, obj, version, ..
        } => Some((at, *client, number(obj), *version)),
        _ => None,
    });
    told.collect()
}

fn is_promised(events: &Events, object: usize, version: u64) -> bool {
    publishes(events)
        .iter()
        .any(|publish| (publish.object, publish.version) == (object, version) && publish.is_promised)
}

/// Notices that matter: of a promised change that the client holds and did not know.
fn news(events: &Events) -> Vec<(usize, u32, usize, u64)> {
    let (acked, is_lossy) = (publishes(events), is_lossy(events));
    let mut notices = notices(events);
    notices.retain(|(at, client, object, version)| {
        let (known, is_held) = known(events, *at, *client, *object);
        // Where copies may be lost, who subscribes fetches: what was published before it is not missed.
        // Of a version that only a duplicate's answer names, nobody can know when it was published.
        let is_it = |publish: &&Publish| (publish.object, publish.version) == (*object, *version);
        let published = acked.iter().filter(|publish| !publish.is_duplicate).filter(is_it);
        let Some(call_us) = published.map(|publish| publish.call_us).min() else {
            return false;
        };
        let is_new = !is_lossy || call_us > held_since(events, *at, *client, *object);
        let is_new = is_new && !is_resynced(events, *client, *object, call_us, *at);
        let is_promised = is_promised(events, *object, *version);
        is_held && is_new && *version > known && is_promised && is_shard_known(events, *object)
    });
    notices
}

/// Whose silence is noticed by what, if the notice at this place is gone.
fn noticed(events: &Events, at: usize, client: u32, object: usize, version: u64) -> Option<Vec<Invariant>> {
    match fate(events, at, client, object, version) {
        Fate::Claimed(_) => Some(vec![I2]),
        Fate::Silence => Some(vec![I1, I13]),
        Fate::Excused(_) => None,
    }
}

fn set_version(event: &mut Event<'static>, new: u64) {
    match &mut event.what {
        What::Notify { version, .. } | What::PubOk { version, .. } => *version = new,
        What::SubOk { version, .. } | What::Final { version, .. } => *version = Some(new),
        _ => unreachable!(),
    }
}
