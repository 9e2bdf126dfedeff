//! The browser client, and a page that shows it: files of `clients/js`, as they are, inside the program.
//!
//! What a page loads from here belongs to the server that it speaks to. Nothing here knows the protocol, and the page gets
//! nothing that other pages do not.

use crate::server::App;
use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Where it is served, its type, and what it says.
const FILES: [(&str, &str, &str); 4] = [
    ("/tidings.js", JAVASCRIPT, include_str!("../../clients/js/tidings.js")),
    ("/example", HTML, include_str!("../../clients/js/example/index.html")),
    (
        "/example/main.js",
        JAVASCRIPT,
        include_str!("../../clients/js/example/main.js"),
    ),
    (
        "/example/style.css",
        CSS,
        include_str!("../../clients/js/example/style.css"),
    ),
];

pub(crate) const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const CSS: &str = "text/css; charset=utf-8";

/// The page needs nothing but what is served here, so it may have nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; worker-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(crate) fn routes() -> Router<App> {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, text)| {
        let tag = tag(text);
        router.route(
            path,
            get(move |headers: HeaderMap| async move { serve(&headers, kind, text, tag) }),
        )
    })
}

/// Another text has another one, also after an update of the program.
pub(crate) fn tag(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

pub(crate) fn serve(asked: &HeaderMap, kind: &'static str, text: &'static str, tag: u64) -> Response {
    let tag = format!("\"{tag:016x}\"");
    // A proxy that compresses makes the tag a weak one.
    let known = asked
        .get(IF_NONE_MATCH)
        .and_then(|known| known.to_str().ok())
        .is_some_and(|known| {
            known
                .split(',')
                .any(|known| known.trim().trim_start_matches("W/") == tag)
        });
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => text.into_response(),
    };
    let headers = response.headers_mut();
    // Always asked for, seldom sent: the module must fit the server.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(ETAG, tag);
    }
    if kind == HTML {
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(
            HeaderName::from_static("referrer-policy"),
            HeaderValue::from_static("no-referrer"),
        );
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(known: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, HeaderValue::from_str(known).expect("a value"));
        headers
    }

    #[test]
    fn a_file_that_is_known_is_not_sent_again() {
        let first = serve(&HeaderMap::new(), JAVASCRIPT, "a", 7);
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[ETAG].to_str().expect("text").to_owned();
        for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}")] {
            assert_eq!(
                serve(&asking(&known), JAVASCRIPT, "a", 7).status(),
                StatusCode::NOT_MODIFIED,
                "{known}"
            );
        }
        assert_eq!(serve(&asking(&tag), JAVASCRIPT, "b", 8).status(), StatusCode::OK);
    }

    #[test]
    fn only_pages_have_a_policy_and_it_allows_nothing_inline() {
        let page = serve(&HeaderMap::new(), HTML, "a", 7);
        let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().expect("text");
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        let module = serve(&HeaderMap::new(), JAVASCRIPT, "a", 7);
        assert!(module.headers().get(CONTENT_SECURITY_POLICY).is_none());
    }

    #[test]
    fn the_page_has_nothing_inline_and_loads_only_what_is_served_here() {
        let (_, _, page) = FILES[1];
        assert!(!page.contains("<style") && !page.contains("style=") && !page.contains("onclick"));
        // Every second piece is between quotation marks.
        let values = page.split('"').skip(1).step_by(2);
        for part in values.filter(|part| part.starts_with('/') || part.contains("://")) {
            assert!(FILES.iter().any(|(path, _, _)| *path == part), "{part}");
        }
    }
}
