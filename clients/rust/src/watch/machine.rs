//! The watch as one machine: what came and what time it is go in, what to do comes out.
//!
//! The shell that owns it performs each [`Output`] in order, hands in each [`Input`] with the time, and calls
//! [`Machine::handle_deadline`] when [`Machine::next_deadline`] has come. It owns at most one connection at a time: an old
//! one is closed before another is made.
//!
//! Times are milliseconds of any clock that only goes forward.

use super::ledger::{Change, Ledger, Ticket};
use super::route::{Route, Transport};
use super::talk::{Book, PollTalk, RefusedObject, SocketTalk, Step, StreamTalk, Talk};
use super::terms::{Ended, Input, Output, Settings, Status};
use super::verdict::{StopReason, Verdict, printable};
use crate::wire::ProblemDocument;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tidings_protocol::Version;

/// A connection that has been live for so long was a good one: the next wait is a first one again.
const GOOD_AFTER_MS: u64 = 10_000;
/// How long the end may take after the server asked to leave.
const LEAVE_MS: u64 = 5_000;
/// The longest silence that a server may ask to be patient with.
const LONGEST_SILENCE_MS: u64 = 3_600_000;
/// A poll that is answered sooner than this without news is not repeated at once.
const QUICK_POLL_MS: u64 = 100;
/// The longest pause between polls that are answered too soon.
const LONGEST_PAUSE_MS: u64 = 5_000;

/// See the module.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    book: Book,
    route: Route,
    talk: Option<Talk>,
    /// Its number.
    connection: u64,
    status: Status,
    outputs: VecDeque<Output>,
    now_ms: u64,
    times: Times,
    wish: Option<(u64, String)>,
    retry_ms: Option<u64>,
    quick_polls: u32,
    polled_ms: u64,
    asks: u32,
    stale: bool,
    greeted: bool,
}

/// When something is to be done.
#[derive(Clone, Debug, Default)]
struct Times {
    /// The path is dead if nothing was heard until then.
    silent_ms: Option<u64>,
    /// How long silence may last.
    silence_ms: u64,
    connect_ms: Option<u64>,
    leave_ms: Option<u64>,
    ask_again_ms: Option<u64>,
    better_ms: Option<u64>,
    poll: Option<(u64, Vec<u8>)>,
    well_ms: Option<u64>,
}

impl Times {
    fn all(&self) -> [Option<u64>; 7] {
        let poll_ms = self.poll.as_ref().map(|(at, _)| *at);
        let early = [self.silent_ms, self.connect_ms, self.leave_ms, self.ask_again_ms];
        [
            early[0],
            early[1],
            early[2],
            early[3],
            self.better_ms,
            poll_ms,
            self.well_ms,
        ]
    }
}

fn due(time: &mut Option<u64>, now_ms: u64) -> bool {
    time.take_if(|at| *at <= now_ms).is_some()
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Machine {
    /// Watches `objects`, each with the version that is known of it, from `cursor` on, if there is one. `seed` is random.
    /// It does nothing before [`Machine::start`].
    #[must_use]
    pub fn new<'a>(
        settings: Settings,
        objects: impl IntoIterator<Item = (&'a str, Option<Version>)>,
        cursor: Option<&str>,
        seed: u64,
    ) -> Self {
        let mut ledger = Ledger::new(cursor);
        for (object, known) in objects {
            ledger.begin(object, known);
        }
        Self {
            route: Route::new(settings.servers, settings.transport, settings.waits, seed),
            settings,
            book: Book {
                ledger,
                refusals: Default::default(),
            },
            talk: None,
            connection: 0,
            status: Status::Idle,
            outputs: VecDeque::new(),
            now_ms: 0,
            times: Times::default(),
            wish: None,
            retry_ms: None,
            quick_polls: 0,
            polled_ms: 0,
            asks: 0,
            stale: false,
            greeted: false,
        }
    }

    /// Begins.
    pub fn start(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.connect();
    }

    /// Watches more. Those that are watched already stay as they are.
    pub fn add<'a>(&mut self, now_ms: u64, objects: impl IntoIterator<Item = (&'a str, Option<Version>)>) {
        self.now_ms = now_ms;
        let mut added = Vec::new();
        for (object, known) in objects {
            if self.book.ledger.add(object, known) {
                self.book.refusals.remove(object);
                added.push(Arc::from(object));
            }
        }
        self.changed(&added, &[]);
    }

    /// Watches these no longer: nothing more is handed out of them.
    pub fn remove<'a>(&mut self, now_ms: u64, objects: impl IntoIterator<Item = &'a str>) {
        self.now_ms = now_ms;
        let mut removed = Vec::new();
        for object in objects {
            self.book.refusals.remove(object);
            if self.book.ledger.remove(object) {
                removed.push(Arc::from(object));
            }
        }
        self.changed(&[], &removed);
    }

    fn changed(&mut self, added: &[Arc<str>], removed: &[Arc<str>]) {
        if self.status == Status::Idle {
            return self.connect();
        }
        if matches!(self.status, Status::Stopped(_)) || added.is_empty() && removed.is_empty() {
            return;
        }
        let mut steps = Vec::new();
        if let Some(talk) = &mut self.talk {
            if !added.is_empty()
                && let Status::Live { server, transport, .. } = self.status
            {
                self.status = Status::Connecting { server, transport };
            }
            talk.changed(&mut self.book, added, removed, &mut steps);
        }
        if self.book.ledger.len() == 0 {
            self.disconnect(1000);
            self.forget();
            self.status = Status::Idle;
            return;
        }
        self.perform(steps);
    }

    /// What came over the connection of this number. What comes over one that was given up is passed over.
    pub fn handle(&mut self, now_ms: u64, connection: u64, input: Input<'_>) {
        self.now_ms = now_ms;
        if connection != self.connection {
            return;
        }
        let mut steps = Vec::new();
        match (input, &mut self.talk) {
            (Input::Ended(ended), Some(_)) => return self.ended(ended),
            // It was given up.
            (_, None) => return,
            (Input::Text(text), Some(Talk::Socket(talk))) => talk.text(&mut self.book, text, &mut steps),
            (Input::Block(block), Some(Talk::Stream(talk))) => talk.block(&mut self.book, block, &mut steps),
            (Input::Answer(body), Some(Talk::Poll(talk))) => {
                self.greeted = true;
                let had_news = self.book.ledger.has_news();
                talk.answer(&mut self.book, body, &mut steps);
                let quick = now_ms.saturating_sub(self.polled_ms) < QUICK_POLL_MS;
                let news = !had_news && self.book.ledger.has_news();
                self.quick_polls = if quick && !news { self.quick_polls + 1 } else { 0 };
            }
            _ => {}
        }
        if self.greeted {
            self.heard();
        }
        self.perform(steps);
    }

    fn heard(&mut self) {
        self.times.silent_ms = Some(self.now_ms.saturating_add(self.times.silence_ms));
    }

    fn perform(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Send(frame) => self.outputs.push_back(Output::Send(frame)),
                Step::Poll(body) => self.poll(body),
                Step::NextPoll(body) => self.next_poll(body),
                Step::Live => self.live(),
                Step::AskLater => {
                    if self.times.ask_again_ms.is_none() {
                        let wait = self.route.waits().after(self.asks, self.route.random());
                        self.asks += 1;
                        self.times.ask_again_ms = Some(self.now_ms.saturating_add(ms(wait)));
                    }
                    self.unless_all_refused();
                }
                Step::Hello(ping_ms) => {
                    self.greeted = true;
                    let silence_ms = ping_ms.saturating_add(ms(self.settings.grace));
                    self.times.silence_ms = silence_ms.min(LONGEST_SILENCE_MS);
                    self.heard();
                }
                Step::Leave(after_ms, why) => {
                    let why = printable(&format!("the server asks to come back later ({why})"));
                    self.wish = Some((after_ms, why.clone()));
                    match self.talk {
                        // Nothing follows an answer.
                        Some(Talk::Poll(_)) => return self.end(Verdict::come_back(&why)),
                        _ => self.times.leave_ms = Some(self.now_ms + LEAVE_MS),
                    }
                }
                Step::Retry(retry_ms) => self.retry_ms = Some(retry_ms),
                Step::Reopen => {
                    self.disconnect(1000);
                    return self.connect();
                }
                Step::Stale(stale) => {
                    self.stale = stale;
                    if let Status::Live { stale: shown, .. } = &mut self.status {
                        *shown = stale;
                    }
                }
                Step::End(verdict) => {
                    self.disconnect(1000);
                    return self.end(verdict);
                }
            }
        }
    }

    fn next_poll(&mut self, body: Vec<u8>) {
        if self.quick_polls > 1 {
            let pause_ms = (QUICK_POLL_MS << self.quick_polls.min(10)).min(LONGEST_PAUSE_MS);
            self.times.poll = Some((self.now_ms + pause_ms, body));
            self.times.silent_ms = None;
            return;
        }
        self.poll(body);
    }

    fn poll(&mut self, body: Vec<u8>) {
        self.polled_ms = self.now_ms;
        self.times.poll = None;
        self.times.silence_ms = ms(self.settings.poll_wait + self.settings.grace);
        self.heard();
        self.connection += 1;
        let connection = self.connection;
        self.outputs.push_back(Output::Poll { connection, body });
    }

    fn live(&mut self) {
        if !self.book.refusals.values().any(|refused| refused.retryable) {
            self.asks = 0;
        }
        self.route.works();
        if let Status::Connecting { server, transport } = self.status {
            let stale = self.stale;
            self.status = Status::Live {
                server,
                transport,
                stale,
            };
            self.times.well_ms = Some(self.now_ms + GOOD_AFTER_MS);
            if self.route.has_better() && self.times.better_ms.is_none() {
                self.times.better_ms = Some(self.now_ms.saturating_add(ms(self.settings.better_after)));
            }
        }
        self.unless_all_refused();
    }

    fn unless_all_refused(&mut self) {
        if self.book.ledger.len() == 0 && !self.book.refusals.is_empty() {
            let why = self
                .book
                .refusals
                .values()
                .next()
                .map(|refused| refused.message.clone());
            self.disconnect(1000);
            let detail = why.unwrap_or_default();
            self.end(Verdict::stop(StopReason::AllRefused, detail));
        }
    }

    /// The connection is there no longer, by our will or not.
    fn forget(&mut self) {
        self.talk = None;
        self.greeted = false;
        self.stale = false;
        self.quick_polls = 0;
        self.retry_ms = None;
        self.times = Times {
            better_ms: self.times.better_ms,
            ..Times::default()
        };
    }

    fn disconnect(&mut self, code: u16) {
        if self.talk.is_some() {
            self.forget();
            self.outputs.push_back(Output::Disconnect { code });
        }
    }

    fn connect(&mut self) {
        self.forget();
        self.wish = None;
        if self.book.ledger.len() == 0 {
            self.status = Status::Idle;
            return;
        }
        let (server, transport) = (self.route.server(), self.route.transport());
        let (talk, body) = match transport {
            Transport::Auto | Transport::WebSocket => (Talk::Socket(SocketTalk::new()), Vec::new()),
            Transport::Events => {
                let (talk, body) = StreamTalk::open(&mut self.book);
                (Talk::Stream(talk), body)
            }
            Transport::LongPoll => {
                let (talk, body) = PollTalk::open(&mut self.book, ms(self.settings.poll_wait));
                (Talk::Poll(talk), body)
            }
        };
        self.talk = Some(talk);
        self.status = Status::Connecting { server, transport };
        let patience = match transport {
            // With a cursor, the first poll waits for news like any other.
            Transport::LongPoll => self.settings.poll_wait + self.settings.grace,
            _ => self.settings.opening,
        };
        self.times.silence_ms = ms(patience);
        self.polled_ms = self.now_ms;
        self.heard();
        self.connection += 1;
        self.outputs.push_back(Output::Connect {
            connection: self.connection,
            server,
            transport,
            body,
        });
    }

    fn ended(&mut self, ended: Ended<'_>) {
        let verdict = match ended {
            Ended::Unreachable(why) => Verdict::come_back(&why),
            Ended::Unusable(why) => Verdict::Unusable(printable(&why)),
            Ended::Closed { code, reason } => Verdict::of_close(code, reason),
            Ended::Refused { status, body, .. } if self.is_forgotten_session(status, body) => {
                let mut steps = Vec::new();
                if let Some(Talk::Poll(talk)) = &mut self.talk {
                    talk.forgotten(&mut self.book, &mut steps);
                }
                return self.perform(steps);
            }
            Ended::Refused {
                status,
                retry_after_s,
                body,
            } => Verdict::of_status(status, retry_after_s, body),
            Ended::Cut(why) => {
                // A server that cannot be reached is not the transport's fault; a path that gives way may be.
                if !self.greeted {
                    self.route.strike();
                }
                Verdict::come_back(&format!("the connection was cut: {why}"))
            }
        };
        self.end(verdict);
    }

    fn is_forgotten_session(&self, status: u16, body: &[u8]) -> bool {
        status == 410
            && matches!(self.talk, Some(Talk::Poll(_)))
            && ProblemDocument::read(body).code == "session_unknown"
    }

    /// There is no connection any more.
    fn end(&mut self, verdict: Verdict) {
        let retry_ms = self.retry_ms;
        self.forget();
        let (why, wait) = match (verdict, self.wish.take()) {
            (Verdict::Stop(stop), _) => {
                self.status = Status::Stopped(stop);
                return;
            }
            (Verdict::Unusable(why), _) => match self.route.unusable(why) {
                Ok(()) => return self.connect(),
                Err(stop) => {
                    self.status = Status::Stopped(stop);
                    return;
                }
            },
            // The server spreads its clients out by its wishes.
            (Verdict::ComeBack { .. }, Some((after_ms, why))) => (why, self.route.wish(after_ms, false)),
            (Verdict::ComeBack { why, at_least_ms }, None) => match (at_least_ms, retry_ms) {
                // Everyone is told the same time: spread out behind it.
                (Some(ms), _) => (why, self.route.wish(ms, true)),
                (None, Some(ms)) => (why, self.route.wish(ms, true)),
                (None, None) => (why, self.route.next()),
            },
        };
        self.times.connect_ms = Some(self.now_ms.saturating_add(ms(wait)));
        self.status = Status::Waiting { why, wait };
    }

    /// When [`Machine::handle_deadline`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.times.all().into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_deadline(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        if due(&mut self.times.connect_ms, now_ms) {
            self.connect();
        }
        if due(&mut self.times.well_ms, now_ms) {
            self.route.well();
        }
        if due(&mut self.times.leave_ms, now_ms) {
            self.disconnect(1000);
            self.end(Verdict::come_back("the server asks to come back later"));
        }
        if due(&mut self.times.silent_ms, now_ms) {
            let seconds = self.times.silence_ms as f64 / 1000.0;
            if !self.greeted {
                self.route.strike();
            }
            self.disconnect(1000);
            self.end(Verdict::come_back(&format!("nothing was heard for {seconds} s")));
        }
        if due(&mut self.times.ask_again_ms, now_ms)
            && let Some(talk) = &mut self.talk
        {
            let mut steps = Vec::new();
            talk.ask_again(&mut self.book, &mut steps);
            self.perform(steps);
        }
        if let Some((_, body)) = self.times.poll.take_if(|(at, _)| *at <= now_ms) {
            self.poll(body);
        }
        if due(&mut self.times.better_ms, now_ms) && self.route.has_better() {
            self.route.try_better();
            if self.talk.is_some() {
                self.disconnect(1000);
                self.connect();
            }
        }
    }

    /// The next thing to do.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next change for the application; it counts as unhandled.
    pub fn hand_out(&mut self) -> Option<Change> {
        self.book.ledger.hand_out()
    }

    /// Whether there is one.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.book.ledger.has_news()
    }

    /// The application has handled this change.
    pub fn handled(&mut self, ticket: Ticket) {
        self.book.ledger.handled(ticket);
    }

    /// The application has handled every change that was handed out.
    pub fn handled_all(&mut self) {
        self.book.ledger.handled_all();
    }

    /// How many changes are handed out and not handled.
    #[must_use]
    pub fn unhandled(&self) -> usize {
        self.book.ledger.unhandled()
    }

    /// A place that vouches for everything before it having been handled; `None` as long as there is none.
    #[must_use]
    pub fn cursor(&self) -> Option<Arc<str>> {
        self.book.ledger.cursor().cloned()
    }

    /// Whether that cursor speaks for the object. One that was added with a version known from elsewhere must be added in
    /// this way again, if its watch is resumed by a cursor that does not.
    #[must_use]
    pub fn vouches(&self, object: &str) -> bool {
        self.book.ledger.vouches(object)
    }

    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// As it was made.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is watched.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<str>> {
        self.book.ledger.objects()
    }

    /// Why objects are not watched, or not for now.
    pub fn refused(&self) -> impl Iterator<Item = (&Arc<str>, &RefusedObject)> {
        self.book.refusals.iter()
    }

    /// The newest version that was told of an object, or that it had when it was first subscribed.
    #[must_use]
    pub fn version(&self, object: &str) -> Option<Version> {
        self.book.ledger.version(object)
    }
}
