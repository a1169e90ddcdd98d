//! Fixtures of the endpoint table: each row has a folder in `fixtures/endpoints`
//! with requests and the responses they get from a gateway in this process.
//! `fixtures/README.md` says what the files are.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use aisix_config::load_resources;
use aisix_core::Lifecycle;
use aisix_proxy::{
    ENDPOINTS, Gateway, GatewayParts, ReplyBody, Settings, Snapshot,
    upstream::{ProxyEnv, Trust, TrustFiles, UpstreamSettings},
};
use aisix_telemetry::{HealthTable, Telemetry, TelemetryConfig};
use aisix_wire::SseDecoder;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use regex::Regex;
use serde_json::Value;

const BODY_LIMIT: u64 = 4096;

/// What the gateway is doing when the request comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Starting,
    Running,
    Draining,
}

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/endpoints")
}

/// A caller's key is `sk-` and the name in its `key_env`, in lower case.
fn secret(name: &str) -> Option<String> {
    Some(format!("sk-{}", name.to_lowercase()))
}

fn gateway(state: State) -> Arc<Gateway> {
    let loaded = load_resources(&tree().join("resources.yaml"), &secret).expect("resources");
    let telemetry = Arc::new(Telemetry::new(TelemetryConfig::default()));
    let health = Arc::new(HealthTable::new());
    let lifecycle = Arc::new(Lifecycle::new());
    if state != State::Starting {
        lifecycle.config_applied();
    }
    if state == State::Draining {
        lifecycle.begin_drain();
    }
    let trust = TrustFiles { ca_file: None, client: None, insecure: false };
    Gateway::new(GatewayParts {
        settings: Settings {
            body_limit: Some(BODY_LIMIT),
            body_timeout: None,
            request_id_headers: vec![HeaderName::from_static("x-aisix-request-id")],
            trusted_proxies: Vec::new(),
            real_ip_recursive: false,
            real_ip_header: HeaderName::from_static("x-forwarded-for"),
            rewrites: Vec::new(),
            timeout: None,
            stream_timeout: None,
            retries: 0,
            sse_keepalive: None,
        },
        upstream: UpstreamSettings {
            connect_timeout: None,
            tcp_keepalive: (None, None, None),
            pool_idle_timeout: None,
            pool_max_idle: None,
        },
        trust: Arc::new(Trust::load(&trust).expect("trust")),
        proxies: ProxyEnv {
            http: String::new(),
            https: String::new(),
            all: String::new(),
            no: String::new(),
        },
        snapshot: Snapshot::compile(&loaded.set, &telemetry, &health, None),
        telemetry,
        health,
        lifecycle,
    })
}

/// A file.
struct Fixture {
    name: String,
    json: Value,
}

impl Fixture {
    fn state(&self) -> State {
        match self.json.get("gateway").map(Value::as_str) {
            None | Some(Some("running")) => State::Running,
            Some(Some("starting")) => State::Starting,
            Some(Some("draining")) => State::Draining,
            other => panic!("{}: gateway: {other:?}", self.name),
        }
    }

    fn method(&self) -> Method {
        self.text("/request/method").parse().expect("method")
    }

    fn text(&self, pointer: &str) -> &str {
        let value = self.json.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_else(|| panic!("{}: {pointer} is missing", self.name))
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let body = match self.json.pointer("/request/body") {
            None => Bytes::new(),
            Some(Value::String(text)) => text.clone().into(),
            Some(json) => json.to_string().into(),
        };
        let mut request = Request::builder().method(self.method()).uri(self.text("/request/path"));
        request = request.header("host", "gateway");
        let headers = self.json.pointer("/request/headers").and_then(Value::as_object);
        for (name, value) in headers.into_iter().flatten() {
            // A list gives the same header several times.
            for value in value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice) {
                request = request.header(name, value.as_str().expect("a header is text"));
            }
        }
        request.body(Full::new(body)).expect("request")
    }
}

fn fixtures() -> BTreeMap<String, Vec<Fixture>> {
    let mut folders = BTreeMap::new();
    for entry in fs::read_dir(tree()).expect("fixtures/endpoints") {
        let path = entry.expect("entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8").to_owned();
        if path.is_dir() {
            folders.insert(name.clone(), read_folder(&path, &name));
        } else {
            assert_eq!(name, "resources.yaml", "an unexpected file");
        }
    }
    folders
}

fn read_folder(folder: &Path, endpoint: &str) -> Vec<Fixture> {
    let entries = fs::read_dir(folder).expect("folder");
    let fixtures = entries.map(|entry| {
        let path = entry.expect("entry").path();
        let file = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
        let name = format!("{endpoint}/{file}");
        assert!(file.ends_with(".http.json"), "{name}: an unexpected file");
        let json = serde_json::from_slice(&fs::read(&path).expect("readable"));
        Fixture { json: json.unwrap_or_else(|e| panic!("{name}: {e}")), name }
    });
    fixtures.collect()
}

/// Whether a text is as expected; `<uuid>`, `<unix-seconds>` and `<any>` stand
/// for what varies.
fn text_matches(expected: &str, actual: &str) -> bool {
    let pattern = regex::escape(expected)
        .replace("<uuid>", "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
        .replace("<unix\\-seconds>", "[0-9]{10}")
        .replace("<any>", "(?s:.*)");
    Regex::new(&format!("^(?:{pattern})$")).expect("pattern").is_match(actual)
}

fn json_matches(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::String(expected), Value::String(actual)) => text_matches(expected, actual),
        (Value::String(expected), other) if expected.starts_with('<') => {
            text_matches(expected, &other.to_string())
        }
        (Value::Array(expected), Value::Array(actual)) => {
            expected.len() == actual.len() && expected.iter().zip(actual).all(|(e, a)| json_matches(e, a))
        }
        (Value::Object(expected), Value::Object(actual)) => {
            expected.len() == actual.len()
                && expected.iter().all(|(k, e)| actual.get(k).is_some_and(|a| json_matches(e, a)))
        }
        (expected, actual) => expected == actual,
    }
}

fn check_headers(expected: &Value, actual: &HeaderMap) {
    for (name, expected) in expected.as_object().expect("headers") {
        let actual = actual.get(name).map(|value| value.to_str().expect("text"));
        match expected.as_str() {
            Some(expected) => {
                let found = actual.unwrap_or_else(|| panic!("no header {name}"));
                assert!(text_matches(expected, found), "header {name}: {found}");
            }
            None => assert_eq!(actual, None, "header {name}"),
        }
    }
}

fn check_events(expected: &[Value], body: &[u8]) {
    let mut decoder = SseDecoder::new();
    decoder.push(body);
    let mut expected = expected.iter();
    while let Some(event) = decoder.next_event() {
        let text = String::from_utf8(event.data.into_owned()).expect("UTF-8");
        let actual = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let expected = expected.next().unwrap_or_else(|| panic!("one event too many: {actual}"));
        assert!(json_matches(expected, &actual), "expected {expected}\ngot      {actual}");
    }
    assert_eq!(expected.next(), None, "an event is missing");
    assert_eq!(decoder.last_event(), None, "the last event is not closed");
}

async fn check(fixture: &Fixture, response: Response<ReplyBody>) {
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("infallible").to_bytes();
    let shown = String::from_utf8_lossy(&body);
    let expected = &fixture.json["response"];
    assert_eq!(Some(u64::from(head.status.as_u16())), expected["status"].as_u64(), "status; body: {shown}");
    // These two are on every response.
    assert!(text_matches("AISIX/<any>", head.headers["server"].to_str().expect("text")));
    assert!(!head.headers["x-aisix-request-id"].is_empty());
    if let Some(headers) = expected.get("headers") {
        check_headers(headers, &head.headers);
    }
    if let Some(events) = expected.get("events") {
        return check_events(events.as_array().expect("a list of events"), &body);
    }
    if fixture.method() == Method::HEAD {
        // The HTTP library leaves the body out.
        return;
    }
    match expected.get("body").expect("a response has a body or events") {
        Value::String(text) => assert!(text_matches(text, &shown), "expected {text}\ngot      {shown}"),
        json => {
            let actual: Value = serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{e}: {shown}"));
            assert!(json_matches(json, &actual), "expected {json}\ngot      {actual}");
        }
    }
}

#[test]
fn every_row_has_its_folder_and_every_folder_its_row() {
    let folders = fixtures();
    for row in ENDPOINTS {
        let fixtures = folders.get(row.name).unwrap_or_else(|| panic!("no fixtures/endpoints/{}", row.name));
        assert!(
            fixtures.iter().any(|fixture| fixture.method() == row.method),
            "{}: no fixture uses the method of the row",
            row.name
        );
        for fixture in fixtures {
            let path = fixture.text("/request/path").split('?').next();
            assert_eq!(path, Some(row.path), "{} asks for another endpoint", fixture.name);
        }
    }
    for folder in folders.keys() {
        assert!(ENDPOINTS.iter().any(|row| row.name == folder), "fixtures/endpoints/{folder} has no row");
    }
}

#[tokio::test]
async fn every_request_gets_its_response() {
    let states = [State::Starting, State::Running, State::Draining];
    let workers = states.map(|state| (state, gateway(state).worker()));
    let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
    for fixture in fixtures().values().flatten() {
        // Shown when the test fails.
        println!("{}", fixture.name);
        let state = fixture.state();
        let (_, worker) = workers.iter().find(|(of, _)| *of == state).expect("a worker for each state");
        let response = worker.clone().serve(fixture.request(), peer).await;
        check(fixture, response).await;
    }
}

#[test]
fn placeholders_stand_for_what_varies_and_nothing_else() {
    let uuid = "0b8f1f0e-3a51-4c7e-9e0a-0123456789ab";
    assert!(text_matches("chatcmpl-<uuid>", &format!("chatcmpl-{uuid}")));
    assert!(!text_matches("<uuid>", "0b8f1f0e"));
    assert!(!text_matches("a.c", "abc"));
    assert!(json_matches(&"<unix-seconds>".into(), &1_700_000_000.into()));
    assert!(!json_matches(&"<unix-seconds>".into(), &17.into()));
    assert!(!json_matches(&serde_json::json!({"a": 1}), &serde_json::json!({"a": 1, "b": 2})));
}
