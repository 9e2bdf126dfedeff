//! The end of a run as a person reads it in a terminal.
//!
//! It does not know what is told, only how it is set: what comes in are the rows of [`crate::sheet`].

use crate::compare::compare;
use crate::record::{Record, Status};
use crate::sheet::{self, Sheet, Tone};
use crate::words;
use std::fmt::Write;

/// How the text is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether the terminal understands colours.
    pub colours: bool,
    /// Long sentences break at so many columns.
    pub width: usize,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            colours: false,
            width: 110,
        }
    }
}

/// The whole text, with an earlier run compared with it; it ends with a line break.
#[must_use]
pub fn render(record: &Record, before: Option<&Record>, style: Style) -> String {
    let mut out = String::new();
    let outcome = record.outcome();
    let verdict = match outcome {
        Status::Held => "PASSED",
        Status::Violated => "FAILED",
        Status::Inconclusive => "INCONCLUSIVE",
        Status::NotChecked => "NOT JUDGED",
    };
    let head = format!(
        "{} · {} · {} from {}",
        plain(&record.scenario),
        plain(&record.system),
        words::duration_us(record.duration_ms as f64 * 1e3),
        words::utc(record.started_unix_ms)
    );
    line(
        &mut out,
        &format!("{}  {}", bold(&head, style), paint(verdict, outcome.into(), style)),
    );
    if !record.about.is_empty() {
        wrapped(&mut out, "", &plain(&record.about), style);
    }
    for table in sheet::sheets(record) {
        set(&mut out, &table, style);
        if table.title == "Verdicts" {
            excerpts(&mut out, record, style);
        }
    }
    if let Some(before) = before {
        let comparison = compare(before, record);
        let table = sheet::comparison(&comparison);
        line(&mut out, "");
        line(&mut out, &bold(&plain(&table.title), style));
        set(&mut out, &table, style);
        comparison
            .notes
            .iter()
            .for_each(|note| wrapped(&mut out, "  note: ", &plain(note), style));
    }
    let systems = || std::iter::once(record).chain(&record.neighbours);
    let caveats = systems().flat_map(|s| s.caveats.iter().map(move |caveat| format!("{}: {caveat}", s.system)));
    let warnings = systems().flat_map(|s| s.warnings.iter());
    let (caveats, warnings): (Vec<_>, Vec<_>) = (caveats.collect(), warnings.collect());
    if !caveats.is_empty() || !warnings.is_empty() {
        line(&mut out, "");
    }
    caveats
        .iter()
        .for_each(|caveat| wrapped(&mut out, "caveat: ", &plain(caveat), style));
    for warning in warnings {
        wrapped(
            &mut out,
            &paint("warning: ", Tone::Doubt, style),
            &plain(warning),
            style,
        );
    }
    // Last, because the end is what a terminal shows.
    let against = against(record);
    if !against.is_empty() {
        let head = format!("{}: ", paint(verdict, outcome.into(), style));
        line(&mut out, "");
        wrapped(&mut out, &head, &plain(&against.join("; ")), style);
    }
    out
}

/// What keeps the run from having passed.
fn against(record: &Record) -> Vec<String> {
    let thresholds = sheet::thresholds(record);
    let failed = thresholds.rows.iter().filter(|row| row.tone == Tone::Bad);
    let failed = failed.map(|row| format!("{} is {}, not {}", row.cells[0], row.cells[1], row.cells[2]));
    let doubted = |status| matches!(status, Status::Violated | Status::Inconclusive);
    let doubted = record.verdicts.iter().filter(|verdict| doubted(verdict.status));
    failed
        .chain(doubted.map(|verdict| format!("{} {}", verdict.name, verdict.status.words())))
        .collect()
}

/// The evidence below the verdicts: what was found, and the lines that show it.
fn excerpts(out: &mut String, record: &Record, style: Style) {
    for verdict in record
        .verdicts
        .iter()
        .filter(|v| v.status != Status::Held && !v.text.is_empty())
    {
        wrapped(
            out,
            &format!("  {}: ", plain(&verdict.name)),
            &plain(&verdict.text),
            style,
        );
        verdict
            .excerpt
            .iter()
            .for_each(|text| line(out, &format!("      {}", plain(text))));
    }
}

fn set(out: &mut String, sheet: &Sheet, style: Style) {
    line(out, "");
    let cell = |row: &sheet::Row, at: usize| row.cells.get(at).map_or_else(String::new, |text| plain(text));
    let width = |at: usize| {
        let head = sheet.columns[at].title.chars().count();
        sheet
            .rows
            .iter()
            .map(|row| cell(row, at).chars().count())
            .fold(head, usize::max)
    };
    let widths: Vec<usize> = (0..sheet.columns.len()).map(width).collect();
    let pad = |text: &str, at: usize| {
        let gap = " ".repeat(widths[at].saturating_sub(text.chars().count()));
        if sheet.columns[at].figures {
            format!("{gap}{text}")
        } else {
            format!("{text}{gap}")
        }
    };
    let join = |cells: Vec<String>| cells.join("  ").trim_end().to_owned();
    let heads = sheet
        .columns
        .iter()
        .enumerate()
        .map(|(at, column)| pad(&plain(&column.title), at));
    line(out, &bold(&format!("  {}", join(heads.collect())), style));
    for row in &sheet.rows {
        let mark = match row.tone {
            Tone::Plain => " ",
            Tone::Good => "✓",
            Tone::Bad => "✗",
            Tone::Doubt => "?",
        };
        let text = join((0..sheet.columns.len()).map(|at| pad(&cell(row, at), at)).collect());
        line(out, &paint(&format!("{mark} {text}"), row.tone, style));
    }
    if let Some(note) = &sheet.note {
        wrapped(out, "  ", note, style);
    }
}

/// Breaks a sentence at the width; what follows stands below its first word.
fn wrapped(out: &mut String, head: &str, text: &str, style: Style) {
    let indent = head.chars().filter(|c| !c.is_control()).count().min(12);
    let mut current = head.to_owned();
    let mut length = indent;
    for word in text.split_whitespace() {
        let size = word.chars().count();
        if length + size > style.width && length > indent {
            line(out, &current);
            current = " ".repeat(indent);
            length = indent;
        }
        let _ = write!(current, "{word} ");
        length += size + 1;
    }
    line(out, &current);
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}

/// Names come from files and the network: nothing of them may steer the terminal.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

fn bold(text: &str, style: Style) -> String {
    if style.colours {
        format!("\x1b[1m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

fn paint(text: &str, tone: Tone, style: Style) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Good => "32",
        Tone::Bad => "1;31",
        Tone::Doubt => "33",
    };
    if style.colours {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
