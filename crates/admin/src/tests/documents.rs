//! A good document of every kind.

use aisix_config::KINDS;
use serde_json::{Value, json};

use super::plane::Plane;

/// What the documents refer to.
pub(crate) struct World {
    provider_key: String,
    guardrail: String,
    caller: String,
}

impl World {
    pub(crate) async fn create(plane: &Plane) -> Self {
        let (provider_key, _) = plane.standard().await;
        let guardrail = json!({"name": "world", "kind": "keyword", "patterns": []});
        let caller = json!({"display_name": "world", "allowed_models": []});
        let issuer = json!({"name": "world", "issuer": "https://issuer.example", "audiences": ["a"]});
        plane.create("oidc_providers", &issuer).await;
        Self {
            provider_key,
            guardrail: plane.create("guardrails", &guardrail).await,
            caller: plane.create("api_keys", &caller).await,
        }
    }

    /// A document, and a patch that changes it.
    pub(crate) fn document(&self, kind: &str) -> (Value, Value) {
        let off = json!({"enabled": false});
        match kind {
            "provider_keys" => (
                json!({"display_name": "new", "api_key": "sk-SECRET", "request": {
                    "default_headers": {"x-tenant": "SECRET"}, "default_body_fields": {"user": "SECRET"}}}),
                json!({"api_base": "https://other.example/v1"}),
            ),
            "models" => (
                json!({"display_name": "new", "provider": "openai", "model_name": "up",
                       "provider_key_id": self.provider_key, "timeout": 5}),
                json!({"timeout": null, "retries": 2}),
            ),
            "api_keys" => (
                json!({"display_name": "new", "allowed_models": ["fast", "free/*"], "user_id": "u"}),
                json!({"team_id": "t"}),
            ),
            "guardrails" => {
                (json!({"name": "new", "kind": "lakera", "api_key": "SECRET", "hook_point": "input"}), off)
            }
            "guardrail_attachments" => (
                json!({"guardrail_id": self.guardrail, "scope_type": "env", "priority": 0}),
                json!({"priority": 9}),
            ),
            "cache_policies" => (json!({"name": "new"}), off),
            "rate_limit_policies" => (
                json!({"name": "new", "scope": "team", "scope_ref": "t", "window": "minute", "max_requests": 1}),
                json!({"max_requests": 2}),
            ),
            "observability_exporters" => (
                json!({"name": "new", "kind": "otlp_http", "endpoint": "https://c.example/v1/traces",
                       "headers": {"x-auth": "SECRET"}}),
                off,
            ),
            "mcp_servers" => (
                json!({"name": "new", "url": "https://mcp.example/mcp", "auth_type": "bearer", "secret": "SECRET"}),
                off,
            ),
            "mcp_policies" => (json!({"scope": "env", "allow": []}), json!({"deny": ["a__b"]})),
            "mcp_auth_settings" => (json!({}), json!({"resource_url": "https://gateway.example/mcp"})),
            "a2a_agents" => (
                json!({"name": "new", "url": "https://agent.example", "auth_type": "bearer", "secret": "SECRET"}),
                off,
            ),
            "oidc_providers" => {
                (json!({"name": "new", "issuer": "https://new.example", "audiences": ["api"]}), off)
            }
            "claim_mappings" => (
                json!({"name": "new", "jwt_provider": "world", "resolve": {"api_key_id": self.caller},
                       "match": [{"claim": "groups", "op": "contains", "values": ["dev"]}]}),
                json!({"priority": 7}),
            ),
            "passthrough_routes" => (
                json!({"name": "new", "path_prefix": "/new", "target_url": "https://target.example",
                       "credential_mode": "forward_client"}),
                off,
            ),
            other => panic!("no document of {other}"),
        }
    }
}

/// The collections.
pub(crate) fn collections() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind.name).collect()
}
