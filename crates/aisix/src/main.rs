//! The AISIX AI Gateway: command line, boot order, listeners, signals. Wiring
//! only; what the gateway does lives in the other crates.

mod boot;
mod bootstrap;
mod cli;
mod commands;
mod drain;
mod listen;
mod places;
mod run;
mod source;
mod validate;
mod workers;

use std::process::ExitCode;

use aisix_config::ResourceErrors;
use clap::Parser;

fn main() -> ExitCode {
    let action = cli::Cli::parse().action().unwrap_or_else(|error| error.exit());
    let mut failure = ExitCode::FAILURE;
    let result = match action {
        cli::Action::Run { config } => run::run(config.as_deref()),
        cli::Action::ValidateResources(file) => validate::resources(&file),
        cli::Action::ValidateConfig(file) => validate::config(&file),
        cli::Action::Command(command) => {
            failure = command.failure();
            command.run()
        }
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            match error.downcast_ref::<ResourceErrors>() {
                // The report has a heading of its own.
                Some(report) => eprintln!("{report}"),
                None => eprintln!("Error: {error:#}"),
            }
            failure
        }
    }
}
