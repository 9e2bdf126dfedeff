//! `tidings publish`: tell the server that objects changed. The objects come from the command line, from standard input,
//! or from a directory whose files change.

use super::server::{CallError, Server};
use super::{FAILED, ServerArgs, USAGE, note, print_line};
use answer::Outcome;
use bytes::Bytes;
use clap::ValueEnum;
use http::header::{CONTENT_TYPE, HeaderName};
use http_body_util::Full;
use serde_json::value::RawValue;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tidings_protocol::id::check_object_id;
use tidings_protocol::limits::{MAX_DATA_BYTES, MAX_IDEMPOTENCY_KEY_BYTES, MAX_KIND_BYTES, REVISION_LIMIT};

mod answer;
mod directory;
mod stream;

/// Longer than the server's own deadline for a publish (4 s), so that its answer is heard rather than guessed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// At most so many changes go into one request; the server allows 10,000.
const PAGE_CHANGES: usize = 1000;
/// At most so many bytes go into one request, unless a single change is larger; the server allows 4 MiB.
const PAGE_BYTES: usize = 1024 * 1024;

/// What to publish, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct PublishArgs {
    /// The objects that changed
    #[arg(value_name = "OBJECT")]
    pub objects: Vec<String>,
    /// A short tag told with the change, e.g. `updated`
    #[arg(long, value_name = "K")]
    pub kind: Option<String>,
    /// A small JSON value told with the change
    #[arg(long, value_name = "JSON")]
    pub data: Option<String>,
    /// The number your source gave this state, e.g. a row version; an older or repeated one changes nothing
    #[arg(long, value_name = "N")]
    pub revision: Option<u64>,
    /// How safe the change must be before the server answers [server's default: replicated]
    #[arg(long, value_name = "LEVEL")]
    pub ack: Option<Ack>,
    /// A key that makes a repeat within five minutes harmless
    #[arg(long, value_name = "IDEMPOTENCY_KEY")]
    pub key: Option<String>,
    /// Read the changes from standard input: one object ID or one JSON object a line, of any number
    #[arg(long, conflicts_with_all = ["objects", "key", "revision", "from_dir"])]
    pub stdin: bool,
    /// Publish the path of every file below this directory that is created, changed, renamed or deleted, until stopped
    #[arg(long, value_name = "DIR", conflicts_with_all = ["objects", "key", "revision", "kind", "data"])]
    pub from_dir: Option<PathBuf>,
    /// With --from-dir: put this in front of each path, e.g. `file:`
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        requires = "from_dir",
        hide_default_value = true
    )]
    pub prefix: String,
    /// With --from-dir: also version control's own files and editors' temporary ones
    #[arg(long, requires = "from_dir")]
    pub all: bool,
    /// With --from-dir: first publish every file that is there, as `updated` (what changed while this did not run is not known)
    #[arg(long, requires = "from_dir")]
    pub initial: bool,
    /// With --from-dir: refuse to watch more files (and more directories) than this; each costs some 200 bytes of memory
    #[arg(long, value_name = "N", default_value_t = 500_000, requires = "from_dir")]
    pub max_files: usize,
    /// With --from-dir: look at every file this often, for what the system does not report (network drives, other mounts); 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "from_dir")]
    pub rescan: u64,
    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// How safe a change must be before the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ack {
    /// The owner has written it
    Accepted,
    /// All in-sync copies have written it
    Replicated,
    /// It is synced to disk on all of them
    Durable,
}

impl Ack {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Replicated => "replicated",
            Self::Durable => "durable",
        }
    }
}

/// One change as it is sent.
#[derive(Clone, Debug, serde::Serialize)]
struct Change<'a> {
    object: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
}

/// Publishes, prints what came of it, and ends when all is told (or, for a directory, when asked to end).
pub async fn run(args: PublishArgs) -> ExitCode {
    let prepared = Server::new(&args.server).and_then(|server| Ok((server, check(&args)?)));
    let (server, data) = match prepared {
        Ok(prepared) => prepared,
        Err(why) => {
            note(&why);
            return ExitCode::from(USAGE);
        }
    };
    let publisher = Publisher {
        server,
        ack: args.ack,
        always_batches: args.from_dir.is_some(),
    };
    let all_well = if let Some(dir) = args.from_dir {
        let options = directory::Options {
            root: dir,
            prefix: args.prefix,
            all: args.all,
            initial: args.initial,
            max_files: args.max_files,
            rescan: (args.rescan > 0).then(|| Duration::from_secs(args.rescan)),
        };
        Box::pin(directory::run(options, publisher)).await
    } else if args.stdin {
        Box::pin(stream::run(&publisher, args.kind, data)).await
    } else {
        let change = Change {
            object: "",
            kind: args.kind.as_deref(),
            data: data.as_deref(),
            revision: args.revision,
        };
        Box::pin(publish_objects(
            &publisher,
            &args.objects,
            &change,
            args.key.as_deref(),
            &mut print,
        ))
        .await
    };
    if all_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
}

fn print(line: &str) {
    // Nobody may read the lines any more; the server is still told.
    print_line(line);
}

/// Refuses what the server would refuse, before anything is sent. Gives back `--data` as compact JSON.
fn check(args: &PublishArgs) -> Result<Option<Box<RawValue>>, String> {
    if args.objects.is_empty() && !args.stdin && args.from_dir.is_none() {
        return Err("nothing to publish: name an object, or use --stdin or --from-dir DIR".to_owned());
    }
    for object in &args.objects {
        check_object_id(object).map_err(|error| format!("{}: {error}", super::one_line(object)))?;
    }
    if let Some(kind) = &args.kind
        && (kind.len() > MAX_KIND_BYTES || kind.contains(char::is_control))
    {
        return Err(format!(
            "--kind is a tag of at most {MAX_KIND_BYTES} bytes without control characters"
        ));
    }
    if args.revision.is_some_and(|revision| revision >= REVISION_LIMIT) {
        return Err("--revision must be below 2^53".to_owned());
    }
    if let Some(key) = &args.key {
        let writable = key.bytes().all(|byte| (0x21..0x7f).contains(&byte));
        if key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY_BYTES || !writable {
            return Err(format!(
                "--key is 1 to {MAX_IDEMPOTENCY_KEY_BYTES} visible ASCII characters"
            ));
        }
        if args.objects.len() > PAGE_CHANGES {
            return Err(format!("--key covers one request, so at most {PAGE_CHANGES} objects"));
        }
    }
    let Some(data) = &args.data else { return Ok(None) };
    // Only the form is checked, and white space between the tokens is dropped; the numbers stay as they were typed.
    let not_json = |error: serde_json::Error| format!("--data is not JSON: {error} (a text needs quotes: '\"text\"')");
    serde_json::from_str::<&RawValue>(data).map_err(not_json)?;
    let data = RawValue::from_string(compact(data)).map_err(not_json)?;
    if data.get().len() > MAX_DATA_BYTES {
        return Err(format!(
            "--data has {} bytes, at most {MAX_DATA_BYTES} are allowed",
            data.get().len()
        ));
    }
    Ok(Some(data))
}

/// Valid JSON text without the white space between its tokens.
fn compact(text: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    let keep = |c: &char| {
        if inside {
            (inside, escaped) = (*c != '"' || escaped, *c == '\\' && !escaped);
            return true;
        }
        inside = *c == '"';
        !c.is_ascii_whitespace()
    };
    text.chars().filter(keep).collect()
}

/// Sends pages of changes to the server.
#[derive(Clone, Debug)]
struct Publisher {
    server: Server,
    ack: Option<Ack>,
    /// Send also a single change as a batch, so that what is wrong with it is told apart from a refusal of the request.
    always_batches: bool,
}

impl Publisher {
    fn path(&self) -> String {
        match self.ack {
            Some(ack) => format!("/v1/publish?ack={}", ack.as_str()),
            None => "/v1/publish".to_owned(),
        }
    }

    /// Publishes one page in one request and says what became of each change, in order.
    async fn page(&self, changes: &[Change<'_>], key: Option<&str>) -> Page {
        #[derive(serde::Serialize)]
        struct Batch<'a> {
            changes: &'a [Change<'a>],
        }
        let body = match changes {
            [change] if !self.always_batches => serde_json::to_vec(change),
            changes => serde_json::to_vec(&Batch { changes }),
        };
        let body = match body {
            Ok(body) => Full::new(Bytes::from(body)),
            Err(error) => return Page::not_sent(changes.len(), &error.to_string()),
        };
        let mut headers = vec![(CONTENT_TYPE, "application/json".to_owned())];
        if let Some(key) = key {
            headers.push((HeaderName::from_static("idempotency-key"), key.to_owned()));
        }
        match self
            .server
            .post(&self.path(), &headers, body, Some(ANSWER_TIMEOUT))
            .await
        {
            Ok(answer) => Page {
                retry_after: answer.retry_after,
                whole: !(200..300).contains(&answer.status),
                outcomes: answer::outcomes(changes.len(), answer.status, &answer.body),
            },
            Err(CallError::NotSent(why)) => Page::not_sent(changes.len(), &why),
            Err(CallError::NoAnswer(why)) => Page::silent(changes.len(), Outcome::no_answer(&why)),
        }
    }
}

/// What became of one request.
#[derive(Debug)]
struct Page {
    /// The server asked to be left alone for so long.
    retry_after: Option<Duration>,
    /// The server refused the request as a whole.
    whole: bool,
    /// One for each change, in order.
    outcomes: Vec<Outcome>,
}

impl Page {
    fn not_sent(changes: usize, why: &str) -> Self {
        Self::silent(changes, Outcome::not_sent(why))
    }

    fn silent(changes: usize, outcome: Outcome) -> Self {
        Self {
            retry_after: None,
            whole: false,
            outcomes: vec![outcome; changes],
        }
    }
}

/// Publishes the objects of the command line and prints a line for each. `true` if all went well.
async fn publish_objects(
    publisher: &Publisher,
    objects: &[String],
    like: &Change<'_>,
    key: Option<&str>,
    print: &mut dyn FnMut(&str),
) -> bool {
    let one_bytes = 64 + like.data.map_or(0, |data| data.get().len());
    // A page holds fewer changes when each carries much data. A key belongs to one request, whatever its size.
    let per_page = if key.is_some() {
        PAGE_CHANGES
    } else {
        (PAGE_BYTES / one_bytes).clamp(1, PAGE_CHANGES)
    };
    let mut all_well = true;
    for objects in objects.chunks(per_page) {
        let changes: Vec<_> = objects.iter().map(|object| Change { object, ..like.clone() }).collect();
        let page = publisher.page(&changes, key).await;
        for (object, outcome) in objects.iter().zip(&page.outcomes) {
            if outcome.is_published() {
                print(&outcome.line(object));
            } else {
                all_well = false;
                note(&outcome.line(object));
            }
        }
    }
    all_well
}

#[cfg(test)]
#[path = "publish/tests.rs"]
mod tests;
