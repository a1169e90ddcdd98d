//! Which answers are kept, and for how long.

use serde_json::Value;

use super::{By, Identity, Ref, ResourceKind, Site};
use crate::schema::{Fields, Format, Kind, def, opt, req};

pub(crate) static KIND: ResourceKind = ResourceKind {
    refs: &[Ref::name("semantic.embedding_model", "models").unchecked()],
    more_refs,
    ..ResourceKind::new(
        "cache_policies",
        "cache policy",
        "Which answers are kept, and for how long.",
        Kind::Object(TABLE),
        Identity::Field("name"),
    )
};

const TABLE: Fields = &[
    req("name", Kind::Text { min: 1, max: 120, format: Format::Name }, "Unique name."),
    def("enabled", Kind::Bool, "true", "false = as if it were not there."),
    def(
        "backend",
        Kind::Enum(&["memory", "redis"]),
        r#""memory""#,
        "Where answers are kept; `redis` needs a Redis in the process configuration.",
    ),
    def("ttl_seconds", Kind::int(1, 604_800), "3600", "How long an answer counts."),
    def(
        "applies_to",
        Kind::Text { min: 1, max: 255, format: Format::AppliesTo },
        r#""all""#,
        "`all`, `model:<name>` or `api_key:<id>`; in a resources file `api_key:<display_name>`.",
    ),
    def(
        "scope",
        Kind::Enum(&["api_key", "env"]),
        r#""api_key""#,
        "Who shares answers: nobody else, or everybody.",
    ),
    def("purge_generation", Kind::U32, "0", "Changing it puts all earlier answers out of reach."),
    opt("semantic", Kind::Object(SEMANTIC), "Also answer requests that mean the same."),
];

const SEMANTIC: Fields = &[
    req("embedding_model", Kind::FILLED, "Model that compares requests."),
    req("threshold", Kind::SHARE, "Least similarity."),
    def("max_entries", Kind::int(1, 10_000), "1000", "Most answers that are compared."),
    opt("embedding_timeout_ms", Kind::UINT, "Limit for the comparison; absent = none."),
];

fn more_refs(document: &mut Value, visit: &mut dyn FnMut(Site<'_>)) {
    let Some(Value::String(text)) = document.get_mut("applies_to") else {
        return;
    };
    let ways = [("model:", "models", By::Name), ("api_key:", "api_keys", By::Id)];
    for (prefix, kind, by) in ways {
        if let Some(mut target) = text.strip_prefix(prefix).map(str::to_owned) {
            visit(Site { path: "applies_to".into(), kind, by, checked: false, target: &mut target });
            *text = format!("{prefix}{target}");
            return;
        }
    }
}
