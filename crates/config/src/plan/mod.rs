//! What would have to change so that one configuration becomes another.
//!
//! Resources are the same when their kind and identity are; ids may differ,
//! so references by id are followed to what they name.

mod text;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use serde_json::Value;

use crate::edit::Operation;
use crate::resource::{By, Document, KINDS, ResourceKind, visit_refs};
use crate::store::Names;

/// What stands for a secret.
const SECRET: &str = "***";

/// What would have to change.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plan {
    /// In the order of the kinds, then of the names.
    pub changes: Vec<Planned>,
    /// References that would lead nowhere.
    pub broken: Vec<Broken>,
}

/// One resource that would change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Planned {
    /// The collection.
    pub kind: &'static str,
    /// What it is called.
    pub name: String,
    /// The id it has or would get.
    pub id: String,
    /// What would happen to it.
    pub action: Action,
    /// The fields that would change; empty when it is added or removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// The document that would be stored.
    #[serde(skip)]
    pub document: Option<Document>,
}

/// What would happen to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is new.
    Add,
    /// It stays, with other values.
    Change,
    /// It goes.
    Remove,
}

/// A field that would change. Secrets are masked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldChange {
    /// Such as `routing.targets[0].weight`.
    pub path: String,
    /// Absent when the field is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// Absent when the field goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// Whether the values are secrets, which are not shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
}

/// A reference that would lead nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// The collection of the resource that refers.
    pub kind: &'static str,
    /// What it is called.
    pub name: String,
    /// The field that refers.
    pub path: String,
    /// The collection of what is not there.
    pub target_kind: &'static str,
    /// Its name or id.
    pub target: String,
}

impl Plan {
    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Also removes documents that are stored and not served, unless they are written over.
    pub(crate) fn remove(&mut self, refused: Vec<(&'static ResourceKind, String)>) {
        for (kind, id) in refused {
            if !self.changes.iter().any(|planned| planned.kind == kind.name && planned.id == id) {
                let (kind, name) = (kind.name, id.clone());
                let action = Action::Remove;
                self.changes.push(Planned { kind, name, id, action, fields: Vec::new(), document: None });
            }
        }
    }

    /// The operations that make it so, in an order in which they may be tried.
    pub fn operations(&self) -> Vec<Operation> {
        let operation = |planned: &Planned| {
            let id = planned.id.clone();
            match (&planned.document, planned.action) {
                (Some(document), Action::Add) => {
                    let (kind, value) = (document.kind, document.value.clone());
                    Some(Operation::Create { kind, id: Some(id), value })
                }
                (Some(document), _) => {
                    Some(Operation::Replace { kind: document.kind, id, value: document.value.clone() })
                }
                (None, _) => {
                    let kind = KINDS.iter().copied().find(|kind| kind.name == planned.kind)?;
                    Some(Operation::Delete { kind, id })
                }
            }
        };
        self.changes.iter().filter_map(operation).collect()
    }
}

type Key = (&'static str, String);

/// What a document is found by: its kind and identity, or its id when it has no identity.
fn key(document: &Document) -> Key {
    let name = document.identity().unwrap_or_else(|| document.id.clone());
    (document.kind.name, name)
}

/// Plans the way from one configuration to another. Without `prune`, what is
/// only in `current` stays.
pub fn plan(current: &[Document], desired: &[Document], prune: bool) -> Plan {
    let by_key: BTreeMap<Key, &Document> = current.iter().map(|document| (key(document), document)).collect();
    let desired = with_ids_of(&by_key, current, desired);
    let wanted: BTreeSet<Key> = desired.iter().map(key).collect();
    let mut changes: Vec<Planned> = desired
        .iter()
        .filter_map(|document| planned(by_key.get(&key(document)).copied(), document))
        .collect();
    let kept = |document: &&Document| wanted.contains(&key(document));
    let (_, gone): (Vec<&Document>, Vec<&Document>) = current.iter().partition(kept);
    if prune {
        changes.extend(gone.iter().map(|document| Planned {
            kind: document.kind.name,
            name: key(document).1,
            id: document.id.clone(),
            action: Action::Remove,
            fields: Vec::new(),
            document: None,
        }));
    }
    let order = |kind: &str| KINDS.iter().position(|known| known.name == kind);
    changes.sort_by(|a, b| (order(a.kind), &a.name).cmp(&(order(b.kind), &b.name)));
    let mut after: Vec<&Document> = desired.iter().collect();
    if !prune {
        after.extend(gone);
    }
    Plan { changes, broken: broken(&after) }
}

/// The desired documents under the ids that their like have now, and
/// references by id led there.
fn with_ids_of(
    by_key: &BTreeMap<Key, &Document>,
    current: &[Document],
    desired: &[Document],
) -> Vec<Document> {
    // A document whose identity is made of references is found once these are led.
    let mut desired = desired.to_vec();
    let taken: BTreeSet<(&str, &str)> =
        current.iter().map(|document| (document.kind.name, document.id.as_str())).collect();
    for _ in 0..2 {
        let mut ids: HashMap<(&'static str, String), String> = HashMap::new();
        for document in &mut desired {
            if let Some(now) = by_key.get(&key(document))
                && now.id != document.id
            {
                let old = std::mem::replace(&mut document.id, now.id.clone());
                ids.insert((document.kind.name, old), now.id.clone());
            } else if !by_key.contains_key(&key(document))
                && taken.contains(&(document.kind.name, document.id.as_str()))
            {
                // The id belongs to a resource of another name.
                let new = uuid::Uuid::new_v4().to_string();
                ids.insert((document.kind.name, std::mem::replace(&mut document.id, new.clone())), new);
            }
        }
        if ids.is_empty() {
            break;
        }
        for document in &mut desired {
            visit_refs(document.kind, &mut document.value, &mut |site| {
                if site.by == By::Id
                    && let Some(id) = ids.get(&(site.kind, site.target.clone()))
                {
                    *site.target = id.clone();
                }
            });
        }
    }
    desired
}

/// The plan of changes that are decided already: each resource before and after.
pub(crate) fn decided(changes: impl Iterator<Item = (Option<Document>, Option<Document>)>) -> Plan {
    let one = |(before, after): (Option<Document>, Option<Document>)| {
        let shown = after.as_ref().or(before.as_ref())?;
        let (action, fields) = match (&before, &after) {
            (Some(before), Some(after)) => (Action::Change, fields(before, after)),
            (None, _) => (Action::Add, Vec::new()),
            (_, None) => (Action::Remove, Vec::new()),
        };
        let (kind, name) = key(shown);
        Some(Planned { kind, name, id: shown.id.clone(), action, fields, document: after })
    };
    Plan { changes: changes.filter_map(one).collect(), broken: Vec::new() }
}

fn fields(now: &Document, document: &Document) -> Vec<FieldChange> {
    let mut fields = Vec::new();
    let masked = (now.kind.masked(&now.value), now.kind.masked(&document.value));
    differences((&now.value, &document.value), (&masked.0, &masked.1), "", &mut fields);
    fields
}

fn planned(now: Option<&Document>, document: &Document) -> Option<Planned> {
    let (action, fields) = match now {
        None => (Action::Add, Vec::new()),
        Some(now) => (Action::Change, fields(now, document)),
    };
    if now.is_some() && fields.is_empty() {
        return None;
    }
    Some(Planned {
        kind: document.kind.name,
        name: key(document).1,
        id: document.id.clone(),
        action,
        fields,
        document: Some(document.clone()),
    })
}

/// Compares in clear, tells masked.
fn differences(
    (before, after): (&Value, &Value),
    (old, new): (&Value, &Value),
    path: &str,
    found: &mut Vec<FieldChange>,
) {
    if before == after || unknown(before, after) {
        return;
    }
    match (before, after) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{name}");
                let name = name.as_str();
                differences((&before[name], &after[name]), (&old[name], &new[name]), &path, found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() && a.iter().any(Value::is_object) => {
            for at in 0..a.len() {
                let path = format!("{path}[{at}]");
                differences((&before[at], &after[at]), (&old[at], &new[at]), &path, found);
            }
        }
        _ => {
            let given = |value: &Value| (!value.is_null()).then(|| value.clone());
            let secret = (before != old && !before.is_null()) || (after != new && !after.is_null());
            found.push(FieldChange { path: path.to_owned(), before: given(old), after: given(new), secret });
        }
    }
}

/// A gateway that is read does not tell its secrets: they count as equal.
fn unknown(before: &Value, after: &Value) -> bool {
    let masked = |value: &Value| value.as_str() == Some(SECRET);
    (masked(before) && after.is_string()) || (masked(after) && before.is_string())
}

fn broken(documents: &[&Document]) -> Vec<Broken> {
    let told = documents.iter().map(|document| (document.kind, document.id.as_str(), &document.value));
    let names = Names::of(told);
    let mut broken = Vec::new();
    for document in documents {
        visit_refs(document.kind, &mut document.value.clone(), &mut |site| {
            if site.checked && !names.has(site.kind, site.by, site.target) {
                let target = site.target.clone();
                let (kind, name) = key(document);
                broken.push(Broken { kind, name, path: site.path, target_kind: site.kind, target });
            }
        });
    }
    broken
}

/// One of a kind, in words.
fn title(kind: &str) -> &str {
    let known: Option<&ResourceKind> = KINDS.iter().copied().find(|known| known.name == kind);
    known.map_or(kind, |kind| kind.title)
}

#[cfg(test)]
mod tests;
