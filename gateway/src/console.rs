//! The console: a page for people who look after a node, inside the program.
//!
//! Its files are here as they are; what it shows, it asks the node for, like everybody else. Without a key nothing secret is
//! in it: the page may be served to anyone, its questions are answered to operators.

use crate::client_js::{CSS, HTML, JAVASCRIPT, serve, tag};
use crate::server::App;
use axum::Router;
use axum::routing::get;
use http::header::CONTENT_SECURITY_POLICY;
use http::{HeaderMap, HeaderValue};

macro_rules! files {
    ($($path:literal $kind:ident $name:literal),* $(,)?) => {
        /// Where it is served, its type, and what it says.
        const FILES: &[(&str, &str, &str)] = &[$(($path, $kind, include_str!(concat!("console/", $name)))),*];
    };
}

files! {
    "/console" HTML "index.html",
    "/console/style.css" CSS "style.css",
    "/console/parts.css" CSS "parts.css",
    "/console/main.js" JAVASCRIPT "main.js",
    "/console/ask.js" JAVASCRIPT "ask.js",
    "/console/live.js" JAVASCRIPT "live.js",
    "/console/make.js" JAVASCRIPT "make.js",
    "/console/say.js" JAVASCRIPT "say.js",
    "/console/plot.js" JAVASCRIPT "plot.js",
    "/console/now.js" JAVASCRIPT "now.js",
    "/console/cluster.js" JAVASCRIPT "cluster.js",
    "/console/figures.js" JAVASCRIPT "figures.js",
    "/console/shards.js" JAVASCRIPT "shards.js",
    "/console/timeline.js" JAVASCRIPT "timeline.js",
    "/console/actions.js" JAVASCRIPT "actions.js",
    "/console/connections.js" JAVASCRIPT "connections.js",
    "/console/connection.js" JAVASCRIPT "connection.js",
    "/console/why.js" JAVASCRIPT "why.js",
    "/console/try.js" JAVASCRIPT "try.js",
}

/// Nothing inline, nothing from elsewhere, no text that becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; worker-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

pub(crate) fn routes() -> Router<App> {
    FILES.iter().fold(Router::new(), |router, &(path, kind, text)| {
        let tag = tag(text);
        router.route(
            path,
            get(move |headers: HeaderMap| async move {
                let mut response = serve(&headers, kind, text, tag);
                if kind == HTML {
                    let headers = response.headers_mut();
                    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
                }
                response
            }),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ask, node};
    use std::collections::BTreeSet;

    /// Bytes of all files together.
    const MOST_BYTES: usize = 150_000;

    #[test]
    fn all_of_it_stays_small() {
        let bytes: usize = FILES.iter().map(|(_, _, text)| text.len()).sum();
        assert!(bytes < MOST_BYTES, "{bytes} bytes");
    }

    #[test]
    fn the_page_has_nothing_inline_and_every_file_loads_only_what_is_served_here() {
        let served: BTreeSet<&str> = FILES.iter().map(|(path, _, _)| *path).chain(["/tidings.js"]).collect();
        for (path, kind, text) in FILES {
            for inline in [
                "style=\"",
                "onclick=",
                "<style",
                "innerHTML",
                "insertAdjacentHTML",
                "eval(",
            ] {
                assert!(!text.contains(inline), "{path}: {inline}");
            }
            let loads = text.lines().filter_map(|line| {
                let marks = ["src=\"", "rel=\"stylesheet\" href=\"", " from \"", "import(\""];
                let found = marks.iter().find_map(|mark| line.split_once(mark))?;
                found.1.split_once('"').map(|(target, _)| target)
            });
            for target in loads.filter(|_| *kind != CSS) {
                let target = target.replace("./", "/console/");
                assert!(served.contains(target.as_str()), "{path} loads {target}");
            }
        }
    }

    #[test]
    fn it_is_served_with_a_policy_that_allows_nothing_else() {
        let node = node(|_| {});
        for (path, kind, text) in FILES {
            let answer = ask(node.addr, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            assert_eq!(
                (answer.status, answer.body.as_slice()),
                (200, text.as_bytes()),
                "{path}"
            );
            let policy = answer.head.contains("content-security-policy: default-src 'none'");
            assert_eq!(policy, *kind == HTML, "{path}");
            assert!(!answer.head.contains("unsafe"), "{path}");
        }
    }
}
