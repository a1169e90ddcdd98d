//! The source of the resources: opened at boot, then followed.

use std::{path::PathBuf, sync::Arc, time::Duration};

use aisix_config::{
    ConfigState, EnvLookup, EtcdConfig, FileStore, Follower, ProcessConfig, ResourceSet, Source as Setting,
    StoreKey, edit::Editor,
};
use aisix_core::{
    Secret,
    rows::{Sink, Writer},
};
use aisix_store::{
    cache,
    embedded::{EmbeddedStore, KeySource},
    etcd::{EtcdStore, Settings, Tls},
};
use anyhow::{Context, Result, anyhow, bail};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::places;

/// Connecting to an etcd with a password: attempts, and the time between them.
const ATTEMPTS: (u32, Duration) = (5, Duration::from_secs(5));
/// A changed configuration is cached this long after the first change, so that
/// many changes make one file.
const CACHE_PAUSE: Duration = Duration::from_millis(200);
/// A configuration that stays as it is is cached anew so often, for the time at
/// which that was last known.
const CACHE_AGE: Duration = Duration::from_secs(60);
/// What the embedded store may take to deliver what it holds.
const LOCAL: Duration = Duration::from_secs(30);

/// A source that is open.
pub(crate) struct Source {
    pub(crate) state: Arc<ConfigState>,
    store: Store,
}

enum Store {
    File(Box<FileStore>),
    Etcd { store: Arc<EtcdStore>, prefix: String, cache: Option<PathBuf>, eager: bool },
    Embedded(Arc<EmbeddedStore>),
}

/// Puts a set in force.
pub(crate) type Apply = Arc<dyn Fn(Arc<ResourceSet>) + Send + Sync>;

impl Source {
    /// Opens the source that the configuration names.
    pub(crate) fn open(config: &ProcessConfig, env: EnvLookup) -> Result<Self> {
        match &config.source {
            Setting::File(path) => {
                let (store, state) = FileStore::open(path, env).map_err(|report| anyhow!("{report}"))?;
                Ok(Self { state, store: Store::File(Box::new(store)) })
            }
            Setting::Etcd(etcd) => {
                let store = EtcdStore::new(etcd_settings(etcd)?).map_err(|why| anyhow!("etcd: {why}"))?;
                Ok(Self {
                    state: Arc::new(ConfigState::of_store("etcd", &etcd.prefix)),
                    store: Store::Etcd {
                        store,
                        prefix: etcd.prefix.clone(),
                        cache: etcd.cache_file.clone(),
                        eager: etcd.user.is_some(),
                    },
                })
            }
            Setting::Embedded(key) => {
                let store = EmbeddedStore::open(&data_dir(config), key_source(key))?;
                Ok(Self {
                    state: Arc::new(ConfigState::of_store("embedded", "")),
                    store: Store::Embedded(store),
                })
            }
        }
    }

    /// The way to change what the source holds; a file is changed by its owner.
    pub(crate) fn editor(&self) -> Option<Arc<Editor>> {
        let writer: Arc<dyn Writer> = match &self.store {
            Store::File(_) => return None,
            Store::Etcd { store, .. } => store.clone(),
            Store::Embedded(store) => store.clone(),
        };
        Some(Arc::new(Editor::new(self.state.clone(), writer)))
    }

    /// The embedded store, if that is the source.
    pub(crate) fn embedded(&self) -> Option<&Arc<EmbeddedStore>> {
        match &self.store {
            Store::Embedded(store) => Some(store),
            _ => None,
        }
    }

    /// Follows the source for ever. When this returns, everything that can be
    /// known without waiting for a network is in force.
    pub(crate) async fn follow(self, apply: Apply, reload: Arc<Notify>) -> Result<JoinHandle<()>> {
        let state = self.state;
        match self.store {
            Store::File(store) => {
                apply(state.current());
                Ok(tokio::spawn(store.run(reload, move |set| apply(set))))
            }
            Store::Etcd { store, prefix, cache, eager } => {
                let follower = Follower::new(state.clone(), move |set| apply(set));
                let restored = cache.as_ref().is_some_and(|path| restore(path, &prefix, &*follower));
                // With something to serve there is no reason to give up.
                if eager && !restored {
                    let (attempts, pause) = ATTEMPTS;
                    let check = store.check(attempts, pause).await;
                    check.map_err(|why| anyhow!("etcd connect failed: {why}"))?;
                }
                if let Some(path) = cache {
                    tokio::spawn(keep(path, prefix, state.applied(), state, CACHE_AGE));
                }
                Ok(tokio::spawn(async move { store.run(follower, std::future::pending()).await }))
            }
            Store::Embedded(store) => {
                let follower = Follower::new(state.clone(), move |set| apply(set));
                let following = tokio::spawn(async move {
                    store.run(follower).await;
                });
                let mut applied = state.applied();
                let loaded = async { while !state.is_loaded() && applied.changed().await.is_ok() {} };
                tokio::time::timeout(LOCAL, loaded).await.context("the embedded store does not answer")?;
                Ok(following)
            }
        }
    }
}

/// Starts with what an earlier run has kept, if it has.
fn restore(path: &std::path::Path, prefix: &str, sink: &dyn Sink) -> bool {
    match cache::load(path, prefix) {
        Ok(Some(image)) => {
            tracing::info!(path = %path.display(), revision = image.revision, "starting with the cached configuration");
            sink.restore(image);
            true
        }
        Ok(None) => false,
        Err(why) => {
            tracing::warn!(path = %path.display(), "the cached configuration is ignored: {why}");
            false
        }
    }
}

/// Keeps what is applied for a start without the store, and every so often the
/// time at which it was confirmed.
async fn keep(
    path: PathBuf,
    prefix: String,
    mut applied: watch::Receiver<u64>,
    state: Arc<ConfigState>,
    every: Duration,
) {
    let mut kept = state.image().and_then(|image| image.confirmed);
    loop {
        let changed = match tokio::time::timeout(every, applied.changed()).await {
            Ok(Ok(())) => true,
            Ok(Err(_)) => return,
            Err(_) => false,
        };
        if changed {
            tokio::time::sleep(CACHE_PAUSE).await;
            applied.mark_unchanged();
        }
        let Some(image) = state.image() else { continue };
        let confirmed = image.confirmed;
        if !changed && confirmed == kept {
            continue;
        }
        let (file, prefix) = (path.clone(), prefix.clone());
        let saved = tokio::task::spawn_blocking(move || cache::save(&file, &prefix, &image)).await;
        match saved {
            Ok(Ok(())) => kept = confirmed,
            Ok(Err(error)) => {
                tracing::warn!(path = %path.display(), %error, "the configuration cannot be cached");
            }
            // The runtime is going down.
            Err(_) => return,
        }
    }
}

/// The folder of the gateway's own files.
pub(crate) fn data_dir(config: &ProcessConfig) -> PathBuf {
    config.data_dir.clone().unwrap_or_else(places::default_data_dir)
}

fn key_source(key: &StoreKey) -> KeySource {
    match key {
        StoreKey::Generated => KeySource::Generated,
        StoreKey::File(path) => KeySource::File(path.clone()),
        StoreKey::Env(variable, value) => KeySource::Env { variable: variable.clone(), value: value.clone() },
    }
}

fn etcd_settings(etcd: &EtcdConfig) -> Result<Settings> {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let read = |field: &str, path: &PathBuf| {
        let bytes = std::fs::read(path);
        bytes.with_context(|| format!("etcd.tls.{field}: {} cannot be read", path.display()))
    };
    let tls = etcd.tls.as_ref().map(|tls| -> Result<Tls> {
        let key = Secret::new(read("client_key_file", &tls.client_key_file)?);
        Ok(Tls {
            ca: read("ca_cert_file", &tls.ca_cert_file)?,
            client: Some((read("client_cert_file", &tls.client_cert_file)?, key)),
            domain_name: tls.domain_name.clone(),
        })
    });
    if etcd.endpoints.is_empty() {
        bail!("etcd.endpoints must contain at least one endpoint");
    }
    Ok(Settings {
        endpoints: etcd.endpoints.clone(),
        prefix: etcd.prefix.clone(),
        user: etcd.user.clone(),
        tls: tls.transpose()?,
        dial_timeout: etcd.dial_timeout.unwrap_or(DAY),
        request_timeout: etcd.request_timeout.unwrap_or(DAY),
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use aisix_core::rows::Image;

    use super::*;

    #[tokio::test]
    async fn a_confirmation_alone_is_kept_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cache.json");
        let state = Arc::new(ConfigState::of_store("etcd", "/aisix/"));
        let follower = Follower::new(state.clone(), |_| ());
        let long_ago = SystemTime::now() - Duration::from_secs(7_200);
        follower.restore(Image { revision: 3, confirmed: Some(long_ago), ..Image::default() });
        let every = Duration::from_millis(10);
        let keeping = tokio::spawn(keep(path.clone(), "/aisix/".into(), state.applied(), state, every));
        tokio::task::yield_now().await;
        assert!(!path.exists(), "nothing is new");
        follower.confirm(3);
        let kept = async {
            loop {
                if let Ok(Some(image)) = cache::load(&path, "/aisix/") {
                    return image;
                }
                tokio::time::sleep(every).await;
            }
        };
        let image = tokio::time::timeout(Duration::from_secs(20), kept).await.expect("a file");
        assert_eq!(image.revision, 3);
        assert!(image.confirmed.is_some_and(|at| at > long_ago + Duration::from_secs(7_000)));
        keeping.abort();
    }
}
