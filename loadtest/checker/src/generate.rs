//! A made-up history of a quiet run, as large as one likes: to measure the check by, not to test it.

use crate::history::{Event, Level, What};
use tidings_protocol::{ClusterId, Cursor, Version};

/// The versions of a made-up history begin here.
const FIRST_VERSION: u64 = 1_795_170_000_000_000;
/// Objects that each client holds.
const HELD: u32 = 100;
/// Clients that hold each object.
const HOLDERS: u32 = 10;

/// The shape of a made-up history.
struct Shape {
    clients: u32,
    objects: u64,
}

/// Makes about so many events: clients that hold a hundred objects each, every object held by ten; publishes in random
/// order, each told to its ten clients; every client is handed a cursor once a second and comes back now and then. About
/// 7 of 10 events are deliveries, 2 cursors, 1 belongs to publishes.
pub fn generate(events: u64, see: &mut dyn FnMut(&Event<'_>)) {
    // A tenth of the events are subscriptions.
    let clients = u32::try_from(events / u64::from(HELD) / 20)
        .unwrap_or(u32::MAX)
        .clamp(10, 1_000_000);
    let shape = Shape {
        clients,
        objects: u64::from(clients / HOLDERS) * u64::from(HELD),
    };
    let mut at_us = 1_000_000;
    let mut made = subscribe(&shape, &mut at_us, see);
    let mut random = 1;
    let (mut next_cursor, mut calls) = (0, 0);
    while made < events {
        made += publish(&shape, &mut at_us, &mut random, calls, see);
        calls += 1;
        for _ in 0..3 {
            let client = next_cursor % shape.clients;
            next_cursor += 1;
            if next_cursor % 97 == 0 {
                made += come_back(client, &mut at_us, see);
            }
            hand(client, &mut at_us, see);
            made += 1;
        }
    }
    at_us += 20_000_000;
    see(&Event {
        at_us,
        what: What::Note { text: "the end".into() },
    });
}

/// Which clients hold an object: those of its group of ten.
fn holders(shape: &Shape, object: u64) -> impl Iterator<Item = u32> + use<> {
    let group = (object / u64::from(HELD)) as u32 * HOLDERS;
    (group..(group + HOLDERS).min(shape.clients)).take(HOLDERS as usize)
}

fn subscribe(shape: &Shape, at_us: &mut u64, see: &mut dyn FnMut(&Event<'_>)) -> u64 {
    let mut made = 0;
    for client in 0..shape.clients {
        *at_us += 10;
        see(&Event {
            at_us: *at_us,
            what: What::ConnOpen {
                client,
                edge: "n1".into(),
                cursor: None,
            },
        });
        let first = u64::from(client / HOLDERS) * u64::from(HELD);
        for obj in (first..first + u64::from(HELD)).filter(|object| *object < shape.objects) {
            see(&Event {
                at_us: *at_us,
                what: What::SubCall {
                    client,
                    obj: obj.into(),
                },
            });
            see(&Event {
                at_us: *at_us + 1,
                what: What::SubOk {
                    client,
                    obj: obj.into(),
                    version: Some(0),
                },
            });
            *at_us += 1;
            made += 2;
        }
        hand(client, at_us, see);
        made += 2;
    }
    made
}

fn publish(shape: &Shape, at_us: &mut u64, random: &mut u64, call: u64, see: &mut dyn FnMut(&Event<'_>)) -> u64 {
    *random = random
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    let object = (*random >> 33) % shape.objects;
    let publisher = (call % 8) as u32;
    *at_us += 20;
    let (key, revision, level) = (0, None, Level::default());
    see(&Event {
        at_us: *at_us,
        what: What::PubCall {
            publisher,
            call,
            obj: object.into(),
            key,
            revision,
            level,
        },
    });
    let version = FIRST_VERSION + *at_us;
    *at_us += 5;
    let (duplicate, trace) = (false, None);
    see(&Event {
        at_us: *at_us,
        what: What::PubOk {
            publisher,
            call,
            version,
            duplicate,
            trace,
        },
    });
    let mut made = 2;
    for client in holders(shape, object) {
        *at_us += 1;
        see(&Event {
            at_us: *at_us,
            what: What::Notify {
                client,
                obj: object.into(),
                version,
                trace,
            },
        });
        made += 1;
    }
    made
}

fn hand(client: u32, at_us: &mut u64, see: &mut dyn FnMut(&Event<'_>)) {
    *at_us += 1;
    // Everything was told, so everything so far is closed; a text is the same for a while, as from a server.
    let closed = Version(FIRST_VERSION + *at_us / 1_000 * 1_000 - 1);
    let cursor = Cursor::new(ClusterId(1), closed, Vec::new(), Vec::new());
    let text = cursor.encode().unwrap_or_default();
    see(&Event {
        at_us: *at_us,
        what: What::Cursor {
            client,
            text: text.into(),
        },
    });
}

fn come_back(client: u32, at_us: &mut u64, see: &mut dyn FnMut(&Event<'_>)) -> u64 {
    *at_us += 1;
    see(&Event {
        at_us: *at_us,
        what: What::ConnClose { client },
    });
    let closed = Version(FIRST_VERSION + *at_us - 1);
    let cursor = Cursor::new(ClusterId(1), closed, Vec::new(), Vec::new())
        .encode()
        .unwrap_or_default();
    see(&Event {
        at_us: *at_us,
        what: What::ConnOpen {
            client,
            edge: "n2".into(),
            cursor: Some(cursor.into()),
        },
    });
    *at_us += 1;
    see(&Event {
        at_us: *at_us,
        what: What::ResumeOk {
            client,
            changed: Vec::new(),
        },
    });
    3
}
