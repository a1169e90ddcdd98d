//! Name patterns with at most one `*`.

/// A name pattern as used by `allowed_models` and wildcard models: exact text,
/// or one `*` that matches any run of characters (also none, also `/`). Both
/// ends are anchored and case matters. A pattern with two or more `*` matches
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Shape);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    Exact(Box<str>),
    Star { prefix: Box<str>, suffix: Box<str> },
    Never,
}

/// What a pattern matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture<'a> {
    /// The pattern has no `*` and equals the name.
    Exact,
    /// The text that `*` stands for.
    Star(&'a str),
}

impl Glob {
    /// Compiles a pattern. Every text is a valid pattern.
    pub fn new(pattern: &str) -> Self {
        Self(match pattern.split_once('*') {
            None => Shape::Exact(pattern.into()),
            Some((_, suffix)) if suffix.contains('*') => Shape::Never,
            Some((prefix, suffix)) => Shape::Star { prefix: prefix.into(), suffix: suffix.into() },
        })
    }

    /// Whether the name matches.
    pub fn matches(&self, name: &str) -> bool {
        self.capture(name).is_some()
    }

    /// What the name matched, if it does.
    pub fn capture<'n>(&self, name: &'n str) -> Option<Capture<'n>> {
        match &self.0 {
            Shape::Exact(text) => (**text == *name).then_some(Capture::Exact),
            Shape::Star { prefix, suffix } => {
                name.strip_prefix(&**prefix)?.strip_suffix(&**suffix).map(Capture::Star)
            }
            Shape::Never => None,
        }
    }

    /// How many literal characters the pattern has: the more, the more specific.
    pub fn literal_len(&self) -> usize {
        match &self.0 {
            Shape::Exact(text) => text.len(),
            Shape::Star { prefix, suffix } => prefix.len() + suffix.len(),
            Shape::Never => 0,
        }
    }

    /// Whether the pattern has exactly one `*`.
    pub fn is_wildcard(&self) -> bool {
        matches!(self.0, Shape::Star { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_star_matches_any_run() {
        let glob = Glob::new("vendor/*-mini");
        assert_eq!(glob.capture("vendor/a/b-mini"), Some(Capture::Star("a/b")));
        assert_eq!(glob.capture("vendor/-mini"), Some(Capture::Star("")));
        assert!(!glob.matches("vendor/mini"));
        assert!(!glob.matches("Vendor/x-mini"));
    }

    #[test]
    fn overlapping_ends_do_not_match() {
        assert!(!Glob::new("aba*aba").matches("aba"));
    }

    #[test]
    fn two_stars_match_nothing() {
        let glob = Glob::new("a*b*");
        assert!(!glob.matches("ab"));
        assert!(!glob.matches("a*b*"));
        assert!(!glob.is_wildcard());
    }

    #[test]
    fn exact_is_exact() {
        assert_eq!(Glob::new("gpt-4o").capture("gpt-4o"), Some(Capture::Exact));
        assert!(!Glob::new("gpt-4o").matches("gpt-4o-mini"));
    }
}
