//! What a load test found, for people and for machines.
//!
//! Everything is made of a [`record::Record`]: pure functions from what was measured to text. Nothing here measures,
//! reads a clock, opens a file or a socket.
//!
//! A load generator fills records, one a process, and makes one of them with [`record::Record::merge`]. Then
//! [`thresholds`] judges it, [`table`] writes it for a terminal, [`html`] as one page, [`record::Record::to_json`] for
//! machines, and [`compare`] says what changed since an earlier one. [`metric`] gives every figure its name, [`sheet`]
//! decides what is told in which order, [`words`] how numbers are written.

pub mod compare;
pub mod html;
pub mod metric;
pub mod record;
pub mod sheet;
pub mod table;
pub mod thresholds;
pub mod words;
