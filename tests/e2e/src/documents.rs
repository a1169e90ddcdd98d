//! Good documents of every resource kind.

use aisix_testkit::{Admin, key_hash};
use serde_json::{Value, json};

/// All collections.
pub const KINDS: [&str; 15] = [
    "provider_keys",
    "models",
    "api_keys",
    "guardrails",
    "guardrail_attachments",
    "cache_policies",
    "rate_limit_policies",
    "observability_exporters",
    "mcp_servers",
    "mcp_policies",
    "mcp_auth_settings",
    "a2a_agents",
    "oidc_providers",
    "claim_mappings",
    "passthrough_routes",
];

/// A text that stands for a secret in [`World::rich`] documents: whoever shows it leaks it.
pub const MARKER: &str = "MARKER-OF-A-SECRET";

/// What the documents refer to.
#[derive(Debug, Clone)]
pub struct World {
    /// Id of a provider key.
    pub provider_key: String,
    /// Name of a direct model.
    pub model: String,
    /// Id of that model.
    pub model_id: String,
    /// Id of a caller key.
    pub api_key: String,
    /// Id of a guardrail.
    pub guardrail: String,
    /// Name of an OIDC provider.
    pub oidc: String,
}

/// A provider key that answers by itself.
pub fn echo_key(name: &str) -> Value {
    json!({"display_name": name, "provider": "echo", "api_key": "unused"})
}

/// A provider key of an OpenAI-compatible upstream.
pub fn openai_key(name: &str, base: &str, secret: &str) -> Value {
    json!({"display_name": name, "provider": "openai", "api_key": secret, "api_base": base})
}

/// A direct model on a provider key.
pub fn direct(name: &str, provider_key: &str) -> Value {
    json!({"display_name": name, "provider": "openai", "model_name": "upstream", "provider_key_id": provider_key})
}

/// A model group over these models.
pub fn group(name: &str, targets: &[&str]) -> Value {
    let targets: Vec<Value> = targets.iter().map(|target| json!({"model": target})).collect();
    json!({"display_name": name, "routing": {"targets": targets}})
}

/// A caller key with this secret that may use everything.
pub fn caller(name: &str, secret: &str) -> Value {
    json!({"display_name": name, "key_hash": key_hash(secret), "allowed_models": ["*"]})
}

impl World {
    /// Creates what the documents refer to.
    pub async fn create(admin: &Admin) -> Self {
        let provider_key = admin.create("provider_keys", &echo_key("world-key")).await;
        let model = "world-model".to_owned();
        let model_id = admin.create("models", &direct(&model, &provider_key)).await;
        let api_key = admin.create("api_keys", &caller("world-caller", "sk-world-caller")).await;
        let keyword = json!({"name": "world-guardrail", "kind": "keyword", "patterns": []});
        let guardrail = admin.create("guardrails", &keyword).await;
        let oidc = "world-oidc".to_owned();
        let issuer =
            json!({"name": oidc, "issuer": "https://issuer.example", "audiences": ["a"], "enabled": false});
        admin.create("oidc_providers", &issuer).await;
        Self { provider_key, model, model_id, api_key, guardrail, oidc }
    }

    /// A document with no more than is required.
    pub fn minimal(&self, kind: &str, name: &str) -> Value {
        match kind {
            "provider_keys" => json!({"display_name": name, "api_key": "sk-minimal"}),
            "models" => direct(name, &self.provider_key),
            "api_keys" => json!({"display_name": name, "key_hash": key_hash(name), "allowed_models": []}),
            "guardrails" => json!({"name": name, "kind": "keyword", "patterns": []}),
            "guardrail_attachments" => {
                json!({"guardrail_id": self.guardrail, "scope_type": "env", "priority": 0})
            }
            "cache_policies" => json!({"name": name}),
            "rate_limit_policies" => {
                json!({"name": name, "scope": "team", "scope_ref": "t", "window": "minute", "max_requests": 1})
            }
            "observability_exporters" => {
                json!({"name": name, "kind": "otlp_http", "endpoint": "https://collector.example/v1/traces"})
            }
            "mcp_servers" => json!({"name": name, "url": "https://mcp.example/mcp"}),
            "mcp_policies" => json!({"scope": "env", "allow": []}),
            "mcp_auth_settings" => json!({}),
            "a2a_agents" => json!({"name": name, "url": "https://agent.example"}),
            "oidc_providers" => {
                json!({"name": name, "issuer": format!("https://{name}.example"), "audiences": ["api"]})
            }
            "claim_mappings" => json!({
                "name": name,
                "jwt_provider": self.oidc,
                "match": [{"claim": "groups", "op": "contains", "values": ["dev"]}],
                "resolve": {"api_key_id": self.api_key},
            }),
            "passthrough_routes" => json!({
                "name": name,
                "path_prefix": format!("/{name}"),
                "target_url": "https://target.example",
                "credential_mode": "forward_client",
            }),
            other => panic!("no document for {other}"),
        }
    }

    /// A document with most optional fields. Secrets contain [`MARKER`].
    pub fn rich(&self, kind: &str, name: &str) -> Value {
        let secret = format!("sk-{MARKER}-{kind}");
        match kind {
            "provider_keys" => rich_provider_key(name, &secret),
            "models" => rich_model(name, self),
            "api_keys" => rich_api_key(name, self),
            "guardrails" => json!({
                "name": name, "kind": "lakera", "api_key": secret, "enabled": true, "hook_point": "input",
                "fail_open": false, "enforcement_mode": "monitor", "mandatory": false, "direction": "both",
                "created_at": "2030-01-01T00:00:00Z", "endpoint": "https://api.lakera.ai", "project_id": "p",
                "timeout_ms": 1000, "max_buffer_bytes": 1024, "on_buffer_exceeded": "fail_closed",
                "output_fail_open": false,
            }),
            "guardrail_attachments" => json!({
                "guardrail_id": self.guardrail, "scope_type": "model", "scope_id": self.model_id,
                "priority": -3, "enabled": false,
            }),
            "cache_policies" => json!({
                "name": name, "enabled": false, "backend": "memory", "ttl_seconds": 60,
                "applies_to": format!("model:{}", self.model), "scope": "env", "purge_generation": 2,
            }),
            "rate_limit_policies" => json!({
                "name": name,
                "limits": {"rpm": 10, "tpd": 1000, "concurrency": 3},
                "conditions": [
                    {"dimension": "model_name", "operator": "~~", "value": "^gpt"},
                    {"logic": "or", "negate": true, "children": [
                        {"dimension": "team", "operator": "in", "value": ["a", "b"]},
                        {"dimension": "provider", "operator": "==", "value": "openai", "negate": true},
                    ]},
                ],
                "group_by": ["team", "model"],
                "action": "reject",
                "schedules": [{"timezone": "Europe/Berlin", "start_time": "22:00", "end_time": "24:00", "days_of_week": ["mon"]}],
            }),
            "observability_exporters" => json!({
                "name": name, "enabled": false, "kind": "otlp_http", "endpoint": "https://collector.example/v1/traces",
                "headers": {"x-auth": secret}, "sample_rate": 0.5, "content_mode": "metadata_only", "content_max_bytes": 4096,
            }),
            "mcp_servers" => json!({
                "name": name, "type": "mcp", "url": "https://mcp.example/mcp", "transport": "streamable_http",
                "auth_type": "oauth2", "secret": secret, "client_id": "c", "token_url": "https://mcp.example/token",
                "scopes": ["read"], "timeout_ms": 1000, "enabled": false,
            }),
            "mcp_policies" => json!({
                "scope": "team", "scope_ref": name, "allow": ["files__*"], "deny": ["files__rm"], "enabled": false,
            }),
            "mcp_auth_settings" => json!({
                "resource_url": "https://gateway.example/mcp",
                "anonymous": {
                    "api_key_id": self.api_key, "source_cidrs": ["10.0.0.0/8"], "servers": ["docs"],
                    "enabled": false, "aggregate_entry": true,
                },
            }),
            "a2a_agents" => json!({
                "name": name, "url": "https://agent.example", "protocol_version": "0.3", "auth_type": "bearer",
                "secret": secret, "timeout_ms": 1000, "enabled": false,
            }),
            "oidc_providers" => json!({
                "name": name, "issuer": format!("https://{name}.example"), "audiences": ["api"],
                "jwks_uri": "https://issuer.example/keys", "identity_claim": "act.sub", "required_scopes": ["s"],
                "bound_claims": {"tenant": "t", "roles": ["a", "b"]}, "leeway_secs": 30, "enabled": false,
            }),
            "claim_mappings" => json!({
                "name": name, "jwt_provider": self.oidc, "priority": 7,
                "match": [{"claim": "email", "op": "exact", "values": ["a@example.org"]}],
                "resolve": {"api_key_id": self.api_key}, "enabled": false,
            }),
            "passthrough_routes" => json!({
                "name": name, "hosts": [format!("{name}.example.org")], "path_prefix": "/v1/raw",
                "preserve_host": true, "auth_mode": "anonymous", "anonymous_key_id": self.api_key,
                "source_cidrs": ["10.0.0.0/8"], "credential_mode": "inject", "provider_key_id": self.provider_key,
                "identity_header": "x-caller", "timeout_ms": 1000, "enabled": false,
            }),
            other => panic!("no document for {other}"),
        }
    }
}

fn rich_provider_key(name: &str, secret: &str) -> Value {
    json!({
        "display_name": name, "provider": "openai", "adapter": "openai", "api_key": secret,
        "api_base": "https://upstream.example/v1",
        "telemetry_tags": {"kind": "byo", "featured": true, "branded_provider": "b", "pk_label": "l", "byo_label": "y"},
        "request": {
            "param_renames": {"max_tokens": "max_completion_tokens"},
            "param_constraints": {"temperature_max": 1.5, "temperature_min": 0.1},
            "default_headers": {"x-tenant": secret},
            "forward_client_headers": ["x-trace-*"],
            "default_body_fields": {"service_tier": secret, "n": 1},
        },
        "response": {"stream_done_marker": "optional", "content_list_to_string": true, "reasoning_field": "delta.reasoning"},
        "strip_headers": ["authorization", "x-internal"],
        "tls": {"verify": true},
    })
}

fn rich_model(name: &str, world: &World) -> Value {
    json!({
        "display_name": name, "provider": "openai", "model_name": "up", "provider_key_id": world.provider_key,
        "timeout": 30_000, "stream_timeout": 5000, "retries": 1,
        "rate_limit": {"rps": 1, "rpm": 2, "rph": 3, "rpd": 4, "tpm": 5, "tpd": 6, "concurrency": 7},
        "allowed_cidrs": ["127.0.0.0/8"],
        "cost": {"input_per_1k": 0.5, "output_per_1k": 1.5},
        "cooldown": {"enabled": true, "default_seconds": 3, "max_seconds": 9, "honor_retry_after": false,
                     "trigger_statuses": [500], "trigger_on_timeout": false, "trigger_on_transport": false},
        "background_model_check": {"enabled": false, "interval_seconds": 5, "timeout_seconds": 1, "prompt": "hi",
                                   "max_tokens": 1, "stale_after_seconds": 1, "ignore_statuses": [429]},
    })
}

fn rich_api_key(name: &str, world: &World) -> Value {
    json!({
        "display_name": name, "key_hash": key_hash(name), "allowed_models": [world.model, "free/*"],
        "rate_limit": {"rpm": 100}, "team_id": "team", "user_id": "user", "user_name": "User",
        "jwt_subject": name, "jwt_provider": world.oidc,
        "mcp_access": {"allow": ["files__*"], "deny": []}, "mcp_rate_limits": {"files": {"rpm": 1}},
        "allowed_agents": ["agent-*"], "allowed_routes": ["route-*"],
        "expires_at": "2040-01-01T00:00:00Z", "disabled": true,
    })
}

/// The member that names a document of this kind, if any does.
pub fn name_member(kind: &str) -> Option<&'static str> {
    match kind {
        "provider_keys" | "models" | "api_keys" => Some("display_name"),
        "guardrail_attachments" | "mcp_policies" | "mcp_auth_settings" => None,
        _ => Some("name"),
    }
}

/// A harmless change of a document: the member and its new value.
pub fn change_of(kind: &str) -> (&'static str, Value) {
    match kind {
        "provider_keys" => ("api_base", json!("https://other.example/v1")),
        "models" => ("timeout", json!(4321)),
        "api_keys" => ("team_id", json!("other-team")),
        "guardrail_attachments" => ("priority", json!(9)),
        "rate_limit_policies" => ("max_requests", json!(77)),
        "observability_exporters" => ("sample_rate", json!(0.25)),
        "mcp_policies" => ("deny", json!(["a__b"])),
        "mcp_auth_settings" => ("resource_url", json!("https://other.example/mcp")),
        "claim_mappings" => ("priority", json!(12)),
        _ => ("enabled", json!(false)),
    }
}

/// Whether every member of `part` is in `whole` with the same value, at every depth; `whole` may hold defaults besides.
pub fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, value)| whole.get(name).is_some_and(|found| contains(found, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| contains(whole, part))
        }
        _ => whole == part,
    }
}
