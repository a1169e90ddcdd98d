//! Tests of the resources file.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::Adapter;

mod kinds;

const HASH: &str = "1111111111111111111111111111111111111111111111111111111111111111";

fn env(name: &str) -> Option<String> {
    match name {
        "KEY" => Some("sk-from-env".into()),
        "HOST" => Some("api.example.com".into()),
        "RAW" => Some("${KEY}".into()),
        _ => None,
    }
}

/// A file with one provider key, one model and one caller key; `{k}`, `{m}` and
/// `{a}` are more fields of each.
fn file(k: &str, m: &str, a: &str) -> String {
    format!(
        "_format_version: '1'
provider_keys:
- {{display_name: k, api_key: sk, provider: openai, {k}}}
models:
- {{display_name: m, provider: openai, model_name: u, provider_key: k, {m}}}
api_keys:
- {{display_name: a, key_hash: '{HASH}', allowed_models: [m], {a}}}
"
    )
}

fn load(text: &str) -> Result<Loaded, Vec<Rejection>> {
    load_bytes(text.as_bytes(), &env)
}

fn good(text: &str) -> ResourceSet {
    loaded(text).set
}

fn loaded(text: &str) -> Loaded {
    load(text).unwrap_or_else(|rejections| panic!("{rejections:#?}"))
}

/// The report without its first line.
fn report(text: &str) -> Vec<String> {
    let rejections = load(text).expect_err("expected problems");
    let line = |r: &Rejection| format!("{}: {}", r.scope, r.message);
    rejections.iter().map(line).collect()
}

#[test]
fn a_complete_file() {
    let set = good(
        "_format_version: '1'
provider_keys:
- display_name: vendor
  secret: ${KEY}
  api_base: ' https://${HOST}/v1 '
  adapter: openai
  telemetry_tags: {featured: false}
  request:
    param_renames: {max_tokens: max_completion_tokens, a: a}
    param_constraints: {temperature_max: 1}
    default_headers: {X-Team: '$${request.api_key.team_id}'}
    forward_client_headers: [X-Foo-*]
    default_body_fields: {b: 1, a: [x]}
  response: {stream_done_marker: none, reasoning_field: delta.reasoning}
  strip_headers: [authorization, cookie, set-cookie, x-api-key]
  tls: {verify: false, ca_cert: ' '}
models:
- display_name: vendor/*
  provider: vendor
  model_name: '*'
  provider_key: vendor
  timeout: 0
  stream_timeout: 0
  retries: 3
  allowed_cidrs: [10.0.0.0/8, 192.168.1.1]
  cost: {input_per_1k: 0.5, output_per_1k: 1}
  cooldown: {default_seconds: 5}
api_keys:
- display_name: team
  key_env: KEY
  allowed_models: ['*']
  team_id: t
  user_id: null
  expires_at: 1970-01-01T00:01:00Z
  disabled: true
guardrails: []
mcp_servers:
",
    );
    assert_eq!((set.revision, set.len()), (1, 3));
    let key = &set.provider_keys()[0].value;
    assert_eq!(key.api_key.expose(), "sk-from-env");
    assert_eq!(key.api_base.as_deref(), Some("https://api.example.com/v1"));
    assert_eq!((key.provider.as_str(), key.adapter), ("", Some(Adapter::OpenAi)));
    let rename = ("max_tokens".to_owned(), "max_completion_tokens".to_owned());
    assert_eq!(key.request.param_renames, [rename]);
    assert_eq!(key.request.default_headers[0].0, "x-team");
    let header = key.request.default_headers[0].1.render(|_| Some("red"));
    assert_eq!(header.as_deref(), Some("red"));
    assert_eq!(key.request.forward_client_headers, ["x-foo-*"]);
    let fields: Vec<_> = key.request.default_body_fields.keys().collect();
    assert_eq!(fields, ["b", "a"]);
    assert_eq!(key.strip_headers, ["authorization", "cookie", "set-cookie", "x-api-key"]);
    let tls = key.tls.as_ref().unwrap();
    assert_eq!((tls.ca_cert.as_ref(), tls.verify), (None, false));
    let model = &set.models()[0].value;
    assert_eq!(&*set.provider_keys()[0].id, model.direct().unwrap().provider_key_id);
    assert_eq!(model.timeout, Some(Duration::ZERO));
    assert_eq!((model.stream_timeout, model.retries), (None, Some(3)));
    assert_eq!(model.allowed_cidrs.as_ref().unwrap()[1].to_string(), "192.168.1.1/32");
    assert_eq!(model.cooldown.default, Duration::from_secs(5));
    assert_eq!(model.cooldown.trigger_statuses.len(), 7);
    let caller = &set.api_keys()[0].value;
    assert_eq!(caller.key_hash, hex(&Sha256::digest("sk-from-env")));
    assert_eq!(caller.display_name.as_deref(), Some("team"));
    assert_eq!(caller.user_id, None);
    let expiry = std::time::UNIX_EPOCH + Duration::from_secs(60);
    assert_eq!((caller.expires_at, caller.disabled), (Some(expiry), true));
}

#[test]
fn documents_are_canonical_and_masked() {
    let set = good(&file(
        "request: {default_headers: {x-a: sk-2}, default_body_fields: {f: sk-3, n: 1}}",
        "timeout: 5",
        "",
    ));
    assert_eq!(
        *set.provider_keys()[0].document,
        serde_json::json!({
            "display_name": "k", "api_key": "***", "provider": "openai",
            "telemetry_tags": {"featured": false},
            "request": {"default_headers": {"x-a": "***"}, "default_body_fields": {"f": "***", "n": 1}},
            "strip_headers": ["authorization", "cookie", "set-cookie", "x-api-key"],
        })
    );
    assert_eq!(set.models()[0].document["provider_key_id"], *set.provider_keys()[0].id);
    assert_eq!(set.api_keys()[0].document["key_hash"], HASH);
    assert!(!format!("{set:?}").contains("sk-"), "{set:?}");
}

#[test]
fn problems_of_the_file() {
    let cases = [
        ("", "(file): file is empty"),
        ("# nothing\n", "(file): file is empty"),
        ("~\n", "(file): file is empty"),
        ("- a\n", "(file): top level must be a mapping"),
        ("_format_version: '1'\n---\na: 1\n", "(file): expected a single YAML document, found 2"),
        ("models: []\n", "(file): missing mandatory _format_version (write `_format_version: \"1\"`)"),
        ("_format_version: '2'\n", "(file): unrecognized _format_version \"2\" (supported: \"1\") (line 1)"),
        ("_format_version: 1\n", "(file): _format_version must be the string \"1\" (quote it) (line 1)"),
        ("_format_version: '1'\nmodels: {}\n", "(file): `models` must be a sequence of maps (line 2)"),
        ("_format_version: '1'\nguardrails: 1\n", "(file): `guardrails` must be a sequence of maps (line 2)"),
        ("_format_version: '1'\nmodels: [x]\n", "models[0] at line 2: entry must be a mapping"),
        ("_format_version: '1'\napi_keys: [x]\n", "api_keys[0] at line 2: entry must be a mapping"),
    ];
    for (text, expected) in cases {
        assert_eq!(report(text), [expected], "{text:?}");
    }
    let syntax = report("_format_version: '1'\nmodels: [\n");
    assert!(syntax[0].starts_with("(file): YAML parse error: "), "{syntax:?}");
    assert!(syntax[0].contains(" at byte ") && syntax[0].contains(" line "), "{syntax:?}");
    let unknown = report("_format_version: '1'\nmodel: []\n");
    assert!(
        unknown[0].starts_with("(file): unknown top-level key `model` (collections: provider_keys, models, "),
        "{unknown:?}"
    );
    let bytes = load_bytes(b"a: \xff", &env).unwrap_err();
    assert_eq!(bytes[0].message, "YAML parse error: not UTF-8 at byte 3");
    good("_format_version: '1'\n");
}

/// Field of the provider key, model or caller key that is wrong, and the message.
#[test]
fn problems_of_one_entry() {
    let at = "schema validation failed at";
    let keys: &[(&str, String)] = &[
        (
            "api_base: example.com",
            format!("{at} `/api_base`: invalid URL: expected http:// or https:// with a host"),
        ),
        (
            "adapter: x",
            format!(
                "{at} `/adapter`: value is not one of \"openai\", \"anthropic\", \"bedrock\", \"vertex\" or \"azure-openai\""
            ),
        ),
        ("secret: other", "cannot decode canonical document: duplicate field `api_key` at ``".into()),
        ("timeot: 1", format!("{at} ``: Additional properties are not allowed ('timeot' was unexpected)")),
        ("strip_headers: null", format!("{at} `/strip_headers`: value is not of type \"array\"")),
        (
            "request: {default_headers: {Authorization: x}}",
            format!("{at} `/request/default_headers/Authorization`: is a header that settings may not touch"),
        ),
        (
            "request: {default_headers: {x-a: x, X-A: y}}",
            format!("{at} `/request/default_headers/X-A`: is given twice; header names ignore case"),
        ),
        (
            "request: {default_body_fields: {stream: true}}",
            format!(
                "{at} `/request/default_body_fields/stream`: is set by the gateway or the caller on every request"
            ),
        ),
        (
            "request: {param_renames: {engine: model, stream: stream}}",
            format!(
                "{at} `/request/param_renames/engine`: the gateway sets `model` itself, so nothing can be renamed to it"
            ),
        ),
        (
            "request: {default_headers: {x-a: \"a\\nb\"}}",
            format!("{at} `/request/default_headers/x-a`: value is not a legal header value"),
        ),
        (
            "request: {default_headers: {x-a: '${request.id}'}}",
            "field `request.default_headers.x-a`: environment variable `request.id` is unset or empty".into(),
        ),
        (
            "request: {default_headers: {x-a: '$${request'}}",
            format!("{at} `/request/default_headers/x-a`: unterminated `${{` in a header template"),
        ),
        (
            "request: {forward_client_headers: ['a*b*']}",
            format!(
                "{at} `/request/forward_client_headers/0`: value has more than one `*` and would match nothing"
            ),
        ),
        ("tls: {ca_cert: no pem}", format!("{at} `/tls/ca_cert`: value contains no CERTIFICATE block")),
        ("id: x", "the resources file does not accept `id` (ids are made from names)".into()),
        (
            "response: {reasoning_field: reasoning}",
            format!("{at} `/response/reasoning_field`: value is not a path such as delta.reasoning"),
        ),
    ];
    for (field, expected) in keys {
        let expected = format!("provider_keys[0] (\"k\") at line 3: {expected}");
        assert_eq!(report(&file(field, "", "")), [expected]);
    }
    let models: &[(&str, String)] = &[
        ("timeout: soon", format!("{at} `/timeout`: value is not of type \"integer\"")),
        ("timeout: null", format!("{at} `/timeout`: value is not of type \"integer\"")),
        (
            "timeout: 3.0",
            "cannot decode canonical document: expected an integer, written without a fraction at `/timeout`"
                .into(),
        ),
        (
            "retries: 4294967296",
            "cannot decode canonical document: the number is greater than 4294967295 at `/retries`".into(),
        ),
        (
            "allowed_cidrs: [10.0.0.0/33]",
            format!(
                "{at} `/allowed_cidrs/0`: invalid CIDR/IP: expected an address or a network such as 10.0.0.0/8"
            ),
        ),
        (
            "cost: {input_per_1k: -1, output_per_1k: 0}",
            format!("{at} `/cost/input_per_1k`: value is less than the minimum of 0.0"),
        ),
        ("cost: {input_per_1k: 1}", format!("{at} `/cost`: \"output_per_1k\" is a required property")),
        (
            "cooldown: {trigger_statuses: [99]}",
            format!("{at} `/cooldown/trigger_statuses/0`: value is less than the minimum of 100.0"),
        ),
        ("provider_key_id: x", "`provider_key` and `provider_key_id` are mutually exclusive".into()),
    ];
    for (field, expected) in models {
        let expected = format!("models[0] (\"m\") at line 5: {expected}");
        assert_eq!(report(&file("", field, "")), [expected]);
    }
    let callers: &[(&str, String)] = &[
        ("key_env: KEY", "`key_env` and `key_hash` are mutually exclusive".into()),
        (
            "expires_at: tomorrow",
            format!("{at} `/expires_at`: value is not a \"date-time\" (RFC 3339 with zone)"),
        ),
        ("team_id: ''", format!("{at} `/team_id`: value is shorter than 1 character")),
    ];
    for (field, expected) in callers {
        let expected = format!("api_keys[0] (\"a\") at line 7: {expected}");
        assert_eq!(report(&file("", "", field)), [expected]);
    }
}

#[test]
fn what_has_no_effect_yet_is_counted() {
    let off = loaded(&file(
        "telemetry_tags: {}, strip_headers: [authorization, cookie, set-cookie, x-api-key]",
        "rate_limit: {}, auto_prompt_caching: {enabled: false}, background_model_check: {enabled: false, interval_seconds: 5, timeout_seconds: 1, prompt: x, max_tokens: 1, stale_after_seconds: 1}",
        "rate_limit: {rpm: null}, jwt_subject: null, mcp_access: {allow: []}, mcp_rate_limits: {}, allowed_agents: [], allowed_routes: null",
    ));
    assert_eq!(off.unenforced, BTreeMap::new());
    assert_eq!(unenforced_note(&off), None);
    let on = file("", "rate_limit: {rpm: 0}, auto_prompt_caching: {enabled: true}", "rate_limit: {tpm: 1}");
    let on = loaded(&format!("{on}cache_policies: [{{name: x}}, {{name: y, enabled: false}}]\n"));
    assert_eq!(
        unenforced_note(&on).as_deref(),
        Some(
            "note: accepted but not enforced yet: models.auto_prompt_caching (1), models.rate_limit (1), \
             api_keys.rate_limit (1), cache_policies (2)"
        )
    );
}

#[test]
fn wildcards_have_one_star() {
    let text = file("", "", "").replace("display_name: m,", "display_name: 'a*b*',");
    let text = text.replace("allowed_models: [m]", "allowed_models: ['*-*']");
    assert_eq!(
        report(&text),
        [
            "models[0] (\"a*b*\") at line 5: schema validation failed at `/display_name`: value has more than one `*` and would match nothing",
            "api_keys[0] (\"a\") at line 7: schema validation failed at `/allowed_models/0`: value has more than one `*` and would match nothing",
        ]
    );
}

#[test]
fn key_hashes_are_checked() {
    for bad in ["abc", &"A".repeat(64)] {
        let text = file("", "", "").replace(HASH, bad);
        let expected = "api_keys[0] (\"a\") at line 7: schema validation failed at `/key_hash`: value is not a SHA-256 in 64 lower-case hexadecimal digits";
        assert_eq!(report(&text), [expected]);
    }
    let cases = [
        ("key_env: GONE", "field `key_env`: environment variable `GONE` is unset or empty"),
        ("key_env: RAW", "field `key_env`: environment variable `RAW` holds an uninterpolated `${`"),
        ("key_env: sk-123", "field `key_env`: the environment variable that it names is unset or empty"),
        ("key_env: ''", "`key_env` must be the name of an environment variable"),
        ("key_env: [x]", "`key_env` must be the name of an environment variable"),
        ("team_id: t", "`key_env` or `key_hash` is required"),
        ("key_env: '${GONE}'", "field `key_env`: environment variable `GONE` is unset or empty"),
        ("key_hash: '${GONE}'", "field `key_hash`: environment variable `GONE` is unset or empty"),
    ];
    for (field, expected) in cases {
        let text = file("", "", "").replace(&format!("key_hash: '{HASH}'"), field);
        assert_eq!(report(&text), [format!("api_keys[0] (\"a\") at line 7: {expected}")], "{field}");
    }
}

#[test]
fn references() {
    let key = |text: &str| file("", "", "").replace("provider_key: k", text);
    let start = "models[0] (\"m\") at line 5: ";
    let cases = [
        (
            "provider_key: x",
            "`provider_key` references unknown provider key \"x\" (defined provider_keys: k)",
        ),
        ("provider_key: 1", "`provider_key` must be the name of a provider key"),
        ("retries: 1", "schema validation failed at ``: \"provider_key_id\" is a required property"),
        (
            "provider_key_id: sk",
            "`provider_key_id` references unknown provider key: it must be the id made from a name of this file; write `provider_key: <display_name>`",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(report(&key(text)), [format!("{start}{expected}")]);
    }
    let id = crate::resource::derived_id("provider_keys", "k");
    good(&key(&format!("provider_key_id: {id}")));
    let none =
        "_format_version: '1'\nmodels:\n- {display_name: m, provider: p, model_name: u, provider_key: k}\n";
    assert!(
        report(none)[0].ends_with("unknown provider key \"k\" (no provider_keys are defined in this file)")
    );
    let models = file("", "", "").replace("[m]", "[m, gone, 'x-*']");
    assert_eq!(
        report(&models),
        [
            "api_keys[0] (\"a\") at line 7: `allowed_models[1]` references unknown model \"gone\" (defined models: m)"
        ]
    );
}

#[test]
fn a_faulty_entry_does_not_make_others_faulty() {
    let broken = file("api_base: '${GONE}', request: 1", "timeout: x", "");
    assert_eq!(
        report(&broken),
        [
            "provider_keys[0] (\"k\") at line 3: field `api_base`: environment variable `GONE` is unset or empty; schema validation failed at `/request`: value is not of type \"object\"",
            "models[0] (\"m\") at line 5: schema validation failed at `/timeout`: value is not of type \"integer\"",
        ]
    );
    let nameless = file("", "", "").replace("display_name: k", "display_name: '${GONE}'");
    assert_eq!(
        report(&nameless),
        ["provider_keys[0] at line 3: field `display_name`: environment variable `GONE` is unset or empty"]
    );
    let nameless = file("", "", "").replace("display_name: m,", "");
    assert_eq!(
        report(&nameless),
        ["models[0] at line 5: display_name is required and must be a non-empty string"]
    );
}

#[test]
fn duplicates() {
    let entry = format!("- {{display_name: a, key_hash: '{HASH}', allowed_models: []}}\n");
    let text = format!("_format_version: '1'\napi_keys:\n{entry}{entry}");
    assert_eq!(
        report(&text),
        [
            "api_keys[1] (\"a\") at line 4: duplicate api_keys entry: display_name \"a\" is already defined at api_keys[0]; duplicate api key credential: the same key as api_keys[0]"
        ]
    );
}

/// The golden report: what a user sees.
#[test]
fn the_report() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.yaml");
    let text = format!(
        "_format_version: '1'
modles: []
provider_keys:
  - display_name: openai
    provider: openai
    api_key: ${{OPENAI_API_KEY}}
models:
  - display_name: gpt-4o
    provider: openai
    provider_key: opneai
    timeout: soon
api_keys:
  - display_name: team
    key_hash: '{HASH}'
    allowed_models: [gpt-4]
  - display_name: team
    key_env: TEAM_KEY
    allowed_models: []
"
    );
    std::fs::write(&path, text).unwrap();
    let errors = load_resources(&path, &|_| None).unwrap_err();
    assert_eq!(errors.count(), 5);
    let collections = KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
    let expected = format!(
        r#"resources file {}: 5 error(s):
  - (file): unknown top-level key `modles` (collections: {collections}) (line 2)
  - provider_keys[0] ("openai") at line 4: field `api_key`: environment variable `OPENAI_API_KEY` is unset or empty
  - models[0] ("gpt-4o") at line 8: `provider_key` references unknown provider key "opneai" (defined provider_keys: openai); schema validation failed at ``: "model_name" is a required property; schema validation failed at `/timeout`: value is not of type "integer" (line 11)
  - api_keys[0] ("team") at line 13: `allowed_models[0]` references unknown model "gpt-4" (defined models: gpt-4o)
  - api_keys[1] ("team") at line 16: duplicate api_keys entry: display_name "team" is already defined at api_keys[0]; field `key_env`: environment variable `TEAM_KEY` is unset or empty"#,
        path.display()
    );
    assert_eq!(errors.to_string(), expected);
    let gone = load_resources(&dir.path().join("gone"), &|_| None).unwrap_err();
    assert!(gone.to_string().contains("\n  - (file): cannot read file: "), "{gone}");
}

#[test]
fn the_examples_are_in_order() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/");
    let path = |name: &str| std::path::PathBuf::from(format!("{dir}{name}"));
    let set = load_resources(&path("resources.yaml"), &|name| Some(format!("value of {name}")));
    assert!(set.unwrap().count >= 6);
    for name in ["config.yaml", "minimal.yaml"] {
        let config = crate::load_process_config(Some(&path(name)), &[]).unwrap();
        let crate::process::Source::File(resources) = &config.source else {
            panic!("{name} names a file");
        };
        let resources = resources.strip_prefix("examples").unwrap();
        assert!(path(resources.to_str().unwrap()).exists());
    }
    let minimal = std::fs::read_to_string(path("minimal.yaml")).unwrap();
    assert_eq!(minimal.lines().count(), 3);
}

/// Places where a secret may stand, each a whole document with `@` for it.
const PLACES: [&str; 12] = [
    "provider_keys: [{display_name: k, api_key: '@', timeot: 1}]",
    "provider_keys: [{display_name: k, api_key: ['@']}]",
    "provider_keys: [{display_name: k, api_key: x, api_base: '@'}]",
    "provider_keys: [{display_name: k, api_key: x, provider: ['@'], adapter: '@', tls: {ca_cert: '@', verify: '@'}}]",
    "provider_keys: [{display_name: k, api_key: x, request: {default_headers: {x-a: '@${nope}', host: '@', x-b: \"@\\n\"}}}]",
    "provider_keys: [{display_name: k, api_key: x, request: {default_body_fields: '@', param_renames: {a: ['@']}}}]",
    "provider_keys: [{display_name: k, secret: '@', api_key: '@'}]",
    "models: [{display_name: m, provider: '@-', model_name: ['@'], provider_key_id: '@', timeout: '@', allowed_cidrs: ['@']}]",
    "api_keys: [{display_name: a, key_hash: '@', allowed_models: '@', expires_at: '@', disabled: '@'}]",
    "api_keys: [{display_name: a, key_env: '@-9z', allowed_models: []}]",
    "provider_keys: '@'",
    "provider_keys: [{display_name: k, api_key: '@}, [",
];

proptest! {
    #[test]
    fn no_report_quotes_a_secret(place in 0..PLACES.len(), secret in "Qz[A-Za-z0-9]{12}[-_./+=:]{0,2}[A-Za-z0-9]{4}") {
        let text = PLACES[place].replace('@', &secret);
        let rejections = load(&format!("_format_version: '1'\n{text}\n")).expect_err("refused");
        for rejection in rejections {
            let shown = format!("{}: {}", rejection.scope, rejection.message);
            prop_assert!(!shown.contains(&secret), "{shown}");
            prop_assert!(!shown.contains(&secret[..8]), "{shown}");
        }
    }

    #[test]
    fn no_text_breaks_the_loader(text in "(?s)[ -~\n]{0,200}") {
        // Any outcome but a panic.
        let _ = load(&text);
        let _ = load(&format!("_format_version: '1'\nmodels:\n- {text}\n"));
    }
}
