//! What a text must look like. A complaint says what was expected and never
//! quotes the text.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::text;
use crate::template::HeaderTemplate;

/// Headers that carry credentials or the target: no setting may touch them.
pub const FORBIDDEN_HEADERS: [&str; 10] = [
    "authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "x-amz-security-token",
    "x-amz-date",
    "x-amz-content-sha256",
    "proxy-authorization",
    "cookie",
    "host",
];

/// Headers that frame the message or that the gateway sets itself.
const OWNED_HEADERS: [&str; 11] = [
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-aisix-request-id",
];

pub(super) const EMPTY: &str = "must not be empty";

/// Kinds of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Any,
    /// A file path.
    Path,
    /// `ip:port`
    SocketAddr,
    /// A CIDR or a bare address.
    Net,
    /// A header name.
    Header,
    /// A header that may carry a request id.
    IdHeader,
    /// A header that may be added to upstream requests.
    UpstreamHeader,
    /// A header value with `${variables}`.
    HeaderTemplate,
    /// An `http(s)` URL without credentials, query and fragment; blank = absent.
    Url,
    /// PEM certificates; blank = none.
    Certificates,
    DateTime,
    KeyHash,
    Regex,
    /// A user-agent pattern: at most 512 bytes, case-insensitive.
    ClientPattern,
    /// `[a-z0-9][a-z0-9._-]*`
    Slug,
    /// Text with at most one `*`.
    Pattern,
    LogFilter,
    /// `delta.<field>...`
    DeltaPath,
    /// What people call a resource.
    Name,
    /// Not empty.
    Filled,
    /// Text that is never shown and may be empty.
    Secret,
    /// One of these words.
    Words(&'static [&'static str]),
    /// An `http(s)` URL without credentials, query and fragment.
    BaseUrl,
    /// An `http(s)` URL without credentials; it may have a query.
    FullUrl,
    /// Text without credentials, if it is a URL.
    NoCredentials,
    /// `https://`, or `http://` to one of these hosts.
    HttpsOr(&'static [&'static str]),
    /// `http://` or `https://` and more.
    Http,
    /// A host of Aliyun's log service.
    SlsEndpoint,
    /// A site of Datadog.
    DatadogSite,
    /// A host name, or `*.` and a domain.
    HostPattern,
    /// A path that begins with `/`.
    Prefix,
    /// A header name in lower case that does not carry credentials.
    OwnHeader,
    /// A header name without surrounding blanks.
    Token,
    /// A legal header value.
    HeaderValue,
    /// A server name that tool names can be made from.
    ServerName,
    /// One segment of a path.
    Segment,
    /// What a cache policy applies to.
    AppliesTo,
    /// An IANA time zone.
    TimeZone,
    /// `HH:MM`
    Clock,
    /// `HH:MM` or `24:00`
    EndClock,
    /// `YYYY-MM-DD`
    Date,
}

impl Format {
    /// The type as the reference names it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Any => "string",
            Self::Path => "path",
            Self::SocketAddr => "ip:port",
            Self::Net => "CIDR or IP",
            Self::Header | Self::IdHeader | Self::UpstreamHeader => "header name",
            Self::HeaderTemplate => "header template",
            Self::Url => "URL",
            Self::Certificates => "PEM text",
            Self::DateTime => "RFC 3339 time",
            Self::KeyHash => "64 hex digits",
            Self::Regex | Self::ClientPattern => "regex",
            Self::Slug => "string `[a-z0-9][a-z0-9._-]*`",
            Self::Pattern => "pattern (one `*` allowed)",
            Self::LogFilter => "log filter",
            Self::DeltaPath => "path `delta.<field>`",
            Self::Name | Self::Filled | Self::NoCredentials | Self::Words(_) => "string",
            Self::Secret => "secret",
            Self::BaseUrl | Self::FullUrl | Self::Http => "URL",
            Self::HttpsOr(_) => "https URL",
            Self::SlsEndpoint | Self::DatadogSite => "host",
            Self::HostPattern => "host or `*.` domain",
            Self::Prefix => "path prefix",
            Self::OwnHeader | Self::Token => "header name",
            Self::HeaderValue => "header value",
            Self::ServerName | Self::Segment => "name",
            Self::AppliesTo => "`all`, `model:<name>` or `api_key:<id>`",
            Self::TimeZone => "IANA time zone",
            Self::Clock | Self::EndClock => "`HH:MM`",
            Self::Date => "`YYYY-MM-DD`",
        }
    }

    /// Whether a stored document may break the rule: the gateway then does
    /// without the value, or the request that needs it fails.
    pub(crate) fn is_advice(self) -> bool {
        matches!(
            self,
            Self::Net
                | Self::Header
                | Self::UpstreamHeader
                | Self::HeaderTemplate
                | Self::Url
                | Self::Certificates
                | Self::KeyHash
                | Self::Pattern
                | Self::DeltaPath
                | Self::Regex
                | Self::Name
                | Self::Filled
                | Self::Words(_)
                | Self::BaseUrl
                | Self::FullUrl
                | Self::NoCredentials
                | Self::HeaderValue
                | Self::AppliesTo
                | Self::TimeZone
        )
    }

    /// Whether the text is a URL, in which there may be credentials.
    pub(crate) fn is_url(self) -> bool {
        matches!(
            self,
            Self::Url
                | Self::BaseUrl
                | Self::FullUrl
                | Self::NoCredentials
                | Self::HttpsOr(_)
                | Self::Http
                | Self::SlsEndpoint
                | Self::DatadogSite
        )
    }

    pub(crate) fn check(self, text: &str) -> Result<(), String> {
        let rule = |holds: bool, message: &str| if holds { Ok(()) } else { Err(message.into()) };
        match self {
            Self::Any => Ok(()),
            Self::Path => rule(!text.trim().is_empty(), "must not be blank"),
            Self::SocketAddr => rule(
                text.parse::<SocketAddr>().is_ok(),
                "invalid socket address: expected IP:PORT, such as 127.0.0.1:3000",
            ),
            Self::Net => rule(
                parse_net(text).is_some(),
                "invalid CIDR/IP: expected an address or a network such as 10.0.0.0/8",
            ),
            Self::Header => rule(legal_header(text.trim()), "is not a legal header name"),
            Self::IdHeader => id_header(&text.trim().to_lowercase()),
            Self::UpstreamHeader => upstream_header(text),
            Self::HeaderTemplate => template(text),
            Self::Url if text.trim().is_empty() => Ok(()),
            Self::Url => url(text.trim(), false),
            Self::Certificates => certificates(text),
            Self::DateTime => {
                rule(parse_time(text).is_some(), "value is not a \"date-time\" (RFC 3339 with zone)")
            }
            Self::KeyHash => rule(
                text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
                "value is not a SHA-256 in 64 lower-case hexadecimal digits",
            ),
            Self::Regex => regex(text, false),
            Self::ClientPattern => client_pattern(text),
            Self::Slug => rule(slug(text), "value does not match \"^[a-z0-9][a-z0-9._-]*$\""),
            Self::Pattern => {
                rule(text.matches('*').count() <= 1, "value has more than one `*` and would match nothing")
            }
            Self::LogFilter => log_filter(text),
            Self::DeltaPath => {
                let mut segments = text.split('.');
                let delta = segments.next() == Some("delta");
                let mut rest = segments.peekable();
                let named = rest.peek().is_some() && rest.all(|name| !name.is_empty());
                rule(delta && named, "value is not a path such as delta.reasoning")
            }
            Self::BaseUrl if text.trim().is_empty() => Err(EMPTY.into()),
            Self::BaseUrl => url(text.trim(), false),
            Self::FullUrl => url(text, true),
            Self::Token => rule(legal_header(text), "is not a legal header name"),
            Self::HeaderValue => {
                rule(http::HeaderValue::from_str(text).is_ok(), "value is not a legal header value")
            }
            other => text::check(other, text),
        }
    }
}

/// A network, or a bare address as a network of one.
pub(crate) fn parse_net(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address)
}

/// A point in time.
pub(crate) fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

pub(super) fn legal_header(name: &str) -> bool {
    http::HeaderName::from_bytes(name.as_bytes()).is_ok()
}

fn id_header(name: &str) -> Result<(), String> {
    if !legal_header(name) {
        return Err("rejects a name that is not a legal header name".into());
    }
    let trace = ["traceparent", "tracestate"].into_iter();
    let mut reserved = FORBIDDEN_HEADERS.into_iter().chain(trace);
    match reserved.find(|reserved| *reserved == name) {
        Some(reserved) => Err(format!("rejects `{reserved}`: it has another meaning")),
        None => Ok(()),
    }
}

fn upstream_header(name: &str) -> Result<(), String> {
    let lower = name.to_lowercase();
    if !legal_header(name) {
        Err("is not a legal header name".into())
    } else if FORBIDDEN_HEADERS.contains(&lower.as_str()) {
        Err("is a header that settings may not touch".into())
    } else if OWNED_HEADERS.contains(&lower.as_str()) {
        Err("is a header that the gateway sets itself".into())
    } else {
        Ok(())
    }
}

fn template(text: &str) -> Result<(), String> {
    HeaderTemplate::parse(text)?;
    match http::HeaderValue::from_str(text) {
        Ok(_) => Ok(()),
        Err(_) => Err("value is not a legal header value".into()),
    }
}

fn url(text: &str, query: bool) -> Result<(), String> {
    let expected = "invalid URL: expected http:// or https:// with a host";
    let uri: http::Uri = text.parse().map_err(|_| expected.to_owned())?;
    let authority = uri.authority().ok_or(expected)?;
    match uri.scheme_str() {
        Some("http" | "https") if !authority.host().is_empty() => {}
        _ => return Err(expected.into()),
    }
    if authority.as_str().contains('@') {
        return Err("invalid URL: it must not embed credentials".into());
    }
    let port = authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, port)| port);
    if port.contains(':') && authority.port_u16().is_none() {
        return Err("invalid URL: the port is not a number up to 65535".into());
    }
    if text.contains('#') || !query && text.contains('?') {
        let what = if query { "a fragment" } else { "a query or fragment" };
        return Err(format!("invalid URL: it must not have {what}"));
    }
    text::no_credentials(text)
}

fn certificates(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Ok(());
    }
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        certificate.map_err(|_| "value is not well-formed PEM".to_owned())?;
        found = true;
    }
    if found {
        return Ok(());
    }
    Err("value contains no CERTIFICATE block".into())
}

/// Compiles a pattern.
pub(crate) fn compile(pattern: &str, ignore_case: bool) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).case_insensitive(ignore_case).build()
}

fn regex(pattern: &str, ignore_case: bool) -> Result<(), String> {
    let error = match compile(pattern, ignore_case) {
        Ok(_) => return Ok(()),
        Err(error) => error.to_string(),
    };
    // The full text draws the pattern; its last line is the reason alone.
    let reason = error.lines().last().unwrap_or_default();
    let reason = reason.trim_start_matches("error: ");
    Err(format!("invalid regex: {reason}"))
}

fn client_pattern(pattern: &str) -> Result<(), String> {
    if pattern.len() > 512 {
        return Err("must have at most 512 bytes".into());
    }
    regex(pattern, true)
}

fn slug(text: &str) -> bool {
    let first = text.as_bytes().first();
    first.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}

fn log_filter(text: &str) -> Result<(), String> {
    let expected = "invalid log filter: expected a level (error, warn, info, debug, trace, off) \
                    or target=level pairs";
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    // A single word that is no level would be taken as the name of a module and
    // silence everything else.
    let word = !text.contains(['=', ',', '[', ':']);
    let level = levels.contains(&text.trim().to_lowercase().as_str());
    if word && !level || tracing_subscriber::EnvFilter::try_new(text).is_err() {
        return Err(expected.into());
    }
    Ok(())
}
