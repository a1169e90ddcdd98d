//! Models: a name that callers use and the upstream model behind it.

mod shapes;

use std::time::Duration;

use aisix_core::Price;
use ipnet::IpNet;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::rule::Review;
use super::{Identity, Ref, Resource, ResourceKind, rows_of};
use crate::schema::{
    self, Fault, Fields, Format, Kind, List, Mode, Nulls, Off, Path, Problem, TEN_YEARS_SECS, def, opt,
    parse_net, req,
};
use crate::tree::Node;

/// A model. The name of a direct one may hold one `*`.
#[derive(Clone, Debug, Deserialize)]
pub struct Model {
    /// The name that callers use.
    pub display_name: String,
    provider: Option<String>,
    model_name: Option<String>,
    provider_key_id: Option<String>,
    #[serde(default, deserialize_with = "present")]
    routing: bool,
    #[serde(default, deserialize_with = "present")]
    ensemble: bool,
    #[serde(default, deserialize_with = "present")]
    semantic: bool,
    /// Deadline of one attempt, its body included; zero = explicitly none, `None` = not set here.
    #[serde(default, deserialize_with = "ms")]
    pub timeout: Option<Duration>,
    /// Longest gap between stream chunks; `None` = not set here.
    #[serde(default, deserialize_with = "ms_or_unset")]
    pub stream_timeout: Option<Duration>,
    /// Retries; `None` = not set here.
    pub retries: Option<u32>,
    /// Networks that clients must come from; `None` = any.
    #[serde(default, deserialize_with = "nets")]
    pub allowed_cidrs: Option<Vec<IpNet>>,
    /// Price of tokens.
    #[serde(default, deserialize_with = "price")]
    pub cost: Option<Price>,
    /// When the model is left alone after failures.
    #[serde(default)]
    pub cooldown: Cooldown,
}

/// What a direct model stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direct<'m> {
    /// The vendor label.
    pub provider: &'m str,
    /// The upstream model; a `*` stands for the text that the name's `*` matched.
    pub model_name: &'m str,
    /// The id of the provider key.
    pub provider_key_id: &'m str,
}

impl Model {
    /// What it stands for, unless it is virtual.
    pub fn direct(&self) -> Option<Direct<'_>> {
        Some(Direct {
            provider: self.provider.as_deref()?,
            model_name: self.model_name.as_deref()?,
            provider_key_id: self.provider_key_id.as_deref()?,
        })
    }

    /// `direct`, `routing`, `ensemble` or `semantic`.
    pub fn shape(&self) -> &'static str {
        match (self.routing, self.ensemble, self.semantic) {
            (true, _, _) => "routing",
            (_, true, _) => "ensemble",
            (_, _, true) => "semantic",
            _ => "direct",
        }
    }
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

impl Default for Cooldown {
    fn default() -> Self {
        let none = schema::check(
            &Kind::Object(COOLDOWN),
            &Node::of_json(Value::Object(Default::default())),
            Nulls::Never,
            Mode::Strict,
        );
        // Every default of the tables is parsed by a test.
        serde_json::from_value(none.document).expect("the defaults")
    }
}

pub(crate) static KIND: ResourceKind = ResourceKind {
    refs: &[
        Ref::id("provider_key_id", "provider_keys", "provider_key"),
        Ref::pattern("routing.targets[].model", "models"),
        Ref::pattern("ensemble.panel[].model", "models"),
        Ref::pattern("ensemble.judge.model", "models"),
        Ref::pattern("semantic.embedding_model", "models"),
        Ref::pattern("semantic.default", "models"),
        Ref::pattern("semantic.routes[].target", "models"),
        Ref::pattern("semantic.on_embedding_failure.target", "models"),
    ],
    rules,
    schema: SCHEMA,
    inapplicable,
    enforced: true,
    new_rows: rows_of::<Model>,
    ..ResourceKind::new(
        "models",
        "model",
        "Models that callers may name.",
        Kind::Object(TABLE),
        Identity::Field("display_name"),
    )
};

impl Resource for Model {
    const KIND: &'static ResourceKind = &KIND;
}

const TABLE: Fields = &[
    req("display_name", Kind::LABEL, "The name that callers use; one `*` makes it a wildcard."),
    opt("provider", Kind::Text { min: 1, max: 64, format: Format::Slug }, "Vendor label."),
    opt("model_name", Kind::NAME, "Upstream model; a `*` stands for what the `*` of the name matched."),
    opt(
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
    opt("routing", Kind::Object(shapes::ROUTING), "Makes it a model group.").later(Off::Never),
    opt("ensemble", Kind::Object(shapes::ENSEMBLE), "Makes it an ensemble.").later(Off::Never),
    opt("semantic", Kind::Object(shapes::SEMANTIC), "Makes it a semantic router.").later(Off::Never),
    opt("embedding", Kind::Object(shapes::EMBEDDING), "Says that a direct model makes embeddings.")
        .later(Off::Never),
    opt("cost", Kind::Object(COST), "Price in USD per 1,000 tokens."),
    opt("background_model_check", Kind::Object(CHECK), "Checks without traffic.").later(Off::Disabled),
    opt(
        "cooldown",
        Kind::Object(COOLDOWN),
        "When a direct model is left alone after failures; without the block as with its defaults.",
    ),
    opt("auto_prompt_caching", Kind::Object(PROMPT_CACHING), "Prompt caching on Anthropic models.")
        .later(Off::Disabled),
];

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

const DIRECT: [&str; 3] = ["provider", "model_name", "provider_key_id"];
const SHAPES: [&str; 3] = ["routing", "ensemble", "semantic"];

const SCHEMA: &str = r#"[{"oneOf": [
    {
        "required": ["provider", "model_name", "provider_key_id"],
        "properties": {"routing": false, "ensemble": false, "semantic": false}
    },
    {"required": ["routing"], "properties": {
        "ensemble": false, "semantic": false, "provider": false, "model_name": false, "provider_key_id": false,
        "background_model_check": false, "cooldown": false, "embedding": false,
        "retries": false, "auto_prompt_caching": false, "cost": false
    }},
    {"required": ["ensemble"], "properties": {
        "routing": false, "semantic": false, "provider": false, "model_name": false, "provider_key_id": false,
        "background_model_check": false, "cooldown": false, "embedding": false,
        "timeout": false, "stream_timeout": false, "retries": false, "auto_prompt_caching": false, "cost": false
    }},
    {"required": ["semantic"], "properties": {
        "routing": false, "ensemble": false, "provider": false, "model_name": false, "provider_key_id": false,
        "background_model_check": false, "cooldown": false, "embedding": false,
        "auto_prompt_caching": false, "cost": false
    }}
]}]"#;

/// The rules that the table cannot say.
fn rules(node: &Node, document: &Value, problems: &mut Vec<Problem>) {
    shapes::rules(&mut Review::new(node, problems), document);
    let given = |field: &&str| node.get(field).is_some();
    let shapes: Vec<&str> = SHAPES.into_iter().filter(given).collect();
    let Some((shape, others)) = shapes.split_first() else {
        for field in DIRECT.into_iter().filter(|field| !given(field)) {
            let (path, origin) = (Path::default(), node.origin.clone());
            problems.push(Problem { path, origin, fault: Fault::Required(field) });
        }
        return stars(node, document, problems);
    };
    let foreign = DIRECT.into_iter().chain(["background_model_check", "cooldown", "embedding"]);
    for field in foreign.filter(given).chain(others.iter().copied()) {
        let origin = node.get(field).unwrap_or(node).origin.clone();
        let why = format!("value cannot stand beside `{shape}`");
        problems.push(Problem { path: Path::of(field), origin, fault: Fault::Rule(why) });
    }
}

/// Knobs that a shape never uses.
fn inapplicable(document: &Value) -> Vec<&'static str> {
    let has = |field: &str| document.get(field).is_some();
    match () {
        () if has("routing") => vec!["retries", "auto_prompt_caching", "cost"],
        () if has("ensemble") => vec!["timeout", "stream_timeout", "retries", "auto_prompt_caching", "cost"],
        () if has("semantic") => vec!["auto_prompt_caching", "cost"],
        () => Vec::new(),
    }
}

fn stars(node: &Node, document: &Value, problems: &mut Vec<Problem>) {
    let stars = |field: &str| document[field].as_str().map_or(0, |text| text.matches('*').count());
    let mut add = |field: &str, why: &str| {
        let origin = node.get(field).unwrap_or(node).origin.clone();
        problems.push(Problem { path: Path::of(field), origin, fault: Fault::Advice(why.into()) });
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

/// A stored list may hold what is no network: it admits nobody.
fn nets<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<Vec<IpNet>>, D::Error> {
    let texts = Option::<Vec<String>>::deserialize(raw)?.filter(|texts| !texts.is_empty());
    Ok(texts.map(|texts| texts.iter().filter_map(|text| parse_net(text)).collect()))
}

fn present<'de, D: Deserializer<'de>>(raw: D) -> Result<bool, D::Error> {
    Option::<IgnoredAny>::deserialize(raw).map(|value| value.is_some())
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
