//! Documents of guardrails and their attachments.

use super::{Cases, both, told};

pub(super) const CASES: &[Cases] = &[
    Cases {
        kind: "guardrails",
        minimal: r#"{"name": "g", "kind": "keyword", "patterns": []}"#,
        full: &[
            r#"{
                "name": "g", "kind": "keyword", "enabled": false, "hook_point": "input", "fail_open": false,
                "enforcement_mode": "monitor", "mandatory": true, "direction": "input",
                "created_at": "2025-01-01T00:00:00Z",
                "patterns": [{"kind": "literal", "value": "x"}, {"kind": "regex", "value": "(?i)a+"}]
            }"#,
            r#"{
                "name": "g", "kind": "pii", "detectors": [{"type": "email", "action": "block"}, {"type": "jwt"}],
                "custom_patterns": [{"name": "n", "regex": "\\d+", "action": "mask", "replacement": ""}],
                "default_action": "block", "max_buffer_bytes": 1, "on_buffer_exceeded": "fail_open"
            }"#,
            r#"{
                "name": "g", "kind": "bedrock", "guardrail_id": "a", "guardrail_version": "DRAFT", "region": "us-east-1",
                "aws_credentials": {"kind": "static", "access_key_id": "AKIA", "secret_access_key": "s3cret"},
                "latency_mode": {"kind": "timed", "timeout_ms": 100}, "output_fail_open": true
            }"#,
            r#"{
                "name": "g", "kind": "azure_content_safety", "endpoint": "https://x.example", "api_key": "s3cret",
                "timeout_ms": 0, "output_fail_open": true
            }"#,
            r#"{
                "name": "g", "kind": "azure_content_safety_text_moderation", "endpoint": "https://x.example",
                "api_key": "s3cret", "timeout_ms": 1, "output_type": "EightSeverityLevels", "categories": ["Hate"],
                "severity_threshold": 7, "severity_threshold_by_category": {"Hate": 4}, "blocklist_names": ["b"],
                "halt_on_blocklist_hit": true, "text_source": "concatenate_all_content",
                "stream_processing_mode": "buffer_full", "window_size": 300, "window_overlap_size": 10,
                "max_buffer_bytes": 5, "on_buffer_exceeded": "fail_closed", "output_fail_open": true
            }"#,
            r#"{
                "name": "g", "kind": "aliyun_text_moderation", "region": "cn-shanghai", "access_key_id": "id",
                "access_key_secret": "s3cret", "endpoint": "https://x.example", "risk_level_threshold": "low",
                "timeout_ms": 1, "stream_processing_mode": "window", "window_size": 2000, "window_overlap_size": 0,
                "max_buffer_bytes": 5, "on_buffer_exceeded": "fail_closed", "output_fail_open": true
            }"#,
            r#"{
                "name": "g", "kind": "aliyun_ai_guardrail", "region": "cn-shanghai", "access_key_id": "id",
                "access_key_secret": "s3cret", "endpoint": "https://x.example", "service_level": "basic",
                "timeout_ms": 1, "stream_processing_mode": "window", "window_size": 2000, "window_overlap_size": 0,
                "max_buffer_bytes": 5, "on_buffer_exceeded": "fail_closed", "output_fail_open": true
            }"#,
            r#"{
                "name": "g", "kind": "lakera", "api_key": "s3cret", "endpoint": "https://x.example", "project_id": "p",
                "timeout_ms": 1, "max_buffer_bytes": 5, "on_buffer_exceeded": "fail_closed", "output_fail_open": true
            }"#,
            r#"{
                "name": "g", "kind": "openai_moderation", "api_key": "s3cret", "endpoint": "http://127.0.0.1:1/v1",
                "model": "any", "category_thresholds": {"hate": 0.5}, "timeout_ms": 1, "output_fail_open": true
            }"#,
            r#"{
                "name": "g", "kind": "presidio", "analyzer_url": "http://a:3000/", "anonymizer_url": "http://b:3000",
                "entities": [{"type": "PERSON", "action": "mask"}], "default_action": "block", "operator": "hash",
                "language": "de", "score_threshold": 0.5, "timeout_ms": 1, "max_buffer_bytes": 5,
                "on_buffer_exceeded": "fail_open", "output_fail_open": true
            }"#,
            r#"{
                "name": "g", "kind": "semantic", "fail_open": true, "categories": [{
                    "name": "c", "description": "d", "candidate_patterns": ["\\d+"], "negative_patterns": ["^x"],
                    "hotword_groups": [{"terms": ["t"]}], "action": "mask", "replacement": "r", "threshold": -1
                }]
            }"#,
        ],
        nullable: &[],
        bad: &[
            both(0, r#"{"kind": null}"#, r#"``: "kind" is a required property"#),
            both(
                0,
                r#"{"kind": "webhook"}"#,
                r#"`/kind`: value is not one of "keyword", "pii", "bedrock", "azure_content_safety", "azure_content_safety_text_moderation", "aliyun_text_moderation", "aliyun_ai_guardrail", "lakera", "openai_moderation", "presidio" or "semantic""#,
            ),
            both(0, r#"{"patterns": null}"#, r#"``: "patterns" is a required property"#),
            both(
                0,
                r#"{"patterns": [{"kind": "glob", "value": "x"}]}"#,
                r#"`/patterns/0/kind`: value is not one of "literal" or "regex""#,
            ),
            both(
                0,
                r#"{"patterns": [{"kind": "literal", "value": ""}]}"#,
                "`/patterns/0/value`: value is shorter than 1 character",
            ),
            told(
                0,
                r#"{"patterns": [{"kind": "regex", "value": "("}]}"#,
                "`/patterns/0/value`: invalid regex: unclosed group",
            )
            .beyond(),
            told(
                0,
                r#"{"enforcement_mode": "Monitor"}"#,
                r#"`/enforcement_mode`: value is not one of "block", "monitor""#,
            ),
            told(
                0,
                r#"{"direction": "out"}"#,
                r#"`/direction`: value is not one of "input", "output", "both""#,
            ),
            both(
                0,
                r#"{"hook_point": "all"}"#,
                r#"`/hook_point`: value is not one of "input", "output" or "both""#,
            ),
            both(
                0,
                r#"{"created_at": "yesterday"}"#,
                "`/created_at`: value is not a \"date-time\" (RFC 3339 with zone)",
            ),
            told(
                0,
                r#"{"detectors": []}"#,
                "``: Additional properties are not allowed ('detectors' was unexpected)",
            ),
            both(
                1,
                r#"{"custom_patterns": [{"name": "n", "regex": ""}]}"#,
                "`/custom_patterns/0/regex`: value is shorter than 1 character",
            ),
            told(
                1,
                r#"{"custom_patterns": [{"name": "n", "regex": "[a"}]}"#,
                "`/custom_patterns/0/regex`: invalid regex: unclosed character class",
            )
            .beyond(),
            told(
                1,
                r#"{"custom_patterns": [{"name": "n", "regex": "a", "replacement": "x"}]}"#,
                "`/custom_patterns/0/replacement`: has no effect with the action `block`",
            )
            .beyond(),
            told(
                1,
                r#"{"custom_patterns": [{"name": "n", "regex": "a", "future_knob": "x"}]}"#,
                "`/custom_patterns/0`: Additional properties are not allowed ('future_knob' was unexpected)",
            ),
            told(
                1,
                r#"{"on_buffer_exceeded": "open"}"#,
                r#"`/on_buffer_exceeded`: value is not one of "fail_closed", "fail_open""#,
            ),
            both(
                1,
                r#"{"max_buffer_bytes": 0}"#,
                "`/max_buffer_bytes`: value is less than the minimum of 1.0",
            ),
            both(
                2,
                r#"{"aws_credentials": {"kind": "role"}}"#,
                r#"`/aws_credentials/kind`: value is not "static""#,
            ),
            both(
                2,
                r#"{"aws_credentials": {"secret_access_key": null}}"#,
                r#"`/aws_credentials`: "secret_access_key" is a required property"#,
            ),
            both(
                2,
                r#"{"latency_mode": {"timeout_ms": 99}}"#,
                "`/latency_mode/timeout_ms`: value is less than the minimum of 100.0",
            ),
            told(
                2,
                r#"{"latency_mode": {"kind": "serial"}}"#,
                "`/latency_mode`: Additional properties are not allowed ('timeout_ms' was unexpected)",
            ),
            both(
                2,
                r#"{"guardrail_version": "12345678901234567"}"#,
                "`/guardrail_version`: value is longer than 16 characters",
            ),
            told(
                3,
                r#"{"endpoint": "x.example"}"#,
                "`/endpoint`: invalid URL: expected http:// or https:// with a host",
            ),
            told(3, r#"{"endpoint": ""}"#, "`/endpoint`: must not be empty"),
            both(
                4,
                r#"{"severity_threshold": 8}"#,
                "`/severity_threshold`: value is greater than the maximum of 7.0",
            ),
            both(
                4,
                r#"{"categories": ["Spam"]}"#,
                r#"`/categories/0`: value is not one of "Hate", "Sexual", "SelfHarm" or "Violence""#,
            ),
            told(
                4,
                r#"{"severity_threshold_by_category": {"Spam": 1}}"#,
                r#"`/severity_threshold_by_category/Spam`: value is not one of "Hate", "Sexual", "SelfHarm", "Violence""#,
            ),
            told(
                4,
                r#"{"severity_threshold_by_category": {"Hate": 9}}"#,
                "`/severity_threshold_by_category/Hate`: value is not in the range 0 to 7",
            )
            .beyond(),
            told(
                4,
                r#"{"window_overlap_size": 300}"#,
                "`/window_overlap_size`: `window_overlap_size` must be smaller than `window_size`",
            )
            .beyond(),
            both(
                5,
                r#"{"stream_processing_mode": "none"}"#,
                r#"`/stream_processing_mode`: value is not one of "window" or "buffer_full""#,
            ),
            both(
                5,
                r#"{"window_size": 2001}"#,
                "`/window_size`: value is greater than the maximum of 2000.0",
            ),
            told(
                6,
                r#"{"stream_processing_mode": "none"}"#,
                r#"`/stream_processing_mode`: value is not one of "window", "buffer_full""#,
            ),
            told(6, r#"{"service_level": "max"}"#, r#"`/service_level`: value is not one of "pro", "basic""#),
            told(
                6,
                r#"{"risk_level_threshold": "low"}"#,
                "``: Additional properties are not allowed ('risk_level_threshold' was unexpected)",
            ),
            both(7, r#"{"api_key": null}"#, r#"``: "api_key" is a required property"#),
            told(
                8,
                r#"{"category_thresholds": {"hate": 1.5}}"#,
                "`/category_thresholds/hate`: value is not in the range 0 to 1",
            )
            .beyond(),
            both(
                8,
                r#"{"category_thresholds": {"hate": "high"}}"#,
                "`/category_thresholds/hate`: value is not of type \"number\"",
            ),
            both(
                9,
                r#"{"score_threshold": 2}"#,
                "`/score_threshold`: value is greater than the maximum of 1.0",
            ),
            both(10, r#"{"categories": []}"#, "`/categories`: value has fewer than 1 item"),
            both(10, r#"{"fail_open": false}"#, "`/fail_open`: can only be true with `kind: semantic`"),
            told(
                10,
                r#"{"categories": [
                    {"name": "c", "description": "d", "candidate_patterns": ["a"]},
                    {"name": "c", "description": "d", "candidate_patterns": ["b"]}
                ]}"#,
                "`/categories/1/name`: is the name of an earlier category too",
            )
            .beyond(),
            both(
                10,
                r#"{"categories": [{"name": "c", "description": "d", "candidate_patterns": ["a"], "action": "block"}]}"#,
                r#"`/categories/0/action`: value is not "mask""#,
            ),
        ],
    },
    Cases {
        kind: "guardrail_attachments",
        minimal: r#"{"guardrail_id": "g", "scope_type": "env", "priority": 0}"#,
        full: &[
            r#"{
                "guardrail_id": "g", "scope_type": "model", "scope_id": "m", "priority": -3, "enabled": false,
                "env_id": "e"
            }"#,
            r#"{"guardrail_id": "g", "scope_type": "env", "scope_id": null, "priority": 5}"#,
        ],
        nullable: &["env_id", "scope_id"],
        bad: &[
            both(0, r#"{"guardrail_id": null}"#, r#"``: "guardrail_id" is a required property"#),
            both(0, r#"{"priority": null}"#, r#"``: "priority" is a required property"#),
            both(
                0,
                r#"{"priority": 2147483648}"#,
                "`/priority`: value is greater than the maximum of 2147483647.0",
            ),
            both(
                0,
                r#"{"scope_type": "user"}"#,
                r#"`/scope_type`: value is not one of "env", "model", "mcp_server", "api_key", "team" or "passthrough_route""#,
            ),
            told(
                0,
                r#"{"scope_id": null}"#,
                "`/scope_id`: is required unless `scope_type` is `env`: it would match nothing",
            ),
            told(1, r#"{"scope_id": "m"}"#, "`/scope_id`: has no effect with `scope_type: env`"),
        ],
    },
];
