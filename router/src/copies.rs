//! Copies of shards: what makes "every in-sync copy has it" true.
//!
//! [`sender::Sender`] runs beside each owner: it brings copies level, sends them every change, and says when everybody whom an
//! acknowledgement waits for has confirmed. [`receiver::Receiver`] runs on the node that holds copies: it takes what comes in
//! the newest epoch it knows of, refuses older ones, and hands its table over when its node becomes the owner.
//!
//! Neither decides who is in sync: that is agreed in the map (`control`). What they propose counts when it was applied
//! there. After PacificA (Lin, Yang, Zhang, Zhou, Microsoft Research 2008, sections 2 and 3). They do not know sockets, disks, or what a
//! change means to subscribers.

mod leaving;
mod pieces;
pub mod receiver;
pub mod sender;
mod stream;
