//! Catch-up: what a subscriber missed, by comparing versions. There is no other recovery.

use super::Lane;
use super::place::CursorVerdict;
use tidings_protocol::Version;

/// What comparing says about one object of one subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missed {
    Nothing,
    /// There is a newer version than the one it knows.
    Newer,
    /// Nobody can say what it missed, for this reason.
    Unknown(&'static str),
}

/// Compares what the lane knows of an object with what the client knows of it.
///
/// A version at or above the floor is the newest there is. Below the floor a newer one may have been lost, so whoever
/// knows less than the floor vouches for must fetch (rule R1); this holds for known versions and cursors alike.
fn missed(version: Version, floor: Version, known: Version) -> bool {
    version < floor && known < floor.before()
}

impl Lane {
    /// Compares one object with the client's cursor and with the version it said it knows (zero: none), and notes what
    /// it missed.
    pub(super) fn catch_up(&mut self, index: u32, slot: u32, verdict: &CursorVerdict, known: Version) {
        if known == Version::ZERO && *verdict == CursorVerdict::None {
            // It starts from now: there is nothing to compare with.
            return;
        }
        let hash = self.objects.hash(slot);
        let shard_id = self.config.shards.shard(hash);
        let shard = self.upstream.shard(shard_id);
        let version = self.objects.slot(slot).version();
        let outcome = match verdict {
            CursorVerdict::Resync(cause) => Missed::Unknown(cause),
            CursorVerdict::None | CursorVerdict::At(_) => {
                let known = match verdict {
                    CursorVerdict::At(cursor) => known
                        .max(cursor.at(shard_id))
                        .max(cursor.told(hash).unwrap_or_default()),
                    CursorVerdict::None | CursorVerdict::Resync(_) => known,
                };
                if missed(version, shard.floor, known) {
                    Missed::Unknown(shard.cause.as_str())
                } else if version > known {
                    Missed::Newer
                } else {
                    Missed::Nothing
                }
            }
        };
        match outcome {
            Missed::Nothing => {}
            Missed::Newer => self.pend(index, slot),
            Missed::Unknown(cause) => self.resync(index, slot, cause),
        }
    }

    /// One subscriber must fetch one object again.
    fn resync(&mut self, index: u32, slot: u32, cause: &'static str) {
        let Some(subscriber) = self.subscribers.at_mut(index) else {
            return;
        };
        if subscriber.sink.gathers() && subscriber.add_resync(slot, cause) {
            self.counters.resyncs_of(cause);
            self.make_ready(index);
        }
    }

    /// Everyone who watches the object must fetch it again.
    pub(super) fn resync_watchers(&mut self, slot: u32, cause: &'static str) {
        for index in self.objects.slot(slot).watchers.to_vec() {
            if !self.subscribers.at(index).is_some_and(|s| s.gathers(slot)) {
                continue;
            }
            self.resync(index, slot, cause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_lost_below_the_floor_is_in_doubt_for_whoever_knows_less() {
        let floor = Version(100);
        assert!(
            missed(Version(0), floor, Version(98)),
            "knows up to 98; 99 may have been lost"
        );
        assert!(
            !missed(Version(0), floor, Version(99)),
            "knows all that may have been lost"
        );
        assert!(
            missed(Version(50), floor, Version(10)),
            "50 is known, but a newer one may have been lost"
        );
        assert!(
            !missed(Version(100), floor, Version(10)),
            "what the owner vouches for is the newest"
        );
        assert!(
            !missed(Version(0), Version(0), Version(0)),
            "a table that never lost anything"
        );
    }
}
