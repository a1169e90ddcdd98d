//! The configuration in force and how it came about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::metrics::ConfigMetrics;
use crate::file::{ErrorKind, Loaded, Rejection, ResourceErrors};
use crate::resource::{ApiKey, Kind, Model, ProviderKey, ResourceSet};

/// The most rejections that are kept.
const MAX_REJECTIONS: usize = 256;

/// The set in force and the status of its source. Reading the set takes no lock.
#[derive(Debug)]
pub struct ConfigState {
    current: ArcSwap<ResourceSet>,
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    source_hash: String,
    observed_at: SystemTime,
    config_hash: String,
    previous_hash: Option<String>,
    apply_seq: u64,
    applied_at: SystemTime,
    counts: BTreeMap<&'static str, usize>,
    last_reload: (bool, SystemTime),
    last_success: SystemTime,
    last_failure: Option<Failure>,
    rejected: Vec<Rejected>,
    reloads: u64,
    failures: [u64; 3],
    /// Collections that have ever had a rejection: their gauges return to 0.
    kinds: BTreeSet<&'static str>,
}

/// The JSON of `/status/config`.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigStatus {
    /// `synced`, `empty` or `out_of_sync`.
    pub state: &'static str,
    source: SourceStatus,
    applied: Applied,
    last_reload: LastReload,
    last_failure: Option<Failure>,
    rejected: Vec<Rejected>,
    partially_compatible: [(); 0],
}

#[derive(Clone, Debug, Serialize)]
struct SourceStatus {
    #[serde(rename = "type")]
    kind: &'static str,
    source_hash: String,
    observed_at: String,
}

#[derive(Clone, Debug, Serialize)]
struct Applied {
    config_hash: String,
    apply_seq: u64,
    applied_at: String,
    resource_counts: BTreeMap<&'static str, usize>,
}

#[derive(Clone, Debug, Serialize)]
struct LastReload {
    successful: bool,
    at: String,
}

#[derive(Clone, Debug, Serialize)]
struct Failure {
    at: String,
    last_error_kind: ErrorKind,
    last_error: String,
}

#[derive(Clone, Debug, Serialize)]
struct Rejected {
    resource_kind: &'static str,
    resource_id: String,
    last_error_kind: ErrorKind,
    last_error: String,
    first_seen_at: String,
    last_seen_at: String,
}

impl ConfigState {
    /// The state after the first load.
    pub(super) fn new(loaded: Loaded) -> Self {
        let now = SystemTime::now();
        Self {
            book: Mutex::new(Book {
                source_hash: loaded.hash.clone(),
                observed_at: now,
                config_hash: loaded.hash,
                previous_hash: None,
                apply_seq: 1,
                applied_at: now,
                counts: counts(&loaded.set),
                last_reload: (true, now),
                last_success: now,
                last_failure: None,
                rejected: Vec::new(),
                reloads: 1,
                failures: [0; 3],
                kinds: BTreeSet::new(),
            }),
            current: ArcSwap::from_pointee(loaded.set),
        }
    }

    /// The set in force.
    pub fn current(&self) -> Arc<ResourceSet> {
        self.current.load_full()
    }

    /// Puts a new set in force, as the next generation.
    pub(super) fn apply(&self, loaded: Loaded) -> Arc<ResourceSet> {
        let now = SystemTime::now();
        let mut book = self.book();
        let mut set = loaded.set;
        set.set_revision(self.current.load().revision + 1);
        let set = Arc::new(set);
        self.current.store(Arc::clone(&set));
        if book.config_hash != loaded.hash {
            book.previous_hash = Some(std::mem::replace(&mut book.config_hash, loaded.hash.clone()));
            book.apply_seq += 1;
            book.applied_at = now;
        }
        book.source_hash = loaded.hash;
        book.observed_at = now;
        book.counts = counts(&set);
        book.last_reload = (true, now);
        book.last_success = now;
        book.rejected.clear();
        book.reloads += 1;
        set
    }

    /// Notes a reload that was refused; the set in force stays.
    pub(super) fn refuse(&self, errors: &ResourceErrors) {
        let now = SystemTime::now();
        let at = rfc3339(now);
        let mut book = self.book();
        book.reloads += 1;
        book.last_reload = (false, now);
        match errors.hash() {
            None => {
                book.failures[0] += 1;
                book.last_failure = Some(Failure {
                    at,
                    last_error_kind: ErrorKind::Fetch,
                    last_error: "configuration source unreachable".into(),
                });
            }
            Some(hash) => {
                book.source_hash = hash.to_owned();
                book.observed_at = now;
                book.reject(errors.rejections(), &at);
            }
        }
    }

    /// The JSON of `/status/config`.
    pub fn status(&self) -> ConfigStatus {
        let book = self.book();
        let state = if !book.rejected.is_empty() {
            "out_of_sync"
        } else if book.counts.is_empty() {
            "empty"
        } else {
            "synced"
        };
        ConfigStatus {
            state,
            source: SourceStatus {
                kind: "file",
                source_hash: book.source_hash.clone(),
                observed_at: rfc3339(book.observed_at),
            },
            applied: Applied {
                config_hash: book.config_hash.clone(),
                apply_seq: book.apply_seq,
                applied_at: rfc3339(book.applied_at),
                resource_counts: book.counts.clone(),
            },
            last_reload: LastReload { successful: book.last_reload.0, at: rfc3339(book.last_reload.1) },
            last_failure: book.last_failure.clone(),
            rejected: book.rejected.clone(),
            partially_compatible: [],
        }
    }

    /// The numbers of the `aisix_config_*` series.
    pub fn metrics(&self) -> ConfigMetrics {
        let book = self.book();
        let mut rejected: BTreeMap<_, u64> = book.kinds.iter().map(|kind| (*kind, 0)).collect();
        for row in &book.rejected {
            *rejected.entry(row.resource_kind).or_default() += 1;
        }
        let epoch = book.last_success.duration_since(SystemTime::UNIX_EPOCH);
        ConfigMetrics {
            last_reload_successful: book.last_reload.0,
            last_reload_success_timestamp_seconds: epoch.map_or(0, |age| age.as_secs()),
            reloads: book.reloads,
            reload_failures: ["fetch", "parse", "validate"].into_iter().zip(book.failures).collect(),
            rejected_resources: rejected,
            config_hash: book.config_hash.clone(),
            previous_config_hash: book.previous_hash.clone(),
        }
    }

    /// The book is consistent after every statement, so a panic elsewhere
    /// while it was held does not spoil it.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn reject(&mut self, rejections: &[Rejection], at: &str) {
        let parse = |row: &Rejection| row.error != ErrorKind::Schema;
        self.failures[1] += u64::from(rejections.iter().any(parse));
        self.failures[2] += u64::from(rejections.iter().any(|row| !parse(row)));
        self.kinds.extend(rejections.iter().map(|row| row.kind));
        self.last_failure = rejections.last().map(|row| Failure {
            at: at.to_owned(),
            last_error_kind: row.error,
            last_error: row.message.clone(),
        });
        let newest = rejections.len().saturating_sub(MAX_REJECTIONS);
        let mut rejected: Vec<_> =
            rejections[newest..].iter().map(|row| self.rejected_row(row, at)).collect();
        rejected.sort_by(|a, b| (a.resource_kind, &a.resource_id).cmp(&(b.resource_kind, &b.resource_id)));
        self.rejected = rejected;
    }

    fn rejected_row(&self, row: &Rejection, at: &str) -> Rejected {
        let known = self.rejected.iter().find(|known| {
            known.resource_kind == row.kind
                && known.resource_id == row.id
                && (!row.id.is_empty() || known.last_error == row.message)
        });
        Rejected {
            resource_kind: row.kind,
            resource_id: row.id.clone(),
            last_error_kind: row.error,
            last_error: row.message.clone(),
            first_seen_at: known.map_or_else(|| at.to_owned(), |known| known.first_seen_at.clone()),
            last_seen_at: at.to_owned(),
        }
    }
}

fn counts(set: &ResourceSet) -> BTreeMap<&'static str, usize> {
    let counts = [
        (ProviderKey::NAME, set.provider_keys.len()),
        (Model::NAME, set.models.len()),
        (ApiKey::NAME, set.api_keys.len()),
    ];
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// RFC 3339 in UTC, whole seconds.
fn rfc3339(at: SystemTime) -> String {
    let seconds = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |age| age.as_secs().try_into().unwrap_or(i64::MAX));
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}
