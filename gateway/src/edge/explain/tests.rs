//! Each weak link shows, in the chain and in the verdict.

use super::*;
use tidings_protocol::{Epoch, ShardId};
use tidings_router::edge::{ConnectionView, SubscriberKey, SubscriptionView};

const NOW_US: u64 = 1_000_000_000_000;

/// A subscriber that has heard of the object's last change, a second ago, and has the cursor for it.
fn told() -> Explanation {
    Explanation {
        connection: ConnectionView {
            who: SubscriberKey {
                index: 0,
                generation: 0,
            },
            transport: "websocket",
            since_us: 0,
            objects: 3,
            pending: 0,
            resync: 0,
            told: 1,
            busy: false,
            cursor: Version(NOW_US - 100_000),
        },
        subscription: Some(SubscriptionView {
            version: Version(NOW_US - 1_000_000),
            registered: true,
            pending: false,
            resync: false,
        }),
        watchers: 2,
        shard: ShardId(7),
        epoch: Epoch(3),
        closed: Version(NOW_US - 50_000),
        floor: Version(5),
    }
}

fn known() -> Known {
    Known {
        version: Version(NOW_US - 1_000_000),
        epoch: Epoch(3),
        floor: Version(5),
        watchers: 1,
        interested: true,
    }
}

/// The links that are not fine, and the verdict's first words.
fn judged(explained: &Explanation, known: Option<Known>) -> (Vec<(&'static str, Health)>, String) {
    let facts = Facts {
        me: "n2",
        lane: 1,
        explained,
        owner: known.map(|known| ("n1".to_owned(), known)),
        wall_us: NOW_US,
    };
    let chain = chain(&facts);
    let names: Vec<_> = chain.iter().map(|link| link.link).collect();
    let all = [
        "subscription",
        "edge",
        "interest",
        "owner",
        "version",
        "closed",
        "cursor",
        "socket",
    ];
    assert_eq!(names, all);
    assert!(
        chain
            .iter()
            .all(|link| link.says.ends_with('.') && !link.figure.is_empty())
    );
    let weak = chain.into_iter().filter(|link| link.health != Health::Fine);
    let verdict = verdict(explained, known.as_ref());
    let first = verdict.split(':').next().unwrap_or_default().to_owned();
    (weak.map(|link| (link.link, link.health)).collect(), first)
}

#[test]
fn who_was_told_has_no_weak_link() {
    assert_eq!(judged(&told(), Some(known())), (vec![], "told".to_owned()));
}

#[test]
fn each_weak_link_is_named() {
    type Change = fn(&mut Explanation, &mut Known);
    let cases: [(&str, Health, &str, Change); 9] = [
        ("subscription", Health::Broken, "not subscribed", |lane, _| {
            lane.subscription = None
        }),
        ("subscription", Health::Waiting, "not live yet", |lane, _| {
            lane.subscription = lane.subscription.clone().map(|one| SubscriptionView {
                registered: false,
                ..one
            });
        }),
        ("interest", Health::Broken, "broken", |_, owner| {
            owner.interested = false
        }),
        ("owner", Health::Waiting, "told", |_, owner| owner.epoch = Epoch(4)),
        ("version", Health::Waiting, "on its way", |_, owner| {
            owner.version = Version(NOW_US)
        }),
        ("version", Health::Idle, "nothing to tell", |_, owner| {
            owner.version = Version::ZERO
        }),
        ("closed", Health::Waiting, "told", |lane, _| {
            lane.closed = Version(NOW_US - 3_000_000)
        }),
        ("cursor", Health::Waiting, "told", |lane, _| {
            lane.connection.cursor = Version(NOW_US - 2_000_000)
        }),
        ("socket", Health::Waiting, "to be told", |lane, _| {
            lane.connection.busy = true;
            lane.connection.pending = 1;
            lane.subscription = lane
                .subscription
                .clone()
                .map(|one| SubscriptionView { pending: true, ..one });
        }),
    ];
    for (link, health, first, change) in cases {
        let (mut explained, mut known) = (told(), known());
        change(&mut explained, &mut known);
        let (weak, verdict) = judged(&explained, Some(known));
        assert!(weak.contains(&(link, health)), "{link}: {weak:?}");
        assert_eq!(verdict, first, "{link}");
    }
}

#[test]
fn without_an_owner_the_chain_breaks_there() {
    let (weak, verdict) = judged(&told(), None);
    assert!(weak.contains(&("owner", Health::Broken)), "{weak:?}");
    assert!(weak.contains(&("interest", Health::Idle)), "{weak:?}");
    assert_eq!(verdict, "cut off");
    let mut explained = told();
    explained.epoch = Epoch(0);
    assert!(judged(&explained, None).0.contains(&("edge", Health::Broken)));
}

#[test]
fn a_session_keeps_neither_cursor_nor_socket_here() {
    let mut explained = told();
    explained.connection.transport = "session";
    explained.connection.cursor = Version::ZERO;
    let (weak, _) = judged(&explained, Some(known()));
    assert_eq!(weak, [("cursor", Health::Idle), ("socket", Health::Idle)]);
}

#[test]
fn times_are_said_in_the_unit_that_fits() {
    let said = [999_999, 1_500_000, 119_900_000, 121_000_000, 7_300_000_000].map(ago);
    assert_eq!(said, ["999 ms ago", "1.5 s ago", "119.9 s ago", "2 min ago", "2 h ago"]);
}
