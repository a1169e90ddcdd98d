//! The AISIX AI Gateway: command line, boot order, listeners, signals. Wiring
//! only; what the gateway does lives in the other crates.

mod boot;
mod cli;
mod drain;
mod listen;
mod run;
mod validate;
mod workers;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let result = match cli::Cli::parse().action() {
        cli::Action::Run { config } => run::run(&config),
        cli::Action::ValidateResources(file) => validate::resources(&file),
        cli::Action::ValidateConfig(file) => validate::config(&file),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
