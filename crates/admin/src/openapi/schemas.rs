//! The component schemas of the OpenAPI document, as tables.

use aisix_config::{KINDS, ResourceKind, edit::MAX_GRACE};
use serde_json::{Map, Value, json};

use super::{array_of, kinds, schema_ref};

/// The JSON type of a field.
#[derive(Clone, Copy)]
pub(super) enum Type {
    Text,
    Instant,
    True,
    /// A whole number, not below zero.
    Count,
    OneOf(&'static [&'static str]),
    Ref(&'static str),
    Refs(&'static str),
    /// 0, 1 or 2.
    Level,
    CountOrNull,
    /// The name of a collection.
    Collection,
    /// A secret that the server makes.
    NewSecret,
    Grace,
    Any,
}

impl Type {
    pub(super) fn schema(self) -> Value {
        match self {
            Type::Text => json!({ "type": "string" }),
            Type::Instant => json!({ "type": "string", "format": "date-time" }),
            Type::True => json!({ "const": true }),
            Type::Count => json!({ "type": "integer", "minimum": 0 }),
            Type::OneOf(values) => json!({ "type": "string", "enum": values }),
            Type::Ref(name) => schema_ref(name),
            Type::Refs(name) => array_of(name),
            Type::Level => json!({ "type": "integer", "enum": [0, 1, 2] }),
            Type::CountOrNull => json!({ "type": ["integer", "null"], "minimum": 0 }),
            Type::Collection => {
                json!({ "type": "string", "enum": KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>() })
            }
            Type::NewSecret => json!({ "type": "string", "pattern": "^sk-[0-9a-f]{32}$" }),
            Type::Grace => json!({ "type": "integer", "minimum": 0, "maximum": MAX_GRACE.as_secs() }),
            Type::Any => json!({}),
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
    schemas.insert("Revision".to_owned(), revision());
    schemas.insert("BatchOperation".to_owned(), batch_operation());
    schemas.insert("ChangeResult".to_owned(), change_result());
    schemas.insert("GivenDocument".to_owned(), given_document());
    kinds::add(&mut schemas);
    Value::Object(schemas)
}

/// A revision as the store tells it.
fn revision() -> Value {
    json!({
        "type": "object",
        "description": "A revision of the store.",
        "required": ["revision"],
        "properties": { "revision": Type::Count.schema() },
    })
}

fn batch_operation() -> Value {
    let if_match = json!({
        "type": "integer", "minimum": 0,
        "description": "The revision that the resource must have.",
    });
    let operation = |op: &str, kind: Value, required: &[&str], more: Value| {
        let mut properties = json!({ "op": { "const": op }, "kind": kind });
        if let (Some(properties), Value::Object(more)) = (properties.as_object_mut(), more) {
            properties.extend(more);
        }
        let required = [&["op", "kind"], required].concat();
        json!({
            "type": "object", "required": required, "properties": properties,
            "additionalProperties": false,
        })
    };
    let id = Type::Text.schema();
    let mut variants = Vec::new();
    for kind in KINDS.iter().copied() {
        let name = json!({ "const": kind.name });
        let chosen = json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$" });
        let new = json!({ "id": chosen, "value": schema_ref(&kinds::new_name(kind)) });
        variants.push(operation("create", name.clone(), &["value"], new));
        let whole = schema_ref(&kinds::document_name(kind));
        let whole = json!({ "id": id, "value": whole, "if_match": if_match });
        variants.push(operation("replace", name, &["id", "value"], whole));
    }
    let any = Type::Collection.schema();
    let parts = json!({ "id": id, "value": { "type": "object" }, "if_match": if_match });
    variants.push(operation("patch", any.clone(), &["id", "value"], parts));
    variants.push(operation("delete", any, &["id"], json!({ "id": id, "if_match": if_match })));
    json!({ "description": "One change. Later ones may refer to what earlier ones created.", "oneOf": variants })
}

fn change_result() -> Value {
    let mut variants: Vec<Value> = KINDS.iter().map(|kind| schema_ref(&kinds::entry_name(kind))).collect();
    variants.push(schema_ref(kinds::CREATED_API_KEY));
    variants.push(schema_ref("Deleted"));
    json!({ "description": "The resource as it is now, or that it is gone.", "anyOf": variants })
}

fn given_document() -> Value {
    let variant = |kind: &&ResourceKind| {
        json!({
            "type": "object",
            "required": ["kind", "id", "value"],
            "properties": {
                "kind": { "const": kind.name },
                "id": {
                    "type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
                },
                "value": schema_ref(&kinds::document_name(kind)),
            },
            "additionalProperties": false,
        })
    };
    json!({
        "description": "A document; its id is what others refer to it by. A resource of the same name keeps \
                        the id that it has.",
        "oneOf": KINDS.iter().map(variant).collect::<Vec<_>>(),
    })
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
        "additionalProperties": false,
    })
}

const SHAPES: &[Shape] = &[
    Shape {
        name: "AdminError",
        about: "What every failure of the admin routes looks like.",
        fields: &[
            Field("error_msg", Type::Text, Always, "What went wrong."),
            Field("errors", Type::Refs("FieldError"), Maybe, "Each problem of the body."),
            Field("dependants", Type::Refs("Dependant"), Maybe, "The resources that stand in the way."),
            Field("plan", Type::Ref("Plan"), Maybe, "What was not applied."),
        ],
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
        name: "FieldError",
        about: "A problem of a body.",
        fields: &[
            Field("path", Type::Text, Always, "JSON pointer into the body; empty for the whole."),
            Field("message", Type::Text, Always, "What is wrong. Values are never quoted."),
        ],
    },
    Shape {
        name: "Dependant",
        about: "A resource that refers to another.",
        fields: &[
            Field("kind", Type::Collection, Always, "Its collection."),
            Field("id", Type::Text, Always, "Its id."),
            Field("name", Type::Text, Maybe, "What it is called."),
            Field("field", Type::Text, Always, "The field that refers."),
        ],
    },
    Shape {
        name: "Deleted",
        about: "A resource is gone.",
        fields: &[Field("deleted", Type::True, Always, "It is."), Field("id", Type::Text, Always, "Its id.")],
    },
    Shape {
        name: "RotationRequest",
        about: "How a caller key gets a new secret.",
        fields: &[Field(
            "grace_seconds",
            Type::Grace,
            Maybe,
            "How long the old secret works on; without it, not at all.",
        )],
    },
    Shape {
        name: "RotatedApiKey",
        about: "A caller key with a new secret.",
        fields: &[
            Field(
                "entry",
                Type::Ref("PublicApiKeyEntry"),
                Always,
                "The key as it is now, under the same id.",
            ),
            Field(
                "plaintext",
                Type::NewSecret,
                Maybe,
                "The new secret: shown this once, and not by a dry run.",
            ),
        ],
    },
    Shape {
        name: "BatchRequest",
        about: "Changes that are made together or not at all.",
        fields: &[Field(
            "operations",
            Type::Refs("BatchOperation"),
            Always,
            "In the order in which they are made.",
        )],
    },
    Shape {
        name: "ChangeResults",
        about: "What became of several changes.",
        fields: &[
            Field("revision", Type::Count, Always, "The revision that they made; 0 for a dry run."),
            Field("results", Type::Refs("ChangeResult"), Always, "One for each change."),
        ],
    },
    Shape {
        name: "ApplyRequest",
        about: "What the store shall hold.",
        fields: &[Field("documents", Type::Refs("GivenDocument"), Always, "No two of the same name.")],
    },
    Shape {
        name: "Plan",
        about: "What has to change so that the store holds the documents.",
        fields: &[
            Field("changes", Type::Refs("PlannedChange"), Always, "By collection, then by name."),
            Field("broken", Type::Refs("BrokenReference"), Always, "References that would lead nowhere."),
        ],
    },
    Shape {
        name: "AppliedPlan",
        about: "What has changed, or would, so that the store holds the documents.",
        fields: &[
            Field("changes", Type::Refs("PlannedChange"), Always, "By collection, then by name."),
            Field("broken", Type::Refs("BrokenReference"), Always, "References that would lead nowhere."),
            Field("revision", Type::Count, Maybe, "The revision in force then; absent for a dry run."),
        ],
    },
    Shape {
        name: "PlannedChange",
        about: "A resource that changes.",
        fields: &[
            Field("kind", Type::Collection, Always, "Its collection."),
            Field("name", Type::Text, Always, "What it is called."),
            Field("id", Type::Text, Always, "The id it has, or gets."),
            Field("action", Type::OneOf(&["add", "change", "remove"]), Always, "What happens to it."),
            Field("fields", Type::Refs("FieldChange"), Maybe, "What changes in it."),
        ],
    },
    Shape {
        name: "FieldChange",
        about: "A field that changes.",
        fields: &[
            Field("path", Type::Text, Always, "Such as `routing.targets[0].weight`."),
            Field("before", Type::Any, Maybe, "Absent when the field is new."),
            Field("after", Type::Any, Maybe, "Absent when the field goes."),
            Field("secret", Type::True, Maybe, "The values are secrets, which read as `***`."),
        ],
    },
    Shape {
        name: "BrokenReference",
        about: "A reference to what is not there.",
        fields: &[
            Field("kind", Type::Collection, Always, "The collection of the resource that refers."),
            Field("name", Type::Text, Always, "What it is called."),
            Field("path", Type::Text, Always, "The field that refers."),
            Field("target_kind", Type::Collection, Always, "The collection of what is not there."),
            Field("target", Type::Text, Always, "Its name or id."),
        ],
    },
    Shape {
        name: "AuditRecord",
        about: "A write. Secrets read as `***`.",
        fields: &[
            Field("revision", Type::Count, Always, "The revision that it made."),
            Field("at", Type::Instant, Always, "When."),
            Field("actor", Type::Text, Always, "Name of the admin key, or of the command."),
            Field("remote", Type::Text, Maybe, "Address of the client."),
            Field(
                "action",
                Type::OneOf(&[
                    "create",
                    "replace",
                    "patch",
                    "delete",
                    "rotate",
                    "batch",
                    "apply",
                    "rollback",
                    "bootstrap",
                ]),
                Always,
                "What was asked for.",
            ),
            Field("changes", Type::Refs("AuditChange"), Always, "What changed."),
        ],
    },
    Shape {
        name: "AuditChange",
        about: "A resource that a write changed.",
        fields: &[
            Field("kind", Type::Text, Always, "Its collection."),
            Field("id", Type::Text, Always, "Its id."),
            Field("name", Type::Text, Maybe, "What it is called."),
            Field("before", Type::Any, Maybe, "Before the write; absent when it was created."),
            Field("after", Type::Any, Maybe, "After the write; absent when it was deleted."),
        ],
    },
    Shape {
        name: "RollbackRequest",
        about: "The way back.",
        fields: &[Field("revision", Type::Count, Always, "The revision that is brought back, as a new one.")],
    },
];
