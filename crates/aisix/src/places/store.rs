//! An etcd cluster or an embedded store, read and written as a gateway does it.

use std::{path::Path, sync::Arc, time::Duration};

use aisix_config::{
    ConfigState, Document, Follower,
    edit::{Actor, EditError, Editor, Refusal},
    kind_of,
    plan::{Plan, plan},
};
use aisix_core::rows::{AuditQuery, AuditRecord, Writer};
use aisix_store::{
    embedded::{EmbeddedStore, KeySource},
    etcd::{EtcdStore, Settings},
};
use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use tokio::{task::JoinHandle, time::timeout};

use super::Contents;

/// Attempts to reach an etcd cluster, and the time between them.
const ATTEMPTS: (u32, Duration) = (3, Duration::from_secs(1));
/// How long the rows of a store that was reached may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store that is followed.
pub(crate) struct Store {
    state: Arc<ConfigState>,
    writer: Arc<dyn Writer>,
    editor: Editor,
    following: JoinHandle<()>,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Store {
    pub(super) async fn etcd(settings: Settings) -> Result<Self> {
        let prefix = settings.prefix.clone();
        let store = EtcdStore::new(settings).map_err(|why| anyhow!(why))?;
        let (attempts, pause) = ATTEMPTS;
        store.check(attempts, pause).await.map_err(|why| anyhow!("etcd connect failed: {why}"))?;
        let writer = store.clone();
        Self::follow("etcd", &prefix, writer, |sink| async move {
            store.run(sink, std::future::pending()).await;
        })
        .await
    }

    /// A store that must be there.
    pub(crate) async fn embedded(folder: &Path, key: KeySource) -> Result<Self> {
        Self::local(EmbeddedStore::open_existing(folder, key)?).await
    }

    /// A store that is made when it is not there.
    pub(super) async fn new_or_embedded(folder: &Path, key: KeySource) -> Result<Self> {
        Self::local(EmbeddedStore::open(folder, key)?).await
    }

    async fn local(store: Arc<EmbeddedStore>) -> Result<Self> {
        let writer = store.clone();
        Self::follow("embedded", "", writer, |sink| async move {
            store.run(sink).await;
        })
        .await
    }

    async fn follow<F>(
        kind: &'static str,
        prefix: &str,
        writer: Arc<dyn Writer>,
        run: impl FnOnce(Arc<Follower>) -> F,
    ) -> Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let state = Arc::new(ConfigState::of_store(kind, prefix));
        let mut applied = state.applied();
        let following = tokio::spawn(run(Follower::new(state.clone(), |_| {})));
        let editor = Editor::new(state.clone(), writer.clone());
        let store = Self { state, writer, editor, following };
        let loaded = async { while !store.state.is_loaded() && applied.changed().await.is_ok() {} };
        timeout(PATIENCE, loaded).await.with_context(|| {
            format!("the store was reached, but its rows did not arrive within {} s", PATIENCE.as_secs())
        })?;
        Ok(store)
    }

    pub(super) fn contents(&self) -> Contents {
        Contents { documents: self.editor.documents(), refused: self.refused(), masked: false }
    }

    /// The rows that a gateway would not act on.
    pub(crate) fn refused(&self) -> Vec<String> {
        let status = serde_json::to_value(self.state.status()).unwrap_or_default();
        let text =
            |row: &Value, name: &str| row[name].as_str().unwrap_or_default().escape_debug().to_string();
        let told = status["rejected"].as_array().into_iter().flatten().map(|row| {
            let (kind, id) = (text(row, "resource_kind"), text(row, "resource_id"));
            let row_name = if kind.is_empty() { "a row".to_owned() } else { format!("{kind}/{id}") };
            // The text of a refusal never quotes values.
            format!("{row_name}: {}", text(row, "last_error").replace("\\\"", "\""))
        });
        let mut told: Vec<String> = told.collect();
        let all: u64 = self.state.metrics().rejected_resources.values().sum();
        let more = all.saturating_sub(told.len() as u64);
        if more > 0 {
            told.push(format!("and {more} more"));
        }
        told
    }

    pub(super) async fn apply(
        &self,
        documents: &[Document],
        prune: bool,
        dry_run: bool,
    ) -> Result<(Plan, u64)> {
        let applied = self.editor.apply(documents, prune, &actor(), dry_run).await;
        applied.map_err(|error| {
            let plan = plan(&self.editor.documents(), documents, prune);
            let about = plan.changes.get(error.at).filter(|_| !is_of_store(&error)).map(|planned| {
                let title = kind_of(planned.kind).map_or(planned.kind, |kind| kind.title);
                format!("{title} {:?}: ", planned.name)
            });
            anyhow!("nothing was written: {}{}", about.unwrap_or_default(), error.refusal)
        })
    }

    pub(super) async fn rollback(&self, revision: u64, dry_run: bool) -> Result<(Plan, u64)> {
        let done = self.editor.rollback(revision, &actor(), dry_run).await;
        done.map_err(|error| anyhow!("nothing was written: {}", error.refusal))
    }

    /// The last writes, newest first.
    pub(crate) async fn history(&self, limit: usize) -> Result<Vec<AuditRecord>> {
        Ok(self.writer.audit(AuditQuery { limit, ..AuditQuery::default() }).await?)
    }
}

/// Whether an error is about the store rather than about a document.
fn is_of_store(error: &EditError) -> bool {
    matches!(error.refusal, Refusal::Unavailable(_) | Refusal::TooLarge(_) | Refusal::NotKept(_))
}

/// Who writes, for the audit log.
fn actor() -> Actor {
    let name =
        ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let fits = |c: &char| c.is_ascii_alphanumeric() || "._-@+".contains(*c);
    let name: String = name.unwrap_or_else(|| "unknown".into()).chars().filter(fits).take(64).collect();
    Actor { name: format!("cli:{name}"), remote: None }
}
