//! Whole lives of a world of lanes, owners and clients, each decision drawn from one source of chance. Used by the tests with
//! seeds, and by the fuzz targets with bytes.

use crate::clients::{Town, Transport};
use crate::random::Random;
use crate::world::Shape;
use tidings_protocol::Hint;

const TRANSPORTS: [Transport; 3] = [Transport::WebSocket, Transport::EventStream, Transport::Poll];

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Slow roads, broken links, slow and impatient clients; but no version is ever lost.
    Fair,
    /// Owners die, shards move, tables are evicted, clocks jump.
    Foul,
}

fn shape(random: &mut Random, weather: Weather) -> Shape {
    let evict = weather == Weather::Foul && random.percent(30);
    Shape {
        shards: 1 << random.range(0, 3),
        owners: random.range(1, 3) as usize,
        version_table_bytes: if evict {
            random.range(6_000, 12_000) as usize
        } else {
            64 << 20
        },
        batch_bytes: *random.pick(&[200, 1_000, 64 << 10]),
        hint_bytes: *random.pick(&[300, 1 << 20]),
        delay_us: *random.pick(&[(0, 2_000), (1_000, 80_000), (100, 400_000)]),
        ..Shape::default()
    }
}

fn objects(random: &mut Random) -> Vec<String> {
    let many = if random.percent(10) { 250 } else { 16 };
    (0..random.range(3, many)).map(|n| format!("o{n}")).collect()
}

fn some(random: &mut Random, objects: &[String]) -> Vec<String> {
    let share = random.range(5, 95);
    objects.iter().filter(|_| random.percent(share)).cloned().collect()
}

pub fn life(seed: u64, weather: Weather) -> Town {
    let mut random = Random(seed);
    let shape = shape(&mut random, weather);
    let objects = objects(&mut random);
    let clients = random.range(1, 6) as usize;
    let mut town = Town::new(shape, clients, seed);
    town.block = *random.pick(&[0, 10, 60]);
    town.mute = *random.pick(&[0, 0, 30]);
    if weather == Weather::Foul {
        town.causes.extend(["versions_lost", "versions_evicted"]);
    }
    for client in &mut town.clients {
        client.wanted.extend(some(&mut random, &objects));
    }
    let busy = random.range(10, 70);
    for _ in 0..random.range(50, 300) {
        if random.percent(busy) {
            let many = if random.percent(1) { 900 } else { 5 };
            for _ in 0..random.range(1, many) {
                let data = random
                    .percent(30)
                    .then(|| format!("{{\"n\":{}}}", random.below(1000)).into_boxed_str());
                let hint = data.map(|data| Hint {
                    kind: None,
                    data: Some(data),
                });
                let object = random.pick(&objects).clone();
                town.publish(&object, hint);
            }
        }
        let client = random.below(clients as u64) as usize;
        act(&mut town, &mut random, client, &objects);
        if random.percent(if weather == Weather::Foul { 12 } else { 6 }) {
            trouble(&mut town, &mut random, weather);
        }
        if random.percent(80) {
            town.pump();
        }
        if random.percent(70) {
            let most_us = *random.pick(&[1_000, 50_000, 300_000, 3_000_000]);
            let us = random.below(most_us);
            town.wait(us);
        }
    }
    heal(&mut town, &mut random);
    leave(&mut town);
    town
}

/// A client does something.
fn act(town: &mut Town, random: &mut Random, client: usize, objects: &[String]) {
    if !town.connected(client) {
        if random.percent(60) {
            let lane = random.below(town.world.lanes.len() as u64) as usize;
            town.connect(client, lane, *random.pick(&TRANSPORTS));
        }
    } else if random.percent(12) {
        town.disconnect(client);
    } else if random.percent(2) {
        town.dismiss(client);
    } else if town.blocked(client) {
        let all = random.percent(50);
        town.unblock(client, all);
    } else if town.transport(client) == Some(Transport::Poll) && random.percent(4) {
        town.attach(client);
    } else if town.may_poll(client) || town.transport(client) == Some(Transport::Poll) && random.percent(5) {
        // Now and then while the one before is still under way.
        poll(town, random, client, objects);
    } else if town.may_ask(client) && random.percent(30) {
        change_wishes(town, random, client, objects);
    }
}

fn poll(town: &mut Town, random: &mut Random, client: usize, objects: &[String]) {
    let (mut add, mut remove) = (Vec::new(), Vec::new());
    if random.percent(20) {
        let wanted = &mut town.clients[client].wanted;
        let object = random.pick(objects).clone();
        if wanted.remove(&object) {
            remove.push(object);
        } else {
            wanted.insert(object.clone());
            add.push(object);
        }
    }
    town.poll(client, add, remove);
}

fn change_wishes(town: &mut Town, random: &mut Random, client: usize, objects: &[String]) {
    let object = random.pick(objects).clone();
    if town.clients[client].wanted.contains(&object) {
        town.unsubscribe(client, &[object]);
    } else {
        town.subscribe(client, vec![object]);
    }
}

fn trouble(town: &mut Town, random: &mut Random, weather: Weather) {
    let world = &mut town.world;
    let (lane, owner) = (
        random.below(2) as usize,
        random.below(world.owners.len() as u64) as usize,
    );
    let shard = random.below(world.map.len() as u64) as u16;
    if random.percent(40) {
        return move_or_pause(town, random, owner, shard);
    }
    if weather == Weather::Fair || random.percent(40) {
        let (hears_us, again_us) = (random.below(400_000), random.below(3_000_000));
        world.cut(lane, owner, hears_us, again_us);
        return;
    }
    let ahead_us = if world.highest < world.now.wall_us + 4_000_000 {
        random.below(2_000_000)
    } else {
        0
    };
    match random.below(5) {
        0 => {
            world.crash(owner);
            if random.percent(60) {
                adopt(town, random);
            }
        }
        1 => {
            // The new owner speaks before or after the old one is told to stop.
            let floor = world.next_floor(ahead_us);
            world.release(shard);
            world.assign(shard, owner, floor);
        }
        2 => world.release(shard),
        3 => adopt(town, random),
        _ => {
            let by_us = random.below(4_000_000);
            world.now.wall_us = if random.percent(60) {
                world.now.wall_us - by_us
            } else {
                world.now.wall_us + by_us / 4
            };
        }
    }
}

/// What a cluster does all day, and nobody should notice.
fn move_or_pause(town: &mut Town, random: &mut Random, owner: usize, shard: u16) {
    let world = &mut town.world;
    match random.below(4) {
        0 => world.lapse(owner, random.below(3_000_000)),
        1 => world.tell_replaced(),
        _ => {
            // Now and then far above every clock.
            let ahead_us = *random.pick(&[0, 0, 1_000, 5_000_000, 3_600_000_000]);
            world.hand_over(shard, owner, ahead_us);
        }
    }
}

/// Shards without an owner get one.
fn adopt(town: &mut Town, random: &mut Random) {
    for shard in 0..town.world.map.len() {
        if town.world.map[shard].0.is_none() {
            let owner = random.below(town.world.owners.len() as u64) as usize;
            let floor = town.world.next_floor(random.below(3));
            town.world.assign(shard as u16, owner, floor);
        }
    }
}

/// Everything works again, everybody comes back once, and nothing new happens: then everybody knows.
fn heal(town: &mut Town, random: &mut Random) {
    (town.block, town.mute) = (0, 0);
    adopt(town, random);
    town.world.tell_replaced();
    town.world.give_leases(u64::MAX);
    // Clocks that were behind have caught up.
    town.world.now.wall_us = town.world.now.wall_us.max(town.world.highest);
    town.wait(4_000_000);
    for client in 0..town.clients.len() {
        town.unblock(client, true);
        town.disconnect(client);
        let lane = random.below(2) as usize;
        town.connect(client, lane, *random.pick(&TRANSPORTS));
        if random.percent(50) {
            town.wait(100_000);
        }
    }
    for _ in 0..40 {
        for client in 0..town.clients.len() {
            town.poll_on(client);
            if !town.connected(client) {
                // Sent away for silence before all was well again, or its session ended.
                town.connect(client, 0, Transport::WebSocket);
            }
        }
        town.wait(250_000);
    }
    town.check_nothing_is_missing();
    for lane in &town.world.lanes {
        let stats = lane.stats();
        assert_eq!((stats.pending, stats.hint_bytes), (0, 0), "everybody was told");
    }
    for client in 0..town.clients.len() {
        assert!(
            town.settled(client),
            "{} still waits for an answer",
            town.clients[client].name
        );
        let text = town.clients[client].cursor.clone().expect("everybody has a cursor");
        let cursor = tidings_protocol::Cursor::decode(&text).unwrap();
        let newest = town
            .world
            .history
            .values()
            .flatten()
            .map(|change| change.version)
            .max()
            .unwrap_or_default();
        let least = town
            .world
            .shards
            .all()
            .map(|shard| cursor.at(shard))
            .min()
            .unwrap_or_default();
        assert!(least >= newest, "{cursor:?} lags for ever behind {newest}");
    }
}

/// Everybody goes, and takes all memory along.
fn leave(town: &mut Town) {
    for client in 0..town.clients.len() {
        town.disconnect(client);
    }
    town.wait(7_000_000);
    for lane in &town.world.lanes {
        let stats = lane.stats();
        let left = (
            stats.objects,
            stats.subscriptions,
            stats.pending,
            stats.hint_bytes,
            stats.lingering,
        );
        assert_eq!(left, (0, 0, 0, 0, 0), "{stats:?}");
        assert_eq!(lane.subscribers(), 0);
    }
    for owner in &town.world.owners {
        assert_eq!(owner.stats().interests, 0);
    }
}

/// One round after another: everybody goes, things change, everybody comes back and hears exactly what it missed.
pub fn resumes(seed: u64) -> Town {
    let mut random = Random(seed);
    let shape = Shape {
        delay_us: (0, 20_000),
        ..shape(&mut random, Weather::Fair)
    };
    let objects = objects(&mut random);
    let clients = random.range(1, 5) as usize;
    let mut town = Town::new(shape, clients, seed);
    (town.says_version, town.says_at_least) = (0, 0);
    for client in &mut town.clients {
        client.wanted.extend(some(&mut random, &objects));
    }
    town.wait(2_000_000);
    for _ in 0..6 {
        for client in 0..clients {
            let lane = random.below(2) as usize;
            town.connect(client, lane, *random.pick(&TRANSPORTS));
            let due = if town.clients[client].cursor.is_some() {
                town.due(client)
            } else {
                Default::default()
            };
            for _ in 0..20 {
                town.wait(100_000);
                town.poll_on(client);
            }
            let told = town.told_here(client);
            let missed: Vec<_> = due.iter().filter(|(object, _)| !told.contains_key(*object)).collect();
            // An answer that is cut lowers the cursor of all shards to that of the one that lagged: some are told again.
            let exact = !town.came_lagging(client);
            let extra: Vec<_> = told
                .iter()
                .filter(|(object, _)| exact && !due.contains_key(*object))
                .collect();
            assert!(
                missed.is_empty() && extra.is_empty(),
                "{}: {missed:?} {extra:?}",
                town.clients[client].name
            );
        }
        // Some changes are told before the cursor that covers them comes: they may be told again.
        publish_some(&mut town, &mut random, &objects);
        let us = random.below(300_000);
        town.wait(us);
        for client in 0..clients {
            town.disconnect(client);
        }
        publish_some(&mut town, &mut random, &objects);
        town.wait(2_000_000);
        while !town.world.quiet() {
            town.wait(100_000);
        }
    }
    assert_eq!(
        town.tally.repeats, 0,
        "what one answer told, the next one does not repeat"
    );
    town
}

fn publish_some(town: &mut Town, random: &mut Random, objects: &[String]) {
    for object in some(random, objects) {
        town.publish(&object, None);
    }
}
