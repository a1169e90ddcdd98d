//! References between resources.

use serde_json::Value;

/// How a reference names its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Id,
    /// Its identity.
    Name,
    /// Its identity, unless there is a `*` in it: then it is a pattern.
    Pattern,
}

/// A field that names other resources.
pub(crate) struct Ref {
    /// The way to it, such as `routing.targets[].model`.
    pub(crate) path: &'static str,
    /// The kind that is named.
    pub(crate) kind: &'static str,
    pub(crate) by: By,
    /// The field of a resources file that holds the name instead of the id.
    pub(crate) sugar: Option<&'static str>,
    /// Whether a target that is not there is refused when written; it is
    /// reported in any case.
    pub(crate) checked: bool,
}

impl Ref {
    /// A reference by name that must hold.
    pub(crate) const fn name(path: &'static str, kind: &'static str) -> Self {
        Self { path, kind, by: By::Name, sugar: None, checked: true }
    }

    /// Names and patterns; the names must hold.
    pub(crate) const fn pattern(path: &'static str, kind: &'static str) -> Self {
        Self { path, kind, by: By::Pattern, sugar: None, checked: true }
    }

    /// A reference by id that must hold, and how a file spells it.
    pub(crate) const fn id(path: &'static str, kind: &'static str, sugar: &'static str) -> Self {
        Self { path, kind, by: By::Id, sugar: Some(sugar), checked: true }
    }

    /// May name what is not there.
    pub(crate) const fn unchecked(mut self) -> Self {
        self.checked = false;
        self
    }
}

/// A reference found in a document.
pub(crate) struct Site<'d> {
    /// Where, such as `routing.targets[0].model`.
    pub(crate) path: String,
    pub(crate) kind: &'static str,
    pub(crate) by: By,
    pub(crate) checked: bool,
    /// The name or id.
    pub(crate) target: &'d mut String,
}

pub(crate) fn no_more_refs(_: &mut Value, _: &mut dyn FnMut(Site<'_>)) {}

/// Shows every reference of a document; the names and ids may be changed.
pub(crate) fn visit_refs(kind: &super::ResourceKind, document: &mut Value, visit: &mut dyn FnMut(Site<'_>)) {
    for reference in kind.refs {
        let mut found = |path: String, target: &mut String| {
            let (kind, by, checked) = (reference.kind, reference.by, reference.checked);
            visit(Site { path, kind, by, checked, target });
        };
        walk(document, reference.path, String::new(), &mut found);
    }
    (kind.more_refs)(document, visit);
}

/// Is shown references: where, once that is asked for; the kind that is named,
/// and how; the name or id.
pub(crate) type See<'s> = dyn FnMut(&dyn Fn() -> String, (&'static str, By), &str) + 's;

/// Shows every reference of a document.
pub(crate) fn read_refs(kind: &super::ResourceKind, document: &Value, see: &mut See<'_>) {
    for reference in kind.refs {
        read(document, reference.path, &mut Vec::new(), &mut |places, target| {
            see(&|| at(reference.path, places), (reference.kind, reference.by), target);
        });
    }
    if kind.has_more_refs() {
        (kind.more_refs)(&mut document.clone(), &mut |site| {
            see(&|| site.path.clone(), (site.kind, site.by), site.target);
        });
    }
}

/// Shows every text at a path, and the places in the lists on the way.
pub(super) fn read<'d>(
    value: &'d Value,
    path: &str,
    places: &mut Vec<usize>,
    found: &mut dyn FnMut(&[usize], &'d str),
) {
    if path.is_empty() {
        if let Value::String(text) = value {
            found(places, text);
        }
    } else if let Some(rest) = path.strip_prefix("[]") {
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            places.push(index);
            read(item, rest.trim_start_matches('.'), places, found);
            places.pop();
        }
    } else {
        let end = path.find(['.', '[']).unwrap_or(path.len());
        if let Some(value) = value.get(&path[..end]) {
            read(value, path[end..].trim_start_matches('.'), places, found);
        }
    }
}

/// `a[].b` as `a[0].b`.
pub(super) fn at(path: &str, places: &[usize]) -> String {
    places.iter().fold(path.to_owned(), |path, place| path.replacen("[]", &format!("[{place}]"), 1))
}

impl super::ResourceKind {
    /// Whether a document may refer to an id or name; says yes too often rather
    /// than too seldom.
    pub(crate) fn mentions(&self, document: &Value, target: &str) -> bool {
        if self.has_more_refs() {
            return holds(document, target);
        }
        self.refs.iter().any(|reference| reaches(document, reference.path, target))
    }
}

/// Whether a text at a path is the target.
fn reaches(value: &Value, path: &str, target: &str) -> bool {
    if path.is_empty() {
        return value.as_str() == Some(target);
    }
    if let Some(rest) = path.strip_prefix("[]") {
        let rest = rest.trim_start_matches('.');
        return value.as_array().into_iter().flatten().any(|item| reaches(item, rest, target));
    }
    let (name, rest) = path.split_at(path.find(['.', '[']).unwrap_or(path.len()));
    value.get(name).is_some_and(|value| reaches(value, rest.trim_start_matches('.'), target))
}

/// Whether any text holds another.
fn holds(value: &Value, text: &str) -> bool {
    match value {
        Value::String(own) => own.contains(text),
        Value::Array(items) => items.iter().any(|item| holds(item, text)),
        Value::Object(members) => members.values().any(|member| holds(member, text)),
        _ => false,
    }
}

/// Goes to every text at a path.
pub(crate) fn walk(
    value: &mut Value,
    path: &str,
    before: String,
    found: &mut dyn FnMut(String, &mut String),
) {
    if path.is_empty() {
        if let Value::String(text) = value {
            found(before, text);
        }
        return;
    }
    if let Some(rest) = path.strip_prefix("[]") {
        for (index, item) in value.as_array_mut().into_iter().flatten().enumerate() {
            walk(item, rest.trim_start_matches('.'), format!("{before}[{index}]"), found);
        }
        return;
    }
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (name, rest) = path.split_at(end);
    if let Some(value) = value.get_mut(name) {
        let dot = if before.is_empty() { "" } else { "." };
        walk(value, rest.trim_start_matches('.'), format!("{before}{dot}{name}"), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_every_text() {
        let mut document = json!({"a": [{"b": "x"}, {"b": ["y", 1]}, {"c": "z"}], "d": "w"});
        let mut seen = Vec::new();
        for path in ["a[].b", "a[].b[]", "d", "e.f"] {
            walk(&mut document, path, String::new(), &mut |path, text| seen.push((path, text.clone())));
        }
        let expected = [("a[0].b", "x"), ("a[1].b[0]", "y"), ("d", "w")];
        assert_eq!(seen, expected.map(|(path, text)| (path.to_owned(), text.to_owned())));
        let mut read_only = Vec::new();
        for path in ["a[].b", "a[].b[]", "d", "e.f"] {
            read(&document, path, &mut Vec::new(), &mut |places, text| {
                read_only.push((at(path, places), text.to_owned()));
            });
        }
        assert_eq!(read_only, seen);
    }
}
