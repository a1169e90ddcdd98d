//! Commits: what holds, what is refused, what is kept.

use std::sync::Arc;

use aisix_core::rows::{AuditChange, AuditQuery, AuditRecord, Commit, CommitError, Edit, Expect, Writer};
use aisix_store::etcd::EtcdStore;
use aisix_testkit::etcd::Etcd;
use aisix_testkit::eventually;
use tokio::task::JoinSet;

use crate::support::Recorder;
use crate::{follow, following, store};

pub(crate) fn record(actor: &str, id: &str) -> AuditRecord {
    let change = AuditChange { kind: "models".into(), id: id.into(), name: None, before: None, after: None };
    AuditRecord {
        revision: 0,
        at: "2026-01-02T03:04:05Z".into(),
        actor: actor.into(),
        remote: Some([127, 0, 0, 1].into()),
        action: "create".into(),
        changes: vec![change],
    }
}

pub(crate) fn edit(key: &str, value: &str, expect: Expect) -> Edit {
    Edit { key: key.into(), value: Some(value.to_owned().into()), expect }
}

pub(crate) fn commit(base: u64, edits: Vec<Edit>) -> Commit {
    let id = edits.first().map_or("none", |edit| edit.key.as_str()).to_owned();
    Commit { edits, base, audit: record("root", &id) }
}

async fn now(store: &EtcdStore) -> u64 {
    store.barrier().await.expect("etcd answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_reaches_the_sink_as_one_step() {
    let (etcd, store, sink, _task) = following().await;
    let old = etcd.put("/aisix/models/old", "0").await;
    let edits = vec![
        edit("models/a", "1", Expect::Absent),
        edit("models/b", "2", Expect::Absent),
        Edit { key: "models/old".into(), value: None, expect: Expect::Revision(old) },
    ];
    let made = store.commit(commit(now(&store).await, edits)).await.expect("made");
    sink.until_revision(made).await;
    assert_eq!(sink.state().keys(), ["models/a", "models/b"], "nothing but rows");
    assert_eq!(sink.state().rows["models/a"].revision, made);
    let steps = sink.state().changes();
    assert!(steps.iter().any(|(changes, revision)| changes.len() == 3 && *revision == made));
    assert_eq!(etcd.count("/aisix/").await, 2);
    assert_eq!(etcd.count("/_aisix/aisix/").await, 2, "the guard and one record");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_hold_is_refused() {
    let etcd = Etcd::running().await;
    let store = store(&[etcd.endpoint()]);
    let base = now(&store).await;
    let first = vec![edit("models/a", "1", Expect::Absent)];
    let made = store.commit(commit(base, first)).await.expect("made");
    let moved = async |base: u64, edits: Vec<Edit>| {
        assert_eq!(store.commit(commit(base, edits)).await, Err(CommitError::Moved));
    };
    // Another commit since the base, although the rows differ.
    moved(base, vec![edit("models/b", "1", Expect::Absent)]).await;
    // It is there; it is not there; it was written at another revision.
    moved(made, vec![edit("models/a", "2", Expect::Absent)]).await;
    moved(made, vec![edit("models/b", "2", Expect::Revision(made))]).await;
    moved(made, vec![edit("models/a", "2", Expect::Revision(made - 1))]).await;
    // One of two does not hold: neither is made.
    moved(made, vec![edit("models/b", "1", Expect::Absent), edit("models/a", "2", Expect::Absent)]).await;
    // Somebody else wrote the row after the base.
    let foreign = etcd.put("/aisix/models/a", "foreign").await;
    moved(made, vec![edit("models/a", "2", Expect::Revision(foreign))]).await;
    moved(made, vec![edit("models/a", "2", Expect::Revision(made))]).await;
    assert_eq!(etcd.count("/aisix/").await, 1);
    let records = store.audit(AuditQuery { limit: 10, ..AuditQuery::default() }).await.expect("readable");
    assert_eq!(records.len(), 1, "a refused commit leaves no record");
    // A foreign write to other rows does not matter.
    etcd.put("/aisix/models/other", "foreign").await;
    let last = vec![edit("models/a", "2", Expect::Revision(foreign))];
    store.commit(commit(foreign, last)).await.expect("made");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_racing_writers_one_wins() {
    let etcd = Etcd::running().await;
    let stores = [store(&[etcd.endpoint()]), store(&[etcd.endpoint()])];
    for round in 0..20 {
        let base = now(&stores[0]).await;
        let key = |n: usize| format!("models/{round}-{n}");
        let [one, two] =
            [0, 1].map(|n| stores[n].commit(commit(base, vec![edit(&key(n), "x", Expect::Absent)])));
        let (one, two) = tokio::join!(one, two);
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
        let lost = one.and(two).expect_err("one lost");
        assert_eq!(lost, CommitError::Moved);
        assert_eq!(etcd.count("/aisix/models/").await, round + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_lose_no_update() {
    const WRITERS: u64 = 6;
    const EACH: u64 = 10;
    let etcd = Etcd::running().await;
    let start = etcd.put("/aisix/models/n", "0").await;
    let mut tasks = JoinSet::new();
    for _ in 0..WRITERS {
        let store = store(&[etcd.endpoint()]);
        tasks.spawn(async move {
            let sink = Arc::new(Recorder::default());
            let _task = follow(&store, &sink);
            sink.until_revision(start).await;
            for _ in 0..EACH {
                loop {
                    let (base, row) = {
                        let state = sink.state();
                        (state.revision, state.rows["models/n"].clone())
                    };
                    let n: u64 = std::str::from_utf8(&row.value).expect("text").parse().expect("a number");
                    let next = edit("models/n", &(n + 1).to_string(), Expect::Revision(row.revision));
                    match store.commit(commit(base, vec![next])).await {
                        Ok(made) => break sink.until_revision(made).await,
                        Err(CommitError::Moved) => sink.until_revision(base + 1).await,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a writer");
    }
    let store = store(&[etcd.endpoint()]);
    let (rows, _) = store.read().await.expect("readable");
    assert_eq!(rows[0].value, (WRITERS * EACH).to_string());
    let all = AuditQuery { limit: 1000, ..AuditQuery::default() };
    assert_eq!(store.audit(all).await.expect("readable").len() as u64, WRITERS * EACH);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_at_once_is_told() {
    let etcd = Etcd::running().await;
    let store = store(&[etcd.endpoint()]);
    let rows = |count: usize| (0..count).map(|n| edit(&format!("models/{n}"), "x", Expect::Absent)).collect();
    let base = now(&store).await;
    let many = store.commit(commit(base, rows(127))).await;
    assert!(matches!(&many, Err(CommitError::TooLarge(text)) if text.contains("--max-txn-ops")), "{many:?}");
    let large = vec![edit("models/a", &"x".repeat(1_600_000), Expect::Absent)];
    let large = store.commit(commit(base, large)).await;
    let named = |text: &str| text.contains("--max-request-bytes");
    assert!(matches!(&large, Err(CommitError::TooLarge(text)) if named(text)), "{large:?}");
    let huge = vec![edit("models/a", &"x".repeat(5_000_000), Expect::Absent)];
    let huge = store.commit(commit(base, huge)).await;
    assert!(matches!(&huge, Err(CommitError::TooLarge(text)) if named(text)), "{huge:?}");
    assert_eq!(etcd.count("/aisix/").await, 0);
    store.commit(commit(base, rows(126))).await.expect("the most etcd takes by default");
    assert_eq!(etcd.count("/aisix/").await, 126);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_etcd_says_so_and_is_still_followed() {
    // Refuses once 16 MiB are used.
    let etcd = Etcd::builder().arg("--quota-backend-bytes=16777216").start().await;
    let store = store(&[etcd.endpoint()]);
    let sink = Arc::new(Recorder::default());
    let _task = follow(&store, &sink);
    sink.until("a first read", |state| (state.replaced() == 1).then_some(())).await;
    let mut made = 0;
    let text = loop {
        let base = now(&store).await;
        let large = vec![edit(&format!("models/{made}"), &"x".repeat(1_000_000), Expect::Absent)];
        match store.commit(commit(base, large)).await {
            Ok(_) => made += 1,
            Err(error) => break error.to_string(),
        }
        assert!(made < 40, "etcd never gets full");
    };
    assert!(text.contains("NOSPACE") && text.contains("nothing was written"), "{text}");
    sink.until("all rows", |state| (state.rows.len() == made).then_some(())).await;
    let barrier = now(&store).await;
    sink.until_revision(barrier).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_etcd_takes_no_commit() {
    let (mut etcd, store, sink, _task) = following().await;
    let base = now(&store).await;
    let one = |base| commit(base, vec![edit("models/a", "secret-value", Expect::Absent)]);
    etcd.pause();
    let paused = store.commit(one(base)).await.expect_err("frozen").to_string();
    assert!(paused.contains("not known whether"), "{paused}");
    etcd.resume();
    eventually("etcd is back", || store.barrier()).await;
    etcd.stop().await;
    sink.until("the loss is told", |state| (!state.lost().is_empty()).then_some(())).await;
    let stopped = store.commit(one(base)).await.expect_err("stopped").to_string();
    assert!(stopped.contains("nothing was written"), "{stopped}");
    for text in [paused, stopped] {
        assert!(!text.contains("secret-value"), "{text}");
    }
    assert!(store.audit(AuditQuery { limit: 1, ..AuditQuery::default() }).await.is_err());
    assert!(store.rows_at(1).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_is_paged_from_the_newest() {
    let etcd = Etcd::running().await;
    let store = store(&[etcd.endpoint()]);
    let mut revisions = Vec::new();
    let mut base = now(&store).await;
    for n in 0..250 {
        let key = format!("models/{n}");
        let actor = if n % 2 == 0 { "even" } else { "odd" };
        let audit = record(actor, &n.to_string());
        let edits = vec![edit(&key, "x", Expect::Absent)];
        // Others write meanwhile: revisions and bases have gaps.
        if n % 10 == 0 {
            base = etcd.put("/aisix/models/foreign", "x").await;
        }
        base = store.commit(Commit { edits, base, audit }).await.expect("made");
        revisions.push(base);
    }
    revisions.reverse();
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let query = AuditQuery { before, limit: 33, ..AuditQuery::default() };
        let page = store.audit(query).await.expect("readable");
        let Some(last) = page.last() else { break };
        before = Some(last.revision);
        seen.extend(page.iter().map(|record| record.revision));
    }
    assert_eq!(seen, revisions);
    let odd = AuditQuery { actor: Some("odd".into()), limit: 120, ..AuditQuery::default() };
    let odd = store.audit(odd).await.expect("readable");
    assert_eq!(odd.len(), 120);
    assert!(odd.iter().all(|record| record.actor == "odd"));
    let one =
        AuditQuery { kind: Some("models".into()), id: Some("7".into()), limit: 5, ..Default::default() };
    let one = store.audit(one).await.expect("readable");
    assert_eq!(one.len(), 1);
    let written = record("odd", "7");
    assert_eq!(one[0], AuditRecord { revision: one[0].revision, ..written });
    let none = AuditQuery { before: Some(1), limit: 5, ..Default::default() };
    assert_eq!(store.audit(none).await.expect("readable"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn earlier_rows_are_there_until_compacted() {
    let etcd = Etcd::running().await;
    let store = store(&[etcd.endpoint()]);
    let one = etcd.put("/aisix/models/a", "1").await;
    let two = etcd.put("/aisix/models/a", "2").await;
    let gone = etcd.delete("/aisix/models/a").await;
    let value = async |revision| {
        let rows = store.rows_at(revision).await.expect("etcd answers");
        rows.map(|rows| rows.first().map(|row| String::from_utf8_lossy(&row.value).into_owned()))
    };
    assert_eq!(value(one).await, Some(Some("1".into())));
    assert_eq!(value(two).await, Some(Some("2".into())));
    assert_eq!(value(gone).await, Some(None));
    assert_eq!(value(gone + 1).await, None, "not reached yet");
    assert_eq!(value(0).await, None);
    etcd.compact(two).await;
    assert_eq!(value(one).await, None, "compacted");
    assert_eq!(value(two).await, Some(Some("2".into())));
}
