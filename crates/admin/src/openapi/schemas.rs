//! The component schemas of the OpenAPI document, as tables.

use serde_json::{Map, Value, json};

use super::{array_of, schema_ref};
use crate::kinds::KINDS;

/// The JSON type of a field.
#[derive(Clone, Copy)]
enum Type {
    Text,
    Instant,
    Flag,
    /// A whole number, not below zero.
    Count,
    Number,
    Texts,
    Counts,
    TextMap,
    Object,
    OneOf(&'static [&'static str]),
    Ref(&'static str),
    Refs(&'static str),
    /// 0, 1 or 2.
    Level,
    CountOrNull,
}

impl Type {
    fn schema(self) -> Value {
        match self {
            Type::Text => json!({ "type": "string" }),
            Type::Instant => json!({ "type": "string", "format": "date-time" }),
            Type::Flag => json!({ "type": "boolean" }),
            Type::Count => json!({ "type": "integer", "minimum": 0 }),
            Type::Number => json!({ "type": "number" }),
            Type::Texts => json!({ "type": "array", "items": Type::Text.schema() }),
            Type::Counts => json!({ "type": "array", "items": Type::Count.schema() }),
            Type::TextMap => {
                json!({ "type": "object", "additionalProperties": Type::Text.schema() })
            }
            Type::Object => json!({ "type": "object" }),
            Type::OneOf(values) => json!({ "type": "string", "enum": values }),
            Type::Ref(name) => schema_ref(name),
            Type::Refs(name) => array_of(name),
            Type::Level => json!({ "type": "integer", "enum": [0, 1, 2] }),
            Type::CountOrNull => json!({ "type": ["integer", "null"], "minimum": 0 }),
        }
    }
}

/// A field: name, type, whether it is always there, meaning.
struct Field(&'static str, Type, Presence, &'static str);

#[derive(Clone, Copy, PartialEq)]
enum Presence {
    Always,
    Maybe,
}

use Presence::{Always, Maybe};

/// An object schema.
struct Shape {
    name: &'static str,
    about: &'static str,
    fields: &'static [Field],
}

/// Every component schema by name.
pub(super) fn all() -> Value {
    let mut schemas = Map::new();
    for shape in SHAPES {
        schemas.insert(shape.name.to_owned(), object(shape));
    }
    for kind in KINDS {
        schemas.insert(kind.entry_schema.to_owned(), entry(kind.title, kind.value_schema));
        // A kind without a table is one that this build does not load.
        schemas.entry(kind.value_schema).or_insert_with(|| {
            json!({
                "type": "object",
                "description": format!("The document of a {}. This version loads none.", kind.title),
            })
        });
    }
    Value::Object(schemas)
}

fn object(shape: &Shape) -> Value {
    let mut properties = Map::new();
    for Field(name, kind, _, meaning) in shape.fields {
        let mut schema = kind.schema();
        schema["description"] = json!(meaning);
        properties.insert((*name).to_owned(), schema);
    }
    let always = shape.fields.iter().filter(|field| field.2 == Always);
    let required: Vec<&str> = always.map(|field| field.0).collect();
    json!({
        "type": "object",
        "description": shape.about,
        "required": required,
        "properties": properties,
    })
}

fn entry(title: &str, value_schema: &str) -> Value {
    json!({
        "type": "object",
        "description": format!("A {title} as it is in force."),
        "required": ["id", "value", "revision"],
        "properties": {
            "id": { "type": "string", "description": "Stable over reloads and restarts." },
            "value": schema_ref(value_schema),
            "revision": {
                "type": "integer", "minimum": 0,
                "description": "With a resources file: how many times it was loaded.",
            },
        },
    })
}

const SHAPES: &[Shape] = &[
    Shape {
        name: "AdminError",
        about: "What every failure of the admin routes looks like.",
        fields: &[Field("error_msg", Type::Text, Always, "What went wrong.")],
    },
    Shape {
        name: "HealthResponse",
        about: "Health of the models, from memory.",
        fields: &[
            Field("status", Type::OneOf(&["ok"]), Always, "Says that the endpoint answered."),
            Field("models", Type::Refs("ModelHealth"), Always, "Every model, ordered by id."),
            Field(
                "config",
                Type::Ref("ConfigFreshness"),
                Maybe,
                "Absent with a resources file, which has no freshness.",
            ),
        ],
    },
    Shape {
        name: "ModelHealth",
        about: "The level of one model.",
        fields: &[
            Field("id", Type::Text, Always, "The id of the model."),
            Field("name", Type::Text, Always, "Its `display_name`."),
            Field(
                "health",
                Type::Level,
                Always,
                "0 healthy, 1 after 4 to 7 consecutive upstream failures, 2 after 8 or more.",
            ),
        ],
    },
    Shape {
        name: "ConfigFreshness",
        about: "How current the applied configuration is.",
        fields: &[
            Field(
                "snapshot_revision",
                Type::Count,
                Always,
                "The highest applied revision; 0 before the first.",
            ),
            Field(
                "snapshot_age_seconds",
                Type::CountOrNull,
                Always,
                "Seconds since the store was last known to be current; null before the first apply.",
            ),
        ],
    },
    Shape {
        name: "ModelStatusView",
        about: "Whether a model is in rotation.",
        fields: &[
            Field("id", Type::Text, Always, "The id of the model."),
            Field("display_name", Type::Text, Always, "The name callers use."),
            Field(
                "kind",
                Type::OneOf(&["direct", "routing", "ensemble", "semantic"]),
                Always,
                "The shape of the model.",
            ),
            Field(
                "status",
                Type::OneOf(&["healthy", "unhealthy", "cooldown", "not_applicable"]),
                Always,
                "Models that are not direct are `not_applicable`.",
            ),
            Field(
                "cooldown_until",
                Type::Ref("EpochTime"),
                Maybe,
                "The end of the cooldown, while it lasts.",
            ),
            Field(
                "last_checked_at",
                Type::Ref("EpochTime"),
                Maybe,
                "The last background check that did not succeed.",
            ),
            Field("last_check_status", Type::Count, Maybe, "Its HTTP status."),
            Field(
                "status_reason",
                Type::Text,
                Maybe,
                "Why the model was last taken out of rotation; cleared by a success.",
            ),
        ],
    },
    Shape {
        name: "EpochTime",
        about: "A point in time.",
        fields: &[
            Field("secs_since_epoch", Type::Count, Always, "Whole seconds since 1970-01-01 UTC."),
            Field("nanos_since_epoch", Type::Count, Always, "Nanoseconds within the second."),
        ],
    },
    Shape {
        name: "Model",
        about: "A model that callers may name.",
        fields: &[
            Field("display_name", Type::Text, Always, "The name callers use; one `*` makes it a wildcard."),
            Field("provider", Type::Text, Maybe, "The vendor label."),
            Field(
                "model_name",
                Type::Text,
                Maybe,
                "The model's id at the provider; a `*` takes what the wildcard captured.",
            ),
            Field("provider_key_id", Type::Text, Maybe, "The provider key it is called with."),
            Field("timeout", Type::Count, Maybe, "Deadline of a buffered answer in milliseconds; 0 = none."),
            Field("stream_timeout", Type::Count, Maybe, "Longest gap between stream chunks in milliseconds."),
            Field("retries", Type::Count, Maybe, "Further attempts after a retryable failure."),
            Field("rate_limit", Type::Object, Maybe, "Limits of the model."),
            Field("allowed_cidrs", Type::Texts, Maybe, "Client addresses that may use it; empty = all."),
            Field("cost", Type::Ref("Cost"), Maybe, "Price of its tokens."),
            Field("background_model_check", Type::Object, Maybe, "Checks without traffic; switched off."),
            Field("auto_prompt_caching", Type::Object, Maybe, "Prompt caching; switched off."),
            Field("cooldown", Type::Ref("Cooldown"), Maybe, "When a failure takes it out of rotation."),
        ],
    },
    Shape {
        name: "Cost",
        about: "Prices in USD.",
        fields: &[
            Field("input_per_1k", Type::Number, Always, "For 1000 input tokens."),
            Field("output_per_1k", Type::Number, Always, "For 1000 output tokens."),
        ],
    },
    Shape {
        name: "Cooldown",
        about: "When a failed attempt takes a model out of rotation, and for how long.",
        fields: &[
            Field("enabled", Type::Flag, Always, "Off: failures never do."),
            Field("default_seconds", Type::Count, Always, "How long without a usable `Retry-After`."),
            Field("max_seconds", Type::Count, Always, "The longest a `Retry-After` may ask for."),
            Field("honor_retry_after", Type::Flag, Always, "Whether `Retry-After` sets the time."),
            Field("trigger_statuses", Type::Counts, Always, "Upstream statuses that do."),
            Field("trigger_on_timeout", Type::Flag, Always, "Whether a timeout does."),
            Field("trigger_on_transport", Type::Flag, Always, "Whether a transport fault does."),
        ],
    },
    Shape {
        name: "ProviderKey",
        about: "A stored upstream credential and address. Secrets read as `***`.",
        fields: &[
            Field("display_name", Type::Text, Always, "The name models refer to in a resources file."),
            Field("api_key", Type::Text, Always, "Always `***`."),
            Field("api_base", Type::Text, Maybe, "The root of the upstream."),
            Field("provider", Type::Text, Always, "The vendor label; may be empty."),
            Field(
                "adapter",
                Type::OneOf(&["openai", "anthropic", "bedrock", "vertex", "azure-openai"]),
                Maybe,
                "The family of upstreams it belongs to.",
            ),
            Field("telemetry_tags", Type::Ref("TelemetryTags"), Always, "Labels for usage events."),
            Field("request", Type::Ref("RequestOverrides"), Maybe, "What is changed in requests."),
            Field("response", Type::Ref("ResponseOverrides"), Maybe, "What is expected of answers."),
            Field(
                "strip_headers",
                Type::Texts,
                Always,
                "Headers removed before a request is passed through.",
            ),
            Field("tls", Type::Ref("KeyTls"), Maybe, "Trust for this upstream."),
        ],
    },
    Shape {
        name: "TelemetryTags",
        about: "Labels for usage events.",
        fields: &[
            Field("kind", Type::OneOf(&["catalog", "byo"]), Maybe, "Where the key comes from."),
            Field("featured", Type::Flag, Always, "Shown first in the catalogue."),
            Field("branded_provider", Type::Text, Maybe, "The provider's name to show."),
            Field("pk_label", Type::Text, Maybe, "The label of the key."),
            Field("byo_label", Type::Text, Maybe, "The label of a key that a customer brought."),
        ],
    },
    Shape {
        name: "RequestOverrides",
        about: "Changes to requests on their way to the upstream.",
        fields: &[
            Field("param_renames", Type::TextMap, Maybe, "Top-level body fields that get another name."),
            Field("param_constraints", Type::Ref("ParamConstraints"), Maybe, "Limits of numeric fields."),
            Field(
                "default_headers",
                Type::TextMap,
                Maybe,
                "Headers added where absent; every value reads as `***`.",
            ),
            Field(
                "forward_client_headers",
                Type::Texts,
                Maybe,
                "Patterns of client headers that are passed on.",
            ),
            Field(
                "default_body_fields",
                Type::Object,
                Maybe,
                "Body fields added where absent; values are masked.",
            ),
        ],
    },
    Shape {
        name: "ParamConstraints",
        about: "Limits of numeric body fields.",
        fields: &[
            Field("temperature_max", Type::Number, Maybe, "The highest `temperature`."),
            Field("temperature_min", Type::Number, Maybe, "The lowest `temperature`."),
        ],
    },
    Shape {
        name: "ResponseOverrides",
        about: "What the answers of the upstream are like.",
        fields: &[
            Field(
                "stream_done_marker",
                Type::OneOf(&["required", "optional", "none"]),
                Maybe,
                "Whether a stream ends in `[DONE]`.",
            ),
            Field(
                "content_list_to_string",
                Type::Flag,
                Always,
                "Text blocks in requests are joined into one text.",
            ),
            Field("error_envelope", Type::Text, Maybe, "The shape of errors."),
            Field("reasoning_field", Type::Text, Maybe, "Where the reasoning text is."),
        ],
    },
    Shape {
        name: "KeyTls",
        about: "Trust for one upstream.",
        fields: &[
            Field("ca_cert", Type::Text, Maybe, "Further roots, as PEM."),
            Field("verify", Type::Flag, Always, "Off: any certificate is accepted."),
        ],
    },
    Shape {
        name: "PublicApiKey",
        about: "What is shown of a caller key. The key itself is nowhere.",
        fields: &[
            Field("key_hash", Type::Text, Always, "SHA-256 of the key, lower-case hex."),
            Field("allowed_models", Type::Texts, Always, "Names and patterns of models the key may use."),
            Field("rate_limit", Type::Object, Maybe, "Limits of the key."),
            Field("mcp_access", Type::Object, Maybe, "MCP tools the key may use."),
            Field("allowed_agents", Type::Texts, Maybe, "A2A agents the key may use."),
            Field("expires_at", Type::Instant, Maybe, "After this instant the key is refused."),
            Field("disabled", Type::Flag, Maybe, "Present, and true, only when the key is switched off."),
        ],
    },
];
