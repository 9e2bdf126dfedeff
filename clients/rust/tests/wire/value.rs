//! What was read, as plain JSON in the shapes of the golden frames.

use serde_json::{Map, Value, json};
use tidings_client::wire::{
    Answered, Change, EventMessage, Failure, Hello, PollAnswer, Reconnect, Refused, RequestId, Resync, ServerMessage,
};

fn failure(failure: &Failure<'_>) -> Value {
    json!({"code": &*failure.code, "message": &*failure.message, "retryable": failure.retryable})
}

fn answered(answered: &Answered<'_>) -> Value {
    match &answered.error {
        Some(error) => json!({"object": &*answered.object, "error": failure(error)}),
        None => json!({"object": &*answered.object, "version": answered.version}),
    }
}

pub(crate) fn change(change: &Change<'_>) -> Value {
    let mut map = Map::new();
    let mut put = |name: &str, value: Value| map.insert(name.to_owned(), value);
    put("object", json!(&*change.object));
    put("version", json!(change.version));
    if let Some(kind) = &change.kind {
        put("kind", json!(&**kind));
    }
    if let Some(data) = change.data {
        put("data", serde_json::from_str(data.get()).expect("JSON"));
    }
    if let Some(shard) = change.shard {
        put("shard", json!(shard));
    }
    if let Some(epoch) = change.epoch {
        put("epoch", json!(epoch));
    }
    map.into()
}

fn resync(resync: &Resync<'_>) -> Value {
    match &resync.objects {
        None => json!({"all": true, "cause": &*resync.cause}),
        Some(objects) => {
            let objects: Vec<&str> = objects.iter().map(|object| &**object).collect();
            json!({"objects": objects, "cause": &*resync.cause})
        }
    }
}

fn refused(refused: &[Refused<'_>]) -> Value {
    let one = |one: &Refused<'_>| json!({"object": &*one.object, "error": failure(&one.error)});
    refused.iter().map(one).collect()
}

fn hello(hello: &Hello<'_>) -> Value {
    let limits = hello.limits.expect("limits");
    json!({
        "connection": hello.connection.as_deref(),
        "node": hello.node.as_deref(),
        "ping_ms": hello.ping_ms,
        "limits": {"objects": limits.objects, "frame_bytes": limits.frame_bytes},
    })
}

/// A message, as it would be on a WebSocket.
pub(crate) fn message(message: ServerMessage<'_>) -> Value {
    let (mut body, id) = match message {
        ServerMessage::Hello(said) => (json!({"hello": hello(&said)}), None),
        ServerMessage::Subscribed { id, objects } => {
            let objects: Value = objects.iter().map(answered).collect();
            (json!({"subscribed": {"objects": objects}}), id)
        }
        ServerMessage::Unsubscribed { id } => (json!({"unsubscribed": {}}), id),
        ServerMessage::Authenticated { id, expires_in_ms } => {
            (json!({"authenticated": {"expires_in_ms": expires_in_ms}}), id)
        }
        ServerMessage::Changes(changes) => {
            let changes: Value = changes.map(|one| change(&one)).collect();
            (json!({ "changes": changes }), None)
        }
        ServerMessage::Cursor(cursor) => (json!({"cursor": &*cursor}), None),
        ServerMessage::Resync(said) => (json!({"resync": resync(&said)}), None),
        ServerMessage::Stale(stale) => (json!({ "stale": stale }), None),
        ServerMessage::Reconnect(Reconnect { after_ms, reason }) => {
            (json!({"reconnect": {"after_ms": after_ms, "reason": &*reason}}), None)
        }
        ServerMessage::Error { id, error } => (json!({"error": failure(&error)}), id),
        ServerMessage::Pong { id } => (json!({"pong": {}}), id),
        ServerMessage::Unknown => (json!({"unknown": null}), None),
        other => panic!("a message this test does not know: {other:?}"),
    };
    match id {
        None => {}
        Some(RequestId::Number(number)) => body["id"] = number.into(),
        Some(RequestId::Text(text)) => body["id"] = (*text).into(),
    }
    body
}

/// A block of an event stream, in the golden frames' shape: event, data, id.
pub(crate) fn event(said: EventMessage<'_>) -> Value {
    let block = |event: Option<&str>, data: Value, id: Option<&str>| json!({"event": event, "data": data, "id": id});
    match said {
        EventMessage::Message(ServerMessage::Changes(mut changes)) => {
            block(None, change(&changes.next().expect("one")), None)
        }
        EventMessage::Message(ServerMessage::Cursor(cursor)) => block(None, Value::Null, Some(&cursor)),
        EventMessage::Message(other) => {
            let body = message(other);
            let (name, data) = body.as_object().expect("a map").iter().next().expect("one");
            block(Some(name), data.clone(), None)
        }
        EventMessage::Refused(list) => block(Some("refused"), refused(&list), None),
        EventMessage::SessionUnknown => block(Some("session_unknown"), json!({}), None),
        EventMessage::Retry(ms) => json!({ "retry": ms }),
        EventMessage::Nothing => Value::Null,
        other => panic!("a message this test does not know: {other:?}"),
    }
}

/// The answer to a poll.
pub(crate) fn poll(answer: &PollAnswer<'_>) -> Value {
    let changes: Value = answer.changes.iter().map(change).collect();
    let mut body = json!({
        "changes": changes,
        "resync": answer.resync.as_ref().map(resync),
        "refused": refused(&answer.refused),
        "cursor": answer.cursor.as_deref(),
        "session": answer.session.as_deref(),
    });
    if answer.more {
        body["more"] = true.into();
    }
    if let Some(ms) = answer.poll_after_ms {
        body["poll_after_ms"] = ms.into();
    }
    body
}
