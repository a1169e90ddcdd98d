//! Variables in place of secrets, and every other text as a file spells it.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::names::{Named, unused};
use crate::file::singular;
use crate::schema::{Fields, Format, Kind, Path, Seg, masked_url};

const PREFIX: &str = "AISIXSECRET";

/// Longer names are cut: they must fit into an environment.
const MAX_NAME: usize = 200;

/// A variable that stands for a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// Its name.
    pub variable: String,
    /// The kind of the resource.
    pub kind: &'static str,
    /// The name of the resource.
    pub name: String,
    /// The field, such as `request.default_headers.x-a`.
    pub field: String,
}

/// The secrets of a file.
pub(super) struct Secrets {
    reveal: bool,
    used: HashSet<String>,
    values: HashMap<String, String>,
    pub(super) placeholders: Vec<Placeholder>,
    /// How many were left in clear.
    pub(super) revealed: usize,
}

impl Secrets {
    pub(super) fn new(reveal: bool) -> Self {
        let (used, values) = (HashSet::new(), HashMap::new());
        Self { reveal, used, values, placeholders: Vec::new(), revealed: 0 }
    }

    /// What a variable stands for.
    pub(super) fn value(&self, variable: &str) -> Option<String> {
        self.values.get(variable).cloned()
    }

    /// Makes a document fit for a file.
    pub(super) fn hide(&mut self, entry: &mut Named) {
        let (kind, name) = (entry.kind, entry.identity.clone());
        texts(Some(&kind.shape), &mut entry.value, &mut Path::default(), false, &mut |text, path, secret| {
            // A variable cannot be empty, and nothing is lost by showing nothing.
            if !secret || text.is_empty() {
                *text = text.replace('$', "$$");
                return;
            }
            if self.reveal {
                self.revealed += 1;
                *text = text.replace('$', "$$");
                return;
            }
            let field = path.dotted();
            let parts = [PREFIX, &singular(kind.name), &name, &field];
            let mut variable = parts.map(token).join("_");
            variable.truncate(MAX_NAME);
            let variable = unused(variable, "_", &mut self.used);
            let hidden = std::mem::replace(text, format!("${{{variable}}}"));
            self.values.insert(variable.clone(), hidden);
            self.placeholders.push(Placeholder { variable, kind: kind.name, name: name.clone(), field });
        });
    }
}

/// Upper case; whatever is no letter or digit becomes `_`.
fn token(text: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    text.chars().map(legal).collect()
}

type Visit<'v> = dyn FnMut(&mut String, &Path, bool) + 'v;

/// Goes to every text with its path and whether it is a secret.
fn texts(kind: Option<&Kind>, value: &mut Value, path: &mut Path, secret: bool, visit: &mut Visit<'_>) {
    let secret = secret || kind.is_some_and(is_secret);
    let kind = kind.map(|kind| alternative(kind, value));
    match value {
        Value::String(text) => {
            let url = matches!(kind, Some(Kind::Text { format, .. }) if format.is_url());
            let secret = secret || url && masked_url(text).is_some();
            visit(text, path, secret);
        }
        Value::Array(items) => {
            let item = match kind {
                Some(Kind::List(list)) => Some(&list.item),
                _ => None,
            };
            for (index, value) in items.iter_mut().enumerate() {
                path.0.push(Seg::Index(index));
                texts(item, value, path, secret, visit);
                path.0.pop();
            }
        }
        Value::Object(members) => {
            let tables = kind.map_or(Vec::new(), |kind| tables(kind, members));
            for (name, value) in members {
                let field = tables.iter().copied().flatten().find(|field| field.name == name);
                let inner = match kind {
                    Some(Kind::Map(map)) => Some(&map.value),
                    _ => field.map(|field| &field.kind),
                };
                path.0.push(Seg::Key(name.clone()));
                texts(inner, value, path, secret, visit);
                path.0.pop();
            }
        }
        _ => {}
    }
}

fn is_secret(kind: &Kind) -> bool {
    match kind {
        Kind::Secret | Kind::Text { format: Format::Secret, .. } | Kind::Anything { secret: true } => true,
        Kind::Map(map) => map.secret,
        _ => false,
    }
}

/// The alternative that a value is of.
fn alternative<'k>(kind: &'k Kind, value: &Value) -> &'k Kind {
    let Kind::Either(kinds) = kind else {
        return kind;
    };
    let own = match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        _ => return kind,
    };
    kinds.iter().find(|kind| kind.json_type() == own).unwrap_or(kind)
}

fn tables(kind: &Kind, members: &serde_json::Map<String, Value>) -> Vec<Fields> {
    match kind {
        Kind::Object(fields) => vec![fields],
        Kind::Union(union) => {
            let tag = members.get(union.tag).and_then(Value::as_str);
            vec![union.common, tag.and_then(|name| union.variant(name)).unwrap_or_default()]
        }
        Kind::Forms(forms) => {
            let own = forms.forms.iter().map(|(_, fields)| *fields);
            std::iter::once(forms.common).chain(own).collect()
        }
        _ => Vec::new(),
    }
}
