//! The workers of a run, whether they are threads of this process or of others: the conductor talks to both alike.
//!
//! Other processes are this very program again, told over its standard input what to do, a line of JSON for each order;
//! its reports come as lines on its standard output.

use crate::messages::{Order, Report, Setup, Word};
use crate::population::Watched;
use crate::worker::{Line, Worker};
use mio::Waker;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

/// The word on the command line that makes this program a part of another one's run.
pub(crate) const CREW: &str = "crew";

/// Some workers together.
pub(crate) struct Crew {
    reports: Receiver<Report>,
    hands: Vec<Hand>,
}

enum Hand {
    Thread {
        orders: Sender<Order>,
        waker: Arc<Waker>,
        thread: Option<JoinHandle<()>>,
    },
    Process {
        child: Child,
        stdin: Option<ChildStdin>,
        reader: Option<JoinHandle<()>>,
    },
}

impl Crew {
    /// Threads of this process.
    pub(crate) fn of_threads(setup: &Setup) -> Result<Self, String> {
        let (sender, reports) = mpsc::channel();
        let watched = Arc::new(Watched::of(&setup.scenario));
        let mut hands = Vec::new();
        for part in &setup.workers {
            let (orders, received) = mpsc::channel();
            let line = Line {
                orders: received,
                reports: sender.clone(),
            };
            let (worker, waker) = Worker::new(setup, *part, Arc::clone(&watched), line)?;
            let thread = thread::Builder::new()
                .name(format!("worker {}", part.index))
                .spawn(move || worker.run())
                .map_err(|error| error.to_string())?;
            hands.push(Hand::Thread {
                orders,
                waker,
                thread: Some(thread),
            });
        }
        Ok(Self { reports, hands })
    }

    /// Processes of their own, one for each setup.
    pub(crate) fn of_processes(setups: &[Setup]) -> Result<Self, String> {
        let (sender, reports) = mpsc::channel();
        let mut crew = Self {
            reports,
            hands: Vec::new(),
        };
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        for setup in setups {
            let mut child = Command::new(&program)
                .arg(CREW)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                // An interrupt from the terminal ends the load here first, in order.
                .process_group(0)
                .spawn()
                .map_err(|error| format!("{}: {error}", program.display()))?;
            let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
            let first = setup.workers.first().map_or(0, |part| part.index);
            let sender = sender.clone();
            let workers = setup.workers.len();
            let reader = stdout.map(|stdout| thread::spawn(move || pass_on(stdout, first, workers, &sender)));
            let hand = Hand::Process { child, stdin, reader };
            crew.hands.push(hand);
            let line = serde_json::to_string(setup).map_err(|error| error.to_string())?;
            crew.write_line(crew.hands.len() - 1, &line)?;
        }
        Ok(crew)
    }

    fn write_line(&mut self, at: usize, line: &str) -> Result<(), String> {
        if let Some(Hand::Process { stdin: Some(stdin), .. }) = self.hands.get_mut(at) {
            let written = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
            return written.map_err(|error| format!("a generating process cannot be reached: {error}"));
        }
        Ok(())
    }

    /// Tells all.
    pub(crate) fn order(&mut self, order: &Order) -> Result<(), String> {
        let line = serde_json::to_string(order).map_err(|error| error.to_string())?;
        for at in 0..self.hands.len() {
            if let Hand::Thread { orders, waker, .. } = &self.hands[at] {
                // A worker that is gone has said why.
                let _ = orders.send(order.clone());
                let _ = waker.wake();
            } else {
                self.write_line(at, &line)?;
            }
        }
        Ok(())
    }

    /// What comes from all.
    pub(crate) fn reports(&self) -> &Receiver<Report> {
        &self.reports
    }

    /// The processes to be watched: this one, or the others.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let others = self.hands.iter().filter_map(|hand| match hand {
            Hand::Process { child, .. } => Some(child.id()),
            Hand::Thread { .. } => None,
        });
        let others: Vec<_> = others.collect();
        if others.is_empty() {
            vec![std::process::id()]
        } else {
            others
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for hand in &mut self.hands {
            match hand {
                Hand::Thread { orders, waker, thread } => {
                    let _ = orders.send(Order::Quit);
                    let _ = waker.wake();
                    if let Some(thread) = thread.take() {
                        let _ = thread.join();
                    }
                }
                Hand::Process { child, stdin, reader } => {
                    // The end of its input tells it to go; one that does not listen is not waited for.
                    drop(stdin.take());
                    for _ in 0..100 {
                        if !matches!(child.try_wait(), Ok(None)) {
                            break;
                        }
                        thread::sleep(std::time::Duration::from_millis(20));
                    }
                    let _ = child.kill();
                    let _ = child.wait();
                    if let Some(reader) = reader.take() {
                        let _ = reader.join();
                    }
                }
            }
        }
    }
}

/// Hands on what another process reports, until it has nothing more to say.
fn pass_on(stdout: ChildStdout, first: u32, workers: usize, sender: &Sender<Report>) {
    let mut ended = 0;
    for line in BufReader::new(stdout).lines() {
        let report = line
            .map_err(|error| error.to_string())
            .and_then(|line| serde_json::from_str(&line).map_err(|error| format!("{error} in {line:.200}")));
        let report: Report = report.unwrap_or_else(|why| Report {
            worker: first,
            word: Word::Failed(format!("a generating process: {why}")),
        });
        ended += usize::from(matches!(report.word, Word::Ended { .. } | Word::Failed(_)));
        if sender.send(report).is_err() {
            return;
        }
    }
    if ended < workers {
        let word = Word::Failed("a generating process ended by itself".to_owned());
        // After the run nobody listens any more.
        let _ = sender.send(Report { worker: first, word });
    }
}

/// This process is a part of another one's run: does what standard input says.
pub(crate) fn serve() -> Result<(), String> {
    crate::limits::descriptors();
    let mut setup = String::new();
    io::stdin().read_line(&mut setup).map_err(|error| error.to_string())?;
    let setup: Setup = serde_json::from_str(&setup).map_err(|error| format!("the setup: {error}"))?;
    let say = |report: &Report| {
        let line = serde_json::to_string(report).map_err(|error| error.to_string())?;
        writeln!(io::stdout(), "{line}").map_err(|error| error.to_string())
    };
    let crew = Crew::of_threads(&setup);
    let mut crew = match crew {
        Ok(crew) => crew,
        Err(why) => {
            let worker = setup.workers.first().map_or(0, |part| part.index);
            return say(&Report {
                worker,
                word: Word::Failed(why),
            });
        }
    };
    let (sender, orders) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if serde_json::from_str::<Order>(&line).is_ok_and(|order| sender.send(order).is_err()) {
                return;
            }
        }
    });
    let mut ended = 0;
    loop {
        match orders.try_recv() {
            Ok(order) => crew.order(&order)?,
            // Whoever started us is gone.
            Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
            Err(mpsc::TryRecvError::Empty) => {}
        }
        if let Ok(report) = crew.reports().recv_timeout(std::time::Duration::from_millis(5)) {
            ended += usize::from(matches!(report.word, Word::Ended { .. } | Word::Failed(_)));
            say(&report)?;
        }
        if ended == setup.workers.len() {
            return Ok(());
        }
    }
}
