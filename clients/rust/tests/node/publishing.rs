//! Publishing to real nodes.

use super::support::{client, node};
use futures_util::StreamExt as _;
use std::time::Duration;
use tidings_client::{Ack, Applied, Client, NewChange, PublishError};

#[tokio::test]
async fn one_change_is_published_and_its_version_can_be_asked_for() {
    let node = node(|_| {});
    let client = client(&[node.addr]);
    let published = client
        .publish("a")
        .ack(Ack::Accepted)
        .trace()
        .send()
        .await
        .expect("published");
    assert!(published.version.is_some() && published.trace.is_some() && !published.duplicate);
    let state = client.object("a").await.expect("known");
    assert_eq!((state.object.as_str(), state.version), ("a", published.version));
    assert_eq!(client.object("never published").await.expect("an answer").version, None);
    assert!(client.object("").await.is_err());
}

#[tokio::test]
async fn a_key_or_a_revision_makes_a_repeat_harmless() {
    let node = node(|_| {});
    let client = client(&[node.addr]);
    let keyed = || client.publish("a").idempotency_key("k").send();
    let (first, second) = (keyed().await.expect("published"), keyed().await.expect("known"));
    assert_eq!((second.version, second.duplicate), (first.version, true));
    let revision = |revision| client.publish(NewChange::new("b").revision(revision)).send();
    let first = revision(5).await.expect("published");
    let older = revision(4).await.expect("known");
    assert_eq!((older.version, older.duplicate), (first.version, true));
}

#[tokio::test]
async fn each_change_of_a_batch_succeeds_or_fails_by_itself() {
    let node = node(|_| {});
    let client = client(&[node.addr]);
    let changes = [
        NewChange::new("a").revision(7),
        NewChange::new("b"),
        NewChange::new("a").revision(6),
    ];
    let results = client
        .publish_batch(changes)
        .idempotent()
        .send()
        .await
        .expect("an answer");
    let results: Vec<_> = results.into_iter().map(|result| result.expect("taken")).collect();
    assert_eq!(
        results.iter().map(|result| result.duplicate).collect::<Vec<_>>(),
        [false, false, true]
    );
    assert!(
        client
            .publish_batch(Vec::<NewChange>::new())
            .send()
            .await
            .expect("nothing")
            .is_empty()
    );
}

#[tokio::test]
async fn a_stream_of_changes_is_published_as_it_comes() {
    let node = node(|_| {});
    let client = client(&[node.addr]);
    let changes = futures_util::stream::iter(0..5000).map(|n| NewChange::new(format!("o{}", n % 100)).data(n));
    let sum = client.publish_stream(changes).send().await.expect("an answer");
    assert_eq!((sum.accepted, sum.rejected), (5000, 0));
    let state = client.object("o99").await.expect("known");
    // Versions grow by shard: another object's may be the highest.
    assert!(
        state.version.is_some() && state.version <= sum.version,
        "{state:?} {sum:?}"
    );
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_anything_is_sent() {
    let client = Client::builder("http://127.0.0.1:1").build().expect("an address");
    for change in [
        NewChange::new(""),
        NewChange::new("a").kind("k".repeat(33)),
        NewChange::new("a").revision(1 << 53),
        NewChange::new("a").data("x".repeat(70_000)),
    ] {
        let error = client.publish(change).send().await.expect_err("no sense");
        assert!(matches!(error, PublishError::Invalid(_)), "{error}");
    }
    let error = client
        .publish("a")
        .idempotency_key("ü")
        .send()
        .await
        .expect_err("no key");
    assert!(matches!(error, PublishError::Invalid(_)), "{error}");
}

#[tokio::test]
async fn a_refusal_of_the_server_says_its_code_and_that_nothing_happened() {
    let node = node(|_| {});
    let client = client(&[node.addr]);
    let error = client
        .publish("a")
        .ack(Ack::Durable)
        .send()
        .await
        .expect_err("kept in memory only");
    let PublishError::Refused { code, status, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((code.as_str(), *status), ("ack_unavailable", 409));
    assert_eq!(error.applied(), Applied::No);
}

#[tokio::test]
async fn of_two_servers_the_one_that_is_there_answers() {
    let node = node(|_| {});
    let urls = ["http://127.0.0.1:1".to_owned(), format!("http://{}", node.addr)];
    for _ in 0..4 {
        let client = Client::builder(urls.clone()).build().expect("addresses");
        assert!(client.publish("a").send().await.is_ok());
    }
}

#[tokio::test]
async fn without_a_server_surely_nothing_was_published() {
    let client = Client::builder("127.0.0.1:1")
        .timeout(Duration::from_millis(500))
        .build()
        .expect("an address");
    let error = client
        .publish("a")
        .idempotent()
        .send()
        .await
        .expect_err("nobody is there");
    assert!(matches!(error, PublishError::Unreachable(_)), "{error}");
    assert_eq!(error.applied(), Applied::No);
}
