//! Configuration, policy, certificate, the cluster's secret and log filter read again while the node runs: all of it, or nothing.
//!
//! Each step first prepares, which may fail and changes nothing, and hands out what makes it count. Only when every step has
//! prepared are they carried out. A new step is one line in [`STEPS`].

use super::{Node, connections};
use crate::config::{Config, ConfigError, KEYS, shown, validate};
use crate::logging;
use arc_swap::{ArcSwap, Guard};
use serde::Serialize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Reads the whole configuration again, as it was read at the start.
pub type ReadAgain = Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// What counts now.
pub(crate) struct Live {
    now: ArcSwap<Config>,
    read_again: OnceLock<ReadAgain>,
    /// Two reloads at once would undo each other's.
    one: Mutex<()>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl Live {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            now: ArcSwap::from_pointee(config.clone()),
            read_again: OnceLock::new(),
            one: Mutex::default(),
        }
    }
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// What was read again, whether or not it had changed.
    pub read: Vec<&'static str>,
    /// Keys whose new values count from now on.
    pub changed: Vec<Change>,
    /// Keys whose new values count after a restart.
    pub needs_restart: Vec<Change>,
}

/// A key with another value than before. The secret's are not shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `section.key`.
    pub key: &'static str,
    /// The value that counted.
    pub from: String,
    /// The value that was read.
    pub to: String,
}

/// What makes a prepared step count.
pub(super) type Commit = Box<dyn FnOnce() + Send>;
/// What is read again, and how; `None`: there is nothing of the kind.
type Step = (&'static str, fn(&Node, &Config) -> Result<Option<Commit>, String>);

/// All steps, in the order in which they are carried out.
const STEPS: &[Step] = &[
    ("certificate", certificate),
    ("policy", policy),
    ("secret", secret),
    ("log", log),
    ("limits", limits),
];

impl Node {
    /// The configuration as it counts now: that of the start with what was changed by reloads since.
    #[must_use]
    pub fn live(&self) -> Guard<Arc<Config>> {
        self.live.now.load()
    }

    /// Says how the configuration is read again. Without it a reload reads only the files that it names. Counts once.
    pub fn read_again_with(&self, read: ReadAgain) {
        _ = self.live.read_again.set(read);
    }

    /// Reads everything again that may change while the node runs.
    ///
    /// # Errors
    /// Says what is wrong, with file and key. **Nothing was changed.**
    pub fn reload(&self) -> Result<Reloaded, String> {
        let _one = self.live.one.lock().unwrap_or_else(PoisonError::into_inner);
        let read = match self.live.read_again.get() {
            Some(read) => read().map_err(|error| error.to_string())?,
            None => Config::clone(&self.live()),
        };
        let (next, mut done) = compare(&self.config, &self.live(), &read).map_err(|error| error.to_string())?;
        let mut commits = Vec::new();
        for (what, prepare) in STEPS {
            if let Some(commit) = prepare(self, &next)? {
                commits.push(commit);
                done.read.push(*what);
            }
        }
        // First what is asked each time, then what shows it: who sees a new bound in the metrics may count on it.
        self.live.now.store(Arc::new(next));
        commits.into_iter().for_each(|commit| commit());
        tell(&done);
        Ok(done)
    }
}

fn tell(done: &Reloaded) {
    let list = |changes: &[Change]| {
        let words = changes.iter().map(|change| format!("{} = {}", change.key, change.to));
        words.collect::<Vec<_>>().join(", ")
    };
    let (read, changed) = (done.read.join(", "), list(&done.changed));
    tracing::info!(read, changed, "read again");
    if !done.needs_restart.is_empty() {
        let keys = list(&done.needs_restart);
        tracing::warn!(keys, "changed in the configuration, but count only after a restart");
    }
}

/// What counts once `read` was taken over, and how it differs from what counts `now`.
fn compare(started: &Config, now: &Config, read: &Config) -> Result<(Config, Reloaded), ConfigError> {
    let failed = |reason: String| ConfigError::File {
        from: "the configuration".to_owned(),
        reason,
    };
    let table = |config: &Config| toml::Value::try_from(config).map_err(|error| failed(error.to_string()));
    let (before, new) = (table(now)?, table(read)?);
    let mut next = before.clone();
    let mut done = Reloaded::default();
    for key in KEYS {
        let of = |all: &toml::Value| all.get(key.section).and_then(|keys| keys.get(key.name)).cloned();
        let (old, value) = (of(&before), of(&new));
        if old == value {
            continue;
        }
        let change = Change {
            key: key.path,
            from: shown(now, key.path),
            to: shown(read, key.path),
        };
        // A listener that speaks TLS, or asks who somebody is, was made so when it began.
        let begins = match key.path {
            "server.tls_cert_file" | "server.tls_key_file" => read.has_tls() != started.has_tls(),
            "auth.policy_file" => read.has_auth() != started.has_auth(),
            _ => false,
        };
        if !key.counts_at_reload() || begins {
            done.needs_restart.push(change);
        } else if let (Some(value), Some(keys)) = (value, next.get_mut(key.section).and_then(toml::Value::as_table_mut))
        {
            keys.insert(key.name.to_owned(), value);
            done.changed.push(change);
        }
    }
    let next: Config = next
        .try_into()
        .map_err(|error: toml::de::Error| failed(error.to_string()))?;
    validate(&next)?;
    Ok((next, done))
}

fn certificate(node: &Node, config: &Config) -> Result<Option<Commit>, String> {
    let Some(tls) = &node.tls else { return Ok(None) };
    let commit = tls.prepare(config).map_err(|error| error.to_string())?;
    Ok(Some(Box::new(commit)))
}

fn policy(node: &Node, config: &Config) -> Result<Option<Commit>, String> {
    let Some(auth) = &node.auth else { return Ok(None) };
    let commit = auth.prepare(config).map_err(|error| error.to_string())?;
    Ok(Some(Box::new(commit)))
}

fn secret(node: &Node, config: &Config) -> Result<Option<Commit>, String> {
    let Some(control) = &node.control else { return Ok(None) };
    let commit = control.prepare_secret(config).map_err(|error| error.to_string())?;
    Ok(commit.map(|commit| Box::new(commit) as Commit))
}

fn log(_: &Node, config: &Config) -> Result<Option<Commit>, String> {
    let commit = logging::prepare(&config.log).map_err(|error| error.to_string())?;
    Ok(Some(Box::new(commit)))
}

fn limits(node: &Node, config: &Config) -> Result<Option<Commit>, String> {
    let (admission, metrics) = (Arc::clone(&node.admission), Arc::clone(&node.metrics));
    let config = config.clone();
    Ok(Some(Box::new(move || {
        metrics.configured(&config);
        admission.set_most(connections(&config), config.limits.connections_per_address);
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(change: impl FnOnce(&mut Config)) -> Reloaded {
        let now = Config::default();
        let mut read = now.clone();
        change(&mut read);
        compare(&now, &now, &read).expect("it makes sense").1
    }

    #[test]
    fn what_counts_at_once_and_what_needs_a_restart_are_told_apart() {
        let done = changed(|config| {
            config.limits.publish_changes = 7;
            config.server.threads = 3;
        });
        assert_eq!((done.changed.len(), done.needs_restart.len()), (1, 1));
        let change = &done.changed[0];
        assert_eq!(
            (change.key, &*change.from, &*change.to),
            ("limits.publish_changes", "10000", "7")
        );
        assert_eq!(done.needs_restart[0].key, "server.threads");
    }

    #[test]
    fn a_listener_does_not_begin_to_speak_tls_or_to_ask_who_somebody_is() {
        let done = changed(|config| {
            config.server.tls_cert_file = "a".to_owned();
            config.server.tls_key_file = "b".to_owned();
            config.auth.policy_file = "c".to_owned();
        });
        assert_eq!((done.changed.len(), done.needs_restart.len()), (0, 3), "{done:?}");
    }

    #[test]
    fn of_two_secrets_neither_is_shown() {
        let done = changed(|config| config.cluster.secret = "0123456789abcdef0123456789abcdef".to_owned());
        assert!(!format!("{done:?}").contains("cdef"), "{done:?}");
        assert_eq!(done.needs_restart[0].key, "cluster.secret");
    }
}
