//! The documents that describe the configuration are current.

use std::{env, fs, path::PathBuf};

use aisix_config::{load_process_config, load_resources, reference_markdown};

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn the_reference_is_current() {
    let page = root().join("docs/configuration.md");
    let expected = reference_markdown();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&page, &expected).expect("docs/configuration.md can be written");
    }
    let found = fs::read_to_string(&page).unwrap_or_default();
    assert!(
        found == expected,
        "docs/configuration.md is not current; write it again with\n\n    \
         UPDATE_DOCS=1 cargo test -p aisix-config --test docs\n"
    );
}

/// Fenced YAML blocks of a page.
fn yaml_blocks(page: &str) -> impl Iterator<Item = &str> {
    page.split("```yaml\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0))
}

/// Blocks that begin like a whole file are one, so they must load.
#[test]
fn whole_files_in_the_documents_load() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("block.yaml");
    let mut pages: Vec<PathBuf> = vec![root().join("README.md")];
    let entries = fs::read_dir(root().join("docs")).expect("docs");
    pages.extend(entries.map(|entry| entry.expect("an entry").path()));
    let (mut configs, mut resources) = (0, 0);
    for page in pages.iter().filter(|page| page.extension().is_some_and(|e| e == "md")) {
        let text = fs::read_to_string(page).expect("a page");
        for block in yaml_blocks(&text) {
            fs::write(&file, block).expect("a block");
            let first = block.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
            if first.starts_with("resources_file:") {
                configs += 1;
                let loaded = load_process_config(Some(&file), &[]);
                assert!(loaded.is_ok(), "{}: {}\n{block}", page.display(), loaded.unwrap_err());
            } else if first.starts_with("_format_version:") {
                resources += 1;
                let loaded = load_resources(&file, &|name| Some(format!("value-of-{name}")));
                assert!(loaded.is_ok(), "{}: {}\n{block}", page.display(), loaded.unwrap_err());
            }
        }
    }
    assert!(configs > 0 && resources > 0, "{configs} configurations, {resources} resources files");
}
