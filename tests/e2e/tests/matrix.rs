//! The endpoint matrix: every model endpoint, every way to fail, buffered and streamed. A new row inherits all cases.

use aisix_e2e::{expect_error_frame, idle, pair, request_id};
use aisix_testkit::gateway::builder::{CALLER_KEY, MODEL};
use aisix_testkit::{FakeProvider, Gateway, Reply, Request, Response, Stream, key_hash};
use serde_json::{Value, json};

/// A model endpoint.
struct Row {
    path: &'static str,
    /// Body for a model and a stream flag.
    body: fn(&str, bool) -> Value,
    /// Checks an error envelope: body, and the `type` of the OpenAI vocabulary.
    envelope: fn(&Value, &str),
    /// A streamed upstream answer that has begun but not ended.
    begun: fn() -> Stream,
}

const ROWS: [Row; 1] = [Row {
    path: "/v1/chat/completions",
    body: |model, stream| json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}),
    envelope: |body, kind| {
        aisix_e2e::check_error_object(body, kind);
    },
    begun: || Stream::new().content("begun"),
}];

/// What one request is made to meet.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Case {
    Success,
    NoKey,
    UnknownKey,
    UnknownModel,
    ForbiddenModel,
    ForbiddenAddress,
    Oversized,
    NotJson,
    Upstream400,
    Upstream429,
    Upstream500,
    UpstreamTimeout,
    UpstreamMalformed,
    UpstreamReset,
    UpstreamCut,
    HangUp,
}

const CASES: [Case; 16] = [
    Case::Success,
    Case::NoKey,
    Case::UnknownKey,
    Case::UnknownModel,
    Case::ForbiddenModel,
    Case::ForbiddenAddress,
    Case::Oversized,
    Case::NotJson,
    Case::Upstream400,
    Case::Upstream429,
    Case::Upstream500,
    Case::UpstreamTimeout,
    Case::UpstreamMalformed,
    Case::UpstreamReset,
    Case::UpstreamCut,
    Case::HangUp,
];

impl Case {
    /// Status and `type`; `None` for success and for faults after the head of a stream.
    fn refusal(self, stream: bool) -> Option<(u16, &'static str)> {
        Some(match self {
            Self::Success | Self::HangUp => return None,
            Self::NoKey | Self::UnknownKey => (401, "invalid_api_key"),
            Self::UnknownModel => (404, "model_not_found"),
            Self::ForbiddenModel | Self::ForbiddenAddress => (403, "permission_denied"),
            Self::Oversized => (413, "invalid_request_error"),
            Self::NotJson => (400, "invalid_request_error"),
            Self::Upstream400 => (400, "upstream_error"),
            Self::Upstream429 => (429, "upstream_error"),
            Self::Upstream500 => (502, "upstream_error"),
            Self::UpstreamTimeout => (504, "timeout"),
            Self::UpstreamMalformed => (502, "upstream_decode_error"),
            Self::UpstreamReset => (502, "transport_error"),
            Self::UpstreamCut if stream => return None,
            Self::UpstreamCut => (502, "transport_error"),
        })
    }

    /// Access lines and request samples. Refused credentials leave neither; a client that left before the head no sample.
    fn records(self, stream: bool) -> (usize, f64) {
        match self {
            Self::NoKey | Self::UnknownKey => (0, 0.0),
            Self::HangUp if !stream => (1, 0.0),
            _ => (1, 1.0),
        }
    }

    fn reaches_upstream(self) -> bool {
        use Case::*;
        matches!(
            self,
            Success
                | Upstream400
                | Upstream429
                | Upstream500
                | UpstreamTimeout
                | UpstreamMalformed
                | UpstreamReset
                | UpstreamCut
                | HangUp
        )
    }

    fn script(self, row: &Row, stream: bool) -> Option<Reply> {
        Some(match self {
            Self::Upstream400 => Reply::error(400, "bad"),
            Self::Upstream429 => Reply::error(429, "slow down"),
            Self::Upstream500 => Reply::error(500, "broken"),
            Self::UpstreamTimeout => Reply::hang(),
            Self::UpstreamMalformed if stream => (row.begun)().text("data: {nonsense\n\n").end(),
            Self::UpstreamMalformed => Reply::body(200, "application/json", "{nonsense"),
            Self::UpstreamReset => Reply::reset(),
            Self::UpstreamCut if stream => (row.begun)().cut_mid_chunk(),
            Self::UpstreamCut => Reply::short_body(500, "{\"id\":", false),
            Self::HangUp if stream => (row.begun)().hang(),
            Self::HangUp => Reply::hang(),
            _ => return None,
        })
    }

    fn request(self, row: &Row, stream: bool, id: &str) -> Request {
        let model = match self {
            Self::UnknownModel => "nowhere",
            Self::ForbiddenAddress => "fenced",
            _ => MODEL,
        };
        let mut body = (row.body)(model, stream);
        if self == Self::Oversized {
            body["padding"] = json!("x".repeat(5000));
        }
        let text = match self {
            Self::NotJson => "{".to_owned(),
            _ => body.to_string(),
        };
        let request = Request::post_text(row.path, &text).header("x-aisix-request-id", id);
        match self {
            Self::NoKey => request,
            Self::UnknownKey => request.bearer("sk-nobody"),
            Self::ForbiddenModel => request.bearer("sk-nothing"),
            _ => request.bearer(CALLER_KEY),
        }
    }
}

async fn gateway() -> (FakeProvider, Gateway) {
    let (upstream, builder) = pair().await;
    let gateway = builder
        .set("/proxy/request_body_limit_bytes", json!(4096))
        .edit(|r| {
            r["models"][0]["timeout"] = json!(400);
            let mut fenced = r["models"][0].clone();
            fenced["display_name"] = json!("fenced");
            fenced["allowed_cidrs"] = json!(["192.0.2.0/24"]);
            r["models"].as_array_mut().expect("models").push(fenced);
            let nothing =
                json!({"display_name": "nothing", "key_hash": key_hash("sk-nothing"), "allowed_models": []});
            r["api_keys"].as_array_mut().expect("api_keys").push(nothing);
        })
        .start()
        .await;
    (upstream, gateway)
}

/// Status and envelope of a refusal, or a good answer, or a fault inside the stream.
async fn check_reply(row: &Row, case: Case, stream: bool, mut reply: Response) {
    let refusal = match (case, stream) {
        // The first chunk was good, so the fault is inside the stream.
        (Case::UpstreamMalformed, true) => None,
        _ => case.refusal(stream),
    };
    if let Some((status, kind)) = refusal {
        assert_eq!(reply.status, status, "{case:?} stream={stream}");
        (row.envelope)(&reply.json().await, kind);
        return;
    }
    assert_eq!(reply.status, 200, "{case:?} stream={stream}");
    match (case, stream) {
        (Case::Success, false) => assert!(reply.json().await.is_object()),
        (Case::Success, true) => assert!(reply.events().await.last().is_some_and(|f| f.is_done())),
        _ => drop(expect_error_frame(&reply.events().await)),
    }
}

async fn hang_up(upstream: &FakeProvider, gateway: &Gateway, request: Request, stream: bool) {
    let seen = upstream.requests().len();
    let closed = upstream.closed().len();
    if stream {
        let mut reply = gateway.send(request).await;
        assert_eq!(reply.status, 200);
        reply.event().await;
    } else {
        let client = gateway.client();
        let waiting = tokio::spawn(async move { client.try_send(request).await.is_ok() });
        upstream.wait_requests(seen + 1).await;
        waiting.abort();
    }
    upstream.wait_closed(closed + 1).await;
}

async fn run_case(row: &Row, case: Case, stream: bool) {
    let (upstream, gateway) = gateway().await;
    let id = format!("{case:?}-{stream}");
    if let Some(reply) = case.script(row, stream) {
        upstream.push(reply);
    }
    let request = case.request(row, stream, &id);
    if case == Case::HangUp {
        hang_up(&upstream, &gateway, request, stream).await;
    } else {
        let reply = gateway.send(request).await;
        assert_eq!(request_id(&reply), id);
        check_reply(row, case, stream, reply).await;
    }
    assert_eq!(upstream.requests().len(), usize::from(case.reaches_upstream()), "{id}");
    idle(&gateway).await;
    let (lines, samples) = case.records(stream);
    if lines > 0 {
        let found = gateway.access_of(&id).await;
        assert_eq!(found.len(), lines, "{id}: {found:#?}");
        assert_eq!(found[0].get("path"), Some(row.path), "{id}");
    }
    gateway.wait_metric("aisix_proxy_requests_total", &[], samples).await;
    let success = [("outcome", "success")];
    let succeeded = gateway.scrape().await.sum("aisix_proxy_requests_total", &success);
    // A client that left a sound stream is no failure of anybody's.
    let may_succeed = case == Case::Success || case == Case::HangUp;
    assert!(may_succeed || succeeded == 0.0, "{id} counts as a success");
    // One more request proves that nothing is stuck, and that no second record came late.
    let after = gateway.send(Case::Success.request(row, false, "after")).await;
    assert_eq!(after.status, 200, "{id}");
    gateway.access_of("after").await;
    assert_eq!(gateway.access_log().len(), lines + 1, "{id}");
    gateway.wait_metric("aisix_proxy_requests_total", &[], samples + 1.0).await;
    idle(&gateway).await;
}

#[tokio::test]
async fn buffered() {
    for row in &ROWS {
        for case in CASES {
            run_case(row, case, false).await;
        }
    }
}

#[tokio::test]
async fn streamed() {
    for row in &ROWS {
        for case in CASES {
            run_case(row, case, true).await;
        }
    }
}
