//! Families of metrics as text, and the same text for those who read the older format.

use crate::telemetry::SampleKind;
use std::fmt::{Display, Write as _};

/// OpenMetrics text that is being written, one family after the other.
#[derive(Debug, Default)]
pub(super) struct Families {
    text: String,
    name: &'static str,
    suffix: &'static str,
}

impl Families {
    /// Begins a family. `help`: one sentence without its full stop.
    pub(super) fn begin(&mut self, name: &'static str, kind: SampleKind, help: &str) -> &mut Self {
        (self.name, self.suffix) = (name, kind.suffix());
        // Writing to a String does not fail.
        _ = writeln!(
            self.text,
            "# HELP {name} {help}.\n# TYPE {name} {kind}",
            kind = kind.word()
        );
        self
    }

    /// A sample of the family begun last. `labels`: values are words of ours, which need no escaping.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        _ = write!(self.text, "{}{}", self.name, self.suffix);
        for (at, (label, word)) in labels.iter().enumerate() {
            let opening = if at == 0 { '{' } else { ',' };
            _ = write!(self.text, "{opening}{label}=\"{word}\"");
        }
        let closing = if labels.is_empty() { "" } else { "}" };
        _ = writeln!(self.text, "{closing} {value}");
        self
    }

    /// A family of one sample without labels.
    pub(super) fn one(&mut self, name: &'static str, kind: SampleKind, help: &str, value: impl Display) -> &mut Self {
        self.begin(name, kind, help).sample(&[], value)
    }

    /// All of it.
    pub(super) fn text(self) -> String {
        self.text
    }
}

/// OpenMetrics text in the Prometheus text format 0.0.4: there the family is named like its samples, and there is no
/// end mark.
pub(super) fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut help = "";
    for line in open_metrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Its name is known when its type is.
            help = rest.split_once(' ').map_or("", |(_, help)| help);
            continue;
        }
        let described = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '));
        // Writing to a String does not fail.
        _ = match described {
            Some((name, "counter")) => {
                writeln!(text, "# HELP {name}_total {help}\n# TYPE {name}_total counter")
            }
            Some((name, "info")) => writeln!(text, "# HELP {name}_info {help}\n# TYPE {name}_info gauge"),
            Some((name, kind)) => writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}"),
            None => writeln!(text, "{line}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> String {
        let mut families = Families::default();
        families
            .one("t_ages", SampleKind::Counter, "Ages", 3)
            .begin("t_full_ratio", SampleKind::Gauge, "How full")
            .sample(&[("name", "a"), ("way", "in")], 0.5)
            .sample(&[("name", "b"), ("way", "in")], 1);
        families.text()
    }

    #[test]
    fn families_are_open_metrics() {
        assert_eq!(
            two(),
            "# HELP t_ages Ages.\n# TYPE t_ages counter\nt_ages_total 3\n\
             # HELP t_full_ratio How full.\n# TYPE t_full_ratio gauge\n\
             t_full_ratio{name=\"a\",way=\"in\"} 0.5\nt_full_ratio{name=\"b\",way=\"in\"} 1\n"
        );
    }

    #[test]
    fn the_older_format_names_families_like_their_samples() {
        assert_eq!(
            classic(&(two() + "# HELP t_built Who.\n# TYPE t_built info\nt_built_info 1\n# EOF\n")),
            "# HELP t_ages_total Ages.\n# TYPE t_ages_total counter\nt_ages_total 3\n\
             # HELP t_full_ratio How full.\n# TYPE t_full_ratio gauge\n\
             t_full_ratio{name=\"a\",way=\"in\"} 0.5\nt_full_ratio{name=\"b\",way=\"in\"} 1\n\
             # HELP t_built_info Who.\n# TYPE t_built_info gauge\nt_built_info 1\n"
        );
    }
}
