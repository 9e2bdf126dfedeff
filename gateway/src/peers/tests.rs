//! Several nodes in this process, joined by real connections, each with the views that a test shows it.

mod copies;
mod links;
mod moves;
mod publishes;
mod questions;
mod relay;
mod world;
