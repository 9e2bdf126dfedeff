//! `tidings doctor`: the machine, the configuration, and the cluster as the node here sees it, in plain words with what to do.
//!
//! It writes a file of its own into the data directory and removes it again; a server may be running there. The node is asked
//! over the public surface only.

use super::cluster;
use super::server::Server;
use super::{FAILED, ServerArgs, print_line};
use crate::auth::Auth;
use crate::config::{self, Config, ConfigError};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

mod disk;
mod kernel;
mod machine;

/// How long the node may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Fine,
    /// Works, but less well or less safely than it could.
    Warning,
    /// Does not work.
    Fault,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub about: &'static str,
    /// How it is.
    pub level: Level,
    /// What was found, and what it means.
    pub says: String,
    /// What to do; empty if there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub todo: String,
}

impl Finding {
    fn fine(about: &'static str, says: impl Into<String>) -> Self {
        Self {
            about,
            level: Level::Fine,
            says: says.into(),
            todo: String::new(),
        }
    }

    fn warning(about: &'static str, says: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            about,
            level: Level::Warning,
            says: says.into(),
            todo: todo.into(),
        }
    }

    fn fault(about: &'static str, says: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            level: Level::Fault,
            ..Self::warning(about, says, todo)
        }
    }
}

/// How to ask.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// The node to ask about its cluster [default: where the configuration says that clients or operators reach it]
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// A file that holds the token to be let in with
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
}

/// Looks at everything and prints it. Exit code 1 if something does not work.
pub async fn run(args: &DoctorArgs, loaded: Result<Config, ConfigError>) -> ExitCode {
    let mut findings = Vec::new();
    let config = loaded.unwrap_or_else(|error| {
        let todo = "correct it; what follows was looked at with the defaults";
        findings.push(Finding::fault("configuration", error.to_string(), todo));
        Config::default()
    });
    if findings.is_empty() {
        findings.extend(configuration(&config));
    }
    let (node, of_node) = node(args, &config).await;
    findings.extend(machine::look(&config, node));
    findings.extend(of_node);
    let worst = findings.iter().map(|finding| finding.level).max();
    if args.json {
        let text = serde_json::to_string_pretty(&serde_json::json!({ "findings": findings }));
        _ = print_line(&text.unwrap_or_default());
    } else {
        findings.iter().for_each(|finding| _ = print_line(&line(finding)));
        _ = print_line(&sum(&findings));
    }
    if worst == Some(Level::Fault) {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    }
}

fn line(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Fine => "fine   ",
        Level::Warning => "WARNING",
        Level::Fault => "FAULT  ",
    };
    let todo = match finding.todo.as_str() {
        "" => String::new(),
        todo => format!("\n         to do: {todo}"),
    };
    format!("{level}  {}: {}{todo}", finding.about, finding.says)
}

fn sum(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count() as u64;
    match (count(Level::Fault), count(Level::Warning)) {
        (0, 0) => "Nothing to do.".to_owned(),
        (faults, warnings) => format!(
            "{}, {}.",
            super::count(faults, "fault"),
            super::count(warnings, "warning")
        ),
    }
}

fn configuration(config: &Config) -> Vec<Finding> {
    let about = "configuration";
    let mut found = Vec::new();
    if let Err(error) = Auth::load(config) {
        found.push(Finding::fault(
            about,
            error.to_string(),
            "correct the policy (auth.policy_file)",
        ));
    }
    if let Err(error) = crate::server::Tls::load(config) {
        let todo = "correct certificate and key (server.tls_cert_file, server.tls_key_file)";
        found.push(Finding::fault(about, error.to_string(), todo));
    }
    let unsafe_ones = config::warnings(config);
    if found.is_empty() && unsafe_ones.is_empty() {
        found.push(Finding::fine(about, "it makes sense"));
    }
    found.extend(
        unsafe_ones
            .into_iter()
            .map(|says| Finding::warning(about, says, "change it unless it is meant so")),
    );
    found
}

/// What the node says of itself and its cluster; and whether there is one.
async fn node(args: &DoctorArgs, config: &Config) -> (bool, Vec<Finding>) {
    let about = "node";
    let place = match config.server.admin_listen.as_str() {
        "" => &config.server.listen,
        admin => admin,
    };
    if args.server.is_none() && config.has_tls() && config.server.admin_listen.is_empty() {
        let says = "it was not asked: it speaks TLS, and this program does not";
        let todo = "name a way without TLS: --server http://… (server.admin_listen)";
        return (false, vec![Finding::warning(about, says, todo)]);
    }
    let server = Server::new(&ServerArgs {
        server: args.server.clone().unwrap_or_else(|| format!("http://{place}")),
        token_file: args.token_file.clone(),
    });
    let server = match server {
        Ok(server) => server,
        Err(why) => return (false, vec![Finding::fault(about, why, "correct --server")]),
    };
    let alive = server.get("/healthz", ANSWER).await;
    if !alive.is_ok_and(|answer| answer.status == 200 && answer.body.starts_with(b"ok")) {
        let says = format!("none answers at {}", server.authority);
        let finding = match &args.server {
            None => Finding::fine(about, says),
            Some(_) => Finding::fault(about, says, "start it, or name another with --server"),
        };
        return (false, vec![finding]);
    }
    let mut found = Vec::new();
    match cluster::look(&server).await {
        Err(why) => {
            let todo = "name a file with an operator's key: --token-file";
            found.push(Finding::warning(
                about,
                format!("it answers, but not about itself: {why}"),
                todo,
            ));
        }
        Ok(look) => {
            found.extend(look.faults.iter().map(|fault| {
                let todo = "see docs/operations.md, What a failure does; ask again with `tidings cluster status`";
                Finding::fault("cluster", fault.clone(), todo)
            }));
            if found.is_empty() {
                let says = format!("{} is ready; {}", look.node, look.summary);
                found.push(Finding::fine("cluster", says));
            }
            found.extend(look.ceiling.map(|ceiling| machine::clock_beside(ceiling, now_us())));
        }
    }
    (true, found)
}

fn now_us() -> u64 {
    crate::clock::now().wall_us
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_stands_below_what_was_found() {
        let finding = Finding::warning("clock", "it is wrong", "set it");
        assert_eq!(line(&finding), "WARNING  clock: it is wrong\n         to do: set it");
        assert_eq!(sum(&[finding]), "0 faults, 1 warning.");
        assert_eq!(sum(&[Finding::fine("clock", "it is right")]), "Nothing to do.");
    }
}
