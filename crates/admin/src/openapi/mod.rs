//! The OpenAPI document of the admin listener, made from the route table.

mod schemas;

use aisix_core::VERSION;
use serde_json::{Map, Value, json};

use crate::{
    kinds::Kind,
    routes::{Access, Action, PLAYGROUND_TARGET, Route},
};

/// Security scheme of the admin routes.
const ADMIN_SCHEME: &str = "AdminBearer";
/// Security scheme of the playground.
const CALLER_SCHEME: &str = "ProxyBearer";

/// The document that describes `routes`.
pub(crate) fn document(routes: &[Route]) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let method = route.action.method().as_str().to_ascii_lowercase();
        paths.insert(route.path.clone(), json!({ method: operation(route) }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "AISIX Admin API",
            "version": VERSION,
            "description": "What the gateway has loaded and how its models are doing. \
                            Secrets read as `***`. Every GET also answers HEAD.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ ADMIN_SCHEME: [] }],
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "securitySchemes": {
                ADMIN_SCHEME: {
                    "type": "http", "scheme": "bearer",
                    "description": "One of `admin.admin_keys`. Without an `Authorization` header, `x-api-key` is read.",
                },
                CALLER_SCHEME: {
                    "type": "http", "scheme": "bearer",
                    "description": "The key of a caller of the gateway, as on the proxy listener.",
                },
            },
        },
    })
}

/// What one action says about itself.
struct About {
    id: String,
    tag: &'static str,
    summary: String,
    parameters: Option<Value>,
    body: Option<Value>,
    responses: Value,
}

fn operation(route: &Route) -> Value {
    let about = about(route);
    let mut operation = json!({
        "operationId": about.id,
        "tags": [about.tag],
        "summary": about.summary,
    });
    let mut responses = about.responses;
    match route.action.access() {
        Access::Open => operation["security"] = json!([]),
        Access::AdminKey => responses["401"] = failure("The admin key is missing or wrong."),
        Access::CallerKey => operation["security"] = json!([{ CALLER_SCHEME: [] }]),
    }
    if let Some(parameters) = about.parameters {
        operation["parameters"] = parameters;
    }
    if let Some(body) = about.body {
        operation["requestBody"] = body;
    }
    operation["responses"] = responses;
    operation
}

fn about(route: &Route) -> About {
    let plain = |id: &str, tag, summary: &str, responses| About {
        id: id.to_owned(),
        tag,
        summary: summary.to_owned(),
        parameters: None,
        body: None,
        responses,
    };
    match route.action {
        Action::Livez => probe("livez", "Whether the process lives and is not shutting down.", "500"),
        Action::Readyz => {
            probe("readyz", "Whether a configuration is applied and the process is not draining.", "503")
        }
        Action::OpenApi => plain(
            "openapi",
            "description",
            "This document.",
            json!({ "200": content("The OpenAPI document.", "application/json", json!({ "type": "object" })) }),
        ),
        Action::Viewer => plain(
            "viewer",
            "description",
            "A page that shows this document. It needs no network beyond this listener.",
            json!({ "200": content("The page.", "text/html", json!({ "type": "string" })) }),
        ),
        Action::Health => plain(
            "health",
            "health",
            "Health level of every model, counted on real traffic. Answered from memory.",
            json!({ "200": content("The levels.", "application/json", schema_ref("HealthResponse")) }),
        ),
        Action::ModelsStatus => plain(
            "modelsStatus",
            "health",
            "Whether each model is cooling down, and why.",
            json!({ "200": content("One object a model.", "application/json", array_of("ModelStatusView")) }),
        ),
        Action::List(kind) => list(kind, &route.path),
        Action::Get(kind) => get(kind, &route.path),
        Action::Playground => playground(),
    }
}

fn probe(id: &str, summary: &str, failing: &str) -> About {
    let text = json!({ "type": "string" });
    About {
        id: id.to_owned(),
        tag: "probes",
        summary: summary.to_owned(),
        parameters: Some(json!([{
            "name": "verbose", "in": "query", "required": false,
            "description": "With any value, or none: one line a check.",
            "schema": { "type": "string" }, "allowEmptyValue": true,
        }])),
        body: None,
        responses: json!({
            "200": content("It does.", "text/plain", text.clone()),
            failing: content("It does not; one line a check.", "text/plain", text),
        }),
    }
}

fn list(kind: &Kind, path: &str) -> About {
    About {
        id: format!("list_{}", last_segment(path)),
        tag: kind.name,
        summary: format!("Every {}, ordered by id.", kind.title),
        parameters: None,
        body: None,
        responses: json!({
            "200": content("The entries.", "application/json", array_of(kind.entry_schema)),
        }),
    }
}

fn get(kind: &Kind, path: &str) -> About {
    let collection = path.trim_end_matches("/{id}");
    About {
        id: format!("get_{}", last_segment(collection)),
        tag: kind.name,
        summary: format!("One {}.", kind.title),
        parameters: Some(json!([{
            "name": "id", "in": "path", "required": true,
            "description": "The id as shown in the list.",
            "schema": { "type": "string" },
        }])),
        body: None,
        responses: json!({
            "200": content("The entry.", "application/json", schema_ref(kind.entry_schema)),
            "404": failure("Nothing has this id."),
        }),
    }
}

fn playground() -> About {
    let object = json!({ "type": "object" });
    About {
        id: "playground".to_owned(),
        tag: "playground",
        summary: format!(
            "Sends a chat completion through the gateway, as `POST {PLAYGROUND_TARGET}` on the proxy \
             listener would: same keys, limits, headers and errors."
        ),
        parameters: None,
        body: Some(json!({
            "required": true,
            "content": { "application/json": {
                "schema": object,
                "example": { "model": "my-model", "messages": [{ "role": "user", "content": "Hello" }] },
            }},
        })),
        responses: json!({
            "200": {
                "description": "The completion, or its events when `stream` is true.",
                "content": {
                    "application/json": { "schema": object },
                    "text/event-stream": { "schema": { "type": "string" } },
                },
            },
            "default": content("An error in the envelope of the proxy.", "application/json", object),
        }),
    }
}

fn last_segment(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn schema_ref(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn array_of(name: &str) -> Value {
    json!({ "type": "array", "items": schema_ref(name) })
}

fn content(description: &str, media_type: &str, schema: Value) -> Value {
    json!({ "description": description, "content": { media_type: { "schema": schema } } })
}

fn failure(description: &str) -> Value {
    content(description, "application/json", schema_ref("AdminError"))
}
