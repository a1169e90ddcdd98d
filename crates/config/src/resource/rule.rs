//! What the rules of a kind are written with.

use crate::schema::{Fault, Format, Path, Problem, Seg};
use crate::tree::{Data, Node};

/// A document as it was written, and the complaints about it.
pub(super) struct Review<'a> {
    node: &'a Node,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Review<'a> {
    pub(super) fn new(node: &'a Node, problems: &'a mut Vec<Problem>) -> Self {
        Self { node, problems }
    }

    /// The document as it was written.
    pub(super) fn node(&self) -> &'a Node {
        self.node
    }

    /// Whether a field is there, and not as `null`.
    pub(super) fn has(&self, field: &str) -> bool {
        self.node.at(field).is_some_and(|node| !node.is_null())
    }

    /// The text of a field.
    pub(super) fn text(&self, field: &str) -> Option<&'a str> {
        self.node.at(field).and_then(Node::as_str)
    }

    pub(super) fn add(&mut self, path: Path, fault: Fault) {
        let found = path.0.iter().try_fold(self.node, |node, seg| match seg {
            Seg::Key(key) => node.get(key),
            Seg::Index(index) => node.as_seq()?.get(*index),
        });
        let origin = found.unwrap_or(self.node).origin.clone();
        self.problems.push(Problem { path, origin, fault });
    }

    /// A rule that every document keeps; without a field, about all of it.
    pub(super) fn refuse(&mut self, field: &str, why: impl Into<String>) {
        let path = if field.is_empty() { Path::default() } else { Path::of(field) };
        self.add(path, Fault::Rule(why.into()));
    }

    /// A rule that stored documents may break.
    pub(super) fn advise(&mut self, field: &str, why: impl Into<String>) {
        self.add(Path::of(field), Fault::Advice(why.into()));
    }

    /// A field at the top that must be there.
    pub(super) fn require(&mut self, field: &'static str) {
        if !self.has(field) {
            self.add(Path::default(), Fault::Required(field));
        }
    }

    /// A field that must be a text with content.
    pub(super) fn require_text(&mut self, field: &'static str) {
        self.require(field);
        if self.text(field) == Some("") {
            self.add(Path::of(field), Fault::Short(1));
        }
    }

    /// A field that one mode requires and every other one excludes.
    pub(super) fn companion(
        &mut self,
        field: &'static str,
        mode: Option<&str>,
        mode_field: &str,
        required_by: &str,
    ) {
        if mode == Some(required_by) {
            self.require(field);
        } else if mode.is_some() && self.has(field) {
            self.refuse(field, format!("is for `{mode_field}: {required_by}` only"));
        }
    }

    /// A field without effect: it may be there, but without content.
    pub(super) fn idle(&mut self, field: &str, why: &str) {
        let hollow = self.node.at(field).is_none_or(|node| match &node.data {
            Data::Null => true,
            Data::String(text) => text.is_empty(),
            Data::Seq(items) => items.is_empty(),
            _ => false,
        });
        if !hollow {
            self.advise(field, why);
        }
    }

    /// A format beside the one of the field, which stored documents may break.
    pub(super) fn advise_format(&mut self, field: &str, format: Format) {
        if let Some(text) = self.text(field)
            && let Err(why) = format.check(text)
        {
            self.advise(field, why);
        }
    }
}

/// Whether an item was there before, item by item.
pub(super) fn repeated<'i>(items: impl Iterator<Item = &'i str>) -> impl Iterator<Item = usize> {
    let mut seen = std::collections::HashSet::new();
    items.enumerate().filter_map(move |(index, item)| (!seen.insert(item)).then_some(index))
}
