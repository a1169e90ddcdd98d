//! Tests of the command line.

use super::*;

fn action(line: &str) -> Result<Action, clap::Error> {
    Cli::try_parse_from(line.split(' '))?.action()
}

fn command(line: &str) -> commands::Command {
    match action(line) {
        Ok(Action::Command(command)) => *command,
        other => panic!("{line}: {other:?}"),
    }
}

/// A usage error: exit code 2, and what it says.
fn refused(line: &str) -> String {
    let error = action(line).expect_err(line);
    assert_eq!(error.exit_code(), 2, "{line}");
    error.to_string()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn without_a_command_the_gateway_runs() {
    let config = |line| match action(line) {
        Ok(Action::Run { config }) => config,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(config("aisix -c a.yaml"), Some("a.yaml".into()));
    assert_eq!(config("aisix --config b.toml"), Some("b.toml".into()));
    if std::env::var_os("AISIX_CONFIG").is_none() {
        assert_eq!(config("aisix"), None);
    }
}

#[test]
fn schema_names_the_kinds() {
    let commands::Command::Schema(schema) = command("aisix schema models") else { panic!("no schema") };
    assert_eq!(schema.kind, kind_of("models"));
    let commands::Command::Schema(schema) = command("aisix schema") else { panic!("no schema") };
    assert_eq!(schema.kind, None);
    let text = refused("aisix schema nothing");
    for kind in KINDS {
        assert!(text.contains(kind.name), "{text}");
    }
}

#[test]
fn apply_prunes_unless_told_otherwise() {
    let apply = |line| match command(line) {
        commands::Command::Apply(apply) => apply,
        other => panic!("{line}: {other:?}"),
    };
    let plain = apply("aisix apply -f r.yaml --to store:data");
    assert!(plain.prune && !plain.yes && !plain.dry_run && !plain.json);
    assert_eq!(plain.to, Place::Store("data".into()));
    let kept =
        apply("aisix apply --file r.yaml --to http://h:1 --prune=false --yes --json --admin-key-env K");
    assert!(!kept.prune && kept.yes && kept.json);
    assert_eq!(kept.access.admin_key_env.as_deref(), Some("K"));
    assert!(refused("aisix apply -f r.yaml --to other.yaml").contains("is a file"));
    assert!(refused("aisix apply -f r.yaml").contains("--to"));
    assert!(refused("aisix apply -f r.yaml --to store:d --prune=perhaps").contains("perhaps"));
}

#[test]
fn export_takes_both_spellings_of_etcd() {
    let export = |line| match command(line) {
        commands::Command::Export(export) => export,
        other => panic!("{line}: {other:?}"),
    };
    let place = export("aisix export etcd://a:1,b:2/x/").place;
    assert_eq!(place, Place::Etcd { endpoints: vec!["a:1".into(), "b:2".into()], prefix: "/x/".into() });
    assert_eq!(export("aisix export --etcd a:1,b:2 --prefix /x").place, place);
    assert_eq!(export("aisix export --etcd a:1 --etcd b:2 --prefix /x/").place, place);
    let default = export("aisix export --etcd http://a:1 --reveal-secrets -o f");
    assert!(default.reveal_secrets && default.output == Some("f".into()));
    assert_eq!(default.place, Place::Etcd { endpoints: vec!["http://a:1".into()], prefix: "/aisix/".into() });
    assert!(refused("aisix export").contains("PLACE"));
    refused("aisix export store:d --etcd a:1");
    refused("aisix export store:d --prefix /x");
    assert!(refused("aisix export --etcd a:1 --prefix x").contains("slash"));
}

#[test]
fn options_without_effect_are_refused() {
    for (line, option) in [
        ("aisix diff a.yaml b.yaml --admin-key-env K", "--admin-key-env"),
        ("aisix diff http://h:1 b.yaml --ca f", "--ca"),
        ("aisix export store:d --etcd-user u --etcd-password-env P", "--etcd-user"),
        ("aisix export store:d --etcd-ca f", "--etcd-ca"),
        ("aisix rollback 1 --to http://h:1 --store-key-file f", "--store-key-file"),
        ("aisix apply -f f --to etcd://h:1 --store-key-env V", "--store-key-env"),
    ] {
        let text = refused(line);
        assert!(text.contains(&format!("{option} has no effect")), "{line}: {text}");
    }
    command("aisix diff https://h b.yaml --ca f");
    command("aisix diff a.yaml store:d --store-key-env V");
    for line in [
        "aisix export etcd://h:1 --etcd-user u",
        "aisix export etcd://h:1 --etcd-password-env P",
        "aisix export etcd://h:1 --etcd-ca f --etcd-cert f",
        "aisix export etcd://h:1 --etcd-cert f --etcd-key f",
        "aisix export store:d --store-key-file f --store-key-env V",
        "aisix store rotate-key --key-env V",
        "aisix store rotate-key --key-file f --key-env V --new-key-env W",
    ] {
        refused(line);
    }
}

#[test]
fn what_could_be_a_credential_is_not_repeated() {
    for line in [
        "aisix diff http://me:word@h:1 b.yaml",
        "aisix diff a.yaml etcd://me:word@h:1/x",
        "aisix apply -f f --to https://me:word@h",
        "aisix export --etcd me:word@h:1",
    ] {
        let text = refused(line);
        assert!(!text.contains("word@") && text.contains("credentials"), "{line}: {text}");
    }
}

#[test]
fn stores_are_found_by_themselves() {
    let commands::Command::History(history) = command("aisix history --store d --limit 5") else {
        panic!("no history")
    };
    assert_eq!((history.store, history.limit), ("d".into(), 5));
    let commands::Command::History(history) = command("aisix history") else { panic!("no history") };
    assert_eq!((history.store, history.limit), (default_data_dir(), 20));
    refused("aisix history --limit 0");
    let line = "aisix store rotate-key --data-dir d --key-env V --new-key-env W";
    let commands::Command::RotateKey(rotate) = command(line) else { panic!("no rotation") };
    assert_eq!((rotate.data_dir, rotate.key_env.as_deref()), ("d".into(), Some("V")));
}

#[test]
fn commands_come_with_examples() {
    let cli = Cli::command();
    for command in
        cli.get_subcommands().filter(|command| !["validate", "store"].contains(&command.get_name()))
    {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let example = format!("aisix {}", command.get_name());
        assert!(help.contains(&example), "{example} in {help}");
    }
}
