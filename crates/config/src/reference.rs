//! The configuration reference, made from the field tables.

use std::fmt::Write as _;

use crate::file::COLLECTIONS;
use crate::process::PROCESS;
use crate::resource::{ApiKey, Kind as Resource, Model, ProviderKey};
use crate::schema::{Field, Fields, Kind, Need, TEN_YEARS_MS, TEN_YEARS_SECS};

const HEAD: &str = "\
# Configuration reference

This page is generated from the field tables that validate the configuration.

## Process configuration

`aisix --config FILE` reads one file in YAML, TOML or JSON, chosen by its extension.
Built-in defaults < file < environment. It is read once, at start. Unknown fields are
refused, and all problems are reported together.

Every field can be set from the environment: `AISIX_` and the path in upper case with
`__` between the levels, so `proxy.tls.cert_file` is `AISIX_PROXY__TLS__CERT_FILE`.
The type is that of the field (`007` stays text where text is expected). Lists are
separated by commas; lists of objects are JSON. Unknown `AISIX_*` variables are refused,
except `AISIX_CONFIG` and what Kubernetes sets for a service called `aisix`.

Settings marked *not supported yet* are accepted while they leave the capability off.

";

const RESOURCES: &str = "\
## Resources file

One YAML document with `_format_version: \"1\"` (quoted) and lists of resources. It is
read again on SIGHUP and when it changes, as a whole or not at all. `${VAR}` in a text
value is the environment variable VAR as of the start of the process; `$$` is a `$`.
Entries are named by `display_name`, which is unique per list.

";

/// The reference of every process setting and resource field, as Markdown.
pub fn reference_markdown() -> String {
    let mut out = HEAD.to_owned();
    table(&mut out, PROCESS);
    out.push_str(RESOURCES);
    collection::<ProviderKey>(&mut out);
    collection::<Model>(&mut out);
    collection::<ApiKey>(&mut out);
    let later: Vec<_> = COLLECTIONS
        .iter()
        .filter(|name| ![ProviderKey::NAME, Model::NAME, ApiKey::NAME].contains(name))
        .map(|name| format!("`{name}`"))
        .collect();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "Not supported yet, so empty or absent: {}.", later.join(", "));
    out
}

fn collection<K: Resource>(out: &mut String) {
    let _ = write!(out, "### `{}`\n\n{}\n\n", K::NAME, K::TITLE);
    table(out, K::TABLE);
}

fn table(out: &mut String, fields: Fields) {
    out.push_str("| Field | Type | Default | Meaning |\n|---|---|---|---|\n");
    rows(out, fields, "", false);
    out.push('\n');
}

fn rows(out: &mut String, fields: Fields, prefix: &str, later: bool) {
    for field in fields {
        let path = format!("{prefix}{}", field.name);
        let later = later || field.later.is_some();
        row(out, field, &path, later);
        match field.kind {
            Kind::Object(inner) => rows(out, inner, &format!("{path}."), later),
            Kind::List(list) => {
                if let Kind::Object(inner) = list.item {
                    rows(out, inner, &format!("{path}[]."), later);
                }
            }
            Kind::Map(map) => {
                if let Kind::Object(inner) = map.value {
                    rows(out, inner, &format!("{path}.*."), later);
                }
            }
            _ => {}
        }
    }
}

fn row(out: &mut String, field: &Field, path: &str, later: bool) {
    let default = match field.need {
        Need::Required => "required".to_owned(),
        Need::Default("{}") | Need::Optional => String::new(),
        Need::Default(json) => format!("`{}`", json.replace(',', ", ")),
    };
    let alias = field.alias.map(|alias| format!(" Also spelt `{alias}`."));
    let later = if later { " *Not supported yet.*" } else { "" };
    let meaning = format!("{}{}{later}", field.doc, alias.unwrap_or_default());
    let cells = [format!("`{path}`"), label(&field.kind), default, meaning];
    let cells = cells.map(|cell| cell.replace('|', "\\|"));
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

fn label(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "bool".into(),
        Kind::Int { max: TEN_YEARS_SECS, .. } => "seconds".into(),
        Kind::Int { max: TEN_YEARS_MS, .. } => "milliseconds".into(),
        Kind::Int { min: 0, max } if *max >= u64::from(u32::MAX) => "integer".into(),
        Kind::Int { min, max } if *max >= u64::from(u32::MAX) => format!("integer ≥ {min}"),
        Kind::Int { min, max } => format!("integer {min}–{max}"),
        Kind::Number { min, max } => match (min.is_finite(), max.is_finite()) {
            (true, true) => format!("number {min}–{max}"),
            (true, false) => format!("number ≥ {min}"),
            _ => "number".into(),
        },
        Kind::Text { format, .. } => format.label().into(),
        Kind::Secret => "secret".into(),
        Kind::Enum(names) => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or "),
        Kind::List(list) => format!("list of {}", label(&list.item)),
        Kind::Map(map) => format!("map to {}", label(&map.value)),
        Kind::Object(_) | Kind::Anything { .. } => "object".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_names_every_kind_of_field() {
        let text = reference_markdown();
        for row in [
            "| `proxy.tls.cert_file` | path | required | Certificate chain, PEM. |",
            "| `observability.log_format` | `text` or `json` | `\"text\"` | Shape of log lines. |",
            "| `proxy.url_rewrites[].match` | string | required | Regex on the raw path, unanchored. |",
            "| `etcd.endpoints` | list of string | `[]` | Addresses. *Not supported yet.* |",
            "| `api_key` | secret | required | Upstream credential. Also spelt `secret`. |",
            "| `cooldown.max_seconds` | seconds | `600` | The longest. |",
            "| `upstream.connect_timeout_ms` | milliseconds | `5000` | DNS, TCP and TLS together; 0 = no limit. |",
        ] {
            assert!(text.contains(row), "{row}");
        }
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        for line in text.lines().filter(|line| line.starts_with('|')) {
            assert_eq!(cells(line), 5, "{line}");
        }
    }
}
