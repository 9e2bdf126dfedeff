//! What a scenario found: figures with their goals, and everything that was wrong.

use crate::machine::Machine;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The bound a figure is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

/// One measured value: the median of its rounds.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    rounds: Vec<f64>,
    goal: Option<Goal>,
}

impl Figure {
    pub(crate) fn value(&self) -> f64 {
        median(&self.rounds)
    }

    /// Whether the goal is met; `None` without a goal.
    fn met(&self) -> Option<bool> {
        self.goal.map(|goal| match goal {
            Goal::AtMost(bound) => self.value() <= bound,
            Goal::AtLeast(bound) => self.value() >= bound,
        })
    }
}

/// The outcome of one scenario.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    scenario: &'static str,
    parameters: Value,
    figures: Vec<Figure>,
    notes: Vec<String>,
    failures: Vec<String>,
}

impl Report {
    pub(crate) fn new(scenario: &'static str, parameters: Value) -> Self {
        Self {
            scenario,
            parameters,
            figures: Vec::new(),
            notes: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Adds a value measured once in this round; rounds of one name are gathered under one figure.
    pub(crate) fn add(&mut self, name: &str, unit: &'static str, value: f64) {
        self.push(name, unit, value, None);
    }

    /// The same for a value with a goal.
    pub(crate) fn add_goal(&mut self, name: &str, unit: &'static str, value: f64, goal: Goal) {
        self.push(name, unit, value, Some(goal));
    }

    fn push(&mut self, name: &str, unit: &'static str, value: f64, goal: Option<Goal>) {
        match self.figures.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.rounds.push(value),
            None => self.figures.push(Figure {
                name: name.to_owned(),
                unit,
                rounds: vec![value],
                goal,
            }),
        }
    }

    /// Something a reader of the figures must know; said once, however many rounds say it.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Something the server (or this program) did wrong: the run fails.
    pub(crate) fn fail(&mut self, text: impl Into<String>) {
        let text = text.into();
        eprintln!("FAILURE in {}: {text}", self.scenario);
        self.failures.push(text);
    }

    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    pub(crate) fn goals_missed(&self) -> bool {
        self.figures.iter().any(|figure| figure.met() == Some(false))
    }

    /// The median of a figure; `None` if it was not measured.
    #[cfg(test)]
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.figures
            .iter()
            .find(|figure| figure.name == name)
            .map(Figure::value)
    }

    pub(crate) fn json(&self, machine: &Machine) -> Value {
        let figures: serde_json::Map<_, _> = self
            .figures
            .iter()
            .map(|figure| {
                let goal = match figure.goal {
                    Some(Goal::AtMost(bound)) => json!({"at_most": bound}),
                    Some(Goal::AtLeast(bound)) => json!({"at_least": bound}),
                    None => Value::Null,
                };
                let told = json!({
                    "median": figure.value(), "unit": figure.unit, "rounds": figure.rounds,
                    "goal": goal, "met": figure.met(),
                });
                (figure.name.clone(), told)
            })
            .collect();
        json!({
            "scenario": self.scenario, "parameters": self.parameters, "figures": figures,
            "notes": self.notes, "failures": self.failures, "machine": machine,
        })
    }

    /// A Markdown table that also reads well in a terminal.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("### {}\n\n", self.scenario);
        let width = self
            .figures
            .iter()
            .map(|figure| figure.name.len())
            .max()
            .unwrap_or(6)
            .max(6);
        let _ = writeln!(
            text,
            "| {:<width$} | {:>13} | {:<10} | {:<16} | rounds |",
            "figure", "median", "unit", "goal"
        );
        let _ = writeln!(text, "| {0:-<width$} | {0:-<12}: | {0:-<10} | {0:-<16} | ------ |", "");
        for figure in &self.figures {
            let goal = match (figure.goal, figure.met()) {
                (Some(Goal::AtMost(bound)), Some(met)) => format!("<= {} {}", plain(bound), verdict(met)),
                (Some(Goal::AtLeast(bound)), Some(met)) => format!(">= {} {}", plain(bound), verdict(met)),
                _ => String::new(),
            };
            let rounds: Vec<_> = figure.rounds.iter().map(|&value| plain(value)).collect();
            let rounds = if rounds.len() > 1 {
                rounds.join(" ")
            } else {
                String::new()
            };
            let (name, value, unit) = (&figure.name, plain(figure.value()), figure.unit);
            let _ = writeln!(
                text,
                "| {name:<width$} | {value:>13} | {unit:<10} | {goal:<16} | {rounds} |"
            );
        }
        for note in &self.notes {
            let _ = writeln!(text, "\nNote: {note}");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "\n**FAILED**: {failure}");
        }
        text
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// Four significant digits, without an exponent.
fn plain(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 10.0 => format!("{value:.2}"),
        size if size >= 1.0 => format!("{value:.3}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.4}"),
    }
}

/// The middle of the values, the mean of the two middle ones of an even number, 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_one_wild_round() {
        assert!((median(&[1.0, 90.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[1.0, 2.0, 3.0, 90.0]) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn a_goal_is_judged_by_the_median_of_all_rounds() {
        let mut report = Report::new("example", Value::Null);
        for value in [1.2, 9.0, 1.4] {
            report.add_goal("ratio", "x", value, Goal::AtMost(1.5));
        }
        assert!(!report.goals_missed());
        report.add_goal("rate", "/s", 9.0, Goal::AtLeast(10.0));
        assert!(report.goals_missed());
        assert!(report.table().contains("MISSED"));
    }
}
