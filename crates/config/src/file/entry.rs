//! The entries of one collection on their way from the file to resources.

use std::collections::HashMap;

use serde_json::Value;

use super::interpolate::fill;
use super::names::{Book, Names};
use super::{Env, ErrorKind, Loaded, Rejection, field_of, hash_field, line_suffix, name_field, singular};
use crate::resource::{By, Document, Identity, Links, ResourceKind, Site, derived_id, visit_refs};
use crate::schema::{Fault, Mode, Path, Problem};
use crate::tree::{Node, Origin};

/// One entry and what was found wrong with it so far.
pub(super) struct Entry {
    index: usize,
    pub(super) node: Node,
    identity: Option<String>,
    /// Places about which everything has been said.
    pub(super) settled: Vec<Path>,
    /// Fields that are written by another name, with that name before them.
    pub(super) spelt: Vec<(&'static str, &'static str)>,
    faults: Vec<(ErrorKind, String)>,
    /// The canonical document as far as the entry is in order, once checked.
    document: Value,
    unenforced: Vec<&'static str>,
}

/// One collection.
pub(super) struct Collection {
    kind: &'static ResourceKind,
    entries: Vec<Entry>,
}

impl Collection {
    /// Fills in the environment and finds the names.
    pub(super) fn open(kind: &'static ResourceKind, nodes: Vec<Node>, env: Env<'_>) -> Self {
        let entries = nodes.into_iter().enumerate();
        let entries = entries.map(|(index, node)| Entry::open(kind, index, node, env)).collect();
        let mut collection = Self { kind, entries };
        if !matches!(kind.identity, Identity::Made(_)) {
            collection.unique_identities();
        }
        collection
    }

    pub(super) fn names(&self) -> Names {
        Names::new(self.kind, self.entries.iter().map(|entry| entry.identity.as_deref()))
    }

    /// Replaces names by ids and the like.
    pub(super) fn expand(&mut self, book: &Book, env: Env<'_>) {
        for entry in &mut self.entries {
            entry.expand(self.kind, book, env);
        }
    }

    /// Checks every entry and its references.
    pub(super) fn check(&mut self, book: &Book) {
        for entry in self.entries.iter_mut().filter(|entry| entry.node.as_map().is_some()) {
            entry.check(self.kind);
            entry.references(self.kind, book);
            if matches!(self.kind.identity, Identity::Made(_)) && entry.faults.is_empty() {
                entry.identity = self.kind.identity(&entry.document);
            }
        }
        if matches!(self.kind.identity, Identity::Made(_)) {
            self.unique_identities();
        }
        self.unique_values();
        if self.kind.name == "models" {
            self.no_cycles();
        }
    }

    fn no_cycles(&mut self) {
        let mut links = Links::default();
        self.entries.iter().for_each(|entry| links.add(&entry.document));
        for entry in self.entries.iter_mut().filter(|entry| entry.faults.is_empty()) {
            entry.faults.extend(links.complaint(&entry.document).map(|why| (ErrorKind::Schema, why)));
        }
    }

    fn unique_identities(&mut self) {
        let kind = self.kind.name;
        let mut seen: HashMap<String, usize> = HashMap::new();
        for entry in &mut self.entries {
            let Some(identity) = &entry.identity else {
                continue;
            };
            let Some(first) = seen.get(identity) else {
                seen.insert(identity.clone(), entry.index);
                continue;
            };
            let first = format!("{kind}[{first}]");
            entry.fault(match self.kind.identity {
                Identity::Field(field) => {
                    format!("duplicate {kind} entry: {field} {identity:?} is already defined at {first}")
                }
                Identity::Singleton => {
                    format!("duplicate {kind} entry: there is at most one, and {first} is it")
                }
                Identity::Made(_) => format!("duplicate {kind} entry: it is about the same as {first}"),
            });
        }
    }

    /// What one resource has alone must not be in another one.
    fn unique_values(&mut self) {
        let mut seen: HashMap<(String, String), usize> = HashMap::new();
        for entry in &mut self.entries {
            for (what, value) in own_values(self.kind, &entry.document) {
                match seen.get(&(what.clone(), value.clone())) {
                    Some(first) => entry.fault(format!("{what} as {}[{first}]", self.kind.name)),
                    None => drop(seen.insert((what, value), entry.index)),
                }
            }
        }
    }

    /// Adds what is in order; one rejection per entry that is not.
    pub(super) fn finish(self, loaded: &mut Loaded) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        for mut entry in self.entries {
            entry.store(self.kind, loaded);
            if !entry.faults.is_empty() {
                rejections.push(entry.rejection(self.kind.name));
            }
        }
        rejections
    }
}

impl Entry {
    fn open(kind: &'static ResourceKind, index: usize, mut node: Node, env: Env<'_>) -> Self {
        let failed = fill(&mut node, env);
        let (settled, reasons): (Vec<_>, Vec<_>) = failed.into_iter().unzip();
        let faults = reasons.into_iter().map(|why| (ErrorKind::Schema, why)).collect();
        let (spelt, unenforced) = (Vec::new(), Vec::new());
        let (identity, document) = (None, Value::Null);
        let mut entry = Self { index, node, identity, settled, spelt, faults, document, unenforced };
        if entry.node.as_map().is_none() {
            entry.fault("entry must be a mapping".into());
            return entry;
        }
        match kind.identity {
            Identity::Field(field) => entry.name(kind, field),
            Identity::Singleton => entry.identity = Some(kind.name.to_owned()),
            // It is made of the complete document.
            Identity::Made(_) => {}
        }
        if entry.node.take("id").is_some() {
            let why = "the resources file does not accept `id` (ids are made from names)";
            entry.fault(why.into());
        }
        entry
    }

    fn name(&mut self, kind: &ResourceKind, field: &'static str) {
        let alias = field_of(kind, field).and_then(|row| row.alias);
        let mut spellings = [Some(field), alias].into_iter().flatten();
        let written = spellings.find(|name| self.node.get(name).is_some()).unwrap_or(field);
        if self.settled.contains(&Path::of(written)) {
            return;
        }
        let name = self.node.get(written).and_then(Node::as_str);
        self.identity = name.filter(|name| !name.is_empty()).map(str::to_owned);
        if self.identity.is_none() {
            self.fault(format!("{field} is required and must be a non-empty string"));
            self.settled.push(Path::of(written));
        }
    }

    pub(super) fn fault(&mut self, why: String) {
        self.faults.push((ErrorKind::Schema, why));
    }

    fn check(&mut self, kind: &'static ResourceKind) {
        let mut checked = kind.check(&self.node, Mode::Strict);
        checked.problems.retain(|problem| !self.explained(kind, problem));
        // What the entry as a whole lacks comes first.
        checked.problems.sort_by_key(|problem| !problem.path.0.is_empty());
        for problem in &checked.problems {
            let error = match problem.fault {
                Fault::Decode(_) => ErrorKind::Parse,
                _ => ErrorKind::Schema,
            };
            let mut text = problem.resource_text();
            if problem.origin != self.node.origin {
                text.push_str(&line_suffix(&problem.origin));
            }
            self.faults.push((error, text));
        }
        self.document = checked.document;
        self.unenforced = checked.unenforced;
        self.unenforced.sort_unstable();
        self.unenforced.dedup();
    }

    /// Whether an earlier stage has said it.
    fn explained(&self, kind: &'static ResourceKind, problem: &Problem) -> bool {
        let missing = match problem.fault {
            Fault::Required(name) => {
                let hash = hash_field(kind).map(|(hash, _)| hash);
                problem.path.0.is_empty() && (name_field(kind) == Some(name) || hash == Some(name))
            }
            _ => false,
        };
        missing || self.settled.contains(&problem.path)
    }

    /// Finds what the references name; where only an id may stand and a file
    /// has no other spelling, a name is replaced by its id.
    fn references(&mut self, kind: &'static ResourceKind, book: &Book) {
        let mut document = std::mem::take(&mut self.document);
        let settled: Vec<_> = self.settled.iter().map(Path::dotted).collect();
        let spelt = std::mem::take(&mut self.spelt);
        visit_refs(kind, &mut document, &mut |mut site| {
            let Some(names) = book.of(site.kind).filter(|_| !settled.contains(&site.path)) else {
                return;
            };
            if let Some((sugar, _)) = spelt.iter().find(|(_, field)| *field == site.path) {
                site.path = (*sugar).to_owned();
            }
            if let Some(why) = refer(kind, site, names) {
                self.fault(why);
            }
        });
        self.document = document;
    }

    /// Types the resource.
    fn store(&mut self, kind: &'static ResourceKind, loaded: &mut Loaded) {
        let (true, Some(identity)) = (self.faults.is_empty(), &self.identity) else {
            return;
        };
        let id = derived_id(kind.name, identity);
        if loaded.set.put(kind, &id, 1, self.document.clone()).is_err() {
            // The text of the error could quote the document.
            let why = "cannot decode canonical document: a field has an unexpected form";
            self.faults.push((ErrorKind::Parse, why.into()));
            return;
        }
        if !kind.enforced {
            *loaded.unenforced.entry((kind.name, None)).or_default() += 1;
        } else {
            for field in &self.unenforced {
                *loaded.unenforced.entry((kind.name, Some(field))).or_default() += 1;
            }
        }
        loaded.documents.push(Document { kind, id, value: std::mem::take(&mut self.document) });
    }

    fn rejection(self, kind: &'static str) -> Rejection {
        let parse_only = self.faults.iter().all(|(kind, _)| *kind == ErrorKind::Parse);
        let messages: Vec<_> = self.faults.into_iter().map(|(_, why)| why).collect();
        let mut scope = format!("{kind}[{}]", self.index);
        if let Some(identity) = &self.identity {
            scope.push_str(&format!(" ({identity:?})"));
        }
        if let Origin::Line(line) = self.node.origin {
            scope.push_str(&format!(" at line {line}"));
        }
        Rejection {
            kind,
            id: self.identity.unwrap_or_default(),
            error: if parse_only { ErrorKind::Parse } else { ErrorKind::Schema },
            scope,
            message: messages.join("; "),
        }
    }
}

/// What a resource has alone, besides its name, and how a message about
/// another one with it begins.
fn own_values(kind: &ResourceKind, document: &Value) -> Vec<(String, String)> {
    let others = kind.unique.iter().filter(|field| name_field(kind) != Some(field));
    let values = others.filter_map(|field| {
        let value = document[field].as_str().filter(|value| !value.is_empty())?;
        let what = match hash_field(kind) {
            Some((hash, _)) if hash == *field => {
                format!("duplicate {} credential: the same key", singular(kind.name))
            }
            _ => format!("duplicate {field}: the same"),
        };
        Some((what, value.to_owned()))
    });
    let exclusive = (kind.exclusive)(document).into_iter();
    values.chain(exclusive.map(|(what, value)| (format!("{what}: the same"), value))).collect()
}

/// Looks a reference up; gives what is wrong with it.
fn refer(kind: &ResourceKind, site: Site<'_>, names: &Names) -> Option<String> {
    let Site { path, target, .. } = site;
    if site.by == By::Pattern && target.contains('*') {
        return None;
    }
    if site.by != By::Id {
        let why = names.unknown(target).filter(|_| site.checked)?;
        return Some(format!("`{path}` references {why}"));
    }
    let generic = generic(&path);
    let sugar = kind.refs.iter().find(|reference| reference.path == generic).and_then(|r| r.sugar);
    if sugar.is_none() && names.has(target) {
        *target = derived_id(names.kind.name, target);
        return None;
    }
    // The schema speaks about an empty id.
    if !site.checked || target.is_empty() || names.may_have_id(target) {
        return None;
    }
    let Some(sugar) = sugar else {
        return names.unknown(target).map(|why| format!("`{path}` references {why}"));
    };
    let what = singular(names.kind.name);
    let name = name_field(names.kind).unwrap_or("name");
    Some(format!(
        "`{path}` references unknown {what}: it must be the id made from a name of this file; \
         write `{sugar}: <{name}>`"
    ))
}

/// `a[0].b` as `a[].b`.
fn generic(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        inside = c == '[' || inside && c != ']';
        if !inside || c == '[' {
            out.push(c);
        }
    }
    out
}
