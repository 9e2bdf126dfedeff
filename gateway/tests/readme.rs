//! Walks the tour of the README: types its commands word for word into a shell, against a real server, and compares what
//! they print with what the README shows.
//!
//! A block of commands is marked in its fence: `sh tour` runs to its end, `sh tour-beside` runs in a terminal of its own
//! until the tour is over, and so does `sh tour-server`, for which the tour waits until all that is shown came. The next `text` or `json` block, if one follows before other commands, is what it prints: each of its lines
//! must come, in that order, where `…` stands for anything, versions for any version and times for any time. Only two things
//! are not as the reader would type them: the ports, and where the program `tidings` lies.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const ADDRESS: &str = "127.0.0.1:7400";
/// The first of the ports on which the tour's cluster serves.
const CLUSTER: u16 = 7500;
/// Generous: other tests share the machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a reader takes from one step to the next, at least. A cursor taken in the second after a change may tell of it
/// once more (the owner closes a silent link once a second), and then the tour would show more than it says.
const NEXT_STEP: Duration = Duration::from_millis(1500);

#[derive(Debug, PartialEq, Eq)]
enum How {
    ToItsEnd,
    Beside,
    Server,
}

#[derive(Debug)]
struct Step {
    line: usize,
    how: How,
    commands: String,
    prints: Option<String>,
}

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap()
}

/// Every fenced block: number of its first line, what stands behind the fence, text.
fn blocks(text: &str) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some((number + 2, info.trim().to_owned(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some((_, _, block))) => *block += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "the fence before the end of the README is not closed");
    found
}

fn tour(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut fresh = false;
    for (line, info, block) in blocks(text) {
        let how = match info.as_str() {
            "sh tour" => How::ToItsEnd,
            "sh tour-beside" => How::Beside,
            "sh tour-server" => How::Server,
            "text" | "json" if fresh => {
                fresh = false;
                steps.last_mut().unwrap().prints = Some(block);
                continue;
            }
            _ => {
                fresh = false;
                continue;
            }
        };
        fresh = true;
        steps.push(Step {
            line,
            how,
            commands: block,
            prints: None,
        });
    }
    steps
}

/// Versions as `#`, times as `@`.
fn plain(line: &str) -> String {
    const TIME: &[u8] = b"0000-00-00T00:00:00.000Z";
    let is_time = |rest: &[u8]| {
        rest.len() >= TIME.len()
            && rest
                .iter()
                .zip(TIME)
                .all(|(b, like)| if *like == b'0' { b.is_ascii_digit() } else { b == like })
    };
    let mut out = String::new();
    let mut rest = line.trim_end();
    while let Some(first) = rest.chars().next() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let taken = if is_time(rest.as_bytes()) {
            out.push('@');
            TIME.len()
        } else if digits >= 13 {
            out.push('#');
            digits
        } else if digits > 0 {
            out.push_str(&rest[..digits]);
            digits
        } else {
            out.push(first);
            first.len_utf8()
        };
        rest = &rest[taken..];
    }
    out
}

fn line_matches(shown: &str, printed: &str) -> bool {
    let (shown, printed) = (plain(shown), plain(printed));
    let mut pieces = shown.split('…');
    let Some(mut rest) = printed.strip_prefix(pieces.next().unwrap_or_default()) else {
        return false;
    };
    let mut pieces: Vec<_> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// The first line shown that did not come, if any.
fn missing<'a>(shown: &'a str, printed: &str) -> Option<&'a str> {
    let mut printed = printed.lines();
    shown
        .lines()
        .filter(|line| !line.trim().is_empty())
        .find(|shown| !printed.any(|printed| line_matches(shown, printed)))
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A server and a shell that knows it.
struct World {
    _server: Running,
    _greeter: BufReader<ChildStdout>,
    address: String,
    /// What stands for [`CLUSTER`].
    cluster: u16,
    folder: tempfile::TempDir,
    path: String,
}

impl World {
    fn new() -> Self {
        let program = env!("CARGO_BIN_EXE_tidings");
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command
            .args(["--listen", "127.0.0.1:0"])
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut server = Running(command.spawn().unwrap());
        let mut greeting = String::new();
        // Read no further, but kept open: the server has more to say than its first line.
        let mut greeter = BufReader::new(server.0.stdout.take().unwrap());
        greeter.read_line(&mut greeting).unwrap();
        let address = greeting.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
        let address = address
            .unwrap_or_else(|| panic!("the server says where it listens, not {greeting:?}"))
            .to_owned();
        // The words that talk to a server go to port 7400 unless told otherwise.
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let script = format!(
            "#!/bin/sh\ncase $1 in\npublish|watch) exec '{program}' \"$@\" --server 'http://{address}' ;;\n\
             *) exec '{program}' \"$@\" ;;\nesac\n"
        );
        write_executable(&bin.join("tidings"), &script);
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        std::fs::create_dir(folder.path().join("home")).unwrap();
        Self {
            _server: server,
            _greeter: greeter,
            address,
            cluster: three_ports(),
            folder,
            path,
        }
    }

    fn shell(&self, commands: &str, output: &Path) -> Running {
        let file = File::create(output).unwrap();
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", self.here(commands).trim_end()]);
        command
            .current_dir(self.folder.path().join("home"))
            .env("PATH", &self.path)
            .stdin(Stdio::null());
        for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        command.stderr(file.try_clone().unwrap()).stdout(file);
        Running(command.spawn().expect("bash is installed"))
    }

    /// With the ports of this run.
    fn here(&self, text: &str) -> String {
        let text = text.replace(ADDRESS, &self.address);
        (0..3).fold(text, |text, node| {
            text.replace(&(CLUSTER + node).to_string(), &(self.cluster + node).to_string())
        })
    }

    fn output(&self, step: &Step) -> PathBuf {
        self.folder.path().join(format!("line-{}", step.line))
    }
}

/// The first of three ports in a row that are free.
fn three_ports() -> u16 {
    let listen = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port));
    loop {
        let first = listen(0).unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX - 2 && listen(port + 1).is_ok() && listen(port + 2).is_ok() {
            return port;
        }
    }
}

fn write_executable(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn printed(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned()
}

/// Waits until `done`; `false` if that takes too long.
fn wait_until(mut done: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// What runs beside is ready once it has said something and then been silent for a while.
fn ready(file: &Path) -> bool {
    let (mut length, mut since) = (0, Instant::now());
    wait_until(|| {
        let now = printed(file).len();
        if now != length {
            (length, since) = (now, Instant::now());
        }
        length > 0 && since.elapsed() > Duration::from_millis(500)
    })
}

#[test]
fn the_tour_does_what_it_says() {
    assert!(
        Command::new("curl")
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success()),
        "this test types the README's commands, which need curl: install it (apt-get install curl)"
    );
    let mut steps = tour(&readme());
    assert!(steps.len() >= 6, "the README has a tour");
    assert!(steps.iter().any(|step| step.how == How::Beside));
    let world = World::new();
    for step in &mut steps {
        step.prints = step.prints.as_deref().map(|shown| world.here(shown));
    }
    let mut beside = Vec::new();
    for step in &steps {
        std::thread::sleep(NEXT_STEP);
        let file = world.output(step);
        let mut running = world.shell(&step.commands, &file);
        if step.how == How::Beside {
            assert!(ready(&file), "README.md:{}: nothing was printed", step.line);
            beside.push((step, running));
            continue;
        }
        if step.how == How::Server {
            let shown = step.prints.as_deref().unwrap_or_default();
            assert!(
                wait_until(|| missing(shown, &printed(&file)).is_none()),
                "README.md:{}: does not come up\n{}",
                step.line,
                printed(&file)
            );
            beside.push((step, running));
            continue;
        }
        let mut status = None;
        assert!(
            wait_until(|| {
                status = running.0.try_wait().unwrap();
                status.is_some()
            }),
            "README.md:{}: does not end\n{}",
            step.line,
            printed(&file)
        );
        let text = printed(&file);
        assert!(
            status.unwrap().success(),
            "README.md:{}: failed\n{}\nprinted\n{text}",
            step.line,
            step.commands
        );
        let line = step.prints.as_deref().and_then(|shown| missing(shown, &text));
        assert_eq!(
            line, None,
            "README.md:{}: this line did not come; what came is\n{text}",
            step.line
        );
    }
    for (step, _running) in &beside {
        let file = world.output(step);
        let Some(shown) = step.prints.as_deref() else { continue };
        let all = wait_until(|| missing(shown, &printed(&file)).is_none());
        let text = printed(&file);
        assert!(
            all,
            "README.md:{}: missing is {:?}; what came is\n{text}",
            step.line,
            missing(shown, &text)
        );
    }
}

/// The two commands that a newcomer needs.
#[test]
fn the_two_commands_stand_in_the_readme() {
    let shells = blocks(&readme())
        .into_iter()
        .filter(|(_, info, _)| info.starts_with("sh"))
        .map(|(_, _, block)| block);
    let lines: Vec<_> = shells
        .flat_map(|block| {
            block
                .lines()
                .map(|l| l.split('#').next().unwrap().trim().to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    for command in ["cargo run --release", "./test"] {
        assert!(lines.iter().any(|line| line == command), "{command}");
    }
}

#[test]
fn a_shown_line_matches_any_version_time_and_what_an_ellipsis_hides() {
    assert!(line_matches(
        "a  version 1795170000000000",
        "a  version 1795185735947293"
    ));
    assert!(line_matches(
        "2026-11-20T14:42:16.987Z  a",
        "2031-01-02T03:04:05.678Z  a"
    ));
    assert!(line_matches(
        "{\"cursor\":\"…\",\"session\":\"…\"}",
        "{\"cursor\":\"AQ\",\"session\":\"x-\"}"
    ));
    assert!(!line_matches(
        "a  version 1795170000000000",
        "b  version 1795185735947293"
    ));
    assert!(!line_matches("{\"cursor\":\"…\"}", "{\"cursor\":\"AQ\",\"more\":true}"));
    assert!(!line_matches("12 files", "13 files"));
    assert!(!line_matches("watching", "watching 2"));
    assert_eq!(missing("a\nb\n", "x\na\ny\nb\n"), None);
    assert_eq!(missing("a\nb\n", "b\na\n"), Some("b"));
}

#[test]
fn the_output_belongs_to_the_commands_before_it() {
    let text =
        "```sh tour\nls\n```\nIt says\n```text\nx\n```\n```sh\nno\n```\n```text\ny\n```\n```sh tour-beside\ncat\n```\n";
    let steps = tour(text);
    assert_eq!(steps.len(), 2);
    assert_eq!(
        (steps[0].line, steps[0].commands.as_str(), steps[0].prints.as_deref()),
        (2, "ls\n", Some("x\n"))
    );
    assert_eq!((&steps[1].how, steps[1].prints.as_deref()), (&How::Beside, None));
}
