//! Tables of the page.

use super::plots::Group;
use super::text::escape;
use crate::sheet::{Sheet, Tone};
use std::fmt::Write;

/// A table with its caption; it scrolls sideways by itself where the page is narrow.
pub(super) fn sheet(sheet: &Sheet) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "<div class=\"scroll {class}\" tabindex=\"0\" role=\"region\" aria-label=\"{title}\"><table><caption>{title}</caption><thead><tr>",
        title = escape(&sheet.title),
        class = if sheet.title == "Verdicts" { "verdicts" } else { "" },
    );
    for column in &sheet.columns {
        let class = if column.figures { " class=\"n\"" } else { "" };
        let _ = write!(out, "<th scope=\"col\"{class}>{}</th>", escape(&column.title));
    }
    out.push_str("</tr></thead><tbody>");
    for row in &sheet.rows {
        let tone = match row.tone {
            Tone::Plain => "",
            Tone::Good => " class=\"good\"",
            Tone::Bad => " class=\"bad\"",
            Tone::Doubt => " class=\"doubt\"",
        };
        let _ = write!(out, "<tr{tone}>");
        for (at, (cell, column)) in row.cells.iter().zip(&sheet.columns).enumerate() {
            let text = escape(cell);
            let class = if column.figures { " class=\"n\"" } else { "" };
            let _ = match at {
                0 => write!(out, "<th scope=\"row\">{text}</th>"),
                _ => write!(out, "<td{class}>{text}</td>"),
            };
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    if let Some(note) = &sheet.note {
        let _ = write!(out, "<p class=\"note\">{}</p>", escape(note));
    }
    out
}

/// The numbers of the plots, for those who read rather than see them.
pub(super) fn numbers(groups: &[Group]) -> String {
    let mut out = String::from("<details class=\"numbers\"><summary>The numbers behind the plots</summary>");
    for time in [true, false] {
        let of = || groups.iter().filter(move |group| group.across.time == time);
        let Some(first) = of().next() else { continue };
        let lines: Vec<_> = of()
            .flat_map(|group| &group.charts)
            .flat_map(|chart| chart.lines.iter().map(move |line| (chart, line)))
            .collect();
        let (title, head) = if time {
            ("Over time", "from")
        } else {
            ("Distribution", "percentile")
        };
        let mut sheet = Sheet {
            title: title.to_owned(),
            ..Sheet::default()
        };
        let column = |title: String, figures| crate::sheet::Column { title, figures };
        sheet.columns.push(column(head.to_owned(), false));
        for (chart, line) in &lines {
            let title = if chart.lines.len() == 1 || chart.title == line.name {
                chart.title.clone()
            } else {
                format!("{}: {}", chart.title, line.name)
            };
            sheet.columns.push(column(title, true));
        }
        for (at, name) in first.across.names.iter().enumerate() {
            let value = |(chart, line): &(&super::chart::Chart, &super::chart::Line)| {
                line.values
                    .get(at)
                    .copied()
                    .flatten()
                    .map_or_else(String::new, chart.words)
            };
            let mut cells = vec![name.clone()];
            cells.extend(lines.iter().map(value));
            sheet.rows.push(crate::sheet::Row {
                cells,
                tone: Tone::Plain,
            });
        }
        let _ = write!(out, "<div id=\"axis{}\">{}</div>", u8::from(!time), self::sheet(&sheet));
    }
    out.push_str("</details>");
    out
}
