//! Routes that hand requests through to any HTTP service.

use serde_json::Value;

use super::rule::Review;
use super::{Identity, Ref, ResourceKind};
use crate::schema::{Fields, Format, Kind, List, Problem, def, opt, req};
use crate::tree::Node;

pub(crate) static KIND: ResourceKind = ResourceKind {
    refs: &[
        Ref::id("provider_key_id", "provider_keys", "provider_key"),
        Ref::id("anonymous_key_id", "api_keys", "anonymous_key"),
    ],
    rules,
    schema: SCHEMA,
    ..ResourceKind::new(
        "passthrough_routes",
        "passthrough route",
        "Routes that hand requests through to any HTTP service.",
        Kind::Object(TABLE),
        Identity::Field("name"),
    )
};

const HEADER: Kind = Kind::text(0, Format::OwnHeader);

const TABLE: Fields = &[
    req("name", Kind::LABEL, "Unique name; keys allow routes by it.").alias("display_name"),
    opt("path_prefix", Kind::text(0, Format::Prefix), "Paths that it takes, by whole segments."),
    opt(
        "hosts",
        Kind::List(&List::at_least(Kind::text(0, Format::HostPattern), 1)),
        "Hosts that it takes: names, or `*.` and a domain.",
    ),
    opt("target_url", Kind::text(0, Format::Http), "Where requests go, without the prefix."),
    def("preserve_host", Kind::Bool, "false", "Requests go to the host they name, instead of `target_url`."),
    def(
        "auth_mode",
        Kind::Enum(&["gateway_key", "header_key", "anonymous"]),
        r#""gateway_key""#,
        "Where the caller key is: in the usual headers, in `auth_header_name`, or nowhere.",
    ),
    opt("auth_header_name", HEADER, "For `auth_mode: header_key`; lower case."),
    opt(
        "anonymous_key_id",
        Kind::NAME,
        "Id of the key that callers count as, for `auth_mode: anonymous`. In a resources file write `anonymous_key: <display_name>` instead.",
    )
    .nullable(),
    opt(
        "source_cidrs",
        Kind::List(&List::of(Kind::text(0, Format::Net))),
        "Networks that clients must come from; required for `auth_mode: anonymous`.",
    )
    .nullable(),
    def(
        "credential_mode",
        Kind::Enum(&["inject", "forward_client"]),
        r#""inject""#,
        "Whose credential goes upstream: that of a provider key, or the client's.",
    ),
    opt(
        "provider_key_id",
        Kind::NAME,
        "Id of the provider key, for `credential_mode: inject`. In a resources file write `provider_key: <display_name>` instead.",
    )
    .nullable(),
    opt("identity_header", HEADER, "Header that tells the upstream who calls; lower case."),
    opt("timeout_ms", Kind::int(1, u64::MAX), "Limit for a request. Default: that of the deployment.").nullable(),
    def("enabled", Kind::Bool, "true", "false = as if it were not there."),
];

/// Paths that belong to the gateway on its own hosts.
const RESERVED: [&str; 7] = ["/v1", "/mcp", "/a2a", "/admin", "/livez", "/readyz", "/metrics"];

const SCHEMA: &str = r#"[
    {"anyOf": [{"required": ["path_prefix"]}, {"required": ["hosts"]}]},
    {
        "if": {"required": ["preserve_host"], "properties": {"preserve_host": {"const": true}}},
        "then": {"required": ["hosts"], "properties": {"target_url": false}},
        "else": {"required": ["target_url"]}
    },
    {
        "if": {"required": ["auth_mode"], "properties": {"auth_mode": {"const": "header_key"}}},
        "then": {"required": ["auth_header_name"]},
        "else": {"properties": {"auth_header_name": false}}
    },
    {
        "if": {"required": ["auth_mode"], "properties": {"auth_mode": {"const": "anonymous"}}},
        "then": {"required": ["anonymous_key_id", "source_cidrs"], "properties": {
            "anonymous_key_id": {"type": "string"}, "source_cidrs": {"type": "array", "minItems": 1}
        }},
        "else": {"properties": {"anonymous_key_id": {"type": "null"}}}
    },
    {
        "if": {"required": ["credential_mode"], "properties": {"credential_mode": {"const": "forward_client"}}},
        "then": {"properties": {"provider_key_id": {"type": "null"}}},
        "else": {"required": ["provider_key_id"], "properties": {"provider_key_id": {"type": "string"}}}
    },
    {
        "if": {"not": {"required": ["hosts"]}},
        "then": {"properties": {"path_prefix": {
            "not": {"pattern": "^/(v1|mcp|a2a|admin|livez|readyz|metrics)(/|$)"}
        }}}
    }
]"#;

fn rules(node: &Node, document: &Value, problems: &mut Vec<Problem>) {
    let mut review = Review::new(node, problems);
    let hosts = review.has("hosts");
    match review.text("path_prefix") {
        None if !hosts && !review.has("path_prefix") => {
            review.refuse("", "`path_prefix` or `hosts` is required");
        }
        Some(prefix) if !hosts && RESERVED.iter().any(|own| below(own, prefix)) => {
            review.refuse("path_prefix", "is a path of the gateway itself; it takes `hosts` beside it");
        }
        _ => {}
    }
    match (&document["preserve_host"], review.has("target_url")) {
        (Value::Bool(true), true) => {
            review.refuse("target_url", "cannot stand beside `preserve_host: true`");
        }
        (Value::Bool(false), false) => {
            review.refuse("", "exactly one of `target_url` and `preserve_host: true` is required");
        }
        _ => {}
    }
    if document["preserve_host"] == true && !hosts {
        review.refuse("preserve_host", "requires `hosts`");
    }
    if review.text("target_url").is_some_and(|url| Format::Http.check(url).is_ok()) {
        review.advise_format("target_url", Format::FullUrl);
    }
    let auth = document["auth_mode"].as_str();
    review.companion("auth_header_name", auth, "auth_mode", "header_key");
    review.companion("anonymous_key_id", auth, "auth_mode", "anonymous");
    if auth == Some("anonymous") {
        review.require("source_cidrs");
        if review.node().get("source_cidrs").and_then(Node::as_seq).is_some_and(<[_]>::is_empty) {
            review.refuse("source_cidrs", "must not be empty with `auth_mode: anonymous`");
        }
    }
    review.companion("provider_key_id", document["credential_mode"].as_str(), "credential_mode", "inject");
}

/// Whether a path is another one or below it.
fn below(own: &str, path: &str) -> bool {
    path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
