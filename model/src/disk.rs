//! One node and its disk: what survives the process, and what the machine (rules R11 and those of decision 0009).
//!
//! What is written is in the system's memory and outlives the process; only what was synced outlives the machine. What was
//! not synced may survive or not, each thing by itself. The floor rises only where acknowledgements without sync were
//! given and the machine went down.

use crate::front::{Aside, Version};
use crate::rule::{Rule, Rules};
use stateright::{Model, Property};

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// Publishes.
    pub publishes: u8,
    /// Starts after the first.
    pub starts: u8,
    /// Versions that a ceiling allows at a time.
    pub room: u8,
    /// Raises of the ceiling.
    pub raises: u8,
    /// The rules in force.
    pub rules: Rules,
}

/// What a disk holds, or what the system's memory shows of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Files {
    /// The versions in the log, as a mask.
    pub log: u32,
    /// No version above was given.
    pub ceiling: Version,
    /// The last run ended in order.
    pub clean: bool,
    /// An acknowledgement without sync was given since the start.
    pub unsynced: bool,
    /// The last run began in this start of the machine, in an earlier one, or never.
    pub boot: Boot,
    /// The floor.
    pub floor: Version,
}

/// A start of the machine, as seen from the present one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Boot {
    /// None.
    #[default]
    Never,
    /// The present one.
    This,
    /// One before.
    Earlier,
}

/// What the process is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It does not run.
    #[default]
    Down,
    /// It runs and has not looked at its disk.
    Starting,
    /// It knows what it had; a floor that rose is not synced yet.
    Loaded,
    /// The floor is synced; the markers of the last run are still there.
    Kept,
    /// It takes publishes.
    Serving,
}

/// One state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// What the process does.
    pub phase: Phase,
    /// What it has in memory.
    pub table: u32,
    /// Its floor.
    pub floor: Version,
    /// The last version it gave.
    pub last: Version,
    /// It may give up to here.
    pub ceiling: Version,
    /// As written.
    pub written: Files,
    /// As synced.
    pub synced: Files,
    /// History: acknowledged, as a mask.
    pub acked: u32,
    /// History: acknowledged as synced.
    pub promised_synced: u32,
    /// History: the highest version ever given.
    pub used: Version,
    /// History: the machine went down while an acknowledgement without sync was not synced.
    pub doubtful: bool,
    /// A version was given twice.
    pub reused: bool,
    /// A floor rose for nothing.
    pub needless: bool,
    /// For reachability.
    pub seen: Aside<u8>,
    /// Publishes left.
    pub publishes: u8,
    /// Starts left.
    pub starts: u8,
    /// Raises left.
    pub raises: u8,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A change gets a version.
    Publish,
    /// The log is written.
    Write,
    /// The log is synced.
    Sync,
    /// The marker of acknowledgements without sync is written and synced.
    Mark,
    /// A change is acknowledged as written.
    Acknowledge(u8),
    /// A change is acknowledged as synced.
    AcknowledgeSynced(u8),
    /// A higher ceiling is written.
    WriteCeiling,
    /// It is synced, and used.
    SyncCeiling,
    /// The process stops in order.
    Stop,
    /// The process dies.
    Kill,
    /// The machine goes down. Each thing that was not synced survives or not, as this mask says.
    LosePower(u8),
    /// The process starts.
    Start,
    /// It loads.
    Load,
    /// It syncs its floor, and the log as it found it.
    KeepFloor,
    /// It removes the markers of the last run, and syncs that.
    Begin,
}

const SEEN_DOUBT: u8 = 1;
const SEEN_EXACT_AFTER_POWER: u8 = 2;
const SEEN_ACK: u8 = 4;
const SEEN_CLEAN: u8 = 8;

impl Model for Disk {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            phase: Phase::Starting,
            publishes: self.publishes,
            starts: self.starts,
            raises: self.raises,
            ..State::default()
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.phase != Phase::Down {
            actions.push(Action::Kill);
        } else if state.starts > 0 {
            actions.push(Action::Start);
        }
        if state.starts > 0 && (state.phase != Phase::Down || state.written.boot == Boot::This) {
            let marks = u8::from(state.written.log != state.synced.log)
                | u8::from(state.written.ceiling != state.synced.ceiling) << 1
                | u8::from(state.written.clean != state.synced.clean) << 2
                | u8::from(state.written.unsynced != state.synced.unsynced) << 3
                | u8::from(state.written.floor != state.synced.floor) << 4;
            let lost = (0..32).filter(|kept| kept & !marks == 0);
            actions.extend(lost.map(Action::LosePower));
        }
        match state.phase {
            Phase::Down => {}
            Phase::Starting => actions.push(Action::Load),
            Phase::Loaded => actions.push(Action::KeepFloor),
            Phase::Kept => actions.push(Action::Begin),
            Phase::Serving => self.serving(state, actions),
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.step(&mut next, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always("P1 what was acknowledged is kept or confessed", |model, state| {
                !model.answers(state) || state.acked & !state.table & !below(state.floor) == 0
            }),
            Property::<Self>::always("durable means durable", |model, state| {
                !model.answers(state) || state.promised_synced & !state.table & !below(state.floor) == 0
            }),
            Property::<Self>::always("I8 no version is given twice", |_, state| !state.reused),
            Property::<Self>::always("P2 no needless doubt", |_, state| !state.needless),
            Property::<Self>::sometimes("a floor rises", |_, s| s.seen.0 & SEEN_DOUBT != 0),
            Property::<Self>::sometimes("a power loss is survived exactly", |_, s| {
                s.seen.0 & SEEN_EXACT_AFTER_POWER != 0
            }),
            Property::<Self>::sometimes("a publish is acknowledged", |_, s| s.seen.0 & SEEN_ACK != 0),
            Property::<Self>::sometimes("a clean stop is recognised", |_, s| s.seen.0 & SEEN_CLEAN != 0),
        ]
    }
}

/// The versions below a floor, as a mask.
fn below(floor: Version) -> u32 {
    (1u32 << floor) - 1
}

impl Disk {
    /// Whether registrations are answered.
    fn answers(&self, state: &State) -> bool {
        match state.phase {
            Phase::Serving | Phase::Kept => true,
            Phase::Starting | Phase::Loaded => !self.rules.has(Rule::LoadedBeforeServing),
            Phase::Down => false,
        }
    }

    fn serving(&self, state: &State, actions: &mut Vec<Action>) {
        if state.publishes > 0 && state.last < state.ceiling {
            actions.push(Action::Publish);
        }
        if state.table != state.written.log {
            actions.push(Action::Write);
        }
        if state.written.log != state.synced.log {
            actions.push(Action::Sync);
        }
        if !state.synced.unsynced {
            actions.push(Action::Mark);
        }
        let marked = state.synced.unsynced || !self.rules.has(Rule::UnsyncedMarkerFirst);
        for version in 1..=state.last {
            let bit = 1 << version;
            if state.table & bit == 0 {
                continue;
            }
            let late = self.rules.has(Rule::AckBehindDisk);
            if marked && state.acked & bit == 0 && (state.written.log & bit != 0 || !late) {
                actions.push(Action::Acknowledge(version));
            }
            if state.promised_synced & bit == 0 && (state.synced.log & bit != 0 || !late) {
                actions.push(Action::AcknowledgeSynced(version));
            }
        }
        if state.raises > 0 && state.written.ceiling == state.ceiling {
            actions.push(Action::WriteCeiling);
        }
        if state.written.ceiling != state.ceiling {
            actions.push(Action::SyncCeiling);
        }
        actions.push(Action::Stop);
    }

    fn step(&self, state: &mut State, action: Action) {
        match action {
            Action::Publish => {
                state.publishes -= 1;
                state.last += 1;
                state.reused |= state.last <= state.used;
                state.used = state.used.max(state.last);
                state.table |= 1 << state.last;
            }
            Action::Write => state.written.log = state.table,
            Action::Sync => state.synced.log = state.written.log,
            Action::Mark => {
                state.written.unsynced = true;
                state.synced.unsynced = true;
            }
            Action::Acknowledge(version) => {
                state.acked |= 1 << version;
                state.seen.0 |= SEEN_ACK;
            }
            Action::AcknowledgeSynced(version) => state.promised_synced |= 1 << version,
            Action::WriteCeiling => {
                state.raises -= 1;
                state.written.ceiling += self.room;
                if !self.rules.has(Rule::CeilingSyncedFirst) {
                    state.ceiling = state.written.ceiling;
                }
            }
            Action::SyncCeiling => {
                state.synced.ceiling = state.written.ceiling;
                state.ceiling = state.written.ceiling;
            }
            Action::Stop => {
                state.written.log = state.table;
                state.written.clean = true;
                state.written.ceiling = state.synced.ceiling;
                state.synced = state.written;
                self.down(state);
            }
            Action::Kill => self.down(state),
            Action::LosePower(kept) => self.lose_power(state, kept),
            Action::Start => {
                state.starts -= 1;
                state.phase = Phase::Starting;
            }
            Action::Load => self.load(state),
            Action::KeepFloor => {
                state.written.floor = state.floor;
                if self.rules.has(Rule::FloorSyncedFirst) {
                    state.synced.floor = state.floor;
                }
                if self.rules.has(Rule::LogSyncedFirst) {
                    state.synced.log = state.written.log;
                }
                state.phase = Phase::Kept;
            }
            Action::Begin => self.begin(state),
        }
    }

    fn down(&self, state: &mut State) {
        (state.phase, state.table, state.floor) = (Phase::Down, 0, 0);
        (state.last, state.ceiling) = (0, 0);
    }

    fn lose_power(&self, state: &mut State, kept: u8) {
        let keeps = |bit: u8| kept & 1 << bit != 0;
        let (written, synced) = (state.written, &mut state.synced);
        synced.log = if keeps(0) { written.log } else { synced.log };
        synced.ceiling = if keeps(1) { written.ceiling } else { synced.ceiling };
        synced.clean = if keeps(2) { written.clean } else { synced.clean };
        synced.unsynced = if keeps(3) { written.unsynced } else { synced.unsynced };
        synced.floor = if keeps(4) { written.floor } else { synced.floor };
        // Doubt is due where the marker stood and the run did not end in order.
        state.doubtful |= state.synced.unsynced && !state.synced.clean;
        if state.synced.boot == Boot::This {
            state.synced.boot = Boot::Earlier;
        }
        state.written = state.synced;
        self.down(state);
    }

    fn load(&self, state: &mut State) {
        let files = state.written;
        state.table = files.log;
        state.floor = files.floor;
        state.last = files.ceiling;
        state.ceiling = files.ceiling;
        let rebooted = files.boot == Boot::Earlier;
        let doubt = if self.rules.has(Rule::NoNeedlessDoubt) {
            !files.clean && rebooted && files.unsynced
        } else {
            !files.clean && files.boot != Boot::Never
        };
        if doubt {
            state.needless |= !state.doubtful;
            state.floor = files.ceiling + 1;
            state.seen.0 |= SEEN_DOUBT;
        } else if rebooted {
            state.seen.0 |= SEEN_EXACT_AFTER_POWER;
        }
        if files.clean {
            state.seen.0 |= SEEN_CLEAN;
        }
        state.phase = Phase::Loaded;
    }

    fn begin(&self, state: &mut State) {
        state.written.boot = Boot::This;
        state.written.unsynced = false;
        state.written.clean = false;
        state.synced.boot = Boot::This;
        state.synced.unsynced = false;
        if self.rules.has(Rule::MarkerRemovedFirst) {
            state.synced.clean = false;
        }
        state.doubtful = false;
        state.phase = Phase::Serving;
    }
}
