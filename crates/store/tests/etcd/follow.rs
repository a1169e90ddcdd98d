//! What the sink sees, also when the network or the cluster fails.

use std::sync::Arc;
use std::time::Duration;

use aisix_core::rows::Change;
use aisix_store::etcd::{EtcdStore, Settings, effective_prefix};
use aisix_testkit::etcd::Etcd;
use aisix_testkit::eventually;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::support::{Call, Link, Recorder};
use crate::{follow, following, settings, store};

#[tokio::test(flavor = "multi_thread")]
async fn reads_then_follows_in_order() {
    let etcd = Etcd::running().await;
    etcd.put("/aisix/models/a", "1").await;
    let read = etcd.put("/aisix/models/b/with/slashes", "2").await;
    let sink = Arc::new(Recorder::default());
    let store = store(&[etcd.endpoint()]);
    let _task = follow(&store, &sink);
    sink.until_revision(read).await;
    assert_eq!(sink.state().keys(), ["models/a", "models/b/with/slashes"]);
    assert_eq!(sink.state().rows["models/a"].revision, read - 1);

    let put = etcd.put("/aisix/models/a", "3").await;
    let gone = etcd.delete("/aisix/models/b/with/slashes").await;
    let both =
        etcd.transaction(&[("/aisix/models/c", "4"), ("/aisix/models/d", "5")], &["/aisix/models/a"]).await;
    sink.until_revision(both).await;
    let steps = sink.state().changes();
    assert_eq!(steps.iter().map(|(_, revision)| *revision).collect::<Vec<_>>(), [put, gone, both]);
    assert!(matches!(&steps[0].0[..], [Change::Put(row)] if row.key == "models/a" && row.revision == put));
    assert!(matches!(&steps[1].0[..], [Change::Delete { key }] if key == "models/b/with/slashes"));
    assert_eq!(steps[2].0.len(), 3, "a transaction is one step");
    assert_eq!(sink.state().keys(), ["models/c", "models/d"]);
    assert_eq!(sink.state().lost(), Vec::<&str>::new());
    let (rows, revision) = store.read().await.expect("readable");
    assert_eq!((rows.len(), revision), (2, both));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_prefix_is_a_read() {
    let (_etcd, _store, sink, _task) = following().await;
    assert!(sink.state().rows.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_prefixes_come_in_pages_of_one_revision() {
    let etcd = Etcd::running().await;
    let mut last = 0;
    for batch in 0..11 {
        let keys: Vec<String> = (0..100).map(|n| format!("/aisix/models/{batch:02}-{n:02}")).collect();
        let puts: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "x")).collect();
        last = etcd.transaction(&puts, &[]).await;
    }
    let sink = Arc::new(Recorder::default());
    let _task = follow(&store(&[etcd.endpoint()]), &sink);
    sink.until_revision(last).await;
    assert_eq!(sink.state().rows.len(), 1100);
    assert_eq!(sink.state().replaced(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn siblings_of_the_prefix_are_not_read() {
    let etcd = Etcd::running().await;
    etcd.put("/aisix-b/models/x", "no").await;
    etcd.put("/aisix", "no").await;
    let ours = etcd.put("/aisix/models/a", "yes").await;
    let sink = Arc::new(Recorder::default());
    let _task = follow(&store(&[etcd.endpoint()]), &sink);
    sink.until_revision(ours).await;
    etcd.put("/aisix-b/models/x", "no").await;
    etcd.put("/aisix0", "no").await;
    etcd.put("/aisix/models/a", "last").await;
    sink.until_value("models/a", "last").await;
    assert_eq!(sink.state().keys(), ["models/a"]);
    assert_eq!(sink.state().changes().len(), 1);

    let inner = Settings { prefix: effective_prefix("/aisix/", "models"), ..settings(&[etcd.endpoint()]) };
    let (rows, _) = EtcdStore::new(inner).expect("good settings").read().await.expect("readable");
    assert_eq!(rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), ["a"]);
    let all = Settings { prefix: "/".into(), ..settings(&[etcd.endpoint()]) };
    etcd.put("/_aisix/aisix/commit", "").await;
    let (rows, _) = EtcdStore::new(all).expect("good settings").read().await.expect("readable");
    assert_eq!(rows.len(), 4, "all but what lies beside the rows: {rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_store_is_confirmed_again_and_again() {
    let (_etcd, _store, sink, _task) = following().await;
    let confirmed = |state: &crate::support::State| {
        state.calls.iter().filter(|(_, call)| matches!(call, Call::Confirm(_))).count()
    };
    sink.until("two confirmations", |state| (confirmed(state) >= 2).then_some(())).await;
    assert_eq!(sink.state().lost(), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_barrier_is_reached_soon_although_no_row_changes() {
    let (etcd, store, sink, _task) = following().await;
    for round in 0..20 {
        let elsewhere = etcd.put("/other", &round.to_string()).await;
        let ours = (round % 2 == 0).then_some("/aisix/models/a");
        let ours = match ours {
            Some(key) => etcd.put(key, &round.to_string()).await,
            None => elsewhere,
        };
        let barrier = store.barrier().await.expect("etcd answers");
        assert!(barrier >= ours);
        let asked = std::time::Instant::now();
        sink.until_revision(barrier).await;
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_nothing() {
    let (mut etcd, store, sink, _task) = following().await;
    etcd.put("/aisix/models/a", "1").await;
    etcd.stop().await;
    sink.until("the loss is told", |state| (!state.lost().is_empty()).then_some(())).await;
    assert!(store.barrier().await.is_none());
    etcd.start().await;
    etcd.put("/aisix/models/b", "2").await;
    sink.until_value("models/b", "2").await;
    assert_eq!(sink.state().keys(), ["models/a", "models/b"]);
    etcd.put("/aisix/models/b", "3").await;
    sink.until_value("models/b", "3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_may_come_after_the_gateway() {
    let mut etcd = Etcd::running().await;
    etcd.put("/aisix/models/a", "1").await;
    etcd.stop().await;
    let store = store(&[etcd.endpoint()]);
    let sink = Arc::new(Recorder::default());
    let _task = follow(&store, &sink);
    sink.until("failures are told", |state| (state.lost().len() >= 2).then_some(())).await;
    assert_eq!(sink.state().replaced(), 0);
    let text = store.check(2, Duration::from_millis(1)).await.expect_err("etcd is down");
    assert!(text.contains(&etcd.endpoint()), "{text}");
    etcd.start().await;
    sink.until_value("models/a", "1").await;
    store.check(1, Duration::ZERO).await.expect("etcd is up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_etcd_is_noticed() {
    let (etcd, store, sink, _task) = following().await;
    etcd.pause();
    sink.until("the loss is told", |state| (!state.lost().is_empty()).then_some(())).await;
    assert!(store.barrier().await.is_none());
    etcd.resume();
    etcd.put("/aisix/models/a", "1").await;
    sink.until_value("models/a", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_packets_are_noticed() {
    let etcd = Etcd::running().await;
    let link = Link::to(etcd.endpoint()).await;
    let sink = Arc::new(Recorder::default());
    let _task = follow(&store(&[link.endpoint()]), &sink);
    sink.until("a first read", |state| (state.replaced() == 1).then_some(())).await;
    link.silence();
    etcd.put("/aisix/models/a", "1").await;
    sink.until("the loss is told", |state| (!state.lost().is_empty()).then_some(())).await;
    link.mend();
    sink.until_value("models/a", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flapping_network_is_survived() {
    let etcd = Etcd::running().await;
    let link = Link::to(etcd.endpoint()).await;
    let sink = Arc::new(Recorder::default());
    let _task = follow(&store(&[link.endpoint()]), &sink);
    for round in 1..=4 {
        // A change that comes by the watch makes a cycle a good one.
        sink.until("a read", |state| (state.replaced() >= round).then_some(())).await;
        etcd.put("/aisix/models/b", &round.to_string()).await;
        sink.until_value("models/b", &round.to_string()).await;
        link.cut();
        sink.until("the loss is told", |state| (state.lost().len() >= round).then_some(())).await;
        etcd.put("/aisix/models/a", &round.to_string()).await;
        link.mend();
        let began = std::time::Instant::now();
        sink.until_value("models/a", &round.to_string()).await;
        // Every good cycle brings the delay back to its start.
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_while_cut_off_survive_a_compaction() {
    let etcd = Etcd::running().await;
    etcd.put("/aisix/models/a", "1").await;
    etcd.put("/aisix/models/b", "1").await;
    let link = Link::to(etcd.endpoint()).await;
    let sink = Arc::new(Recorder::default());
    let _task = follow(&store(&[link.endpoint()]), &sink);
    sink.until_value("models/b", "1").await;
    link.cut();
    sink.until("the loss is told", |state| (!state.lost().is_empty()).then_some(())).await;
    etcd.delete("/aisix/models/a").await;
    let last = etcd.put("/aisix/models/c", "1").await;
    etcd.compact(last).await;
    link.mend();
    sink.until_value("models/c", "1").await;
    assert_eq!(sink.state().keys(), ["models/b", "models/c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_watch_is_read_again_and_no_failure() {
    let etcd = Arc::new(Etcd::running().await);
    etcd.put("/aisix/models/a", "1").await;
    // Between the first read and its watch, the history goes away.
    let (hooked, runtime) = (etcd.clone(), Handle::current());
    let sink = Recorder::with_hook(move || {
        tokio::task::block_in_place(|| {
            runtime.block_on(async {
                hooked.delete("/aisix/models/a").await;
                hooked.put("/aisix/models/b", "2").await;
                let last = hooked.put("/aisix/models/c", "3").await;
                hooked.compact(last).await;
            });
        });
    });
    let _task = follow(&store(&[etcd.endpoint()]), &sink);
    sink.until_value("models/c", "3").await;
    etcd.put("/aisix/models/c", "4").await;
    sink.until_value("models/c", "4").await;
    assert_eq!(sink.state().keys(), ["models/b", "models/c"]);
    assert_eq!(sink.state().replaced(), 2);
    assert_eq!(sink.state().lost(), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_cluster_is_taken_over() {
    let (mut etcd, _store, sink, _task) = following().await;
    for _ in 0..5 {
        etcd.put("/aisix/models/a", "1").await;
    }
    sink.until_value("models/a", "1").await;
    let before = sink.state().revision;
    etcd.kill().await;
    etcd.wipe();
    etcd.start().await;
    sink.until("an empty cluster", |state| state.rows.is_empty().then_some(())).await;
    assert!(sink.state().revision < before);
    let first = etcd.put("/aisix/models/b", "1").await;
    assert!(first <= before, "the revision goes down");
    sink.until_value("models/b", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_endpoints_are_passed_over() {
    let etcd = Etcd::running().await;
    // One that refuses, and one that accepts and never answers.
    let refusing = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let refused = refusing.local_addr().expect("bound").to_string();
    drop(refusing);
    let mute = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let silent = mute.local_addr().expect("bound").to_string();
    let endpoints = [refused, silent, format!("http://{}", etcd.endpoint())];
    let sink = Arc::new(Recorder::default());
    let store = store(&endpoints);
    let _task = follow(&store, &sink);
    let put = etcd.put("/aisix/models/a", "1").await;
    sink.until_value("models/a", "1").await;
    assert_eq!(sink.state().lost(), Vec::<&str>::new());
    assert!(store.barrier().await.is_some_and(|revision| revision >= put));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_endpoint_takes_over() {
    let etcd = Etcd::running().await;
    let (first, second) = (Link::to(etcd.endpoint()).await, Link::to(etcd.endpoint()).await);
    let sink = Arc::new(Recorder::default());
    let _task = follow(&store(&[first.endpoint(), second.endpoint()]), &sink);
    sink.until("a first read", |state| (state.replaced() == 1).then_some(())).await;
    first.cut();
    etcd.put("/aisix/models/a", "1").await;
    sink.until_value("models/a", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn following_ends_when_told() {
    let (_etcd, store, sink, _task) = following().await;
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let run = store.run(sink, async move {
        let _ = ended.await;
    });
    end.send(()).expect("still there");
    tokio::time::timeout(Duration::from_secs(5), run).await.expect("it ends");
}

/// Of three members, the one in use may go; of the last one nothing is taken
/// for current.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_followed_while_it_has_a_quorum() {
    let mut members = Etcd::cluster(3).await;
    let endpoints: Vec<String> = members.iter().map(Etcd::endpoint).collect();
    let sink = Arc::new(Recorder::default());
    let store = store(&endpoints);
    let _task = follow(&store, &sink);
    members[2].put("/aisix/models/a", "1").await;
    sink.until_value("models/a", "1").await;
    members[0].kill().await;
    // The others may have to elect a leader first.
    eventually("a quorum", || async { store.barrier().await }).await;
    members[2].put("/aisix/models/a", "2").await;
    sink.until_value("models/a", "2").await;
    let losses = sink.state().lost().len();
    members[1].kill().await;
    sink.until("the quorum is lost", |state| (state.lost().len() > losses).then_some(())).await;
    assert!(store.barrier().await.is_none());
    members[0].start().await;
    members[0].put("/aisix/models/a", "3").await;
    sink.until_value("models/a", "3").await;
}
