//! Resources from a file: loaded at start, on request, and when it changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{info, warn};

use super::{ConfigState, EnvLookup};
use crate::file::{Loaded, ResourceErrors, load_resources};
use crate::resource::ResourceSet;

/// How often the file is looked at.
const POLL: Duration = Duration::from_millis(500);

/// A resources file that is followed.
pub struct FileStore {
    path: PathBuf,
    env: EnvLookup,
    state: Arc<ConfigState>,
    watch: Watch,
    /// The content of the last attempt; `None` when it could not be read.
    seen: Option<String>,
}

/// What tells that a file was changed or replaced. `None` = not there.
type Fingerprint = Option<(SystemTime, u64, u64)>;

/// Reports a change once it has held still for two looks, so that a file is
/// not read while it is being written.
struct Watch {
    settled: Fingerprint,
    moving: Option<Fingerprint>,
}

impl Watch {
    fn new(now: Fingerprint) -> Self {
        Self { settled: now, moving: None }
    }

    fn look(&mut self, now: Fingerprint) -> bool {
        if now == self.settled {
            self.moving = None;
            return false;
        }
        if self.moving == Some(now) {
            *self = Self::new(now);
            return true;
        }
        self.moving = Some(now);
        false
    }
}

/// Follows symbolic links, so replacing a link's target counts.
fn fingerprint(path: &Path) -> Fingerprint {
    let metadata = fs::metadata(path).ok()?;
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let inode = 0;
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Some((modified, metadata.len(), inode))
}

type Attempt = (Fingerprint, Result<Loaded, ResourceErrors>);

/// The fingerprint is taken first: a change during the load is then seen later.
fn attempt(path: &Path, env: &EnvLookup) -> Attempt {
    let fingerprint = fingerprint(path);
    let env = &**env;
    (fingerprint, load_resources(path, &|name| env(name)))
}

impl FileStore {
    /// Loads the file for the first time.
    pub fn open(
        path: impl Into<PathBuf>,
        env: EnvLookup,
    ) -> Result<(Self, Arc<ConfigState>), ResourceErrors> {
        let path = path.into();
        let (fingerprint, loaded) = attempt(&path, &env);
        let loaded = loaded?;
        let seen = Some(loaded.hash.clone());
        let state = Arc::new(ConfigState::of_file(loaded));
        let store = Self { path, env, state: Arc::clone(&state), watch: Watch::new(fingerprint), seen };
        Ok((store, state))
    }

    /// Follows the file for ever: reloads whenever `reload` is notified, and
    /// when its content has changed. `on_change` gets every set that comes
    /// into force.
    pub async fn run(mut self, reload: Arc<Notify>, on_change: impl Fn(Arc<ResourceSet>) + Send) {
        let mut poll = interval_at(Instant::now() + POLL, POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                () = reload.notified() => true,
                _ = poll.tick() => false,
            };
            if !asked {
                let path = self.path.clone();
                let Ok(now) = spawn_blocking(move || fingerprint(&path)).await else {
                    continue;
                };
                if !self.watch.look(now) {
                    continue;
                }
            }
            if let Some(set) = self.reload(asked).await {
                on_change(set);
            }
        }
    }

    /// Reads the file again. Content that was already tried is tried again
    /// only when somebody asks.
    async fn reload(&mut self, asked: bool) -> Option<Arc<ResourceSet>> {
        let (path, env) = (self.path.clone(), Arc::clone(&self.env));
        let attempt = spawn_blocking(move || attempt(&path, &env)).await;
        // The task fails only by a panic or at the end of the runtime.
        let Ok((fingerprint, loaded)) = attempt else {
            warn!("reload failed, keeping the previous configuration: the loader stopped");
            return None;
        };
        if asked {
            self.watch = Watch::new(fingerprint);
        }
        let hash = match &loaded {
            Ok(loaded) => Some(loaded.hash.clone()),
            Err(errors) => errors.hash().map(str::to_owned),
        };
        let repeated = hash.is_some() && hash == self.seen;
        self.seen = hash;
        if repeated && !asked {
            return None;
        }
        match loaded {
            Ok(loaded) => {
                let set = self.state.apply_file(loaded);
                info!(resources = set.len(), generation = set.revision, "resources file reloaded");
                Some(set)
            }
            Err(errors) => {
                self.state.refuse_file(&errors);
                warn!("reload failed, keeping the previous configuration: {errors}");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
