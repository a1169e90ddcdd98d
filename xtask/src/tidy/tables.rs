//! Tables that must not drift from what they describe: metric names from the code that counts them,
//! endpoint rows from their fixtures.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::{Expr, Item, Lit, Type};

use super::source::{Parsed, TestFiles};
use super::{Finding, Repo};

const METRIC_NAMES: &str = "crates/telemetry/src/metrics/names.rs";
const ENDPOINTS: &str = "crates/proxy/src/endpoints.rs";
const ENDPOINT_FIXTURES: &str = "fixtures/endpoints";

pub(super) fn check(repo: &Repo, findings: &mut Vec<Finding>) {
    match repo.text(METRIC_NAMES) {
        Some(text) => check_metrics(repo, text, findings),
        None => {
            findings.push(Finding::new(METRIC_NAMES, 1, "the file that declares the metric names is missing"))
        }
    }
    match repo.text(ENDPOINTS) {
        Some(text) => check_endpoints(repo, text, findings),
        None => findings.push(Finding::new(ENDPOINTS, 1, "the endpoint table is missing")),
    }
}

fn check_metrics(repo: &Repo, text: &str, findings: &mut Vec<Finding>) {
    let names = metric_names(text);
    if names.is_empty() {
        findings.push(Finding::new(METRIC_NAMES, 1, "declares no metric name"));
    }
    let used = identifiers(repo);
    for (name, value, line) in names {
        if !used.contains(&name) {
            let what = format!("the metric {value} has no caller: {name} is used nowhere outside tests");
            findings.push(Finding::new(METRIC_NAMES, line, what));
        }
    }
}

/// Identifier, text and line of each `const NAME: &str = "aisix_..."`.
fn metric_names(text: &str) -> Vec<(String, String, usize)> {
    let Ok(file) = syn::parse_file(text) else { return Vec::new() };
    let consts = file.items.iter().filter_map(|item| match item {
        Item::Const(item) if matches!(*item.ty, Type::Reference(_)) => Some(item),
        _ => None,
    });
    let names = consts.filter_map(|item| match &*item.expr {
        Expr::Lit(expr) => match &expr.lit {
            Lit::Str(value) if value.value().starts_with("aisix_") => {
                Some((item.ident.to_string(), value.value(), item.ident.span().start().line))
            }
            _ => None,
        },
        _ => None,
    });
    names.collect()
}

/// Every identifier in the crates, tests and the declaring file aside.
fn identifiers(repo: &Repo) -> BTreeSet<String> {
    let tests = TestFiles::find(repo);
    let mut found = BTreeSet::new();
    for (path, text) in repo.rust() {
        if path == METRIC_NAMES || !path.starts_with("crates/") || tests.contain(path) {
            continue;
        }
        if let (Ok(parsed), Ok(tokens)) = (Parsed::new(text), text.parse::<TokenStream>()) {
            walk(tokens, &mut |tokens| {
                for token in tokens {
                    if let TokenTree::Ident(name) = token
                        && !parsed.in_test(name.span().start().line)
                    {
                        found.insert(name.to_string());
                    }
                }
            });
        }
    }
    found
}

fn check_endpoints(repo: &Repo, text: &str, findings: &mut Vec<Finding>) {
    let rows = endpoint_rows(text);
    if rows.is_empty() {
        findings.push(Finding::new(ENDPOINTS, 1, "the endpoint table has no rows (`name: \"...\"`)"));
    }
    for (name, line) in &rows {
        let folder = format!("{ENDPOINT_FIXTURES}/{name}");
        if !repo.has_folder(&folder) {
            findings.push(Finding::new(
                ENDPOINTS,
                *line,
                format!("the endpoint {name} has no fixture in {folder}/"),
            ));
        }
    }
    let files = repo.files.keys().filter_map(|path| path.strip_prefix(ENDPOINT_FIXTURES)?.strip_prefix('/'));
    let folders: BTreeSet<&str> = files.filter_map(|path| Some(path.split_once('/')?.0)).collect();
    for folder in folders {
        if !rows.iter().any(|(name, _)| name == folder) {
            let path = format!("{ENDPOINT_FIXTURES}/{folder}");
            findings.push(Finding::new(
                &path,
                1,
                format!("fixtures of an endpoint that {ENDPOINTS} does not have"),
            ));
        }
    }
}

/// Value and line of each `name: "..."` outside tests.
fn endpoint_rows(text: &str) -> Vec<(String, usize)> {
    let (Ok(parsed), Ok(tokens)) = (Parsed::new(text), text.parse::<TokenStream>()) else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    walk(tokens, &mut |tokens| {
        for window in tokens.windows(3) {
            if let [TokenTree::Ident(field), TokenTree::Punct(colon), TokenTree::Literal(value)] = window
                && field == "name"
                && colon.as_char() == ':'
                && let Ok(Lit::Str(value)) = syn::parse_str::<Lit>(&value.to_string())
                && !parsed.in_test(field.span().start().line)
            {
                rows.push((value.value(), field.span().start().line));
            }
        }
    });
    rows
}

/// Calls `each` with the tokens of every group, the outermost first.
fn walk(tokens: TokenStream, each: &mut impl FnMut(&[TokenTree])) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    each(&tokens);
    for token in tokens {
        if let TokenTree::Group(group) = token {
            walk(group.stream(), each);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::lines;
    use super::*;

    const ROWS: &str = "//! H\nconst ROWS: &[Row] = &[\n    Row { name: \"chat\", id: 1 },\n];\n\
                        #[cfg(test)]\nmod tests {\n    const T: Row = Row { name: \"test\" };\n}\n";
    const NAMES: &str = "//! H\npub const A: &str = \"aisix_a_total\";\npub const LABEL: &str = \"model\";\n";
    const USE: &str = "//! H\nfn f() { g!(names::A) }\n";
    const FIXTURE: (&str, &str) = ("fixtures/endpoints/chat/basic.json", "{}");

    #[test]
    fn everything_in_its_place() {
        let files = [(METRIC_NAMES, NAMES), (ENDPOINTS, ROWS), ("crates/a/src/lib.rs", USE), FIXTURE];
        assert!(lines(check, &files).is_empty(), "{:?}", lines(check, &files));
    }

    #[test]
    fn a_metric_nobody_counts() {
        let only_in_tests = "//! H\n#[cfg(test)]\nmod tests {\n    fn f() { names::A; }\n}\n";
        let files =
            [(METRIC_NAMES, NAMES), (ENDPOINTS, ROWS), ("crates/a/src/lib.rs", only_in_tests), FIXTURE];
        assert_eq!(
            lines(check, &files),
            [format!(
                "{METRIC_NAMES}:2: the metric aisix_a_total has no caller: A is used nowhere outside tests"
            )]
        );
    }

    #[test]
    fn a_row_without_fixture_and_a_fixture_without_row() {
        let files = [
            (METRIC_NAMES, NAMES),
            (ENDPOINTS, ROWS),
            ("crates/a/src/lib.rs", USE),
            ("fixtures/endpoints/old/basic.json", "{}"),
        ];
        assert_eq!(
            lines(check, &files),
            [
                format!("{ENDPOINTS}:3: the endpoint chat has no fixture in fixtures/endpoints/chat/"),
                format!("fixtures/endpoints/old:1: fixtures of an endpoint that {ENDPOINTS} does not have"),
            ]
        );
    }

    #[test]
    fn missing_tables_are_findings() {
        assert_eq!(lines(check, &[]).len(), 2);
        assert_eq!(lines(check, &[(METRIC_NAMES, "//! H\n"), (ENDPOINTS, "//! H\n")]).len(), 2);
    }
}
