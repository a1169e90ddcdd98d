//! The logger as a whole process sees it: the test starts itself as a child
//! and reads the child's standard error.

use std::process::Command;

use aisix_core::RequestId;
use aisix_telemetry::{
    End, EndpointInfo, Record, RecordStart, Telemetry, TelemetryConfig,
    log::{LogConfig, init},
};

const ROLE: &str = "LOG_TEST_ROLE";

static ENDPOINT: EndpointInfo = EndpointInfo {
    label: "/v1/e",
    protocol: "openai",
    handler: "e",
    counted: true,
    llm: true,
    tokens: true,
    e2e: true,
    ttft: true,
};

fn close_a_record() {
    let start = RecordStart {
        endpoint: &ENDPOINT,
        request_id: RequestId::accept(b"r-1").unwrap(),
        method: http::Method::POST,
        path: "/v1/e".into(),
        user_agent: None,
        client_ip: None,
    };
    let telemetry = Telemetry::new(TelemetryConfig::default());
    let mut record = Record::open(telemetry.shard(), start);
    record.provider_request_id = Some("p-1".into());
    record.head(200);
    record.close(End::Complete);
}

/// What the child does; the parent runs through here too, but has no role.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let json = role == "json";
    let guard = init(LogConfig { filter: "warn", json }).unwrap();
    tracing::info!(target: "t", "an info line");
    tracing::warn!(target: "t", "a warning");
    close_a_record();
    let panicked = std::thread::spawn(|| panic!("of {}", "a thread")).join();
    assert!(panicked.is_err());
    assert!(init(LogConfig { filter: "warn", json }).is_err());
    if role == "panic" {
        panic!("the end");
    }
    drop(guard);
    close_a_record();
    tracing::warn!(target: "t", "after the guard");
}

/// The child's log lines, without the time.
fn lines(role: &str, rust_log: Option<&str>) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command.env_remove("RUST_LOG").env(ROLE, role);
    if let Some(value) = rust_log {
        command.env("RUST_LOG", value);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.success(), role != "panic");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!text.contains('\u{1b}'), "{text}");
    let after_time = |line: &str| line.split_once(' ').map(|(_, rest)| rest.to_owned());
    text.lines().filter_map(after_time).collect()
}

#[test]
fn everything_is_written_and_panics_are_lines() {
    let lines = lines("text", None);
    assert_eq!(lines[0], "WARN t: a warning");
    assert!(lines[1].starts_with("ERROR aisix::panic: panicked: of a thread location=\""), "{lines:?}");
    assert_eq!(lines[2], "WARN t: after the guard");
    assert_eq!(lines.len(), 3);
}

#[test]
fn a_panic_that_ends_the_process_is_still_written() {
    let lines = lines("panic", None);
    assert!(lines[2].starts_with("ERROR aisix::panic: panicked: the end "), "{lines:?}");
}

#[test]
fn the_environment_replaces_the_filter_when_valid() {
    let with = lines("text", Some("t=info"));
    assert_eq!(with[0], "INFO t: an info line");
    let with = lines("text", Some("t=loud"));
    assert!(with[0].starts_with("WARN aisix::log: RUST_LOG is invalid"), "{with:?}");
    assert_eq!(with[1], "WARN t: a warning");
}

#[test]
fn records_are_written_as_the_filter_says() {
    for (filter, targets) in [
        ("info", &["aisix::access:", "aisix::provider:"][..]),
        ("info,aisix::provider=off", &["aisix::access:"]),
        ("error", &[]),
    ] {
        let lines = lines("text", Some(filter));
        let target = |line: &String| {
            let rest = line.strip_prefix("INFO request{request_id=r-1}: ")?;
            rest.split(' ').next().map(str::to_owned)
        };
        let written: Vec<_> = lines.iter().filter_map(target).collect();
        // Once while lines are buffered, once after the end of that.
        assert_eq!(written, targets.repeat(2), "{lines:?}");
    }
}

#[test]
fn json_lines_stay_json() {
    let lines = lines("json", None);
    // `lines` cuts at the first space, which is inside the message.
    assert_eq!(lines[0], "warning\"}");
    assert_eq!(lines.len(), 3);
}
