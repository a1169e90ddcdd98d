//! Models that stand for other models, and the embedding block.

use serde_json::Value;

use super::super::rule::{Review, repeated};
use crate::schema::{Fault, Fields, Format, Kind, List, NAMES, Path, Seg, def, opt, req};

const MODEL: Kind = Kind::NAME;

pub(super) const ROUTING: Fields = &[
    req("targets", Kind::List(&List::at_least(Kind::Object(TARGET), 1)), "The models to choose from."),
    def(
        "strategy",
        Kind::Enum(&[
            "round_robin",
            "consistent_hash",
            "failover",
            "least_cost",
            "least_latency",
            "least_busy",
        ]),
        r#""failover""#,
        "How one is chosen.",
    ),
    opt("retries", Kind::U32, "Retries of targets that do not set their own."),
    opt("max_fallbacks", Kind::U32, "Most other targets that are tried; absent = all later ones."),
    def("retry_on_429", Kind::Bool, "false", "Whether 429 is retried on the same target."),
    def(
        "fallback_on_statuses",
        Kind::List(&List::of(Kind::int(400, 599))),
        "[]",
        "More statuses that are retried and fall back.",
    ),
    def(
        "when_all_unavailable",
        Kind::Enum(&["fail", "try_anyway"]),
        r#""fail""#,
        "What happens when every target is left alone.",
    ),
    opt(
        "hash_on",
        Kind::List(&List::at_least(Kind::Object(HASH_SOURCE), 1)),
        "For `consistent_hash`: the first source with a value counts. Default: header `x-aisix-routing-key`, then the caller key.",
    ),
];

const TARGET: Fields = &[
    req("model", MODEL, "Name of a direct model."),
    def("weight", Kind::U32, "1", "Share among targets of the same priority."),
    def("priority", Kind::I32, "0", "Higher is preferred."),
    opt("tags", NAMES, "Tags that requests may ask for; `default` is for those that ask for none."),
];

const HASH_SOURCE: Fields = &[
    req("type", Kind::Enum(&["header", "cookie", "api_key", "client_ip"]), "Where it is."),
    opt("name", Kind::NAME, "Name of the header or cookie."),
];

pub(super) const ENSEMBLE: Fields = &[
    req("panel", Kind::List(&List::at_least(Kind::Object(MEMBER), 1)), "Models that answer."),
    req("judge", Kind::Object(JUDGE), "Model that makes one answer of theirs."),
    opt(
        "min_responses",
        Kind::int(1, u32::MAX as u64),
        "Fewest answers that are enough. Default: 2, or 1 for a panel of one.",
    ),
    opt("timeout_ms", Kind::UINT, "Limit for each call; 0 or absent = none."),
];

const MEMBER: Fields = &[
    req("model", MODEL, "Name of a model."),
    opt("temperature", Kind::Number { min: 0.0, max: f64::INFINITY }, "Its temperature."),
    opt("seed", Kind::Signed { min: i64::MIN, max: i64::MAX }, "Its seed."),
    opt("weight", Kind::U32, "Accepted without effect."),
];

const JUDGE: Fields =
    &[req("model", MODEL, "Name of a model."), opt("synthesis_prompt", Kind::NAME, "What it is told.")];

pub(super) const SEMANTIC: Fields = &[
    req("embedding_model", MODEL, "Name of the model that compares."),
    req("default", MODEL, "Model for requests that match no route."),
    req("routes", Kind::List(&List::at_least(Kind::Object(ROUTE), 1)), "Models and what they are for."),
    req("match", Kind::Object(MATCH), "When a route matches."),
    opt("embedding_timeout_ms", Kind::UINT, "Limit for the comparison; 0 or absent = none."),
    def(
        "on_embedding_failure",
        Kind::Either(&[
            Kind::Enum(&["default", "fail"]),
            Kind::Object(&[req("target", MODEL, "Model to use then.")]),
        ]),
        r#""default""#,
        "What happens when requests cannot be compared: the default, 503, or `{target: <model>}`.",
    ),
];

const ROUTE: Fields = &[
    req("name", Kind::text(0, Format::Filled), "Its name."),
    req("target", MODEL, "Name of a model."),
    req("examples", Kind::List(&List::at_least(Kind::NAME, 1)), "Requests like those meant for it."),
    opt("threshold", Kind::SHARE, "Least similarity, instead of that of `match`."),
    opt("description", Kind::NAME, "What it is for."),
];

const MATCH: Fields = &[
    req("threshold", Kind::SHARE, "Least similarity."),
    def("distance_metric", Kind::Enum(&["cosine"]), r#""cosine""#, "How similarity is measured."),
    def("aggregation", Kind::Enum(&["max"]), r#""max""#, "How examples are joined."),
];

pub(super) const EMBEDDING: Fields = &[
    req("dimensions", Kind::int(1, u32::MAX as u64), "Length of its vectors."),
    def("normalize", Kind::Bool, "true", "Whether vectors are scaled to length 1."),
];

/// What a stored model may hold although it cannot work as it was meant.
pub(super) fn rules(review: &mut Review<'_>, document: &Value) {
    if let Some(routing) = document.get("routing") {
        targets(review, routing, document["display_name"].as_str());
        hash_on(review, routing);
    }
    let panel = document["ensemble"]["panel"].as_array().map_or(0, Vec::len) as u64;
    if document["ensemble"]["min_responses"].as_u64().is_some_and(|min| panel > 0 && min > panel) {
        review.advise("ensemble.min_responses", "is more than the panel has models");
    }
}

fn targets(review: &mut Review<'_>, routing: &Value, own: Option<&str>) {
    let targets = routing["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names = || targets.iter().map(|target| target["model"].as_str().unwrap_or_default());
    let path = |index| Path::of("routing.targets").with(Seg::Index(index)).with(Seg::Key("model".into()));
    for (index, name) in names().enumerate() {
        if own == Some(name) {
            review.add(path(index), Fault::Advice("is the group itself".into()));
        }
    }
    for index in repeated(names()) {
        review.add(path(index), Fault::Advice("is an earlier target too; give that one more weight".into()));
    }
    if !targets.is_empty() && targets.iter().all(|target| target["weight"] == 0) {
        review.advise("routing.targets", "no target has a weight above 0");
    }
}

fn hash_on(review: &mut Review<'_>, routing: &Value) {
    let Some(sources) = routing["hash_on"].as_array() else {
        return;
    };
    if routing["strategy"].as_str().is_some_and(|strategy| strategy != "consistent_hash") {
        review.advise("routing.hash_on", "has an effect with `strategy: consistent_hash` only");
    }
    for (index, source) in sources.iter().enumerate() {
        let path = Path::of("routing.hash_on").with(Seg::Index(index));
        match (source["type"].as_str(), source.get("name")) {
            (Some(kind @ ("header" | "cookie")), None) => {
                let why = format!("`name` is required with `type: {kind}`");
                review.add(path, Fault::Advice(why));
            }
            (Some(kind @ ("api_key" | "client_ip")), Some(_)) => {
                let why = format!("has no effect with `type: {kind}`");
                review.add(path.with(Seg::Key("name".into())), Fault::Advice(why));
            }
            _ => {}
        }
    }
}
