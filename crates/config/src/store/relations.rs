//! What does not fit together: names that several resources share, and
//! references to what is not there.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::status::{Conflict, Dangling};
use crate::resource::{By, KINDS, Links, ResourceKind, ResourceSet, View, read_refs};

/// The most of each that are told.
const MAX_TOLD: usize = 256;

/// The names and ids of a set.
pub(crate) struct Names {
    by_kind: HashMap<&'static str, (HashSet<String>, HashSet<String>)>,
}

impl Names {
    pub(crate) fn of<'a>(
        documents: impl Iterator<Item = (&'static ResourceKind, &'a str, &'a Value)>,
    ) -> Self {
        let mut by_kind: HashMap<&'static str, (HashSet<String>, HashSet<String>)> = HashMap::new();
        for (kind, id, document) in documents {
            let (ids, names) = by_kind.entry(kind.name).or_default();
            ids.insert(id.to_owned());
            names.extend(kind.identity(document));
        }
        Self { by_kind }
    }

    pub(crate) fn has(&self, kind: &str, by: By, target: &str) -> bool {
        let Some((ids, names)) = self.by_kind.get(kind) else {
            return by == By::Pattern && target.contains('*');
        };
        match by {
            By::Id => ids.contains(target),
            By::Name => names.contains(target),
            By::Pattern => target.contains('*') || names.contains(target),
        }
    }
}

/// Everything that does not fit, bounded.
pub(super) fn report(set: &ResourceSet) -> (Vec<Conflict>, Vec<Dangling>, Vec<Vec<String>>) {
    let views: Vec<(&'static ResourceKind, Vec<View>)> =
        KINDS.iter().map(|kind| (*kind, set.views(kind))).collect();
    let mut conflicts = Vec::new();
    for (kind, views) in &views {
        for field in kind.unique_fields() {
            conflicts.extend(shared(kind, views, |document| {
                document[field].as_str().map(|text| (field, text.to_owned())).into_iter().collect()
            }));
        }
        conflicts.extend(shared(kind, views, kind.exclusive));
    }
    conflicts.truncate(MAX_TOLD);
    let documents = views
        .iter()
        .flat_map(|(kind, views)| views.iter().map(move |view| (*kind, &*view.id, &*view.document)));
    let names = Names::of(documents.clone());
    let mut dangling = Vec::new();
    for (kind, id, document) in documents.clone() {
        if dangling.len() >= MAX_TOLD {
            break;
        }
        read_refs(kind, document, &mut |path, (target_kind, by), target| {
            if !names.has(target_kind, by, target) {
                dangling.push(Dangling {
                    resource_kind: kind.name,
                    resource_id: id.to_owned(),
                    field: path(),
                    target_kind,
                    target: target.to_owned(),
                });
            }
        });
    }
    dangling.truncate(MAX_TOLD);
    let mut links = Links::default();
    for (_, _, document) in documents.filter(|(kind, ..)| kind.name == "models") {
        links.add(document);
    }
    (conflicts, dangling, links.cycles(MAX_TOLD))
}

/// What several resources have and one should. The lowest id wins.
fn shared(
    kind: &ResourceKind,
    views: &[View],
    texts: impl Fn(&Value) -> Vec<(&'static str, String)>,
) -> Vec<Conflict> {
    let mut by_text: BTreeMap<(&'static str, String), Vec<&str>> = BTreeMap::new();
    for view in views {
        for text in texts(&view.document) {
            by_text.entry(text).or_default().push(&view.id);
        }
    }
    let shared = by_text.into_iter().filter(|(_, ids)| ids.len() > 1);
    let told = shared.map(|((field, value), ids)| Conflict {
        resource_kind: kind.name,
        field,
        value,
        serving: ids[0].to_owned(),
        shadowed: ids[1..].iter().map(|id| (*id).to_owned()).collect(),
    });
    told.collect()
}
