//! What must not be in any file: traces of the machine it was written on.

use super::{Finding, Repo};

/// Package registries. Builds use the registries their tools are set up for; an address in a lock file
/// or a script binds everyone to the one of its author. (Written in two parts, so that this file is clean.)
const REGISTRIES: [(&str, &str); 9] = [
    ("registry.", "npmjs.org"),
    ("registry.", "yarnpkg.com"),
    ("registry.", "npmmirror.com"),
    ("static.", "crates.io"),
    ("index.", "crates.io"),
    ("pypi.", "org"),
    ("files.", "pythonhosted.org"),
    ("proxy.", "golang.org"),
    ("deb.", "debian.org"),
];

/// The folder the project is built in, which is nobody else's.
const MACHINE_PATH: (&str, &str) = ("/wo", "rk/");

/// The one source a Cargo lock file may name.
const CARGO_SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(super) fn check(repo: &Repo, findings: &mut Vec<Finding>) {
    let machine_path = MACHINE_PATH.0.to_owned() + MACHINE_PATH.1;
    let registries = REGISTRIES.map(|(first, second)| first.to_owned() + second);
    for (path, text) in repo.texts() {
        let file = path.rsplit('/').next().unwrap_or(path);
        for (number, line) in text.lines().enumerate() {
            let mut found = |what: String| findings.push(Finding::new(path, number + 1, what));
            if has_root(line, &machine_path) {
                found(format!("a path of the machine it was written on ({machine_path}...)"));
            }
            if let Some(host) = registries.iter().find(|host| line.contains(host.as_str())) {
                found(format!("the address of a package registry ({host})"));
            }
            let source = line.strip_prefix("source = \"").filter(|_| file == "Cargo.lock");
            if source.is_some_and(|source| source.trim_end_matches('"') != CARGO_SOURCE) {
                found("a source other than the public registry".to_owned());
            }
            if file == "package-lock.json" && line.trim_start().starts_with("\"resolved\": \"http") {
                found(
                    "a download address in a lock file (set omit-lockfile-registry-resolved=true)".to_owned(),
                );
            }
        }
    }
}

/// Whether an absolute path below `root` occurs, and not just a longer path that contains it.
fn has_root(line: &str, root: &str) -> bool {
    line.match_indices(root).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-*}/".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::lines;
    use super::*;

    fn of(path: &str, text: &str) -> Vec<String> {
        lines(check, &[(path, text)])
    }

    #[test]
    fn machine_paths() {
        let path = MACHINE_PATH.0.to_owned() + MACHINE_PATH.1 + "x";
        assert_eq!(of("a.md", &format!("see\n`{path}`")).len(), 1);
        assert_eq!(of("a.sh", &format!("cd {path}")).len(), 1);
        assert!(of("a.md", &format!("docs{path}")).is_empty());
    }

    #[test]
    fn registries() {
        for (first, second) in REGISTRIES {
            let found = of("package.json", &format!("\"https://{first}{second}/a\""));
            assert_eq!(found.len(), 1, "{first}{second}");
        }
        assert!(of("README.md", "published on crates.io").is_empty());
    }

    #[test]
    fn lock_files() {
        assert!(of("Cargo.lock", &format!("source = \"{CARGO_SOURCE}\"")).is_empty());
        assert_eq!(of("Cargo.lock", "source = \"sparse+https://mirror.example/index/\"").len(), 1);
        assert_eq!(
            of("tests/package-lock.json", "  \"resolved\": \"https://mirror.example/a.tgz\",").len(),
            1
        );
        assert!(of("tests/package-lock.json", "  \"resolved\": \"../a\",").is_empty());
    }
}
