//! Histories on disk: both forms, whole, cut short and damaged.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use proptest::prelude::*;
use std::borrow::Cow;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tidings_checker::history::{
    Event, FileReader, Files, Header, History, HistoryError, Level, NotRecorded, Object, Trace, What, Writer,
};

fn text() -> impl Strategy<Value = Cow<'static, str>> {
    prop_oneof!["[a-zA-Z0-9_-]{0,12}", "\\PC{0,20}"].prop_map(Cow::Owned)
}

fn object() -> impl Strategy<Value = Object<'static>> {
    prop_oneof![
        4 => (0_u64..50).prop_map(Object::Number),
        1 => any::<u64>().prop_map(Object::Number),
        2 => text().prop_map(Object::Text),
    ]
}

fn version() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 1_795_170_000_000_000_u64..1_795_170_000_100_000, 1 => any::<u64>()]
}

fn trace() -> impl Strategy<Value = Option<Trace>> {
    proptest::option::of((any::<u16>(), any::<u64>()).prop_map(|(shard, epoch)| Trace { shard, epoch }))
}

fn level() -> impl Strategy<Value = Level> {
    prop_oneof![Just(Level::Accepted), Just(Level::Replicated), Just(Level::Durable)]
}

fn publishing() -> impl Strategy<Value = What<'static>> {
    let call = (any::<u32>(), any::<u64>());
    prop_oneof![
        (
            call,
            object(),
            prop_oneof![Just(0), any::<u64>()],
            proptest::option::of(any::<u64>()),
            level()
        )
            .prop_map(|((publisher, call), obj, key, revision, level)| What::PubCall {
                publisher,
                call,
                obj,
                key,
                revision,
                level
            }),
        (call, version(), any::<bool>(), trace()).prop_map(|((publisher, call), version, duplicate, trace)| {
            What::PubOk {
                publisher,
                call,
                version,
                duplicate,
                trace,
            }
        }),
        call.prop_map(|(publisher, call)| What::PubFail { publisher, call }),
        call.prop_map(|(publisher, call)| What::PubUnknown { publisher, call }),
        (object(), proptest::option::of(version())).prop_map(|(obj, version)| What::Final { obj, version }),
        text().prop_map(|fault| What::NemesisStart { fault }),
        text().prop_map(|fault| What::NemesisStop { fault }),
        text().prop_map(|text| What::Note { text }),
    ]
}

fn listening() -> impl Strategy<Value = What<'static>> {
    let pair = || (any::<u32>(), object());
    prop_oneof![
        pair().prop_map(|(client, obj)| What::SubCall { client, obj }),
        (pair(), proptest::option::of(version())).prop_map(|((client, obj), version)| What::SubOk {
            client,
            obj,
            version
        }),
        pair().prop_map(|(client, obj)| What::SubFail { client, obj }),
        pair().prop_map(|(client, obj)| What::UnsubCall { client, obj }),
        pair().prop_map(|(client, obj)| What::UnsubOk { client, obj }),
        (any::<u32>(), text(), proptest::option::of(text())).prop_map(|(client, edge, cursor)| What::ConnOpen {
            client,
            edge,
            cursor
        }),
        any::<u32>().prop_map(|client| What::ConnClose { client }),
        (any::<u32>(), proptest::collection::vec((object(), version()), 0..4))
            .prop_map(|(client, changed)| What::ResumeOk { client, changed }),
        (
            any::<u32>(),
            proptest::option::of(proptest::collection::vec(object(), 0..4)),
            text()
        )
            .prop_map(|(client, objects, cause)| What::Resync { client, objects, cause }),
        (pair(), version(), trace()).prop_map(|((client, obj), version, trace)| What::Notify {
            client,
            obj,
            version,
            trace
        }),
        (any::<u32>(), text()).prop_map(|(client, text)| What::Cursor { client, text }),
        (any::<u32>(), any::<bool>()).prop_map(|(client, stale)| What::Stale { client, stale }),
    ]
}

/// Events with stamps that do not go back, some far apart, so that there are several blocks.
fn events() -> impl Strategy<Value = Vec<Event<'static>>> {
    let what = prop_oneof![publishing(), listening()];
    let step = prop_oneof![3 => 0_u64..50, 1 => 0_u64..1_000_000];
    proptest::collection::vec((step, what), 0..60).prop_map(|events| {
        let mut at_us = 0;
        let stamp = |(step, what)| {
            at_us += step;
            Event { at_us, what }
        };
        events.into_iter().map(stamp).collect()
    })
}

fn write(path: &Path, events: &[Event<'_>]) {
    let mut writer = Writer::create(path, &Header::new("order:")).unwrap();
    for event in events {
        writer.record_blocking(event).unwrap();
    }
    assert_eq!(writer.events(), events.len() as u64);
    writer.finish().unwrap();
}

fn read(paths: &[PathBuf]) -> Result<(Vec<Event<'static>>, bool), HistoryError> {
    let mut events = Vec::new();
    let files = Files::open(paths)?;
    let replayed = files.replay(&mut |number, event| {
        assert_eq!(number, events.len() as u64);
        events.push(event.clone().into_owned());
    })?;
    assert_eq!(replayed.events, events.len() as u64);
    Ok((events, replayed.cut.is_empty()))
}

fn json(events: &[Event<'_>]) -> String {
    let lines = events.iter().map(|event| event.to_json() + "\n");
    std::iter::once("{\"event\":\"history\",\"format\":1,\"prefix\":\"order:\"}\n".to_owned())
        .chain(lines)
        .collect()
}

proptest! {
    #[test]
    fn both_forms_give_back_what_was_recorded(events in events()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, &events);
        prop_assert_eq!(read(&[path]).unwrap(), (events.clone(), true));
        let path = folder.path().join("b");
        std::fs::write(&path, json(&events)).unwrap();
        prop_assert_eq!(read(&[path]).unwrap(), (events, true));
    }

    #[test]
    fn a_file_cut_anywhere_gives_what_was_on_disk_and_says_that_it_was_cut(events in events(), at in any::<prop::sample::Index>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, &events);
        let bytes = std::fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        std::fs::write(&path, &bytes[..at]).unwrap();
        match read(&[path]) {
            Ok((found, is_whole)) => {
                prop_assert!(!is_whole);
                prop_assert_eq!(&found[..], &events[..found.len()]);
            }
            // Not even the header is there.
            Err(HistoryError::Damaged { offset, .. }) => prop_assert!(offset <= 8 && at < 80),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn a_damaged_file_is_named_with_the_place_and_gives_nothing_false(
        events in events(), at in any::<prop::sample::Index>(), bit in 0_u32..8,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damaged");
        write(&path, &events);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, &bytes).unwrap();
        let mut found = Vec::new();
        let result = Files::open(&[&path]).and_then(|files| files.replay(&mut |_, event| found.push(event.clone().into_owned())));
        match result {
            // A length that grew looks like an end that was cut off.
            Ok(replayed) => prop_assert!(!replayed.cut.is_empty()),
            Err(error) => prop_assert!(error.to_string().contains("damaged: at byte "), "{}", error),
        }
        prop_assert_eq!(&found[..], &events[..found.len()]);
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), is_framed in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("garbage");
        let mut file = std::fs::File::create(&path).unwrap();
        if is_framed {
            // Right magic, header and checksum: only the events are garbage.
            let header = serde_json::to_vec(&Header::new("order:")).unwrap();
            file.write_all(b"TIDHIST1").unwrap();
            for body in [&header, &bytes] {
                file.write_all(b"TIDB").unwrap();
                file.write_all(&(body.len() as u32).to_le_bytes()).unwrap();
                file.write_all(&crc32fast::hash(body).to_le_bytes()).unwrap();
                file.write_all(body).unwrap();
            }
        } else {
            file.write_all(&bytes).unwrap();
        }
        drop(file);
        match read(std::slice::from_ref(&path)) {
            Ok(_) => prop_assert!(is_framed),
            Err(error) => prop_assert!(error.to_string().contains("garbage: at byte "), "{}", error),
        }
    }

    #[test]
    fn files_are_merged_by_stamp_and_equal_stamps_keep_the_order_of_the_files(parts in proptest::collection::vec(events(), 1..5)) {
        let folder = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        let mut expected = Vec::new();
        for (number, events) in parts.iter().enumerate() {
            let path = folder.path().join(number.to_string());
            write(&path, events);
            paths.push(path);
            expected.extend(events.iter().cloned());
        }
        expected.sort_by_key(|event| event.at_us);
        prop_assert_eq!(read(&paths).unwrap(), (expected, true));
    }
}

fn note(at_us: u64) -> Event<'static> {
    Event {
        at_us,
        what: What::Note { text: "x".into() },
    }
}

#[test]
fn stamps_that_go_back_are_refused_by_the_writer_and_by_the_reader() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let mut writer = Writer::create(&path, &Header::new("order:")).unwrap();
    writer.record(&note(5)).unwrap();
    let refused = writer.record(&note(4));
    assert!(
        matches!(refused, Err(NotRecorded::Backwards { at_us: 4, last_us: 5 })),
        "{refused:?}"
    );
    writer.record(&note(5)).unwrap();
    writer.finish().unwrap();
    assert_eq!(read(&[path]).unwrap().0.len(), 2);

    let path = folder.path().join("b");
    std::fs::write(&path, json(&[note(5), note(4)])).unwrap();
    let error = read(&[path]).unwrap_err().to_string();
    assert!(error.contains("an event of 4 us comes after one of 5 us"), "{error}");
}

#[test]
fn a_writer_that_is_dropped_leaves_what_was_recorded_but_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let mut writer = Writer::create(&path, &Header::new("order:")).unwrap();
    writer.record(&note(1)).unwrap();
    drop(writer);
    assert_eq!(read(&[path]).unwrap(), (vec![note(1)], false));
}

#[test]
fn a_full_disk_is_an_error_that_stays() {
    let Ok(mut writer) = Writer::create("/dev/full", &Header::new("order:")) else {
        return;
    };
    writer.record_blocking(&note(1)).unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

#[test]
fn a_history_is_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    write(&path, &[note(1)]);
    assert!(Writer::create(&path, &Header::new("order:")).is_err());
    assert_eq!(read(&[path]).unwrap().0, [note(1)]);
}

#[test]
fn files_that_number_their_objects_differently_are_not_one_history() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    write(&a, &[note(1)]);
    Writer::create(&b, &Header::new("thing:")).unwrap().finish().unwrap();
    let error = Files::open(&[a, b]).unwrap_err().to_string();
    assert!(error.contains("thing:") && error.contains("order:"), "{error}");
}

#[test]
fn a_line_reads_as_documented() {
    let line = r#"{"at":1200,"event":"notify","client":7,"obj":42,"version":1795170000000000,"shard":3,"epoch":1}"#;
    let event: Event<'_> = serde_json::from_str(line).unwrap();
    let trace = Some(Trace { shard: 3, epoch: 1 });
    let notify = What::Notify {
        client: 7,
        obj: 42.into(),
        version: 1_795_170_000_000_000,
        trace,
    };
    assert_eq!(
        event,
        Event {
            at_us: 1200,
            what: notify
        }
    );
    assert_eq!(event.to_json(), line);
}

#[test]
fn a_file_of_another_kind_is_not_a_history() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    for text in ["", "hello\n", "{\"at\":1,\"event\":\"note\",\"text\":\"\"}\n"] {
        std::fs::write(&path, text).unwrap();
        assert!(
            matches!(FileReader::open(&path), Err(HistoryError::Damaged { offset: 0, .. })),
            "{text:?}"
        );
    }
}
