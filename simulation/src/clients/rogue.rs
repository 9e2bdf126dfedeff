//! Clients that break the rules.

use crate::plan::CLUSTER;
use crate::wire::{Request, Transport, Wish};
use crate::world::World;
use tidings_protocol::{ClusterId, Cursor, Version};

impl World {
    pub(super) fn rogue_turn(&mut self, client: usize) {
        let connected = self.clients[client].side.is_some();
        // Now and then long enough to be found out: it never answers a ping.
        let stays = (self.now / 8_000_000) % 2 == 1;
        match self.will.below(10) {
            _ if !connected => {
                let transport = *self.will.pick(&super::TRANSPORTS);
                if self.open(client, transport) {
                    self.rogue_request(client);
                }
            }
            0 if !stays => self.leave_silently(client),
            1 if !stays => {
                self.request(client, Request::Bye);
                self.leave_silently(client);
            }
            _ => self.rogue_request(client),
        }
    }

    fn rogue_request(&mut self, client: usize) {
        let Some(side) = &self.clients[client].side else { return };
        let transport = side.transport;
        let cursor = Some(self.forged_cursor());
        let objects = self.plan.objects + 5;
        let many = self.will.range(0, 80);
        let wishes: Vec<Wish> = (0..many)
            .map(|_| {
                let strange = [None, Some(0), Some(1), Some(Version::LIMIT - 1)];
                (
                    self.will.index(objects),
                    *self.will.pick(&strange),
                    *self.will.pick(&strange),
                )
            })
            .collect();
        let some: Vec<usize> = (0..many).map(|_| self.will.index(objects)).collect();
        let request = match (transport, self.will.below(4)) {
            (Transport::Poll, 0) => Request::Attach(cursor),
            (Transport::Poll, _) => {
                let number = self.name();
                Request::Poll(number, wishes, some, cursor, self.will.below(1_000_000))
            }
            (_, 0) => Request::Unsubscribe(some),
            (_, 1) => Request::Subscribe(wishes, cursor, true),
            (_, _) => Request::Subscribe(wishes, cursor, false),
        };
        self.request(client, request);
    }

    fn forged_cursor(&mut self) -> String {
        let wall_us = crate::clock::DAWN_US + self.now;
        let (cluster, version) = match self.will.below(6) {
            0 => return "never-a-cursor".into(),
            1 => (ClusterId(1), wall_us),
            2 => (CLUSTER, wall_us + 86_400_000_000),
            3 => (CLUSTER, Version::LIMIT - 1),
            4 => (CLUSTER, wall_us - self.will.below(10_000_000)),
            _ => (CLUSTER, wall_us + self.will.below(9_000_000)),
        };
        let cursor = Cursor::new(cluster, Version(version), Vec::new(), Vec::new());
        cursor.encode().unwrap_or_default()
    }
}
