//! Publishing, and asking for an object's version.

use super::http::{get, post_json};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Publishes one change and gives its version.
#[track_caller]
pub(crate) fn publish(address: SocketAddr, object: &str) -> u64 {
    publish_with(address, &json!({ "object": object }))
}

/// The same with everything a change can say.
#[track_caller]
pub(crate) fn publish_with(address: SocketAddr, change: &Value) -> u64 {
    post_json(address, "/v1/publish", change).ok()["version"]
        .as_u64()
        .expect("a version")
}

/// Publishes one change of each object in one request; gives objects and versions.
#[track_caller]
pub(crate) fn publish_all<O: AsRef<str>>(address: SocketAddr, objects: &[O]) -> Vec<(String, u64)> {
    let changes: Vec<_> = objects
        .iter()
        .map(|object| json!({ "object": object.as_ref() }))
        .collect();
    let answer = post_json(address, "/v1/publish", &json!({ "changes": changes })).ok();
    let results = answer["results"].as_array().expect("results");
    assert_eq!(results.len(), objects.len());
    let versions = results
        .iter()
        .map(|result| result["version"].as_u64().expect("a version"));
    objects
        .iter()
        .map(|object| object.as_ref().to_owned())
        .zip(versions)
        .collect()
}

/// The newest version that the server knows.
#[track_caller]
pub(crate) fn version_of(address: SocketAddr, object: &str) -> Option<u64> {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("object", object)
        .finish();
    get(address, &format!("/v1/object?{query}")).ok()["version"].as_u64()
}
