//! Whether a draft fits together: names are unique, references hold, nobody
//! needs what goes.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::draft::{Change, Draft};
use super::{Dependant, EditError, FieldError, MAX_PROBLEMS, Refusal};
use crate::resource::{By, Identity, KINDS, Links, ResourceKind, kind_of, visit_refs};
use crate::store::{read_stored, shortened};

impl Draft<'_> {
    /// Checks that names are unique and that references hold.
    pub(super) fn check(&self) -> Result<(), EditError> {
        let mut taken = self.taken_texts();
        let mut targets = Targets::default();
        let mut links = None;
        for change in self.changes.values() {
            let fail = |refusal| EditError { at: change.at, refusal };
            let Some((_, document)) = &change.after else {
                self.nobody_needs(change, None, &mut targets).map_err(fail)?;
                continue;
            };
            if let Some(text) = taken.remove(&(change.kind.name, change.id.clone())) {
                return Err(fail(Refusal::Taken(text)));
            }
            self.references_hold(change, document, &mut targets).map_err(fail)?;
            self.no_cycle(change, document, &mut links).map_err(fail)?;
            self.nobody_needs(change, change.kind.identity(document), &mut targets).map_err(fail)?;
        }
        Ok(())
    }

    /// The changes whose document has got what another resource has: by kind
    /// and id, with the text.
    fn taken_texts(&self) -> HashMap<(&'static str, String), String> {
        let mut found = HashMap::new();
        for kind in KINDS.iter().copied() {
            let mut wanted: HashMap<&'static str, HashMap<String, Vec<&str>>> = HashMap::new();
            for change in self.changes.values().filter(|change| change.kind == kind) {
                // What it had before was its own.
                let before: Vec<_> =
                    change.before_document().map(|before| own_texts(kind, &before)).unwrap_or_default();
                let after = change.after.iter().flat_map(|(_, document)| own_texts(kind, document));
                for (label, text) in after.filter(|text| !before.contains(text)) {
                    wanted.entry(label).or_default().entry(text).or_default().push(&change.id);
                }
            }
            if wanted.is_empty() {
                continue;
            }
            let fields: Vec<&'static str> =
                kind.unique_fields().filter(|field| wanted.contains_key(field)).collect();
            let others = wanted.len() > fields.len();
            self.each(kind, |id, document| {
                let mut see = |label: &'static str, text: &str| {
                    let changes = wanted.get(label).and_then(|texts| texts.get(text));
                    for change in changes.into_iter().flatten().filter(|change| **change != id) {
                        // What it is called says more than what else it has.
                        let place = (kind.name, (*change).to_owned());
                        found.entry(place).or_insert_with(|| text.to_owned());
                    }
                };
                for field in &fields {
                    if let Some(text) = document[*field].as_str() {
                        see(field, text);
                    }
                }
                if others {
                    special_texts(kind, document).iter().for_each(|(label, text)| see(label, text));
                }
            });
        }
        found
    }

    /// Every resource of a kind as it would be: id and document.
    fn each(&self, kind: &'static ResourceKind, mut see: impl FnMut(&str, &Value)) {
        let own = || self.changes.values().filter(|change| change.kind == kind);
        let changed: HashSet<&str> = own().map(|change| change.id.as_str()).collect();
        self.set.each(kind, &mut |id, document| {
            if !changed.contains(id) {
                see(id, document);
            }
        });
        for change in own() {
            if let Some((_, document)) = &change.after {
                see(&change.id, document);
            }
        }
    }

    fn references_hold(
        &self,
        change: &Change,
        document: &Value,
        targets: &mut Targets,
    ) -> Result<(), Refusal> {
        let mut errors = Vec::new();
        // What led nowhere before may stay so.
        let mut before = HashSet::new();
        if let Some(mut document) = change.before_document() {
            visit_refs(change.kind, &mut document, &mut |site| {
                before.insert((site.kind, site.path, site.target.clone()));
            });
        }
        visit_refs(change.kind, &mut document.clone(), &mut |site| {
            let known = before.contains(&(site.kind, site.path.clone(), site.target.clone()));
            if known || !site.checked || targets.has(self, site.kind, site.by, site.target) {
                return;
            }
            let what = kind_of(site.kind).map_or(site.kind, |kind| kind.title);
            let pointer = format!("/{}", site.path.replace(['.', '['], "/").replace(']', ""));
            if errors.len() < MAX_PROBLEMS {
                let target = shortened(site.target);
                let message = format!("`{}` references unknown {what} {target:?}", shortened(&site.path));
                errors.push(FieldError { message, path: pointer });
            }
        });
        if errors.is_empty() { Ok(()) } else { Err(Refusal::Invalid(errors)) }
    }

    /// Nobody refers to a resource that is gone, or by a name that it had.
    fn nobody_needs(
        &self,
        change: &Change,
        name: Option<String>,
        targets: &mut Targets,
    ) -> Result<(), Refusal> {
        let Some(before) = &change.before else { return Ok(()) };
        let old = read_stored(change.kind, &before.value).ok();
        let old_name = old.and_then(|(document, _)| change.kind.identity(&document));
        let gone_id = change.after.is_none();
        let gone_name = old_name.clone().filter(|old| name.as_ref() != Some(old));
        if !gone_id && gone_name.is_none() {
            return Ok(());
        }
        let mut dependants = Vec::new();
        for kind in KINDS.iter().copied().filter(|kind| kind.may_refer_to(change.kind.name)) {
            self.each(kind, |id, document| {
                // Most documents need not be looked at closely.
                let by_id = gone_id && kind.mentions(document, &change.id);
                if !by_id && !gone_name.as_ref().is_some_and(|name| kind.mentions(document, name)) {
                    return;
                }
                visit_refs(kind, &mut document.clone(), &mut |site| {
                    let meant = site.kind == change.kind.name
                        && match site.by {
                            By::Id => gone_id && *site.target == change.id,
                            By::Name | By::Pattern => {
                                gone_name.as_deref() == Some(site.target.as_str())
                                    && !targets.has(self, site.kind, site.by, site.target)
                            }
                        };
                    if meant {
                        let name = kind.identity(document);
                        dependants.push(Dependant { kind, id: id.to_owned(), name, field: site.path });
                    }
                });
            });
        }
        if dependants.is_empty() {
            return Ok(());
        }
        Err(Refusal::Referenced { name: old_name.unwrap_or_else(|| change.id.clone()), dependants })
    }

    /// A model does not lead back to itself. What models name is gathered when
    /// a changed one names any.
    fn no_cycle(&self, change: &Change, document: &Value, links: &mut Option<Links>) -> Result<(), Refusal> {
        const SHAPES: [&str; 3] = ["routing", "ensemble", "semantic"];
        if change.kind.name != "models" || SHAPES.iter().all(|shape| document.get(shape).is_none()) {
            return Ok(());
        }
        // What led back before may stay so.
        let same = |before: Value| {
            let mut fields = SHAPES.iter().chain(&["display_name"]);
            fields.all(|field| before.get(field) == document.get(field))
        };
        if change.before_document().is_some_and(same) {
            return Ok(());
        }
        let links = links.get_or_insert_with(|| {
            let mut links = Links::default();
            self.each(change.kind, |_, document| links.add(document));
            links
        });
        match links.complaint(document) {
            Some(message) => Err(Refusal::Invalid(vec![FieldError { message, path: String::new() }])),
            None => Ok(()),
        }
    }
}

/// The ids and names that references may lead to, gathered kind by kind when
/// they are asked for.
#[derive(Default)]
struct Targets(HashMap<&'static str, (HashSet<String>, HashSet<String>)>);

impl Targets {
    fn has(&mut self, draft: &Draft<'_>, kind: &str, by: By, target: &str) -> bool {
        if by == By::Pattern && target.contains('*') {
            return true;
        }
        let Some(kind) = kind_of(kind) else { return false };
        let (ids, names) = self.0.entry(kind.name).or_insert_with(|| {
            let (mut ids, mut names) = (HashSet::new(), HashSet::new());
            draft.each(kind, |id, document| {
                ids.insert(id.to_owned());
                names.extend(kind.identity(document));
            });
            (ids, names)
        });
        if by == By::Id { ids.contains(target) } else { names.contains(target) }
    }
}

/// What no other resource of the kind may have: what it is called, and the text.
fn own_texts(kind: &ResourceKind, document: &Value) -> Vec<(&'static str, String)> {
    let fields = kind.unique_fields();
    let mut texts: Vec<_> =
        fields.filter_map(|field| Some((field, document[field].as_str()?.to_owned()))).collect();
    texts.extend(special_texts(kind, document));
    texts
}

/// Those that are not the value of a field.
fn special_texts(kind: &ResourceKind, document: &Value) -> Vec<(&'static str, String)> {
    let mut texts = (kind.exclusive)(document);
    if !matches!(kind.identity, Identity::Field(_)) {
        texts.extend(kind.identity(document).map(|identity| ("identity", identity)));
    }
    texts
}
