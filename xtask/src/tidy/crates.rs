//! Which crate may depend on which.

use toml::{Table, Value};

use super::{Finding, Repo};

const MIDDLE: [&str; 5] = ["aisix-wire", "aisix-config", "aisix-store", "aisix-policy", "aisix-telemetry"];
const TESTKIT: &str = "aisix-testkit";

/// Crates of this folder, each with the crates of this repository it may use.
fn may_use(package: &str) -> Option<Vec<&'static str>> {
    let core = ["aisix-core"];
    Some(match package {
        "aisix-core" => Vec::new(),
        package if MIDDLE.contains(&package) => core.to_vec(),
        "aisix-proxy" | "aisix-admin" => [&core[..], &MIDDLE].concat(),
        "aisix" | TESTKIT => [&core[..], &MIDDLE, &["aisix-proxy", "aisix-admin"]].concat(),
        _ => return None,
    })
}

/// Crates without I/O, and what would bring it in (each with everything that begins `<name>-`).
const PURE: [&str; 2] = ["aisix-core", "aisix-wire"];
const IO: [&str; 8] = ["tokio", "async-std", "smol", "mio", "hyper", "reqwest", "ureq", "axum"];

pub(super) fn check(repo: &Repo, findings: &mut Vec<Finding>) {
    for (path, text) in repo.texts() {
        let Some(folder) = path.strip_prefix("crates/").and_then(|path| path.strip_suffix("/Cargo.toml"))
        else {
            continue;
        };
        if folder.contains('/') {
            continue;
        }
        match text.parse::<Table>() {
            Ok(manifest) => check_manifest(path, text, &manifest, findings),
            Err(error) => {
                let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
                findings.push(Finding::new(path, line, format!("does not parse: {}", error.message())));
            }
        }
    }
}

fn check_manifest(path: &str, text: &str, manifest: &Table, findings: &mut Vec<Finding>) {
    let package = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str);
    let package = package.unwrap_or_default();
    let Some(allowed) = may_use(package) else {
        let what =
            format!("the crate {package} has no place in the order of crates (xtask/src/tidy/crates.rs)");
        findings.push(Finding::new(path, 1, what));
        return;
    };
    for (name, dependency) in dependencies(manifest) {
        let line = line_of(text, name);
        let real = dependency.get("package").and_then(Value::as_str).unwrap_or(name);
        let ours = real == "aisix" || real.starts_with("aisix-");
        if real == TESTKIT {
            let what =
                format!("{package} -> {TESTKIT}: it is for development only (limit: dev-dependencies)");
            findings.push(Finding::new(path, line, what));
        } else if ours && !allowed.contains(&real) {
            let limit = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
            findings.push(Finding::new(
                path,
                line,
                format!("{package} -> {real} is against the arrows (limit: {limit})"),
            ));
        }
        if PURE.contains(&package) && IO.iter().any(|io| is_or_extends(real, io)) {
            findings.push(Finding::new(path, line, format!("{package} -> {real}: this crate does no I/O")));
        }
    }
}

/// `tokio` and `tokio-util` for `tokio`.
fn is_or_extends(name: &str, base: &str) -> bool {
    name.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// What goes into the library or binary: all dependency tables except those for tests.
fn dependencies(manifest: &Table) -> impl Iterator<Item = (&String, &Value)> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let targets = targets.filter_map(Value::as_table);
    std::iter::once(manifest)
        .chain(targets)
        .flat_map(|table| ["dependencies", "build-dependencies"].map(|kind| table.get(kind)))
        .filter_map(|table| table?.as_table())
        .flatten()
}

/// The first line that begins with the name.
fn line_of(text: &str, name: &str) -> usize {
    text.lines().position(|line| line.trim_start().starts_with(name)).map_or(1, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::super::testing::lines;
    use super::*;

    fn of(package: &str, rest: &str) -> Vec<String> {
        let text = format!("[package]\nname = \"{package}\"\n{rest}");
        lines(check, &[("crates/a/Cargo.toml", text.as_str())])
    }

    #[test]
    fn the_arrows() {
        assert!(of("aisix-wire", "[dependencies]\naisix-core.workspace = true\n").is_empty());
        assert!(of("aisix-proxy", "[dependencies]\naisix-wire.workspace = true\n").is_empty());
        assert!(
            of("aisix", "[dependencies]\naisix-proxy.workspace = true\naisix-admin.workspace = true\n")
                .is_empty()
        );
        assert_eq!(
            of("aisix-wire", "[dependencies]\naisix-config.workspace = true\n"),
            ["crates/a/Cargo.toml:4: aisix-wire -> aisix-config is against the arrows (limit: aisix-core)"]
        );
        assert_eq!(of("aisix-core", "[dependencies]\naisix-wire.workspace = true\n").len(), 1);
        assert_eq!(of("aisix-admin", "[dependencies]\naisix-proxy.workspace = true\n").len(), 1);
        assert_eq!(
            of("aisix-proxy", "[dependencies]\nx = { package = \"aisix\", path = \"..\" }\n").len(),
            1
        );
    }

    #[test]
    fn every_table_of_dependencies_counts_but_that_for_tests() {
        assert_eq!(
            of("aisix-core", "[target.'cfg(unix)'.dependencies]\naisix-wire.workspace = true\n").len(),
            1
        );
        assert_eq!(of("aisix-core", "[build-dependencies]\naisix-wire.workspace = true\n").len(), 1);
        assert!(of("aisix-proxy", "[dev-dependencies]\naisix-testkit.workspace = true\n").is_empty());
        assert_eq!(of("aisix-proxy", "[dependencies]\naisix-testkit.workspace = true\n").len(), 1);
    }

    #[test]
    fn pure_crates() {
        let found = of("aisix-wire", "[dependencies]\nhyper-util = \"1\"\ntokio = \"1\"\n");
        assert_eq!(
            found,
            [
                "crates/a/Cargo.toml:4: aisix-wire -> hyper-util: this crate does no I/O",
                "crates/a/Cargo.toml:5: aisix-wire -> tokio: this crate does no I/O"
            ]
        );
        assert!(of("aisix-wire", "[dependencies]\ntokio_like = \"1\"\n").is_empty());
        assert!(of("aisix-policy", "[dependencies]\ntokio = \"1\"\n").is_empty());
    }

    #[test]
    fn a_new_crate_needs_its_place() {
        assert!(of("aisix-new", "")[0].contains("has no place"));
    }
}
