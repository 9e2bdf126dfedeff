//! What the process tells whoever started it and watches over it, by systemd's protocol: `NOTIFY_SOCKET`, `WATCHDOG_USEC`.
//!
//! Started by anybody else it says nothing. Whether the notice arrives changes nothing here.

use crate::Node;
use sd_notify::NotifyState;
use std::sync::Arc;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

/// What it is about, in a line for people; before it serves.
pub fn looking(what: &str) {
    tell(&[NotifyState::Status(first_line(what))]);
}

/// It is about to stop.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Does `reload`, and tells that it begins and that it is over; `Err` says why nothing changed.
///
/// # Errors
/// As `reload`.
pub async fn reloading(reload: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
    let result = reload.await;
    let said = match &result {
        Ok(()) => "serving".to_owned(),
        Err(why) => format!("serving; nothing was changed by the reload: {}", first_line(why)),
    };
    tell(&[NotifyState::Ready, NotifyState::Status(&said)]);
    result
}

/// Tells that the node serves once all of its threads do.
pub async fn ready(node: &Node) {
    let threads = node.owners.len();
    // A failure: the node is gone, and whoever waits finds that out by other ways.
    if node
        .serving
        .subscribe()
        .wait_for(|serving| *serving >= threads)
        .await
        .is_ok()
    {
        tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
    }
}

/// Tells, twice in the time after which the process would be ended, that every serving thread still answers. Ends when one
/// does not any more; waits for ever while one is stuck.
pub async fn watchdog(node: Arc<Node>) {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return;
    };
    loop {
        for lane in &node.lanes {
            if lane.figures().await.is_none() {
                return;
            }
        }
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep(patience / 2).await;
    }
}

/// A notice is lines.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
