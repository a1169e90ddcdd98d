//! Following a store: what it sees becomes what the gateway acts on.

use std::sync::Arc;

use aisix_core::rows::{Change, Image, RawRow, Sink};

use super::ConfigState;
use super::state::From;
use crate::resource::ResourceSet;

/// Takes what a store sees and puts it in force.
pub struct Follower {
    state: Arc<ConfigState>,
    /// Makes the gateway act on a set; returns when it does.
    on_change: Box<dyn Fn(Arc<ResourceSet>) + Send + Sync>,
}

impl Follower {
    /// A follower that hands every new set to `on_change`.
    pub fn new(
        state: Arc<ConfigState>,
        on_change: impl Fn(Arc<ResourceSet>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { state, on_change: Box::new(on_change) })
    }

    fn publish(&self, set: Option<Arc<ResourceSet>>, revision: u64) {
        if let Some(set) = set {
            (self.on_change)(set);
        }
        self.state.act(revision);
    }
}

impl Sink for Follower {
    fn restore(&self, image: Image) {
        let (revision, from) = (image.revision, From::Cache(image.confirmed));
        let set = self.state.step(revision, from, |table, set| table.restore(image, set));
        self.publish(set, revision);
    }

    fn replace(&self, rows: Vec<RawRow>, revision: u64) {
        let set = self.state.step(revision, From::List, |table, set| table.replace(rows, set));
        self.publish(set, revision);
    }

    fn change(&self, changes: Vec<Change>, revision: u64) {
        let set = self.state.step(revision, From::Watch, |table, set| table.change(changes, set));
        self.publish(set, revision);
    }

    fn confirm(&self, revision: u64) {
        self.state.confirm(revision);
    }

    fn lost(&self, detail: &str) {
        tracing::warn!("the configuration source is not reached: {detail}");
        self.state.lost();
    }
}
