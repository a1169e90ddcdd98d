//! One first start at a time, also of several processes with one folder.

use std::{
    fs::{File, TryLockError},
    path::Path,
    time::Duration,
};

use tokio::time::Instant;

const PAUSE: Duration = Duration::from_millis(20);

/// Keeps others out until it is dropped, or the process ends.
pub(super) struct Turn {
    _folder: Option<File>,
}

impl Turn {
    /// Waits for a turn; `None` when somebody else keeps it for too long.
    pub(super) async fn take(folder: &Path, patience: Duration) -> Option<Self> {
        let deadline = Instant::now() + patience;
        loop {
            // The folder itself is locked: SQLite would lose its locks of a file that is opened and closed here.
            let locked = File::open(folder).map_err(TryLockError::Error);
            let locked = locked.and_then(|file| file.try_lock().map(|()| file));
            match locked {
                Ok(file) => return Some(Self { _folder: Some(file) }),
                Err(TryLockError::Error(error)) => {
                    tracing::debug!("{} cannot be locked: {error}", folder.display());
                    return Some(Self { _folder: None });
                }
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return None,
                Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}
