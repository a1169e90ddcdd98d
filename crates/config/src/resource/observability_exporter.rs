//! Where usage is sent to.

use serde_json::Value;

use super::rule::Review;
use super::{Identity, ResourceKind};
use crate::schema::{Field, Fields, Format, Kind, Map, Problem, TEXTS, Union, def, opt, req};
use crate::tree::Node;

pub(crate) static KIND: ResourceKind = ResourceKind {
    rules,
    schema: SCHEMA,
    ..ResourceKind::new(
        "observability_exporters",
        "exporter",
        "Where usage is sent to. Credentials stand in the environment of the gateway.",
        Kind::Union(&SHAPE),
        Identity::Field("name"),
    )
};

static SHAPE: Union = Union {
    tag: "kind",
    doc: "What it sends to.",
    common: &[
        req("name", Kind::Text { min: 1, max: 120, format: Format::Name }, "Unique name."),
        def("enabled", Kind::Bool, "true", "false = nothing is sent."),
    ],
    variants: &[
        ("otlp_http", OTLP),
        ("aliyun_sls", SLS),
        ("datadog", DATADOG),
        ("object_store", OBJECT_STORE),
    ],
};

const CONTENT_MODE: Field = def(
    "content_mode",
    Kind::Enum(&["metadata_only", "full"]),
    r#""metadata_only""#,
    "Whether prompts and answers are sent.",
);
const CONTENT_MAX: Field =
    def("content_max_bytes", Kind::int(1, 1_048_576), "131072", "Longest prompt or answer.");

const OTLP: Fields = &[
    req(
        "endpoint",
        Kind::text(0, Format::HttpsOr(&["mock-otlp", "otel-collector"])),
        "Root or traces URL of the collector.",
    ),
    opt(
        "headers",
        Kind::Map(&Map { key: Format::Header, value: Kind::text(0, Format::HeaderValue), secret: true }),
        "Headers to send.",
    ),
    opt("sample_rate", Kind::SHARE, "Share of requests that are sent; absent = all."),
    CONTENT_MODE,
    CONTENT_MAX,
];

const CREDENTIAL: &str = "Names the environment variables that hold the credential.";

const SLS: Fields = &[
    req("endpoint", Kind::text(0, Format::SlsEndpoint), "Host of the region."),
    req("project", Kind::FILLED, "Project."),
    req("logstore", Kind::FILLED, "Log store."),
    req("credential_ref", Kind::FILLED, CREDENTIAL),
    CONTENT_MODE,
    CONTENT_MAX,
];

const DATADOG: Fields = &[
    req("site", Kind::text(0, Format::DatadogSite), "Site of the account."),
    req("credential_ref", Kind::FILLED, CREDENTIAL),
    req("service", Kind::FILLED, "Service that the logs are of."),
    def("ddsource", Kind::TEXT, r#""aisix-ai-gateway""#, "Source of the logs."),
    def("tags", TEXTS, "[]", "Tags."),
    CONTENT_MODE,
    CONTENT_MAX,
];

const OBJECT_STORE: Fields = &[
    req("provider", Kind::Enum(&["s3", "gcs", "azure_blob"]), "Kind of store."),
    req("bucket", Kind::FILLED, "Bucket or container."),
    req("prefix", Kind::TEXT, "Begin of the object names."),
    opt("region", Kind::TEXT, "Region."),
    opt(
        "endpoint",
        Kind::text(0, Format::HttpsOr(&["minio", "azurite", "fake-gcs-server", "fake-gcs"])),
        "Address, if it is not the provider's own.",
    ),
    def("compression", Kind::Enum(&["gzip", "none"]), r#""gzip""#, "How objects are packed."),
    def(
        "auth_mode",
        Kind::Enum(&["credential_ref", "cloud_identity"]),
        r#""credential_ref""#,
        "`cloud_identity` uses that of the machine; for `s3` and `gcs`.",
    ),
    opt("credential_ref", Kind::FILLED, CREDENTIAL),
];

const SCHEMA: &str = r#"[{
    "if": {"required": ["kind"], "properties": {"kind": {"const": "object_store"}}},
    "then": {
        "if": {"required": ["auth_mode"], "properties": {"auth_mode": {"const": "cloud_identity"}}},
        "then": {"properties": {"provider": {"enum": ["s3", "gcs"]}}},
        "else": {"required": ["credential_ref"]}
    }
}]"#;

fn rules(node: &Node, document: &Value, problems: &mut Vec<Problem>) {
    let mut review = Review::new(node, problems);
    if matches!(document["kind"].as_str(), Some("otlp_http" | "object_store")) {
        review.advise_format("endpoint", Format::FullUrl);
    }
    if document["kind"] != "object_store" {
        return;
    }
    match document["auth_mode"].as_str() {
        Some("cloud_identity") if document["provider"] == "azure_blob" => {
            review.refuse("auth_mode", "`cloud_identity` is for `s3` and `gcs` only");
        }
        Some("credential_ref") => review.require("credential_ref"),
        _ => {}
    }
}
