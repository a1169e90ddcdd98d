//! Which headers go to an upstream beside those the gateway owns.

use aisix_config::{FORBIDDEN_HEADERS, HeaderTemplate, RequestOverrides, Variable};
use aisix_core::{Glob, RequestId};
use http::{HeaderMap, HeaderName, HeaderValue, header::CONNECTION};

use super::Caller;

/// Never forwarded from clients.
const NOT_FORWARDED: &[&str] = &[
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "traceparent",
    "tracestate",
    "upgrade",
];

/// Resource names that templates may refer to.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) model_id: String,
    pub(crate) model_name: String,
    pub(crate) provider_key_id: String,
    pub(crate) provider_key_name: String,
}

/// The header overrides of a provider key for one model.
pub(crate) struct HeaderRules {
    defaults: Vec<(HeaderName, HeaderTemplate)>,
    forward: Vec<Glob>,
    names: Names,
}

impl HeaderRules {
    pub(crate) fn compile(request: &RequestOverrides, names: Names) -> Self {
        let defaults = request
            .default_headers
            .iter()
            .filter_map(|(name, template)| {
                let name: HeaderName = name.parse().ok()?;
                (!FORBIDDEN_HEADERS.contains(&name.as_str())).then(|| (name, template.clone()))
            })
            .collect();
        let forward =
            request.forward_client_headers.iter().map(|p| Glob::new(&p.to_ascii_lowercase())).collect();
        Self { defaults, forward, names }
    }

    /// Adds what is not there yet: operator headers first, then the client's.
    pub(crate) fn apply(&self, to: &mut HeaderMap, client: &HeaderMap, caller: &Caller, id: &RequestId) {
        for (name, template) in &self.defaults {
            if !to.contains_key(name)
                && let Some(text) = template.render(|variable| self.value(variable, caller, id))
                && let Ok(value) = HeaderValue::try_from(text)
            {
                to.insert(name, value);
            }
        }
        if self.forward.is_empty() {
            return;
        }
        for name in client.keys() {
            if !to.contains_key(name)
                && may_forward(name.as_str())
                && !of_connection(name, client)
                && self.forward.iter().any(|pattern| pattern.matches(name.as_str()))
                && let Some(value) = client.get(name)
            {
                to.insert(name, value.clone());
            }
        }
    }

    fn value<'a>(&'a self, variable: Variable, caller: &'a Caller, id: &'a RequestId) -> Option<&'a str> {
        match variable {
            Variable::RequestId => Some(id.as_str()),
            Variable::ApiKeyId => Some(&caller.key.id),
            Variable::ApiKeyName => caller.extra.name.as_deref(),
            Variable::TeamId => caller.extra.team_id.as_deref(),
            Variable::UserId => caller.extra.user_id.as_deref(),
            Variable::ModelId => Some(&self.names.model_id),
            Variable::ModelName => Some(&self.names.model_name),
            Variable::ProviderKeyId => Some(&self.names.provider_key_id),
            Variable::ProviderKeyName => Some(&self.names.provider_key_name),
        }
    }
}

fn may_forward(name: &str) -> bool {
    !FORBIDDEN_HEADERS.contains(&name)
        && !NOT_FORWARDED.contains(&name)
        && !name.starts_with("x-aisix-")
        && !name.starts_with("x-stainless-")
}

/// Whether the client says that the header is for this connection only
/// (RFC 9110, 7.6.1).
fn of_connection(name: &HeaderName, client: &HeaderMap) -> bool {
    let named = client.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    named.map(<[u8]>::trim_ascii).any(|named| named.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_hop_headers_stay_here() {
        for name in ["cookie", "authorization", "te", "traceparent", "x-aisix-request-id", "x-stainless-os"] {
            assert!(!may_forward(name), "{name}");
        }
        assert!(may_forward("anthropic-beta"));
    }
}
