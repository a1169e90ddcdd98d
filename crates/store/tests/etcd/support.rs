//! A sink that keeps what it is told, and a network that can break.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aisix_core::rows::{Change, Image, RawRow, Sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// The longest wait: a stalled connection is only noticed after a while.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// What a sink was told.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Replace(Vec<RawRow>, u64),
    Change(Vec<Change>, u64),
    Confirm(u64),
    Lost(String),
}

type Hook = Box<dyn Fn() + Send + Sync>;

/// Keeps every call, when it came, and the rows that result.
#[derive(Default)]
pub(crate) struct Recorder {
    state: Mutex<State>,
    first_replace: Mutex<Option<Hook>>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) calls: Vec<(Instant, Call)>,
    pub(crate) rows: BTreeMap<String, RawRow>,
    /// The newest revision up to which the rows are complete.
    pub(crate) revision: u64,
}

impl State {
    /// The value of a row.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.rows.get(key).map(|row| std::str::from_utf8(&row.value).expect("text"))
    }

    pub(crate) fn keys(&self) -> Vec<&str> {
        self.rows.keys().map(String::as_str).collect()
    }

    pub(crate) fn changes(&self) -> Vec<(Vec<Change>, u64)> {
        let change = |(_, call): &(Instant, Call)| match call {
            Call::Change(changes, revision) => Some((changes.clone(), *revision)),
            _ => None,
        };
        self.calls.iter().filter_map(change).collect()
    }

    pub(crate) fn replaced(&self) -> usize {
        self.calls.iter().filter(|(_, call)| matches!(call, Call::Replace(..))).count()
    }

    pub(crate) fn lost(&self) -> Vec<&str> {
        let calls = self.calls.iter().map(|(_, call)| call);
        let lost = calls.filter_map(|call| match call {
            Call::Lost(detail) => Some(detail.as_str()),
            _ => None,
        });
        lost.collect()
    }
}

impl Recorder {
    /// Runs something before the first read is handed on.
    pub(crate) fn with_hook(hook: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { first_replace: Mutex::new(Some(Box::new(hook))), ..Self::default() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the probe finds what it looks for.
    pub(crate) async fn until<T>(&self, what: &str, mut probe: impl FnMut(&State) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = probe(&self.state()) {
                return found;
            }
            if Instant::now() > deadline {
                let state = self.state();
                let tail = &state.calls[state.calls.len().saturating_sub(10)..];
                panic!("timed out: {what}; rows {:?}, last calls {tail:#?}", state.keys());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits for a value of a row.
    pub(crate) async fn until_value(&self, key: &str, value: &str) {
        let what = format!("{key} is {value}");
        self.until(&what, |state| (state.value(key) == Some(value)).then_some(())).await;
    }

    /// Waits until the rows are complete up to a revision.
    pub(crate) async fn until_revision(&self, revision: u64) {
        let what = format!("revision {revision}");
        self.until(&what, |state| (state.revision >= revision).then_some(())).await;
    }

    fn keep(&self, call: Call) {
        let mut state = self.state();
        match &call {
            Call::Replace(rows, revision) => {
                state.rows = rows.iter().map(|row| (row.key.clone(), row.clone())).collect();
                state.revision = *revision;
            }
            Call::Change(changes, revision) => {
                assert!(state.replaced() > 0, "a change before the first read");
                assert!(changes.iter().all(|change| match change {
                    Change::Put(row) => row.revision <= *revision,
                    Change::Delete { .. } => true,
                }));
                for change in changes {
                    match change {
                        Change::Put(row) => state.rows.insert(row.key.clone(), row.clone()),
                        Change::Delete { key } => state.rows.remove(key),
                    };
                }
                state.revision = state.revision.max(*revision);
            }
            Call::Confirm(revision) => state.revision = state.revision.max(*revision),
            Call::Lost(_) => {}
        }
        state.calls.push((Instant::now(), call));
    }
}

impl Sink for Recorder {
    fn restore(&self, _: Image) {
        panic!("etcd restores nothing");
    }

    fn replace(&self, rows: Vec<RawRow>, revision: u64) {
        let hook = self.first_replace.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(hook) = hook {
            hook();
        }
        self.keep(Call::Replace(rows, revision));
    }

    fn change(&self, changes: Vec<Change>, revision: u64) {
        self.keep(Call::Change(changes, revision));
    }

    fn confirm(&self, revision: u64) {
        self.keep(Call::Confirm(revision));
    }

    fn lost(&self, detail: &str) {
        self.keep(Call::Lost(detail.to_owned()));
    }
}

/// Ends a task with the test.
pub(crate) struct Task(AbortHandle);

impl Task {
    pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Open,
    /// Connections are closed and new ones too.
    Cut,
    /// Connections stay open and nothing passes, as when packets are dropped.
    Silent,
}

/// A network path to an address.
pub(crate) struct Link {
    mode: watch::Sender<Mode>,
    port: u16,
    _task: Task,
}

impl Link {
    pub(crate) async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let mode = watch::Sender::new(Mode::Open);
        let seen = mode.subscribe();
        let task = Task::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(pass(near, target.clone(), seen.clone()));
            }
        });
        Self { mode, port, _task: task }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    pub(crate) fn silence(&self) {
        self.mode.send_replace(Mode::Silent);
    }

    pub(crate) fn mend(&self) {
        self.mode.send_replace(Mode::Open);
    }
}

async fn pass(mut near: TcpStream, target: String, mut mode: watch::Receiver<Mode>) {
    if *mode.borrow_and_update() == Mode::Cut {
        return;
    }
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    loop {
        let now = *mode.borrow_and_update();
        match now {
            Mode::Cut => return,
            Mode::Silent => {
                // What was silent stays so: those packets are gone.
                while mode.changed().await.is_ok() {
                    if *mode.borrow_and_update() == Mode::Cut {
                        break;
                    }
                }
                return;
            }
            Mode::Open => {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                    changed = mode.changed() => if changed.is_err() { return },
                }
            }
        }
    }
}
