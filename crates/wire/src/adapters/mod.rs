//! Adapters: how a family of upstreams is addressed and authenticated.

use aisix_core::{Error, Operation, Reason};
use http::{HeaderName, HeaderValue, Uri};

use crate::Format;

pub mod echo;
mod openai;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A service reached over HTTP.
    Http(Uri),
    /// The built-in provider; nothing leaves the process.
    Echo,
}

/// A family of upstreams.
pub trait Adapter: Send + Sync {
    /// The format it speaks for an operation, if it has the operation.
    fn format(&self, operation: Operation) -> Option<&'static dyn Format>;

    /// The address of an operation, from the provider key's `api_base` and
    /// `provider`.
    fn address(&self, operation: Operation, api_base: Option<&str>, provider: &str)
    -> Result<Address, Error>;

    /// The header that carries the credential, if there is one.
    fn credential(&self, secret: &str) -> Result<Option<(HeaderName, HeaderValue)>, Error>;
}

/// The adapter of a provider key: a `provider` that names a protocol decides,
/// else the `adapter` field.
pub fn of(provider: &str, adapter: Option<&str>) -> Result<&'static dyn Adapter, Error> {
    match (provider, adapter) {
        ("echo", _) => Ok(&echo::Echo),
        ("openai", _) | (_, Some("openai")) => Ok(&openai::OpenAi),
        _ => Err(Error::new(Reason::ProviderUnavailable, "no bridge registered for provider")
            .with_detail(format!("no adapter for provider {provider:?} with adapter {adapter:?}"))),
    }
}

/// A configuration mistake of the operator, as the caller is told of it.
fn bad_config(what: impl std::fmt::Display) -> Error {
    Error::new(Reason::UpstreamConfig, format!("invalid upstream configuration: {what}"))
}
