//! The Tidings gateway: every socket, clock, thread and task. Decisions live in `tidings_router`, words in
//! `tidings_protocol`.
//!
//! [`Node::start`] runs a whole node inside any process; the binary does little more.

pub mod admin;
pub mod auth;
pub mod cli;
mod client_js;
pub mod clock;
pub mod config;
mod console;
pub mod control;
pub mod edge;
mod elsewhere;
mod jitter;
pub mod logging;
pub mod mesh;
pub mod names;
pub mod node;
mod openapi;
pub mod owner;
pub mod peers;
pub mod problem;
pub mod publish;
pub mod recent;
pub mod release;
pub mod server;
pub mod service;
pub mod storage;
pub mod telemetry;
#[cfg(test)]
mod testing;

pub use node::{Node, RunningNode};
pub use server::App;

/// The routes of a node's public listener, for one of its threads; `operators`: with theirs among them.
pub fn routes(app: App, operators: bool) -> axum::Router {
    let mut routes = axum::Router::new()
        .merge(edge::routes())
        .merge(admin::routes())
        .merge(auth::routes())
        .merge(openapi::routes())
        .merge(client_js::routes())
        .merge(console::routes());
    if operators {
        routes = routes.merge(operators_only(&app));
    }
    finished(routes, app)
}

/// The routes of the operators' own listener.
pub fn operators_routes(app: App) -> axum::Router {
    let routes = operators_only(&app)
        .merge(admin::routes())
        .merge(openapi::routes())
        .merge(client_js::routes())
        .merge(console::routes());
    finished(routes, app)
}

fn operators_only(app: &App) -> axum::Router<App> {
    elsewhere::asked_routes(app)
        .merge(edge::operators_routes())
        .merge(admin::operators_routes())
        .merge(recent::routes())
        .merge(auth::operators_routes())
}

fn finished(routes: axum::Router<App>, app: App) -> axum::Router {
    routes
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .with_state(app)
}
