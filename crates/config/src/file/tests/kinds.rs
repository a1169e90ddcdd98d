//! Tests of what a file says in its own way, for every kind.

use serde_json::{Value, json};

use super::*;
use crate::resource::derived_id;

const FILE: &str = "_format_version: '1'
mcp_auth_settings:
- anonymous: {api_key: guest, source_cidrs: [10.0.0.0/8], servers: [docs]}
passthrough_routes:
- {display_name: hooks, path_prefix: /hooks, target_url: 'https://hooks.example', provider_key: k, auth_mode: anonymous, anonymous_key: guest, source_cidrs: [10.0.0.0/8]}
claim_mappings:
- {name: staff, jwt_provider: idp, match: [{claim: groups, op: contains, values: [staff]}], resolve: {api_key: guest}}
oidc_providers:
- {name: idp, issuer: 'https://idp.example', audiences: [gateway]}
rate_limit_policies:
- {name: per model, scope: model, scope_ref: m, window: hour, max_requests: 5}
- {name: per team, scope: team, scope_ref: m, window: hour, max_requests: 5}
- name: some
  limits: {rpm: 5}
  conditions:
  - {logic: or, children: [{dimension: api_key, operator: in, value: [guest]}, {dimension: model_name, operator: '==', value: m}]}
observability_exporters:
- {name: otel, kind: otlp_http, endpoint: 'https://otel.example'}
cache_policies:
- {name: guests, applies_to: 'api_key:guest'}
a2a_agents:
- {name: helper, url: 'https://agent.example'}
mcp_policies:
- {scope: env, allow: ['docs__*']}
mcp_servers:
- {name: docs, url: 'https://docs.example/mcp'}
guardrail_attachments:
- {guardrail: words, scope_type: model, scope: m, priority: 1}
- {guardrail: words, scope_type: env, priority: 0}
guardrails:
- {name: words, kind: keyword, patterns: [{kind: literal, value: secret}]}
api_keys:
- {display_name: guest, key_env: KEY, allowed_models: [m], allowed_routes: [hooks]}
models:
- {display_name: m, provider: openai, model_name: u, provider_key: k}
- {display_name: g, routing: {targets: [{model: m}]}}
provider_keys:
- {display_name: k, api_key: sk, provider: openai}
";

fn document<'l>(loaded: &'l Loaded, kind: &str, index: usize) -> &'l Value {
    let mut of_kind = loaded.documents.iter().filter(|document| document.kind.name == kind);
    &of_kind.nth(index).unwrap_or_else(|| panic!("{kind}[{index}]")).value
}

#[test]
fn names_stand_for_ids_in_every_kind() {
    let loaded = loaded(FILE);
    assert_eq!(loaded.count, loaded.documents.len());
    assert_eq!(loaded.count, loaded.set.len());
    let kinds: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
    let mut found: Vec<_> = loaded.documents.iter().map(|document| document.kind.name).collect();
    found.dedup();
    assert_eq!(found, kinds, "the order of the kinds, every one");
    let (key, guest, model) =
        (derived_id("provider_keys", "k"), derived_id("api_keys", "guest"), derived_id("models", "m"));
    let words = derived_id("guardrails", "words");
    let cases = [
        ("models", 0, "/provider_key_id", &key),
        ("passthrough_routes", 0, "/provider_key_id", &key),
        ("passthrough_routes", 0, "/anonymous_key_id", &guest),
        ("claim_mappings", 0, "/resolve/api_key_id", &guest),
        ("mcp_auth_settings", 0, "/anonymous/api_key_id", &guest),
        ("guardrail_attachments", 0, "/guardrail_id", &words),
        ("guardrail_attachments", 0, "/scope_id", &model),
        ("rate_limit_policies", 0, "/scope_ref", &model),
        ("rate_limit_policies", 1, "/scope_ref", &"m".to_owned()),
        ("rate_limit_policies", 2, "/conditions/0/children/0/value/0", &guest),
        ("rate_limit_policies", 2, "/conditions/0/children/1/value", &"m".to_owned()),
        ("cache_policies", 0, "/applies_to", &format!("api_key:{guest}")),
        ("passthrough_routes", 0, "/name", &"hooks".to_owned()),
        ("api_keys", 0, "/display_name", &"guest".to_owned()),
    ];
    for (kind, index, pointer, expected) in cases {
        let found = document(&loaded, kind, index).pointer(pointer);
        assert_eq!(found, Some(&json!(expected)), "{kind}[{index}]{pointer}");
    }
    for document in &loaded.documents {
        let identity = document.identity().expect("a name");
        assert_eq!(document.id, derived_id(document.kind.name, &identity), "{document:?}");
    }
}

/// Ids of this file are as good as its names.
#[test]
fn made_ids_may_be_written() {
    let (guest, model) = (derived_id("api_keys", "guest"), derived_id("models", "m"));
    let text = FILE
        .replace("resolve: {api_key: guest}", &format!("resolve: {{api_key_id: {guest}}}"))
        .replace("anonymous_key: guest", &format!("anonymous_key_id: {guest}"))
        .replace("scope_ref: m,", &format!("scope_ref: {model},"))
        .replace("scope: m,", &format!("scope_id: {model},"))
        .replace("value: [guest]", &format!("value: [{guest}]"))
        .replace("api_key:guest", &format!("api_key:{guest}"));
    let (written, named) = (loaded(&text), loaded(FILE));
    for (a, b) in written.documents.iter().zip(&named.documents) {
        if b.value["name"] != "per team" {
            assert_eq!(a.value, b.value);
        }
    }
}

#[test]
fn models_do_not_lead_back_to_themselves() {
    let text = "_format_version: '1'\nmodels:\n\
        - {display_name: a, routing: {targets: [{model: b}]}}\n\
        - {display_name: b, ensemble: {panel: [{model: c}], judge: {model: a}}}\n\
        - {display_name: c, routing: {targets: [{model: a}]}}\n";
    let errors = load_text(text, &|_| None).expect_err("a cycle").to_string();
    for told in [
        "`routing.targets[0].model` leads back to this model: a → b → a",
        "`ensemble.judge.model` leads back to this model: b → a → b",
        "`routing.targets[0].model` leads back to this model: c → a → b → c",
    ] {
        assert!(errors.contains(told), "{told} in {errors}");
    }
}

/// What is written in place of something in the file, and what is said.
#[test]
fn problems_of_every_kind() {
    let cases = [
        (
            "scope_ref: m, window: hour, max_requests: 5}\n- {name: per team",
            "scope_ref: x, window: hour, max_requests: 5}\n- {name: per team",
            "rate_limit_policies[0] (\"per model\"): `scope_ref` references unknown model \"x\" (defined models: m, g)",
        ),
        (
            "value: [guest]",
            "value: [guest, x]",
            "rate_limit_policies[2] (\"some\"): `conditions[0].children[0].value[1]` references unknown api key \"x\" (defined api_keys: guest)",
        ),
        (
            "resolve: {api_key: guest}",
            "resolve: {api_key: x}",
            "claim_mappings[0] (\"staff\"): `resolve.api_key` references unknown api key \"x\" (defined api_keys: guest)",
        ),
        (
            "resolve: {api_key: guest}",
            "resolve: {api_key: [x]}",
            "claim_mappings[0] (\"staff\"): `resolve.api_key` must be the name of an api key",
        ),
        (
            "resolve: {api_key: guest}",
            "resolve: {api_key: guest, api_key_id: x}",
            "claim_mappings[0] (\"staff\"): `resolve.api_key` and `resolve.api_key_id` are mutually exclusive",
        ),
        (
            "resolve: {api_key: guest}",
            "resolve: {api_key_id: x}",
            "claim_mappings[0] (\"staff\"): `resolve.api_key_id` references unknown api key: it must be the id made from a name of this file; write `api_key: <display_name>`",
        ),
        (
            "resolve: {api_key: guest}",
            "resolve: {api_key: '${GONE}'}",
            "claim_mappings[0] (\"staff\"): field `resolve.api_key`: environment variable `GONE` is unset or empty",
        ),
        (
            "jwt_provider: idp",
            "jwt_provider: x",
            "claim_mappings[0] (\"staff\"): `jwt_provider` references unknown oidc provider \"x\" (defined oidc_providers: idp)",
        ),
        (
            "{api_key: guest, source",
            "{api_key: x, source",
            "mcp_auth_settings[0] (\"mcp_auth_settings\"): `anonymous.api_key` references unknown api key \"x\" (defined api_keys: guest)",
        ),
        (
            "- anonymous:",
            "- {}\n- anonymous:",
            "mcp_auth_settings[1] (\"mcp_auth_settings\"): duplicate mcp_auth_settings entry: there is at most one, and mcp_auth_settings[0] is it",
        ),
        (
            "scope_type: model, scope: m,",
            "scope_type: model, scope: x,",
            "guardrail_attachments[0]: `scope` references unknown model \"x\" (defined models: m, g)",
        ),
        (
            "scope_type: model, scope: m,",
            "scope_type: model, scope: m, scope_id: m,",
            "guardrail_attachments[0]: `scope` and `scope_id` are mutually exclusive",
        ),
        (
            "guardrail: words, scope_type: model",
            "guardrail: x, scope_type: model",
            "guardrail_attachments[0]: `guardrail` references unknown guardrail \"x\" (defined guardrails: words)",
        ),
        (
            "- {scope: env, allow: ['docs__*']}",
            "- {scope: env, allow: ['docs__*']}\n- {scope: env, allow: []}",
            "mcp_policies[1] (\"env\"): duplicate mcp_policies entry: it is about the same as mcp_policies[0]",
        ),
        (
            "allowed_routes: [hooks]",
            "allowed_routes: [hooks, 'h*', x]",
            "api_keys[0] (\"guest\"): `allowed_routes[2]` references unknown passthrough route \"x\" (defined passthrough_routes: hooks)",
        ),
        (
            "targets: [{model: m}]",
            "targets: [{model: m}, {model: x}]",
            "models[1] (\"g\"): `routing.targets[1].model` references unknown model \"x\" (defined models: m, g)",
        ),
        (
            "key_env: KEY, allowed_models: [m]",
            "key_env: KEY, jwt_subject: s, allowed_models: [m]",
            "is set without jwt_provider",
        ),
        (
            "audiences: [gateway]}",
            "audiences: [gateway]}\n- {name: twin, issuer: 'https://idp.example', audiences: [x]}",
            "oidc_providers[1] (\"twin\"): duplicate enabled OIDC issuer: the same as oidc_providers[0]",
        ),
        ("issuer: 'https://idp.example'", "issuer: 'https://u:p@idp.example'", "must not embed credentials"),
        (
            "audiences: [gateway]}",
            "audiences: [gateway], jwks_uri: 'https://idp.example/jwks?token=x'}",
            "must not embed credentials",
        ),
        (
            "- anonymous:",
            "- resource_url: 'https://x.example/mcp?api_key=x'\n  anonymous:",
            "must not embed credentials",
        ),
        ("{name: words, kind", "{kind", "guardrails[0]: name is required and must be a non-empty string"),
    ];
    let lines = regex::Regex::new(r" at line \d+").unwrap();
    for (from, to, expected) in cases {
        assert!(FILE.contains(from), "{from}");
        let found = report(&FILE.replacen(from, to, 1));
        let found: Vec<_> = found.iter().map(|line| lines.replace(line, "")).collect();
        assert!(found.len() == 1 && found[0].contains(expected), "{to}\n{found:#?}\n{expected}");
    }
}

#[test]
fn keys_do_not_share_a_token() {
    let key = |name: &str, hash: &str, provider: &str, subject: &str| {
        let hash = hash.repeat(64);
        format!(
            "- {{display_name: {name}, key_hash: '{hash}', jwt_provider: {provider}, jwt_subject: {subject}, allowed_models: []}}\n"
        )
    };
    let keys =
        [key("a", "1", "p", "q"), key("b", "2", "p", "r"), key("c", "3", "pq", "x"), key("d", "4", "p", "q")];
    assert_eq!(
        report(&format!("_format_version: '1'\napi_keys:\n{}", keys.concat())),
        ["api_keys[3] (\"d\") at line 6: duplicate jwt binding: the same as api_keys[0]"]
    );
}

/// An id that nobody checks may name what is not there, and stays as it is.
#[test]
fn unchecked_references_are_kept() {
    let text = FILE.replace("api_key:guest", "api_key:elsewhere").replace("servers: [docs]", "servers: [x]");
    let loaded = loaded(&text);
    assert_eq!(document(&loaded, "cache_policies", 0)["applies_to"], "api_key:elsewhere");
    assert_eq!(document(&loaded, "mcp_auth_settings", 0)["anonymous"]["servers"], json!(["x"]));
}

/// Names of all sorts do not spoil the report.
#[test]
fn hostile_names_are_escaped() {
    let text = "_format_version: '1'
\"a\\u202e\\n\": 1
models:
- {display_name: \"m\\e[2J\", routing: {targets: [{model: \"x\\n\"}]}}
- {display_name: n, routing: {targets: [{model: 'y${A\u{7}}'}]}}
";
    let report = report(text).join("\n");
    let spoilt = |c: char| c != '\n' && c.is_control() || c == '\u{202e}';
    assert!(!report.contains(spoilt), "{report:?}");
    assert!(report.contains(r#"(defined models: "m\u{1b}[2J", n)"#), "{report}");
}

#[test]
fn a_text_needs_no_file() {
    let errors = load_text("_format_version: '2'\n", &env).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "resources: 1 error(s):\n  - (file): unrecognized _format_version \"2\" (supported: \"1\") (line 1)"
    );
    let loaded = load_text(FILE, &env).unwrap();
    assert_eq!(loaded.hash, hex(&Sha256::digest(FILE)));
}
