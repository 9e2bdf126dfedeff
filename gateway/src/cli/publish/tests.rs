//! Publishing against a stand-in for the server.

use super::*;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// What the stand-in was asked: path with query, and body.
pub(super) type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// A server that answers each request as `answer` says by its number, from zero. No answer: the connection is cut.
pub(super) async fn stand_in(
    answer: impl Fn(usize, &str) -> Option<(u16, String)> + Send + Sync + 'static,
) -> (Publisher, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Asked::default();
    let (seen, answer) = (asked.clone(), Arc::new(answer));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (seen, answer) = (seen.clone(), answer.clone());
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (seen, answer) = (seen.clone(), answer.clone());
                async move {
                    let path = request.uri().to_string();
                    let body = request.into_body().collect().await.expect("a body").to_bytes();
                    let body = String::from_utf8(body.to_vec()).expect("text");
                    let number = {
                        let mut seen = seen.lock().expect("not poisoned");
                        seen.push((path, body.clone()));
                        seen.len() - 1
                    };
                    let (status, body) = answer(number, &body).ok_or("cut")?;
                    let response = http::Response::builder()
                        .status(status)
                        .body(Full::new(Bytes::from(body)));
                    Ok::<_, Box<dyn std::error::Error + Send + Sync>>(response.expect("a response"))
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let server = Server::new(&ServerArgs {
        server: url,
        token_file: None,
    })
    .expect("an address");
    (
        Publisher {
            server,
            ack: Some(Ack::Durable),
            always_batches: false,
        },
        asked,
    )
}

fn change(object: &str) -> Change<'_> {
    Change {
        object,
        kind: None,
        data: None,
        revision: None,
    }
}

#[tokio::test]
async fn a_publish_is_one_request_and_its_version_is_told() {
    let (publisher, asked) = stand_in(|_, _| Some((200, r#"{"version":1795170000000000}"#.to_owned()))).await;
    let page = publisher
        .page(
            &[Change {
                kind: Some("updated"),
                revision: Some(17),
                ..change("order:42")
            }],
            None,
        )
        .await;
    assert_eq!(page.outcomes[0].line("order:42"), "order:42  version 1795170000000000");
    let expected = r#"{"object":"order:42","kind":"updated","revision":17}"#;
    assert_eq!(
        *asked.lock().expect("not poisoned"),
        [("/v1/publish?ack=durable".to_owned(), expected.to_owned())]
    );
}

#[tokio::test]
async fn an_error_answer_is_told_in_words_with_what_happened_to_state() {
    let problem = r#"{"type":"about:blank","status":409,"code":"ack_unavailable","detail":"no copies","applied":"no"}"#;
    let (publisher, _) = stand_in(move |_, _| Some((409, problem.to_owned()))).await;
    let page = publisher.page(&[change("a"), change("b")], None).await;
    assert_eq!(page.outcomes.len(), 2);
    assert_eq!(
        page.outcomes[1].line("b"),
        "b  not published: no copies (ack_unavailable)"
    );
}

#[tokio::test]
async fn a_cut_after_sending_leaves_the_outcome_open_and_a_refused_connection_does_not() {
    let (publisher, _) = stand_in(|_, _| None).await;
    let page = publisher.page(&[change("a")], None).await;
    assert!(
        page.outcomes[0]
            .line("a")
            .starts_with("a  may or may not have been published"),
        "{page:?}"
    );

    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a free port")
        .local_addr()
        .expect("an address");
    let args = ServerArgs {
        server: format!("http://{nobody}"),
        token_file: None,
    };
    let publisher = Publisher {
        server: Server::new(&args).expect("an address"),
        ack: None,
        always_batches: false,
    };
    let page = publisher.page(&[change("a")], None).await;
    assert!(
        page.outcomes[0].line("a").starts_with("a  not published: cannot reach"),
        "{page:?}"
    );
}

#[tokio::test]
async fn many_objects_go_in_pages_and_all_are_answered() {
    let (publisher, asked) = stand_in(|_, body| {
        let results = vec![r#"{"version":1}"#; body.matches("\"object\"").count()].join(",");
        Some((200, format!("{{\"results\":[{results}]}}")))
    })
    .await;
    let objects: Vec<_> = (0..2500).map(|number| format!("o{number}")).collect();
    let mut lines = 0;
    assert!(publish_objects(&publisher, &objects, &change(""), None, &mut |_| lines += 1).await);
    assert_eq!(lines, 2500);
    assert_eq!(asked.lock().expect("not poisoned").len(), 3);
}

#[test]
fn data_is_checked_and_compacted_without_touching_its_numbers_and_texts() {
    let args = |data: &str| PublishArgs {
        objects: vec!["a".to_owned()],
        kind: None,
        data: Some(data.to_owned()),
        revision: None,
        ack: None,
        key: None,
        stdin: false,
        from_dir: None,
        prefix: String::new(),
        all: false,
        initial: false,
        max_files: 1,
        rescan: 0,
        server: ServerArgs {
            server: String::new(),
            token_file: None,
        },
    };
    let data = check(&args(
        " { \"a b\" : [ 1.10,\n \"\\\" \\\\\" , 12345678901234567890123 ] } ",
    ))
    .expect("valid");
    assert_eq!(
        data.expect("data").get(),
        r#"{"a b":[1.10,"\" \\",12345678901234567890123]}"#
    );
    assert!(check(&args("1 2")).is_err());
    assert!(
        check(&args("hello"))
            .expect_err("no JSON")
            .contains("a text needs quotes")
    );
    assert!(
        check(&args(&format!("\"{}\"", "x".repeat(MAX_DATA_BYTES))))
            .expect_err("large")
            .contains("at most 65536")
    );
}
