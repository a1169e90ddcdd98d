//! Where resources come from, and what became of them.

mod file;
mod metrics;
mod state;

use std::collections::HashMap;
use std::sync::Arc;

pub use file::FileStore;
pub use metrics::ConfigMetrics;
pub use state::{ConfigState, ConfigStatus};

/// Answers for variables of the environment.
pub type EnvLookup = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A fixed picture of an environment, taken once at process start.
pub fn capture_env(vars: impl IntoIterator<Item = (String, String)>) -> EnvLookup {
    let vars: HashMap<String, String> = vars.into_iter().collect();
    Arc::new(move |name| vars.get(name).cloned())
}
