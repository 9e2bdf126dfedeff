//! `tidings dev`: a cluster on this machine, started and stopped with one command, to try things out.
//!
//! Each node is a process of its own, the same program with its own folder. It stops when its standard input ends, so all of
//! them end with this one, however it ends.

use super::server::Server;
use super::signals::Interrupt;
use super::{FAILED, ServerArgs, USAGE, note, print_line};
use nodes::{Nodes, Plan};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

mod nodes;

/// How long the nodes may take to form a cluster before that is a failure.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often somebody who waits is told why.
const EXPLAIN: Duration = Duration::from_secs(10);
/// How often the processes are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long one node may take to say whether it is ready.
const ANSWER: Duration = Duration::from_secs(5);

/// How many nodes, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct DevArgs {
    /// How many nodes: 1, or 3 to 15
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub nodes: usize,
    /// Keep everything in this folder, and go on with what is there [default: a new one that is removed at the end]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The first node's port for clients; the others take the next ones [default: 7400, or free ones if taken]
    #[arg(long, value_name = "P")]
    pub port: Option<u16>,
    /// Do not remove the new folder at the end
    #[arg(long, conflicts_with = "dir")]
    pub keep: bool,
}

/// Starts the nodes and waits until asked to stop.
pub async fn run(args: DevArgs) -> ExitCode {
    let plan = match Plan::new(&args) {
        Ok(plan) => plan,
        Err(why) => {
            note(&why);
            return ExitCode::from(USAGE);
        }
    };
    let interrupt = match Interrupt::listen() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            note(&format!("cannot listen for signals: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    match Nodes::start(&plan) {
        Ok(nodes) => live(&plan, nodes, interrupt).await,
        Err(why) => {
            note(&why);
            plan.clean();
            ExitCode::from(FAILED)
        }
    }
}

async fn live(plan: &Plan, mut nodes: Nodes, mut interrupt: Interrupt) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let formed = tokio::select! {
        () = interrupt.asked() => Ok(false),
        formed = form(plan, &mut nodes) => formed.map(|()| true),
    };
    match formed {
        Ok(false) => {}
        Ok(true) => {
            _ = print_line(&plan.invitation(&nodes));
            if !watch(plan, &mut nodes, &mut interrupt).await {
                code = ExitCode::from(FAILED);
            }
        }
        Err(why) => {
            note(&why);
            code = ExitCode::from(FAILED);
        }
    }
    note("stopping the nodes (Ctrl-C again stops them at once)");
    nodes.ask_to_stop();
    tokio::select! {
        () = interrupt.asked() => {}
        () = nodes.stopped() => {}
    }
    // Kills whoever is left.
    drop(nodes);
    plan.clean();
    code
}

/// Waits until every node serves.
async fn form(plan: &Plan, nodes: &mut Nodes) -> Result<(), String> {
    let since = Instant::now();
    let mut told = since;
    let mut waiting: Vec<usize> = (0..plan.count()).collect();
    loop {
        let mut reasons = Vec::new();
        for &node in &waiting {
            if let Err(why) = ready(&plan.url(node)).await {
                reasons.push((node, why));
            }
        }
        waiting = reasons.iter().map(|(node, _)| *node).collect();
        if let Some((node, how)) = nodes.ended().first() {
            return Err(format!("{} {how} before the nodes were ready", plan.name(*node)));
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let reasons = || {
            let each = reasons
                .iter()
                .map(|(node, why)| format!("{} ({why})", plan.name(*node)));
            each.collect::<Vec<_>>().join(", ")
        };
        if since.elapsed() > PATIENCE {
            return Err(format!("not ready after {} s: {}", PATIENCE.as_secs(), reasons()));
        }
        if told.elapsed() > EXPLAIN {
            note(&format!("waiting for {}", reasons()));
            told = Instant::now();
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether a node is ready, and if not, why.
async fn ready(url: &str) -> Result<(), String> {
    let server = Server::new(&ServerArgs {
        server: url.to_owned(),
        token_file: None,
    })?;
    let answer = server.get("/readyz", ANSWER).await.map_err(|error| error.to_string())?;
    match answer.status {
        200 => Ok(()),
        status => Err(super::cluster::reasons(&answer.body).unwrap_or_else(|| format!("status {status}"))),
    }
}

/// Tells of each node that ends, until asked to stop. `false` when none is left.
async fn watch(plan: &Plan, nodes: &mut Nodes, interrupt: &mut Interrupt) -> bool {
    loop {
        tokio::select! {
            () = interrupt.asked() => return true,
            () = tokio::time::sleep(LOOK) => {}
        }
        for (node, how) in nodes.ended() {
            note(&format!(
                "{} {how}. To start it again, in a terminal of its own:\n\n  {}\n",
                plan.name(node),
                plan.command_line(node)
            ));
        }
        if nodes.are_gone() {
            note("no node is left");
            return false;
        }
    }
}
