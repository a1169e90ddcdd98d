//! The lines of a record are the same, whichever way they take.

use std::{sync::Arc, time::Duration};

use aisix_core::{RequestId, Usage};
use proptest::{prelude::*, sample::select};

use super::{CHAT, World};
use crate::{
    log::tests::{How, after_time, taken},
    record::{End, Record, RecordStart, RecordedError},
};

const TEXT: How = How { filter: "info", json: false, ansi: false, only_events: false };
const COLOURED: How = How { ansi: true, ..TEXT };
const JSON: How = How { json: true, ..TEXT };

/// The lines that `f` leaves, without their times.
fn lines(how: How, f: impl FnOnce()) -> Vec<String> {
    let time = if how.json { "{\"timestamp\":\"".len() } else { 0 };
    let without_time = |line: &str| {
        let (before, rest) = line.split_at(time);
        let (time, rest) = rest.split_at("0000-00-00T00:00:00.000000Z".len());
        after_time(&format!("{time} "));
        format!("{before}{rest}")
    };
    taken(how, f).iter().flat_map(|lines| lines.lines()).map(without_time).collect()
}

/// Both ways, which must agree.
fn both(how: How, f: impl Fn()) -> Vec<String> {
    let direct = lines(how, &f);
    assert_eq!(direct, lines(How { only_events: true, ..how }, &f), "{how:?}");
    direct
}

fn full(world: &World) -> Record {
    let mut record = world.chat();
    record.attempts = 1;
    record.provider_request_id = Some("x".into());
    record.head(200);
    record
}

#[test]
fn lines_are_handed_over_at_once() {
    let world = World::new();
    let close = || full(&world).close(End::Complete);
    for (filter, counts) in [("info", vec![2]), ("info,aisix::access=off", vec![1]), ("warn", vec![])] {
        let counted = |how| taken(how, close).iter().map(|t| t.lines().count()).collect::<Vec<_>>();
        assert_eq!(counted(How { filter, ..TEXT }), counts);
        assert_eq!(counted(How { filter, ..JSON }), counts);
    }
    let events = taken(How { only_events: true, ..TEXT }, close);
    assert_eq!(events.len(), 2);
}

#[test]
fn the_filter_decides_about_each_line() {
    let world = World::new();
    for (filter, expected) in [
        ("info", &["aisix::access", "aisix::provider"][..]),
        ("trace", &["aisix::access", "aisix::provider"]),
        ("warn", &[]),
        ("off", &[]),
        ("info,aisix=warn", &[]),
        ("info,aisix::provider=off", &["aisix::access"]),
        ("info,aisix::access=error", &["aisix::provider"]),
        ("off,aisix::access=info", &["aisix::access"]),
        ("off,[{error_kind}]=info", &["aisix::access"]),
        ("off,aisix::provider[{no_such}]=info", &[]),
        ("off,[request]=info", &[]),
        ("off,[outer]=info", &["aisix::access", "aisix::provider"]),
    ] {
        let inside = filter.contains("outer");
        let logged = both(How { filter, ..TEXT }, || {
            let close = || full(&world).close(End::Complete);
            if inside { tracing::info_span!(target: "t", "outer").in_scope(close) } else { close() }
        });
        let target =
            |line: &String| line.split(' ').find_map(|w| w.strip_prefix("aisix::")).map(str::to_owned);
        let targets: Vec<_> = logged.iter().filter_map(target).collect();
        let expected: Vec<_> =
            expected.iter().map(|t| t.trim_start_matches("aisix::").to_owned() + ":").collect();
        assert_eq!(targets, expected, "{filter}");
    }
}

#[test]
fn spans_around_a_line_are_shown() {
    let world = World::new();
    for how in [TEXT, COLOURED, JSON] {
        let within = both(how, || {
            let outer = tracing::info_span!(target: "t", "outer", shard = 7);
            outer.in_scope(|| full(&world).close(End::Complete));
            let request = tracing::info_span!(target: "t", "request", request_id = "other");
            request.in_scope(|| full(&world).close(End::Complete));
            // The thread has had spans, but is in none.
            full(&world).close(End::Complete);
        });
        assert_eq!(within.len(), 6);
        for line in &within[..2] {
            assert!(line.contains(if how.json { ",\"shard\":7" } else { " outer{" }), "{line}");
        }
    }
}

/// Text with much in it that has to be escaped somewhere.
fn nasty() -> impl Strategy<Value = String> {
    let chars = select(
        "ab /:=,{}[]'\"\\\0\t\n\r\u{1b}\u{7f}\u{80}\u{85}é\u{301}\u{200b}\u{2028}\u{2029}\u{e000}語😀"
            .chars()
            .collect::<Vec<_>>(),
    );
    let plain = select(vec!["", "gpt-4o-mini", "chatcmpl-9xkW3vGq0Qm1Zb7sT2aYdE5n"]).prop_map(str::to_owned);
    let long = (250usize..3_000).prop_map(|len| "x".repeat(len));
    prop_oneof![4 => plain, 4 => prop::collection::vec(chars, 0..40).prop_map(String::from_iter), 1 => long]
}

fn maybe<T: std::fmt::Debug>(some: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::of(some)
}

/// Texts of a record.
#[derive(Debug)]
struct Texts {
    request_id: String,
    path: String,
    provider: Option<String>,
    model: Option<String>,
    api_key_id: Option<String>,
    served_by: Option<String>,
    provider_request_id: Option<String>,
    version: Option<String>,
    error: Option<String>,
}

prop_compose! {
    fn texts()(
        request_id in prop::collection::vec(prop_oneof![b'a'..=b'f', 0x21u8..=0x7E], 1..60),
        path in nasty(),
        configured in prop::array::uniform3(maybe(nasty())),
        sent in prop::array::uniform4(maybe(nasty())),
    ) -> Texts {
        let [provider, api_key_id, served_by] = configured;
        let [model, provider_request_id, version, error] = sent;
        let request_id = String::from_utf8(request_id).unwrap();
        Texts { request_id, path, provider, model, api_key_id, served_by, provider_request_id, version, error }
    }
}

fn record(
    world: &World,
    texts: &Texts,
    [input, output, total]: [u64; 3],
    [attempts, fallbacks]: [u32; 2],
) -> Record {
    let start = RecordStart {
        endpoint: &CHAT,
        request_id: RequestId::accept(texts.request_id.as_bytes()).unwrap(),
        method: http::Method::from_bytes(b"M-SEARCH'!").unwrap(),
        path: texts.path.clone(),
        user_agent: None,
        client_ip: None,
    };
    let shared = |text: &Option<String>| text.as_deref().map(Arc::from);
    let mut record = Record::open(world.shard.clone(), start);
    record.provider = shared(&texts.provider);
    record.api_key_id = shared(&texts.api_key_id);
    record.served_by = shared(&texts.served_by);
    record.requested_model = texts.model.clone();
    record.provider_request_id = texts.provider_request_id.clone();
    record.provider_model_version = texts.version.clone();
    record.error = texts.error.clone().map(|text| RecordedError { kind: "kind", status: 503, text });
    record.usage = Usage { input, output, total, ..Usage::default() };
    (record.attempts, record.fallbacks) = (attempts, fallbacks);
    record
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn both_ways_write_the_same(
        texts in texts(),
        tokens in prop::array::uniform3(prop_oneof![Just(0u64), 0..=u64::MAX / 4]),
        counts in prop::array::uniform2(prop_oneof![0u32..3, any::<u32>()]),
        millis in 0u64..10_000_000,
        end in select(vec![End::Complete, End::Failed, End::ClientGone]),
    ) {
        for how in [TEXT, COLOURED, JSON] {
            let logged = both(how, || {
                let world = World::new();
                let mut record = record(&world, &texts, tokens, counts);
                world.clock.advance(Duration::from_millis(millis));
                record.head(200);
                record.close(end);
            });
            prop_assert!(!logged.is_empty());
            for line in logged {
                // JSON only has to escape the ones of ASCII.
                let control = |c: &char| if how.json { *c < ' ' } else { c.is_control() };
                let controls = line.chars().filter(control).count();
                prop_assert_eq!(controls, if how.ansi { 2 } else { 0 }, "{:?}", line);
                if how.json {
                    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
                    prop_assert_eq!(&line["request_id"], &texts.request_id);
                }
            }
        }
    }
}
