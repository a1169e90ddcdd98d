//! The etcd store against a real etcd.

mod figures;
mod follow;
mod secure;
mod support;
mod write;

use std::sync::Arc;
use std::time::Duration;

use aisix_store::etcd::{EtcdStore, Settings};
use aisix_testkit::etcd::Etcd;
use support::{Recorder, Task};

/// Short limits, so that a test of them ends soon.
fn settings(endpoints: &[String]) -> Settings {
    Settings {
        endpoints: endpoints.to_vec(),
        dial_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(2),
        ..Settings::default()
    }
}

fn store(endpoints: &[String]) -> Arc<EtcdStore> {
    EtcdStore::new(settings(endpoints)).expect("good settings")
}

/// Follows until the task is dropped.
fn follow(store: &Arc<EtcdStore>, sink: &Arc<Recorder>) -> Task {
    let (store, sink) = (store.clone(), sink.clone());
    Task::spawn(async move { store.run(sink, std::future::pending()).await })
}

/// An etcd, a store of it and a sink that has read it.
async fn following() -> (Etcd, Arc<EtcdStore>, Arc<Recorder>, Task) {
    let etcd = Etcd::running().await;
    let store = store(&[etcd.endpoint()]);
    let sink = Arc::new(Recorder::default());
    let task = follow(&store, &sink);
    sink.until("a first read", |state| (state.replaced() == 1).then_some(())).await;
    (etcd, store, sink, task)
}
