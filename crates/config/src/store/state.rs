//! The configuration in force and how it came about.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aisix_core::rows::{Image, RawRow};
use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::metrics::ConfigMetrics;
use super::relations;
use super::status::{Applied, ConfigStatus, Failure, LastReload, Rejected, SourceStatus, rfc3339};
use super::table::{Counts, Step, Table, not_enforced};
use crate::file::{ErrorKind, Loaded, Rejection, ResourceErrors};
use crate::resource::{Document, ResourceKind, ResourceSet, kind_of};

/// The most rejections that are kept of a file.
const MAX_REJECTIONS: usize = 256;
/// What status says about a source that cannot be reached; the log says more.
const UNREACHABLE: &str = "configuration source unreachable";

/// The set in force and the status of its source. Reading the set takes no lock.
pub struct ConfigState {
    current: ArcSwap<ResourceSet>,
    book: Mutex<Book>,
    /// The revision up to which the gateway acts.
    acting: watch::Sender<u64>,
}

impl fmt::Debug for ConfigState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigState").field("current", &self.current).finish_non_exhaustive()
    }
}

/// Where the resources come from.
enum Origin {
    File {
        hash: String,
        config_hash: String,
        rejected: Vec<Rejected>,
        unenforced: BTreeMap<(&'static str, Option<&'static str>), usize>,
    },
    Store {
        /// `etcd` or `embedded`.
        kind: &'static str,
        table: Table,
        connected: bool,
        from_cache: bool,
        observed_revision: Option<u64>,
        confirmed: Option<Confirmed>,
    },
}

/// When nothing newer was known to exist.
#[derive(Clone, Copy)]
struct Confirmed {
    at: SystemTime,
    /// When that was noted here, and how long ago it was then: an earlier run
    /// may have learnt it. A clock that is set later changes no age.
    noted: Instant,
    before: Duration,
}

impl Confirmed {
    fn new(at: SystemTime) -> Self {
        Self { at, noted: Instant::now(), before: at.elapsed().unwrap_or_default() }
    }

    fn age(&self) -> Duration {
        self.before + self.noted.elapsed()
    }
}

struct Book {
    origin: Origin,
    observed_at: Option<SystemTime>,
    previous_hash: Option<String>,
    /// The hash that the last scrape of a store told.
    told_hash: Option<String>,
    apply_seq: u64,
    applied_at: Option<SystemTime>,
    last_reload: Option<(bool, SystemTime)>,
    last_success: Option<SystemTime>,
    last_failure: Option<Failure>,
    reloads: u64,
    /// By `fetch`, `parse` and `validate`.
    failures: [u64; 3],
    /// Kinds that have ever been counted: their gauges return to 0.
    kinds: BTreeSet<&'static str>,
}

/// How current a followed store is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// The highest applied revision; 0 before the first.
    pub revision: u64,
    /// Seconds since nothing newer was known to exist; `None` before the first time.
    pub age_seconds: Option<u64>,
}

impl ConfigState {
    fn with(origin: Origin) -> Self {
        Self {
            current: ArcSwap::default(),
            book: Mutex::new(Book {
                origin,
                observed_at: None,
                previous_hash: None,
                told_hash: None,
                apply_seq: 0,
                applied_at: None,
                last_reload: None,
                last_success: None,
                last_failure: None,
                reloads: 0,
                failures: [0; 3],
                kinds: BTreeSet::new(),
            }),
            acting: watch::Sender::new(0),
        }
    }

    /// The state after the first load of a file.
    pub(super) fn of_file(loaded: Loaded) -> Self {
        let state = Self::with(Origin::File {
            hash: String::new(),
            config_hash: String::new(),
            rejected: Vec::new(),
            unenforced: BTreeMap::new(),
        });
        state.apply_file(loaded);
        state
    }

    /// The state of a store that has not been read. `prefix` is what stands
    /// before its keys.
    pub fn of_store(kind: &'static str, prefix: &str) -> Self {
        Self::with(Origin::Store {
            kind,
            table: Table::new(prefix.to_owned()),
            connected: false,
            from_cache: false,
            observed_revision: None,
            confirmed: None,
        })
    }

    /// The set in force.
    pub fn current(&self) -> Arc<ResourceSet> {
        self.current.load_full()
    }

    /// Whether any configuration was ever applied.
    pub fn is_loaded(&self) -> bool {
        self.book().applied_at.is_some()
    }

    /// How current the configuration is; `None` where that is not followed.
    pub fn freshness(&self) -> Option<Freshness> {
        match &self.book().origin {
            Origin::File { .. } => None,
            Origin::Store { confirmed, .. } => Some(Freshness {
                revision: self.current.load().revision,
                age_seconds: confirmed.map(|confirmed| confirmed.age().as_secs()),
            }),
        }
    }

    /// Whether resources can only be changed in their file.
    pub fn is_file(&self) -> bool {
        matches!(self.book().origin, Origin::File { .. })
    }

    /// Waits until the gateway acts on a revision of its store.
    pub async fn reached(&self, revision: u64) {
        let mut acting = self.acting.subscribe();
        // The sender lives as long as this.
        let _ = acting.wait_for(|acting| *acting >= revision).await;
    }

    /// Tells those who wait.
    pub(super) fn act(&self, revision: u64) {
        self.acting.send_replace(revision);
    }

    /// Changes with everything that is applied.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.acting.subscribe()
    }

    /// Puts a new file in force, as the next generation.
    pub(super) fn apply_file(&self, mut loaded: Loaded) -> Arc<ResourceSet> {
        let now = SystemTime::now();
        let mut book = self.book();
        if let Origin::File { hash, config_hash, rejected, unenforced } = &mut book.origin {
            loaded.set.set_revision(self.current.load().revision + 1);
            let changed = *config_hash != loaded.hash;
            let previous = std::mem::replace(config_hash, loaded.hash.clone());
            *hash = loaded.hash;
            rejected.clear();
            *unenforced = loaded.unenforced;
            if changed {
                book.previous_hash = Some(previous).filter(|hash| !hash.is_empty());
                book.apply_seq += 1;
                book.applied_at = Some(now);
            }
        }
        book.observed_at = Some(now);
        book.reloads += 1;
        book.last_reload = Some((true, now));
        book.last_success = Some(now);
        let set = Arc::new(loaded.set);
        self.current.store(Arc::clone(&set));
        set
    }

    /// Notes that a file was refused; what is in force stays.
    pub(super) fn refuse_file(&self, errors: &ResourceErrors) {
        let now = SystemTime::now();
        let mut book = self.book();
        book.reloads += 1;
        book.last_reload = Some((false, now));
        let Some(new_hash) = errors.hash() else {
            book.failures[0] += 1;
            book.fail(ErrorKind::Fetch, UNREACHABLE, now);
            return;
        };
        let kinds = errors.rejections().iter().map(|row| row.kind);
        book.kinds.extend(kinds);
        book.count_failures(errors.rejections().iter().map(|row| row.error));
        if let Some(row) = errors.rejections().last() {
            book.fail(row.error, &row.message, now);
        }
        book.observed_at = Some(now);
        if let Origin::File { hash, rejected, .. } = &mut book.origin {
            *hash = new_hash.to_owned();
            let newest = errors.rejections().len().saturating_sub(MAX_REJECTIONS);
            let rows = &errors.rejections()[newest..];
            let mut told: Vec<_> = rows.iter().map(|row| told(row, rejected, now)).collect();
            told.sort_by(|a, b| (&a.resource_kind, &a.resource_id).cmp(&(&b.resource_kind, &b.resource_id)));
            *rejected = told;
        }
    }

    /// Takes a step of a store. The set that is in force then, if it is new.
    pub(super) fn step(
        &self,
        revision: u64,
        from: From,
        take: impl FnOnce(&mut Table, &mut ResourceSet) -> Step,
    ) -> Option<Arc<ResourceSet>> {
        let now = SystemTime::now();
        let mut set = ResourceSet::clone(&self.current.load());
        let mut book = self.book();
        let first = book.applied_at.is_none();
        let Origin::Store { table, connected, from_cache, observed_revision, confirmed, .. } =
            &mut book.origin
        else {
            return None;
        };
        // Hashing everything at each step would make writes as slow as there are rows.
        let step = take(table, &mut set);
        *from_cache = matches!(from, From::Cache(_));
        *connected = !*from_cache;
        *observed_revision = Some(revision);
        *confirmed = match from {
            From::Cache(confirmed) => confirmed.map(Confirmed::new),
            From::List | From::Watch => Some(Confirmed::new(now)),
        };
        let clean = !table.has_refusals();
        book.kinds.extend(&step.kinds);
        book.observed_at = Some(now);
        if from != From::Watch {
            book.reloads += 1;
            book.count_failures(step.refusals.iter().map(|refusal| refusal.error));
        }
        book.last_reload = Some((clean, now));
        if clean {
            book.last_success = Some(now);
        }
        for refusal in &step.refusals {
            tracing::warn!(kind = refusal.kind, id = refusal.id, "document refused: {}", refusal.message);
            book.fail(refusal.error, &refusal.message, now);
        }
        if step.changed || first {
            book.apply_seq += 1;
            book.applied_at = Some(now);
        }
        set.revision = revision;
        let set = Arc::new(set);
        self.current.store(Arc::clone(&set));
        (step.touched || first).then_some(set)
    }

    /// The store holds nothing beyond the revision.
    pub(super) fn confirm(&self, revision: u64) {
        let mut book = self.book();
        if let Origin::Store { connected, confirmed, observed_revision, .. } = &mut book.origin {
            *connected = true;
            *confirmed = Some(Confirmed::new(SystemTime::now()));
            *observed_revision = Some(revision);
        }
    }

    /// The store is not reached.
    pub(super) fn lost(&self) {
        let now = SystemTime::now();
        let mut book = self.book();
        if let Origin::Store { connected, .. } = &mut book.origin {
            *connected = false;
        }
        book.reloads += 1;
        book.failures[0] += 1;
        book.last_reload = Some((false, now));
        book.fail(ErrorKind::Fetch, UNREACHABLE, now);
    }

    /// Everything a start without the store needs.
    pub fn image(&self) -> Option<Image> {
        let revision = self.current.load().revision;
        match &self.book().origin {
            Origin::Store { table, confirmed, .. } => {
                Some(table.image(revision, confirmed.map(|confirmed| confirmed.at)))
            }
            Origin::File { .. } => None,
        }
    }

    /// A document as the store holds it, and its revision.
    pub(crate) fn newest(&self, key: &str) -> Option<RawRow> {
        match &self.book().origin {
            Origin::Store { table, .. } => table.newest(key).cloned(),
            Origin::File { .. } => None,
        }
    }

    /// Stored documents of known kinds of which no version is served.
    pub(crate) fn refused(&self) -> Vec<(&'static ResourceKind, String)> {
        match &self.book().origin {
            Origin::Store { table, .. } => table.refused(),
            Origin::File { .. } => Vec::new(),
        }
    }

    /// The version of a document that is served, as the store held it.
    pub(crate) fn served(&self, key: &str) -> Option<RawRow> {
        match &self.book().origin {
            Origin::Store { table, .. } => table.served_row(key).cloned(),
            Origin::File { .. } => None,
        }
    }

    /// Every document that is served, with its secrets, and the revision they
    /// are as of; `None` when a file is their source.
    pub(crate) fn documents(&self) -> Option<(Vec<Document>, u64)> {
        let book = self.book();
        let Origin::Store { table, .. } = &book.origin else { return None };
        let revision = self.current.load().revision;
        Some((table.served().filter_map(document).collect(), revision))
    }

    /// The JSON of `/status/config`.
    pub fn status(&self) -> ConfigStatus {
        let set = self.current();
        let (conflicts, dangling, cycles) = relations::report(&set);
        let mut book = self.book();
        let book = &mut *book;
        let loaded = book.applied_at.is_some();
        let seen = book.observed_at.is_some();
        let now = SystemTime::now();
        let (source, config_hash, rejected, partial, not_enforced) = match &mut book.origin {
            Origin::File { hash, config_hash, rejected, unenforced } => {
                let source = SourceStatus {
                    kind: "file",
                    connected: None,
                    observed_revision: None,
                    source_hash: Some(hash.clone()),
                    observed_at: book.observed_at.map(rfc3339),
                    confirmed_at: None,
                    from_cache: false,
                };
                let fields =
                    unenforced.iter().filter_map(|((kind, field), count)| Some(((*kind, (*field)?), *count)));
                let fields = fields.flat_map(|(field, count)| std::iter::repeat_n(field, count));
                let not_enforced = not_enforced(&set, fields);
                (source, config_hash.clone(), rejected.clone(), Vec::new(), not_enforced)
            }
            Origin::Store { kind, table, connected, from_cache, observed_revision, confirmed } => {
                let hashes = table.hashes();
                let source = SourceStatus {
                    kind,
                    connected: Some(*connected),
                    observed_revision: *observed_revision,
                    source_hash: seen.then_some(hashes.source),
                    observed_at: book.observed_at.map(rfc3339),
                    confirmed_at: confirmed.map(|confirmed| rfc3339(confirmed.at)),
                    from_cache: *from_cache,
                };
                let partial = table.partially_compatible();
                (source, hashes.config, table.rejected(now), partial, table.not_enforced(&set))
            }
        };
        let file = source.kind == "file";
        let state = match (loaded, rejected.is_empty(), set.is_empty()) {
            (false, ..) => "never_loaded",
            (_, false, empty) if file || empty => "out_of_sync",
            (_, false, _) => "degraded",
            (_, _, true) => "empty",
            _ => "synced",
        };
        ConfigStatus {
            state,
            source,
            applied: book.applied_at.map(|at| Applied {
                applied_revision: (!file).then_some(set.revision),
                config_hash,
                apply_seq: book.apply_seq,
                applied_at: rfc3339(at),
                resource_counts: set.counts(),
            }),
            last_reload: book.last_reload.map(|(successful, at)| LastReload { successful, at: rfc3339(at) }),
            last_failure: book.last_failure.clone(),
            rejected,
            partially_compatible: partial,
            not_enforced,
            conflicts,
            dangling,
            cycles,
        }
    }

    /// The numbers of the `aisix_config_*` series.
    pub fn metrics(&self) -> ConfigMetrics {
        let applied_revision = self.current.load().revision;
        let mut book = self.book();
        let book = &mut *book;
        let zero = || book.kinds.iter().map(|kind| (*kind, 0)).collect::<BTreeMap<_, u64>>();
        let mut counts = Counts { rejected: zero(), stale: zero(), partial: zero() };
        let (config_hash, followed) = match &mut book.origin {
            Origin::File { config_hash, rejected, .. } => {
                for row in rejected.iter() {
                    let kind = kind_of(&row.resource_kind).map_or("", |kind| kind.name);
                    *counts.rejected.entry(kind).or_default() += 1;
                }
                (Some(config_hash.clone()), None)
            }
            Origin::Store { table, connected, observed_revision, .. } => {
                let own = table.counts();
                counts.rejected.extend(own.rejected);
                counts.stale.extend(own.stale);
                counts.partial.extend(own.partial);
                let hash = book.applied_at.is_some().then(|| table.hashes().config);
                (hash, Some((*connected, observed_revision.unwrap_or(0), applied_revision)))
            }
        };
        if let Origin::Store { .. } = book.origin
            && book.told_hash != config_hash
        {
            book.previous_hash = std::mem::replace(&mut book.told_hash, config_hash.clone());
        }
        let since_epoch = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        ConfigMetrics {
            last_reload_successful: book.last_reload.is_some_and(|(successful, _)| successful),
            last_reload_success_timestamp_seconds: book.last_success.map(|at| since_epoch(at).as_secs()),
            reloads: book.reloads,
            reload_failures: ["fetch", "parse", "validate"].into_iter().zip(book.failures).collect(),
            rejected_resources: counts.rejected,
            partially_compatible_resources: counts.partial,
            stale_served_resources: counts.stale,
            followed,
            config_hash,
            previous_config_hash: book.previous_hash.clone(),
        }
    }

    /// The book is consistent after every statement, so a panic elsewhere
    /// while it was held does not spoil it.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a step comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// With the time at which the store was last known to hold nothing newer.
    Cache(Option<SystemTime>),
    List,
    Watch,
}

impl Book {
    fn fail(&mut self, error: ErrorKind, text: &str, at: SystemTime) {
        self.last_failure =
            Some(Failure { at: rfc3339(at), last_error_kind: error, last_error: text.to_owned() });
    }

    /// Each present reason counts once.
    fn count_failures(&mut self, errors: impl Iterator<Item = ErrorKind> + Clone) {
        let parse = |error: &ErrorKind| matches!(error, ErrorKind::NonJson | ErrorKind::Parse);
        self.failures[1] += u64::from(errors.clone().any(|error| parse(&error)));
        self.failures[2] += u64::from(errors.clone().any(|error| !parse(&error)));
    }
}

fn told(row: &Rejection, known: &[Rejected], now: SystemTime) -> Rejected {
    let known = known.iter().find(|known| {
        known.resource_kind == row.kind
            && known.resource_id == row.id
            && (!row.id.is_empty() || known.last_error == row.message)
    });
    Rejected {
        resource_kind: row.kind.to_owned(),
        resource_id: row.id.clone(),
        last_error_kind: row.error,
        last_error: row.message.clone(),
        first_seen_at: known.map_or_else(|| rfc3339(now), |known| known.first_seen_at.clone()),
        last_seen_at: rfc3339(now),
        serving_stale_since: None,
        serving_stale_age_seconds: None,
    }
}

/// A stored row as a document; `None` when it is none.
fn document(row: &RawRow) -> Option<Document> {
    let (kind, id) = row.key.split_once('/')?;
    let kind: &'static ResourceKind = kind_of(kind)?;
    let (value, _) = super::table::read(kind, &row.value).ok()?;
    Some(Document { kind, id: id.to_owned(), value })
}
