//! Reads a request to the admin routes, strictly: what would have no effect is
//! refused.

use std::collections::BTreeSet;

use aisix_config::edit::{self, Actor};
use axum::{body::Body, extract::Request};
use http::{HeaderMap, HeaderName, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use crate::{
    admin::Peer,
    auth::AdminKey,
    failure::Failure,
    routes::{Action, Content, Form, Param, kind_named},
};

/// The largest body.
const MAX_BODY: usize = 4 << 20;
/// The most entity tags in `If-Match`: each may cost a check of the document.
const MAX_TAGS: usize = 16;

/// A request that was read.
pub(crate) struct Call {
    /// The path of the request.
    pub(crate) path: String,
    /// The path parameter; absent where there is none, or it is not UTF-8.
    pub(crate) id: Option<String>,
    pub(crate) query: Query,
    pub(crate) precondition: Precondition,
    pub(crate) actor: Actor,
    /// `Null` when there was none.
    pub(crate) body: Value,
}

impl Call {
    /// Reads what is left of a request after its key was accepted.
    pub(crate) async fn read(
        action: Action,
        id: Option<String>,
        request: Request,
        key: &AdminKey,
    ) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let query = match action.query() {
            Some(known) => Query::parse(parts.uri.query().unwrap_or_default(), known)?,
            None => Query::default(),
        };
        let precondition = Precondition::of(action, &parts.headers)?;
        let remote = parts.extensions.get::<Peer>().map(|peer| peer.0.ip().to_canonical());
        let actor = Actor { name: key.name.clone(), remote };
        let body = read_body(action.content(), &parts, body).await?;
        Ok(Self { path: parts.uri.path().to_owned(), id, query, precondition, actor, body })
    }

    pub(crate) fn id(&self) -> Result<&str, Failure> {
        self.id.as_deref().ok_or_else(Failure::not_found)
    }

    pub(crate) fn dry_run(&self) -> bool {
        self.query.flag("dry_run", false)
    }
}

/// The parameters of a query; each is known, given once and in order.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str, known: &[Param]) -> Result<Self, Failure> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
        let stranger = |(name, _): &&(String, String)| known.iter().all(|param| param.name != name);
        let strangers: BTreeSet<String> =
            pairs.iter().filter(stranger).map(|(name, _)| format!("{name:?}")).collect();
        if !strangers.is_empty() {
            let strangers: Vec<String> = strangers.into_iter().collect();
            return Err(Failure::bad(format!("unknown query parameter {}", strangers.join(", "))));
        }
        for param in known {
            let mut values = pairs.iter().filter(|(name, _)| name == param.name).map(|(_, value)| value);
            if let Some(value) = values.next() {
                let name = param.name;
                if values.next().is_some() {
                    return Err(Failure::bad(format!("query parameter {name:?} is given more than once")));
                }
                if let Err(rule) = param.form.check(value) {
                    return Err(Failure::bad(format!("query parameter {name:?} must be {rule}")));
                }
            }
        }
        Ok(Self(pairs))
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(known, value)| (known == name).then_some(value.as_str()))
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.text(name).map_or(default, |value| value == "true")
    }

    pub(crate) fn count(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// How many entries are asked for.
    pub(crate) fn limit(&self) -> Option<usize> {
        usize::try_from(self.count("limit")?).ok()
    }
}

impl Form {
    fn check(&self, value: &str) -> Result<(), String> {
        let (holds, rule) = match self {
            Self::Text => (true, String::new()),
            Self::Kind => (kind_named(value).is_some(), "a collection".to_owned()),
            Self::Flag { .. } => (matches!(value, "true" | "false"), "true or false".to_owned()),
            Self::Count { min, max } => {
                let digits = value.bytes().all(|byte| byte.is_ascii_digit());
                let holds = digits && value.parse().is_ok_and(|number: u64| (*min..=*max).contains(&number));
                (holds, format!("a whole number from {min} to {max}"))
            }
        };
        if holds { Ok(()) } else { Err(rule) }
    }
}

/// What `If-Match` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// Nothing, or that the resource exists.
    None,
    /// The revisions it may have; without any, it never matches.
    OneOf(Vec<u64>),
}

impl Precondition {
    fn of(action: Action, headers: &HeaderMap) -> Result<Self, Failure> {
        if !action.writes() {
            return Ok(Self::None);
        }
        for name in [header::IF_NONE_MATCH, header::IF_UNMODIFIED_SINCE] {
            if headers.contains_key(&name) {
                return Err(no_effect(&name));
            }
        }
        let mut tags = Vec::new();
        for value in headers.get_all(header::IF_MATCH) {
            if !action.conditional() {
                return Err(no_effect(&header::IF_MATCH));
            }
            tags.push(value.to_str().map_err(|_| malformed())?);
        }
        if tags.is_empty() { Ok(Self::None) } else { Self::parse(&tags.join(",")) }
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        if text.trim() == "*" {
            return Ok(Self::None);
        }
        let mut revisions = Vec::new();
        let mut rest = text.trim_start();
        let mut tags = 0;
        while !rest.is_empty() {
            // Weak tags never match here (RFC 9110, 13.1.1); neither do tags that are no revision.
            let (weak, tag) = rest.strip_prefix("W/").map_or((false, rest), |tag| (true, tag));
            let (tag, after) =
                tag.strip_prefix('"').and_then(|tag| tag.split_once('"')).ok_or_else(malformed)?;
            if let Ok(revision) = tag.parse::<u64>()
                && !weak
                && revision.to_string() == tag
            {
                revisions.push(revision);
            }
            tags += 1;
            let after = after.trim_start();
            rest = match after.strip_prefix(',') {
                Some(next) => next.trim_start_matches([',', ' ', '\t']),
                None if after.is_empty() => after,
                None => return Err(malformed()),
            };
        }
        match tags {
            0 => Err(malformed()),
            tags if tags > MAX_TAGS => Err(Failure::bad(format!("If-Match has more than {MAX_TAGS} tags"))),
            _ => Ok(Self::OneOf(revisions)),
        }
    }
}

fn no_effect(name: &HeaderName) -> Failure {
    Failure::bad(format!("the header {name} has no effect here"))
}

fn malformed() -> Failure {
    Failure::bad("If-Match must be `*` or entity tags such as `\"5\"`")
}

async fn read_body(content: Content, parts: &Parts, body: Body) -> Result<Value, Failure> {
    if content == Content::None {
        return Ok(Value::Null);
    }
    let typed = parts.headers.contains_key(header::CONTENT_TYPE);
    if content != Content::Maybe || typed {
        check_type(content, &parts.headers)?;
    }
    let declared = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if declared.and_then(|value| value.parse().ok()).is_some_and(|length: usize| length > MAX_BODY) {
        return Err(too_large());
    }
    let bytes = match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
        Err(_) => return Err(Failure::bad("the body did not arrive")),
    };
    if content == Content::Maybe {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        check_type(content, &parts.headers)?;
    }
    edit::read_json(&bytes).map_err(|why| Failure::bad(format!("the body is not JSON: {why}")))
}

fn too_large() -> Failure {
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {} MiB", MAX_BODY >> 20))
}

fn check_type(content: Content, headers: &HeaderMap) -> Result<(), Failure> {
    let allowed: &[&str] = match content {
        Content::Patch => &["application/merge-patch+json", "application/json"],
        _ => &["application/json"],
    };
    let unsupported = |what: String| Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what);
    let plain = |value: &[u8]| value.trim_ascii().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|value| !plain(value.as_bytes())) {
        return Err(unsupported("the body must not be compressed".to_owned()));
    }
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let given = values.next().and_then(|value| value.to_str().ok()).filter(|_| values.next().is_none());
    let mut parts = given.unwrap_or_default().split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let utf8 = |part: &str| match part.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    };
    if allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(essence)) && parts.all(utf8) {
        return Ok(());
    }
    Err(unsupported(format!("the content type must be {}", allowed.join(" or "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revisions(text: &str) -> Option<Vec<u64>> {
        match Precondition::parse(text) {
            Ok(Precondition::OneOf(revisions)) => Some(revisions),
            Ok(Precondition::None) => panic!("{text}: no precondition"),
            Err(_) => None,
        }
    }

    #[test]
    fn entity_tags_are_read() {
        assert_eq!(Precondition::parse(" * ").ok(), Some(Precondition::None));
        for (text, expected) in [
            ("\"5\"", Some(vec![5])),
            ("\"5\" , \"7\"", Some(vec![5, 7])),
            ("\"5\",,\"7\",", Some(vec![5, 7])),
            ("W/\"5\"", Some(vec![])),
            ("W/\"5\",\"6\"", Some(vec![6])),
            ("\"05\"", Some(vec![])),
            ("\"+5\"", Some(vec![])),
            ("\"a,b\",\"8\"", Some(vec![8])),
            ("\"\"", Some(vec![])),
            ("\"18446744073709551616\"", Some(vec![])),
            ("5", None),
            ("\"5", None),
            ("\"5\" \"6\"", None),
            ("*,\"5\"", None),
            ("w/\"5\"", None),
            ("", None),
            (",", None),
        ] {
            assert_eq!(revisions(text), expected, "{text}");
        }
        assert!(Precondition::parse(&["\"1\""; 16].join(",")).is_ok());
        assert!(Precondition::parse(&["\"1\""; 17].join(",")).is_err());
    }
}
