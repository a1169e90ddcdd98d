//! The commands that look at configurations and change them.

mod apply;
mod diff;
mod export;
mod history;
mod schema;
mod store;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use tokio::runtime;

pub(crate) use apply::Apply;
pub(crate) use diff::Diff;
pub(crate) use export::Export;
pub(crate) use history::{History, Rollback};
pub(crate) use schema::Schema;
pub(crate) use store::RotateKey;

/// A command with everything it needs.
#[derive(Debug)]
pub(crate) enum Command {
    Schema(Schema),
    Diff(Diff),
    Apply(Apply),
    Export(Export),
    History(History),
    Rollback(Rollback),
    RotateKey(RotateKey),
}

impl Command {
    /// Runs it to its end.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("the runtime cannot be built")?;
        runtime.block_on(async {
            match self {
                Self::Schema(schema) => schema.run(),
                Self::Diff(diff) => diff.run().await,
                Self::Apply(apply) => apply.run().await,
                Self::Export(export) => export.run().await,
                Self::History(history) => history.run().await,
                Self::Rollback(rollback) => rollback.run().await,
                Self::RotateKey(rotate) => rotate.run().await,
            }
        })
    }

    /// The exit code of a failure.
    pub(crate) fn failure(&self) -> ExitCode {
        match self {
            // 1 says that there are differences.
            Self::Diff(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Writes lines to standard output. Whoever closes it has read enough.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

/// Asks for a yes, unless it is given already.
fn confirmed(yes: bool, question: &str) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        bail!("nothing was written: without a terminal to ask on, --yes is needed");
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("standard input")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
