//! `docs/metrics.md` names every metric and no other.

use std::{collections::BTreeSet, fs};

const NAMES: &str = include_str!("../src/metrics/names.rs");

/// Everything in a text that is spelt like a metric name.
fn metric_names(text: &str) -> BTreeSet<String> {
    let part_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !part_of_name(c));
    words
        .filter(|word| word.starts_with("aisix_") && word.len() > "aisix_".len())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_page_names_every_metric_and_no_other() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md"));
    let page = metric_names(&page.expect("docs/metrics.md"));
    let declared: BTreeSet<String> =
        NAMES.split('"').skip(1).step_by(2).flat_map(|text| metric_names(text).into_iter()).collect();
    assert!(!declared.is_empty(), "names.rs declares nothing");
    let missing: Vec<_> = declared.difference(&page).collect();
    assert!(missing.is_empty(), "docs/metrics.md does not name {missing:?}");
    let parts = ["_bucket", "_sum", "_count"];
    let known = |name: &str| {
        let family = parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
        declared.contains(name) || declared.contains(family)
    };
    let unknown: Vec<_> = page.iter().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "docs/metrics.md names what does not exist: {unknown:?}");
}
