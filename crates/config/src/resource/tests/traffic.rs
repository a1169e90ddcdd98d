//! Documents of the kinds about traffic: cache, limits, exporters, routes.

use super::{Cases, both, told};

pub(super) const CASES: &[Cases] = &[
    Cases {
        kind: "cache_policies",
        minimal: r#"{"name": "c"}"#,
        full: &[r#"{
            "name": "c", "enabled": false, "backend": "redis", "ttl_seconds": 604800, "applies_to": "model:acme/m",
            "scope": "env", "purge_generation": 3,
            "semantic": {"embedding_model": "e", "threshold": 0.9, "max_entries": 10, "embedding_timeout_ms": 5}
        }"#],
        nullable: &[],
        bad: &[
            both(0, r#"{"name": ""}"#, "`/name`: value is shorter than 1 character"),
            both(0, r#"{"ttl_seconds": 0}"#, "`/ttl_seconds`: value is less than the minimum of 1.0"),
            both(0, r#"{"ttl_seconds": 604801}"#, "`/ttl_seconds`: value is greater than the maximum of 604800.0"),
            both(0, r#"{"backend": "disk"}"#, r#"`/backend`: value is not one of "memory" or "redis""#),
            told(
                0,
                r#"{"applies_to": "modle:x"}"#,
                "`/applies_to`: value is not `all`, `model:<name>` or `api_key:<id>`; it would act as `all`",
            ),
            told(
                0,
                r#"{"applies_to": "api_key:"}"#,
                "`/applies_to`: value is not `all`, `model:<name>` or `api_key:<id>`; it would act as `all`",
            ),
            told(
                0,
                r#"{"ttl_second": 1}"#,
                "``: Additional properties are not allowed ('ttl_second' was unexpected), did you mean `ttl_seconds`?",
            ),
            both(0, r#"{"semantic": {"threshold": null}}"#, r#"`/semantic`: "threshold" is a required property"#),
            both(0, r#"{"semantic": {"max_entries": 0}}"#, "`/semantic/max_entries`: value is less than the minimum of 1.0"),
        ],
    },
    Cases {
        kind: "observability_exporters",
        minimal: r#"{"name": "e", "kind": "otlp_http", "endpoint": "https://x.example"}"#,
        full: &[
            r#"{
                "name": "e", "kind": "otlp_http", "enabled": false, "endpoint": "http://otel-collector:4318/v1/traces",
                "headers": {"x-key": "s3cret"}, "sample_rate": 0.5, "content_mode": "full", "content_max_bytes": 1
            }"#,
            r#"{
                "name": "e", "kind": "aliyun_sls", "endpoint": "cn-hangzhou.log.aliyuncs.com", "project": "p",
                "logstore": "l", "credential_ref": "r", "content_mode": "metadata_only", "content_max_bytes": 1048576
            }"#,
            r#"{
                "name": "e", "kind": "datadog", "site": "us5.datadoghq.com", "credential_ref": "r", "service": "s",
                "ddsource": "d", "tags": ["a:b"], "content_mode": "full", "content_max_bytes": 5
            }"#,
            r#"{
                "name": "e", "kind": "object_store", "provider": "s3", "bucket": "b", "prefix": "p", "region": "r",
                "endpoint": "http://minio:9000", "compression": "none", "auth_mode": "credential_ref",
                "credential_ref": "r"
            }"#,
        ],
        nullable: &[],
        bad: &[
            both(
                0,
                r#"{"kind": "kafka"}"#,
                r#"`/kind`: value is not one of "otlp_http", "aliyun_sls", "datadog" or "object_store""#,
            ),
            both(
                0,
                r#"{"endpoint": "http://x.example"}"#,
                "`/endpoint`: value is not https://..., nor http:// to mock-otlp, otel-collector, 127.0.0.1 or localhost",
            ),
            told(0, r#"{"endpoint": "https://u:p@x.example"}"#, "`/endpoint`: invalid URL: it must not embed credentials").beyond(),
            both(0, r#"{"headers": {"x": 1}}"#, "`/headers/x`: value is not of type \"string\""),
            told(0, r#"{"headers": {"a b": "x"}}"#, "`/headers/a b`: is not a legal header name"),
            told(0, r#"{"headers": {"a": "x\ny"}}"#, "`/headers/a`: value is not a legal header value"),
            both(0, r#"{"sample_rate": 1.5}"#, "`/sample_rate`: value is greater than the maximum of 1.0"),
            both(0, r#"{"content_mode": "all"}"#, r#"`/content_mode`: value is not one of "metadata_only" or "full""#),
            both(0, r#"{"content_max_bytes": 1048577}"#, "`/content_max_bytes`: value is greater than the maximum of 1048576.0"),
            both(
                1,
                r#"{"endpoint": "https://cn-hangzhou.log.aliyuncs.com"}"#,
                "`/endpoint`: value is not a host under aliyuncs.com in lower case, without a scheme",
            )
            .beyond(),
            told(
                1,
                r#"{"access_key_secret": "x"}"#,
                "``: Additional properties are not allowed ('access_key_secret' was unexpected)",
            ),
            both(2, r#"{"site": "example.com"}"#, "`/site`: value is not a site of Datadog, such as datadoghq.com").beyond(),
            both(3, r#"{"credential_ref": null}"#, r#"``: "credential_ref" is a required property"#),
            both(
                3,
                r#"{"provider": "azure_blob", "auth_mode": "cloud_identity"}"#,
                "`/auth_mode`: `cloud_identity` is for `s3` and `gcs` only",
            ),
            told(
                3,
                r#"{"content_mode": "full"}"#,
                "``: Additional properties are not allowed ('content_mode' was unexpected)",
            ),
        ],
    },
    Cases {
        kind: "rate_limit_policies",
        minimal: r#"{"name": "p", "limits": {"rpm": 5}}"#,
        full: &[
            r#"{
                "name": "p", "scope": "model", "scope_ref": "m", "window": "minute", "max_requests": 1, "max_tokens": 2,
                "schedules": [{
                    "timezone": "Europe/Berlin", "start_time": "22:00", "end_time": "06:00", "days_of_week": ["mon", "sun"]
                }]
            }"#,
            r#"{
                "name": "p", "limits": {"rpm": 0, "tpd": 5}, "group_by": ["team", "model"], "action": "reject",
                "conditions": [
                    {"dimension": "api_key", "operator": "in", "value": ["k"], "negate": true},
                    {"logic": "or", "negate": true, "children": [
                        {"dimension": "provider", "operator": "~*", "value": "^open"},
                        {"logic": "and", "children": [{"dimension": "team", "operator": "~=", "value": "t"}]}
                    ]}
                ],
                "schedules": [{
                    "timezone": "UTC", "start_time": "00:00", "end_time": "24:00", "dates": ["2028-02-29"]
                }]
            }"#,
        ],
        nullable: &[],
        bad: &[
            both(
                0,
                r#"{"limits": {"rpm": 1}}"#,
                "``: policy mixes the classic (`scope`, `scope_ref`, `window`, `max_requests`, `max_tokens`) and the conditional (`limits`, `conditions`, `group_by`, `action`) form",
            ),
            both(0, r#"{"scope_ref": null}"#, r#"``: "scope_ref" is a required property"#),
            both(0, r#"{"window": "week"}"#, r#"`/window`: value is not one of "second", "minute", "hour" or "day""#),
            both(
                0,
                r#"{"max_requests": null, "max_tokens": null}"#,
                "``: one of `max_requests` and `max_tokens` is required",
            ),
            both(0, r#"{"max_requests": 0}"#, "`/max_requests`: value is less than the minimum of 1.0"),
            told(
                0,
                r#"{"window": "hour"}"#,
                "`/max_tokens`: has an effect with `window: minute` and `window: day` only",
            ),
            told(
                0,
                r#"{"schedules": [{"timezone": "Mars/Olympus", "start_time": "22:00", "end_time": "06:00", "days_of_week": ["mon"]}]}"#,
                "`/schedules/0/timezone`: value is not an IANA time zone, such as Europe/Berlin",
            )
            .beyond(),
            both(
                0,
                r#"{"schedules": [{"timezone": "UTC", "start_time": "24:00", "end_time": "06:00", "days_of_week": ["mon"]}]}"#,
                "`/schedules/0/start_time`: value is not a time of day as HH:MM",
            ),
            both(
                0,
                r#"{"schedules": [{"timezone": "UTC", "start_time": "22:00", "end_time": "6:00", "dates": ["2028-02-28"]}]}"#,
                "`/schedules/0/end_time`: value is not a time of day as HH:MM, or 24:00",
            ),
            both(
                0,
                r#"{"schedules": [{"timezone": "UTC", "start_time": "22:00", "end_time": "06:00", "days_of_week": ["mon"], "dates": ["2028-02-28"]}]}"#,
                "`/schedules/0`: `days_of_week` and `dates` exclude each other",
            ),
            both(
                0,
                r#"{"schedules": [{"timezone": "UTC", "start_time": "22:00", "end_time": "06:00", "dates": ["2027-02-29"]}]}"#,
                "`/schedules/0/dates/0`: value is not a date as YYYY-MM-DD",
            ),
            both(1, r#"{"limits": {"rpm": null, "tpd": null}}"#, "`/limits`: `limits` must set at least one field"),
            both(1, r#"{"group_by": ["team", "team"]}"#, "`/group_by`: `group_by` repeats dimension \"team\""),
            both(1, r#"{"action": "queue"}"#, r#"`/action`: value is not "reject""#),
            both(
                1,
                r#"{"conditions": [{"dimension": "team", "operator": "has", "value": "x"}]}"#,
                r#"`/conditions/0/operator`: value is not one of "==", "~=", "in", "~~" or "~*""#,
            ),
            both(
                1,
                r#"{"conditions": [{"dimension": "team", "operator": "~~", "value": "x"}]}"#,
                "`/conditions/0`: condition on `team`: operator `~~` is for `model_name` and `provider` only",
            )
            .beyond(),
            both(
                1,
                r#"{"conditions": [{"dimension": "provider", "operator": "~~", "value": "("}]}"#,
                "`/conditions/0`: condition on `provider`: regex pattern \"(\" does not compile",
            )
            .beyond(),
            both(
                1,
                r#"{"conditions": [{"dimension": "team", "operator": "in", "value": "x"}]}"#,
                "`/conditions/0`: condition on `team`: operator `in` takes a list",
            )
            .beyond(),
            both(
                1,
                r#"{"conditions": [{"dimension": "team", "operator": "==", "value": ["x"]}]}"#,
                "`/conditions/0`: condition on `team`: operator `==` takes one text",
            )
            .beyond(),
            both(
                1,
                r#"{"conditions": [{"dimension": "team", "operator": "==", "value": ""}]}"#,
                "`/conditions/0/value`: value is shorter than 1 character",
            ),
            both(
                1,
                r#"{"conditions": [{"dimension": "team", "operator": "==", "value": "x", "logic": "or"}]}"#,
                "`/conditions/0`: a condition is either a comparison (`dimension`, `operator`, `value`) or a group (`logic`, `children`)",
            ),
            both(
                1,
                r#"{"conditions": [{"logic": "or", "children": []}]}"#,
                "`/conditions/0/children`: value has fewer than 1 item",
            ),
            both(
                1,
                r#"{"conditions": [{"logic": "or", "children": [{"logic": "or", "children": [{"logic": "or", "children": [
                    {"dimension": "team", "operator": "==", "value": "x"}]}]}]}]}"#,
                "`/conditions/0/children/0/children/0/children/0`: conditions are nested deeper than 3 levels",
            )
            .beyond(),
            told(
                1,
                r#"{"conditions": [{"dimension": "team", "operator": "==", "value": "x", "not": true}]}"#,
                "`/conditions/0`: Additional properties are not allowed ('not' was unexpected)",
            ),
        ],
    },
    Cases {
        kind: "passthrough_routes",
        minimal: r#"{"name": "r", "path_prefix": "/tools", "target_url": "https://x.example", "provider_key_id": "k"}"#,
        full: &[
            r#"{
                "name": "r", "path_prefix": "/tools", "target_url": "https://x.example/base", "auth_mode": "header_key",
                "auth_header_name": "x-gateway-key", "source_cidrs": ["::1"], "credential_mode": "inject",
                "provider_key_id": "k", "identity_header": "x-caller", "timeout_ms": 1, "enabled": false
            }"#,
            r#"{
                "display_name": "r", "hosts": ["api.example.com", "*.example.org", "localhost"], "preserve_host": true,
                "path_prefix": "/v1", "auth_mode": "anonymous", "anonymous_key_id": "k", "source_cidrs": ["10.0.0.0/8"],
                "credential_mode": "forward_client"
            }"#,
        ],
        nullable: &["anonymous_key_id", "source_cidrs", "provider_key_id", "timeout_ms"],
        bad: &[
            both(0, r#"{"path_prefix": null}"#, "``: `path_prefix` or `hosts` is required"),
            both(0, r#"{"path_prefix": "tools"}"#, "`/path_prefix`: value does not begin with `/`"),
            both(
                0,
                r#"{"path_prefix": "/v1/chat"}"#,
                "`/path_prefix`: is a path of the gateway itself; it takes `hosts` beside it",
            ),
            both(0, r#"{"target_url": null}"#, "``: exactly one of `target_url` and `preserve_host: true` is required"),
            both(0, r#"{"target_url": "ftp://x"}"#, "`/target_url`: value does not begin with http:// or https:// and a host"),
            told(0, r#"{"target_url": "https://u:p@x"}"#, "`/target_url`: invalid URL: it must not embed credentials").beyond(),
            both(0, r#"{"auth_header_name": null}"#, r#"``: "auth_header_name" is a required property"#),
            both(0, r#"{"auth_header_name": "X-Key"}"#, "`/auth_header_name`: is not a legal header name in lower case"),
            both(0, r#"{"auth_header_name": "cookie"}"#, "`/auth_header_name`: is a header that carries other credentials"),
            both(0, r#"{"identity_header": "authorization"}"#, "`/identity_header`: is a header that carries other credentials"),
            both(0, r#"{"auth_mode": "gateway_key"}"#, "`/auth_header_name`: is for `auth_mode: header_key` only"),
            both(0, r#"{"anonymous_key_id": "k"}"#, "`/anonymous_key_id`: is for `auth_mode: anonymous` only"),
            both(0, r#"{"provider_key_id": null}"#, r#"``: "provider_key_id" is a required property"#),
            both(0, r#"{"timeout_ms": 0}"#, "`/timeout_ms`: value is less than the minimum of 1.0"),
            both(1, r#"{"provider_key_id": "k"}"#, "`/provider_key_id`: is for `credential_mode: inject` only"),
            both(1, r#"{"target_url": "https://x"}"#, "`/target_url`: cannot stand beside `preserve_host: true`"),
            both(1, r#"{"path_prefix": "/tools", "hosts": null}"#, "`/preserve_host`: requires `hosts`"),
            both(1, r#"{"hosts": []}"#, "`/hosts`: value has fewer than 1 item"),
            both(1, r#"{"hosts": ["*.com"]}"#, "`/hosts/0`: value is not a host name, or `*.` and a domain"),
            both(1, r#"{"hosts": ["https://x"]}"#, "`/hosts/0`: value is not a host name, or `*.` and a domain"),
            both(1, r#"{"anonymous_key_id": null}"#, r#"``: "anonymous_key_id" is a required property"#),
            both(1, r#"{"source_cidrs": []}"#, "`/source_cidrs`: must not be empty with `auth_mode: anonymous`"),
            both(1, r#"{"source_cidrs": null}"#, r#"``: "source_cidrs" is a required property"#),
            told(
                1,
                r#"{"source_cidrs": ["lan"]}"#,
                "`/source_cidrs/0`: invalid CIDR/IP: expected an address or a network such as 10.0.0.0/8",
            )
            .beyond(),
        ],
    },
];
