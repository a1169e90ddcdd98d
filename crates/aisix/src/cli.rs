//! The command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};

const EXAMPLES: &str = "\
Examples:
  aisix --config config.yaml                 run the gateway
  aisix validate --config config.yaml        check the process configuration
  aisix validate --resources resources.yaml  check models, provider keys and caller keys

Signals:
  SIGTERM, SIGINT  stop taking connections once requests under way are done; a second one stops at once
  SIGHUP           read the resources file and the listener certificates again

Exit codes: 0 done or cleanly stopped, 1 a problem (named on standard error) or requests cut at the end of
the drain, 2 wrong usage, 130 or 143 stopped at once by a second signal.";

/// One endpoint in front of every language model provider.
///
/// Without a command the gateway runs with the given configuration.
#[derive(Debug, Parser)]
#[command(name = "aisix", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    /// Process configuration (.yaml, .yml, .toml or .json)
    #[arg(short, long, value_name = "FILE", env = "AISIX_CONFIG")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a file without starting anything; every problem is reported
    Validate(Validate),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Validate {
    /// Resources file: models, provider keys, caller keys
    #[arg(long, value_name = "FILE")]
    resources: Option<PathBuf>,

    /// Process configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Action {
    /// Run the gateway.
    Run {
        /// The process configuration.
        config: PathBuf,
    },
    /// Check a resources file.
    ValidateResources(PathBuf),
    /// Check a process configuration.
    ValidateConfig(PathBuf),
}

impl Cli {
    /// What to do; exits with a usage error when that is not clear.
    pub(crate) fn action(self) -> Action {
        match (self.command, self.config) {
            (Some(Command::Validate(Validate { resources: Some(file), .. })), _) => {
                Action::ValidateResources(file)
            }
            (Some(Command::Validate(Validate { config: Some(file), .. })), _) => Action::ValidateConfig(file),
            (None, Some(config)) => Action::Run { config },
            _ => Self::command()
                .error(
                    ErrorKind::MissingRequiredArgument,
                    "--config <FILE> is required (or set AISIX_CONFIG)",
                )
                .exit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
