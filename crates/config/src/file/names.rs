//! What the entries of a file are called, for references to them.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use super::singular;
use crate::resource::{ResourceKind, derived_id};

/// The most names that a message lists.
const MAX_LISTED: usize = 30;

/// The names of every collection.
pub(super) struct Book(HashMap<&'static str, Names>);

impl Book {
    pub(super) fn new(names: impl Iterator<Item = Names>) -> Self {
        Self(names.map(|names| (names.kind.name, names)).collect())
    }

    pub(super) fn of(&self, kind: &str) -> Option<&Names> {
        self.0.get(kind)
    }
}

/// The names of a collection.
pub(super) struct Names {
    pub(super) kind: &'static ResourceKind,
    /// In the order of the file, for messages.
    listed: Vec<String>,
    known: HashSet<String>,
    ids: OnceCell<HashSet<String>>,
    /// An entry has no usable name, so an unknown name may well be its.
    open: bool,
}

impl Names {
    /// `None` stands for an entry without a usable name.
    pub(super) fn new<'a>(
        kind: &'static ResourceKind,
        names: impl Iterator<Item = Option<&'a str>> + Clone,
    ) -> Self {
        let given = names.clone().flatten().map(str::to_owned);
        Self {
            kind,
            listed: given.clone().take(MAX_LISTED).map(legible).collect(),
            known: given.collect(),
            ids: OnceCell::new(),
            open: names.into_iter().any(|name| name.is_none()),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.known.contains(name)
    }

    /// Whether an id is, or may be, made from one of these names.
    pub(super) fn may_have_id(&self, id: &str) -> bool {
        let made = || self.known.iter().map(|name| derived_id(self.kind.name, name)).collect();
        self.open || self.ids.get_or_init(made).contains(id)
    }

    /// Why a name is not among these, for a message.
    pub(super) fn unknown(&self, name: &str) -> Option<String> {
        if self.open || self.has(name) {
            return None;
        }
        let kind = self.kind.name;
        let defined = match self.listed.join(", ") {
            listed if listed.is_empty() => format!("no {kind} are defined in this file"),
            listed if self.known.len() > self.listed.len() => {
                format!("defined {kind}: {listed}, ...")
            }
            listed => format!("defined {kind}: {listed}"),
        };
        Some(format!("unknown {} {name:?} ({defined})", singular(kind)))
    }
}

/// A name as it is, unless it would spoil the line.
fn legible(name: String) -> String {
    let quoted = format!("{name:?}");
    if quoted.len() == name.len() + 2 { name } else { quoted }
}
