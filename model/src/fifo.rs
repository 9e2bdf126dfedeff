//! A bounded queue that is cheap to copy, compare and hash: states are copied and hashed millions of times.

use std::fmt;
use std::hash::{Hash, Hasher};

/// At most `N` things in order. Places that are not in use hold the default, so equal queues are equal in every byte.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fifo<T, const N: usize> {
    len: u8,
    items: [T; N],
}

impl<T: Copy + Default, const N: usize> Fifo<T, N> {
    /// How many it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.into()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `more` still fit.
    #[must_use]
    pub fn has_room(&self, more: usize) -> bool {
        self.len() + more <= N
    }

    /// Adds one behind the others.
    ///
    /// # Panics
    /// If it is full: a model asks [`Fifo::has_room`] before it offers a step that sends.
    pub fn push(&mut self, item: T) {
        self.items[self.len()] = item;
        self.len += 1;
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<T> {
        (self.len > 0).then(|| self.remove(0))
    }

    /// Takes the one at a place.
    pub fn remove(&mut self, at: usize) -> T {
        let item = self.items[at];
        self.items.copy_within(at + 1..self.len.into(), at);
        self.len -= 1;
        self.items[self.len()] = T::default();
        item
    }

    /// What it holds, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        &self.items[..self.len()]
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl<T: Copy + Default, const N: usize> Default for Fifo<T, N> {
    fn default() -> Self {
        Self {
            len: 0,
            items: [T::default(); N],
        }
    }
}

impl<T: Copy + Default + Hash, const N: usize> Hash for Fifo<T, N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl<T: Copy + Default + fmt::Debug, const N: usize> fmt::Debug for Fifo<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_leaves_no_trace() {
        let mut queue: Fifo<u8, 3> = Fifo::default();
        queue.push(1);
        queue.push(2);
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(1), Some(2), None));
        assert_eq!(queue, Fifo::default());
    }

    #[test]
    fn the_order_survives_a_removal_from_the_middle() {
        let mut queue: Fifo<u8, 3> = Fifo::default();
        [1, 2, 3].into_iter().for_each(|item| queue.push(item));
        assert!(!queue.has_room(1));
        assert_eq!(queue.remove(1), 2);
        assert_eq!(queue.as_slice(), [1, 3]);
    }
}
