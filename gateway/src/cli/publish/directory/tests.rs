//! A directory against a stand-in for the server.

use super::super::tests::stand_in;
use super::*;
use std::fs;

fn options(root: &std::path::Path, initial: bool) -> Options {
    let (root, prefix) = (root.to_owned(), "file:".to_owned());
    Options {
        root,
        prefix,
        all: false,
        initial,
        max_files: 5000,
        rescan: None,
    }
}

fn results(body: &str) -> String {
    let results = vec![r#"{"version":7}"#; body.matches("\"object\"").count()].join(",");
    format!("{{\"results\":[{results}]}}")
}

/// Follows the directory until `lines` lines are printed, while `work` is done beside it.
async fn lines(source: &mut Source, number: usize, work: impl Future<Output = ()>) -> Vec<String> {
    let mut lines = Vec::new();
    let enough = tokio::sync::Notify::new();
    let mut print = |line: &str| {
        lines.push(line.to_owned());
        if lines.len() == number {
            enough.notify_one();
        }
    };
    let asked = Box::pin(async {
        work.await;
        let _ = tokio::time::timeout(Duration::from_secs(10), enough.notified()).await;
    });
    source.follow(asked, &mut print).await.expect("nothing stops it");
    lines.sort();
    lines
}

#[tokio::test]
async fn every_change_of_a_file_reaches_the_server_and_is_printed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("a"), "1").expect("written");
    let (publisher, asked) = stand_in(|_, body| Some((200, results(body)))).await;
    let mut source = Source::open(options(dir.path(), false), publisher)
        .await
        .expect("opened");
    let work = async {
        fs::write(dir.path().join("b"), "1").expect("written");
        fs::remove_file(dir.path().join("a")).expect("removed");
    };
    assert_eq!(
        lines(&mut source, 2, work).await,
        ["created  file:b  version 7", "deleted  file:a  version 7"]
    );
    assert!(source.finish(&mut |_| {}).await);
    assert!(
        asked
            .lock()
            .expect("not poisoned")
            .iter()
            .all(|(path, _)| path == "/v1/publish?ack=durable")
    );
}

#[tokio::test]
async fn while_the_server_is_away_changes_are_kept_merged_and_told_when_it_is_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (publisher, _) = stand_in(|number, body| match number {
        0 => None,
        1 => Some((
            503,
            r#"{"code":"no_owner","detail":"nobody","retryable":true,"applied":"no"}"#.to_owned(),
        )),
        _ => Some((200, results(body))),
    })
    .await;
    let mut source = Source::open(options(dir.path(), false), publisher)
        .await
        .expect("opened");
    let work = async {
        for number in 0..1200 {
            fs::write(dir.path().join(format!("f{number}")), "1").expect("written");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        fs::remove_file(dir.path().join("f7")).expect("removed");
    };
    let lines = lines(&mut source, 1200, work).await;
    assert!(lines.len() >= 1200, "{}", lines.len());
    assert!(source.finish(&mut |_| {}).await);
}

#[tokio::test]
async fn a_refused_file_does_not_keep_the_others_and_a_refused_request_ends_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    ["a", "b"]
        .iter()
        .for_each(|name| fs::write(dir.path().join(name), "1").expect("written"));
    let (publisher, _) = stand_in(|number, _| {
        let results = r#"{"results":[{"error":{"code":"forbidden","message":"no","retryable":false}},{"version":7}]}"#;
        if number == 0 {
            Some((200, results.to_owned()))
        } else {
            Some((401, r#"{"code":"unauthenticated"}"#.to_owned()))
        }
    })
    .await;
    let mut source = Source::open(options(dir.path(), true), publisher)
        .await
        .expect("opened");
    assert_eq!(lines(&mut source, 1, async {}).await, ["updated  file:b  version 7"]);
    fs::write(dir.path().join("c"), "1").expect("written");
    let why = source
        .follow(Box::pin(std::future::pending()), &mut |_| {})
        .await
        .expect_err("refused for good");
    assert!(why.contains("unauthenticated"), "{why}");
    assert_eq!(
        (source.refused, source.unsent.len()),
        (1, 1),
        "what could not be told is still known"
    );
}
