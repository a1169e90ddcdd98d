//! Documents of the kinds about tools, agents and tokens.

use super::{Cases, both, told};

pub(super) const CASES: &[Cases] = &[
    Cases {
        kind: "mcp_servers",
        minimal: r#"{"name": "s", "url": "https://x.example/mcp"}"#,
        full: &[
            r#"{
                "name": "s", "type": "mcp", "url": "https://x.example/mcp?v=1", "transport": "streamable_http",
                "auth_type": "oauth2", "secret": "s3cret", "client_id": "c", "token_url": "https://x.example/token",
                "scopes": ["a"], "protocol_version": "2026-07-28", "timeout_ms": 1, "enabled": false
            }"#,
            r#"{
                "display_name": "_s_x", "type": "openapi", "url": "http://x.example", "spec": {"openapi": "3.1.0"},
                "auth_type": "api_key", "api_key_header": "X-Key", "secret": "s3cret"
            }"#,
            r#"{"name": "s", "url": "http://x", "secret": "", "spec": null, "api_key_header": null, "scopes": []}"#,
        ],
        nullable: &["spec", "api_key_header", "secret", "client_id", "token_url", "scopes", "protocol_version", "timeout_ms"],
        bad: &[
            both(0, r#"{"name": null}"#, r#"``: "name" is a required property"#),
            both(0, r#"{"display_name": "s"}"#, "cannot decode canonical document: duplicate field `name` at ``"),
            both(
                0,
                r#"{"name": "a__b"}"#,
                "`/name`: value must not contain `__` nor end in `_`: tool names are made from it",
            ),
            both(0, r#"{"name": "a_"}"#, "`/name`: value must not contain `__` nor end in `_`: tool names are made from it"),
            told(
                0,
                r#"{"name": "a\nb"}"#,
                "`/name`: must not contain control characters, invisible characters or marks that change the direction of text",
            )
            .beyond(),
            told(0, r#"{"url": "x.example"}"#, "`/url`: invalid URL: expected http:// or https:// with a host"),
            both(0, r#"{"transport": "stdio"}"#, r#"`/transport`: value is not "streamable_http""#),
            both(0, r#"{"timeout_ms": 0}"#, "`/timeout_ms`: value is less than the minimum of 1.0"),
            both(0, r#"{"secret": null}"#, r#"``: "secret" is a required property"#),
            both(0, r#"{"secret": ""}"#, "`/secret`: value is shorter than 1 character"),
            both(0, r#"{"client_id": null}"#, r#"``: "client_id" is a required property"#),
            both(0, r#"{"token_url": null}"#, r#"``: "token_url" is a required property"#),
            both(0, r#"{"spec": {}}"#, "`/spec`: is for `type: openapi` only"),
            both(0, r#"{"api_key_header": "x"}"#, "`/api_key_header`: is for `type: openapi` only"),
            both(0, r#"{"protocol_version": "2024-11-05"}"#, r#"`/protocol_version`: value is not "2026-07-28""#),
            both(1, r#"{"spec": null}"#, r#"``: "spec" is a required property"#),
            both(1, r#"{"spec": {"swagger": "2.0"}}"#, "`/spec`: is a Swagger 2 document; OpenAPI 3 is expected"),
            both(1, r#"{"auth_type": "bearer"}"#, "`/api_key_header`: requires `auth_type: api_key`"),
            both(1, r#"{"api_key_header": "a b"}"#, "`/api_key_header`: is not a legal header name"),
            told(1, r#"{"client_id": "c"}"#, "`/client_id`: has an effect with `auth_type: oauth2` only"),
            told(2, r#"{"secret": "x"}"#, "`/secret`: has no effect with `auth_type: none`"),
        ],
    },
    Cases {
        kind: "mcp_policies",
        minimal: r#"{"scope": "env", "allow": []}"#,
        full: &[
            r#"{"scope": "team", "scope_ref": "t", "allow": ["git__*"], "deny": ["git__drop"], "enabled": false}"#,
            r#"{"scope": "env", "scope_ref": null, "allow": ["*"]}"#,
        ],
        nullable: &["scope_ref"],
        bad: &[
            both(0, r#"{"scope": "key"}"#, r#"`/scope`: value is not one of "env" or "team""#),
            both(0, r#"{"scope_ref": null}"#, r#"``: "scope_ref" is a required property"#),
            told(1, r#"{"scope_ref": "t"}"#, "`/scope_ref`: has no effect with `scope: env`"),
            told(0, r#"{"deny": ["*__delete*"]}"#, "`/deny/0`: value has more than one `*` and would match nothing"),
            both(0, r#"{"allow": "*"}"#, "`/allow`: value is not of type \"array\""),
        ],
    },
    Cases {
        kind: "a2a_agents",
        minimal: r#"{"name": "a", "url": "https://x.example/a2a"}"#,
        full: &[
            r#"{
                "name": "a", "url": "https://x.example/a2a", "protocol_version": "0.3", "auth_type": "bearer",
                "secret": "s3cret", "timeout_ms": 1, "enabled": false
            }"#,
            r#"{"display_name": "a", "url": "http://x", "secret": ""}"#,
        ],
        nullable: &["secret", "timeout_ms"],
        bad: &[
            both(
                0,
                r#"{"name": "a/b"}"#,
                "`/name`: value must be one path segment, without `/`, `?`, `#`, `%`, blanks and control characters",
            ),
            both(0, r#"{"url": ""}"#, "`/url`: value is shorter than 1 character"),
            both(0, r#"{"auth_type": "oauth2"}"#, r#"`/auth_type`: value is not one of "none", "bearer" or "api_key""#),
            both(0, r#"{"protocol_version": "2.0"}"#, r#"`/protocol_version`: value is not one of "1.0" or "0.3""#),
            both(0, r#"{"secret": null}"#, r#"``: "secret" is a required property"#),
            told(1, r#"{"secret": "x"}"#, "`/secret`: has no effect with `auth_type: none`"),
            told(
                0,
                r#"{"name": "a\u202eb"}"#,
                "`/name`: must not contain control characters, invisible characters or marks that change the direction of text",
            )
            .beyond(),
        ],
    },
    Cases {
        kind: "oidc_providers",
        minimal: r#"{"name": "o", "issuer": "https://x.example", "audiences": ["a"]}"#,
        full: &[r#"{
            "name": "o", "issuer": "accounts.example.com", "audiences": ["a"], "jwks_uri": "https://x.example/keys?v=1",
            "identity_claim": "user.id", "required_scopes": ["s"], "bound_claims": {"hd": "x", "groups": ["a", "b"]},
            "leeway_secs": 300, "enabled": false
        }"#],
        nullable: &[],
        bad: &[
            both(0, r#"{"audiences": []}"#, "`/audiences`: value has fewer than 1 item"),
            both(0, r#"{"leeway_secs": 301}"#, "`/leeway_secs`: value is greater than the maximum of 300.0"),
            both(0, r#"{"bound_claims": {"groups": []}}"#, "`/bound_claims/groups`: value has fewer than 1 item"),
            both(
                0,
                r#"{"bound_claims": {"groups": true}}"#,
                r#"`/bound_claims/groups`: value is not of type one of "string" or "array""#,
            ),
            told(
                0,
                r#"{"jwks_uri": "https://x.example/keys?token=t"}"#,
                "`/jwks_uri`: invalid URL: it must not embed credentials",
            )
            .beyond(),
            told(
                0,
                r#"{"issuer": "https://u:p@x.example"}"#,
                "`/issuer`: invalid URL: it must not embed credentials",
            )
            .beyond(),
            told(0, r#"{"jwks_uri": null}"#, "`/issuer`: invalid URL: expected http:// or https:// with a host").beyond(),
        ],
    },
    Cases {
        kind: "claim_mappings",
        minimal: r#"{"name": "c", "jwt_provider": "o", "match": [{"claim": "g", "op": "exact", "values": ["x"]}], "resolve": {"api_key_id": "k"}}"#,
        full: &[r#"{
            "name": "c", "jwt_provider": "o", "priority": 4294967295, "enabled": false, "resolve": {"api_key_id": "k"},
            "match": [{"claim": "g", "op": "contains", "values": ["x", "y"]}]
        }"#],
        nullable: &[],
        bad: &[
            both(0, r#"{"match": []}"#, "`/match`: value has fewer than 1 item"),
            both(
                0,
                r#"{"match": [{"claim": "g", "op": "regex", "values": ["x"]}]}"#,
                r#"`/match/0/op`: value is not one of "exact" or "contains""#,
            ),
            both(0, r#"{"match": [{"claim": "g", "op": "exact", "values": []}]}"#, "`/match/0/values`: value has fewer than 1 item"),
            both(0, r#"{"priority": -1}"#, "`/priority`: value is less than the minimum of 0.0"),
            both(0, r#"{"resolve": {"api_key_id": null}}"#, r#"`/resolve`: "api_key_id" is a required property"#),
            told(0, r#"{"jwt_provider": ""}"#, "`/jwt_provider`: must not be empty"),
        ],
    },
    Cases {
        kind: "mcp_auth_settings",
        minimal: "{}",
        full: &[r#"{
            "resource_url": "https://gw.example/mcp", "anonymous": {
                "api_key_id": "k", "source_cidrs": ["10.0.0.0/8"], "servers": ["s"], "enabled": false,
                "aggregate_entry": true
            }
        }"#],
        nullable: &[],
        bad: &[
            told(
                0,
                r#"{"resource_url": "https://gw.example/mcp/"}"#,
                "`/resource_url`: must have the path `/mcp` and nothing after it",
            )
            .beyond(),
            told(
                0,
                r#"{"resource_url": "gw.example/mcp"}"#,
                "`/resource_url`: invalid URL: expected http:// or https:// with a host",
            ),
            both(0, r#"{"anonymous": {"servers": []}}"#, "`/anonymous/servers`: value has fewer than 1 item"),
            both(0, r#"{"anonymous": {"source_cidrs": []}}"#, "`/anonymous/source_cidrs`: value has fewer than 1 item"),
            told(
                0,
                r#"{"anonymous": {"source_cidrs": ["lan"]}}"#,
                "`/anonymous/source_cidrs/0`: invalid CIDR/IP: expected an address or a network such as 10.0.0.0/8",
            )
            .beyond(),
        ],
    },
];
