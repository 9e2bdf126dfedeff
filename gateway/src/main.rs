//! The program: `tidings` serves, other words ask or tell a server.

use clap::{Args, Parser, Subcommand};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tidings::cli::{
    self, cluster::ClusterWord, dev::DevArgs, doctor::DoctorArgs, publish::PublishArgs, token::TokenWord,
    watch::WatchArgs,
};
use tidings::config::{self, Config, ConfigError, Flags, Sources};
use tidings::node::Starting;
use tidings::{Node, RunningNode, logging, release, service};
use tokio::signal::unix::{Signal, SignalKind, signal};

#[global_allocator]
static ALLOCATOR: jemallocator::Jemalloc = jemallocator::Jemalloc;

/// Tells people which of the things they watch have changed.
#[derive(Debug, Parser)]
#[command(name = "tidings", version = release::text(), args_conflicts_with_subcommands = true)]
struct Program {
    #[command(subcommand)]
    word: Option<Word>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Word {
    /// Run a node (the same as no word at all).
    Serve(ServeArgs),
    /// Tell a server that something changed.
    Publish(PublishArgs),
    /// Print what changes, as it changes.
    Watch(WatchArgs),
    /// Start a cluster on this machine, to try things out; all of it ends with this program.
    Dev(DevArgs),
    /// Ask a cluster how it is, or tell it what to do.
    Cluster {
        #[command(subcommand)]
        what: ClusterWord,
    },
    /// Make and read API keys and tokens.
    Token {
        #[command(subcommand)]
        what: TokenWord,
    },
    /// Look at this machine, the configuration and the cluster, and say what to do; exit code 1 if something does not work.
    Doctor(Box<Doctor>),
    /// Ask the server that is configured here whether it lives; exit code 0 if so.
    Health {
        /// Whether it is fit to serve, instead.
        #[arg(long)]
        ready: bool,
        #[command(flatten)]
        serve: ServeArgs,
    },
    /// Look at the configuration.
    Config {
        #[command(subcommand)]
        what: ConfigWord,
    },
}

#[derive(Args, Debug)]
struct Doctor {
    #[command(flatten)]
    doctor: DoctorArgs,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum ConfigWord {
    /// Read file, environment and flags, and say whether they make sense.
    Check(Box<ServeArgs>),
    /// Print every key with its meaning, unit and default, as Markdown.
    Docs,
    /// Print the defaults as a TOML file to start from.
    Default,
}

#[derive(Args, Debug)]
struct ServeArgs {
    /// Address and port for clients and publishers [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Address and port for other nodes [default: 127.0.0.1:7401]
    #[arg(long, value_name = "ADDR")]
    node_listen: Option<String>,
    /// Folder for what outlives the process, or `none` [default: tidings-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// A node of the cluster, `host:port`, or a file of them, `@FILE`; may be repeated
    #[arg(long, value_name = "ADDR")]
    join: Vec<String>,
    /// How many nodes form a new cluster: 3 or 5 [default: 1]
    #[arg(long, value_name = "N")]
    expect: Option<String>,
    /// The file with the secret that all nodes of the cluster share
    #[arg(long, value_name = "FILE")]
    secret_file: Option<String>,
    /// A TOML file with configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Threads that serve [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<String>,
    /// Listen beyond loopback although nobody has to authenticate
    #[arg(long)]
    insecure: bool,
    /// Stop when standard input ends, as it does when whoever started this is gone
    #[arg(long)]
    until_stdin_ends: bool,
    #[command(flatten)]
    keys: Flags,
}

impl ServeArgs {
    fn load(&self) -> Result<Config, ConfigError> {
        let join = (!self.join.is_empty()).then(|| self.join.join(","));
        let named = [
            ("server.listen", &self.listen),
            ("server.node_listen", &self.node_listen),
            ("server.data_dir", &self.data_dir),
            ("server.threads", &self.threads),
            ("cluster.join", &join),
            ("cluster.expect", &self.expect),
            ("cluster.secret_file", &self.secret_file),
        ];
        let mut flags = self.keys.0.clone();
        flags.extend(named.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))));
        if self.insecure {
            flags.push(("server.insecure", "true".to_owned()));
        }
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let sources = Sources {
            file: self.config.as_deref(),
            variables: variables.collect(),
            flags,
        };
        config::load(&sources)
    }
}

fn main() -> ExitCode {
    let program = Program::parse();
    let result = match program.word {
        None => serve(program.serve),
        Some(Word::Serve(args)) => serve(args),
        Some(Word::Publish(args)) => runtime().map(|runtime| runtime.block_on(cli::publish::run(args))),
        Some(Word::Watch(args)) => runtime().map(|runtime| runtime.block_on(cli::watch::run(args))),
        Some(Word::Dev(args)) => runtime().map(|runtime| runtime.block_on(cli::dev::run(args))),
        Some(Word::Cluster { what }) => runtime().map(|runtime| runtime.block_on(cli::cluster::run(what))),
        Some(Word::Token { what }) => cli::token::run(&what),
        Some(Word::Doctor(args)) => {
            runtime().map(|runtime| runtime.block_on(cli::doctor::run(&args.doctor, args.serve.load())))
        }
        Some(Word::Health { ready, serve }) => health(&serve, ready),
        Some(Word::Config { what }) => configuration(&what),
    };
    result.unwrap_or_else(|message| {
        eprintln!("tidings: {message}");
        ExitCode::FAILURE
    })
}

fn configuration(what: &ConfigWord) -> Result<ExitCode, String> {
    match what {
        ConfigWord::Check(args) => {
            let config = args.load().map_err(|error| error.to_string())?;
            tidings::auth::Auth::load(&config).map_err(|error| error.to_string())?;
            tidings::server::Tls::load(&config).map_err(|error| error.to_string())?;
            println!("The configuration is fine.");
            let warnings = config::warnings(&config);
            if !warnings.is_empty() {
                println!("\nLess safe than it could be:");
                warnings.iter().for_each(|warning| println!("- {warning}"));
            }
        }
        ConfigWord::Docs => print!("{}", config::docs_markdown()),
        ConfigWord::Default => print!("{}", config::default_toml()),
    }
    Ok(ExitCode::SUCCESS)
}

fn health(args: &ServeArgs, ready: bool) -> Result<ExitCode, String> {
    let config = args.load().map_err(|error| error.to_string())?;
    runtime()?.block_on(cli::health::run(&config, ready))
}

fn serve(args: ServeArgs) -> Result<ExitCode, String> {
    let config = args.load().map_err(|error| error.to_string())?;
    logging::start(&config.log).map_err(|error| error.to_string())?;
    let ended = runtime()?.block_on(live(config, args));
    logging::finish();
    ended
}

/// Who may ask the server to stop.
struct Stops {
    interrupt: Signal,
    terminate: Signal,
}

impl Stops {
    async fn asked(&mut self) {
        tokio::select! { _ = self.interrupt.recv() => {} _ = self.terminate.recv() => {} }
    }
}

async fn live(config: Config, args: ServeArgs) -> Result<ExitCode, String> {
    // Before anybody can know that it runs: who asks it to stop then is heard.
    let mut stops = Stops {
        interrupt: signal(SignalKind::interrupt()).map_err(|error| error.to_string())?,
        terminate: signal(SignalKind::terminate()).map_err(|error| error.to_string())?,
    };
    // Unheard it would end the process.
    let hang_ups = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
    let abandoned = abandoned(args.until_stdin_ends);
    tokio::pin!(abandoned);
    let starting = Node::begin(config).map_err(|error| error.to_string())?;
    if starting.is_clustered() {
        let looking = looking(&starting);
        service::looking(&looking);
        say(&looking);
    }
    let give_up = starting.stopper();
    let mut finishing = tokio::task::spawn_blocking(move || starting.finish());
    let finished = tokio::select! {
        finished = &mut finishing => Some(finished),
        () = stops.asked() => None,
        () = &mut abandoned => None,
    };
    let Some(finished) = finished else {
        service::stopping();
        give_up();
        // It may have become part of the cluster at this very moment.
        if let Ok(Ok(running)) = finishing.await {
            running.drain();
            _ = tokio::task::spawn_blocking(move || running.join()).await;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let running = finished
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    running.node.read_again_with(Box::new(move || args.load()));
    say(&greeting(&running));
    let mut drained = running.node.draining.subscribe();
    tokio::spawn(service::watchdog(Arc::clone(&running.node)));
    tokio::select! {
        () = ready(&running.node) => {}
        () = stops.asked() => {}
        () = &mut abandoned => {}
        () = read_again(hang_ups, &running.node) => {}
        // The node gave up by itself.
        _ = drained.wait_for(|draining| *draining) => {}
    }
    tracing::info!("stopping: no new connections, requests in flight are answered (a second signal stops at once)");
    service::stopping();
    running.leave();
    tokio::spawn(async move {
        stops.asked().await;
        tracing::warn!("stopped at once");
        std::process::exit(1);
    });
    let ended = tokio::task::spawn_blocking(move || running.join()).await;
    Ok(if ended.unwrap_or(false) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Tells the service manager once it serves; never ends.
async fn ready(node: &Node) {
    service::ready(node).await;
    std::future::pending().await
}

/// Reads the configuration and all that it names again whenever asked to; never ends.
async fn read_again(mut hang_ups: Signal, node: &Arc<Node>) {
    loop {
        if hang_ups.recv().await.is_none() {
            return std::future::pending().await;
        }
        let node = Arc::clone(node);
        let reload = async {
            let reloaded = tokio::task::spawn_blocking(move || node.reload()).await;
            reloaded.unwrap_or_else(|error| Err(error.to_string())).map(drop)
        };
        if let Err(why) = service::reloading(reload).await {
            tracing::error!(why, "nothing was changed by the reload: everything goes on as it was");
        }
    }
}

/// Waits until standard input has ended; for ever, unless `asked`.
async fn abandoned(asked: bool) {
    if asked {
        let (sender, ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            // An error is an end as well.
            _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            // Nobody waits if the end came from elsewhere.
            _ = sender.send(());
        });
        if ended.await.is_ok() {
            return;
        }
    }
    std::future::pending().await
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
}

fn say(text: &str) {
    // Nobody may be reading any more. That is no reason not to serve.
    _ = std::io::stdout().write_all(text.as_bytes());
}

fn looking(starting: &Starting) -> String {
    let cluster = &starting.config().cluster;
    let nodes = starting
        .node_address()
        .map_or_else(String::new, |address| format!(" (other nodes reach it at {address})"));
    let waits = match cluster.expect {
        1 => "joins the cluster".to_owned(),
        several => format!("waits for {several} nodes to form or find the cluster"),
    };
    format!("A node on {}{nodes} {waits} `{}`.\n", starting.addr, cluster.name)
}

fn greeting(running: &RunningNode) -> String {
    let mut address = running.addr;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    let scheme = if running.node.tls.is_some() { "https" } else { "http" };
    let kept = match running.node.config.data_dir() {
        Some(path) => format!("versions are kept in {}", path.display()),
        None => "versions are kept in memory only".to_owned(),
    };
    format!(
        "Tidings listens on {scheme}://{address} ({kept}). Try, each in a terminal of its own:\n\n\
         \x20 curl -N '{scheme}://{address}/v1/events?object=order:42'\n\
         \x20 curl -X POST '{scheme}://{address}/v1/publish?object=order:42'\n\
         \x20 curl '{scheme}://{address}/v1/poll?object=order:42'\n\n\
         Documents: {scheme}://{address}/docs  Stop: Ctrl-C\n"
    )
}
