//! One plot: lines in an SVG that stretches to whatever room there is, labels beside it as text that does not stretch.
//!
//! It does not know what the lines are of. The numbers that show on hover stand in a table of the page.

use super::scale::Scale;
use super::text::escape;
use std::fmt::Write;

/// The drawing's own coordinates; the page stretches them.
const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 300.0;

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// As the legend calls it.
    pub(super) name: String,
    /// Which of the style sheet's colours.
    pub(super) colour: &'static str,
    /// Whether it is background to the others: thin and dashed.
    pub(super) faint: bool,
    /// One for each place on the horizontal axis; `None` where nothing was measured.
    pub(super) values: Vec<Option<f64>>,
    /// Whether the line runs on over places where nothing was measured.
    pub(super) bridges_gaps: bool,
}

/// The horizontal axis of a plot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Across {
    /// Position of each place, 0 to 1.
    pub(super) places: Vec<f64>,
    /// What each place is called on hover.
    pub(super) names: Vec<String>,
    /// Marks: position and label.
    pub(super) marks: Vec<(f64, String)>,
    /// Stretches with a name of their own: from, to, name.
    pub(super) phases: Vec<(f64, f64, String)>,
    /// What happened: from, to, its number in the list of events, whether it was a fault.
    pub(super) events: Vec<(f64, f64, usize, bool)>,
    /// Whether all plots with such an axis show one moment together.
    pub(super) time: bool,
}

/// The vertical axis of a plot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    Linear,
    /// From zero, in bytes.
    Bytes,
    Logarithmic,
}

/// A plot.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    /// What to look for.
    pub(super) about: String,
    pub(super) lines: Vec<Line>,
    pub(super) axis: Axis,
    /// How its values are written.
    pub(super) words: fn(f64) -> String,
    /// Whether it takes the whole width of the page.
    pub(super) wide: bool,
}

impl Chart {
    /// Whether there is anything but zero to see.
    pub(super) fn says_something(&self) -> bool {
        self.values().any(|value| value != 0.0)
    }

    fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.lines.iter().flat_map(|line| line.values.iter().flatten().copied())
    }

    fn scale(&self) -> Scale {
        let largest = self.values().fold(f64::NEG_INFINITY, f64::max);
        if self.axis == Axis::Logarithmic {
            let smallest = self.values().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
            Scale::logarithmic(smallest, largest)
        } else {
            Scale::linear(largest, self.axis == Axis::Bytes)
        }
    }

    /// The markup of the `at`th plot of the page.
    pub(super) fn markup(&self, across: &Across, at: usize) -> String {
        let scale = self.scale();
        let mut out = String::new();
        let wide = if self.wide { " wide" } else { "" };
        let _ = write!(
            out,
            "<figure class=\"chart{wide}\" data-chart=\"{at}\"><figcaption><h3 id=\"c{at}\">{}</h3><p>{}</p></figcaption>",
            escape(&self.title),
            escape(&self.about)
        );
        self.legend(&mut out);
        let _ = write!(
            out,
            "<div class=\"plot\" tabindex=\"0\" role=\"group\" aria-labelledby=\"c{at}\" aria-describedby=\"keys\">"
        );
        out.push_str("<div class=\"y\" aria-hidden=\"true\">");
        for tick in &scale.ticks {
            let _ = write!(
                out,
                "<span style=\"bottom:{}%\">{}</span>",
                percent(scale.position(*tick)),
                (self.words)(*tick)
            );
        }
        out.push_str("</div>");
        self.drawing(&mut out, across, &scale, at);
        labels(&mut out, across);
        out.push_str("</div></figure>");
        out
    }

    fn legend(&self, out: &mut String) {
        if self.lines.len() < 2 {
            return;
        }
        out.push_str("<ul class=\"legend\">");
        for line in &self.lines {
            let faint = if line.faint { " faint" } else { "" };
            let _ = write!(out, "<li class=\"{}{faint}\">{}</li>", line.colour, escape(&line.name));
        }
        out.push_str("</ul>");
    }

    fn drawing(&self, out: &mut String, across: &Across, scale: &Scale, at: usize) {
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-labelledby=\"t{at}\">\
             <title id=\"t{at}\">{}. {}</title>",
            escape(&self.title),
            escape(&self.in_words())
        );
        for (n, (from, to, _)) in across.phases.iter().enumerate().filter(|(n, _)| n % 2 == 1) {
            let _ = write!(out, "<rect class=\"phase\" data-n=\"{n}\" {}/>", extent(*from, *to));
        }
        for (from, to, _, fault) in &across.events {
            let class = if *fault { "fault" } else { "event" };
            let _ = write!(out, "<rect class=\"{class}\" {}/>", extent(*from, to.max(from + 0.001)));
        }
        let grid = scale
            .ticks
            .iter()
            .map(|tick| format!("M0 {}h{WIDTH}", coordinate(1.0 - scale.position(*tick), HEIGHT)));
        let _ = write!(out, "<path class=\"grid\" d=\"{}\"/>", grid.collect::<String>());
        if let [line] = self.lines.as_slice()
            && self.axis != Axis::Logarithmic
        {
            let _ = write!(
                out,
                "<path class=\"area {}\" d=\"{}\"/>",
                line.colour,
                area(line, across, scale)
            );
        }
        for line in &self.lines {
            let faint = if line.faint { " faint" } else { "" };
            let _ = write!(
                out,
                "<path class=\"line {}{faint}\" d=\"{}\"/>",
                line.colour,
                path(line, across, scale)
            );
        }
        out.push_str("</svg>");
    }

    /// For those who do not see it: how far each line reaches.
    fn in_words(&self) -> String {
        let reach = |line: &Line| {
            let values = || line.values.iter().flatten().copied();
            let (low, high) = (
                values().fold(f64::INFINITY, f64::min),
                values().fold(f64::NEG_INFINITY, f64::max),
            );
            let range = if low > high {
                "nothing measured".to_owned()
            } else {
                format!("{} to {}", (self.words)(low), (self.words)(high))
            };
            format!("{}: {range}", line.name)
        };
        self.lines.iter().map(reach).collect::<Vec<_>>().join("; ")
    }
}

fn labels(out: &mut String, across: &Across) {
    out.push_str("<div class=\"x\" aria-hidden=\"true\">");
    for (n, (position, label)) in across.marks.iter().enumerate() {
        let odd = if n % 2 == 1 { " class=\"odd\"" } else { "" };
        let _ = write!(
            out,
            "<span{odd} style=\"left:{}%\">{}</span>",
            percent(*position),
            escape(label)
        );
    }
    out.push_str("</div>");
    if across.phases.is_empty() && across.events.is_empty() {
        return;
    }
    out.push_str("<div class=\"top\" aria-hidden=\"true\">");
    for (from, to, name) in &across.phases {
        let _ = write!(
            out,
            "<span class=\"phase\" style=\"left:{}%;width:{}%\">{}</span>",
            percent(*from),
            percent(to - from),
            escape(name)
        );
    }
    for (from, _, number, fault) in &across.events {
        let class = if *fault { "fault" } else { "event" };
        let _ = write!(
            out,
            "<b class=\"{class}\" style=\"left:{}%\">{number}</b>",
            percent(*from)
        );
    }
    out.push_str("</div>");
}

/// The line's points; each stretch without a gap begins with `M`.
fn path(line: &Line, across: &Across, scale: &Scale) -> String {
    let mut out = String::new();
    let mut open = false;
    for (value, place) in line.values.iter().zip(&across.places) {
        match value {
            Some(value) => {
                let start = if open { " " } else { "M" };
                let (x, y) = (
                    coordinate(*place, WIDTH),
                    coordinate(1.0 - scale.position(*value), HEIGHT),
                );
                let _ = write!(out, "{start}{x} {y}");
                open = true;
            }
            None => open &= line.bridges_gaps,
        }
    }
    // A line of one point has no length; with round ends it is a dot.
    if line.values.iter().flatten().count() == 1 {
        out.push_str("h.01");
    }
    out
}

/// The room below a line.
fn area(line: &Line, across: &Across, scale: &Scale) -> String {
    let mut out = String::new();
    let mut stretch: Vec<(f64, f64)> = Vec::new();
    let mut close = |stretch: &mut Vec<(f64, f64)>| {
        if let (Some(first), Some(last)) = (stretch.first(), stretch.last()) {
            let points = stretch
                .iter()
                .map(|(x, y)| format!(" {} {}", coordinate(*x, WIDTH), coordinate(*y, HEIGHT)));
            let (from, to) = (coordinate(first.0, WIDTH), coordinate(last.0, WIDTH));
            let _ = write!(out, "M{from} {HEIGHT}{} {to} {HEIGHT}z", points.collect::<String>());
        }
        stretch.clear();
    };
    for (value, place) in line.values.iter().zip(&across.places) {
        match value {
            Some(value) => stretch.push((*place, 1.0 - scale.position(*value))),
            None if line.bridges_gaps => {}
            None => close(&mut stretch),
        }
    }
    close(&mut stretch);
    out
}

fn extent(from: f64, to: f64) -> String {
    format!(
        "x=\"{}\" y=\"0\" width=\"{}\" height=\"{HEIGHT}\"",
        coordinate(from, WIDTH),
        coordinate(to - from, WIDTH)
    )
}

/// A tenth of the drawing's unit is less than a pixel.
fn coordinate(share: f64, length: f64) -> String {
    let tenths = (share.clamp(0.0, 1.0) * length * 10.0).round();
    let text = format!("{:.1}", tenths / 10.0);
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

fn percent(share: f64) -> String {
    coordinate(share, 100.0)
}

#[cfg(test)]
mod tests;
