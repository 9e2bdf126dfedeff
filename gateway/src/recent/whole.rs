//! The figures of all nodes: added up over time, and side by side.
//!
//! Each node remembers its own. Points of several nodes never fall on the same moment, so time is cut into slices of one step; a
//! node that has no point in a slice counts with its one before, if that is not long ago.

use super::routes::{Span, fresh};
use super::series::{Columns, Point};
use super::{LONG_MS, POINTS, SHORT_MS};
use crate::elsewhere::{Said, ask_all};
use crate::problem::{Asked as ParsedQuery, Refusal};
use crate::server::App;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tidings_protocol::client::query_pairs;
use tidings_protocol::{Code, Problem};

/// Slices that a node may be late, or leave out.
const GAP: u64 = 3;
/// A node whose newest point is this many slices behind the newest of all is not waited for.
const STALLED: u64 = 8;
/// Nodes in one answer, at most.
const NODES: usize = 1_000;

/// What a node answers to `/v1/live`, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Live {
    node: Value,
    cluster: Value,
    series: Columns,
    limits: Vec<Use>,
    refused: BTreeMap<String, u64>,
    events: u64,
    stamp: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Use {
    limit: String,
    used: u64,
    most: u64,
    /// Where it is fullest.
    #[serde(default)]
    node: String,
}

impl Use {
    fn share(&self) -> f64 {
        self.used as f64 / self.most.max(1) as f64
    }
}

/// Adds up points of nodes, slice by slice, behind the slice `after`.
fn merged(step_ms: u64, most: usize, parts: &[Columns], after: u64) -> Columns {
    let slice = |point: &Point| (point.wall_ms + step_ms / 2) / step_ms;
    let parts: Vec<BTreeMap<u64, Point>> = parts
        .iter()
        .map(|part| part.points().map(|point| (slice(&point), point)).collect())
        .collect();
    let lasts = || parts.iter().filter_map(|part| part.keys().next_back().copied());
    let newest = lasts().max().unwrap_or(0);
    // The last slice that everybody who is not far behind has told of.
    let end = lasts().filter(|last| last + STALLED > newest).min().unwrap_or(0);
    let start = (after + 1).max((end + 1).saturating_sub(most as u64));
    let sum = |slice: u64| {
        let mut found = parts
            .iter()
            .filter_map(|part| Some(part.range(slice.saturating_sub(GAP)..=slice).next_back()?.1));
        let mut sum = *found.next()?;
        found.for_each(|point| sum.add(point));
        sum.wall_ms = slice * step_ms;
        Some(sum)
    };
    let points: Vec<Point> = (start..=end).filter_map(sum).collect();
    Columns::of(step_ms, most, end.max(after), &points.iter())
}

/// `/v1/live?node=*`: as of one node, for all together.
pub(crate) async fn of_all(app: &App, target: &str) -> Result<Response, Refusal> {
    let (span, after) = asked(target)?;
    let step_ms = match span {
        Span::Minutes => SHORT_MS,
        Span::Hour => LONG_MS,
    };
    let since_ms = after.saturating_sub(GAP + STALLED) * step_ms;
    let name = match span {
        Span::Minutes => "minutes",
        Span::Hour => "hour",
    };
    let said = ask_all(app, &format!("/v1/live?span={name}&since_ms={since_ms}")).await;
    let whole = Whole::of(&said);
    let mut limits: BTreeMap<String, Use> = BTreeMap::new();
    let mut refused: BTreeMap<String, u64> = BTreeMap::new();
    let (mut series, mut first) = (Vec::new(), None);
    for one in &said {
        let Some(live) = one.read::<Live>() else { continue };
        for mut used in live.limits {
            used.node.clone_from(&one.node);
            match limits.get(&used.limit) {
                Some(fullest) if fullest.share() >= used.share() => {}
                _ => _ = limits.insert(used.limit.clone(), used),
            }
        }
        for (limit, count) in live.refused {
            *refused.entry(limit).or_default() += count;
        }
        series.push(live.series);
        // This node is asked first.
        first.get_or_insert((live.node, live.cluster, live.events, live.stamp));
    }
    let (node, cluster, events, stamp) =
        first.ok_or_else(|| Refusal::new(Code::Internal, "this node has no figures of itself"))?;
    let mut answer = Map::new();
    let mut put = |name: &str, value: Result<Value, serde_json::Error>| {
        answer.insert(name.to_owned(), value.unwrap_or_default());
    };
    put("node", Ok(node));
    put("cluster", Ok(cluster));
    put("whole", serde_json::to_value(&whole));
    put("series", value_of(&merged(step_ms, POINTS, &series, after)));
    put("limits", serde_json::to_value(limits.into_values().collect::<Vec<_>>()));
    put("refused", serde_json::to_value(refused));
    put("events", Ok(events.into()));
    put("stamp", Ok(stamp.into()));
    Ok(fresh(answer))
}

/// By way of its text: a value would show the digits that single precision does not have.
fn value_of(columns: &Columns) -> Result<Value, serde_json::Error> {
    serde_json::from_str(&serde_json::to_string(columns)?)
}

/// What of `/v1/live` goes for all together.
fn asked(target: &str) -> Result<(Span, u64), Problem> {
    let (mut span, mut after) = (Span::default(), 0);
    let query = target.split_once('?').map_or("", |(_, query)| query);
    for pair in query_pairs(query) {
        let (name, value) = pair?;
        match (&*name, &*value) {
            ("span", "minutes") => span = Span::Minutes,
            ("span", "hour") => span = Span::Hour,
            ("span", _) => return Err(Problem::new(Code::InvalidField, "`span` is `minutes` or `hour`")),
            ("after", number) => {
                after = number
                    .parse::<u32>()
                    .map_err(|_| Problem::new(Code::InvalidField, "`after` is `next` of the last answer"))?
                    .into();
            }
            _ => {}
        }
    }
    Ok((span, after))
}

/// How many nodes took part.
#[derive(Debug, Serialize)]
struct Whole {
    nodes: usize,
    /// Nodes that did not answer: they are in no figure.
    silent: Vec<String>,
    /// Nodes that answered and are not fit to serve, and why.
    unready: Vec<(String, Value)>,
}

impl Whole {
    fn of(said: &[Said]) -> Self {
        #[derive(Deserialize)]
        struct Told {
            node: Node,
        }
        #[derive(Deserialize)]
        struct Node {
            ready: bool,
            reasons: Value,
        }
        let (mut silent, mut unready) = (Vec::new(), Vec::new());
        for one in said {
            match one.read::<Told>() {
                None => silent.push(one.node.clone()),
                Some(told) if !told.node.ready => unready.push((one.node.clone(), told.node.reasons)),
                Some(_) => {}
            }
        }
        Self {
            nodes: said.len(),
            silent,
            unready,
        }
    }
}

/// One node beside others.
#[derive(Debug, Serialize)]
struct Row {
    node: String,
    /// Whether it answered. The rest is there only then.
    answered: bool,
    #[serde(skip_serializing_if = "Value::is_null")]
    ready: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    reasons: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    uptime_ms: Value,
    lease_left_ms: Value,
    /// The limit that is closest to full.
    #[serde(skip_serializing_if = "Option::is_none")]
    fullest: Option<Use>,
    /// Its newest figures, by name.
    figures: Map<String, Value>,
}

impl Row {
    fn of(said: &Said) -> Self {
        let Some(mut live) = said.read::<Live>() else {
            return Self {
                node: said.node.clone(),
                answered: false,
                ready: Value::Null,
                reasons: Value::Null,
                uptime_ms: Value::Null,
                lease_left_ms: Value::Null,
                fullest: None,
                figures: Map::new(),
            };
        };
        let mut of = |name: &str| live.node.get_mut(name).map(Value::take).unwrap_or_default();
        let (ready, reasons, uptime_ms) = (of("ready"), of("reasons"), of("uptime_ms"));
        let columns = value_of(&live.series).ok();
        let columns = columns.and_then(|mut columns| columns.as_object_mut().map(std::mem::take));
        let figures = columns.unwrap_or_default().into_iter().filter_map(|(name, column)| {
            let newest = column.as_array()?.last()?.clone();
            Some((name, newest))
        });
        let mut fullest = live.limits.into_iter().max_by(|a, b| a.share().total_cmp(&b.share()));
        if let Some(fullest) = &mut fullest {
            fullest.node.clone_from(&said.node);
        }
        Self {
            node: said.node.clone(),
            answered: true,
            ready,
            reasons,
            uptime_ms,
            lease_left_ms: live
                .cluster
                .get_mut("lease_left_ms")
                .map(Value::take)
                .unwrap_or_default(),
            fullest,
            figures: figures.collect(),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct FiguresQuery {
    /// A figure: nodes where it is highest come first.
    order: Option<String>,
    /// Part of a node's name.
    search: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Figures {
    /// Those that do not answer first, then those that are not fit to serve.
    nodes: Vec<Row>,
    /// How many are called like that.
    found: usize,
}

impl Figures {
    fn of(mut rows: Vec<Row>, query: &FiguresQuery) -> Self {
        if let Some(search) = &query.search {
            let search = search.to_lowercase();
            rows.retain(|row| row.node.to_lowercase().contains(&search));
        }
        let figure = |row: &Row| {
            let name = query.order.as_deref().unwrap_or_default();
            row.figures.get(name).and_then(Value::as_f64).unwrap_or(0.0)
        };
        let rank = |row: &Row| (row.answered, row.ready == Value::Bool(true));
        rows.sort_by(|a, b| rank(a).cmp(&rank(b)).then(figure(b).total_cmp(&figure(a))));
        let found = rows.len();
        rows.truncate(query.limit.unwrap_or(NODES));
        Self { nodes: rows, found }
    }
}

/// `/v1/cluster/figures`: the newest figures of each node.
pub(super) async fn figures(State(app): State<App>, query: ParsedQuery<FiguresQuery>) -> Result<Response, Refusal> {
    let ParsedQuery(query) = query;
    if !(1..=NODES).contains(&query.limit.unwrap_or(NODES)) {
        return Err(Refusal::new(
            Code::InvalidField,
            format!("`limit` is from 1 to {NODES}"),
        ));
    }
    let order = query.order.as_deref().unwrap_or("published");
    if !Columns::default().has(order) {
        let detail = "`order` is the name of a figure, as `published` or `memory`";
        return Err(Refusal::new(Code::InvalidField, detail));
    }
    let said = ask_all(&app, "/v1/live?newest=1").await;
    Ok(fresh(Figures::of(said.iter().map(Row::of).collect(), &query)))
}

#[cfg(test)]
mod tests;
