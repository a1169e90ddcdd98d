//! Texts and documents that the strategies start from.

use serde_json::{Value, json};

/// Texts that readers and writers stumble over.
pub(super) fn hostile() -> Vec<String> {
    let texts = [
        "",
        " ",
        "a",
        "~",
        "null",
        "yes",
        "No",
        "true",
        "12",
        "0x1F",
        "1e3",
        "-",
        "- a",
        "?",
        "? a",
        ":",
        "a: b",
        "a:",
        "#",
        "a #b",
        "$",
        "$$",
        "${x}",
        "$${x}",
        "${",
        "}",
        "*",
        "a*",
        "&a",
        "!tag",
        "|",
        ">",
        "%",
        "@",
        "`",
        "'",
        "\"",
        "\\",
        "\\n",
        "'a' \"b\"",
        " leading",
        "trailing ",
        "two\nlines",
        "two\nlines\n",
        "\nx",
        "x\n\n",
        "  a\n b",
        "a\n\n\nb",
        "\t",
        "tab\there",
        "\r\n",
        "\u{0}",
        "\u{7}",
        "\u{1b}[31m",
        "\u{7f}",
        "\u{85}",
        "\u{a0}",
        "\u{2028}",
        "\u{202e}txt",
        "\u{200f}",
        "\u{feff}",
        "ä ö",
        "日本語",
        "\u{1f600}",
        "e\u{301}",
        "---",
        "...",
        "--- a",
        "[a]",
        "{a: b}",
        "a, b",
        "=",
        "<<",
        "2030-01-01",
        ".inf",
        ".nan",
        "07",
        "007",
        "+1",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    ];
    let mut texts: Vec<String> = texts.map(str::to_owned).into();
    texts.extend(["long ".repeat(2048), "x".repeat(10_240), "\u{202e}".repeat(600)]);
    texts
}

/// Something for every format.
pub(super) fn well_formed() -> Vec<String> {
    let texts = [
        "x",
        "y-2",
        "openai",
        "info",
        "all",
        "model:x",
        "api_key:x",
        "delta.reasoning",
        "x-team",
        "x-user",
        "a+b*",
        "^\\$\\{x\\}$",
        "[#: ]+",
        "10.0.0.0/8",
        "::1",
        "192.168.1.1",
        "127.0.0.1:3000",
        "https://a.example",
        "https://b.example/v1",
        "http://127.0.0.1:8080/mcp",
        "https://gateway.example/mcp",
        "http://localhost:4318",
        "localhost:80",
        "127.0.0.1",
        "eu.log.aliyuncs.com",
        "datadoghq.com",
        "api.example.com",
        "*.example.com",
        "/tools",
        "/hooks/in",
        "2030-01-01T00:00:00Z",
        "2024-02-29",
        "08:30",
        "17:00",
        "24:00",
        "Europe/Berlin",
        "UTC",
        "${request.id}",
        "team ${request.api_key.team_id}",
        "/etc/file",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    ];
    texts.map(str::to_owned).into()
}

/// The forms of a kind whose rules random fields rarely keep.
pub(super) fn forms(kind: &str) -> Vec<Value> {
    match kind {
        "models" => vec![
            json!({"display_name": "m", "provider": "p", "model_name": "u", "provider_key_id": "k"}),
            json!({"display_name": "m", "routing": {"targets": [{"model": "x"}, {"model": "y", "weight": 0}]}}),
            json!({"display_name": "m", "ensemble": {"panel": [{"model": "x"}], "judge": {"model": "y"}}}),
            json!({"display_name": "m", "semantic": {
                "embedding_model": "e", "default": "d", "match": {"threshold": 0.5},
                "routes": [{"name": "r", "target": "t", "examples": ["hello"]}],
                "on_embedding_failure": {"target": "t"},
            }}),
        ],
        "rate_limit_policies" => vec![
            json!({"name": "p", "scope": "model", "scope_ref": "m", "window": "hour", "max_requests": 5}),
            json!({"name": "p", "scope": "team", "scope_ref": "t", "window": "day", "max_tokens": 5}),
            json!({"name": "p", "limits": {"rpm": 3}, "group_by": ["api_key", "model"], "conditions": [
                {"dimension": "api_key", "operator": "in", "value": ["a", "b"]},
                {"logic": "or", "children": [
                    {"dimension": "model", "operator": "==", "value": "m"},
                    {"dimension": "model_name", "operator": "~~", "value": "^gpt-\\$"},
                ]},
            ]}),
        ],
        "mcp_servers" => vec![
            json!({"name": "s", "url": "https://mcp.example/mcp"}),
            json!({"name": "s", "url": "https://mcp.example", "auth_type": "bearer", "secret": "$x"}),
            json!({"name": "s", "url": "https://api.example", "type": "openapi", "auth_type": "api_key",
                "api_key_header": "x-key", "secret": "y", "spec": {"openapi": "3.1.0", "info": {"title": "${t}"}}}),
        ],
        "guardrail_attachments" => ["model", "mcp_server", "api_key", "passthrough_route"]
            .map(|scope| json!({"guardrail_id": "g", "scope_type": scope, "scope_id": "x", "priority": -1}))
            .into_iter()
            .chain([
                json!({"guardrail_id": "g", "scope_type": "env", "priority": 0}),
                json!({"guardrail_id": "g", "scope_type": "team", "scope_id": "t", "priority": 7}),
            ])
            .collect(),
        "mcp_policies" => vec![
            json!({"scope": "env", "allow": ["*"]}),
            json!({"scope": "team", "scope_ref": "t", "allow": ["s__*"], "deny": ["s__drop"]}),
        ],
        "cache_policies" => ["all", "model:x", "api_key:x"]
            .map(|applies_to| json!({"name": "c", "applies_to": applies_to}))
            .into(),
        "passthrough_routes" => vec![
            json!({"name": "r", "path_prefix": "/x", "target_url": "https://a.example", "provider_key_id": "k"}),
            json!({"name": "r", "hosts": ["a.example"], "preserve_host": true, "credential_mode": "forward_client",
                "auth_mode": "header_key", "auth_header_name": "x-key"}),
            json!({"name": "r", "path_prefix": "/y", "target_url": "https://a.example",
                "credential_mode": "forward_client", "auth_mode": "anonymous", "anonymous_key_id": "k",
                "source_cidrs": ["10.0.0.0/8"]}),
        ],
        _ => Vec::new(),
    }
}
