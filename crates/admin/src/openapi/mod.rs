//! The OpenAPI document of the admin listener, made from the route table.

mod kinds;
mod operations;
mod schemas;

use aisix_core::VERSION;
use serde_json::{Map, Value, json};

use crate::routes::Route;

/// Security scheme of the admin routes.
const ADMIN_SCHEME: &str = "AdminBearer";
/// Security scheme of the playground.
const CALLER_SCHEME: &str = "ProxyBearer";

/// The document that describes `routes`.
pub(crate) fn document(routes: &[Route]) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let method = route.action.method().as_str().to_ascii_lowercase();
        let item = paths.entry(route.path.clone()).or_insert_with(|| json!({}));
        item[method] = operations::operation(route);
    }
    let about = "The configuration of the gateway, its history, and how its models are doing. Secrets read as \
                 `***`; a `***` that is written back keeps the stored secret. Every GET also answers HEAD. \
                 Query parameters that are not named here are refused.";
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "AISIX Admin API",
            "version": VERSION,
            "description": about,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ ADMIN_SCHEME: [] }],
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "securitySchemes": {
                ADMIN_SCHEME: {
                    "type": "http", "scheme": "bearer",
                    "description": "An admin key. Without an `Authorization` header, `x-api-key` is read. \
                                    The role `read_only` opens every read but the audit log and the export, \
                                    `editor` also every write of resources, `owner` everything.",
                },
                CALLER_SCHEME: {
                    "type": "http", "scheme": "bearer",
                    "description": "The key of a caller of the gateway, as on the proxy listener.",
                },
            },
        },
    })
}

fn schema_ref(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn array_of(name: &str) -> Value {
    json!({ "type": "array", "items": schema_ref(name) })
}
