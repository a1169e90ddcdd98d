//! Relative links in Markdown lead to files of the repository.

use pulldown_cmark::{Event, Parser, Tag};

use super::{Finding, Repo};

pub(super) fn check(repo: &Repo, findings: &mut Vec<Finding>) {
    for (path, text) in repo.texts().filter(|(path, _)| path.ends_with(".md")) {
        for (event, range) in Parser::new(text).into_offset_iter() {
            let (Event::Start(Tag::Link { dest_url, .. }) | Event::Start(Tag::Image { dest_url, .. })) =
                event
            else {
                continue;
            };
            let Some(target) = resolve(path, &dest_url) else { continue };
            if !target.as_ref().is_some_and(|target| repo.exists(target)) {
                let line = text[..range.start].matches('\n').count() + 1;
                findings.push(Finding::new(path, line, format!("the link {dest_url} leads nowhere")));
            }
        }
    }
}

/// The path a link means. `None`: it leads out of the repository's files (an address, or an anchor of the
/// same page); `Some(None)`: it leads above the repository.
fn resolve(page: &str, link: &str) -> Option<Option<String>> {
    let link = link.split(['#', '?']).next().unwrap_or_default();
    let has_scheme = link.split_once(':').is_some_and(|(scheme, _)| !scheme.contains('/'));
    if link.is_empty() || has_scheme || link.starts_with("//") {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    if !link.starts_with('/') {
        parts.extend(page.split('/'));
        parts.pop();
    }
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => return Some(None),
            ".." => {}
            part => parts.push(part),
        }
    }
    Some(Some(parts.join("/").replace("%20", " ")))
}

#[cfg(test)]
mod tests {
    use super::super::testing::lines;
    use super::*;

    #[test]
    fn links_that_lead_somewhere() {
        let page = "[a](b.md) [b](../README.md#top) ![c](img/c.svg) [d](https://example.com/x) [e](#here)\n\
                    [f](/README.md) [g](img) [h][ref] <mailto:a@example.com> [i](..)\n\n[ref]: b.md\n\n\
                    ```\n[not a link](nowhere.md)\n```\n`[nor](this.md)`\n";
        let files = [("docs/a.md", page), ("docs/b.md", ""), ("docs/img/c.svg", ""), ("README.md", "")];
        assert!(lines(check, &files).is_empty(), "{:?}", lines(check, &files));
    }

    #[test]
    fn links_that_lead_nowhere() {
        let page = "# T\n\n[a](b.md) and\n[r][r] ![i](i.png)\n[up](../../x)\n\n[r]: gone.md\n";
        let found = lines(check, &[("docs/a.md", page)]);
        assert_eq!(
            found,
            [
                "docs/a.md:3: the link b.md leads nowhere",
                "docs/a.md:4: the link gone.md leads nowhere",
                "docs/a.md:4: the link i.png leads nowhere",
                "docs/a.md:5: the link ../../x leads nowhere",
            ]
        );
    }
}
