//! Clients that poll, and streams that take over a session.

use crate::clients::{Ask, Connection, Town, Transport, encoding, hold_from};
use tidings_router::edge::PollPage;

impl Town {
    /// One poll: with the objects to add and to remove.
    pub fn poll(&mut self, client: usize, add: Vec<String>, remove: Vec<String>) {
        let entries = self.entries(client, &add);
        let wait_us = self.random.range(0, 2_000_000);
        let until_us = self.world.now.mono_us + wait_us;
        let person = &mut self.clients[client];
        for object in &remove {
            person.held.remove(object);
        }
        let cursor = person.cursor.clone();
        let step = self.world.step;
        if cursor.is_some() {
            hold_from(person, &add, step);
        }
        let Some(connection) = &mut person.connection else {
            return;
        };
        connection.live.extend(add.iter().cloned());
        remove.iter().for_each(|object| _ = connection.live.remove(object));
        connection.poll = Some((until_us, step));
        let (lane, who) = (connection.lane, connection.who);
        let page = PollPage {
            entries,
            remove: remove.iter().map(|o| o.as_str().into()).collect(),
            cursor,
            trace: false,
        };
        self.note(
            client,
            format_args!("polls, adds {}, removes {}", add.join(" "), remove.join(" ")),
        );
        if self
            .world
            .lane(lane, |l, now, out| l.poll(now, who, page, out))
            .is_err()
        {
            self.note(client, "session unknown");
            self.clients[client].connection = None;
        }
    }

    /// Polls again, and at once as long as answers say that there is more.
    pub fn poll_on(&mut self, client: usize) {
        for _ in 0..1000 {
            if !self.may_poll(client) {
                return;
            }
            self.poll(client, Vec::new(), Vec::new());
            self.pump();
            if !self.clients[client]
                .connection
                .as_ref()
                .is_some_and(|c| c.poll.is_none() && c.more)
            {
                return;
            }
        }
        panic!("`more` never ends");
    }

    /// An event stream takes over the client's session, whatever that is doing.
    pub fn attach(&mut self, client: usize) {
        let (step, lost) = (self.world.step, self.world.lost);
        let person = &mut self.clients[client];
        let Some(connection) = &mut person.connection else {
            return;
        };
        connection.transport = Transport::EventStream;
        connection.poll = None;
        connection.told.clear();
        let objects = connection.live.iter().cloned().collect();
        let cursor = person.cursor.clone();
        let asked = Ask {
            objects,
            at_least: Vec::new(),
            step,
            lost,
            cursor: cursor.is_some(),
            more: false,
        };
        connection.ask = Some(asked);
        let (lane, who) = (connection.lane, connection.who);
        let kind = encoding(Transport::EventStream);
        self.note(client, "streams its session");
        if self
            .world
            .lane(lane, |l, now, out| {
                l.attach(now, who, kind, cursor.as_deref(), false, out)
            })
            .is_err()
        {
            self.note(client, "session unknown");
            self.clients[client].connection = None;
        }
    }

    /// Whether the client could poll now.
    pub fn may_poll(&self, client: usize) -> bool {
        let may = |c: &Connection| c.transport == Transport::Poll && c.poll.is_none();
        self.clients[client].connection.as_ref().is_some_and(may)
    }
}
