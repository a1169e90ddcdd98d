//! Provider keys: an upstream credential, its address, and what is changed on
//! the way there and back.

use aisix_core::Secret;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Identity, Resource, ResourceKind, rows_of};
use crate::schema::{
    Fault, Fields, Format, Hidden, Kind, List, Map, Nulls, Off, Path, Problem, Seg, def, opt, req,
};
use crate::template::HeaderTemplate;
use crate::tree::Node;

/// The family of upstreams that a key belongs to.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Adapter {
    /// OpenAI and everything compatible with it.
    #[serde(rename = "openai")]
    OpenAi,
    /// Anthropic and everything compatible with it.
    Anthropic,
    /// AWS Bedrock.
    Bedrock,
    /// Google Vertex AI.
    Vertex,
    /// Azure OpenAI.
    #[serde(rename = "azure-openai")]
    AzureOpenAi,
}

/// An upstream credential and address.
#[derive(Clone, Debug, Deserialize)]
pub struct ProviderKey {
    /// The name that models refer to.
    pub display_name: String,
    /// The credential.
    pub api_key: Secret<String>,
    /// The root of the upstream, as written (without surrounding blanks);
    /// `None` when absent or blank.
    #[serde(default, deserialize_with = "not_blank")]
    pub api_base: Option<String>,
    /// The vendor; may be empty. `openai` and `echo` decide the protocol
    /// whatever `adapter` says.
    pub provider: String,
    /// The protocol when `provider` does not decide it.
    pub adapter: Option<Adapter>,
    /// Labels for telemetry.
    pub telemetry_tags: TelemetryTags,
    /// Changes to requests.
    #[serde(default)]
    pub request: RequestOverrides,
    /// Changes around replies.
    #[serde(default)]
    pub response: ResponseOverrides,
    /// Headers removed before a request is passed through, lower case.
    #[serde(deserialize_with = "header_list")]
    pub strip_headers: Vec<String>,
    /// Own trust; `None` when it changes nothing.
    #[serde(default, deserialize_with = "own_trust")]
    pub tls: Option<KeyTls>,
}

/// Labels for telemetry.
#[derive(Clone, Debug, Deserialize)]
pub struct TelemetryTags {
    /// `catalog` or `byo`.
    pub kind: Option<String>,
    /// Shown first in the catalogue.
    pub featured: bool,
    /// Provider name to show.
    pub branded_provider: Option<String>,
    /// Label of the key.
    pub pk_label: Option<String>,
    /// Label of a key that a customer brought.
    pub byo_label: Option<String>,
}

/// Changes to requests.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RequestOverrides {
    /// Top-level body keys and their new names; no identity renames.
    #[serde(default, deserialize_with = "renames")]
    pub param_renames: Vec<(String, String)>,
    /// Limits of numeric parameters.
    #[serde(default)]
    pub param_constraints: ParamConstraints,
    /// Headers added when not set, lower-case names.
    #[serde(default, deserialize_with = "templates")]
    pub default_headers: Vec<(String, HeaderTemplate)>,
    /// Patterns of client headers to forward, lower case.
    #[serde(default, deserialize_with = "header_list")]
    pub forward_client_headers: Vec<String>,
    /// Top-level body fields added when the caller did not set them.
    #[serde(default)]
    pub default_body_fields: Hidden<serde_json::Map<String, Value>>,
}

/// Limits of numeric parameters.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
pub struct ParamConstraints {
    /// Upper limit of `temperature`, applied first.
    pub temperature_max: Option<f64>,
    /// Lower limit of `temperature`.
    pub temperature_min: Option<f64>,
}

/// Whether a stream must end in `[DONE]`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum StreamDoneMarker {
    /// It must.
    Required,
    /// It may.
    Optional,
    /// It must not.
    None,
}

/// Changes around replies.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ResponseOverrides {
    /// Only decides whether a warning is logged; `None` = either is fine.
    pub stream_done_marker: Option<StreamDoneMarker>,
    /// Flatten lists of text blocks in request messages into one text.
    #[serde(default)]
    pub content_list_to_string: bool,
    /// Stored, without effect.
    pub error_envelope: Option<String>,
    /// Path of the reasoning text in a delta, such as `delta.reasoning`.
    pub reasoning_field: Option<String>,
}

/// Own trust of a key, on top of the deployment's.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct KeyTls {
    /// Extra trust roots, PEM.
    pub ca_cert: Option<String>,
    /// Whether certificates are checked.
    pub verify: bool,
}

impl ProviderKey {
    /// Whether the gateway answers itself, without an upstream.
    pub fn is_echo(&self) -> bool {
        self.provider == ECHO
    }
}

pub(crate) static KIND: ResourceKind = ResourceKind {
    nulls: Nulls::Optional,
    rules,
    enforced: true,
    new_rows: rows_of::<ProviderKey>,
    ..ResourceKind::new(
        "provider_keys",
        "provider key",
        "Upstream credentials and addresses.",
        Kind::Object(TABLE),
        Identity::Field("display_name"),
    )
};

impl Resource for ProviderKey {
    const KIND: &'static ResourceKind = &KIND;
}

/// The vendor name of the built-in provider.
const ECHO: &str = "echo";

const TABLE: Fields = &[
    req("display_name", Kind::LABEL, "Unique name; models refer to it."),
    req("api_key", Kind::Secret, "Upstream credential.").alias("secret"),
    opt(
        "api_base",
        Kind::text(0, Format::Url),
        "Root of the upstream, such as `https://api.example.com/v1`. Default for `provider: openai`: OpenAI's own.",
    ),
    def(
        "provider",
        Kind::TEXT,
        r#""""#,
        "Vendor. `openai` selects the OpenAI protocol, `echo` the built-in provider that answers with the last user message; for other names `adapter` selects.",
    ),
    opt(
        "adapter",
        Kind::Enum(&["openai", "anthropic", "bedrock", "vertex", "azure-openai"]),
        "Protocol of the upstream.",
    )
    .later(Off::Is("openai")),
    def("telemetry_tags", Kind::Object(TAGS), "{}", "Labels for telemetry.").later(Off::Hollow),
    opt("request", Kind::Object(REQUEST), "Changes to requests."),
    opt("response", Kind::Object(RESPONSE), "Changes around replies."),
    def(
        "strip_headers",
        Kind::List(&List::of(Kind::TEXT)),
        r#"["authorization","cookie","set-cookie","x-api-key"]"#,
        "Headers removed before a request is passed through; a list replaces the default.",
    )
    .later(Off::Default),
    opt("tls", Kind::Object(TLS), "Own trust, on top of the deployment's."),
];

const TAGS: Fields = &[
    opt("kind", Kind::Enum(&["catalog", "byo"]), "Where the key comes from."),
    def("featured", Kind::Bool, "false", "Shown first in the catalogue."),
    opt("branded_provider", Kind::TEXT, "Provider name to show."),
    opt("pk_label", Kind::TEXT, "Label of the key."),
    opt("byo_label", Kind::TEXT, "Label of a key that a customer brought."),
];

const REQUEST: Fields = &[
    opt(
        "param_renames",
        Kind::Map(&Map { key: Format::Any, value: Kind::TEXT, secret: false }),
        "Top-level body keys and their new names; the renamed value wins.",
    ),
    opt("param_constraints", Kind::Object(CONSTRAINTS), "Limits of numeric parameters."),
    opt(
        "default_headers",
        Kind::Map(&Map {
            key: Format::UpstreamHeader,
            value: Kind::text(0, Format::HeaderTemplate),
            secret: true,
        }),
        "Headers added when not set. Values may hold `${request.id}`, `${request.api_key.id}`, `.name`, `.team_id`, `.user_id`, `${model.id}`, `${model.name}`, `${provider_key.id}`, `${provider_key.name}`; in a resources file write `$${...}`.",
    ),
    opt(
        "forward_client_headers",
        Kind::List(&List::of(Kind::text(0, Format::Pattern))),
        "Client headers to forward; patterns with one `*`.",
    ),
    opt(
        "default_body_fields",
        Kind::Anything { secret: true },
        "Top-level body fields added when the caller did not set them.",
    ),
];

const CONSTRAINTS: Fields = &[
    opt("temperature_max", Kind::NUMBER, "Upper limit of `temperature`, applied first."),
    opt("temperature_min", Kind::NUMBER, "Lower limit of `temperature`."),
];

const RESPONSE: Fields = &[
    opt(
        "stream_done_marker",
        Kind::Enum(&["required", "optional", "none"]),
        "Whether a stream must end in `[DONE]`; decides only whether a warning is logged.",
    ),
    def(
        "content_list_to_string",
        Kind::Bool,
        "false",
        "Flatten lists of text blocks in request messages into one text.",
    ),
    opt("error_envelope", Kind::TEXT, "Accepted without effect."),
    opt(
        "reasoning_field",
        Kind::text(0, Format::DeltaPath),
        "Where the upstream puts reasoning text in a delta; copied to `reasoning_content`.",
    ),
];

const TLS: Fields = &[
    opt("ca_cert", Kind::text(0, Format::Certificates), "Extra trust roots, PEM text."),
    def("verify", Kind::Bool, "true", "false accepts any certificate."),
];

/// Body fields that decide what is sent where and how the reply is read.
const OWN_FIELDS: [&str; 4] = ["model", "messages", "stream", "stream_options"];

/// The rules that the table cannot say.
fn rules(node: &Node, document: &Value, problems: &mut Vec<Problem>) {
    let mut add = |path: Path, at: &Node, fault: Fault| {
        problems.push(Problem { path, origin: at.origin.clone(), fault });
    };
    let own = |field: &'static str| (Path::of(field), node.get(field).unwrap_or(node));
    let provider = document["provider"].as_str().unwrap_or_default();
    let base = document["api_base"].as_str().unwrap_or_default();
    if provider == ECHO && !base.trim().is_empty() {
        let (path, at) = own("api_base");
        let why = "has no effect with the built-in provider `echo`";
        add(path, at, Fault::Advice(why.into()));
    }
    let body = node.at("request.default_body_fields").and_then(Node::as_map).unwrap_or_default();
    for (name, value) in body.iter().filter(|(name, _)| OWN_FIELDS.contains(&name.as_str())) {
        let path = Path::of("request.default_body_fields").with(Seg::Key(name.clone()));
        add(path, value, Fault::Advice("is set by the gateway or the caller on every request".into()));
    }
    let renames = node.at("request.param_renames").and_then(Node::as_map).unwrap_or_default();
    for (name, value) in renames {
        let to = document["request"]["param_renames"][name].as_str().unwrap_or_default();
        if name == to || !OWN_FIELDS.contains(&to) {
            continue;
        }
        let why = format!("the gateway sets `{to}` itself, so nothing can be renamed to it");
        let path = Path::of("request.param_renames").with(Seg::Key(name.clone()));
        add(path, value, Fault::Advice(why));
    }
    let path = Path::of("request.default_headers");
    let mut seen: Vec<String> = Vec::new();
    let headers = node.at("request.default_headers").and_then(Node::as_map);
    for (name, value) in headers.unwrap_or_default() {
        let lower = name.to_lowercase();
        if seen.contains(&lower) {
            let why = "is given twice; header names ignore case";
            add(path.with(Seg::Key(name.clone())), value, Fault::Advice(why.into()));
        }
        seen.push(lower);
    }
}

fn not_blank<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(raw)?;
    let text = text.map(|text| text.trim().to_owned());
    Ok(text.filter(|text| !text.is_empty()))
}

/// Trimmed, lower case, without blanks and repetitions, in order.
fn header_list<'de, D: Deserializer<'de>>(raw: D) -> Result<Vec<String>, D::Error> {
    let mut names: Vec<String> = Vec::new();
    for name in Vec::<String>::deserialize(raw)? {
        let name = name.trim().to_lowercase();
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

type Pairs = serde_json::Map<String, Value>;

fn pairs<E: Error>(pairs: Pairs) -> impl Iterator<Item = Result<(String, String), E>> {
    pairs.into_iter().map(|(key, value)| match value {
        Value::String(text) => Ok((key, text)),
        _ => Err(E::custom("expected a string")),
    })
}

fn renames<'de, D: Deserializer<'de>>(raw: D) -> Result<Vec<(String, String)>, D::Error> {
    let renames = pairs::<D::Error>(Pairs::deserialize(raw)?);
    renames.filter(|pair| !matches!(pair, Ok((from, to)) if from == to)).collect()
}

/// A stored document may hold headers that cannot be sent: they are left out.
fn templates<'de, D: Deserializer<'de>>(raw: D) -> Result<Vec<(String, HeaderTemplate)>, D::Error> {
    let headers = pairs::<D::Error>(Pairs::deserialize(raw)?);
    let headers = headers.filter_map(|pair| match pair {
        Ok((name, text)) => {
            Format::UpstreamHeader.check(&name).ok()?;
            Format::HeaderTemplate.check(&text).ok()?;
            Some(Ok((name.to_lowercase(), HeaderTemplate::parse(&text).ok()?)))
        }
        Err(error) => Some(Err(error)),
    });
    headers.collect()
}

fn own_trust<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<KeyTls>, D::Error> {
    let tls = Option::<KeyTls>::deserialize(raw)?;
    let tls = tls.map(|tls| KeyTls { ca_cert: tls.ca_cert.filter(|pem| !pem.trim().is_empty()), ..tls });
    Ok(tls.filter(|tls| tls.ca_cert.is_some() || !tls.verify))
}
