//! What the configuration would be after some changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aisix_core::rows::{AuditChange, Edit, Expect, RawRow};
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::secrets::{generate, unmask};
use super::{Done, FieldError, MAX_GRACE, MAX_PROBLEMS, Operation, Refusal, Request, split};
use crate::file::hex;
use crate::plan::{self, Plan};
use crate::resource::{Document, ResourceKind, ResourceSet, kind_of};
use crate::schema::{Fault, Mode, Problem, Seg};
use crate::store::{ConfigState, now_rfc3339, read_stored};
use crate::tree::Node;

/// The caller keys, which the server can make secrets for.
const CALLER_KEYS: &str = "api_keys";
/// How much of a secret is kept, to recognise it by.
const PREFIX: usize = 8;

/// One row that would change.
pub(super) struct Change {
    pub(super) kind: &'static ResourceKind,
    pub(super) id: String,
    /// The change that made it.
    pub(super) at: usize,
    pub(super) before: Option<RawRow>,
    /// As it would be stored, and its canonical form; `None` = gone.
    pub(super) after: Option<(Bytes, Value)>,
}

impl Change {
    /// The document that it changes, if it can be read.
    pub(super) fn before_document(&self) -> Option<Value> {
        let row = self.before.as_ref()?;
        read_stored(self.kind, &row.value).ok().map(|(document, _)| document)
    }
}

/// What the configuration would be.
pub(super) struct Draft<'s> {
    state: &'s ConfigState,
    pub(super) set: Arc<ResourceSet>,
    /// What was read of the store: each row once, so that a row that changes
    /// meanwhile is noticed by the commit.
    read: BTreeMap<String, Option<RawRow>>,
    pub(super) changes: BTreeMap<String, Change>,
    taken: usize,
    /// Whether fields of other versions stay in documents that hold them.
    kept: bool,
}

impl<'s> Draft<'s> {
    pub(super) fn new(state: &'s ConfigState) -> Self {
        Self {
            state,
            set: state.current(),
            read: BTreeMap::new(),
            changes: BTreeMap::new(),
            taken: 0,
            kept: false,
        }
    }

    /// The revision that everything was checked against.
    pub(super) fn base(&self) -> u64 {
        self.set.revision
    }

    /// Takes a change.
    pub(super) fn take(&mut self, request: &Request) -> Result<Done, Refusal> {
        let done = match &request.operation {
            Operation::Create { kind, id, value } => self.create(kind, id.as_deref(), value.clone()),
            Operation::Replace { kind, id, value } => {
                let stored = self.existing(kind, id, request.if_match)?;
                self.write(kind, id, value.clone(), Some(&stored), None)
            }
            Operation::Patch { kind, id, patch } => {
                let stored = self.existing(kind, id, request.if_match)?;
                let mut value = stored.clone();
                rename_aliases(kind, &mut value);
                let mut patch = patch.clone();
                rename_aliases(kind, &mut patch);
                merge(&mut value, patch);
                self.kept = true;
                let done = self.write(kind, id, value, Some(&stored), None);
                self.kept = false;
                done
            }
            Operation::Delete { kind, id } => {
                self.existing(kind, id, request.if_match)?;
                self.put(kind, id, None);
                Ok(Done::Deleted { kind, id: id.clone() })
            }
            Operation::Rotate { id, grace } => self.rotate(id, *grace, request.if_match),
        };
        self.taken += 1;
        done
    }

    /// Drops the changes.
    pub(super) fn forget(&mut self) {
        self.changes.clear();
    }

    /// Brings back stored rows as they were.
    pub(super) fn restore(&mut self, rows: &[RawRow]) -> Vec<Done> {
        let mut done = Vec::new();
        let mut wanted: BTreeMap<&str, &RawRow> = rows.iter().map(|row| (row.key.as_str(), row)).collect();
        for now in self.state.image().map(|image| image.rows).unwrap_or_default() {
            let Some((kind, id)) = split(&now.key) else { continue };
            match wanted.remove(now.key.as_str()) {
                Some(old) if old.value == now.value => {}
                Some(old) => done.extend(self.bring_back(kind, id, old)),
                None => {
                    self.put(kind, id, None);
                    done.push(Done::Deleted { kind, id: id.to_owned() });
                }
            }
        }
        for (key, old) in wanted {
            if let Some((kind, id)) = split(key) {
                done.extend(self.bring_back(kind, id, old));
            }
        }
        done
    }

    fn bring_back(&mut self, kind: &'static ResourceKind, id: &str, old: &RawRow) -> Option<Done> {
        let (document, _) = read_stored(kind, &old.value).ok()?;
        let masked = kind.masked(&document);
        self.put(kind, id, Some((old.value.clone(), document)));
        Some(Done::Written { kind, id: id.to_owned(), document: masked, revision: 0, plaintext: None })
    }

    fn create(
        &mut self,
        kind: &'static ResourceKind,
        id: Option<&str>,
        mut value: Value,
    ) -> Result<Done, Refusal> {
        let id = id.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
        // A stored document that is refused may be written over.
        let there = match self.changes.get(&format!("{}/{id}", kind.name)) {
            Some(change) => change.after.is_some(),
            None => self.set.view(kind, &id).is_some(),
        };
        if there {
            return Err(Refusal::Taken(id));
        }
        let mut plaintext = None;
        if kind.name == CALLER_KEYS
            && let Some(members) = value.as_object_mut()
            && members.get("key_hash").is_none_or(Value::is_null)
        {
            let secret = generate();
            members.insert("key_hash".into(), digest(&secret).into());
            members.insert("key_prefix".into(), secret[..PREFIX].into());
            plaintext = Some(secret);
        }
        self.write(kind, &id, value, None, plaintext)
    }

    /// A new secret for a caller key; the old one works on for the grace time.
    fn rotate(&mut self, id: &str, grace: Duration, if_match: Option<u64>) -> Result<Done, Refusal> {
        let Some(kind) = kind_of(CALLER_KEYS) else { return Err(Refusal::NotFound) };
        let stored = self.existing(kind, id, if_match)?;
        if grace > MAX_GRACE {
            let message = format!("must be at most {} seconds", MAX_GRACE.as_secs());
            return Err(Refusal::Invalid(vec![FieldError { path: "/grace_seconds".into(), message }]));
        }
        let secret = generate();
        let mut value = stored.clone();
        let patch = match grace.is_zero() {
            true => json!({"previous_key_hash": null, "previous_key_expires_at": null}),
            false => json!({
                "previous_key_hash": stored["key_hash"],
                "previous_key_expires_at": now_rfc3339(SystemTime::now() + grace),
            }),
        };
        merge(&mut value, patch);
        merge(&mut value, json!({"key_hash": digest(&secret), "key_prefix": &secret[..PREFIX]}));
        self.write(kind, id, value, Some(&stored), Some(secret))
    }

    /// The stored document of a resource that must be there.
    fn existing(
        &mut self,
        kind: &'static ResourceKind,
        id: &str,
        if_match: Option<u64>,
    ) -> Result<Value, Refusal> {
        let key = format!("{}/{id}", kind.name);
        let row = match self.changes.get(&key) {
            Some(change) => {
                let (bytes, _) = change.after.as_ref().ok_or(Refusal::NotFound)?;
                // Changed by the same request: what was read is what the store held before.
                let revision = change.before.as_ref().map_or(0, |before| before.revision);
                RawRow { key, revision, value: bytes.clone() }
            }
            None => self.stored(&key).ok_or(Refusal::NotFound)?,
        };
        if if_match.is_some_and(|expected| expected != row.revision) {
            return Err(Refusal::Changed);
        }
        // A document that is none can still be replaced or deleted.
        Ok(serde_json::from_slice(&row.value).unwrap_or_default())
    }

    /// A row as the store holds it.
    fn stored(&mut self, key: &str) -> Option<RawRow> {
        if let Some(known) = self.read.get(key) {
            return known.clone();
        }
        let row = self.state.newest(key);
        self.read.insert(key.to_owned(), row.clone());
        row
    }

    /// Checks a document and takes it.
    fn write(
        &mut self,
        kind: &'static ResourceKind,
        id: &str,
        mut value: Value,
        stored: Option<&Value>,
        plaintext: Option<String>,
    ) -> Result<Done, Refusal> {
        if let Some(stored) = stored {
            rename_aliases(kind, &mut value);
            let mut stored = stored.clone();
            rename_aliases(kind, &mut stored);
            unmask(kind, &mut value, &stored);
            if kind.name == CALLER_KEYS && plaintext.is_none() {
                forget_secrets(&mut value, &stored);
            }
        }
        let checked = kind.check(&Node::of_json(value.clone()), Mode::Strict);
        let foreign = |problem: &&Problem| match &problem.fault {
            Fault::Unknown { name, .. } if self.kept => {
                let pointer = problem.path.with(Seg::Key(name.clone())).pointer();
                stored.is_some_and(|stored| stored.pointer(&pointer) == value.pointer(&pointer))
            }
            _ => false,
        };
        let told = checked.problems.iter().filter(|problem| !foreign(problem)).take(MAX_PROBLEMS);
        let mut errors: Vec<FieldError> = told.map(FieldError::of).collect();
        if errors.is_empty() {
            errors.extend(super::secrets::masked_secrets(kind, &checked.document).into_iter().map(|path| {
                let message =
                    format!("`{path}` is \"***\", which stands for a stored secret, and none is stored");
                FieldError { path, message }
            }));
        }
        if !errors.is_empty() {
            return Err(Refusal::Invalid(errors));
        }
        let mut probe = ResourceSet::default();
        if probe.put(kind, id, 0, checked.document.clone()).is_err() {
            let message = "cannot decode canonical document: a field has an unexpected form".to_owned();
            return Err(Refusal::Invalid(vec![FieldError { path: String::new(), message }]));
        }
        if let Some(members) = value.as_object_mut() {
            members.retain(|_, value| !value.is_null());
        }
        let bytes = serde_json::to_vec(&value).map(Bytes::from).unwrap_or_default();
        let document = kind.masked(&checked.document);
        self.put(kind, id, Some((bytes, checked.document)));
        Ok(Done::Written { kind, id: id.to_owned(), document, revision: 0, plaintext })
    }

    fn put(&mut self, kind: &'static ResourceKind, id: &str, after: Option<(Bytes, Value)>) {
        let key = format!("{}/{id}", kind.name);
        let before = match self.changes.remove(&key) {
            Some(earlier) => earlier.before,
            None => self.stored(&key),
        };
        self.changes.insert(key, Change { kind, id: id.to_owned(), at: self.taken, before, after });
    }

    /// What would change, for people.
    pub(super) fn plan(&self) -> Plan {
        plan::decided(self.changes.values().map(|change| {
            let document = |value: Value| Document { kind: change.kind, id: change.id.clone(), value };
            let before = change.before.as_ref().and_then(|row| read_stored(change.kind, &row.value).ok());
            let after = change.after.as_ref().map(|(_, value)| value.clone());
            (before.map(|(value, _)| document(value)), after.map(document))
        }))
    }

    /// The edits and their trace. What ends as it began is left out.
    pub(super) fn finish(&self) -> (Vec<Edit>, Vec<AuditChange>) {
        let mut edits = Vec::new();
        let mut trace = Vec::new();
        for (key, change) in &self.changes {
            let expect = match (&change.before, &change.after) {
                (None, None) => continue,
                (Some(before), Some((bytes, _))) if before.value == *bytes => continue,
                (Some(before), _) => Expect::Revision(before.revision),
                (None, Some(_)) => Expect::Absent,
            };
            let value = change.after.as_ref().map(|(bytes, _)| bytes.clone());
            edits.push(Edit { key: key.clone(), value, expect });
            let read = |row: &RawRow| read_stored(change.kind, &row.value).ok().map(|(document, _)| document);
            // Of a document that is refused, what was served instead.
            let served = || self.state.served(key).as_ref().and_then(read);
            let before = change.before.as_ref().and_then(|row| read(row).or_else(served));
            let after = change.after.as_ref().map(|(_, document)| document);
            trace.push(AuditChange {
                kind: change.kind.name.to_owned(),
                id: change.id.clone(),
                name: after.or(before.as_ref()).and_then(|document| change.kind.identity(document)),
                before: before.as_ref().map(|document| change.kind.masked(document)),
                after: after.map(|document| change.kind.masked(document)),
            });
        }
        (edits, trace)
    }

    /// Tells of each resource at which revision it was written, once the
    /// changes are made at `made`; 0 = they are not made.
    pub(super) fn date(&self, done: &mut [Done], made: u64) {
        for done in done {
            let Done::Written { kind, id, revision, .. } = done else { continue };
            let change = self.changes.get(&format!("{}/{id}", kind.name));
            let before = change.and_then(|change| change.before.as_ref());
            let after = change.and_then(|change| change.after.as_ref());
            let kept = before.is_some_and(|row| after.is_some_and(|(bytes, _)| row.value == *bytes));
            *revision = if made == 0 || kept { before.map_or(0, |row| row.revision) } else { made };
        }
    }
}

fn digest(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

/// Older spellings become the canonical ones, so that a patch meets them.
fn rename_aliases(kind: &ResourceKind, value: &mut Value) {
    let Some(members) = value.as_object_mut() else { return };
    for (alias, name) in kind.aliases() {
        if !members.contains_key(name)
            && let Some(value) = members.remove(alias)
        {
            members.insert(name.to_owned(), value);
        }
    }
}

/// A caller key whose secret was changed by hand keeps nothing of the old ones.
fn forget_secrets(value: &mut Value, stored: &Value) {
    if value["key_hash"] == stored["key_hash"] {
        return;
    }
    if let Some(members) = value.as_object_mut() {
        for field in ["key_prefix", "previous_key_hash", "previous_key_expires_at"] {
            if members.get(field) == Some(&stored[field]) {
                members.remove(field);
            }
        }
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    if let Some(members) = target.as_object_mut() {
        for (name, value) in patch {
            if value.is_null() {
                members.remove(&name);
            } else {
                merge(members.entry(name).or_insert(Value::Null), value);
            }
        }
    }
}
