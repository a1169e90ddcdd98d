//! Models: a name that callers use and the upstream model behind it.

use std::time::Duration;

use aisix_core::Price;
use ipnet::IpNet;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::schema::{
    Fault, Fields, Format, Kind, List, Off, Path, Problem, TEN_YEARS_SECS, def, opt, parse_net, req,
};
use crate::tree::Node;

/// A direct model. Its name may hold one `*`.
#[derive(Clone, Debug, Deserialize)]
pub struct Model {
    /// The name that callers use.
    pub display_name: String,
    /// The vendor label.
    pub provider: String,
    /// The upstream model; a `*` stands for the text that the name's `*` matched.
    pub model_name: String,
    /// The id of the provider key.
    pub provider_key_id: String,
    /// Deadline of one attempt, its body included; zero = explicitly none, `None` = not set here.
    #[serde(default, deserialize_with = "ms")]
    pub timeout: Option<Duration>,
    /// Longest gap between stream chunks; `None` = not set here.
    #[serde(default, deserialize_with = "ms_or_unset")]
    pub stream_timeout: Option<Duration>,
    /// Retries; `None` = not set here.
    pub retries: Option<u32>,
    /// Networks that clients must come from; empty = any.
    #[serde(default, deserialize_with = "nets")]
    pub allowed_cidrs: Vec<IpNet>,
    /// Price of tokens.
    #[serde(default, deserialize_with = "price")]
    pub cost: Option<Price>,
    /// When the model is left alone after failures.
    pub cooldown: Cooldown,
}

/// When a model is left alone after failures.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Cooldown {
    /// Whether it ever is.
    pub enabled: bool,
    /// How long, when the upstream does not say.
    #[serde(rename = "default_seconds", deserialize_with = "secs")]
    pub default: Duration,
    /// The longest.
    #[serde(rename = "max_seconds", deserialize_with = "secs")]
    pub max: Duration,
    /// Whether `Retry-After` of the upstream counts.
    pub honor_retry_after: bool,
    /// Upstream statuses that count.
    pub trigger_statuses: Vec<u16>,
    /// Whether timeouts count.
    pub trigger_on_timeout: bool,
    /// Whether transport failures count.
    pub trigger_on_transport: bool,
}

pub(crate) const TABLE: Fields = &[
    req("display_name", Kind::NAME, "The name that callers use; one `*` makes it a wildcard."),
    req("provider", Kind::Text { min: 1, max: 64, format: Format::Slug }, "Vendor label."),
    req("model_name", Kind::NAME, "Upstream model; a `*` stands for what the `*` of the name matched."),
    req(
        "provider_key_id",
        Kind::NAME,
        "Id of the provider key. In a resources file write `provider_key: <display_name>` instead.",
    ),
    opt("timeout", Kind::MS, "Deadline in ms; 0 = none. Default: `upstream.timeout_ms`."),
    opt(
        "stream_timeout",
        Kind::MS,
        "Longest gap between stream chunks in ms; 0 = as if absent. Default: `timeout`, then `upstream.stream_timeout_ms`.",
    ),
    opt("retries", Kind::U32, "Retries. Default: `upstream.retries`."),
    opt("rate_limit", Kind::Object(RATE_LIMIT), "Limits.").later(Off::Hollow),
    opt(
        "allowed_cidrs",
        Kind::List(&List::of(Kind::text(1, Format::Net))),
        "Networks that clients must come from; empty = any.",
    ),
    opt("routing", ANYTHING, "Model group.").later(Off::Never),
    opt("ensemble", ANYTHING, "Ensemble.").later(Off::Never),
    opt("semantic", ANYTHING, "Semantic router.").later(Off::Never),
    opt("embedding", ANYTHING, "Embedding model.").later(Off::Never),
    opt("cost", Kind::Object(COST), "Price in USD per 1,000 tokens."),
    opt("background_model_check", Kind::Object(CHECK), "Checks without traffic.").later(Off::Disabled),
    def("cooldown", Kind::Object(COOLDOWN), "{}", "When the model is left alone after failures."),
    opt("auto_prompt_caching", Kind::Object(PROMPT_CACHING), "Prompt caching on Anthropic models.")
        .later(Off::Disabled),
];

const ANYTHING: Kind = Kind::Anything { secret: false };
const STATUS: Kind = Kind::int(100, 599);
const STATUSES: Kind = Kind::List(&List::of(STATUS));
const PRICE: Kind = Kind::Number { min: 0.0, max: f64::INFINITY };

/// Limits, on models and on caller keys.
pub(super) const RATE_LIMIT: Fields = &[
    opt("rps", Kind::UINT, "Requests per second."),
    opt("rpm", Kind::UINT, "Requests per minute."),
    opt("rph", Kind::UINT, "Requests per hour."),
    opt("rpd", Kind::UINT, "Requests per day."),
    opt("tpm", Kind::UINT, "Tokens per minute."),
    opt("tpd", Kind::UINT, "Tokens per day."),
    opt("concurrency", Kind::U32, "Requests at the same time."),
];

const COST: Fields =
    &[req("input_per_1k", PRICE, "Input tokens."), req("output_per_1k", PRICE, "Output tokens.")];

const CHECK: Fields = &[
    req("enabled", Kind::Bool, "Switches it on."),
    req("interval_seconds", Kind::int(5, u64::MAX), "Time between checks."),
    req("timeout_seconds", Kind::int(1, u64::MAX), "Limit for a check."),
    req("prompt", Kind::NAME, "What is sent."),
    req("max_tokens", Kind::int(1, u32::MAX as u64), "Length of the answer."),
    req("stale_after_seconds", Kind::int(1, u64::MAX), "How long a result counts."),
    def("ignore_statuses", STATUSES, "[]", "Statuses that are no failure."),
];

const COOLDOWN: Fields = &[
    def("enabled", Kind::Bool, "true", "false = never."),
    def("default_seconds", Kind::SECS, "30", "How long, when the upstream does not say."),
    def("max_seconds", Kind::int(1, TEN_YEARS_SECS), "600", "The longest."),
    def("honor_retry_after", Kind::Bool, "true", "Whether `Retry-After` of the upstream counts."),
    def(
        "trigger_statuses",
        STATUSES,
        "[401,408,429,500,502,503,504]",
        "Upstream statuses that count; a list replaces the default.",
    ),
    def("trigger_on_timeout", Kind::Bool, "true", "Whether timeouts count."),
    def("trigger_on_transport", Kind::Bool, "true", "Whether transport failures count."),
];

const PROMPT_CACHING: Fields = &[
    req("enabled", Kind::Bool, "Switches it on."),
    def("ttl", Kind::Enum(&["5m", "1h"]), r#""5m""#, "Life of the cache."),
];

/// The rules that the table cannot say.
pub(crate) fn rules(node: &Node, document: &Value, problems: &mut Vec<Problem>) {
    // A model of another shape lacks these by design: one message is enough.
    let shapes = ["routing", "ensemble", "semantic"];
    if shapes.iter().any(|shape| node.get(shape).is_some()) {
        let direct = ["provider", "model_name", "provider_key_id"];
        problems.retain(|problem| !matches!(problem.fault, Fault::Required(name) if direct.contains(&name)));
    }
    let stars = |field: &str| document[field].as_str().map_or(0, |text| text.matches('*').count());
    let mut add = |field: &str, why: &str| {
        let origin = node.get(field).unwrap_or(node).origin.clone();
        problems.push(Problem { path: Path::of(field), origin, fault: Fault::Rule(why.into()) });
    };
    if stars("display_name") > 1 {
        add("display_name", "value has more than one `*` and would match nothing");
    }
    if stars("model_name") > 1 && stars("display_name") == 1 {
        add("model_name", "value has more than one `*`; only one can be filled in");
    }
}

fn ms<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<Duration>, D::Error> {
    Ok(Option::<u64>::deserialize(raw)?.map(Duration::from_millis))
}

fn ms_or_unset<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<Duration>, D::Error> {
    Ok(ms(raw)?.filter(|timeout| !timeout.is_zero()))
}

fn secs<'de, D: Deserializer<'de>>(raw: D) -> Result<Duration, D::Error> {
    u64::deserialize(raw).map(Duration::from_secs)
}

fn nets<'de, D: Deserializer<'de>>(raw: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(raw)?;
    let nets: Option<Vec<_>> = texts.iter().map(|text| parse_net(text)).collect();
    nets.ok_or_else(|| D::Error::custom("invalid CIDR/IP"))
}

fn price<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<Price>, D::Error> {
    #[derive(Deserialize)]
    struct Raw {
        input_per_1k: f64,
        output_per_1k: f64,
    }
    let raw = Option::<Raw>::deserialize(raw)?;
    Ok(raw.map(|raw| Price { input_per_1k: raw.input_per_1k, output_per_1k: raw.output_per_1k }))
}
