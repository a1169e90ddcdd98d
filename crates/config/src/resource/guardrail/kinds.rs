//! The fields of each kind of guardrail.

use crate::schema::{Field, Fields, Format, Kind, List, Map, TEXTS, Union, def, opt, req};

pub(super) const VARIANTS: &[(&str, Fields)] = &[
    ("keyword", KEYWORD),
    ("pii", PII),
    ("bedrock", BEDROCK),
    ("azure_content_safety", AZURE_PROMPT_SHIELD),
    ("azure_content_safety_text_moderation", AZURE_MODERATION),
    ("aliyun_text_moderation", ALIYUN_MODERATION),
    ("aliyun_ai_guardrail", ALIYUN_GUARDRAIL),
    ("lakera", LAKERA),
    ("openai_moderation", OPENAI_MODERATION),
    ("presidio", PRESIDIO),
    ("semantic", SEMANTIC),
];

const ENDPOINT: Kind = Kind::text(0, Format::BaseUrl);
const REGEX: Kind = Kind::text(1, Format::Regex);
const ACTION: Kind = Kind::Enum(&["mask", "block"]);
const REPLACEMENT: Kind = Kind::Text { min: 0, max: 256, format: Format::Any };

const TIMEOUT: Field = def("timeout_ms", Kind::U32, "5000", "Limit for a call; 0 = times out at once.");
const OUTPUT_FAIL_OPEN: Field = def(
    "output_fail_open",
    Kind::Bool,
    "false",
    "Whether answers pass when the check of the output cannot answer.",
);
const MAX_BUFFER: Field =
    def("max_buffer_bytes", Kind::int(1, u64::MAX), "262144", "How much of a stream is held back at most.");
const ON_BUFFER_EXCEEDED: Field = def(
    "on_buffer_exceeded",
    Kind::text(0, Format::Words(&["fail_closed", "fail_open"])),
    r#""fail_closed""#,
    "What happens to a longer stream.",
);
const DEFAULT_ACTION: Field = def("default_action", ACTION, r#""mask""#, "Action where none is given.");
const OVERLAP: &str = "Text that is looked at again with the next window.";
const STREAM_MODES: &[&str] = &["window", "buffer_full"];
const STREAM_MODE: Field = def(
    "stream_processing_mode",
    Kind::Enum(STREAM_MODES),
    r#""window""#,
    "Whether streams are checked window by window or held back whole.",
);

const KEYWORD: Fields =
    &[req("patterns", Kind::List(&List::of(Kind::Union(&PATTERN))), "What is looked for; `[]` = nothing.")];

const PATTERN: Union = Union {
    tag: "kind",
    doc: "`literal` ignores case.",
    common: &[],
    variants: &[
        ("literal", &[req("value", Kind::NAME, "The text.")]),
        ("regex", &[req("value", REGEX, "The pattern, unanchored.")]),
    ],
};

const PII: Fields = &[
    def("detectors", Kind::List(&List::of(Kind::Object(DETECTOR))), "[]", "Built-in detectors."),
    def("custom_patterns", Kind::List(&List::of(Kind::Object(CUSTOM_PATTERN))), "[]", "Own patterns."),
    DEFAULT_ACTION,
    MAX_BUFFER,
    ON_BUFFER_EXCEEDED,
];

const DETECTOR: Fields = &[
    req(
        "type",
        Kind::Enum(&[
            "email",
            "china_mobile",
            "china_id_card",
            "bank_card",
            "us_ssn",
            "ip_address",
            "api_key",
            "jwt",
            "private_key",
        ]),
        "What it finds.",
    ),
    opt("action", ACTION, "What happens then."),
];

const CUSTOM_PATTERN: Fields = &[
    req("name", Kind::Text { min: 1, max: 64, format: Format::Name }, "Name of what it finds."),
    req("regex", REGEX, "The pattern; with a group, the first group is what is found."),
    opt("action", ACTION, "What happens then."),
    opt("replacement", REPLACEMENT, "What stands there instead, with the action `mask`."),
];

const BEDROCK: Fields = &[
    req("guardrail_id", Kind::Text { min: 1, max: 64, format: Format::Any }, "Id of the guardrail at AWS."),
    req("guardrail_version", Kind::Text { min: 1, max: 16, format: Format::Any }, "Its version."),
    req("region", Kind::FILLED, "AWS region."),
    req("aws_credentials", Kind::Union(&AWS_CREDENTIALS), "Credentials at AWS."),
    req("latency_mode", Kind::Union(&LATENCY_MODE), "Whether a call has a limit."),
    OUTPUT_FAIL_OPEN,
];

const AWS_CREDENTIALS: Union = Union {
    tag: "kind",
    doc: "Where they come from.",
    common: &[],
    variants: &[(
        "static",
        &[
            req("access_key_id", Kind::FILLED, "Id of the access key."),
            req("secret_access_key", Kind::Secret, "The access key."),
        ],
    )],
};

const LATENCY_MODE: Union = Union {
    tag: "kind",
    doc: "`serial` has no limit.",
    common: &[],
    variants: &[("serial", &[]), ("timed", &[req("timeout_ms", Kind::int(100, 5000), "The limit.")])],
};

const AZURE_PROMPT_SHIELD: Fields = &[
    req("endpoint", ENDPOINT, "Root of the resource."),
    req("api_key", Kind::Secret, "Its key."),
    TIMEOUT,
    OUTPUT_FAIL_OPEN,
];

const AZURE_CATEGORIES: &[&str] = &["Hate", "Sexual", "SelfHarm", "Violence"];

const AZURE_MODERATION: Fields = &[
    req("endpoint", ENDPOINT, "Root of the resource."),
    req("api_key", Kind::Secret, "Its key."),
    TIMEOUT,
    def(
        "output_type",
        Kind::Enum(&["FourSeverityLevels", "EightSeverityLevels"]),
        r#""FourSeverityLevels""#,
        "How finely severity is told.",
    ),
    def(
        "categories",
        Kind::List(&List::of(Kind::Enum(AZURE_CATEGORIES))),
        r#"["Hate","Sexual","SelfHarm","Violence"]"#,
        "What is looked for.",
    ),
    def("severity_threshold", Kind::int(0, 7), "2", "Severity from which on is blocked."),
    def(
        "severity_threshold_by_category",
        Kind::Map(&Map { key: Format::Words(AZURE_CATEGORIES), value: Kind::int(0, 255), secret: false }),
        "{}",
        "The same by category.",
    ),
    def("blocklist_names", TEXTS, "[]", "Block lists of the resource."),
    def("halt_on_blocklist_hit", Kind::Bool, "false", "Whether a hit ends the check."),
    def(
        "text_source",
        Kind::Enum(&["concatenate_user_content", "concatenate_all_content"]),
        r#""concatenate_user_content""#,
        "Which messages are looked at.",
    ),
    STREAM_MODE,
    def("window_size", Kind::int(1, 10_000), "10000", "Characters of a window."),
    def("window_overlap_size", Kind::UINT, "256", OVERLAP),
    MAX_BUFFER,
    ON_BUFFER_EXCEEDED,
    OUTPUT_FAIL_OPEN,
];

const ALIYUN_REGION: Field = req("region", Kind::FILLED, "Region.");
const ALIYUN_KEY_ID: Field = req("access_key_id", Kind::FILLED, "Id of the access key.");
const ALIYUN_SECRET: Field = req("access_key_secret", Kind::Secret, "The access key.");
const ALIYUN_ENDPOINT: Field = opt("endpoint", ENDPOINT, "URL, if it is not that of the region.");
const ALIYUN_WINDOW: Field = def("window_size", Kind::int(1, 2000), "2000", "Characters of a window.");
const ALIYUN_OVERLAP: Field = def("window_overlap_size", Kind::UINT, "128", OVERLAP);

const ALIYUN_MODERATION: Fields = &[
    ALIYUN_REGION,
    ALIYUN_KEY_ID,
    ALIYUN_SECRET,
    ALIYUN_ENDPOINT,
    def(
        "risk_level_threshold",
        Kind::Enum(&["low", "medium", "high"]),
        r#""high""#,
        "Risk from which on is blocked.",
    ),
    TIMEOUT,
    STREAM_MODE,
    ALIYUN_WINDOW,
    ALIYUN_OVERLAP,
    MAX_BUFFER,
    ON_BUFFER_EXCEEDED,
    OUTPUT_FAIL_OPEN,
];

const ALIYUN_GUARDRAIL: Fields = &[
    ALIYUN_REGION,
    ALIYUN_KEY_ID,
    ALIYUN_SECRET,
    ALIYUN_ENDPOINT,
    def(
        "service_level",
        Kind::text(0, Format::Words(&["pro", "basic"])),
        r#""pro""#,
        "Level of the service.",
    ),
    TIMEOUT,
    def(
        "stream_processing_mode",
        Kind::text(0, Format::Words(STREAM_MODES)),
        r#""window""#,
        "Whether streams are checked window by window or held back whole.",
    ),
    ALIYUN_WINDOW,
    ALIYUN_OVERLAP,
    MAX_BUFFER,
    ON_BUFFER_EXCEEDED,
    OUTPUT_FAIL_OPEN,
];

const LAKERA: Fields = &[
    req("api_key", Kind::Secret, "Key."),
    def("endpoint", ENDPOINT, r#""https://api.lakera.ai""#, "Root of the service."),
    opt("project_id", Kind::TEXT, "Project."),
    TIMEOUT,
    MAX_BUFFER,
    ON_BUFFER_EXCEEDED,
    OUTPUT_FAIL_OPEN,
];

const OPENAI_MODERATION: Fields = &[
    req("api_key", Kind::Secret, "Key."),
    def("endpoint", ENDPOINT, r#""https://api.openai.com/v1""#, "Root of the service."),
    def("model", Kind::NAME, r#""omni-moderation-latest""#, "Moderation model."),
    def(
        "category_thresholds",
        Kind::Map(&Map::to(Kind::NUMBER)),
        "{}",
        "Scores from 0 to 1 from which on is blocked; empty = the verdict of the service counts.",
    ),
    TIMEOUT,
    OUTPUT_FAIL_OPEN,
];

const PRESIDIO: Fields = &[
    req("analyzer_url", ENDPOINT, "Root of the analyzer."),
    req("anonymizer_url", ENDPOINT, "Root of the anonymizer."),
    def(
        "entities",
        Kind::List(&List::of(Kind::Object(ENTITY))),
        "[]",
        "What is looked for; empty = everything.",
    ),
    DEFAULT_ACTION,
    def("operator", Kind::Enum(&["replace", "mask", "hash", "redact"]), r#""replace""#, "What masking does."),
    def("language", Kind::TEXT, r#""en""#, "Language of the text."),
    opt("score_threshold", Kind::SHARE, "Least certainty."),
    TIMEOUT,
    MAX_BUFFER,
    ON_BUFFER_EXCEEDED,
    OUTPUT_FAIL_OPEN,
];

const ENTITY: Fields = &[req("type", Kind::NAME, "The entity."), opt("action", ACTION, "What happens then.")];

const SEMANTIC: Fields = &[req(
    "categories",
    Kind::List(&List { max: 30, ..List::at_least(Kind::Object(CATEGORY), 1) }),
    "What is masked, judged by a local model.",
)];

const CATEGORY: Fields = &[
    req("name", Kind::Text { min: 1, max: 64, format: Format::Name }, "Name of what is found."),
    req(
        "description",
        Kind::Text { min: 1, max: 1000, format: Format::Any },
        "What the model compares with.",
    ),
    req(
        "candidate_patterns",
        Kind::List(&List { max: 10, ..List::at_least(REGEX, 1) }),
        "Only what one of these finds is ever masked.",
    ),
    opt("negative_patterns", Kind::List(&List { max: 20, ..List::of(REGEX) }), "What speaks against it."),
    opt(
        "hotword_groups",
        Kind::List(&List { max: 10, ..List::of(Kind::Object(HOTWORDS)) }),
        "What speaks for it.",
    ),
    def("action", Kind::Enum(&["mask"]), r#""mask""#, "What happens then."),
    opt("replacement", REPLACEMENT, "What stands there instead."),
    opt("threshold", Kind::Number { min: -1.0, max: 1.0 }, "Least similarity; absent = that of the model."),
];

const HOTWORDS: Fields =
    &[req("terms", Kind::List(&List { max: 50, ..List::at_least(Kind::FILLED, 1) }), "Words near by.")];
