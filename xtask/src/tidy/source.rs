//! Rules for each Rust file: its length and head, the size of functions, and words that must not stay.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Block, Meta, Signature};

use super::{Finding, Repo};

const FILE_LINES: usize = 600;
const TEST_FILE_LINES: usize = 900;
const FUNCTION_LINES: usize = 100;
const PARAMETERS: usize = 6;

/// Folders whose code runs on a developer's machine only: a panic there is an answer.
const MAY_UNWRAP: [&str; 3] = ["xtask/", "bench/", "crates/testkit/"];

pub(super) fn check(repo: &Repo, findings: &mut Vec<Finding>) {
    let tests = TestFiles::find(repo);
    for (path, text) in repo.rust() {
        check_shape(path, text, findings);
        match Parsed::new(text) {
            Ok(parsed) => check_code(path, &parsed, tests.contain(path), findings),
            Err(error) => {
                let line = error.span().start().line;
                findings.push(Finding::new(path, line, format!("does not parse: {error}")));
            }
        }
    }
}

fn check_shape(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let limit = if is_test_path(path) { TEST_FILE_LINES } else { FILE_LINES };
    let lines = text.lines().count();
    if lines > limit {
        findings.push(Finding::new(path, limit + 1, format!("the file has {lines} lines (limit {limit})")));
    }
    if !text.starts_with("//!") {
        findings.push(Finding::new(path, 1, "the file does not begin with a `//!` head"));
    }
    for (number, line) in text.lines().enumerate() {
        if line.contains('\t') {
            findings.push(Finding::new(path, number + 1, "a tab"));
        }
        if line.ends_with([' ', '\t']) {
            findings.push(Finding::new(path, number + 1, "blanks at the end of the line"));
        }
    }
}

fn check_code(path: &str, parsed: &Parsed, is_test: bool, findings: &mut Vec<Finding>) {
    for function in parsed.functions.iter().filter(|function| !is_test && !parsed.in_test(function.line)) {
        let Function { name, line, lines, parameters } = function;
        if *lines > FUNCTION_LINES {
            let what = format!("fn {name} has {lines} lines (limit {FUNCTION_LINES})");
            findings.push(Finding::new(path, *line, what));
        }
        if *parameters > PARAMETERS {
            let what = format!("fn {name} has {parameters} parameters (limit {PARAMETERS})");
            findings.push(Finding::new(path, *line, what));
        }
    }
    let may_unwrap = is_test || MAY_UNWRAP.iter().any(|folder| path.starts_with(folder));
    for (line, word) in &parsed.words {
        let what = match word {
            Word::Macro(name) => format!("`{name}!` must not stay"),
            Word::Ignore => "an ignored test: repair it or remove it".to_owned(),
            Word::Unwrap if may_unwrap || parsed.in_test(*line) => continue,
            Word::Unwrap => {
                "`.unwrap()`: handle the error, or say why there is none with `.expect(..)`".to_owned()
            }
        };
        findings.push(Finding::new(path, *line, what));
    }
}

/// A test by its place: in a folder `tests`, or a file `tests.rs`.
pub(super) fn is_test_path(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// Files that are tests by their place, or because their `mod` line says `#[cfg(test)]`.
pub(super) struct TestFiles {
    modules: BTreeSet<String>,
}

impl TestFiles {
    pub(super) fn find(repo: &Repo) -> Self {
        let mut modules = BTreeSet::new();
        for (path, text) in repo.rust() {
            let Ok(file) = syn::parse_file(text) else { continue };
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            let folder = match name {
                "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
                name => format!("{folder}/{}", name.trim_end_matches(".rs")),
            };
            for item in &file.items {
                if let syn::Item::Mod(module) = item
                    && module.content.is_none()
                    && is_test_only(&module.attrs)
                {
                    modules.insert(format!("{folder}/{}", module.ident));
                }
            }
        }
        Self { modules }
    }

    pub(super) fn contain(&self, path: &str) -> bool {
        let in_module = |module: &String| {
            path.strip_prefix(module.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        is_test_path(path) || self.modules.iter().any(in_module)
    }
}

/// What the rules need to know of a file.
pub(super) struct Parsed {
    functions: Vec<Function>,
    tests: Vec<RangeInclusive<usize>>,
    words: Vec<(usize, Word)>,
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
    parameters: usize,
}

enum Word {
    Macro(String),
    Ignore,
    Unwrap,
}

impl Parsed {
    pub(super) fn new(text: &str) -> syn::Result<Self> {
        let file = syn::parse_file(text)?;
        let mut parsed = Self { functions: Vec::new(), tests: Vec::new(), words: Vec::new() };
        parsed.visit_file(&file);
        // Tokens, because the inside of a macro call is no syntax tree.
        parsed.find_words(&text.parse::<TokenStream>()?);
        Ok(parsed)
    }

    pub(super) fn in_test(&self, line: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&line))
    }

    fn function(&mut self, signature: &Signature, block: Option<&Block>) {
        let line = signature.fn_token.span.start().line;
        let end = block.map_or(line, |block| block.brace_token.span.close().end().line);
        let receivers = usize::from(signature.receiver().is_some());
        self.functions.push(Function {
            name: signature.ident.to_string(),
            line,
            lines: end - line + 1,
            parameters: signature.inputs.len() - receivers,
        });
    }

    fn find_words(&mut self, tokens: &TokenStream) {
        let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            let line = token.span().start().line;
            let next = tokens.get(at + 1);
            match token {
                TokenTree::Group(group) => {
                    self.find_words(&group.stream());
                    let attribute = at > 0 && is_punct(&tokens[at - 1], '#');
                    if attribute
                        && group.delimiter() == Delimiter::Bracket
                        && starts_with(group.stream(), "ignore")
                    {
                        self.words.push((line, Word::Ignore));
                    }
                }
                TokenTree::Ident(name) if next.is_some_and(is_bang) => {
                    let name = name.to_string();
                    if matches!(name.as_str(), "todo" | "unimplemented" | "dbg") {
                        self.words.push((line, Word::Macro(name)));
                    }
                }
                TokenTree::Ident(name) if name == "unwrap" && at > 0 && is_punct(&tokens[at - 1], '.') => {
                    if matches!(next, Some(TokenTree::Group(group)) if group.stream().is_empty()) {
                        self.words.push((line, Word::Unwrap));
                    }
                }
                _ => {}
            }
        }
    }
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

/// The `!` of a macro call, not that of `!=`.
fn is_bang(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == '!' && punct.spacing() == Spacing::Alone)
}

fn starts_with(tokens: TokenStream, wanted: &str) -> bool {
    matches!(tokens.into_iter().next(), Some(TokenTree::Ident(name)) if name == wanted)
}

/// `#[cfg(test)]` and the like, and the test attributes of this and other crates.
fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let tokens = list.tokens.to_string();
            let mut words = tokens.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.clone().any(|word| word == "test") && !words.any(|word| word == "not")
        }
        meta => meta.path().segments.last().is_some_and(|segment| segment.ident == "test"),
    })
}

impl<'ast> Visit<'ast> for Parsed {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if let (true, Some((braces, _))) = (is_test_only(&module.attrs), &module.content) {
            self.tests.push(braces.span.open().start().line..=braces.span.close().end().line);
        }
        visit::visit_item_mod(self, module);
    }

    fn visit_item_impl(&mut self, block: &'ast syn::ItemImpl) {
        if is_test_only(&block.attrs) {
            self.tests.push(block.impl_token.span.start().line..=block.brace_token.span.close().end().line);
        }
        visit::visit_item_impl(self, block);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.note_test(&function.attrs, &function.sig, &function.block);
        self.function(&function.sig, Some(&function.block));
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.note_test(&function.attrs, &function.sig, &function.block);
        self.function(&function.sig, Some(&function.block));
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        self.function(&function.sig, function.default.as_ref());
        visit::visit_trait_item_fn(self, function);
    }
}

impl Parsed {
    fn note_test(&mut self, attributes: &[Attribute], signature: &Signature, block: &Block) {
        if is_test_only(attributes) {
            self.tests.push(signature.fn_token.span.start().line..=block.brace_token.span.close().end().line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::lines;
    use super::*;

    fn of(path: &str, text: &str) -> Vec<String> {
        lines(check, &[(path, text)])
    }

    #[test]
    fn a_long_file() {
        let text = format!("//! Head.\n{}", "// line\n".repeat(600));
        assert_eq!(
            of("crates/a/src/b.rs", &text),
            ["crates/a/src/b.rs:601: the file has 601 lines (limit 600)"]
        );
        assert!(of("crates/a/src/b/tests.rs", &text).is_empty());
        assert!(of("crates/a/tests/b.rs", &text).is_empty());
        let text = format!("//! Head.\n{}", "// line\n".repeat(900));
        assert_eq!(of("tests/e2e/src/lib.rs", &text).len(), 1);
    }

    #[test]
    fn a_missing_head_tabs_and_blanks() {
        let found = of("a.rs", "fn a() {\n\tlet _ = 1; \n}\n");
        assert_eq!(
            found,
            [
                "a.rs:1: the file does not begin with a `//!` head",
                "a.rs:2: a tab",
                "a.rs:2: blanks at the end of the line"
            ]
        );
    }

    #[test]
    fn a_large_function() {
        let body = "    let _ = 1;\n".repeat(99);
        assert_eq!(
            of("a.rs", &format!("//! H\nfn a() {{\n{body}}}\n")),
            ["a.rs:2: fn a has 101 lines (limit 100)"]
        );
        let body = "    let _ = 1;\n".repeat(98);
        assert!(of("a.rs", &format!("//! H\nfn a() {{\n{body}}}\n")).is_empty());
        let body = "    let _ = 1;\n".repeat(200);
        let test = format!("//! H\n#[cfg(test)]\nmod tests {{\nfn a() {{\n{body}}}\n}}\n");
        assert!(of("a.rs", &test).is_empty());
    }

    #[test]
    fn many_parameters() {
        let found = of("a.rs", "//! H\ntrait T {\n    fn f(&self, a: A, b: A, c: A, d: A, e: A, f: A);\n}\n");
        assert!(found.is_empty(), "the receiver does not count: {found:?}");
        let found = of("a.rs", "//! H\nfn f(a: A, b: A, c: A, d: A, e: A, f: A, g: A) {}\n");
        assert_eq!(found, ["a.rs:2: fn f has 7 parameters (limit 6)"]);
    }

    #[test]
    fn words_that_must_not_stay() {
        let text = "//! H\nfn a() {\n    todo!();\n    vec![dbg!(1)];\n    if todo != 1 {}\n    x.unwrap();\n}\n\
                    #[cfg(test)]\nmod tests {\n    #[test]\n    #[ignore = \"slow\"]\n    fn b() { x.unwrap(); }\n}\n";
        assert_eq!(
            of("a.rs", text),
            [
                "a.rs:3: `todo!` must not stay",
                "a.rs:4: `dbg!` must not stay",
                "a.rs:6: `.unwrap()`: handle the error, or say why there is none with `.expect(..)`",
                "a.rs:11: an ignored test: repair it or remove it",
            ]
        );
        assert!(of("a.rs", "//! todo!() in a comment\nconst A: &str = \"dbg!(x.unwrap())\";\n").is_empty());
    }

    #[test]
    fn unwrap_is_allowed_where_a_panic_is_an_answer() {
        let text = "//! H\nfn a() {\n    x.unwrap();\n    y.unwrap_or(1);\n}\n";
        for path in
            ["xtask/src/a.rs", "crates/testkit/src/a.rs", "crates/a/src/tests.rs", "tests/e2e/src/a.rs"]
        {
            assert!(of(path, text).is_empty(), "{path}");
        }
        assert_eq!(of("crates/a/src/lib.rs", text).len(), 1);
    }

    #[test]
    fn a_module_for_tests_may_lie_in_a_file() {
        let lib = "//! H\n#[cfg(test)]\nmod fake;\n#[cfg(not(test))]\nmod real;\n";
        let code = "//! H\nfn a() { x.unwrap(); }\n";
        let files = [
            ("crates/a/src/lib.rs", lib),
            ("crates/a/src/fake.rs", code),
            ("crates/a/src/fake/deep.rs", code),
            ("crates/a/src/real.rs", code),
        ];
        let found = lines(check, &files);
        assert!(found.len() == 1 && found[0].starts_with("crates/a/src/real.rs:2:"), "{found:?}");
    }

    #[test]
    fn a_file_that_does_not_parse() {
        assert!(of("a.rs", "//! H\nfn a( {}\n")[0].starts_with("a.rs:2: does not parse"));
    }
}
