//! Subscribers of all nodes together: each node finds its own, this one puts the answers together.
//!
//! There are no pages over all nodes: a cursor for each would outgrow an address. Who is first by an order is first of all.

use super::search::Order;
use crate::elsewhere::{Said, ask_all};
use crate::problem::Refusal;
use crate::server::App;
use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::cmp::Reverse;
use tidings_protocol::client::query_pairs;
use tidings_protocol::{Code, Problem};

/// Connections in one answer of all nodes, at most: each node may have to tell as many.
const PAGE: usize = 100;

/// What a node answers to `/v1/connections`.
#[derive(Debug, Deserialize)]
struct List {
    connections: Vec<Map<String, Value>>,
    after: Option<String>,
    found: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Everywhere {
    /// As of one node, each with its `node`.
    connections: Vec<Map<String, Value>>,
    /// With `order`: how many there are in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<u64>,
    /// There are more than these.
    more: bool,
    nodes: usize,
    /// Nodes that did not answer: nothing is known of their connections.
    silent: Vec<String>,
}

/// `/v1/connections?node=*`.
pub(crate) async fn connections_of_all(app: &App, target: &str) -> Result<Response, Refusal> {
    let asked = Asked::read(target)?;
    let said = ask_all(app, target).await;
    // What this node does not understand, nobody does.
    if let Some(refused) = said
        .first()
        .and_then(|here| here.told.as_ref())
        .filter(|told| told.status == 400)
    {
        let told: Value = serde_json::from_str(&refused.body).unwrap_or_default();
        let detail = told["detail"].as_str().unwrap_or("not a question").to_owned();
        let object = told["code"] == Code::InvalidObject.as_str();
        let code = if object {
            Code::InvalidObject
        } else {
            Code::InvalidField
        };
        return Err(Refusal::new(code, detail));
    }
    let answer = together(&said, asked.order, asked.limit);
    Ok(([(http::header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

struct Asked {
    order: Option<Order>,
    limit: usize,
}

impl Asked {
    fn read(target: &str) -> Result<Self, Problem> {
        let mut asked = Self {
            order: None,
            limit: PAGE,
        };
        let bad = |detail: String| Problem::new(Code::InvalidField, detail);
        let query = target.split_once('?').map_or("", |(_, query)| query);
        for pair in query_pairs(query) {
            let (name, value) = pair?;
            match &*name {
                // That it makes no sense, each node finds out for itself.
                "order" => asked.order = serde_json::from_value(Value::from(&*value)).ok(),
                "after" => return Err(bad("`after` goes with the name of one node in `node`".to_owned())),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=PAGE).contains(limit));
                    asked.limit = limit.ok_or_else(|| bad(format!("`limit` is from 1 to {PAGE} with `node=*`")))?;
                }
                _ => {}
            }
        }
        Ok(asked)
    }
}

fn rank(order: Order, one: &Map<String, Value>) -> u64 {
    let of = |name: &str| one.get(name).and_then(Value::as_u64).unwrap_or(0);
    match order {
        Order::Pending => of("pending") + of("resync"),
        Order::Lag => of("cursor_lag_ms"),
        Order::Objects => of("objects"),
        Order::Told => of("told"),
        Order::Oldest => of("connected_ms"),
    }
}

fn together(said: &[Said], order: Option<Order>, limit: usize) -> Everywhere {
    let mut all = Everywhere {
        connections: Vec::new(),
        found: order.map(|_| 0),
        more: false,
        nodes: said.len(),
        silent: Vec::new(),
    };
    for one in said {
        let Some(list) = one.read::<List>() else {
            all.silent.push(one.node.clone());
            continue;
        };
        all.more |= list.after.is_some();
        if let Some(found) = &mut all.found {
            *found += list.found.unwrap_or(0);
        }
        all.connections
            .extend(list.connections.into_iter().map(|mut connection| {
                connection.insert("node".to_owned(), one.node.clone().into());
                connection
            }));
    }
    if let Some(order) = order {
        all.connections.sort_by_key(|one| Reverse(rank(order, one)));
    }
    all.more |= all.connections.len() > limit;
    all.connections.truncate(limit);
    all.more |= all.found.is_some_and(|found| found > all.connections.len() as u64);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Told;
    use serde_json::json;

    fn said(node: &str, body: Option<Value>) -> Said {
        let told = body.map(|body| Told {
            status: 200,
            body: body.to_string(),
        });
        Said {
            node: node.to_owned(),
            told,
        }
    }

    fn names(all: &Everywhere) -> Vec<String> {
        let of = |one: &Map<String, Value>| format!("{} of {}", one["connection"], one["node"]).replace('"', "");
        all.connections.iter().map(of).collect()
    }

    #[test]
    fn who_is_behind_most_comes_first_from_whatever_node() {
        let of = |name: &str, pending: u64| json!({"connection": name, "pending": pending, "resync": 1});
        let said = [
            said(
                "a",
                Some(json!({"connections": [of("0-0-0", 9), of("0-1-0", 2)], "found": 2})),
            ),
            said("b", None),
            said("c", Some(json!({"connections": [of("0-0-0", 5)], "found": 7}))),
        ];
        let all = together(&said, Some(Order::Pending), 2);
        assert_eq!(names(&all), ["0-0-0 of a", "0-0-0 of c"]);
        assert_eq!((all.found, all.more, all.nodes), (Some(9), true, 3));
        assert_eq!(all.silent, ["b"]);
    }

    #[test]
    fn without_an_order_it_is_said_whether_there_are_more() {
        let one = || json!({"connections": [{"connection": "0-0-0"}]});
        let all = together(&[said("a", Some(one())), said("b", Some(one()))], None, 2);
        assert_eq!((names(&all).len(), all.more, all.found), (2, false, None));
        let all = together(&[said("a", Some(one())), said("b", Some(one()))], None, 1);
        assert_eq!((names(&all).len(), all.more), (1, true));
        let mut more = one();
        more["after"] = json!("0-0-0");
        assert!(together(&[said("a", Some(more))], None, 5).more);
    }
}
