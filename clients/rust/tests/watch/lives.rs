//! Random lives. `TIDINGS_SEED=17` replays one, with `TIDINGS_STORY=1` its events are told when it fails; `TIDINGS_SEEDS=5000`
//! runs more.

use super::world::World;
use tidings_client::watch::Transport;

fn lives(transport: Transport) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("TIDINGS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDINGS_SEEDS").unwrap_or(150),
    };
    for seed in seeds {
        println!("seed {seed}, {transport:?}");
        let mut world = World::new(seed.wrapping_mul(0x9e37_79b9), transport);
        world.settle();
        for _ in 0..400 {
            world.step();
        }
        world.heal();
    }
}

#[test]
fn over_a_websocket_nothing_is_missed_nothing_goes_back_and_the_cursor_never_runs_ahead() {
    lives(Transport::WebSocket);
}

#[test]
fn over_event_streams_nothing_is_missed_nothing_goes_back_and_the_cursor_never_runs_ahead() {
    lives(Transport::Events);
}

#[test]
fn over_long_polls_nothing_is_missed_nothing_goes_back_and_the_cursor_never_runs_ahead() {
    lives(Transport::LongPoll);
}

#[test]
fn over_whatever_transport_works_nothing_is_missed_nothing_goes_back_and_the_cursor_never_runs_ahead() {
    lives(Transport::Auto);
}
