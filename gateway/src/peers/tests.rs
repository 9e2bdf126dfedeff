//! Several nodes in this process, joined by real connections, each with the views that a test shows it.

mod links;
mod publishes;
mod relay;
mod world;
