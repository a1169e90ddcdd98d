//! OpenAI and every compatible vendor.

use aisix_core::{Error, Operation, Reason};
use http::{HeaderName, HeaderValue, Uri, header::AUTHORIZATION};

use super::{Adapter, Address, bad_config};
use crate::{Format, formats, vendors::vendor};

#[derive(Debug)]
pub(super) struct OpenAi;

/// Endpoint paths that operators paste along with the base URL.
const PASTED: &[&str] = &[
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/images/generations",
    "/audio/transcriptions",
    "/audio/translations",
    "/audio/speech",
];

impl Adapter for OpenAi {
    fn format(&self, operation: Operation) -> Option<&'static dyn Format> {
        match operation {
            Operation::Chat => Some(formats::OPENAI_CHAT),
            Operation::ListModels => None,
        }
    }

    fn address(
        &self,
        operation: Operation,
        api_base: Option<&str>,
        provider: &str,
    ) -> Result<Address, Error> {
        let path = match operation {
            Operation::Chat => "/chat/completions",
            Operation::ListModels => "/models",
        };
        let uri = format!("{}{path}", base(api_base, provider)?);
        let parsed: Uri = uri.parse().map_err(|e| bad_config(format_args!("api_base is not a URL: {e}")))?;
        match (parsed.scheme_str(), parsed.host()) {
            (Some("http" | "https"), Some(_)) => Ok(Address::Http(parsed)),
            _ => Err(bad_config("api_base must begin with http:// or https:// and name a host")),
        }
    }

    fn credential(&self, secret: &str) -> Result<Option<(HeaderName, HeaderValue)>, Error> {
        let unusable = |what: &str| {
            Error::new(Reason::UpstreamCredential, format!("invalid upstream credentials: {what}"))
        };
        if secret.trim().is_empty() {
            return Err(unusable("the provider key has an empty api_key"));
        }
        let mut value = HeaderValue::try_from(format!("Bearer {secret}"))
            .map_err(|_| unusable("the api_key cannot be sent as a header"))?;
        value.set_sensitive(true);
        Ok(Some((AUTHORIZATION, value)))
    }
}

fn base(api_base: Option<&str>, provider: &str) -> Result<String, Error> {
    let given = api_base.map(str::trim).filter(|base| !base.is_empty());
    let Some(given) = given else {
        return vendor(provider).map(|vendor| vendor.base_url.to_owned()).ok_or_else(|| {
            bad_config(format_args!(
                "provider_key for vendor {provider:?} has no upstream base URL configured"
            ))
        });
    };
    let mut base = given.trim_end_matches('/');
    if let Some(stripped) = PASTED.iter().find_map(|suffix| base.strip_suffix(suffix)) {
        base = stripped.trim_end_matches('/');
    }
    let bare_openai = ["https://api.openai.com", "http://api.openai.com"].contains(&base);
    Ok(if bare_openai { format!("{base}/v1") } else { base.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(api_base: Option<&str>, provider: &str) -> Result<String, String> {
        match OpenAi.address(Operation::Chat, api_base, provider) {
            Ok(Address::Http(uri)) => Ok(uri.to_string()),
            Ok(Address::Echo) => unreachable!("not the echo adapter"),
            Err(error) => Err(error.message().to_owned()),
        }
    }

    #[test]
    fn api_base_is_tolerant() {
        for (base, expected) in [
            ("http://h:1/v1", "http://h:1/v1/chat/completions"),
            (" http://h:1/v1/ ", "http://h:1/v1/chat/completions"),
            ("http://h:1/chat/completions", "http://h:1/chat/completions"),
            ("http://h:1/v1/embeddings/", "http://h:1/v1/chat/completions"),
            ("http://h:1/v2", "http://h:1/v2/chat/completions"),
            ("http://h:1", "http://h:1/chat/completions"),
            ("https://api.openai.com", "https://api.openai.com/v1/chat/completions"),
            ("https://api.openai.com/", "https://api.openai.com/v1/chat/completions"),
        ] {
            assert_eq!(address(Some(base), "x").as_deref(), Ok(expected), "{base}");
        }
    }

    #[test]
    fn only_openai_has_a_default_base() {
        for provider in ["openai", "OpenAI", ""] {
            assert_eq!(address(None, provider).as_deref(), Ok("https://api.openai.com/v1/chat/completions"));
        }
        let message = address(Some("  "), "openrouter").expect_err("no base");
        assert_eq!(
            message,
            "invalid upstream configuration: provider_key for vendor \"openrouter\" has no upstream base URL configured"
        );
    }

    #[test]
    fn unusable_bases_and_secrets_are_named() {
        for base in ["not a url", "ftp://h/v1", "/v1"] {
            let message = address(Some(base), "x").expect_err("no URL");
            assert!(message.starts_with("invalid upstream configuration: "), "{message}");
        }
        for secret in ["", " ", "a\nb"] {
            let error = OpenAi.credential(secret).expect_err("unusable");
            assert_eq!(error.status(), 401);
            assert!(error.message().starts_with("invalid upstream credentials: "));
        }
    }
}
