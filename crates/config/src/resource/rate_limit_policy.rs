//! Limits for groups of requests.

use serde_json::Value;

use super::model::RATE_LIMIT;
use super::rule::{Review, repeated};
use super::{By, Identity, ResourceKind, Site};
use crate::schema::{
    Fault, Field, Fields, Format, Forms, Kind, List, Path, Problem, Seg, compile, def, opt, req,
};
use crate::tree::Node;

pub(crate) static KIND: ResourceKind = ResourceKind {
    more_refs,
    rules,
    schema: SCHEMA,
    ..ResourceKind::new(
        "rate_limit_policies",
        "rate-limit policy",
        "Limits for groups of requests: for one key, model or team, or by conditions.",
        Kind::Forms(&SHAPE),
        Identity::Field("name"),
    )
};

static SHAPE: Forms = Forms {
    name: "policy",
    common: &[
        req("name", Kind::LABEL, "Unique name."),
        opt("schedules", Kind::List(&List::of(Kind::Forms(&SCHEDULE))), "Times at which it does not count."),
    ],
    forms: &[("classic", CLASSIC), ("conditional", CONDITIONAL)],
    mixed: "policy mixes the classic (`scope`, `scope_ref`, `window`, `max_requests`, `max_tokens`) and the \
            conditional (`limits`, `conditions`, `group_by`, `action`) form",
};

const CLASSIC: Fields = &[
    req("scope", Kind::Enum(&["api_key", "model", "team", "member", "team_member"]), "What it counts for."),
    req(
        "scope_ref",
        Kind::NAME,
        "Id of the key, model, team or user; in a resources file the name of the key or model.",
    ),
    req("window", Kind::Enum(&["second", "minute", "hour", "day"]), "The time that is counted over."),
    opt("max_requests", Kind::int(1, u64::MAX), "Most requests."),
    opt("max_tokens", Kind::int(1, u64::MAX), "Most tokens; for `minute` and `day`."),
];

const CONDITIONAL: Fields = &[
    req("limits", Kind::Object(RATE_LIMIT), "The limits; at least one."),
    opt(
        "conditions",
        Kind::List(&CONDITIONS),
        "Which requests count; all must hold. Absent = every request.",
    ),
    opt(
        "group_by",
        Kind::List(&List { rule: Some(no_repeats), ..GROUPS }),
        "Count separately for each value.",
    ),
    def("action", Kind::Enum(&["reject"]), r#""reject""#, "What happens beyond the limit."),
];

const GROUPS: List = List::of(Kind::Enum(&["team", "member", "api_key", "model", "provider"]));

static CONDITIONS: List = List::of(Kind::Forms(&CONDITION));
static CHILDREN: List = List::at_least(Kind::Forms(&CONDITION), 1);

static CONDITION: Forms = Forms {
    name: "condition",
    common: &[def("negate", Kind::Bool, "false", "Turn the result around.")],
    forms: &[("leaf", LEAF), ("group", &GROUP)],
    mixed: "a condition is either a comparison (`dimension`, `operator`, `value`) or a group (`logic`, `children`)",
};

const LEAF: Fields = &[
    req(
        "dimension",
        Kind::Enum(&["team", "member", "api_key", "model", "model_name", "provider"]),
        "What is compared.",
    ),
    req(
        "operator",
        Kind::Enum(&["==", "~=", "in", "~~", "~*"]),
        "Equal, not equal, one of, matches, matches ignoring case.",
    ),
    req(
        "value",
        Kind::Either(&[Kind::NAME, Kind::List(&VALUES)]),
        "Text, or a list for `in`. Ids of keys and models; in a resources file their names.",
    ),
];

const VALUES: List = List { max: 64, ..List::at_least(Kind::NAME, 1) };

// A static, as the others that make up the circle: constants cannot.
static GROUP: [Field; 2] = [
    req("logic", Kind::Enum(&["and", "or"]), "How the children are joined."),
    req("children", Kind::List(&CHILDREN), "Conditions."),
];

const DAYS: Kind = Kind::Enum(&["mon", "tue", "wed", "thu", "fri", "sat", "sun"]);

const SCHEDULE: Forms = Forms {
    name: "schedule",
    common: &[
        req("timezone", Kind::text(1, Format::TimeZone), "Where the clock stands."),
        req("start_time", Kind::text(0, Format::Clock), "From then on."),
        req(
            "end_time",
            Kind::text(0, Format::EndClock),
            "Until before then; earlier than the start = on the next day.",
        ),
    ],
    forms: &[
        ("weekly", &[req("days_of_week", Kind::List(&List::at_least(DAYS, 1)), "On these days.")]),
        (
            "dated",
            &[req("dates", Kind::List(&List::at_least(Kind::text(0, Format::Date), 1)), "On these dates.")],
        ),
    ],
    mixed: "`days_of_week` and `dates` exclude each other",
};

const SCHEMA: &str = r#"[
    {
        "if": {"required": ["limits"]},
        "then": {"properties": {"limits": {"minProperties": 1}, "group_by": {"uniqueItems": true}}},
        "else": {"anyOf": [{"required": ["max_requests"]}, {"required": ["max_tokens"]}]}
    },
    {
        "if": {"required": ["window"], "properties": {"window": {"enum": ["second", "hour"]}}},
        "then": {"properties": {"max_tokens": false}}
    }
]"#;

/// How deep conditions may be nested.
const MAX_DEPTH: usize = 3;
/// How many comparisons there may be.
const MAX_LEAVES: usize = 16;
/// The longest pattern, in bytes.
const MAX_PATTERN: usize = 256;

fn no_repeats(items: &[Value]) -> Result<(), String> {
    match repeated(items.iter().filter_map(Value::as_str)).next() {
        Some(at) => Err(format!("`group_by` repeats dimension {}", items[at])),
        None => Ok(()),
    }
}

fn rules(node: &Node, document: &Value, problems: &mut Vec<Problem>) {
    let broken = !problems.is_empty();
    let mut review = Review::new(node, problems);
    let limits = document["limits"].as_object();
    if !broken && limits.is_some_and(serde_json::Map::is_empty) {
        review.refuse("limits", "`limits` must set at least one field");
    }
    if document.get("window").is_some() && !review.has("max_requests") && !review.has("max_tokens") {
        review.refuse("", "one of `max_requests` and `max_tokens` is required");
    }
    if matches!(document["window"].as_str(), Some("second" | "hour")) && review.has("max_tokens") {
        review.advise("max_tokens", "has an effect with `window: minute` and `window: day` only");
    }
    let mut leaves = 0;
    let path = Path::of("conditions");
    conditions(&mut review, document.get("conditions"), &path, 1, &mut leaves);
    if leaves > MAX_LEAVES {
        review.refuse("conditions", format!("there are more than {MAX_LEAVES} comparisons"));
    }
}

fn conditions(review: &mut Review<'_>, nodes: Option<&Value>, path: &Path, depth: usize, leaves: &mut usize) {
    let nodes = nodes.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (index, node) in nodes.iter().enumerate() {
        let path = path.with(Seg::Index(index));
        let children = node.get("children");
        if depth > MAX_DEPTH {
            let why = format!("conditions are nested deeper than {MAX_DEPTH} levels");
            review.add(path, Fault::Rule(why));
        } else if children.is_some() {
            let path = path.with(Seg::Key("children".into()));
            conditions(review, children, &path, depth + 1, leaves);
        } else {
            *leaves += 1;
            if let Err(why) = leaf(node) {
                let dimension = node["dimension"].as_str().unwrap_or_default();
                review.add(path, Fault::Rule(format!("condition on `{dimension}`: {why}")));
            }
        }
    }
}

fn leaf(node: &Value) -> Result<(), String> {
    let (Some(dimension), Some(operator), Some(value)) =
        (node["dimension"].as_str(), node["operator"].as_str(), node.get("value"))
    else {
        return Ok(());
    };
    let pattern = matches!(operator, "~~" | "~*");
    if pattern && !matches!(dimension, "model_name" | "provider") {
        return Err(format!("operator `{operator}` is for `model_name` and `provider` only"));
    }
    match value {
        Value::Array(_) if operator != "in" => Err(format!("operator `{operator}` takes one text")),
        Value::String(_) if operator == "in" => Err("operator `in` takes a list".into()),
        Value::String(text) if pattern && text.len() > MAX_PATTERN => {
            Err(format!("regex pattern has more than {MAX_PATTERN} bytes"))
        }
        Value::String(text) if pattern && compile(text, operator == "~*").is_err() => {
            Err(format!("regex pattern {text:?} does not compile"))
        }
        _ => Ok(()),
    }
}

fn more_refs(document: &mut Value, visit: &mut dyn FnMut(Site<'_>)) {
    if let Some(kind) = kind_of(document["scope"].as_str())
        && let Some(Value::String(target)) = document.get_mut("scope_ref")
    {
        visit(Site { path: "scope_ref".into(), kind, by: By::Id, checked: true, target });
    }
    in_conditions(document.get_mut("conditions"), "conditions", visit);
}

fn in_conditions(nodes: Option<&mut Value>, path: &str, visit: &mut dyn FnMut(Site<'_>)) {
    for (index, node) in nodes.and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        in_conditions(node.get_mut("children"), &format!("{path}[{index}].children"), visit);
        let Some(kind) = kind_of(node["dimension"].as_str()) else {
            continue;
        };
        let mut see = |path: String, value: &mut Value| {
            if let Value::String(target) = value {
                visit(Site { path, kind, by: By::Id, checked: true, target });
            }
        };
        let path = format!("{path}[{index}].value");
        match node.get_mut("value") {
            Some(Value::Array(items)) => {
                items.iter_mut().enumerate().for_each(|(at, item)| see(format!("{path}[{at}]"), item));
            }
            Some(value) => see(path, value),
            None => {}
        }
    }
}

/// The kind that a scope or dimension names by id.
fn kind_of(name: Option<&str>) -> Option<&'static str> {
    match name {
        Some("api_key") => Some("api_keys"),
        Some("model") => Some("models"),
        _ => None,
    }
}
