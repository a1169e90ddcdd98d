//! Names in place of ids.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::{Map, Value};

use crate::file::{hash_field, name_field, singular};
use crate::resource::{By, Document, KINDS, ResourceKind, visit_refs};

/// A document that says the same in every source.
pub(crate) struct Named {
    pub(crate) kind: &'static ResourceKind,
    pub(crate) identity: String,
    /// The canonical document with names wherever it names resources by id.
    pub(crate) value: Value,
    /// Where it holds names instead of ids.
    resolved: Vec<String>,
}

/// The documents by kind and name.
pub(crate) fn by_name(documents: &[Document], warnings: &mut Vec<String>) -> Vec<Named> {
    let mut sorted: Vec<&Document> = documents.iter().collect();
    let place = |kind: &ResourceKind| KINDS.iter().position(|known| **known == *kind);
    sorted.sort_by(|a, b| (place(a.kind), &a.id).cmp(&(place(b.kind), &b.id)));
    let mut labels: HashMap<(&str, &str), String> = HashMap::new();
    for kind in KINDS {
        let of_kind: Vec<&Document> =
            sorted.iter().copied().filter(|document| document.kind == *kind).collect();
        labels.extend(label(kind, &of_kind, warnings));
    }
    let mut named: Vec<Named> =
        sorted.iter().map(|document| with_names(document, &labels, warnings)).collect();
    // Stable, so that equal names stay in the order of their ids.
    named.sort_by(|a, b| (place(a.kind), &a.identity).cmp(&(place(b.kind), &b.identity)));
    named
}

type Label<'d> = ((&'static str, &'d str), String);

/// What the resources of a kind are called. A caller key without a name of its
/// own is called by its hash.
fn label<'d>(
    kind: &'static ResourceKind,
    documents: &[&'d Document],
    warnings: &mut Vec<String>,
) -> Vec<Label<'d>> {
    let mut times: HashMap<String, usize> = HashMap::new();
    for name in documents.iter().filter_map(|document| document.identity()) {
        *times.entry(name).or_default() += 1;
    }
    let Some((hash, _)) = hash_field(kind) else {
        let labels = documents.iter().map(|document| {
            let name = document.identity().unwrap_or_else(|| document.id.clone());
            ((kind.name, document.id.as_str()), name)
        });
        return labels.collect();
    };
    let mut used: HashSet<String> = times.keys().cloned().collect();
    let mut shared = BTreeSet::new();
    let labels = documents.iter().map(|document| {
        let name = match document.identity() {
            Some(name) if times[&name] == 1 => name,
            name => {
                shared.extend(name);
                let digits: String =
                    document.value[hash].as_str().unwrap_or_default().chars().take(16).collect();
                let label = format!("{}-{digits}", singular(kind.name).replace(' ', ""));
                unused(label, "-", &mut used)
            }
        };
        ((kind.name, document.id.as_str()), name)
    });
    let labels = labels.collect();
    let told = shared.iter().map(|name| {
        format!("several {} are called {name:?}: they are named after their `{hash}`", kind.name)
    });
    warnings.extend(told);
    labels
}

/// The text, with a number if it is in use already.
pub(super) fn unused(text: String, join: &str, used: &mut HashSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{text}{join}{number}"));
    let free = std::iter::once(text.clone()).chain(numbered).find(|text| !used.contains(text));
    // There are more numbers than texts in use.
    let free = free.unwrap_or(text);
    used.insert(free.clone());
    free
}

fn with_names(
    document: &Document,
    labels: &HashMap<(&str, &str), String>,
    warnings: &mut Vec<String>,
) -> Named {
    let kind = document.kind;
    let mut value = document.value.clone();
    let label = &labels[&(kind.name, document.id.as_str())];
    if let Some(field) = name_field(kind)
        && let Some(members) = value.as_object_mut()
    {
        let name = Value::String(label.clone());
        match members.get_mut(field) {
            Some(given) => *given = name,
            None => {
                members.shift_insert(0, field.into(), name);
            }
        }
    }
    let mut resolved = Vec::new();
    visit_refs(kind, &mut value, &mut |site| {
        if site.by != By::Id {
            return;
        }
        match labels.get(&(site.kind, site.target.as_str())).cloned() {
            Some(name) => {
                *site.target = name;
                resolved.push(site.path);
            }
            None => {
                let (at, target) = (&site.path, &*site.target);
                let what = singular(site.kind);
                warnings.push(format!(
                    "{} {label:?}: `{at}` refers to the {what} {target:?}, which is not there",
                    kind.name
                ));
            }
        }
    });
    let identity = kind.identity(&value).unwrap_or_else(|| label.clone());
    Named { kind, identity, value, resolved }
}

impl Named {
    /// The entry of a file.
    pub(super) fn into_entry(self) -> Value {
        let mut value = self.value;
        for reference in self.kind.refs {
            if let Some(sugar) = reference.sugar {
                rename(&mut value, reference.path, sugar, &self.resolved);
            }
        }
        for (sugar, field) in self.kind.sugar {
            rename(&mut value, field, sugar, &self.resolved);
        }
        value
    }
}

/// `provider_key_id`, by now a name, becomes `provider_key`.
fn rename(value: &mut Value, path: &str, sugar: &str, resolved: &[String]) {
    holders(value, path, String::new(), &mut |members, path, field| {
        if !resolved.contains(&path) {
            return;
        }
        let old = std::mem::take(members);
        let renamed = |name: String| if name == field { sugar.to_owned() } else { name };
        members.extend(old.into_iter().map(|(name, value)| (renamed(name), value)));
    });
}

type Found<'f> = dyn FnMut(&mut Map<String, Value>, String, &str) + 'f;

/// Goes to every object that holds the last name of a path, with the full path
/// and that name.
fn holders(value: &mut Value, path: &str, before: String, found: &mut Found<'_>) {
    if let Some(rest) = path.strip_prefix("[]") {
        for (index, item) in value.as_array_mut().into_iter().flatten().enumerate() {
            holders(item, rest.trim_start_matches('.'), format!("{before}[{index}]"), found);
        }
        return;
    }
    let Some(members) = value.as_object_mut() else {
        return;
    };
    let dot = if before.is_empty() { "" } else { "." };
    match path.find(['.', '[']) {
        None => found(members, format!("{before}{dot}{path}"), path),
        Some(end) => {
            let (name, rest) = path.split_at(end);
            if let Some(value) = members.get_mut(name) {
                holders(value, rest.trim_start_matches('.'), format!("{before}{dot}{name}"), found);
            }
        }
    }
}
