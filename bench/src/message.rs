//! The JSON texts between client and edge, as far as a measuring client reads and writes them.
//!
//! Written from the published protocol, not from the server's code, so that a mistake there shows here.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::Write as _;

/// Text that is borrowed unless it held an escape.
#[derive(Debug, Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// One object of the server's messages. Fields it does not know are ignored.
#[derive(Debug, Deserialize)]
pub(crate) struct ServerMessage<'a> {
    #[serde(borrow, default)]
    pub(crate) changes: Vec<Change<'a>>,
    #[serde(borrow)]
    pub(crate) subscribed: Option<Subscribed<'a>>,
    #[serde(borrow)]
    pub(crate) cursor: Option<Text<'a>>,
    /// Any of these three is worth reporting; their content only to people.
    #[serde(borrow)]
    pub(crate) resync: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) error: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) reconnect: Option<&'a RawValue>,
    pub(crate) stale: Option<bool>,
}

/// A changed object and its newest version.
#[derive(Debug, Deserialize)]
pub(crate) struct Change<'a> {
    #[serde(borrow)]
    pub(crate) object: Cow<'a, str>,
    pub(crate) version: u64,
}

/// The answer to a subscribe.
#[derive(Debug, Deserialize)]
pub(crate) struct Subscribed<'a> {
    #[serde(borrow)]
    pub(crate) objects: Vec<Entry<'a>>,
}

/// What the server said about one object of a subscribe.
#[derive(Debug, Deserialize)]
pub(crate) struct Entry<'a> {
    #[serde(borrow)]
    pub(crate) object: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) error: Option<&'a RawValue>,
}

impl ServerMessage<'_> {
    /// What no scenario expects: a refusal, a doubt, a farewell.
    pub(crate) fn trouble(&self) -> Option<String> {
        let refused = self.subscribed.iter().flat_map(|subscribed| &subscribed.objects);
        let refused = refused
            .filter_map(|entry| entry.error.map(|error| format!("{}: {error}", entry.object)))
            .next();
        let said = |name: &str, raw: Option<&RawValue>| raw.map(|raw| format!("{name} {raw}"));
        said("error", self.error)
            .or_else(|| said("resync", self.resync))
            .or_else(|| said("reconnect", self.reconnect))
            .or_else(|| (self.stale == Some(true)).then(|| "stale".to_owned()))
            .or_else(|| refused.map(|refused| format!("refused {refused}")))
    }
}

/// Calls `each` for every message of one frame (several may be joined by newlines).
pub(crate) fn each(text: &[u8], mut each: impl FnMut(ServerMessage<'_>)) -> Result<(), String> {
    for message in serde_json::Deserializer::from_slice(text).into_iter::<ServerMessage<'_>>() {
        let message = message.map_err(|error| format!("{error} in {}", String::from_utf8_lossy(text)))?;
        each(message);
    }
    Ok(())
}

/// The subscribe message for these objects. IDs here never need escapes.
pub(crate) fn subscribe<'a>(objects: impl IntoIterator<Item = &'a str>, cursor: Option<&str>) -> String {
    let mut text = r#"{"subscribe":{"objects":["#.to_owned();
    for (at, object) in objects.into_iter().enumerate() {
        let _ = write!(text, "{}\"{object}\"", if at == 0 { "" } else { "," });
    }
    text.push(']');
    if let Some(cursor) = cursor {
        let _ = write!(text, r#","cursor":"{cursor}""#);
    }
    text.push_str(r#"},"id":1}"#);
    text
}

/// What a publish answered.
#[derive(Debug, Deserialize)]
pub(crate) struct Published {
    pub(crate) version: u64,
}

/// What a batch answered: one result a change, in order.
#[derive(Debug, Deserialize)]
pub(crate) struct BatchPublished {
    pub(crate) results: Vec<BatchResult>,
}

/// One result of a batch; a refused change has no version.
#[derive(Debug, Deserialize)]
pub(crate) struct BatchResult {
    pub(crate) version: Option<u64>,
}

/// What a stream of changes answered.
#[derive(Debug, Deserialize)]
pub(crate) struct StreamPublished {
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_messages_joined_by_newlines_are_all_read() {
        let text = br#"{"changes":[{"object":"a","version":7,"kind":"x","data":{"n":1}}]}
{"cursor":"c1","new_field":1}"#;
        let (mut changes, mut cursors) = (Vec::new(), Vec::new());
        each(text, |message| {
            changes.extend(
                message
                    .changes
                    .iter()
                    .map(|change| (change.object.to_string(), change.version)),
            );
            cursors.extend(message.cursor.map(|cursor| cursor.0.into_owned()));
        })
        .expect("valid");
        assert_eq!((changes, cursors), (vec![("a".to_owned(), 7)], vec!["c1".to_owned()]));
    }

    #[test]
    fn a_refused_object_and_a_resync_are_trouble_while_a_null_version_is_not() {
        let troubles = |text: &str| {
            let mut found = Vec::new();
            each(text.as_bytes(), |message| found.extend(message.trouble())).expect("valid");
            found.len()
        };
        assert_eq!(
            troubles(r#"{"subscribed":{"objects":[{"object":"b","version":null}]},"id":1}"#),
            0
        );
        assert_eq!(
            troubles(r#"{"subscribed":{"objects":[{"object":"c","error":{"code":"forbidden"}}]},"id":1}"#),
            1
        );
        assert_eq!(troubles(r#"{"resync":{"all":true,"cause":"x"}}"#), 1);
        assert_eq!(troubles(r#"{"stale":false}"#), 0);
    }

    #[test]
    fn a_subscribe_message_is_valid_json() {
        let text = subscribe(["a", "b"], Some("xyz"));
        let value: serde_json::Value = serde_json::from_str(&text).expect("valid");
        assert_eq!(value["subscribe"]["objects"][1], "b");
        assert_eq!(value["subscribe"]["cursor"], "xyz");
    }
}
