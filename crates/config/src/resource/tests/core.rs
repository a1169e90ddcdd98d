//! Documents of provider keys, models and caller keys.

use super::{Cases, both, told};

pub(super) const CASES: &[Cases] = &[
    Cases {
        kind: "provider_keys",
        minimal: r#"{"display_name": "k", "api_key": "s3cret"}"#,
        full: &[r#"{
            "display_name": "k", "api_key": "s3cret", "api_base": "https://api.example.com/v1",
            "provider": "acme", "adapter": "anthropic",
            "telemetry_tags": {"kind": "byo", "featured": true, "pk_label": "a", "byo_label": "b", "branded_provider": "c"},
            "request": {
                "param_renames": {"a": "b"}, "param_constraints": {"temperature_max": 1, "temperature_min": 0.5},
                "default_headers": {"x-team": "s3cret ${model.name}"}, "forward_client_headers": ["x-*"],
                "default_body_fields": {"user": {"tokens": ["s3cret"]}}
            },
            "response": {
                "stream_done_marker": "none", "content_list_to_string": true, "error_envelope": "x",
                "reasoning_field": "delta.thoughts"
            },
            "strip_headers": ["x-a"], "tls": {"verify": false, "ca_cert": " "}
        }"#],
        nullable: &["api_base", "adapter", "request", "response", "tls"],
        bad: &[
            both(0, r#"{"display_name": null}"#, r#"``: "display_name" is a required property"#),
            both(0, r#"{"display_name": ""}"#, "`/display_name`: value is shorter than 1 character"),
            told(
                0,
                r#"{"display_name": "a\u0000b"}"#,
                "`/display_name`: must not contain control characters, invisible characters or marks that change the direction of text",
            ),
            told(
                0,
                r#"{"display_name": "a\u202eb"}"#,
                "`/display_name`: must not contain control characters, invisible characters or marks that change the direction of text",
            ),
            both(0, r#"{"secret": "s3cret"}"#, "cannot decode canonical document: duplicate field `api_key` at ``"),
            both(
                0,
                r#"{"adapter": "cohere"}"#,
                r#"`/adapter`: value is not one of "openai", "anthropic", "bedrock", "vertex" or "azure-openai""#,
            ),
            told(
                0,
                r#"{"api_base": "api.example.com"}"#,
                "`/api_base`: invalid URL: expected http:// or https:// with a host",
            ),
            told(
                0,
                r#"{"request": {"default_headers": {"authorization": "x"}}}"#,
                "`/request/default_headers/authorization`: is a header that settings may not touch",
            )
            .beyond(),
            told(
                0,
                r#"{"request": {"default_headers": {"x-a": "${nope}"}}}"#,
                "`/request/default_headers/x-a`: unknown variable in a header template (known: request.id, request.api_key.id, request.api_key.name, request.api_key.team_id, request.api_key.user_id, model.id, model.name, provider_key.id, provider_key.name)",
            )
            .beyond(),
            told(
                0,
                r#"{"tls": {"ca_cert": "x"}}"#,
                "`/tls/ca_cert`: value contains no CERTIFICATE block",
            )
            .beyond(),
            told(
                0,
                r#"{"tsl": {}}"#,
                "``: Additional properties are not allowed ('tsl' was unexpected), did you mean `tls`?",
            ),
            both(
                0,
                r#"{"telemetry_tags": {"featured": 1}}"#,
                "`/telemetry_tags/featured`: value is not of type \"boolean\"",
            ),
            both(0, r#"{"tls": {"verify": "no"}}"#, "`/tls/verify`: value is not of type \"boolean\""),
        ],
    },
    Cases {
        kind: "models",
        minimal: r#"{"display_name": "m", "provider": "openai", "model_name": "gpt", "provider_key_id": "k"}"#,
        full: &[
            r#"{
                "display_name": "m*", "provider": "openai", "model_name": "gpt-*", "provider_key_id": "k",
                "timeout": 0, "stream_timeout": 5, "retries": 1,
                "rate_limit": {"rps": 1, "rpm": 0, "rph": 3, "rpd": 4, "tpm": 5, "tpd": 6, "concurrency": 7},
                "allowed_cidrs": ["10.0.0.0/8"], "embedding": {"dimensions": 3, "normalize": false},
                "cost": {"input_per_1k": 0.1, "output_per_1k": 0},
                "background_model_check": {
                    "enabled": true, "interval_seconds": 5, "timeout_seconds": 1, "prompt": "hi", "max_tokens": 1,
                    "stale_after_seconds": 1, "ignore_statuses": [429]
                },
                "cooldown": {"enabled": false, "default_seconds": 1, "max_seconds": 2},
                "auto_prompt_caching": {"enabled": true, "ttl": "1h"}
            }"#,
            r#"{
                "display_name": "group", "timeout": 1, "stream_timeout": 2,
                "routing": {
                    "targets": [
                        {"model": "a", "weight": 0, "priority": -1, "tags": ["default"]},
                        {"model": "b", "weight": 4294967295, "priority": 2147483647}
                    ],
                    "strategy": "consistent_hash", "retries": 1, "max_fallbacks": 0, "retry_on_429": true,
                    "fallback_on_statuses": [404], "when_all_unavailable": "try_anyway",
                    "hash_on": [{"type": "header", "name": "x-user"}, {"type": "client_ip"}]
                }
            }"#,
            r#"{
                "display_name": "panel", "ensemble": {
                    "panel": [{"model": "a", "temperature": 0.2, "seed": -5, "weight": 2}, {"model": "b"}],
                    "judge": {"model": "c", "synthesis_prompt": "join"}, "min_responses": 2, "timeout_ms": 0
                }
            }"#,
            r#"{
                "display_name": "router", "retries": 2, "semantic": {
                    "embedding_model": "e", "default": "d", "match": {"threshold": 0.5, "distance_metric": "cosine"},
                    "routes": [{"name": "r", "target": "t", "examples": ["x"], "threshold": 1, "description": "y"}],
                    "embedding_timeout_ms": 10, "on_embedding_failure": {"target": "f"}
                }
            }"#,
        ],
        nullable: &[],
        bad: &[
            both(0, r#"{"provider": null}"#, r#"``: "provider" is a required property"#),
            both(0, r#"{"provider": "Open AI"}"#, "`/provider`: value does not match \"^[a-z0-9][a-z0-9._-]*$\""),
            both(0, r#"{"timeout": "5s"}"#, "`/timeout`: value is not of type \"integer\""),
            both(0, r#"{"timeout": -1}"#, "`/timeout`: value is less than the minimum of 0.0"),
            both(
                0,
                r#"{"retries": 3.0}"#,
                "cannot decode canonical document: expected an integer, written without a fraction at `/retries`",
            )
            .beyond(),
            both(
                0,
                r#"{"retries": 4294967296}"#,
                "cannot decode canonical document: the number is greater than 4294967295 at `/retries`",
            ),
            both(0, r#"{"cost": {"input_per_1k": -1}}"#, "`/cost/input_per_1k`: value is less than the minimum of 0.0"),
            both(0, r#"{"cost": {"output_per_1k": null}}"#, r#"`/cost`: "output_per_1k" is a required property"#),
            both(
                0,
                r#"{"background_model_check": {"interval_seconds": 4}}"#,
                "`/background_model_check/interval_seconds`: value is less than the minimum of 5.0",
            ),
            both(0, r#"{"embedding": {"dimensions": 0}}"#, "`/embedding/dimensions`: value is less than the minimum of 1.0"),
            both(
                0,
                r#"{"auto_prompt_caching": {"ttl": "2h"}}"#,
                r#"`/auto_prompt_caching/ttl`: value is not one of "5m" or "1h""#,
            ),
            told(
                0,
                r#"{"allowed_cidrs": ["10.0.0.0/40"]}"#,
                "`/allowed_cidrs/0`: invalid CIDR/IP: expected an address or a network such as 10.0.0.0/8",
            )
            .beyond(),
            told(
                0,
                r#"{"display_name": "a*b*"}"#,
                "`/display_name`: value has more than one `*` and would match nothing",
            )
            .beyond(),
            both(1, r#"{"provider": "x"}"#, "`/provider`: value cannot stand beside `routing`"),
            both(1, r#"{"cooldown": {}}"#, "`/cooldown`: value cannot stand beside `routing`"),
            told(1, r#"{"retries": 1}"#, "`/retries`: has no effect on a resource of this form"),
            told(2, r#"{"timeout": 1}"#, "`/timeout`: has no effect on a resource of this form"),
            both(1, r#"{"routing": {"targets": []}}"#, "`/routing/targets`: value has fewer than 1 item"),
            both(1, r#"{"routing": {"targets": [{}]}}"#, r#"`/routing/targets/0`: "model" is a required property"#),
            both(
                1,
                r#"{"routing": {"targets": [{"model": "a", "priority": 1.5}]}}"#,
                "`/routing/targets/0/priority`: value is not of type \"integer\"",
            ),
            both(
                1,
                r#"{"routing": {"strategy": "random"}}"#,
                r#"`/routing/strategy`: value is not one of "round_robin", "consistent_hash", "failover", "least_cost", "least_latency" or "least_busy""#,
            ),
            both(
                1,
                r#"{"routing": {"fallback_on_statuses": [200]}}"#,
                "`/routing/fallback_on_statuses/0`: value is less than the minimum of 400.0",
            ),
            told(
                1,
                r#"{"routing": {"targets": [{"model": "group"}]}}"#,
                "`/routing/targets/0/model`: is the group itself",
            )
            .beyond(),
            told(
                1,
                r#"{"routing": {"targets": [{"model": "a"}, {"model": "a"}]}}"#,
                "`/routing/targets/1/model`: is an earlier target too; give that one more weight",
            )
            .beyond(),
            told(
                1,
                r#"{"routing": {"targets": [{"model": "a", "weight": 0}]}}"#,
                "`/routing/targets`: no target has a weight above 0",
            )
            .beyond(),
            told(
                1,
                r#"{"routing": {"hash_on": [{"type": "cookie"}]}}"#,
                "`/routing/hash_on/0`: `name` is required with `type: cookie`",
            )
            .beyond(),
            told(
                1,
                r#"{"routing": {"hash_on": [{"type": "api_key", "name": "x"}]}}"#,
                "`/routing/hash_on/0/name`: has no effect with `type: api_key`",
            )
            .beyond(),
            told(
                1,
                r#"{"routing": {"strategy": "failover"}}"#,
                "`/routing/hash_on`: has an effect with `strategy: consistent_hash` only",
            )
            .beyond(),
            both(1, r#"{"routing": {"hash_on": []}}"#, "`/routing/hash_on`: value has fewer than 1 item"),
            both(2, r#"{"ensemble": {"judge": null}}"#, r#"`/ensemble`: "judge" is a required property"#),
            told(
                2,
                r#"{"ensemble": {"min_responses": 3}}"#,
                "`/ensemble/min_responses`: is more than the panel has models",
            )
            .beyond(),
            both(2, r#"{"semantic": {"embedding_model": "e", "default": "d", "match": {"threshold": 1},
                "routes": [{"name": "r", "target": "t", "examples": ["x"]}]}}"#,
                "`/semantic`: value cannot stand beside `ensemble`"),
            both(
                3,
                r#"{"semantic": {"match": {"threshold": 1.5}}}"#,
                "`/semantic/match/threshold`: value is greater than the maximum of 1.0",
            ),
            both(
                3,
                r#"{"semantic": {"on_embedding_failure": "ignore"}}"#,
                r#"`/semantic/on_embedding_failure`: value is not one of "default" or "fail""#,
            ),
            both(
                3,
                r#"{"semantic": {"on_embedding_failure": 5}}"#,
                r#"`/semantic/on_embedding_failure`: value is not of type one of "string" or "object""#,
            ),
        ],
    },
    Cases {
        kind: "api_keys",
        minimal: r#"{"display_name": "ci", "key_hash": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae", "allowed_models": []}"#,
        full: &[r#"{
            "display_name": "ci", "key_hash": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
            "allowed_models": ["gpt", "acme/*"], "key_prefix": "sk-12345",
            "previous_key_hash": "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9",
            "previous_key_expires_at": "2030-01-01T00:00:00Z",
            "rate_limit": {"rpm": 5, "tpm": null}, "team_id": "t", "user_id": "u", "user_name": "",
            "jwt_subject": "s", "jwt_provider": "p", "mcp_access": {"allow": ["git__*"], "deny": ["git__drop"]},
            "mcp_rate_limits": {"git": {"rps": 1, "rpm": 2, "rph": 3, "rpd": 4, "concurrency": 5}},
            "allowed_agents": ["leg*"], "allowed_routes": ["tools"], "expires_at": "2030-01-01T00:00:00+02:00",
            "disabled": true
        }"#],
        nullable: &[
            "display_name", "key_prefix", "previous_key_hash", "previous_key_expires_at", "rate_limit", "team_id",
            "user_id", "user_name", "jwt_subject", "jwt_provider", "mcp_access", "mcp_rate_limits",
            "allowed_agents", "allowed_routes", "expires_at",
        ],
        bad: &[
            both(0, r#"{"allowed_models": null}"#, r#"``: "allowed_models" is a required property"#),
            told(
                0,
                r#"{"key_hash": "2C26"}"#,
                "`/key_hash`: value is not a SHA-256 in 64 lower-case hexadecimal digits",
            ),
            told(
                0,
                r#"{"allowed_models": ["a*b*"]}"#,
                "`/allowed_models/0`: value has more than one `*` and would match nothing",
            ),
            both(
                0,
                r#"{"expires_at": "2030-01-01"}"#,
                "`/expires_at`: value is not a \"date-time\" (RFC 3339 with zone)",
            ),
            both(0, r#"{"team_id": ""}"#, "`/team_id`: value is shorter than 1 character"),
            told(
                0,
                r#"{"rate_limit": {"rpx": 1}}"#,
                "`/rate_limit`: Additional properties are not allowed ('rpx' was unexpected), did you mean `rps`?",
            ),
            told(
                0,
                r#"{"mcp_rate_limits": {"git": {"tpm": 1}}}"#,
                "`/mcp_rate_limits/git`: Additional properties are not allowed ('tpm' was unexpected), did you mean `rpm`?",
            ),
            told(
                0,
                r#"{"mcp_access": {"deny": ["a*b*"]}}"#,
                "`/mcp_access/deny/0`: value has more than one `*` and would match nothing",
            ),
            told(0, r#"{"jwt_provider": null}"#, "`/jwt_subject`: is set without jwt_provider"),
            told(
                0,
                r#"{"previous_key_expires_at": null}"#,
                "`/previous_key_hash`: has no effect without `previous_key_expires_at`",
            ),
            told(
                0,
                r#"{"previous_key_hash": null}"#,
                "`/previous_key_expires_at`: has no effect without `previous_key_hash`",
            ),
            both(0, r#"{"disabled": "yes"}"#, "`/disabled`: value is not of type \"boolean\""),
        ],
    },
];
