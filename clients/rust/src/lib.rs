//! The Rust client of Tidings: watches objects, and publishes that they changed.
//!
//! ```
//! use tidings_client::{Client, NewChange};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("http://127.0.0.1:7400").build()?;
//! let mut watch = client.watch(["order:42", "order:43"]).start()?;
//! watch.ready().await?; // from here on every change is told: now fetch their state
//!
//! let change = NewChange::new("order:42").kind("paid").revision(17);
//! let published = client.publish(change).idempotent().send().await?;
//!
//! while let Some(change) = watch.next().await {
//!     match change.version {
//!         Some(version) => println!("{} is at {version}", change.object),
//!         None => println!("{} may have changed: fetch it", change.object),
//!     }
//!     // Asking for the next one says that this one is handled. The cursor moves on behind it and may be stored:
//!     // `client.watch(objects).resume(cursor)` then misses nothing.
//!     if let Some(cursor) = watch.cursor() {
//!         println!("stored {cursor}");
//!     }
//! }
//! println!("stopped: {:?}", watch.stopped());
//! # Ok(())
//! # }
//! ```
//!
//! What it promises:
//! - **Nothing is missed.** After every interruption, at whichever server and by whichever transport, what changed is told;
//!   where no server can vouch for an object, a [`Change`] without version says "fetch it".
//! - **Forward only.** The versions of an object that are handed out only grow. Only behind a change without version whose
//!   cause says that the cluster is another one do they begin anew.
//! - **The cursor never runs ahead** of what was handled.
//! - **Bounded.** What waits for a slow application is at most one change and one resync an object.
//! - **Errors say what happened to state**, and a publish whose outcome is unknown is never told as failed.
//!
//! | layer | what | knows sockets |
//! | --- | --- | --- |
//! | [`wire`] | messages, event streams, answers, requests: bytes to values and back | no |
//! | [`websocket`] | the opening handshake and frames of RFC 6455 | no |
//! | [`watch`] | watching as a state machine | no |
//! | [`Client`], [`Watch`], [`Publish`] | tokio and hyper around them | yes |

mod address;
mod client;
mod net;
mod publish;
pub mod watch;
mod watching;
pub mod websocket;
pub mod wire;

pub use address::AddressError;
pub use client::{Client, ClientBuilder, Servers};
pub use publish::{
    Ack, ChangeError, IntoData, NewChange, ObjectState, Publish, PublishBatch, PublishError, PublishStream, Published,
    RequestError, StreamSum,
};
pub use tidings_protocol::error::Applied;
pub use tidings_protocol::{Epoch, ShardId, Version};
pub use watch::{Change, RefusedObject, Status, Stop, StopReason, Ticket, Transport};
pub use watching::{InvalidObject, Watch, WatchBuilder, WatchHandle};
