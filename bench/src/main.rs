//! The benchmark: the gateway and nginx side by side on one core, the load on another. See README.md.

mod api;
mod changes;
mod etcd;
mod http1;
mod load;
mod pace;
mod payload;
mod plane;
mod process;
mod report;
mod rows;
mod run;
mod scale;
mod subject;
mod upstream;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Measures the gateway against nginx on this machine")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the benchmark, print the table and write the JSON.
    Run(run::Options),
    /// (used by `run`) The fake upstream; prints its address.
    #[command(hide = true)]
    Upstream {
        #[arg(long)]
        pause_ms: u64,
    },
    /// (used by `run`) The load generator; prints its report as JSON.
    #[command(hide = true)]
    Load(load::Load),
    /// (used by `run`) Become another program, pinned to one core.
    #[command(hide = true)]
    Pin {
        #[arg(long)]
        cpu: usize,
        #[arg(long)]
        stop_with: process::StopWith,
        #[arg(long)]
        urgent: bool,
        #[arg(last = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match start(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> Result<ExitCode> {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    match command {
        Command::Run(options) => runtime()?.block_on(run::run(options)),
        Command::Upstream { pause_ms } => {
            runtime()?.block_on(upstream::serve(Duration::from_millis(pause_ms)))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Load(load) => {
            let report = runtime()?.block_on(load::run(load))?;
            println!("{}", serde_json::to_string(&report)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Pin { cpu, stop_with, urgent, command } => {
            match process::become_pinned(cpu, stop_with, urgent, &command)? {}
        }
    }
}
