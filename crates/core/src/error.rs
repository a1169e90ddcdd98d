//! One error type and one table that says what each failure looks like from
//! outside.
//!
//! An [`Error`] carries two texts: the public one goes to the caller, the
//! detail goes to the operator's log only. Hosts, patterns and secrets belong
//! into the second.

use std::{borrow::Cow, fmt};

/// Who is to blame for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The caller's request.
    Client,
    /// The gateway or its configuration.
    Gateway,
    /// The service behind the gateway.
    Upstream,
}

/// A row of the error table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// HTTP status, unless the error carries its own.
    pub status: u16,
    /// The `type` of the OpenAI error body and `error_kind` of the access log.
    pub kind: &'static str,
    /// The `type` used in an error frame after the response has begun.
    pub stream_kind: &'static str,
    /// The default `code`.
    pub code: Option<&'static str>,
    /// Who is to blame.
    pub source: Source,
    /// Whether another attempt may succeed.
    pub retryable: bool,
}

macro_rules! error_table {
    ($($(#[$doc:meta])* $name:ident: $status:literal, $kind:literal / $stream:literal, $code:expr, $source:ident, $retry:literal;)*) => {
        /// Why a request failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, for tests and documentation.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The row of the table.
            pub fn row(self) -> Row {
                match self {
                    $(Reason::$name => Row {
                        status: $status, kind: $kind, stream_kind: $stream,
                        code: $code, source: Source::$source, retryable: $retry,
                    },)*
                }
            }
        }
    };
}

error_table! {
    /// No credential, or one that cannot be read.
    MissingCredential: 401, "invalid_api_key" / "invalid_api_key", None, Client, false;
    /// The credential belongs to no key.
    UnknownKey: 401, "invalid_api_key" / "invalid_api_key", None, Client, false;
    /// The key is disabled.
    KeyDisabled: 401, "invalid_api_key" / "invalid_api_key", Some("api_key_disabled"), Client, false;
    /// The key has expired.
    KeyExpired: 401, "invalid_api_key" / "invalid_api_key", Some("api_key_expired"), Client, false;
    /// The key may not use the model.
    ModelForbidden: 403, "permission_denied" / "permission_denied", None, Client, false;
    /// The client's address may not use the model.
    IpRestricted: 403, "permission_denied" / "permission_denied", Some("ip_restricted"), Client, false;
    /// No model has this name.
    ModelNotFound: 404, "model_not_found" / "model_not_found", None, Client, false;
    /// No endpoint has this path.
    PathNotFound: 404, "invalid_request_error" / "invalid_request_error", Some("not_found"), Client, false;
    /// The endpoint does not take this method.
    MethodNotAllowed: 405, "invalid_request_error" / "invalid_request_error", Some("method_not_allowed"), Client, false;
    /// The request cannot be read or lacks something.
    BadRequest: 400, "invalid_request_error" / "invalid_request_error", None, Client, false;
    /// The body did not arrive in time.
    BodyTimeout: 408, "invalid_request_error" / "invalid_request_error", Some("request_timeout"), Client, false;
    /// The body is larger than the limit.
    BodyTooLarge: 413, "invalid_request_error" / "invalid_request_error", None, Client, false;
    /// The request head is larger than the limit.
    HeadTooLarge: 431, "invalid_request_error" / "invalid_request_error", Some("request_header_fields_too_large"), Client, false;
    /// The client left before the answer was complete.
    ClientDisconnected: 499, "client_disconnected" / "client_disconnected", None, Client, false;
    /// No adapter speaks to the provider.
    ProviderUnavailable: 503, "provider_unavailable" / "provider_unavailable", None, Gateway, false;
    /// The model or its provider key is set up wrongly.
    UpstreamConfig: 400, "invalid_request_error" / "invalid_request_error", None, Gateway, false;
    /// The stored upstream credential cannot be used.
    UpstreamCredential: 401, "authentication_error" / "authentication_error", None, Gateway, false;
    /// The gateway stops and cannot wait any longer.
    ShuttingDown: 503, "service_unavailable" / "service_unavailable", Some("shutting_down"), Gateway, false;
    /// The gateway failed.
    Internal: 500, "internal_error" / "internal_error", None, Gateway, false;
    /// The upstream answered with an error status.
    UpstreamStatus: 502, "upstream_error" / "upstream_error", None, Upstream, true;
    /// The upstream reported an error inside a successful stream.
    UpstreamInBand: 502, "upstream_error" / "upstream_in_band_error", None, Upstream, true;
    /// The upstream did not answer in time.
    UpstreamTimeout: 504, "timeout" / "timeout", None, Upstream, true;
    /// The upstream's answer cannot be read.
    UpstreamDecode: 502, "upstream_decode_error" / "upstream_decode_error", None, Upstream, true;
    /// The connection to the upstream failed.
    UpstreamTransport: 502, "transport_error" / "transport_error", None, Upstream, true;
    /// The upstream ended the stream before it was complete.
    StreamAborted: 502, "stream_aborted" / "transport_error", None, Upstream, true;
}

/// A failure on its way to the caller. Boxed, so that results stay small.
#[derive(Clone, Debug)]
pub struct Error(Box<Facts>);

#[derive(Clone, Debug)]
struct Facts {
    reason: Reason,
    status: u16,
    message: Cow<'static, str>,
    detail: Option<String>,
    code: Option<Cow<'static, str>>,
    param: Option<String>,
    retry_after: Option<u64>,
    upstream_status: Option<u16>,
}

impl Error {
    /// An error with the text that the caller will read.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        let row = reason.row();
        Self(Box::new(Facts {
            reason,
            status: row.status,
            message: message.into(),
            detail: None,
            code: row.code.map(Cow::Borrowed),
            param: None,
            retry_after: None,
            upstream_status: None,
        }))
    }

    /// A 400 with the wording every endpoint uses.
    pub fn bad_request(detail: impl fmt::Display) -> Self {
        Self::new(Reason::BadRequest, format!("request payload is invalid: {detail}"))
    }

    /// Adds text for the operator's log.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Replaces the status of the table.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.0.status = status;
        self
    }

    /// Replaces the `code` of the table.
    #[must_use]
    pub fn with_code(mut self, code: Option<String>) -> Self {
        self.0.code = code.map(Cow::Owned);
        self
    }

    /// Names the offending parameter.
    #[must_use]
    pub fn with_param(mut self, param: Option<String>) -> Self {
        self.0.param = param;
        self
    }

    /// Seconds the caller should wait before trying again.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: Option<u64>) -> Self {
        self.0.retry_after = seconds;
        self
    }

    /// The status the upstream itself answered with.
    #[must_use]
    pub fn with_upstream_status(mut self, status: u16) -> Self {
        self.0.upstream_status = Some(status);
        self
    }

    /// Why it failed.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// HTTP status for the caller.
    pub fn status(&self) -> u16 {
        self.0.status
    }

    /// The `type` of the error body.
    pub fn kind(&self) -> &'static str {
        self.0.reason.row().kind
    }

    /// The `type` of an error frame inside a stream.
    pub fn stream_kind(&self) -> &'static str {
        self.0.reason.row().stream_kind
    }

    /// Text for the caller.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Text for the operator: the detail, else the public message.
    pub fn operator_text(&self) -> &str {
        self.0.detail.as_deref().unwrap_or(&self.0.message)
    }

    /// Machine-readable code, if any.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The offending parameter, if any.
    pub fn param(&self) -> Option<&str> {
        self.0.param.as_deref()
    }

    /// Seconds to wait, if known.
    pub fn retry_after(&self) -> Option<u64> {
        self.0.retry_after
    }

    /// The upstream's own status, when it answered with an error status.
    pub fn upstream_status(&self) -> Option<u16> {
        self.0.upstream_status
    }

    /// Whether another attempt may succeed. A 4xx of the upstream is final
    /// even though other upstream statuses are not.
    pub fn retryable(&self) -> bool {
        self.0.reason.row().retryable && !matches!(self.0.upstream_status, Some(400..=499))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operator_text())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_an_error_status() {
        for reason in Reason::ALL {
            let row = reason.row();
            assert!((400..600).contains(&row.status), "{reason:?}");
            assert_eq!(row.retryable, row.source == Source::Upstream, "{reason:?}");
        }
    }

    #[test]
    fn upstream_4xx_is_final() {
        let error = Error::new(Reason::UpstreamStatus, "no").with_status(429).with_upstream_status(429);
        assert!(!error.retryable());
        assert!(Error::new(Reason::UpstreamStatus, "x").with_upstream_status(503).retryable());
    }

    #[test]
    fn the_caller_never_sees_the_detail() {
        let error = Error::new(Reason::UpstreamTransport, "public").with_detail("10.0.0.7:443");
        assert_eq!(error.message(), "public");
        assert_eq!(error.operator_text(), "10.0.0.7:443");
    }
}
