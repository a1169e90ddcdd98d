//! Resources of every kind that refer to each other.

use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{arbitrary, canonical, hostile};
use crate::file::name_field;
use crate::resource::{By, Document, Identity, KINDS, Links, ResourceKind, visit_refs};

/// Some of every kind, all valid, with names and ids of all sorts; every
/// reference leads somewhere.
pub(crate) fn world() -> impl Strategy<Value = Vec<Document>> {
    let kinds: Vec<_> =
        KINDS.iter().map(|kind| prop::collection::vec((arbitrary(kind), hostile()), 2..5)).collect();
    let picks = prop::collection::vec(any::<prop::sample::Index>(), 64);
    (kinds, picks).prop_filter_map("references", |(kinds, picks)| {
        let mut documents = Vec::new();
        for (kind, values) in KINDS.iter().zip(kinds) {
            let most = if matches!(kind.identity, Identity::Singleton) { 1 } else { usize::MAX };
            for (index, (value, name)) in values.into_iter().take(most).enumerate() {
                documents.push(named(kind, value, &name, index));
            }
        }
        loop {
            // Whoever was removed may have been the last.
            KINDS.iter().all(|kind| documents.iter().any(|own| own.kind == *kind)).then_some(())?;
            let connected = connect(&documents, &picks)?;
            match collision(&connected).or_else(|| looped(&connected)) {
                None => return Some(connected),
                // The first of each kind stays.
                Some(at) => drop(documents.remove(at)),
            }
        }
    })
}

/// With a name of its own, as odd as the kind allows.
fn named(kind: &'static ResourceKind, mut value: Value, name: &str, index: usize) -> Document {
    let id = if index == 0 { format!("{}-id", kind.name) } else { format!("{name}/{index}") };
    if let Some(field) = name_field(kind) {
        // A star would make a pattern of it.
        value[field] = json!(format!("{}{index}", name.replace('*', "+")));
        if canonical(kind, &value).is_none() {
            value[field] = json!(format!("{} {index}", kind.name).replace(' ', "-"));
        }
    }
    let value = canonical(kind, &value).unwrap_or_else(|| panic!("{} keeps its rules: {value}", kind.name));
    Document { kind, id, value }
}

/// With every reference at one of the documents.
fn connect(documents: &[Document], picks: &[prop::sample::Index]) -> Option<Vec<Document>> {
    let mut picks = picks.iter().cycle();
    let mut connect = |document: &Document| {
        let Document { kind, id, mut value } = document.clone();
        let mut used = HashSet::from([id.clone()]);
        visit_refs(kind, &mut value, &mut |site| {
            // Not itself, and not the same twice, where there are enough.
            let others = documents.iter().filter(|other| other.kind.name == site.kind);
            // Models do not lead back to themselves where that can be.
            let direct = |other: &Document| other.value.get("model_name").is_some();
            let below = |other: &&Document| *other.kind != *kind || direct(other) || *other.id > *id;
            let lower: Vec<_> = others.clone().filter(below).collect();
            let others = if lower.is_empty() { others.collect() } else { lower }.into_iter();
            let fresh: Vec<_> = others.clone().filter(|other| !used.contains(&other.id)).collect();
            let among = if fresh.is_empty() { others.collect() } else { fresh };
            let target = among[picks.next().expect("a cycle").index(among.len())];
            used.insert(target.id.clone());
            *site.target = match site.by {
                By::Id => target.id.clone(),
                By::Name | By::Pattern => target.identity().expect("a name"),
            };
        });
        canonical(kind, &value).map(|value| Document { kind, id, value })
    };
    documents.iter().map(&mut connect).collect()
}

/// A model that leads back to itself.
fn looped(documents: &[Document]) -> Option<usize> {
    let mut links = Links::default();
    documents.iter().filter(|document| document.kind.name == "models").for_each(|own| links.add(&own.value));
    documents.iter().position(|own| own.kind.name == "models" && links.complaint(&own.value).is_some())
}

/// A document that has what another one has alone.
fn collision(documents: &[Document]) -> Option<usize> {
    let mut seen = HashSet::new();
    documents.iter().position(|document| {
        let kind = document.kind;
        let mut own = vec![("name", document.identity().expect("a name"))];
        own.extend((kind.exclusive)(&document.value));
        own.into_iter().any(|claim| !seen.insert((kind.name, claim)))
    })
}
