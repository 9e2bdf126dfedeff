//! Frames of one connection gathered by whom they are for, so that whoever gets them is woken once for all that came
//! together.

use std::collections::HashMap;
use std::hash::Hash;

/// Frames after which what was gathered goes on although more may be there.
const MOST: usize = 512;

/// See the module. Frames for one receiver keep their order.
#[derive(Debug)]
pub(super) struct Gather<To, F> {
    frames: HashMap<To, Vec<F>>,
    count: usize,
}

impl<To: Hash + Eq, F> Gather<To, F> {
    pub(super) fn new() -> Self {
        Self {
            frames: HashMap::new(),
            count: 0,
        }
    }

    /// Takes a frame. Whether it is time to [`Self::empty`].
    pub(super) fn put(&mut self, to: To, frame: F) -> bool {
        self.frames.entry(to).or_default().push(frame);
        self.count += 1;
        self.count >= MOST
    }

    /// Hands all on.
    pub(super) fn empty(&mut self, mut hand: impl FnMut(To, Vec<F>)) {
        self.count = 0;
        self.frames.drain().for_each(|(to, frames)| hand(to, frames));
    }
}
