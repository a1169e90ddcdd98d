//! Turns the shards into families.

use std::{borrow::Borrow, collections::BTreeMap};

use super::{
    Telemetry,
    exposition::{Exposition, Kind, Value, float, labels_text},
    histogram::Histogram,
    labels::{CallerNames, Names, TargetNames},
    lock, names,
    shard::{LatencyCell, LatencyKey, Merged, RequestKey, RequestSum, Tokens},
    sketch::View,
};

const QUANTILES: [f64; 7] = [0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0];

pub(super) fn render(telemetry: &Telemetry) -> String {
    let epoch = telemetry.shared.epoch(telemetry.shared.clock.now());
    let mut merged = Merged::default();
    let shards = lock(&telemetry.shards).clone();
    for shard in shards {
        shard.fold_into(&mut merged, epoch);
    }
    // After the shards: every id in them was given out before.
    let labels = lock(&telemetry.labels).names();
    let scrape = Scrape { telemetry, labels, merged };
    let mut text = String::new();
    let mut out = Exposition::append_to(&mut text);
    scrape.requests(&mut out);
    scrape.gauges(&mut out);
    scrape.tokens(&mut out);
    scrape.latencies(&mut out);
    scrape.deployments(&mut out);
    scrape.auth(&mut out);
    text
}

struct Scrape<'a> {
    telemetry: &'a Telemetry,
    labels: Names,
    merged: Merged,
}

/// A merged cell with its label values.
struct Row<'a> {
    key: &'a RequestKey,
    sum: &'a RequestSum,
    model: &'a str,
    caller: CallerNames<'a>,
    target: TargetNames<'a>,
}

impl Row<'_> {
    fn outcome(&self) -> &'static str {
        match self.key.status {
            200..=399 => "success",
            429 => "rate_limited",
            400..=499 => "client_error",
            _ => "upstream_error",
        }
    }

    /// `provider, model`, plus what follows.
    fn short(&self, more: &[(&str, &str)]) -> String {
        let mut labels = vec![("provider", self.target.provider), ("model", self.model)];
        labels.extend_from_slice(more);
        labels_text(&labels)
    }

    /// The labels that request and token families share, plus what follows.
    fn long(&self, more: &[(&str, &str)]) -> String {
        let endpoint = self.key.endpoint.0;
        let mut labels = vec![
            ("endpoint", endpoint.label),
            ("inbound_protocol", endpoint.protocol),
            ("provider", self.target.provider),
            ("model", self.model),
            ("upstream_model", self.target.upstream_model),
            ("provider_key_id", self.target.provider_key_id),
            ("provider_key_name", self.target.provider_key_name),
            ("api_key_id", self.caller.api_key_id),
            ("team_id", self.caller.team_id),
            ("user_id", self.caller.user_id),
            ("user_name", self.caller.user_name),
        ];
        labels.extend_from_slice(more);
        labels_text(&labels)
    }

    fn counted(&self) -> String {
        self.long(&[
            ("stream", boolean(self.key.stream)),
            ("is_fallback", boolean(self.key.fallback)),
            ("status", &self.key.status.to_string()),
            ("outcome", self.outcome()),
        ])
    }

    fn timed(&self) -> String {
        self.long(&[
            ("stream", boolean(self.key.stream)),
            ("status", &self.key.status.to_string()),
            ("outcome", self.outcome()),
        ])
    }
}

fn boolean(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

impl Scrape<'_> {
    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.merged.requests.iter().map(|(key, sum)| Row {
            key,
            sum,
            model: self.labels.model(key.model),
            caller: self.labels.caller(key.caller),
            target: self.labels.target(key.target),
        })
    }

    fn answered(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows().filter(|row| !row.key.cancelled)
    }

    fn inference(&self) -> impl Iterator<Item = Row<'_>> {
        self.answered().filter(|row| row.key.endpoint.0.llm)
    }

    fn requests(&self, out: &mut Exposition<'_>) {
        let by_status = |row: &Row<'_>| row.key.status.to_string();
        let legacy = self.answered().map(|row| {
            let status = by_status(&row);
            let labels = row.short(&[("status", &status), ("outcome", row.outcome())]);
            (labels, row.sum.requests)
        });
        counter(out, names::REQUESTS, legacy);
        let legacy = self.answered().map(|row| {
            let status = by_status(&row);
            (row.short(&[("status", &status)]), &row.sum.handler)
        });
        summary(out, names::REQUEST_DURATION, legacy);

        let proxied = self.answered().map(|row| (row.counted(), row.sum.requests));
        counter(out, names::PROXY_REQUESTS, proxied);
        let failed = self.answered().filter(|row| row.outcome() != "success");
        let failed = failed.map(|row| (row.counted(), row.sum.requests));
        counter(out, names::PROXY_FAILED_REQUESTS, failed);
        let timed = self.answered().map(|row| (row.timed(), &row.sum.handler));
        summary(out, names::PROXY_REQUEST_DURATION, timed);

        let inference = self.inference().map(|row| (row.counted(), row.sum.requests));
        counter(out, names::LLM_REQUESTS, inference);
        let timed = self.inference().map(|row| (row.timed(), &row.sum.handler));
        summary(out, names::LLM_REQUEST_DURATION, timed);
    }

    fn gauges(&self, out: &mut Exposition<'_>) {
        let in_flight = self.merged.in_flight.iter().map(|(endpoint, count)| {
            let labels = [("endpoint", endpoint.0.label), ("inbound_protocol", endpoint.0.protocol)];
            (labels_text(&labels), *count)
        });
        plain(out, names::IN_FLIGHT, Kind::Gauge, in_flight);

        let cancelled = self.rows().filter(|row| row.key.cancelled).map(|row| {
            let labels = labels_text(&[
                ("endpoint", row.key.endpoint.0.label),
                ("model", row.model),
                ("provider_key_id", row.target.provider_key_id),
                ("provider_key_name", row.target.provider_key_name),
            ]);
            (labels, row.sum.requests)
        });
        counter(out, names::CLIENT_CANCELLED, cancelled);

        let rejected = self.merged.body_limit.iter();
        let rejected = rejected.map(|((endpoint, outcome), count)| {
            let labels = [
                ("endpoint", endpoint.0.label),
                ("inbound_protocol", endpoint.0.protocol),
                ("outcome", outcome),
            ];
            (labels_text(&labels), *count)
        });
        counter(out, names::BODY_LIMIT_REJECTIONS, rejected);
    }

    fn tokens(&self, out: &mut Exposition<'_>) {
        let consumed = self.rows().map(|row| (row.short(&[]), row.sum.tokens.consumed));
        counter(out, names::TOKENS_CONSUMED, consumed);
        let by_caller = |of: fn(&Tokens) -> u64| {
            let rows = self.rows();
            rows.map(move |row| (row.long(&[]), of(&row.sum.tokens)))
        };
        counter(out, names::LLM_INPUT_TOKENS, by_caller(|t| t.input));
        counter(out, names::LLM_OUTPUT_TOKENS, by_caller(|t| t.output));
        counter(out, names::LLM_TOTAL_TOKENS, by_caller(|t| t.total));
        counter(out, names::LLM_SPEND, by_caller(|t| t.micro_usd));
        let clients = &self.telemetry.shared.clients;
        let by_client = self.rows().flat_map(|row| {
            let tokens = &row.sum.tokens;
            let kinds = [("input", tokens.input), ("output", tokens.output), ("total", tokens.total)];
            kinds.map(|(kind, count)| {
                let labels = labels_text(&[
                    ("client_type", clients.name(row.key.client)),
                    ("model", row.model),
                    ("token_type", kind),
                ]);
                (labels, count)
            })
        });
        counter(out, names::LLM_TOKENS_BY_CLIENT, by_client);
        let ttft = self.rows().map(|row| (row.long(&[]), &row.sum.ttft));
        summary(out, names::LLM_TTFT, ttft);
    }

    fn latencies(&self, out: &mut Exposition<'_>) {
        let buckets = &self.telemetry.shared.buckets;
        let labels = |key: &LatencyKey| {
            labels_text(&[
                ("env_id", &self.telemetry.env_id),
                ("endpoint", key.endpoint.0.label),
                ("model", self.labels.model(key.model)),
                ("provider", self.labels.target(key.target).provider),
                ("status_class", key.class),
                ("streaming", boolean(key.stream)),
            ])
        };
        let cells = || self.merged.latencies.iter();
        let rows =
            |of: fn(&LatencyCell) -> &Histogram| cells().map(move |(key, cell)| (labels(key), of(cell)));
        let e2e = rows(|cell| &cell.e2e);
        histogram(out, names::E2E_LATENCY, &buckets.request_e2e_latency, e2e);
        let ttft = rows(|cell| &cell.ttft);
        histogram(out, names::TTFT, &buckets.request_ttft, ttft);
    }

    fn deployments(&self, out: &mut Exposition<'_>) {
        let labels = |target| {
            let target = self.labels.target(Some(target));
            labels_text(&[
                ("provider", target.provider),
                ("model", target.model),
                ("upstream_model", target.upstream_model),
                ("provider_key_id", target.provider_key_id),
            ])
        };
        let cells = || {
            let ids = self.labels.target_ids();
            ids.filter_map(|id| Some((id, self.merged.targets.get(id.index())?)))
        };
        let all = cells().map(|(id, cell)| (labels(id), cell.successes + cell.failures));
        counter(out, names::DEPLOYMENT_REQUESTS, all);
        let good = cells().map(|(id, cell)| (labels(id), cell.successes));
        counter(out, names::DEPLOYMENT_SUCCESSES, good);
        let bad = cells().map(|(id, cell)| (labels(id), cell.failures));
        counter(out, names::DEPLOYMENT_FAILURES, bad);

        let mut states: BTreeMap<String, u64> = BTreeMap::new();
        for (target, health) in lock(&self.telemetry.deployments).iter() {
            if let Some(state) = health.deployment_state() {
                // Models that share all labels share the series: the worst shows.
                let shown = states.entry(labels(*target)).or_default();
                *shown = state.max(*shown);
            }
        }
        plain(out, names::DEPLOYMENT_STATE, Kind::Gauge, states.into_iter());
        let cooled = cells().map(|(id, cell)| (labels(id), cell.cooled_down));
        counter(out, names::DEPLOYMENT_COOLED_DOWN, cooled);
    }

    fn auth(&self, out: &mut Exposition<'_>) {
        let decisions = self.merged.auth.iter().map(|(decision, count)| {
            let labels =
                [("method", decision.method), ("result", decision.result), ("reason", decision.reason)];
            (labels_text(&labels), *count)
        });
        counter(out, names::AUTH_DECISIONS, decisions);
    }
}

/// A counter family: series that are still zero do not exist.
fn counter(out: &mut Exposition<'_>, name: &str, rows: impl Iterator<Item = (String, u64)>) {
    plain(out, name, Kind::Counter, rows.filter(|(_, n)| *n > 0));
}

/// A family of plain numbers. Rows with the same labels add up.
fn plain(out: &mut Exposition<'_>, name: &str, kind: Kind, rows: impl Iterator<Item = (String, u64)>) {
    let mut series: BTreeMap<String, u64> = BTreeMap::new();
    for (labels, count) in rows {
        let sum = series.entry(labels).or_default();
        *sum = sum.saturating_add(count);
    }
    begin(out, name, kind, &series);
    for (labels, count) in series {
        out.raw_sample(name, &labels, Value::Int(count));
    }
}

fn summary<'a>(out: &mut Exposition<'_>, name: &str, rows: impl Iterator<Item = (String, &'a View)>) {
    let mut series: BTreeMap<String, View> = BTreeMap::new();
    for (labels, view) in rows.filter(|(_, view)| view.count > 0) {
        series.entry(labels).or_default().merge(view);
    }
    begin(out, name, Kind::Summary, &series);
    for (labels, view) in series {
        for (quantile, value) in QUANTILES.iter().zip(view.quantiles(QUANTILES)) {
            let labels = format!("{labels},quantile=\"{quantile}\"");
            out.raw_sample(name, &labels, Value::Float(value));
        }
        sum_and_count(out, name, &labels, (view.sum, view.count));
    }
}

fn histogram<'a>(
    out: &mut Exposition<'_>,
    name: &str,
    edges: &[f64],
    rows: impl Iterator<Item = (String, &'a Histogram)>,
) {
    let mut series: BTreeMap<String, Histogram> = BTreeMap::new();
    for (labels, one) in rows.filter(|(_, one)| !one.is_empty()) {
        series.entry(labels).or_default().merge(one);
    }
    begin(out, name, Kind::Histogram, &series);
    let bucket = format!("{name}_bucket");
    for (labels, one) in series {
        let edges = edges.iter().copied().chain([f64::INFINITY]);
        let mut count = 0;
        for (edge, up_to) in edges.zip(one.cumulative()) {
            let labels = format!("{labels},le=\"{}\"", float(edge));
            out.raw_sample(&bucket, &labels, Value::Int(up_to));
            count = up_to;
        }
        sum_and_count(out, name, &labels, (one.sum(), count));
    }
}

fn sum_and_count(out: &mut Exposition<'_>, name: &str, labels: &str, (sum, count): (f64, u64)) {
    out.raw_sample(&format!("{name}_sum"), labels, Value::Float(sum));
    out.raw_sample(&format!("{name}_count"), labels, Value::Int(count));
}

fn begin<T>(out: &mut Exposition<'_>, name: &str, kind: Kind, series: impl Borrow<BTreeMap<String, T>>) {
    if !series.borrow().is_empty() {
        out.family(name, kind);
    }
}
