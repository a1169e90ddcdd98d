//! How long things take. The limits are those of the contract; the figures are
//! printed (`--nocapture`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use aisix_testkit::etcd::Etcd;

use crate::support::{Call, Recorder};
use crate::{follow, following, store};

#[tokio::test(flavor = "multi_thread")]
async fn a_put_is_seen_within_half_a_second() {
    const PUTS: usize = 500;
    let (etcd, _store, sink, _task) = following().await;
    let mut sent = Vec::new();
    for n in 0..PUTS {
        let began = Instant::now();
        let revision = etcd.put("/aisix/models/a", &n.to_string()).await;
        sent.push((revision, began, Instant::now()));
    }
    sink.until_revision(sent[PUTS - 1].0).await;
    let seen: Vec<(u64, Instant)> = sink
        .state()
        .calls
        .iter()
        .filter_map(|(at, call)| match call {
            Call::Change(_, revision) => Some((*revision, *at)),
            _ => None,
        })
        .collect();
    let arrival = |revision: u64| seen.iter().find(|(seen, _)| *seen >= revision).expect("seen").1;
    let mut whole: Vec<Duration> =
        sent.iter().map(|(revision, began, _)| arrival(*revision).duration_since(*began)).collect();
    let mut after: Vec<Duration> = sent
        .iter()
        .map(|(revision, _, answered)| arrival(*revision).saturating_duration_since(*answered))
        .collect();
    whole.sort();
    after.sort();
    for (what, sorted) in [("from sending the put", &whole), ("after its answer", &after)] {
        println!(
            "{what}: p50 {:?}, p99 {:?}, max {:?}",
            sorted[PUTS / 2],
            sorted[PUTS * 99 / 100],
            sorted[PUTS - 1]
        );
    }
    assert!(whole[PUTS * 99 / 100] < Duration::from_millis(500), "{:?}", whole[PUTS * 99 / 100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_rows_are_read_in_two_seconds() {
    let etcd = Etcd::running().await;
    let value = "x".repeat(400);
    for batch in 0..100 {
        let keys: Vec<String> = (0..100).map(|n| format!("/aisix/api_keys/{batch:02}-{n:02}")).collect();
        let puts: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), value.as_str())).collect();
        etcd.transaction(&puts, &[]).await;
    }
    let sink = Arc::new(Recorder::default());
    let store = store(&[etcd.endpoint()]);
    let began = Instant::now();
    let _task = follow(&store, &sink);
    sink.until("all rows", |state| (state.rows.len() == 10_000).then_some(())).await;
    println!("10,000 rows: {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let revision = etcd.put("/other", "x").await;
    let began = Instant::now();
    assert!(store.barrier().await.is_some_and(|barrier| barrier >= revision));
    sink.until_revision(revision).await;
    println!("barrier over 10,000 rows: {:?}", began.elapsed());
}
