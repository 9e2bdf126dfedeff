//! The Tidings gateway: every socket, clock, thread and task. Decisions live in `tidings_router`, words in
//! `tidings_protocol`.
//!
//! [`Node::start`] runs a whole node inside any process; the binary does little more.

pub mod admin;
pub mod cli;
mod client_js;
pub mod clock;
pub mod config;
mod console;
pub mod control;
pub mod edge;
pub mod mesh;
pub mod node;
mod openapi;
pub mod owner;
pub mod peers;
pub mod problem;
pub mod publish;
pub mod recent;
pub mod server;
pub mod storage;
pub mod telemetry;
#[cfg(test)]
mod testing;

pub use node::{Node, RunningNode};
pub use server::App;

/// Every route of a node, for one of its threads.
pub fn routes(app: App) -> axum::Router {
    axum::Router::new()
        .merge(edge::routes())
        .merge(admin::routes())
        .merge(recent::routes())
        .merge(openapi::routes())
        .merge(client_js::routes())
        .merge(console::routes())
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .with_state(app)
}
