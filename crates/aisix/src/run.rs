//! Running the gateway: boot, serve, reload, drain.

use std::{path::Path, process::ExitCode, sync::Arc, time::Duration};

use aisix_admin::{AdminKey, AdminState, Revisions, StatusState, admin_router, status_router};
use aisix_config::{AdminConfig, ProcessConfig, Role, load_process_config};
use aisix_core::Lifecycle;
use aisix_proxy::Gateway;
use aisix_store::embedded::EmbeddedStore;
use anyhow::{Context, Result, bail};
use axum::Router;
use serde_json::json;
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};

use crate::{
    boot::{self, Parts},
    bootstrap::{self, Surroundings},
    drain,
    listen::{self, Bound, ConnSettings, Stop, Stopper, Tls, bind},
    source::Apply,
    workers::{self, Ended, ProxyListener, Routes},
};

/// How often certificate files are looked at.
const CERTIFICATE_POLL: Duration = Duration::from_secs(1);

/// Runs until told to stop.
pub(crate) fn run(path: Option<&Path>) -> Result<ExitCode> {
    let config = load_process_config(path, &boot::environment())?;
    let _log = boot::start_log(&config)?;
    let parts = boot::build(&config)?;
    // Admin, status, reloads and signals; requests are served by other threads.
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("aisix-control")
        .enable_all()
        .build()
        .context("the control runtime cannot be built")?;
    let code = runtime.block_on(serve(&config, parts));
    // Worker threads that still serve after a forced stop must not keep the process.
    runtime.shutdown_background();
    code
}

async fn serve(config: &ProcessConfig, parts: Parts) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let Parts { gateway, source, telemetry, health, lifecycle } = parts;
    let state = source.state.clone();
    let (stopper, stop) = Stopper::new();
    let settings = ConnSettings {
        idle_timeout: config.downstream.idle_timeout,
        head_timeout: config.downstream.head_timeout,
    };
    let proxy_tls = boot::load_tls("proxy.tls", config.proxy.tls.as_ref())?;
    let admin_tls = boot::load_tls("admin.tls", config.admin.as_ref().and_then(|admin| admin.tls.as_ref()))?;

    // Every address is bound before any is served: a boot that fails serves nothing.
    let status_bound = config
        .observability
        .prometheus
        .as_ref()
        .map(|prometheus| bind("observability.metrics.prometheus.addr", prometheus.addr, 1))
        .transpose()?;
    let admin_bound = config.admin.as_ref().map(|admin| bind("admin.addr", admin.addr, 1)).transpose()?;
    let proxy_bound = bind("proxy.addr", config.proxy.addr, workers::sockets(&config.proxy))?;

    let reload = Arc::new(Notify::new());
    let editor = source.editor();
    let embedded = source.embedded().cloned();
    let mut following = source.follow(applier(&gateway, &lifecycle), reload.clone()).await?;
    let welcome = match (&editor, &embedded) {
        (Some(editor), Some(store)) => {
            let surroundings = surroundings(config, &proxy_bound, admin_bound.as_ref());
            bootstrap::first_start(editor, store, surroundings).await?
        }
        _ => None,
    };
    log_start(config, &proxy_bound, admin_bound.as_ref(), status_bound.as_ref());
    let aside = Aside { settings, stop: stop.clone() };
    if let (Some(bound), Some(prometheus)) = (status_bound, &config.observability.prometheus) {
        let router = status_router(StatusState {
            config: state.clone(),
            health: health.clone(),
            telemetry,
            metrics_path: prometheus.path.clone(),
        });
        aside.serve(bound, None, router)?;
    }
    if let (Some(bound), Some(admin)) = (admin_bound, &config.admin) {
        let router = admin_router(AdminState {
            keys: admin_keys(admin, embedded.as_ref()).await?,
            config: state,
            editor,
            revisions: embedded.clone().map(revisions),
            health,
            lifecycle: lifecycle.clone(),
            playground: workers::playground(&gateway),
        });
        aside.serve(bound, admin_tls.clone(), router)?;
    }
    let certificates: Vec<Arc<Tls>> = [proxy_tls.clone(), admin_tls].into_iter().flatten().collect();
    tokio::spawn(watch_certificates(certificates.clone()));
    let listener = ProxyListener { bound: proxy_bound, tls: proxy_tls, settings };
    let mut workers = workers::start(&config.proxy, &gateway, listener, &stop)?;
    if let (Some(welcome), Some(store)) = (welcome, &embedded) {
        welcome.show(store).await?;
    }

    loop {
        tokio::select! {
            died = any(&mut workers) => return died,
            // Serving on without ever seeing a change again would be a trap.
            ended = &mut following => bail!("following the configuration ended: {ended:?}"),
            event = signals.next() => match event {
                Event::Reload => {
                    reload.notify_one();
                    certificates.iter().for_each(|tls| tls.reload());
                }
                Event::Stop => break,
            },
        }
    }
    tokio::select! {
        clean = drain::drain(&lifecycle, &config.shutdown, &stopper) => {
            if let Some(store) = &embedded
                && let Err(error) = store.settle().await
            {
                tracing::warn!("{error}");
            }
            Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        code = signals.second() => {
            tracing::warn!("second signal: stopping at once");
            Ok(code)
        }
    }
}

/// Makes the gateway act on a configuration.
fn applier(gateway: &Arc<Gateway>, lifecycle: &Arc<Lifecycle>) -> Apply {
    let (gateway, lifecycle) = (gateway.clone(), lifecycle.clone());
    Arc::new(move |resources| {
        gateway.apply(&resources);
        lifecycle.config_applied();
    })
}

fn surroundings(config: &ProcessConfig, proxy: &Bound, admin: Option<&Bound>) -> Surroundings {
    Surroundings {
        env: boot::environment(),
        proxy_addr: proxy.addr(),
        admin_addr: admin.map(Bound::addr),
        tls: config.proxy.tls.is_some(),
        probe: Duration::from_millis(300),
        admin_key_needed: config.admin.as_ref().is_some_and(|admin| admin.keys.is_empty()),
    }
}

/// The configured admin keys, or the one that the embedded store has made.
async fn admin_keys(admin: &AdminConfig, embedded: Option<&Arc<EmbeddedStore>>) -> Result<Vec<AdminKey>> {
    let mut keys: Vec<AdminKey> = admin.keys.iter().map(AdminKey::from).collect();
    if let (true, Some(store)) = (keys.is_empty(), embedded) {
        let made = bootstrap::generated_admin_key(store).await?;
        keys.extend(made.map(|digest| AdminKey { name: "generated".to_owned(), digest, role: Role::Owner }));
    }
    Ok(keys)
}

/// Lists the revisions of the embedded store.
fn revisions(store: Arc<EmbeddedStore>) -> Revisions {
    Arc::new(move |limit, before| {
        let store = store.clone();
        Box::pin(async move {
            let listed = store.revisions(limit, before).await.map_err(|error| error.to_string())?;
            let listed = listed.into_iter().map(|it| {
                json!({
                    "revision": it.revision,
                    "at": it.at,
                    "actor": it.actor,
                    "action": it.action,
                    "changes": it.changes,
                })
            });
            Ok(listed.collect())
        })
    })
}

/// A listener beside the proxy's, served by the control runtime.
struct Aside {
    settings: ConnSettings,
    stop: Stop,
}

impl Aside {
    fn serve(&self, bound: Bound, tls: Option<Arc<Tls>>, router: Router) -> Result<()> {
        let listener = bound.into_tokio()?;
        tokio::spawn(listen::run(listener, tls, self.settings, Routes(router), self.stop.clone()));
        Ok(())
    }
}

/// Waits for a worker to end, which none should do by itself.
async fn any(workers: &mut [Ended]) -> Result<ExitCode> {
    let ended = std::future::poll_fn(|cx| {
        for worker in workers.iter_mut() {
            if let std::task::Poll::Ready(ended) = std::pin::Pin::new(worker).poll(cx) {
                return std::task::Poll::Ready(ended);
            }
        }
        std::task::Poll::Pending
    })
    .await;
    match ended {
        Ok(Ok(())) => bail!("a proxy worker ended unexpectedly"),
        Ok(Err(error)) => Err(error.context("a proxy worker failed")),
        Err(_) => bail!("a proxy worker panicked"),
    }
}

fn log_start(config: &ProcessConfig, proxy: &Bound, admin: Option<&Bound>, status: Option<&Bound>) {
    let shown = |bound: Option<&Bound>| bound.map(|bound| bound.addr().to_string());
    tracing::info!(
        version = aisix_core::VERSION,
        service_name = config.observability.service_name,
        proxy = %proxy.addr(),
        admin = shown(admin),
        status = shown(status),
        workers = config.proxy.workers,
        "aisix is serving"
    );
}

/// Replaced certificate files are picked up without a signal.
async fn watch_certificates(certificates: Vec<Arc<Tls>>) {
    let mut seen: Vec<_> = certificates.iter().map(|tls| tls.stamp()).collect();
    let mut loaded = seen.clone();
    loop {
        tokio::time::sleep(CERTIFICATE_POLL).await;
        for (at, tls) in certificates.iter().enumerate() {
            let stamp = tls.stamp();
            // Certificate and key are two files: wait until neither changes any more.
            if stamp == seen[at] && stamp != loaded[at] {
                tls.reload();
                loaded[at] = stamp;
            }
            seen[at] = stamp;
        }
    }
}

enum Event {
    Reload,
    Stop,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("signals cannot be handled");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.terminate.recv() => Event::Stop,
            _ = self.interrupt.recv() => Event::Stop,
            _ = self.hangup.recv() => Event::Reload,
        }
    }

    /// The second signal to stop, as the exit code that shells expect of it.
    async fn second(&mut self) -> ExitCode {
        tokio::select! {
            _ = self.terminate.recv() => ExitCode::from(143),
            _ = self.interrupt.recv() => ExitCode::from(130),
        }
    }
}
