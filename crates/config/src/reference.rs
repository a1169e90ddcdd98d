//! The configuration reference, made from the field tables.

use std::fmt::Write as _;

use crate::process::PROCESS;
use crate::resource::{KINDS, ResourceKind};
use crate::schema::{Field, Fields, Format, Forms, Kind, Need, TEN_YEARS_MS, TEN_YEARS_SECS};

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
## Resources

Resources come from a file, from etcd or from the embedded store. A file is one YAML
document with `_format_version: \"1\"` (quoted) and lists of resources. It is read again on
SIGHUP and when it changes, as a whole or not at all. `${VAR}` in a text value is the
environment variable VAR as of the start of the process; `$$` is a `$`. Entries are told
apart by `display_name` or `name`, which is unique per list, and a document never holds its
own id. Stored documents keep their place when they hold fields of another version or values
that break a rule which does not make them unusable; `/status/config` then says so.

What is marked *not enforced yet* is accepted and checked, and listed under `not_enforced`
in `/status/config` where it is used.

";

/// What is said of a capability that is not built.
#[derive(Clone, Copy, PartialEq)]
enum Later {
    Process,
    Resource,
}

/// The reference of every process setting and resource field, as Markdown.
pub fn reference_markdown() -> String {
    let mut page = Page { out: HEAD.to_owned(), later: Later::Process, open: Vec::new() };
    page.table(&[PROCESS]);
    page.out.push_str(RESOURCES);
    page.later = Later::Resource;
    for kind in KINDS {
        page.resource(kind);
    }
    page.out.truncate(page.out.trim_end().len());
    page.out.push('\n');
    page.out
}

struct Page {
    out: String,
    later: Later,
    /// Forms that are being described: they may hold themselves.
    open: Vec<*const Forms>,
}

/// What holds for a row and those below it.
#[derive(Clone, Copy)]
struct Under<'a> {
    prefix: &'a str,
    /// Said at the end of the meaning.
    note: &'a str,
    later: bool,
}

impl Page {
    fn resource(&mut self, kind: &ResourceKind) {
        let later = if kind.enforced { "" } else { " *Not enforced yet.*" };
        let _ = write!(self.out, "### `{}`\n\n{}{later}\n\n", kind.name, kind.doc);
        match &kind.shape {
            Kind::Object(fields) => self.table(&[fields]),
            Kind::Union(union) => {
                let tags: Vec<_> = union.variants.iter().map(|(name, _)| *name).collect();
                self.header();
                self.tag(union.tag, &tags, union.doc);
                self.rows(union.common, Under { prefix: "", note: "", later: false });
                self.out.push('\n');
                for (name, fields) in union.variants {
                    let _ = write!(self.out, "With `{}: {name}`:\n\n", union.tag);
                    self.table(&[fields]);
                }
            }
            Kind::Forms(forms) => {
                self.open.push(*forms);
                self.table(&[forms.common]);
                for (name, fields) in forms.forms {
                    let _ = write!(self.out, "In the {name} form:\n\n");
                    self.table(&[fields]);
                }
                self.open.pop();
            }
            _ => {}
        }
    }

    fn header(&mut self) {
        self.out.push_str("| Field | Type | Default | Meaning |\n|---|---|---|---|\n");
    }

    fn table(&mut self, groups: &[Fields]) {
        if groups.iter().all(|fields| fields.is_empty()) {
            return self.out.push_str("No further fields.\n\n");
        }
        self.header();
        for fields in groups {
            self.rows(fields, Under { prefix: "", note: "", later: false });
        }
        self.out.push('\n');
    }

    fn rows(&mut self, fields: Fields, under: Under<'_>) {
        for field in fields.iter().filter(|field| !matches!(field.need, Need::Gone)) {
            let path = format!("{}{}", under.prefix, field.name);
            let under = Under { later: under.later || field.later.is_some(), ..under };
            self.field(field, &path, under);
            self.below(&field.kind, &path, under);
        }
    }

    /// The rows of what a field holds.
    fn below(&mut self, kind: &Kind, path: &str, under: Under<'_>) {
        let prefix = format!("{path}.");
        let inner = Under { prefix: &prefix, ..under };
        match kind {
            Kind::Object(fields) => self.rows(fields, inner),
            Kind::List(list) => self.below(&list.item, &format!("{path}[]"), under),
            Kind::Map(map) => self.below(&map.value, &format!("{path}.*"), under),
            Kind::Either(kinds) => kinds.iter().for_each(|kind| self.below(kind, path, under)),
            Kind::Union(union) => {
                let tags: Vec<_> = union.variants.iter().map(|(name, _)| *name).collect();
                self.tag(&format!("{prefix}{}", union.tag), &tags, union.doc);
                self.rows(union.common, inner);
                for (name, fields) in union.variants {
                    let note = format!(" With `{}: {name}`.", union.tag);
                    self.rows(fields, Under { note: &note, ..inner });
                }
            }
            Kind::Forms(forms) if !self.open.contains(&std::ptr::from_ref(*forms)) => {
                self.open.push(*forms);
                self.rows(forms.common, inner);
                for (name, fields) in forms.forms {
                    let note = format!(" In a {name}.");
                    self.rows(fields, Under { note: &note, ..inner });
                }
                self.open.pop();
            }
            _ => {}
        }
    }

    fn tag(&mut self, path: &str, names: &[&str], doc: &str) {
        self.row([format!("`{path}`"), words(names), "required".into(), doc.into()]);
    }

    fn field(&mut self, field: &Field, path: &str, under: Under<'_>) {
        let default = match field.need {
            Need::Required | Need::Written(_) => "required".to_owned(),
            Need::Default("{}") | Need::Optional | Need::Gone => String::new(),
            Need::Default(json) => format!("`{}`", json.replace(',', ", ")),
        };
        let alias = field.alias.map(|alias| format!(" Also spelt `{alias}`."));
        let later = match (under.later, self.later) {
            (false, _) => "",
            (true, Later::Process) => " *Not supported yet.*",
            (true, Later::Resource) => " *Not enforced yet.*",
        };
        let meaning = format!("{}{}{}{later}", field.doc, alias.unwrap_or_default(), under.note);
        self.row([format!("`{path}`"), label(&field.kind), default, meaning]);
    }

    fn row(&mut self, cells: [String; 4]) {
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(self.out, "| {} |", cells.join(" | "));
    }
}

fn words(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
}

fn label(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "bool".into(),
        Kind::Int { max: TEN_YEARS_SECS, .. } => "seconds".into(),
        Kind::Int { max: TEN_YEARS_MS, .. } => "milliseconds".into(),
        Kind::Int { min: 0, max } if *max >= u64::from(u32::MAX) => "integer".into(),
        Kind::Int { min, max } if *max >= u64::from(u32::MAX) => format!("integer ≥ {min}"),
        Kind::Int { min, max } => format!("integer {min}–{max}"),
        Kind::Signed { .. } => "integer, may be negative".into(),
        Kind::Number { min, max } => match (min.is_finite(), max.is_finite()) {
            (true, true) => format!("number {min}–{max}"),
            (true, false) => format!("number ≥ {min}"),
            _ => "number".into(),
        },
        Kind::Text { format: Format::Words(names), .. } => words(names),
        Kind::Text { format, .. } => format.label().into(),
        Kind::Secret => "secret".into(),
        Kind::Enum(names) => words(names),
        Kind::List(list) => format!("list of {}", label(&list.item)),
        Kind::Map(map) => format!("map to {}", label(&map.value)),
        Kind::Either(kinds) => kinds.iter().map(label).collect::<Vec<_>>().join(" or "),
        Kind::Object(_) | Kind::Union(_) | Kind::Forms(_) | Kind::Anything { .. } => "object".into(),
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
            "| `bedrock_endpoint_url` | string |  | AWS endpoint for Bedrock guardrails. *Not supported yet.* |",
            "| `api_key` | secret | required | Upstream credential. Also spelt `secret`. |",
            "| `cooldown.max_seconds` | seconds | `600` | The longest. |",
            "| `routing.targets[].priority` | integer, may be negative | `0` | Higher is preferred. *Not enforced yet.* |",
            "| `kind` | `otlp_http` or `aliyun_sls` or `datadog` or `object_store` | required | What it sends to. |",
            "With `kind: presidio`:",
            "| `latency_mode.timeout_ms` | integer 100–5000 | required | The limit. With `kind: timed`. |",
            "| `conditions[].children` | list of object | required | Conditions. In a group. |",
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
