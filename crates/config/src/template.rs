//! Header templates: text with `${variable}` references, parsed at load.

use std::fmt;

/// What a header template may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// The id of the request.
    RequestId,
    /// The id of the caller key.
    ApiKeyId,
    /// The label of the caller key.
    ApiKeyName,
    /// The team of the caller key.
    TeamId,
    /// The user of the caller key.
    UserId,
    /// The id of the model.
    ModelId,
    /// The display name of the model.
    ModelName,
    /// The id of the provider key.
    ProviderKeyId,
    /// The display name of the provider key.
    ProviderKeyName,
}

impl Variable {
    /// Every variable with its name.
    pub const ALL: [(&'static str, Self); 9] = [
        ("request.id", Self::RequestId),
        ("request.api_key.id", Self::ApiKeyId),
        ("request.api_key.name", Self::ApiKeyName),
        ("request.api_key.team_id", Self::TeamId),
        ("request.api_key.user_id", Self::UserId),
        ("model.id", Self::ModelId),
        ("model.name", Self::ModelName),
        ("provider_key.id", Self::ProviderKeyId),
        ("provider_key.name", Self::ProviderKeyName),
    ];

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find_map(|(known, variable)| (*known == name).then_some(*variable))
    }
}

/// A piece of a template.
#[derive(Clone, PartialEq, Eq)]
pub enum Part {
    /// Text that is sent as it is.
    Literal(String),
    /// A reference.
    Variable(Variable),
}

/// A header value with references. Its text may hold a credential, so `Debug`
/// shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub struct HeaderTemplate(Vec<Part>);

impl HeaderTemplate {
    /// Parses a template. The error never quotes the text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, tail)) = rest.split_once("${") {
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            let (name, tail) = tail.split_once('}').ok_or("unterminated `${` in a header template")?;
            let variable = Variable::parse(name.trim()).ok_or_else(|| {
                let known: Vec<_> = Variable::ALL.iter().map(|(name, _)| *name).collect();
                format!("unknown variable in a header template (known: {})", known.join(", "))
            })?;
            parts.push(Part::Variable(variable));
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// The pieces in order.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// The value of the header, or `None` when a variable has no (or an empty)
    /// value or the result is not a legal header value: the header is then left out.
    pub fn render<'v>(&self, value: impl Fn(Variable) -> Option<&'v str>) -> Option<String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Variable(variable) => {
                    out.push_str(value(*variable).filter(|text| !text.is_empty())?);
                }
            }
        }
        http::HeaderValue::from_str(&out).ok().map(|_| out)
    }
}

impl fmt::Debug for HeaderTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderTemplate(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(variable: Variable) -> Option<&'static str> {
        match variable {
            Variable::TeamId => Some("red"),
            Variable::UserId => Some(""),
            Variable::ModelName => Some("a\r\nb"),
            _ => None,
        }
    }

    #[test]
    fn renders_text_and_variables() {
        let template = HeaderTemplate::parse("t=${ request.api_key.team_id };x").unwrap();
        assert_eq!(template.render(value).as_deref(), Some("t=red;x"));
        assert_eq!(template.parts().len(), 3);
    }

    #[test]
    fn a_header_without_value_is_left_out() {
        for text in ["${request.api_key.user_id}", "${request.id}", "x${model.name}"] {
            assert_eq!(HeaderTemplate::parse(text).unwrap().render(value), None);
        }
    }

    #[test]
    fn bad_templates_are_refused_without_their_text() {
        for text in ["sk-1 ${", "sk-1 ${request.id", "sk-1 ${request.nope}"] {
            let error = HeaderTemplate::parse(text).unwrap_err();
            assert!(!error.contains("sk-1") && !error.contains("nope"), "{error}");
        }
    }

    #[test]
    fn debug_hides_the_text() {
        let template = HeaderTemplate::parse("sk-live").unwrap();
        assert_eq!(format!("{template:?}"), "HeaderTemplate(***)");
    }
}
