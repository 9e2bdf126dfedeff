//! Walks a model from the command line: with other bounds, or without a rule.

use clap::Parser;
use std::fmt::Debug;
use std::process::ExitCode;
use std::time::Instant;
use tidings_model::catalogue::{self, Summary};
use tidings_model::removals::{REDUNDANT, REMOVALS};
use tidings_model::rule::{Rule, Rules};
use tidings_model::search::Limits;

/// Checks the rules of Tidings exhaustively within bounds.
#[derive(Parser, Debug)]
struct Args {
    /// Lists models (with their bounds) and rules.
    #[arg(long)]
    list: bool,
    /// Walks this model; without one, all that the tests walk.
    #[arg(long)]
    model: Option<String>,
    /// Another bound, as `name=value` with a name that `--list` shows. May be given more than once.
    #[arg(long, value_parser = bound)]
    set: Vec<(String, u8)>,
    /// Takes a rule away, by its number (`R8.3`) or name (`CloseInOneStep`). May be given more than once.
    #[arg(long, value_parser = rule)]
    without: Vec<Rule>,
    /// Takes each rule away in turn and says what falls.
    #[arg(long)]
    each: bool,
    /// Shows for every rule the shortest way to what falls without it.
    #[arg(long)]
    removals: bool,
    /// Has stateright's own checker walk the model as well.
    #[arg(long)]
    library: bool,
    /// Gives up after so many states. A million takes about half a gigabyte at the widest place.
    #[arg(long, default_value_t = 20_000_000)]
    states: usize,
}

fn bound(text: &str) -> Result<(String, u8), String> {
    let (name, value) = text.split_once('=').ok_or("not `name=value`")?;
    Ok((name.to_owned(), value.parse().map_err(|_| "not a small number")?))
}

fn rule(text: &str) -> Result<Rule, String> {
    let named = |rule: &&Rule| rule.label() == text || format!("{rule:?}") == text;
    Rule::ALL
        .iter()
        .copied()
        .find(|rule| named(&rule))
        .ok_or("no such rule".into())
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        list();
        return ExitCode::SUCCESS;
    }
    let limits = Limits {
        states: args.states,
        stop_at_violation: true,
    };
    if args.removals {
        return removals(limits);
    }
    let chosen: Vec<_> = catalogue::all()
        .into_iter()
        .filter(|entry| args.model.as_deref().map_or(entry.in_tests, |name| name == entry.name))
        .collect();
    if chosen.is_empty() {
        eprintln!("no such model; `--list` has them");
        return ExitCode::from(2);
    }
    let rules = args
        .without
        .iter()
        .fold(Rules::all(), |rules, &rule| rules.without(rule));
    let mut sound = true;
    for mut entry in chosen {
        for (name, value) in &args.set {
            if !entry.model.set(name, *value) {
                eprintln!("{} has no bound `{name}` of {value}", entry.name);
                return ExitCode::from(2);
            }
        }
        if args.each {
            Rule::ALL.iter().for_each(|&rule| {
                show(
                    &rule.to_string(),
                    || entry.model.with(rules.without(rule)).walk(limits),
                    false,
                );
            });
        } else {
            sound &= show(entry.name, || entry.model.with(rules).walk(limits), true);
        }
        if args.library {
            let begun = Instant::now();
            let found = entry.model.with(rules).walk_by_library();
            let seconds = begun.elapsed().as_secs_f64();
            println!(
                "{:16} {:>9} states, {:>10} steps, {seconds:.1} s by the library",
                "", found.states, found.steps
            );
            println!("    {:?}", found.violations);
        }
    }
    ExitCode::from(u8::from(!sound))
}

fn list() {
    for entry in catalogue::all() {
        let place = if entry.in_tests { "" } else { " (by command only)" };
        println!("{}: {}{place}\n    {:?}", entry.name, entry.about, entry.model);
    }
    for rule in Rule::ALL {
        println!("{:10} {rule:?}: {}", rule.label(), rule.text());
    }
}

/// Shows what a walk found; whether nothing fell and everything was reached.
fn show(name: &str, walk: impl FnOnce() -> Summary, trace: bool) -> bool {
    let begun = Instant::now();
    let found = walk();
    let end = if found.complete { "all" } else { "not all" };
    print!(
        "{name:16} {:>9} states ({end}), {:>10} steps, depth {:>2}, {:>6.1} s",
        found.states,
        found.steps,
        found.depth,
        begun.elapsed().as_secs_f64()
    );
    for (property, steps) in &found.violations {
        print!(", {property:?} falls after {} steps", steps.len());
    }
    println!();
    if trace {
        let steps = found.violations.iter().flat_map(|(_, steps)| steps);
        steps.for_each(|step| println!("    {step}"));
        found.unreached.iter().for_each(|name| println!("    never: {name}"));
    }
    found.violations.is_empty()
}

fn removals(limits: Limits) -> ExitCode {
    let mut as_said = true;
    for removal in REMOVALS {
        let Some(entry) = catalogue::named(removal.model) else {
            continue;
        };
        let rules = removal
            .rules
            .iter()
            .fold(Rules::all(), |rules, &rule| rules.without(rule));
        for rule in removal.rules {
            println!("\nwithout {rule}: {}", rule.text());
        }
        as_said &= !show(removal.model, || entry.model.with(rules).walk(limits), true);
    }
    for redundant in REDUNDANT {
        println!(
            "\nwithout {}: {}\n    {}",
            redundant.rule,
            redundant.rule.text(),
            redundant.why
        );
        for model in redundant.models {
            let Some(entry) = catalogue::named(model) else {
                continue;
            };
            let rules = Rules::all().without(redundant.rule);
            as_said &= show(model, || entry.model.with(rules).walk(limits), false);
        }
    }
    ExitCode::from(u8::from(!as_said))
}
