//! Publishes whose fate is in doubt.

use super::server::{Asked, Server};
use std::time::Duration;
use tidings_client::{Applied, PublishError, Version};

#[tokio::test]
async fn without_a_key_a_lost_answer_is_told_as_unknown_and_nothing_is_repeated() {
    let server = Server::new().await;
    let client = server.client().build().expect("an address");
    let publish = tokio::spawn(client.publish("a").send());
    drop(server.asked().await);
    let error = publish.await.expect("run").expect_err("no answer");
    assert_eq!(error.applied(), Applied::Unknown, "{error}");
    server.nobody_for(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn with_a_key_a_lost_answer_is_asked_for_again_with_the_same_key() {
    let server = Server::new().await;
    let client = server.client().build().expect("an address");
    let publish = tokio::spawn(client.publish("a").idempotent().send());
    let first = server.asked().await;
    let key = first.header("idempotency-key").expect("a key").to_owned();
    drop(first);
    let second = server.asked().await;
    assert_eq!(second.header("idempotency-key"), Some(&*key));
    second.answer("200 OK", "", r#"{"version":7,"duplicate":true}"#).await;
    let published = publish.await.expect("run").expect("published");
    assert_eq!((published.version, published.duplicate), (Some(Version(7)), true));
}

#[tokio::test]
async fn what_was_surely_not_applied_is_repeated_without_a_key() {
    let server = Server::new().await;
    let client = server.client().build().expect("an address");
    let publish = tokio::spawn(client.publish("a").send());
    let busy = r#"{"code":"overloaded","detail":"full","retryable":true,"applied":"no"}"#;
    let stream = server.asked().await.answer("503 Busy", "", busy).await;
    let again = Asked::read(stream).await.expect("the same connection");
    again.answer("200 OK", "", r#"{"version":7}"#).await;
    assert_eq!(
        publish.await.expect("run").expect("published").version,
        Some(Version(7))
    );
}

#[tokio::test]
async fn an_unknown_outcome_of_the_server_is_not_repeated_without_a_key() {
    let server = Server::new().await;
    let client = server.client().build().expect("an address");
    let publish = tokio::spawn(client.publish("a").send());
    let lost = r#"{"code":"outcome_unknown","detail":"lost","retryable":true,"applied":"unknown"}"#;
    server.asked().await.answer("504 Late", "", lost).await;
    let error = publish.await.expect("run").expect_err("unknown");
    assert!(matches!(error, PublishError::Unknown(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_unknown_at_the_deadline() {
    let server = Server::new().await;
    let client = server
        .client()
        .timeout(Duration::from_millis(300))
        .build()
        .expect("an address");
    let publish = tokio::spawn(client.publish("a").idempotent().send());
    let asked = server.asked().await;
    assert!(
        asked.head.starts_with("POST /v1/publish?ack=replicated&timeout_ms="),
        "{}",
        asked.head
    );
    let error = publish.await.expect("run").expect_err("too late");
    assert_eq!(error.applied(), Applied::Unknown, "{error}");
}

#[tokio::test]
async fn a_connection_that_the_server_closed_meanwhile_is_replaced() {
    let server = Server::new().await;
    let client = server.client().build().expect("an address");
    for version in [7, 8] {
        let publish = tokio::spawn(client.publish("a").send());
        let body = format!("{{\"version\":{version}}}");
        // The connection is closed behind the answer.
        drop(server.asked().await.answer("200 OK", "", &body).await);
        assert_eq!(
            publish.await.expect("run").expect("published").version,
            Some(Version(version))
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_does_not_mean_that_nothing_happened() {
    let server = Server::new().await;
    let client = server.client().build().expect("an address");
    let publish = tokio::spawn(client.publish("a").send());
    server.asked().await.answer("200 OK", "", "<html>").await;
    let error = publish.await.expect("run").expect_err("no sense");
    assert_eq!(error.applied(), Applied::Unknown, "{error}");
}
