//! The documents of a store as the gateway knows them: what was seen last,
//! what is served, and why the two differ.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use aisix_core::rows::{Change, Image, Pinned, RawRow};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::status::{FieldCount, NotEnforced, Rejected, rfc3339, shortened};
use crate::file::{ErrorKind, hex};
use crate::resource::{ResourceKind, ResourceSet, kind_of};
use crate::schema::{Checked, Fault, Mode};
use crate::tree::parse_json;

/// The most refused documents that are told.
const MAX_REJECTIONS: usize = 256;
/// The most sets of passed-over fields that the log tells.
const MAX_TOLD: usize = 1024;
/// The most passed-over fields that are kept of a document.
const MAX_FIELDS: usize = 64;

struct Row {
    newest: RawRow,
    serving: Serving,
    refusal: Option<Refusal>,
    first_seen: SystemTime,
    last_seen: SystemTime,
    ignored: Vec<String>,
    unenforced: Vec<&'static str>,
}

enum Serving {
    Newest,
    /// The newest is refused, so the last good one stays.
    Pinned(Pinned),
    Nothing,
}

/// Why a document is not served. The text never quotes values of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) kind: String,
    pub(super) id: String,
    pub(super) error: ErrorKind,
    pub(super) message: String,
}

/// What was observed and what is served; the same on a clean load.
#[derive(Clone, Debug)]
pub(super) struct Hashes {
    pub(super) source: String,
    pub(super) config: String,
}

/// What a step did.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// The set is not the same any more.
    pub(super) touched: bool,
    /// A served document is not the same any more.
    pub(super) changed: bool,
    pub(super) refusals: Vec<Refusal>,
    /// Kinds that there is something to tell about.
    pub(super) kinds: BTreeSet<&'static str>,
}

/// All documents by key.
pub(super) struct Table {
    /// What stands before the keys in the store.
    prefix: String,
    rows: BTreeMap<String, Row>,
    /// The keys of refused documents.
    refused: BTreeSet<String>,
    /// Passed-over fields that the log has told.
    told: BTreeSet<(&'static str, Vec<String>)>,
    hashes: Option<Hashes>,
}

impl Table {
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix, rows: BTreeMap::new(), refused: BTreeSet::new(), told: BTreeSet::new(), hashes: None }
    }

    /// Takes over an image from an earlier run.
    pub(super) fn restore(&mut self, image: Image, set: &mut ResourceSet) -> Step {
        let mut step = Step::default();
        for pinned in image.pinned {
            let key = pinned.row.key.clone();
            self.put(pinned.row.clone(), set, &mut step);
            if let Some(row) = self.rows.get_mut(&key).filter(|row| row.refusal.is_none()) {
                row.serving = Serving::Pinned(pinned);
            }
        }
        for row in image.rows {
            self.put(row, set, &mut step);
        }
        step
    }

    /// Every document of the store. What is not there any more is removed.
    pub(super) fn replace(&mut self, rows: Vec<RawRow>, set: &mut ResourceSet) -> Step {
        let mut step = Step::default();
        let mut gone: BTreeSet<String> = self.rows.keys().cloned().collect();
        for row in rows {
            gone.remove(&row.key);
            self.put(row, set, &mut step);
        }
        for key in gone {
            self.delete(&key, set, &mut step);
        }
        step
    }

    pub(super) fn change(&mut self, changes: Vec<Change>, set: &mut ResourceSet) -> Step {
        let mut step = Step::default();
        for change in changes {
            match change {
                Change::Put(row) => self.put(row, set, &mut step),
                Change::Delete { key } => self.delete(&key, set, &mut step),
            }
        }
        step
    }

    fn put(&mut self, newest: RawRow, set: &mut ResourceSet, step: &mut Step) {
        let now = SystemTime::now();
        if let Some(row) = self.rows.get_mut(&newest.key)
            && row.newest == newest
        {
            row.last_seen = now;
            step.refusals.extend(row.refusal.clone());
            return;
        }
        self.hashes = None;
        let old = self.rows.remove(&newest.key);
        let served = old.as_ref().and_then(Row::served);
        let first_seen = old.as_ref().filter(|old| old.refusal.is_some()).map(|old| old.first_seen);
        let mut row = Row {
            serving: Serving::Newest,
            refusal: None,
            first_seen: first_seen.unwrap_or(now),
            last_seen: now,
            ignored: Vec::new(),
            unenforced: Vec::new(),
            newest,
        };
        match take(&row.newest, set) {
            Ok((ignored, unenforced)) => {
                step.touched = true;
                step.changed |= served.is_none_or(|served| !same(&served.value, &row.newest.value));
                row.ignored = bounded(ignored);
                row.unenforced = unenforced;
            }
            Err(refusal) => {
                step.refusals.push(refusal.clone());
                row.refusal = Some(refusal);
                row.serving = match (old.map(|old| (old.serving, old.newest)), now) {
                    (Some((Serving::Newest, good)), since) => Serving::Pinned(Pinned { row: good, since }),
                    (Some((serving, _)), _) => serving,
                    (None, _) => Serving::Nothing,
                };
                // Whoever mends it has to name the revision that is there.
                if let Serving::Pinned(pinned) = &row.serving {
                    let shown = RawRow { revision: row.newest.revision, ..pinned.row.clone() };
                    step.touched |= take(&shown, set).is_ok();
                }
            }
        }
        if row.refusal.is_some() {
            self.refused.insert(row.newest.key.clone());
        } else {
            self.refused.remove(&row.newest.key);
        }
        if let Some(refusal) = &row.refusal {
            step.kinds.insert(row.refused_kind(refusal));
        }
        if let Some(kind) = row.known_kind().filter(|_| !row.ignored.is_empty()) {
            step.kinds.insert(kind);
            // The first document of its sort stands for the others.
            if self.told.len() < MAX_TOLD && self.told.insert((kind, row.ignored.clone())) {
                let (key, fields) = (shortened(&row.newest.key), row.ignored.join(", "));
                tracing::warn!(key, fields, "fields of a document are passed over");
            }
        }
        self.rows.insert(row.newest.key.clone(), row);
    }

    fn delete(&mut self, key: &str, set: &mut ResourceSet, step: &mut Step) {
        let Some(row) = self.rows.remove(key) else { return };
        self.hashes = None;
        self.refused.remove(key);
        if row.served().is_some()
            && let Some((kind, id)) = split(key).and_then(|(kind, id)| Some((kind_of(kind)?, id)))
        {
            set.remove(kind, id);
            (step.touched, step.changed) = (true, true);
        }
    }

    /// The newest value of a document and its revision, whether or not it is served.
    pub(super) fn newest(&self, key: &str) -> Option<&RawRow> {
        self.rows.get(key).map(|row| &row.newest)
    }

    /// The version of a document that is served.
    pub(super) fn served_row(&self, key: &str) -> Option<&RawRow> {
        self.rows.get(key).and_then(Row::served)
    }

    /// What is served, as it is stored.
    pub(super) fn served(&self) -> impl Iterator<Item = &RawRow> {
        self.rows.values().filter_map(Row::served)
    }

    /// Everything, for a start without the store.
    pub(super) fn image(&self, revision: u64, confirmed: Option<SystemTime>) -> Image {
        let pinned = |row: &Row| match &row.serving {
            Serving::Pinned(pinned) => Some(pinned.clone()),
            _ => None,
        };
        Image {
            revision,
            rows: self.rows.values().map(|row| row.newest.clone()).collect(),
            pinned: self.rows.values().filter_map(pinned).collect(),
            confirmed,
        }
    }

    pub(super) fn hashes(&mut self) -> Hashes {
        if self.hashes.is_none() {
            let (mut source, mut config) = (Sha256::new(), Sha256::new());
            for row in self.rows.values() {
                let newest = canonical(&row.newest.value);
                hash_row(&mut source, &self.prefix, &row.newest.key, &newest);
                match &row.serving {
                    Serving::Newest => hash_row(&mut config, &self.prefix, &row.newest.key, &newest),
                    Serving::Pinned(pinned) => {
                        let served = canonical(&pinned.row.value);
                        hash_row(&mut config, &self.prefix, &row.newest.key, &served);
                    }
                    Serving::Nothing => {}
                }
            }
            self.hashes = Some(Hashes { source: hex(&source.finalize()), config: hex(&config.finalize()) });
        }
        self.hashes.clone().unwrap_or_else(|| Hashes { source: String::new(), config: String::new() })
    }

    /// Documents of known kinds of which no version is served.
    pub(super) fn refused(&self) -> Vec<(&'static ResourceKind, String)> {
        let rows = self.refused.iter().filter_map(|key| self.rows.get(key));
        let rows = rows.filter(|row| row.served().is_none());
        let split = rows.filter_map(|row| split(&row.newest.key));
        split.filter_map(|(kind, id)| Some((kind_of(kind)?, id.to_owned()))).collect()
    }

    pub(super) fn has_refusals(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Every refused document, by kind and id.
    pub(super) fn rejected(&self, now: SystemTime) -> Vec<Rejected> {
        let refused = self.refused.iter().filter_map(|key| self.rows.get(key));
        let mut refused: Vec<(&Row, &Refusal)> =
            refused.filter_map(|row| Some((row, row.refusal.as_ref()?))).collect();
        refused.sort_by_key(|(row, _)| std::cmp::Reverse(row.first_seen));
        refused.truncate(MAX_REJECTIONS);
        refused.sort_by_key(|(_, refusal)| (&refusal.kind, &refusal.id));
        let told = refused.into_iter().map(|(row, refusal)| {
            let since = match &row.serving {
                Serving::Pinned(pinned) => Some(pinned.since),
                _ => None,
            };
            let age = since.map(|since| now.duration_since(since).unwrap_or_default().as_secs());
            Rejected {
                resource_kind: refusal.kind.clone(),
                resource_id: refusal.id.clone(),
                last_error_kind: refusal.error,
                last_error: refusal.message.clone(),
                first_seen_at: rfc3339(row.first_seen),
                last_seen_at: rfc3339(row.last_seen),
                serving_stale_since: since.map(rfc3339),
                serving_stale_age_seconds: age,
            }
        });
        told.collect()
    }

    /// How many documents of each kind are refused, are served from an older
    /// value, and have passed-over fields.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for row in self.rows.values() {
            let kind = row.known_kind();
            if let Some(refusal) = &row.refusal {
                *counts.rejected.entry(row.refused_kind(refusal)).or_default() += 1;
            }
            let Some(kind) = kind else { continue };
            if matches!(row.serving, Serving::Pinned(_)) && row.refusal.is_some() {
                *counts.stale.entry(kind).or_default() += 1;
            }
            if !row.ignored.is_empty() {
                *counts.partial.entry(kind).or_default() += 1;
            }
        }
        counts
    }

    /// Fields that are passed over, and in how many documents.
    pub(super) fn partially_compatible(&self) -> Vec<FieldCount> {
        let mut counts: BTreeMap<(&'static str, &str), usize> = BTreeMap::new();
        for row in self.rows.values() {
            let Some(kind) = row.known_kind() else { continue };
            for field in &row.ignored {
                *counts.entry((kind, field)).or_default() += 1;
            }
        }
        let told = counts.into_iter();
        told.map(|((resource_kind, field), count)| FieldCount { resource_kind, field: field.into(), count })
            .collect()
    }

    /// What is accepted and not acted on.
    pub(super) fn not_enforced(&self, set: &ResourceSet) -> Vec<NotEnforced> {
        let fields = self.rows.values().flat_map(|row| {
            let kind = row.known_kind();
            row.unenforced.iter().filter_map(move |field| Some((kind?, *field)))
        });
        not_enforced(set, fields)
    }
}

/// Kinds that nothing acts on, and fields of the others.
pub(super) fn not_enforced(
    set: &ResourceSet,
    fields: impl IntoIterator<Item = (&'static str, &'static str)>,
) -> Vec<NotEnforced> {
    let mut counts: BTreeMap<(&'static str, Option<&'static str>), usize> = BTreeMap::new();
    for (kind, count) in set.counts() {
        if kind_of(kind).is_some_and(|kind| !kind.enforced) {
            counts.insert((kind, None), count);
        }
    }
    for (kind, field) in fields {
        *counts.entry((kind, Some(field))).or_default() += 1;
    }
    let told = counts.into_iter();
    told.map(|((resource_kind, field), count)| NotEnforced { resource_kind, field, count }).collect()
}

/// Documents of each kind.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) rejected: BTreeMap<&'static str, u64>,
    pub(super) stale: BTreeMap<&'static str, u64>,
    pub(super) partial: BTreeMap<&'static str, u64>,
}

impl Row {
    fn served(&self) -> Option<&RawRow> {
        match &self.serving {
            Serving::Newest => Some(&self.newest),
            Serving::Pinned(pinned) => Some(&pinned.row),
            Serving::Nothing => None,
        }
    }

    /// The label of a refusal: kinds of other versions have none of their own.
    fn refused_kind(&self, refusal: &Refusal) -> &'static str {
        if refusal.kind.is_empty() { "" } else { self.known_kind().unwrap_or("unknown") }
    }

    fn known_kind(&self) -> Option<&'static str> {
        split(&self.newest.key).and_then(|(kind, _)| kind_of(kind)).map(|kind| kind.name)
    }
}

fn split(key: &str) -> Option<(&str, &str)> {
    key.split_once('/').filter(|(kind, id)| !kind.is_empty() && !id.is_empty())
}

pub(crate) type Taken = (Vec<String>, Vec<&'static str>);

/// Reads a document and puts it into the set.
fn take(row: &RawRow, set: &mut ResourceSet) -> Result<Taken, Refusal> {
    let refuse = |kind: &str, id: &str, error, message: String| Refusal {
        kind: shortened(kind),
        id: shortened(id),
        error,
        message: shortened(&message),
    };
    let Some((name, id)) = split(&row.key) else {
        return Err(refuse("", "", ErrorKind::BadKey, "the key is not <prefix>/<kind>/<id>".into()));
    };
    let Some(kind) = kind_of(name) else {
        return Err(refuse(name, id, ErrorKind::UnknownKind, format!("unknown kind {:?}", shortened(name))));
    };
    let (document, taken) =
        read(kind, &row.value).map_err(|(error, message)| refuse(name, id, error, message))?;
    set.put(kind, id, row.revision, document).map_err(|_| {
        // The text of the error could quote the document.
        let message = "cannot decode canonical document: a field has an unexpected form";
        refuse(name, id, ErrorKind::Parse, message.into())
    })?;
    Ok(taken)
}

/// The canonical form of a stored document.
pub(crate) fn read(kind: &ResourceKind, value: &[u8]) -> Result<(Value, Taken), (ErrorKind, String)> {
    let text =
        std::str::from_utf8(value).map_err(|_| (ErrorKind::NonJson, "the value is not UTF-8".into()))?;
    let node =
        parse_json(text).map_err(|error| (ErrorKind::NonJson, format!("not JSON: {}", error.message)))?;
    let Checked { document, problems, ignored, unenforced } = kind.check(&node, Mode::Lenient);
    let Some(first) = problems.first() else {
        return Ok((document, (ignored, unenforced)));
    };
    let decode = problems.iter().all(|problem| matches!(problem.fault, Fault::Decode(_)));
    let error = if decode { ErrorKind::Parse } else { ErrorKind::Schema };
    Err((error, first.resource_text()))
}

fn bounded(mut fields: Vec<String>) -> Vec<String> {
    fields.sort_unstable();
    fields.dedup();
    if fields.len() > MAX_FIELDS {
        fields.truncate(MAX_FIELDS);
        fields.push("...truncated".to_owned());
    }
    fields
}

/// Whether two values say the same.
fn same(a: &[u8], b: &[u8]) -> bool {
    a == b || canonical(a) == canonical(b)
}

fn hash_row(hash: &mut Sha256, prefix: &str, key: &str, value: &[u8]) {
    hash.update(prefix);
    hash.update(key);
    hash.update([0]);
    hash.update(value);
    hash.update(b"\n");
}

/// JSON with sorted keys and without white space; other bytes as they are.
fn canonical(value: &[u8]) -> Vec<u8> {
    fn sorted(value: Value) -> Value {
        match value {
            Value::Object(members) => {
                let sorted: BTreeMap<String, Value> =
                    members.into_iter().map(|(key, value)| (key, sorted(value))).collect();
                Value::Object(sorted.into_iter().collect())
            }
            Value::Array(items) => items.into_iter().map(sorted).collect(),
            other => other,
        }
    }
    match serde_json::from_slice::<Value>(value) {
        Ok(parsed) => serde_json::to_vec(&sorted(parsed)).unwrap_or_else(|_| value.to_vec()),
        Err(_) => value.to_vec(),
    }
}

#[cfg(test)]
mod tests;
