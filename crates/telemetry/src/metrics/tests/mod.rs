//! The metrics as a scrape shows them.

pub(crate) mod parser;

use std::{sync::Arc, time::Duration};

use aisix_core::{Reason, RequestId, Usage};
use proptest::prelude::*;

use self::parser::{Scrape, parse};
use super::{AuthDecision, Buckets, CallerLabels, Shard, TargetId, TargetLabels, Telemetry, TelemetryConfig};
use crate::{
    AttemptFailure, CooldownPolicy, HealthTable,
    clock::manual::ManualClock,
    endpoint::EndpointInfo,
    record::{End, Record, RecordStart},
};

static CHAT: EndpointInfo = endpoint("/v1/chat/completions", true);
static FILES: EndpointInfo = endpoint("/v1/files", false);

const fn endpoint(label: &'static str, llm: bool) -> EndpointInfo {
    EndpointInfo {
        label,
        protocol: "openai",
        handler: "test",
        counted: true,
        llm,
        tokens: llm,
        e2e: llm,
        ttft: llm,
    }
}

fn target(telemetry: &Telemetry, model: &str) -> TargetId {
    telemetry.target(TargetLabels {
        model,
        provider: "openai",
        upstream_model: "up",
        provider_key_id: "pk",
        provider_key_name: "key \"one\"\\",
    })
}

fn open(telemetry: &Telemetry, endpoint: &'static EndpointInfo) -> Record {
    open_on(&telemetry.shard(), endpoint)
}

fn open_on(shard: &Arc<Shard>, endpoint: &'static EndpointInfo) -> Record {
    let start = RecordStart {
        endpoint,
        request_id: RequestId::mint(),
        method: http::Method::POST,
        path: endpoint.label.into(),
        user_agent: Some(b"OpenAI/Python 1"),
        client_ip: None,
    };
    Record::open(shard.clone(), start)
}

fn answer(telemetry: &Telemetry, endpoint: &'static EndpointInfo, status: u16) {
    let mut record = open(telemetry, endpoint);
    record.model = telemetry.model("m");
    record.target = Some(target(telemetry, "m"));
    record.usage = Usage { input: 2, output: 1, cache_read: 4, ..Usage::default() };
    record.head(status);
    record.close(End::Complete);
}

#[test]
fn a_fresh_process_exposes_nothing() {
    assert_eq!(Telemetry::new(TelemetryConfig::default()).render(), "");
}

#[test]
fn families_have_their_types_and_labels() {
    let clock = Arc::new(ManualClock::new());
    let telemetry = Telemetry::with_clock(TelemetryConfig::default(), clock.clone());
    let shard = telemetry.shard();
    let target = target(&telemetry, "m");
    let mut record = open(&telemetry, &CHAT);
    record.stream = true;
    record.target = Some(target);
    record.ttft = Some(Duration::from_millis(70));
    record.cost_micro_usd = 1;
    record.usage.output = 1;
    record.usage.input = 1;
    record.fail(&aisix_core::Error::new(Reason::UpstreamTimeout, "slow"));
    record.head(504);
    record.close(End::Complete);
    drop(open(&telemetry, &CHAT));
    shard.attempt(target, true);
    shard.attempt(target, false);
    shard.cooled_down(target);
    shard.body_limit_rejected(&CHAT, "completed");
    shard.auth(AuthDecision { method: "api_key", result: "allowed", reason: "none" });
    let health = HealthTable::with_clock(clock.clone()).model("m-1");
    telemetry.set_deployments(vec![(target, health.clone())]);
    assert!(!telemetry.render().contains("aisix_deployment_state"));
    let failure = AttemptFailure {
        reason: Reason::UpstreamTimeout,
        upstream_status: None,
        retry_after: None,
        retryable: true,
    };
    health.failure(&failure, &CooldownPolicy::default());

    let scrape = parse(&telemetry.render());
    let req = "endpoint,inbound_protocol,provider,model,upstream_model,provider_key_id,\
               provider_key_name,api_key_id,team_id,user_id,user_name";
    let dep = "provider,model,upstream_model,provider_key_id";
    let lat = "env_id,endpoint,model,provider,status_class,streaming";
    let counted = format!("{req},stream,is_fallback,status,outcome");
    let timed = format!("{req},stream,status,outcome");
    let expected = [
        ("aisix_requests_total", "counter", "provider,model,status,outcome"),
        ("aisix_request_duration_seconds", "summary", "provider,model,status"),
        ("aisix_proxy_requests_total", "counter", &counted),
        ("aisix_proxy_failed_requests_total", "counter", &counted),
        ("aisix_proxy_request_duration_seconds", "summary", &timed),
        ("aisix_llm_requests_total", "counter", &counted),
        ("aisix_llm_request_duration_seconds", "summary", &timed),
        ("aisix_proxy_in_flight_requests", "gauge", "endpoint,inbound_protocol"),
        (
            "aisix_proxy_client_cancelled_requests_total",
            "counter",
            "endpoint,model,provider_key_id,provider_key_name",
        ),
        ("aisix_proxy_request_body_limit_rejections_total", "counter", "endpoint,inbound_protocol,outcome"),
        ("aisix_tokens_consumed_total", "counter", "provider,model"),
        ("aisix_llm_input_tokens_total", "counter", req),
        ("aisix_llm_output_tokens_total", "counter", req),
        ("aisix_llm_total_tokens_total", "counter", req),
        ("aisix_llm_spend_micro_usd_total", "counter", req),
        ("aisix_llm_tokens_by_client_total", "counter", "client_type,model,token_type"),
        ("aisix_llm_time_to_first_token_seconds", "summary", req),
        ("aisix_request_e2e_latency_seconds", "histogram", lat),
        ("aisix_request_ttft_seconds", "histogram", lat),
        ("aisix_deployment_requests_total", "counter", dep),
        ("aisix_deployment_success_responses_total", "counter", dep),
        ("aisix_deployment_failure_responses_total", "counter", dep),
        ("aisix_deployment_state", "gauge", dep),
        ("aisix_deployment_cooled_down_total", "counter", dep),
        ("aisix_auth_decisions_total", "counter", "method,result,reason"),
    ];
    let found: Vec<_> = scrape.types.iter().map(|(n, k)| (n.as_str(), k.as_str())).collect();
    assert_eq!(found, expected.map(|(name, kind, _)| (name, kind)));
    for (name, _, labels) in expected {
        let samples = scrape.all.iter().filter(|s| s.name.starts_with(name));
        for sample in samples {
            let keys = sample.labels.iter().map(|(key, _)| key.as_str());
            let keys: Vec<_> = keys.filter(|k| !["le", "quantile"].contains(k)).collect();
            assert_eq!(keys.join(","), labels, "{name}");
        }
    }
    assert_eq!(scrape.sum("aisix_deployment_state", &[]), 2.0);
    clock.advance(Duration::from_secs(31));
    assert_eq!(parse(&telemetry.render()).sum("aisix_deployment_state", &[]), 0.0);
    assert!(telemetry.render().contains("aisix_deployment_state{"));
    telemetry.set_deployments(Vec::new());
    assert!(!telemetry.render().contains("aisix_deployment_state"));
}

#[test]
fn summaries_and_histograms_have_all_their_lines() {
    let telemetry = Telemetry::with_clock(
        TelemetryConfig {
            buckets: Buckets { request_e2e_latency: vec![0.5, 1.0], request_ttft: vec![2.0] },
            env_id: Some("prod".into()),
            ..TelemetryConfig::default()
        },
        Arc::new(ManualClock::new()),
    );
    answer(&telemetry, &CHAT, 200);
    let text = telemetry.render();
    let labels = "provider=\"openai\",model=\"m\",status=\"200\"";
    let mut expected = String::from("# TYPE aisix_request_duration_seconds summary\n");
    for quantile in ["0", "0.5", "0.9", "0.95", "0.99", "0.999", "1"] {
        expected += &format!("aisix_request_duration_seconds{{{labels},quantile=\"{quantile}\"}} 0\n");
    }
    expected += &format!(
        "aisix_request_duration_seconds_sum{{{labels}}} 0\n\
         aisix_request_duration_seconds_count{{{labels}}} 1\n"
    );
    assert!(text.contains(&expected), "{text}");
    let labels = "env_id=\"prod\",endpoint=\"/v1/chat/completions\",model=\"m\",\
                  provider=\"openai\",status_class=\"2xx\",streaming=\"false\"";
    let name = "aisix_request_e2e_latency_seconds";
    let expected = format!(
        "# TYPE {name} histogram\n\
         {name}_bucket{{{labels},le=\"0.5\"}} 1\n{name}_bucket{{{labels},le=\"1\"}} 1\n\
         {name}_bucket{{{labels},le=\"+Inf\"}} 1\n\
         {name}_sum{{{labels}}} 0\n{name}_count{{{labels}}} 1\n"
    );
    assert!(text.contains(&expected), "{text}");
    assert!(!text.contains("aisix_llm_request_duration_seconds_bucket"));
    assert!(text.contains(r#"provider_key_name="key \"one\"\\""#));
}

#[test]
fn totals_include_the_cache_and_clients_are_named() {
    let telemetry = Telemetry::new(TelemetryConfig::default());
    answer(&telemetry, &CHAT, 200);
    answer(&telemetry, &CHAT, 200);
    let scrape = parse(&telemetry.render());
    assert_eq!(scrape.sum("aisix_llm_total_tokens_total", &[]), 14.0);
    let by_client = |kind| {
        let labels = [("client_type", "openai-python"), ("token_type", kind)];
        scrape.sum("aisix_llm_tokens_by_client_total", &labels)
    };
    assert_eq!([by_client("input"), by_client("output"), by_client("total")], [4.0, 2.0, 14.0]);
    assert_eq!(scrape.sum("aisix_llm_spend_micro_usd_total", &[]), 0.0);
}

#[test]
fn endpoints_without_inference_feed_only_their_families() {
    let telemetry = Telemetry::new(TelemetryConfig::default());
    answer(&telemetry, &FILES, 200);
    let scrape = parse(&telemetry.render());
    assert_eq!(
        scrape.families(),
        [
            "aisix_requests_total",
            "aisix_request_duration_seconds",
            "aisix_proxy_requests_total",
            "aisix_proxy_request_duration_seconds",
            "aisix_proxy_in_flight_requests",
        ]
    );
}

#[test]
fn outcomes_follow_the_status() {
    let telemetry = Telemetry::new(TelemetryConfig::default());
    for status in [200, 302, 429, 404, 500, 504, 101] {
        answer(&telemetry, &CHAT, status);
    }
    let scrape = parse(&telemetry.render());
    let outcome = |outcome| scrape.sum("aisix_requests_total", &[("outcome", outcome)]);
    let counts = ["success", "rate_limited", "client_error", "upstream_error"].map(outcome);
    assert_eq!(counts, [2.0, 1.0, 1.0, 3.0]);
    let class = |class| scrape.sum("aisix_request_e2e_latency_seconds_count", &[("status_class", class)]);
    assert_eq!(["2xx", "3xx", "4xx", "5xx", "other"].map(class), [1.0, 1.0, 2.0, 2.0, 1.0]);
}

#[test]
fn shards_add_up_while_they_are_written() {
    const WORKERS: usize = 4;
    const EACH: usize = 500;
    let telemetry = Telemetry::new(TelemetryConfig::default());
    let models: Vec<_> = (0..100).map(|i| telemetry.model(&format!("m{i}"))).collect();
    let caller =
        telemetry.caller(CallerLabels { api_key_id: "k", team_id: None, user_id: None, user_name: None });
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            let shard = telemetry.shard();
            let models = &models;
            scope.spawn(move || {
                for i in 0..EACH {
                    let mut record = open_on(&shard, &CHAT);
                    record.model = models[i % models.len()];
                    record.caller = Some(caller);
                    record.usage.input = 1;
                    record.head(200);
                    record.close(End::Complete);
                }
            });
        }
        let mut last = 0.0;
        while last < (WORKERS * EACH) as f64 {
            let now = total(&parse(&telemetry.render()));
            assert!(now >= last);
            last = now;
        }
    });
    let scrape = parse(&telemetry.render());
    assert_eq!(total(&scrape), (WORKERS * EACH) as f64);
    let one = scrape.sum("aisix_llm_input_tokens_total", &[("model", "m7")]);
    assert_eq!(one, (WORKERS * EACH / 100) as f64);
    let timed = scrape.sum("aisix_llm_request_duration_seconds_count", &[]);
    assert_eq!(timed, (WORKERS * EACH) as f64);
}

fn total(scrape: &Scrape) -> f64 {
    scrape.sum("aisix_proxy_requests_total", &[])
}

/// One request: which model, its status, whether it streams, how it ends.
fn requests() -> impl Strategy<Value = Vec<(u8, u16, bool, u8)>> {
    let request = (0u8..4, 100u16..600, any::<bool>(), 0u8..4);
    prop::collection::vec(request, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_request_is_counted_once(names in prop::collection::vec(".*", 4), requests in requests()) {
        let telemetry = Telemetry::new(TelemetryConfig::default());
        let shards = [telemetry.shard(), telemetry.shard()];
        for (i, (model, status, stream, end)) in requests.iter().enumerate() {
            let mut record = open_on(&shards[i % 2], &CHAT);
            record.model = telemetry.model(&names[usize::from(*model)]);
            record.target = Some(target(&telemetry, &names[usize::from(*model)]));
            record.stream = *stream;
            record.ttft = Some(Duration::from_micros(i as u64));
            shards[i % 2].attempt(record.target.unwrap(), *status < 400);
            match end {
                0 => { record.head(*status); record.close(End::Complete) }
                1 => { record.head(*status); record.close(End::Failed) }
                2 => { record.head(*status); drop(record) }
                _ => drop(record),
            }
        }
        let scrape = parse(&telemetry.render());
        let cancelled = requests.iter().filter(|r| r.3 > 2).count() as f64;
        let answered = requests.len() as f64 - cancelled;
        prop_assert_eq!(total(&scrape), answered);
        prop_assert_eq!(scrape.sum("aisix_proxy_client_cancelled_requests_total", &[]), cancelled);
        prop_assert_eq!(scrape.sum("aisix_request_e2e_latency_seconds_count", &[]), answered);
        prop_assert_eq!(scrape.sum("aisix_proxy_request_duration_seconds_count", &[]), answered);
        prop_assert_eq!(scrape.sum("aisix_deployment_requests_total", &[]), requests.len() as f64);
        prop_assert_eq!(scrape.sum("aisix_proxy_in_flight_requests", &[]), 0.0);
    }
}
