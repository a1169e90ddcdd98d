//! URL rewrites: the first rule whose pattern matches the raw path fires once.

use std::borrow::Cow;

use http::{Uri, uri::PathAndQuery};
use regex::Regex;

/// A compiled rule.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// Name for the log.
    pub name: String,
    /// Matched against the percent-encoded path.
    pub pattern: Regex,
    /// Replacement of the first match, with `$1` and `${name}` references.
    pub template: String,
}

/// A rule that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("rewrite rule {0:?} made an unusable path")]
pub struct RewriteError(String);

/// The rewritten URI, `None` when no rule matches.
pub(crate) fn rewrite(rules: &[Rewrite], uri: &Uri) -> Result<Option<Uri>, RewriteError> {
    for rule in rules {
        let Cow::Owned(path) = rule.pattern.replacen(uri.path(), 1, &*rule.template) else {
            continue;
        };
        let whole = match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let refused = || RewriteError(rule.name.clone());
        if !whole.starts_with('/') {
            return Err(refused());
        }
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(whole).map_err(|_| refused())?);
        return Uri::from_parts(parts).map(Some).map_err(|_| refused());
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Vec<Rewrite> {
        [("^/api/(?<rest>.*)$", "/v1/${rest}"), ("^/v1/", "/never/"), ("/bad", "bad path")]
            .map(|(pattern, template)| Rewrite {
                name: pattern.into(),
                pattern: Regex::new(pattern).expect("pattern"),
                template: template.into(),
            })
            .to_vec()
    }

    #[test]
    fn the_first_rule_fires_once() {
        let rewritten = |path: &str| {
            rewrite(&rules(), &path.parse().expect("URI")).map(|uri| uri.map(|uri| uri.to_string()))
        };
        assert_eq!(rewritten("/api/models?x=%2F").expect("rule"), Some("/v1/models?x=%2F".into()));
        assert_eq!(rewritten("/other").expect("none"), None);
        assert!(rewritten("/bad").is_err());
    }
}
