//! Passwords, tokens and certificates.

use std::sync::Arc;
use std::time::Duration;

use aisix_core::Secret;
use aisix_core::rows::{Expect, Writer};
use aisix_store::etcd::{EtcdStore, Settings, Tls};
use aisix_testkit::etcd::Etcd;
use aisix_testkit::{Authority, eventually};

use crate::support::Recorder;
use crate::write::{commit, edit};
use crate::{follow, settings};

const PASSWORD: &str = "correct-horse";

fn as_user(etcd: &Etcd, name: &str, password: &str) -> Arc<EtcdStore> {
    let user = Some((name.to_owned(), Secret::new(password.to_owned())));
    EtcdStore::new(Settings { user, ..settings(&[etcd.endpoint()]) }).expect("good settings")
}

async fn with_auth(args: &[&str]) -> Etcd {
    let builder = args.iter().fold(Etcd::builder(), |builder, arg| builder.arg(arg));
    let etcd = builder.start().await;
    etcd.add_user("gateway", PASSWORD, &["/aisix/", "/_aisix/aisix/"]).await;
    etcd.add_user("reader", PASSWORD, &["/aisix/"]).await;
    etcd.enable_auth("root-word").await;
    etcd
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_follows_and_writes() {
    let etcd = with_auth(&[]).await;
    let store = as_user(&etcd, "gateway", PASSWORD);
    store.check(1, Duration::ZERO).await.expect("let in");
    let sink = Arc::new(Recorder::default());
    let _task = follow(&store, &sink);
    etcd.put("/aisix/models/a", "1").await;
    sink.until_value("models/a", "1").await;
    let base = store.barrier().await.expect("etcd answers");
    let made = store.commit(commit(base, vec![edit("models/b", "2", Expect::Absent)])).await.expect("made");
    sink.until_revision(made).await;
    assert_eq!(sink.state().value("models/b"), Some("2"));
    assert_eq!(sink.state().lost(), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_told_without_them() {
    let etcd = with_auth(&[]).await;
    let wrong = as_user(&etcd, "gateway", "wrong-battery");
    let text = wrong.check(2, Duration::from_millis(1)).await.expect_err("not let in");
    assert!(text.contains("authentication failed"), "{text}");
    assert!(!text.contains("wrong-battery"), "{text}");
    let none = EtcdStore::new(settings(&[etcd.endpoint()])).expect("good settings");
    let text = none.check(1, Duration::ZERO).await.expect_err("not let in");
    assert!(text.contains("user name is empty"), "{text}");
    let reader = as_user(&etcd, "reader", PASSWORD);
    let base = reader.barrier().await.expect("may read");
    let refused = reader.commit(commit(base, vec![edit("models/a", "1", Expect::Absent)])).await;
    let text = refused.expect_err("may not write beside the rows").to_string();
    assert!(text.contains("permission denied"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_renewed() {
    let etcd = with_auth(&["--auth-token-ttl=1", "--logger=zap"]).await;
    let store = as_user(&etcd, "gateway", PASSWORD);
    store.check(1, Duration::ZERO).await.expect("let in");
    let deleted = |name: &str| {
        etcd.log()
            .lines()
            .filter(|line| line.contains("deleted a simple token") && line.contains(name))
            .count()
    };
    eventually("the token expires", || async { (deleted("gateway") > 0).then_some(()) }).await;
    let (rows, base) = store.read().await.expect("let in again");
    assert!(rows.is_empty());
    eventually("the token expires again", || async { (deleted("gateway") > 1).then_some(()) }).await;
    store.commit(commit(base, vec![edit("models/a", "1", Expect::Absent)])).await.expect("made");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_a_restart_forgot_are_renewed() {
    let mut etcd = with_auth(&[]).await;
    let store = as_user(&etcd, "gateway", PASSWORD);
    let sink = Arc::new(Recorder::default());
    let _task = follow(&store, &sink);
    sink.until("a first read", |state| (state.replaced() == 1).then_some(())).await;
    etcd.restart().await;
    etcd.log_in("root-word").await;
    etcd.put("/aisix/models/a", "1").await;
    sink.until_value("models/a", "1").await;
    let base = store.barrier().await.expect("etcd answers");
    store.commit(commit(base, vec![edit("models/b", "2", Expect::Absent)])).await.expect("made");
}

fn tls_settings(etcd: &Etcd, ca: &Authority, client: Option<&Authority>) -> Settings {
    let client = client.map(|authority| {
        let identity = authority.issue();
        (identity.cert.into_bytes(), Secret::new(identity.key.into_bytes()))
    });
    let tls = Some(Tls { ca: ca.pem().into_bytes(), client, domain_name: None });
    Settings { tls, ..settings(&[etcd.endpoint()]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_on_both_sides() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let etcd = Etcd::builder().tls(&ours).start().await;
    let store = EtcdStore::new(tls_settings(&etcd, &ours, Some(&ours))).expect("good settings");
    let sink = Arc::new(Recorder::default());
    let _task = follow(&store, &sink);
    let base = store.barrier().await.expect("etcd answers");
    let made = store.commit(commit(base, vec![edit("models/a", "1", Expect::Absent)])).await.expect("made");
    sink.until_revision(made).await;
    assert_eq!(sink.state().value("models/a"), Some("1"));

    let refused = async |settings: Settings, why: &str| {
        let store = EtcdStore::new(settings).expect("good settings");
        let text = store.check(1, Duration::ZERO).await.expect_err(why);
        assert!(text.contains(why), "{text}");
    };
    refused(tls_settings(&etcd, &other, Some(&ours)), "certificate").await;
    refused(tls_settings(&etcd, &ours, Some(&other)), "not reached").await;
    refused(tls_settings(&etcd, &ours, None), "not reached").await;
    let mut named = tls_settings(&etcd, &ours, Some(&ours));
    let set_name = |settings: &mut Settings, name: &str| {
        settings.tls.as_mut().expect("TLS").domain_name = Some(name.to_owned());
    };
    set_name(&mut named, "elsewhere.example");
    refused(named.clone(), "certificate").await;
    set_name(&mut named, "localhost");
    let store = EtcdStore::new(named).expect("good settings");
    store.check(1, Duration::ZERO).await.expect("the certificate has this name");
}

#[tokio::test]
async fn unusable_pems_are_refused_at_once() {
    let bad = Tls {
        ca: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(),
        client: Some((b"none".to_vec(), Secret::new(b"sk-none".to_vec()))),
        domain_name: None,
    };
    let settings = Settings { tls: Some(bad), ..settings(&["127.0.0.1:1".to_owned()]) };
    let text = EtcdStore::new(settings).err().expect("refused");
    assert!(!text.contains("sk-none"), "{text}");
}
