//! Every way a record can end, as the log and the scrape show it.

mod lines;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use aisix_core::{Error, Reason, RequestId, Usage};

use super::{End, Record, RecordStart};
use crate::{
    clock::manual::ManualClock,
    endpoint::EndpointInfo,
    log::tests::{after_time, capture},
    metrics::{
        CallerLabels, Shard, TargetLabels, Telemetry, TelemetryConfig,
        tests::parser::{Scrape, parse},
    },
};

static CHAT: EndpointInfo = EndpointInfo {
    label: "/v1/chat/completions",
    protocol: "openai",
    handler: "chat",
    counted: true,
    llm: true,
    tokens: true,
    e2e: true,
    ttft: true,
};

static MODELS: EndpointInfo = EndpointInfo {
    label: "/v1/models",
    protocol: "openai",
    handler: "models",
    counted: false,
    llm: false,
    tokens: false,
    e2e: false,
    ttft: false,
};

struct World {
    clock: Arc<ManualClock>,
    telemetry: Telemetry,
    shard: Arc<Shard>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new());
        let telemetry = Telemetry::with_clock(TelemetryConfig::default(), clock.clone());
        let shard = telemetry.shard();
        Self { clock, telemetry, shard }
    }

    fn open(&self, endpoint: &'static EndpointInfo) -> Record {
        let start = RecordStart {
            endpoint,
            request_id: RequestId::accept(b"r-1").unwrap(),
            method: http::Method::POST,
            path: endpoint.label.into(),
            user_agent: Some(b"curl/8"),
            client_ip: None,
        };
        Record::open(self.shard.clone(), start)
    }

    /// A chat request that has reached its target.
    fn chat(&self) -> Record {
        let mut record = self.open(&CHAT);
        record.caller = Some(self.telemetry.caller(CallerLabels {
            api_key_id: "key-1",
            team_id: Some("team"),
            user_id: None,
            user_name: None,
        }));
        record.api_key_id = Some("key-1".into());
        record.requested_model = Some("vendor/caller-made".into());
        record.model = self.telemetry.model("vendor/*");
        record.target = Some(self.telemetry.target(TargetLabels {
            model: "vendor/*",
            provider: "OpenAI",
            upstream_model: "*",
            provider_key_id: "pk-1",
            provider_key_name: "main",
        }));
        record.provider = Some("openai".into());
        record
    }

    fn scrape(&self) -> Scrape {
        parse(&self.telemetry.render())
    }

    fn wait(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }
}

const PROXY: &str = "aisix_proxy_requests_total";
const IN_FLIGHT: &str = "aisix_proxy_in_flight_requests";
const CANCELLED: &str = "aisix_proxy_client_cancelled_requests_total";
const E2E: &str = "aisix_request_e2e_latency_seconds_count";

fn usage() -> Usage {
    Usage { input: 5, output: 3, ..Usage::default() }
}

#[test]
fn a_buffered_answer() {
    let world = World::new();
    let lines = capture(false, || {
        let mut record = world.chat();
        assert_eq!(world.scrape().sum(IN_FLIGHT, &[]), 1.0);
        world.wait(120);
        record.usage = usage();
        record.cost_micro_usd = 42;
        record.attempts = 1;
        record.provider_request_id = Some("chatcmpl-1\n".into());
        record.provider_model_version = Some("gpt-x".into());
        record.head(200);
        assert_eq!(world.scrape().sum(IN_FLIGHT, &[]), 0.0);
        world.wait(3);
        record.close(End::Complete);
    });
    let lines: Vec<_> = lines.iter().map(|line| after_time(line)).collect();
    assert_eq!(
        lines,
        [
            "INFO request{request_id=r-1}: aisix::access: proxy request completed \
             method=\"POST\" path=\"/v1/chat/completions\" status=200 latency_ms=123 \
             provider=\"openai\" model=\"vendor/caller-made\" api_key_id=\"key-1\" \
             prompt_tokens=5 completion_tokens=3 total_tokens=8 request_id=\"r-1\" \
             provider_request_id=\"chatcmpl-1\" routing_attempt_count=1",
            "INFO request{request_id=r-1}: aisix::provider: provider call completed \
             request_id=\"r-1\" provider_request_id=\"chatcmpl-1\" attempt_index=0 \
             attempt_kind=\"initial\" handler=\"chat\" status=200 \
             requested_model=\"vendor/caller-made\" provider_model_version=\"gpt-x\"",
        ]
    );
    let scrape = world.scrape();
    assert_eq!(
        scrape.line(PROXY),
        "aisix_proxy_requests_total{endpoint=\"/v1/chat/completions\",inbound_protocol=\"openai\",\
         provider=\"openai\",model=\"vendor/*\",upstream_model=\"*\",provider_key_id=\"pk-1\",\
         provider_key_name=\"main\",api_key_id=\"key-1\",team_id=\"team\",user_id=\"unknown\",\
         user_name=\"unknown\",stream=\"false\",is_fallback=\"false\",status=\"200\",\
         outcome=\"success\"} 1"
    );
    assert_eq!(
        scrape.line("aisix_llm_spend_micro_usd_total"),
        "aisix_llm_spend_micro_usd_total{endpoint=\"/v1/chat/completions\",\
         inbound_protocol=\"openai\",provider=\"openai\",model=\"vendor/*\",upstream_model=\"*\",\
         provider_key_id=\"pk-1\",provider_key_name=\"main\",api_key_id=\"key-1\",\
         team_id=\"team\",user_id=\"unknown\",user_name=\"unknown\"} 42"
    );
    // Handler time ends with the head, the histogram with the body.
    assert_eq!(scrape.sum("aisix_proxy_request_duration_seconds_sum", &[]), 0.12);
    assert_eq!(scrape.sum("aisix_request_e2e_latency_seconds_sum", &[]), 0.123);
    assert!(!scrape.text.contains("caller-made"));
    assert!(!scrape.text.contains("aisix_proxy_failed_requests_total"));
}

#[test]
fn a_complete_stream() {
    let world = World::new();
    let lines = capture(true, || {
        let mut record = world.chat();
        record.stream = true;
        record.head(200);
        record.ttft = Some(Duration::from_millis(80));
        world.wait(2_000);
        record.usage = usage();
        record.close(End::Complete);
    });
    let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(line["status"], 200);
    assert_eq!(line["latency_ms"], 2_000);
    assert_eq!(line["total_tokens"], 8);
    assert_eq!(line["request_id"], "r-1");
    assert_eq!(line.get("error"), None);
    let scrape = world.scrape();
    assert_eq!(scrape.sum(E2E, &[("streaming", "true")]), 1.0);
    assert_eq!(
        scrape.line("aisix_request_ttft_seconds_count"),
        "aisix_request_ttft_seconds_count{env_id=\"unknown\",endpoint=\"/v1/chat/completions\",\
         model=\"vendor/*\",provider=\"openai\",status_class=\"2xx\",streaming=\"true\"} 1"
    );
    assert_eq!(scrape.sum("aisix_llm_time_to_first_token_seconds_sum", &[]), 0.08);
    assert_eq!(scrape.sum("aisix_proxy_request_duration_seconds_sum", &[]), 0.0);
}

#[test]
fn time_ends_when_the_record_is_stopped() {
    let world = World::new();
    let lines = capture(false, || {
        let mut record = world.chat();
        world.wait(20);
        record.head(200);
        world.wait(30);
        record.stop();
        world.wait(5000);
        record.usage = usage();
        record.close(End::Complete);
    });
    assert!(lines[0].contains("latency_ms=50 "), "{lines:#?}");
    let scrape = world.scrape();
    assert_eq!(scrape.sum("aisix_request_e2e_latency_seconds_sum", &[]), 0.05);
    assert_eq!(scrape.sum("aisix_llm_input_tokens_total", &[]), 5.0);
}

#[test]
fn a_stream_that_failed_after_its_head_is_a_failure() {
    let world = World::new();
    let lines = capture(false, || {
        let mut record = world.chat();
        record.stream = true;
        record.head(200);
        record.fail(&Error::new(Reason::StreamAborted, "public").with_detail("cut\nby 10.0.0.1"));
        record.close(End::Failed);
    });
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].ends_with(
            " status=502 latency_ms=0 provider=\"openai\" model=\"vendor/caller-made\" \
             api_key_id=\"key-1\" request_id=\"r-1\" error_kind=\"stream_aborted\" \
             error=\"cutby 10.0.0.1\""
        ),
        "{}",
        lines[0]
    );
    let scrape = world.scrape();
    let failed = [("status", "502"), ("outcome", "upstream_error")];
    assert_eq!(scrape.sum(PROXY, &failed), 1.0);
    assert_eq!(scrape.sum("aisix_proxy_failed_requests_total", &failed), 1.0);
    assert_eq!(scrape.sum(E2E, &[("status_class", "5xx")]), 1.0);
    assert_eq!(scrape.sum(PROXY, &[]), 1.0);
}

#[test]
fn an_error_response() {
    let world = World::new();
    let lines = capture(false, || {
        let mut record = world.open(&CHAT);
        record.requested_model = Some("nope".into());
        record.fail(&Error::new(Reason::ModelNotFound, "model \"nope\" not found"));
        record.head(404);
        record.close(End::Complete);
    });
    assert!(
        lines[0].ends_with(
            "status=404 latency_ms=0 model=\"nope\" request_id=\"r-1\" \
             error_kind=\"model_not_found\" error=\"model \\\"nope\\\" not found\""
        ),
        "{}",
        lines[0]
    );
    let scrape = world.scrape();
    let labels = [
        ("model", "unresolved"),
        ("provider", "unknown"),
        ("api_key_id", "unknown"),
        ("status", "404"),
        ("outcome", "client_error"),
    ];
    assert_eq!(scrape.sum(PROXY, &labels), 1.0);
    assert!(!scrape.text.contains("nope"));
}

#[test]
fn a_client_that_leaves_before_the_head() {
    let world = World::new();
    let lines = capture(false, || drop(world.chat()));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains(" status=499 "), "{}", lines[0]);
    assert!(lines[0].ends_with(" error_kind=\"client_disconnected\""));
    let scrape = world.scrape();
    assert_eq!(
        scrape.line(CANCELLED),
        "aisix_proxy_client_cancelled_requests_total{endpoint=\"/v1/chat/completions\",\
         model=\"vendor/*\",provider_key_id=\"pk-1\",provider_key_name=\"main\"} 1"
    );
    assert_eq!(scrape.families(), [IN_FLIGHT, CANCELLED]);
    assert_eq!(scrape.sum(IN_FLIGHT, &[]), 0.0);
}

#[test]
fn a_client_that_leaves_mid_stream() {
    let world = World::new();
    let lines = capture(false, || {
        let mut record = world.chat();
        record.stream = true;
        record.head(200);
        record.usage = usage();
    });
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains(" status=499 "), "{}", lines[0]);
    assert!(lines[0].ends_with(" error_kind=\"client_disconnected\""));
    let scrape = world.scrape();
    assert_eq!(scrape.sum(PROXY, &[("status", "200"), ("outcome", "success")]), 1.0);
    assert_eq!(scrape.sum(E2E, &[("status_class", "2xx")]), 1.0);
    assert_eq!(scrape.sum(CANCELLED, &[]), 0.0);
    assert_eq!(scrape.sum("aisix_tokens_consumed_total", &[]), 8.0);
}

#[test]
fn leaving_after_a_failure_does_not_hide_it() {
    for (head, stream) in [(502, false), (200, true)] {
        let world = World::new();
        let lines = capture(false, || {
            let mut record = world.chat();
            record.stream = stream;
            record.fail(&Error::new(Reason::UpstreamTransport, "gone"));
            record.head(head);
            record.close(End::ClientGone);
        });
        assert!(lines[0].contains(" status=502 "), "{}", lines[0]);
        assert!(lines[0].contains("error_kind=\"transport_error\""));
        assert_eq!(world.scrape().sum(PROXY, &[("status", "502")]), 1.0);
    }
}

#[test]
fn a_panic_is_an_internal_error() {
    for head in [None, Some(200)] {
        let world = World::new();
        let lines = capture(false, || {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let mut record = world.chat();
                if let Some(status) = head {
                    record.head(status);
                }
                std::panic::resume_unwind(Box::new("no hook, no noise"));
            }));
            assert!(panicked.is_err());
        });
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains(" status=500 "), "{}", lines[0]);
        assert!(lines[0].contains("error_kind=\"internal_error\""));
        let scrape = world.scrape();
        assert_eq!(scrape.sum(PROXY, &[("status", "500")]), 1.0);
        assert_eq!(scrape.sum(PROXY, &[]), 1.0);
        assert_eq!(scrape.sum(IN_FLIGHT, &[]), 0.0);
    }
}

#[test]
fn refused_credentials_and_uncounted_endpoints_leave_only_the_gauge() {
    let world = World::new();
    let lines = capture(false, || {
        let mut record = world.open(&CHAT);
        record.fail(&Error::new(Reason::UnknownKey, "no"));
        record.head(401);
        record.close(End::Complete);
        let mut record = world.open(&MODELS);
        record.head(200);
        record.close(End::Complete);
        drop(world.open(&MODELS));
    });
    assert!(lines.is_empty(), "{lines:?}");
    let scrape = world.scrape();
    assert_eq!(scrape.families(), [IN_FLIGHT]);
    assert_eq!(scrape.all.len(), 2);
    assert_eq!(scrape.sum(IN_FLIGHT, &[]), 0.0);
}

#[test]
fn an_upstream_that_refuses_our_credential_is_counted() {
    let world = World::new();
    let lines = capture(false, || {
        let mut record = world.chat();
        record.fail(&Error::new(Reason::UpstreamCredential, "no"));
        record.head(401);
        record.close(End::Complete);
    });
    assert_eq!(lines.len(), 1);
    assert_eq!(world.scrape().sum(PROXY, &[("status", "401")]), 1.0);
}

#[test]
fn closing_without_a_head_is_never_a_success() {
    for (end, error, status) in [
        (End::Complete, None, "500"),
        (End::Failed, None, "500"),
        (End::Failed, Some(Reason::UpstreamTimeout), "504"),
        (End::Complete, Some(Reason::BadRequest), "400"),
    ] {
        let world = World::new();
        let mut record = world.chat();
        if let Some(reason) = error {
            record.fail(&Error::new(reason, "x"));
        }
        record.close(end);
        assert_eq!(world.scrape().sum(PROXY, &[("status", status)]), 1.0);
        assert_eq!(world.scrape().sum(IN_FLIGHT, &[]), 0.0);
    }
}

#[test]
fn a_scope_gives_lines_their_context() {
    let world = World::new();
    let lines = capture(false, || {
        let record = world.open(&MODELS);
        record.scope(|| tracing::warn!(target: "elsewhere", "inside"));
        record.scope(|| tracing::warn!(target: "elsewhere", "again"));
        tracing::warn!(target: "elsewhere", "outside");
    });
    let lines: Vec<_> = lines.iter().map(|line| after_time(line)).collect();
    assert_eq!(
        lines,
        [
            "WARN request{request_id=r-1}: elsewhere: inside",
            "WARN request{request_id=r-1}: elsewhere: again",
            "WARN elsewhere: outside",
        ]
    );
}

#[test]
fn a_record_travels_with_its_request() {
    fn travels<T: Send + Sync>() {}
    travels::<Record>();
    travels::<Shard>();
}

#[test]
fn retries_and_fallbacks_are_told_apart() {
    for (attempts, fallbacks, kind) in [(0, 0, "initial"), (3, 0, "retry"), (3, 1, "fallback")] {
        let world = World::new();
        let lines = capture(true, || {
            let mut record = world.chat();
            record.attempts = attempts;
            record.fallbacks = fallbacks;
            record.served_by = Some("backup".into());
            record.provider_request_id = Some("x".into());
            record.head(200);
            record.close(End::Complete);
        });
        let line: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!(line["attempt_kind"], kind);
        assert_eq!(line["attempt_index"], attempts.saturating_sub(1));
        let fallback = if fallbacks > 0 { "true" } else { "false" };
        assert_eq!(world.scrape().sum(PROXY, &[("is_fallback", fallback)]), 1.0);
    }
}
