//! JSON Schemas (2020-12) of the documents that may be written.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::text::{CREDENTIAL_HEADERS, DECEPTIVE, MAX_NAME};
use super::{Field, Fields, Format, Forms, Kind, List, Map, Need, Nulls, Union};
use crate::resource::ResourceKind;

type Object = serde_json::Map<String, Value>;

/// The schema of the documents of a kind, as they are written. A few rules are
/// beyond it: they are told when a document is checked.
pub fn json_schema(kind: &ResourceKind) -> Value {
    let mut writer = Writer { nulls: kind.nulls, defs: BTreeMap::new() };
    let mut schema = match kind.shape {
        Kind::Forms(forms) => writer.forms(forms),
        shape => writer.kind(&shape),
    };
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".into(), kind.title.into());
    schema.insert("description".into(), kind.doc.into());
    // Every list of the kinds is parsed by a test.
    let rules: Vec<Value> = serde_json::from_str(kind.schema).unwrap_or_default();
    if !rules.is_empty() {
        schema.insert("allOf".into(), rules.into());
    }
    if !writer.defs.is_empty() {
        let defs = writer.defs.into_iter().map(|(name, schema)| (name.to_owned(), schema));
        schema.insert("$defs".into(), Value::Object(defs.collect()));
    }
    Value::Object(schema)
}

struct Writer {
    nulls: Nulls,
    defs: BTreeMap<&'static str, Value>,
}

impl Writer {
    fn kind(&mut self, kind: &Kind) -> Object {
        match kind {
            Kind::Bool => object(json!({"type": "boolean"})),
            Kind::Int { min, max } => object(json!({"type": "integer", "minimum": min, "maximum": max})),
            Kind::Signed { min, max } => object(json!({"type": "integer", "minimum": min, "maximum": max})),
            Kind::Number { min, max } => {
                let mut schema = object(json!({"type": "number"}));
                for (name, limit) in [("minimum", min), ("maximum", max)] {
                    if limit.is_finite() {
                        schema.insert(name.into(), (*limit).into());
                    }
                }
                schema
            }
            Kind::Text { min, max, format } => text(*min, *max, *format),
            Kind::Secret => text(1, usize::MAX, Format::Secret),
            Kind::Enum(names) => object(json!({"type": "string", "enum": names})),
            Kind::List(list) => self.list(list),
            Kind::Map(map) => self.map(map),
            Kind::Object(fields) => self.object(&[fields], None),
            Kind::Union(union) => self.union(union),
            Kind::Forms(forms) => {
                if !self.defs.contains_key(forms.name) {
                    self.defs.insert(forms.name, Value::Null);
                    let schema = self.forms(forms);
                    self.defs.insert(forms.name, Value::Object(schema));
                }
                object(json!({"$ref": format!("#/$defs/{}", forms.name)}))
            }
            Kind::Either(kinds) => {
                let kinds = kinds.iter().map(|kind| Value::Object(self.kind(kind)));
                object(json!({"anyOf": kinds.collect::<Vec<_>>()}))
            }
            Kind::Anything { secret } => {
                let mut schema = object(json!({"type": "object"}));
                write_only(&mut schema, *secret);
                schema
            }
        }
    }

    fn list(&mut self, list: &List) -> Object {
        let mut schema = object(json!({"type": "array", "items": self.kind(&list.item)}));
        if list.min > 0 {
            schema.insert("minItems".into(), list.min.into());
        }
        if list.max < usize::MAX {
            schema.insert("maxItems".into(), list.max.into());
        }
        schema
    }

    fn map(&mut self, map: &Map) -> Object {
        let value = self.kind(&map.value);
        let mut schema = object(json!({"type": "object", "additionalProperties": value}));
        if map.key != Format::Any {
            let mut key = text(0, usize::MAX, map.key);
            key.remove("type");
            schema.insert("propertyNames".into(), key.into());
        }
        write_only(&mut schema, map.secret);
        schema
    }

    fn union(&mut self, union: &Union) -> Object {
        let variants = union.variants.iter().map(|(name, fields)| {
            let tag = (union.tag, json!({"const": name, "description": union.doc}));
            Value::Object(self.object(&[union.common, fields], Some(tag)))
        });
        object(json!({"type": "object", "oneOf": variants.collect::<Vec<_>>()}))
    }

    fn forms(&mut self, forms: &Forms) -> Object {
        let own = forms.forms.iter().map(|(name, fields)| {
            let mut schema = self.object(&[forms.common, fields], None);
            schema.insert("title".into(), (*name).into());
            Value::Object(schema)
        });
        object(json!({"type": "object", "oneOf": own.collect::<Vec<_>>()}))
    }

    fn object(&mut self, groups: &[Fields], tag: Option<(&str, Value)>) -> Object {
        let mut properties = Object::new();
        let mut required: Vec<Value> = Vec::new();
        let mut spellings: Vec<Value> = Vec::new();
        if let Some((name, schema)) = tag {
            properties.insert(name.into(), schema);
            required.push(name.into());
        }
        for field in groups.iter().copied().flatten().filter(|field| !matches!(field.need, Need::Gone)) {
            let schema = Value::Object(self.field(field));
            let must = matches!(field.need, Need::Required | Need::Written(_));
            match field.alias {
                Some(alias) => {
                    let mut old = schema.clone();
                    old["deprecated"] = true.into();
                    properties.insert(alias.into(), old);
                    // Of the spellings of required fields there is exactly one.
                    spellings.extend([json!({"required": [field.name]}), json!({"required": [alias]})]);
                }
                None if must => required.push(field.name.into()),
                None => {}
            }
            properties.insert(field.name.into(), schema);
        }
        let mut schema = object(json!({
            "type": "object", "properties": properties, "additionalProperties": false
        }));
        if !required.is_empty() {
            schema.insert("required".into(), required.into());
        }
        if !spellings.is_empty() {
            schema.insert("oneOf".into(), spellings.into());
        }
        schema
    }

    fn field(&mut self, field: &Field) -> Object {
        let mut schema = self.kind(&field.kind);
        let null = match field.need {
            Need::Required | Need::Written(_) | Need::Gone => false,
            Need::Optional => field.nullable || self.nulls != Nulls::Never,
            Need::Default(_) => field.nullable || self.nulls == Nulls::Anywhere,
        };
        if null {
            nullable(&mut schema);
        }
        schema.insert("description".into(), field.doc.into());
        if let Need::Default(default) = field.need {
            // Every default of the tables is parsed by a test.
            schema.insert("default".into(), serde_json::from_str(default).unwrap_or_default());
        }
        schema
    }
}

fn object(value: Value) -> Object {
    match value {
        Value::Object(members) => members,
        _ => Object::new(),
    }
}

fn write_only(schema: &mut Object, secret: bool) {
    if secret {
        schema.insert("writeOnly".into(), true.into());
    }
}

/// Admits `null` too.
fn nullable(schema: &mut Object) {
    if let Some(Value::Array(names)) = schema.get_mut("enum") {
        names.push(Value::Null);
    }
    match schema.get_mut("type") {
        Some(kind) => *kind = json!([kind, "null"]),
        None => {
            let own = std::mem::take(schema);
            *schema = object(json!({"anyOf": [own, {"type": "null"}]}));
        }
    }
    // A union says the type of its variants again.
    if let Some(Value::Array(variants)) = schema.get_mut("oneOf") {
        variants.push(json!({"type": "null"}));
    }
}

fn text(min: usize, max: usize, format: Format) -> Object {
    let mut schema = object(json!({"type": "string"}));
    if min > 0 {
        schema.insert("minLength".into(), min.into());
    }
    if max < usize::MAX {
        schema.insert("maxLength".into(), max.into());
    }
    let pattern = |pattern: &str| json!({"pattern": pattern});
    let more = match format {
        Format::Name => json!({
            "maxLength": max.min(MAX_NAME),
            "pattern": format!("^[^\\u0000-\\u001f\\u007f-\\u009f{DECEPTIVE}]*$")
        }),
        Format::Filled => json!({"minLength": min.max(1)}),
        Format::Secret => json!({"format": "password", "writeOnly": true}),
        Format::Words(words) => json!({"enum": words}),
        Format::KeyHash => pattern("^[0-9a-f]{64}$"),
        Format::Slug => pattern("^[a-z0-9][a-z0-9._-]*$"),
        Format::Pattern => pattern(r"^[^*]*\*?[^*]*$"),
        Format::DateTime => json!({"format": "date-time"}),
        Format::Url => pattern(r"^[\s\u0085]*(https?://[^\s/?#@]+(/[^\s?#]*)?)?[\s\u0085]*$"),
        Format::BaseUrl => pattern(r"^[\s\u0085]*https?://[^\s/?#@]+(/[^\s?#]*)?[\s\u0085]*$"),
        Format::FullUrl => pattern(r"^https?://[^\s/?#@]+([/?][^\s#]*)?$"),
        Format::Http => pattern("^https?://."),
        Format::HttpsOr(hosts) => {
            let hosts = hosts.join("|");
            let plain = format!(r"http://({hosts}|127\.0\.0\.1|localhost)(:[0-9]+)?(/.*)?$");
            json!({"pattern": format!("^(https://.|{plain})")})
        }
        Format::HostPattern => {
            pattern(r"^(\*\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+|[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)$")
        }
        Format::Prefix => pattern("^/"),
        Format::OwnHeader => {
            json!({"pattern": "^[!#$%&'*+.^_`|~0-9a-z-]+$", "not": {"enum": CREDENTIAL_HEADERS}})
        }
        Format::Token => pattern("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"),
        Format::Header | Format::UpstreamHeader => {
            pattern(r"^[\s\u0085]*[!#$%&'*+.^_`|~0-9A-Za-z-]+[\s\u0085]*$")
        }
        Format::HeaderValue => pattern(r"^[^\u0000-\u0008\u000a-\u001f\u007f]*$"),
        Format::ServerName => json!({"not": {"pattern": "__|_$"}}),
        Format::Segment => pattern(r"^[^/?#%\s\u0000-\u001f\u007f-\u009f]*$"),
        Format::AppliesTo => pattern(r"^(all$|model:[\s\S]|api_key:[\s\S])"),
        Format::Clock => pattern("^([01][0-9]|2[0-3]):[0-5][0-9]$"),
        Format::EndClock => pattern("^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"),
        Format::Date => json!({"format": "date"}),
        Format::DeltaPath => pattern(r"^delta(\.[^.]+)+$"),
        Format::Any
        | Format::Path
        | Format::SocketAddr
        | Format::Net
        | Format::IdHeader
        | Format::Regex
        | Format::ClientPattern
        | Format::HeaderTemplate
        | Format::Certificates
        | Format::LogFilter
        | Format::NoCredentials
        | Format::SlsEndpoint
        | Format::DatadogSite
        | Format::TimeZone => json!({}),
    };
    schema.extend(object(more));
    schema
}
