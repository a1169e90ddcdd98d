//! Where resources come from, and what became of them.

mod file;
mod follow;
mod metrics;
mod relations;
mod state;
mod status;
mod table;

use std::collections::HashMap;
use std::sync::Arc;

pub use file::FileStore;
pub use follow::Follower;
pub use metrics::ConfigMetrics;
pub(crate) use relations::Names;
pub use state::{ConfigState, Freshness};
pub use status::ConfigStatus;
pub(crate) use status::{rfc3339 as now_rfc3339, shortened};
pub(crate) use table::read as read_stored;

/// Answers for variables of the environment.
pub type EnvLookup = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A fixed picture of an environment, taken once at process start.
pub fn capture_env(vars: impl IntoIterator<Item = (String, String)>) -> EnvLookup {
    let vars: HashMap<String, String> = vars.into_iter().collect();
    Arc::new(move |name| vars.get(name).cloned())
}
