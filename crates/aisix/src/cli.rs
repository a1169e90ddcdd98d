//! The command line.

use std::path::PathBuf;

use aisix_config::{KINDS, kind_of};
use clap::{Args, CommandFactory, Parser, Subcommand, builder::PossibleValuesParser, error::ErrorKind};

use crate::{
    commands::{self, Apply, Diff, Export, History, Rollback, RotateKey, Schema},
    places::{Access, DEFAULT_PREFIX, Place, default_data_dir},
};

#[cfg(test)]
mod tests;

const EXAMPLES: &str = "\
Examples:
  aisix                                            run the gateway on its own store; the first start prints keys
  aisix --config config.yaml                       run the gateway
  aisix validate --config config.yaml              check the process configuration
  aisix validate --resources resources.yaml        check models, provider keys and caller keys
  aisix diff http://127.0.0.1:3001 resources.yaml  show what would change in a running gateway

Signals:
  SIGTERM, SIGINT  drain: /readyz fails, but everything is still served for shutdown.min_drain_secs (30 s by
                   default) and until no request is under way, at most shutdown.max_drain_secs (300 s); a
                   second one stops at once
  SIGHUP           read the resources file and the listener certificates again

Exit codes: 0 done or cleanly stopped, 1 a problem (named on standard error) or requests cut at the end of
the drain, 2 wrong usage, 130 or 143 stopped at once by a second signal.";

const PLACES: &str = "\
Places:
  resources.yaml                     a resources file
  http://HOST:PORT, https://HOST:PORT
                                     the admin listener of a running gateway; AISIX_ADMIN_KEY holds an admin key
  etcd://HOST:PORT[,HOST:PORT]/PREFIX
                                     an etcd cluster; without a prefix, /aisix
  store:DIR                          an embedded store, by its data_dir; a gateway may be running on it";

const SCHEMA_EXAMPLES: &str = "\
Examples:
  aisix schema models                what an entry of `models` may hold
  aisix schema > schemas.json        every kind, as one object";

const DIFF_EXAMPLES: &str = "\
Examples:
  aisix diff old.yaml new.yaml
  aisix diff store:./data resources.yaml
  AISIX_ADMIN_KEY=... aisix diff http://127.0.0.1:3001 resources.yaml

Each line is a resource: + it is added, - it is removed, ~ it changes, ! it names what is not there.
Exit codes: 0 both are equal, 1 they differ, 2 a problem.";

const APPLY_EXAMPLES: &str = "\
Examples:
  aisix apply -f resources.yaml --to store:./data --dry-run
  aisix apply -f resources.yaml --to store:./data
  AISIX_ADMIN_KEY=... aisix apply -f resources.yaml --to http://127.0.0.1:3001 --yes

The plan is shown first, and everything is written at once or nothing is. Resources that the file does not
hold are removed, unless --prune=false. A plan that breaks references is not carried out.";

const EXPORT_EXAMPLES: &str = "\
Examples:
  aisix export store:./data -o resources.yaml
  AISIX_ADMIN_KEY=... aisix export http://127.0.0.1:3001
  aisix export --etcd etcd-1:2379,etcd-2:2379 --prefix /aisix

Secrets are written as ${AISIXSECRET_...}; standard error lists these variables. Exit code 1 says that the file,
which is written all the same, cannot be loaded as it is or lacks rows.";

const HISTORY_EXAMPLES: &str = "\
Example:
  aisix history --store ./data --limit 5";

const ROLLBACK_EXAMPLES: &str = "\
Examples:
  aisix rollback 12 --to store:./data --dry-run
  AISIX_ADMIN_KEY=... aisix rollback 12 --to http://127.0.0.1:3001

What is there now is not lost: going back is a revision of its own. `aisix history` lists the revisions.";

const ROTATE_EXAMPLES: &str = "\
Examples:
  aisix store rotate-key --data-dir ./data
  aisix store rotate-key --data-dir ./data --key-env STORE_KEY --new-key-env NEW_STORE_KEY

A key in a file is replaced in that file, also while a gateway runs on the store. A key in an environment variable
is given by you: base64 of 32 random bytes, such as `head -c 32 /dev/urandom | base64`.";

/// One endpoint in front of every language model provider.
///
/// Without a command the gateway runs; without a configuration it runs on a
/// store of its own and listens on this machine only.
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
    /// Print the JSON Schema of a kind of resource, or of all
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema(SchemaArgs),
    /// Show what would have to change so that one configuration becomes another
    #[command(after_help = format!("{PLACES}\n\n{DIFF_EXAMPLES}"))]
    Diff(DiffArgs),
    /// Make a place hold what a resources file says
    #[command(after_help = format!("{PLACES}\n\n{APPLY_EXAMPLES}"))]
    Apply(ApplyArgs),
    /// Write a configuration as a resources file
    #[command(after_help = format!("{PLACES}\n\n{EXPORT_EXAMPLES}"))]
    Export(ExportArgs),
    /// List what was written to an embedded store
    #[command(after_help = HISTORY_EXAMPLES)]
    History(HistoryArgs),
    /// Bring back what a store held at a revision
    #[command(after_help = format!("{PLACES}\n\n{ROLLBACK_EXAMPLES}"))]
    Rollback(RollbackArgs),
    /// Take care of an embedded store
    #[command(subcommand)]
    Store(StoreCommand),
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Encrypt everything in the store with another key
    #[command(after_help = ROTATE_EXAMPLES)]
    RotateKey(RotateArgs),
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

#[derive(Debug, Args)]
struct SchemaArgs {
    /// The kind, as it is called in a resources file
    #[arg(value_name = "KIND", value_parser = PossibleValuesParser::new(KINDS.iter().map(|kind| kind.name)))]
    kind: Option<String>,
}

#[derive(Debug, Args)]
struct DiffArgs {
    /// The place that would change
    #[arg(value_name = "FROM")]
    from: String,

    /// The place that it would become like
    #[arg(value_name = "TO")]
    to: String,

    /// Print the plan as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
struct ApplyArgs {
    /// Resources file
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,

    /// The place to change: a running gateway, etcd or an embedded store
    #[arg(long, value_name = "PLACE")]
    to: String,

    /// Only show the plan
    #[arg(long)]
    dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,

    /// Remove what the file does not hold
    #[arg(long, value_name = "true|false", default_value = "true", action = clap::ArgAction::Set)]
    prune: bool,

    /// Print the plan and the revision as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// The place to read
    #[arg(value_name = "PLACE", required_unless_present = "etcd", conflicts_with = "etcd")]
    place: Option<String>,

    /// etcd endpoints, HOST:PORT or URL, separated by commas: the same as a place etcd://...
    #[arg(long, value_name = "ENDPOINTS", value_delimiter = ',')]
    etcd: Vec<String>,

    /// The prefix of the keys in etcd [default: /aisix]
    #[arg(long, value_name = "PREFIX", requires = "etcd", conflicts_with = "place")]
    prefix: Option<String>,

    /// Write secrets in clear text
    #[arg(long)]
    reveal_secrets: bool,

    /// File to write, for its owner only (0600) [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
struct HistoryArgs {
    /// The data_dir of the store [default: that of a gateway without configuration]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,

    /// How many writes, the newest first
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,

    /// File with the key of the store, unless that is DIR/store.key
    #[arg(long, value_name = "FILE", conflicts_with = "store_key_env")]
    store_key_file: Option<PathBuf>,

    /// Environment variable that holds the key of the store
    #[arg(long, value_name = "VAR")]
    store_key_env: Option<String>,
}

#[derive(Debug, Args)]
struct RollbackArgs {
    /// The revision to go back to
    #[arg(value_name = "REVISION")]
    revision: u64,

    /// The place to change: an embedded store, etcd or a running gateway
    #[arg(long, value_name = "PLACE")]
    to: String,

    /// Only show what would change
    #[arg(long)]
    dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,

    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
struct RotateArgs {
    /// The data_dir of the store [default: that of a gateway without configuration]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// File with the key, unless that is DIR/store.key; the new key takes its place
    #[arg(long, value_name = "FILE", conflicts_with = "key_env")]
    key_file: Option<PathBuf>,

    /// Environment variable that holds the key
    #[arg(long, value_name = "VAR", requires = "new_key_env")]
    key_env: Option<String>,

    /// Environment variable that holds the new key [default: a random one is made]
    #[arg(long, value_name = "VAR")]
    new_key_env: Option<String>,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Action {
    /// Run the gateway.
    Run {
        /// The process configuration.
        config: Option<PathBuf>,
    },
    /// Check a resources file.
    ValidateResources(PathBuf),
    /// Check a process configuration.
    ValidateConfig(PathBuf),
    /// Look at configurations or change them.
    Command(Box<commands::Command>),
}

impl Cli {
    /// What to do, or a usage error.
    pub(crate) fn action(self) -> Result<Action, clap::Error> {
        let Some(command) = self.command else { return Ok(Action::Run { config: self.config }) };
        Ok(Action::Command(Box::new(match command {
            Command::Validate(Validate { resources: Some(file), .. }) => {
                return Ok(Action::ValidateResources(file));
            }
            Command::Validate(Validate { config, .. }) => {
                // The group requires one of the two.
                return config
                    .map(Action::ValidateConfig)
                    .ok_or_else(|| unfit("validate", "no file is given"));
            }
            Command::Schema(SchemaArgs { kind }) => {
                commands::Command::Schema(Schema { kind: kind.as_deref().and_then(kind_of) })
            }
            Command::Diff(DiffArgs { from, to, json, access }) => {
                let (from, to) = (place("diff", &from)?, place("diff", &to)?);
                effective("diff", &access, &[&from, &to])?;
                commands::Command::Diff(Diff { from, to, json, access })
            }
            Command::Apply(ApplyArgs { file, to, dry_run, yes, prune, json, access }) => {
                let to = store("apply", &to, &access)?;
                commands::Command::Apply(Apply { file, to, dry_run, yes, prune, json, access })
            }
            Command::Export(ExportArgs { place: text, etcd, prefix, reveal_secrets, output, access }) => {
                let from = match text {
                    Some(text) => place("export", &text)?,
                    None => {
                        let prefix = prefix.as_deref().unwrap_or(DEFAULT_PREFIX);
                        let endpoints = etcd.iter().map(String::as_str);
                        Place::etcd(endpoints, prefix).map_err(|why| unfit("export", why))?
                    }
                };
                effective("export", &access, &[&from])?;
                commands::Command::Export(Export { place: from, reveal_secrets, output, access })
            }
            Command::History(HistoryArgs { store, limit, store_key_file, store_key_env }) => {
                let store = store.unwrap_or_else(default_data_dir);
                let access = Access { store_key_file, store_key_env, ..Access::default() };
                commands::Command::History(History { store, limit: limit as usize, access })
            }
            Command::Rollback(RollbackArgs { revision, to, dry_run, yes, access }) => {
                let to = store("rollback", &to, &access)?;
                commands::Command::Rollback(Rollback { revision, to, dry_run, yes, access })
            }
            Command::Store(StoreCommand::RotateKey(rotate)) => {
                let RotateArgs { data_dir, key_file, key_env, new_key_env } = rotate;
                let data_dir = data_dir.unwrap_or_else(default_data_dir);
                commands::Command::RotateKey(RotateKey { data_dir, key_file, key_env, new_key_env })
            }
        })))
    }
}

fn place(command: &str, text: &str) -> Result<Place, clap::Error> {
    Place::parse(text).map_err(|why| unfit(command, why))
}

/// A place that can be written.
fn store(command: &str, text: &str, access: &Access) -> Result<Place, clap::Error> {
    let place = place(command, text)?;
    if let Place::File(path) = &place {
        let what = "a running gateway, etcd or an embedded store is expected: http(s)://HOST:PORT, etcd://HOST:PORT/PREFIX or store:DIR";
        return Err(unfit(command, format!("--to: {} is a file; {what}", path.display())));
    }
    effective(command, access, &[&place])?;
    Ok(place)
}

/// Refuses options that change nothing.
fn effective(command: &str, access: &Access, places: &[&Place]) -> Result<(), clap::Error> {
    access.without_effect(places).map_or(Ok(()), |why| Err(unfit(command, why)))
}

/// A usage error of a command.
fn unfit(command: &str, why: impl std::fmt::Display) -> clap::Error {
    let mut cli = Cli::command();
    // Without this, the usage would not begin with the name of the program.
    cli.build();
    match cli.find_subcommand_mut(command) {
        Some(command) => command.error(ErrorKind::ValueValidation, why),
        None => cli.error(ErrorKind::ValueValidation, why),
    }
}
