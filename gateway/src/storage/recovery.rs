//! From files back to tables: snapshots first, then the log behind them.
//!
//! A frame that was cut short at the end of the log was never acknowledged: it is cut off and counted. Anything else that
//! does not fit is damage: it is named and set aside, what is whole is used, and the floors rise.

use super::StorageError;
use super::disk::{Disk, UNFINISHED};
use super::frame::{self, Found, Head, Origin, Place, Sink};
use super::notes;
use std::collections::{BTreeMap, BTreeSet};
use tidings_protocol::ShardId;

/// Whose log file a number is.
pub(super) fn log_name(number: u64) -> String {
    format!("log-{number:010}.log")
}

/// What a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Shard(ShardId),
    Marks,
}

impl Part {
    /// Of which file its frames are. No two parts have the same, so that one is never taken for another.
    pub(super) fn place(self, number: u64) -> Place {
        let part = match self {
            Self::Shard(shard) => 1 + u64::from(shard.0),
            Self::Marks => 0,
        };
        Place {
            file: number << 16 | part,
            offset: 0,
        }
    }
}

/// A snapshot which, with the log from this file on, is complete.
pub(super) fn snapshot_name(part: Part, number: u64) -> String {
    match part {
        Part::Shard(shard) => format!("shard-{shard}-{number:010}.snap"),
        Part::Marks => format!("marks-{number:010}.snap"),
    }
}

fn log_number(name: &str) -> Option<u64> {
    name.strip_prefix("log-")?.strip_suffix(".log")?.parse().ok()
}

fn snapshot(name: &str) -> Option<(Part, u64)> {
    let name = name.strip_suffix(".snap")?;
    if let Some(number) = name.strip_prefix("marks-") {
        return Some((Part::Marks, number.parse().ok()?));
    }
    let (shard, number) = name.strip_prefix("shard-")?.split_once('-')?;
    Some((Part::Shard(ShardId(shard.parse().ok()?)), number.parse().ok()?))
}

/// Whether storage writes files of this name. Others write theirs into the same folder, perhaps just now.
fn is_ours(name: &str) -> bool {
    log_number(name).is_some() || snapshot(name).is_some() || notes::is_note(name)
}

/// What storage consists of.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) logs: BTreeSet<u64>,
    pub(super) snapshots: BTreeMap<Part, BTreeSet<u64>>,
    unfinished: Vec<String>,
}

impl Contents {
    pub(super) fn of(disk: &dyn Disk) -> Result<Self, StorageError> {
        let mut new = Self::default();
        for name in disk.list()? {
            if let Some(number) = log_number(&name) {
                new.logs.insert(number);
            } else if let Some((part, number)) = snapshot(&name) {
                new.snapshots.entry(part).or_default().insert(number);
            } else if name.strip_suffix(UNFINISHED).is_some_and(is_ours) {
                new.unfinished.push(name);
            }
        }
        Ok(new)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.logs.is_empty() && self.snapshots.is_empty()
    }

    /// Removes every file that newer snapshots of all parts make needless.
    pub(super) fn remove_covered(&self, disk: &dyn Disk, number: u64) -> std::io::Result<()> {
        for log in self.logs.range(..number) {
            disk.remove(&log_name(*log))?;
        }
        for part in self.snapshots.keys() {
            self.remove_older(disk, *part, number)?;
        }
        Ok(())
    }

    /// Removes the snapshots of one part that a newer one makes needless.
    pub(super) fn remove_older(&self, disk: &dyn Disk, part: Part, number: u64) -> std::io::Result<()> {
        for number in self
            .snapshots
            .get(&part)
            .into_iter()
            .flat_map(|numbers| numbers.range(..number))
        {
            disk.remove(&snapshot_name(part, *number))?;
        }
        Ok(())
    }
}

/// What was found out.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Shards that are not whole.
    pub(super) damaged_shards: BTreeSet<ShardId>,
    /// Files that are not whole.
    pub(super) damaged_files: BTreeSet<String>,
    /// Places where something was not whole.
    pub(super) damage: u64,
    /// Writes that were cut short.
    pub(super) torn: u64,
    /// The log's last file cannot be made durable: what was read of it has to be written elsewhere.
    pub(super) distrusted: bool,
    /// Where the log ends.
    pub(super) end: Place,
    /// Files of the log have numbers below this one.
    pub(super) next_file: u64,
    /// What the log holds, in bytes.
    pub(super) log_bytes: u64,
    /// What the snapshots in use hold, in bytes.
    pub(super) snapshot_bytes: u64,
}

/// What recovery needs to know beforehand.
pub(super) struct Task<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) origin: Origin,
    pub(super) shards: Vec<ShardId>,
    /// Whether the machine went down without the log having been synced to its end.
    pub(super) power_lost: bool,
    /// The log goes at least up to here.
    pub(super) surely: Place,
}

impl Task<'_> {
    /// Reads everything into the sink.
    pub(super) fn run(&self, sink: &mut dyn Sink) -> Result<Report, StorageError> {
        let contents = Contents::of(self.disk)?;
        for name in &contents.unfinished {
            self.disk.remove(name)?;
        }
        let mut report = Report {
            next_file: contents
                .logs
                .last()
                .map_or(1, |last| last + 1)
                .max(self.surely.file + 1),
            ..Report::default()
        };
        let mut from = u64::MAX;
        for shard in &self.shards {
            let number = self.part(&contents, Part::Shard(*shard), sink, &mut report)?;
            from = from.min(number);
        }
        from = from.min(self.part(&contents, Part::Marks, sink, &mut report)?);
        self.log(&contents, from, sink, &mut report)?;
        Ok(report)
    }

    fn all_damaged(&self, report: &mut Report, file: String, offset: u64, what: &str) {
        tracing::error!(
            file,
            offset,
            what,
            "the log is damaged: subscribers are told to fetch again"
        );
        report.damaged_shards.extend(&self.shards);
        report.damaged_files.insert(file);
        report.damage += 1;
    }

    /// The newest snapshot of one part; gives the number of the first log file it needs.
    fn part(
        &self,
        contents: &Contents,
        part: Part,
        sink: &mut dyn Sink,
        report: &mut Report,
    ) -> Result<u64, StorageError> {
        let Some(number) = contents.snapshots.get(&part).and_then(BTreeSet::last).copied() else {
            return Ok(1);
        };
        report.next_file = report.next_file.max(number + 1);
        let name = snapshot_name(part, number);
        let bytes = self.disk.read(&name)?;
        report.snapshot_bytes += bytes.len() as u64;
        let mut place = part.place(number);
        let mut ended = false;
        while !ended {
            match frame::read(&bytes, place) {
                Found::Frame(payload) => {
                    if place.offset == 0 {
                        self.head(payload, &name)?;
                    } else {
                        ended = frame::sections(payload, sink).map_err(|_| StorageError::Unreadable(name.clone()))?;
                    }
                    place.offset += (frame::HEADER + payload.len()) as u64;
                }
                Found::End | Found::Torn | Found::Damaged => break,
            }
        }
        if !ended || place.offset != bytes.len() as u64 {
            let offset = place.offset;
            tracing::error!(
                file = name,
                offset,
                "a snapshot is damaged: subscribers are told to fetch again"
            );
            report.damage += 1;
            report.damaged_files.insert(name);
            if let Part::Shard(shard) = part {
                report.damaged_shards.insert(shard);
            }
        }
        Ok(number)
    }

    fn head(&self, payload: &[u8], name: &str) -> Result<Head, StorageError> {
        let head = frame::head(payload).map_err(|_| StorageError::Unreadable(name.to_owned()))?;
        if head.origin.format > self.origin.format {
            return Err(StorageError::Newer {
                format: head.origin.format,
            });
        }
        if head.origin.cluster != self.origin.cluster {
            return Err(StorageError::OtherCluster { file: name.to_owned() });
        }
        Ok(head)
    }

    fn log(
        &self,
        contents: &Contents,
        from: u64,
        sink: &mut dyn Sink,
        report: &mut Report,
    ) -> Result<(), StorageError> {
        let last = contents.logs.last().copied().unwrap_or(0);
        let mut end = Place::default();
        let first = if contents.is_empty() && self.surely == Place::default() {
            last + 1
        } else {
            from
        };
        let missing = (first..=last).find(|number| !contents.logs.contains(number));
        // Snapshots need the file from which on the log completes them, if only to show that nothing came later.
        if let Some(missing) = missing.or((last < from && !contents.snapshots.is_empty()).then_some(from)) {
            self.all_damaged(report, log_name(missing), 0, "the file is missing");
        }
        for number in contents.logs.range(first..) {
            end = self.log_file(*number, *number == last, end, sink, report)?;
        }
        report.end = end;
        // Shown only once: what ends early for a reason named above is not named again.
        if end < self.surely && report.damage == 0 {
            self.all_damaged(
                report,
                log_name(self.surely.file),
                self.surely.offset,
                "it is shorter than it was",
            );
        }
        Ok(())
    }

    fn log_file(
        &self,
        number: u64,
        is_last: bool,
        before: Place,
        sink: &mut dyn Sink,
        report: &mut Report,
    ) -> Result<Place, StorageError> {
        let name = log_name(number);
        let bytes = self.disk.read(&name)?;
        let mut place = Place {
            file: number,
            offset: 0,
        };
        loop {
            match frame::read(&bytes, place) {
                Found::Frame(payload) => {
                    if place.offset == 0 {
                        let after = self.head(payload, &name)?.after;
                        // Of the file before the first one read, nothing is needed.
                        if before != Place::default() && before < after {
                            self.all_damaged(
                                report,
                                log_name(before.file),
                                before.offset,
                                "it is shorter than it was",
                            );
                        }
                    } else {
                        frame::sections(payload, sink).map_err(|_| StorageError::Unreadable(name.clone()))?;
                    }
                    place.offset += (frame::HEADER + payload.len()) as u64;
                }
                Found::End => break,
                found @ (Found::Torn | Found::Damaged) => {
                    if let Some(next) = frame::next_whole(&bytes, place) {
                        self.all_damaged(report, name.clone(), place.offset, "its checksum is wrong");
                        place = next;
                        continue;
                    }
                    let cut_short = found == Found::Torn || self.power_lost;
                    if !is_last || !cut_short || place < self.surely {
                        self.all_damaged(report, name.clone(), place.offset, "its end is not whole");
                    } else {
                        tracing::warn!(
                            file = name,
                            offset = place.offset,
                            bytes = bytes.len() as u64 - place.offset,
                            "the last write was cut short; it was never acknowledged and is cut off"
                        );
                        report.torn += 1;
                    }
                    break;
                }
            }
        }
        if is_last && !report.damaged_files.contains(&name) {
            // Makes durable what the last process wrote and did not sync.
            if let Err(error) = self.disk.truncate(&name, place.offset) {
                tracing::warn!(file = name, %error, "the log cannot be synced; what it holds is written anew");
                report.distrusted = true;
            }
        }
        report.log_bytes += bytes.len() as u64;
        Ok(place)
    }
}
