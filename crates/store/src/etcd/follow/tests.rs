//! What a single response does, and the way that depends on newer servers.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aisix_core::rows::{Image, RawRow};
use aisix_testkit::etcd::Etcd;
use aisix_testkit::eventually;

use super::super::proto::{Event, KeyValue, ResponseHeader};
use super::super::{Settings, Tls};
use super::*;

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Log {
    fn keep(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn revision(&self, of: &str) -> u64 {
        let lines = self.lines();
        let revisions = lines.iter().filter_map(|line| line.strip_prefix(of)?.trim().parse().ok());
        revisions.max().unwrap_or(0)
    }
}

impl Sink for Log {
    fn restore(&self, _: Image) {}

    fn replace(&self, rows: Vec<RawRow>, revision: u64) {
        self.keep(format!("replace {} {revision}", rows.len()));
    }

    fn change(&self, changes: Vec<Change>, revision: u64) {
        let changes: Vec<String> = changes
            .iter()
            .map(|change| match change {
                Change::Put(row) => format!("+{}@{}", row.key, row.revision),
                Change::Delete { key } => format!("-{key}"),
            })
            .collect();
        self.keep(format!("change {} {revision}", changes.join(" ")));
    }

    fn confirm(&self, revision: u64) {
        self.keep(format!("confirm {revision}"));
    }

    fn lost(&self, detail: &str) {
        self.keep(format!("lost {detail}"));
    }
}

fn store_of(endpoint: &str, ordered: bool) -> Arc<EtcdStore> {
    let settings = Settings { endpoints: vec![endpoint.to_owned()], ..Settings::default() };
    let mut store = EtcdStore::new(settings).expect("good settings");
    let inner = Arc::get_mut(&mut store).expect("not shared yet");
    inner.client.ordered = if ordered { |_| true } else { |_| false };
    store
}

fn follower<'a>(store: &'a EtcdStore, sink: &'a Log) -> Follower<'a> {
    let now = Instant::now();
    Follower {
        store,
        sink,
        cluster: 7,
        applied: 10,
        confirmed: 10,
        count: 1,
        watched: false,
        heard: now,
        ask_at: now + ASK_EVERY,
        asked: false,
        wanted: None,
    }
}

fn header_at(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: 7, revision })
}

fn event(kind: EventType, key: &str, created: i64, revision: i64) -> Event {
    let kv = KeyValue {
        key: key.as_bytes().to_vec(),
        create_revision: created,
        mod_revision: revision,
        value: b"{}".to_vec(),
    };
    Event { r#type: kind as i32, kv: Some(kv) }
}

fn events(revision: i64, events: Vec<Event>) -> WatchResponse {
    WatchResponse { header: header_at(revision), events, ..WatchResponse::default() }
}

fn reason(end: Result<(), End>) -> String {
    match end {
        Err(End::ReadAgain(reason)) => reason,
        Err(End::Lost(reason)) => panic!("lost: {reason}"),
        Ok(()) => panic!("it goes on"),
    }
}

#[tokio::test]
async fn what_was_applied_is_not_applied_again() {
    let (store, log) = (store_of("127.0.0.1:1", false), Log::default());
    let mut state = follower(&store, &log);
    let step = |revision: i64| {
        vec![
            event(EventType::Put, "/aisix/models/a", revision, revision),
            event(EventType::Delete, "/aisix/models/b", 0, revision),
        ]
    };
    // The header may be ahead of the events.
    assert!(state.take(events(20, step(11))).is_ok());
    assert!(state.take(events(20, step(11))).is_ok());
    assert!(state.take(events(20, step(10))).is_ok());
    assert_eq!((state.applied, state.confirmed, state.count), (11, 11, 1));
    // Half of it is new.
    let mut half = step(11);
    half.push(event(EventType::Put, "/aisix/models/a", 11, 12));
    assert!(state.take(events(20, half)).is_ok());
    assert_eq!(log.lines(), ["change +models/a@11 -models/b 11", "change +models/a@12 12"]);
    assert_eq!(state.count, 1, "a row that is written again is no new one");
}

#[tokio::test]
async fn progress_confirms_and_never_hides_an_event() {
    let (store, log) = (store_of("127.0.0.1:1", false), Log::default());
    let mut state = follower(&store, &log);
    assert!(state.take(events(15, Vec::new())).is_ok());
    // One that comes late all the same is applied.
    let late = vec![event(EventType::Put, "/aisix/models/a", 12, 12)];
    assert!(state.take(events(15, late)).is_ok());
    assert!(state.take(events(14, Vec::new())).is_ok(), "an older answer says nothing new");
    assert_eq!(log.lines(), ["confirm 15", "change +models/a@12 12"]);
}

#[tokio::test]
async fn a_watch_that_cannot_go_on_is_read_again() {
    let (store, log) = (store_of("127.0.0.1:1", false), Log::default());
    let mut state = follower(&store, &log);
    let mut other = events(20, Vec::new());
    other.header = Some(ResponseHeader { cluster_id: 8, revision: 20 });
    assert!(reason(state.take(other)).contains("replaced"));
    let compacted = WatchResponse { canceled: true, compact_revision: 19, ..events(20, Vec::new()) };
    assert!(reason(state.take(compacted)).contains("compacted"));
    let cancelled = WatchResponse { canceled: true, cancel_reason: "why".into(), ..events(20, Vec::new()) };
    assert!(reason(state.take(cancelled)).contains("why"));
    let back = WatchResponse { created: true, ..events(9, Vec::new()) };
    assert!(reason(state.take(back)).contains("went back"));
    assert!(!state.watched && log.lines().is_empty());
}

#[tokio::test]
async fn only_a_check_without_a_difference_confirms() {
    let (store, log) = (store_of("127.0.0.1:1", false), Log::default());
    let mut state = follower(&store, &log);
    let answer = |revision: i64, count: i64, newer: usize| {
        let kvs = vec![KeyValue::default(); newer];
        Ok(RangeResponse { header: header_at(revision), kvs, more: false, count })
    };
    assert!(state.checked(10, answer(20, 1, 1)).is_ok(), "a row was written");
    assert!(state.checked(10, answer(20, 0, 0)).is_ok(), "a row is gone");
    assert!(state.checked(9, answer(20, 1, 0)).is_ok(), "asked before the last change");
    assert!(log.lines().is_empty());
    assert!(state.checked(10, answer(20, 1, 0)).is_ok());
    assert_eq!(log.lines(), ["confirm 20"]);
    assert!(reason(state.checked(10, answer(9, 1, 0))).contains("restored"));
}

#[tokio::test(flavor = "multi_thread")]
async fn either_way_of_asking_confirms() {
    let etcd = Etcd::running().await;
    for ordered in [true, false] {
        let store = store_of(&etcd.endpoint(), ordered);
        let log = Arc::new(Log::default());
        let (followed, sink) = (store.clone(), log.clone());
        let task = tokio::spawn(async move { followed.run(sink, std::future::pending()).await });
        eventually("a first read", || async { (!log.lines().is_empty()).then_some(()) }).await;
        let elsewhere = etcd.put("/other", "x").await;
        let barrier = store.barrier().await.expect("etcd answers");
        assert!(barrier >= elsewhere);
        eventually("the barrier", || async { (log.revision("confirm ") >= barrier).then_some(()) }).await;
        // Without being asked, too.
        let elsewhere = etcd.put("/other", "y").await;
        let confirmed = || async { (log.revision("confirm ") >= elsewhere).then_some(()) };
        eventually("a confirmation on its own", confirmed).await;
        let row = etcd.put("/aisix/models/a", "x").await;
        let seen = format!("change +models/a@{row} {row}");
        eventually("the change", || async { log.lines().contains(&seen).then_some(()) }).await;
        task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_the_rows_are_compared() {
    let etcd = Etcd::running().await;
    let store = store_of(&etcd.endpoint(), true);
    let session = store.client.session().await.expect("etcd answers");
    let log = Log::default();
    let mut state = follower(&store, &log);
    let (requests, mut asked) = mpsc::channel(4);
    let mut check = None;
    assert!(state.ask(&requests, &session, &mut check).is_ok());
    assert!(check.is_none() && asked.try_recv().is_ok());
    assert!(state.ask(&requests, &session, &mut check).is_ok());
    assert!(asked.try_recv().is_err());
    let (since, answer) = check.expect("the rows are compared").await;
    assert_eq!(since, 10);
    let (cluster, _) = header(answer.expect("etcd answers").header.as_ref());
    assert_ne!(cluster, 0);
    // An answer in between, and the watch is asked again.
    assert!(state.take(events(20, Vec::new())).is_ok());
    assert!(state.ask(&requests, &session, &mut None).is_ok());
    assert!(asked.try_recv().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_watch_is_noticed_without_a_call() {
    let etcd = Etcd::running().await;
    let store = store_of(&etcd.endpoint(), true);
    let log = Arc::new(Log::default());
    let (followed, sink) = (store.clone(), log.clone());
    let task = tokio::spawn(async move { followed.run(sink, std::future::pending()).await });
    eventually("a first read", || async { (!log.lines().is_empty()).then_some(()) }).await;
    etcd.pause();
    let deadline = Instant::now() + STALLED + Duration::from_secs(10);
    while !log.lines().iter().any(|line| line.starts_with("lost")) {
        assert!(Instant::now() < deadline, "{:?}", log.lines());
        sleep(Duration::from_millis(10)).await;
    }
    etcd.resume();
    task.abort();
}

/// A member without a leader ends the watch, and calls nothing current.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_cluster_is_not_believed() {
    let mut members = Etcd::cluster(2).await;
    let store = store_of(&members[0].endpoint(), true);
    let log = Arc::new(Log::default());
    let (followed, sink) = (store.clone(), log.clone());
    let task = tokio::spawn(async move { followed.run(sink, std::future::pending()).await });
    eventually("a first read", || async { (!log.lines().is_empty()).then_some(()) }).await;
    members[1].kill().await;
    let lost = || async { log.lines().into_iter().find(|line| line.starts_with("lost")) };
    let text = eventually("the loss", lost).await;
    assert!(text.contains("no leader"), "{text}");
    task.abort();
}

#[test]
fn delays_are_spread_and_capped() {
    let delays: Vec<Duration> = (0..1000).map(|_| jitter(LAST_DELAY)).collect();
    assert!(delays.iter().all(|delay| (LAST_DELAY / 2..=LAST_DELAY).contains(delay)));
    let early = delays.iter().filter(|delay| **delay < LAST_DELAY * 3 / 4).count();
    assert!((300..700).contains(&early), "{early}");
}

#[test]
fn debug_hides_secrets() {
    let secret = || aisix_core::Secret::new("hidden".to_owned());
    let tls = Tls {
        ca: Vec::new(),
        client: Some((Vec::new(), aisix_core::Secret::new(b"hidden".to_vec()))),
        domain_name: None,
    };
    let settings = Settings { user: Some(("name".into(), secret())), tls: Some(tls), ..Settings::default() };
    let text = format!("{settings:?}");
    assert!(!text.contains("hidden") && !text.contains("104, 105"), "{text}");
}

#[test]
fn prefixes_end_in_one_slash() {
    use super::super::effective_prefix;
    for (prefix, env_id, effective) in [
        ("/aisix", "", "/aisix/"),
        ("/aisix/", "", "/aisix/"),
        ("/aisix//", "", "/aisix/"),
        ("/aisix/", "prod", "/aisix/prod/"),
        ("aisix", "prod/", "aisix/prod/"),
        ("/", "", "/"),
        ("", "", "/"),
    ] {
        assert_eq!(effective_prefix(prefix, env_id), effective);
    }
}
