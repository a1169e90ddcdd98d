//! Credentials inside URLs. Documents that are written may not hold them, but
//! stored ones may: whoever reads is shown `***` in their place.
//!
//! This works on the text alone, so that it also holds for what is no URL, and
//! so that everything else stays byte for byte.

use std::borrow::Cow;

use http::uri::Authority;
use percent_encoding::percent_decode_str;

const MASK: &str = "***";

/// How the names of parameters with credentials end, without `-` and `_`.
const CREDENTIALS: [&str; 8] =
    ["key", "token", "secret", "password", "credential", "credentials", "sig", "signature"];

/// The text without its credentials; `None` if it has none.
pub(crate) fn masked(text: &str) -> Option<String> {
    let (start, end) = user(text).unwrap_or((0, 0));
    let mut out = format!("{}{}", &text[..start], if end > start { MASK } else { "" });
    out.push_str(&parameters(&text[end..]));
    (out != text).then_some(out)
}

/// Whether a credential was replaced in the text: it cannot be written so.
pub(super) fn is_masked(text: &str) -> bool {
    let query = text.split_once(['?', '#']).map_or("", |(_, query)| query);
    text.contains("***@") || query.split('&').any(|pair| pair.ends_with("=***"))
}

/// Where the user information stands.
fn user(text: &str) -> Option<(usize, usize)> {
    let scheme = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-. ".contains(&b));
    let Some(start) = text.find("://").filter(|at| scheme(&text[..*at])).map(|at| at + 3) else {
        // What is no URL may be an address or the like, unless there is a password.
        let end = text.rfind('@').filter(|end| text[..*end].contains(':'))?;
        return Some((0, end));
    };
    let rest = &text[start..];
    let authority = &rest[..rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len())];
    let end = match authority.rfind('@') {
        Some(end) => end,
        // A password with a `/` in it looks like a port that is none.
        None if !is_host(authority) => rest.rfind('@')?,
        None => return None,
    };
    Some((start, start + end))
}

fn is_host(text: &str) -> bool {
    let port = text.rsplit_once(']').map_or(text, |(_, port)| port);
    let port = port.split_once(':').map_or("", |(_, port)| port);
    text.parse::<Authority>().is_ok() && (port.is_empty() || port.parse::<u16>().is_ok())
}

fn parameters(text: &str) -> Cow<'_, str> {
    let Some(start) = text.find(['?', '#']) else {
        return text.into();
    };
    let (before, query) = text.split_at(start + 1);
    let pairs: Vec<String> = query.split('&').map(parameter).collect();
    format!("{before}{}", pairs.join("&")).into()
}

/// What stands between two `&`. Some readers separate by `;` too, and a value
/// may hold what looks like a fragment: nothing is shown after the name.
fn parameter(pair: &str) -> String {
    let mut from = 0;
    while let Some(at) = pair[from..].find('=').map(|at| from + at) {
        let name = pair[from..at].rsplit([';', '#', '?']).next().unwrap_or_default();
        if is_credential(name) && at + 1 < pair.len() {
            return format!("{}{MASK}", &pair[..=at]);
        }
        from = at + 1;
    }
    pair.to_owned()
}

fn is_credential(name: &str) -> bool {
    let name = percent_decode_str(name).decode_utf8_lossy().to_lowercase();
    let name: String = name.chars().filter(|c| c.is_alphanumeric()).collect();
    CREDENTIALS.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_replaced_and_nothing_else() {
        let cases = [
            ("https://user:PASS@h/?key=LEAK", "https://***@h/?key=***"),
            ("https://PASS@h:8443/v1", "https://***@h:8443/v1"),
            ("https://user:PA/SS@h/v1", "https://***@h/v1"),
            ("https://user:P@SS@h/v1", "https://***@h/v1"),
            ("https://us er:PASS@h", "https://***@h"),
            ("user:PASS@h", "***@h"),
            ("user:PASS@https://h", "***@https://h"),
            ("https://h/p?a=1&X-Amz-Signature=LEAK&b=2", "https://h/p?a=1&X-Amz-Signature=***&b=2"),
            ("https://h/?API%5FKEY=LEAK", "https://h/?API%5FKEY=***"),
            ("https://h/?access-token=LE=AK;LEAK#LEAK", "https://h/?access-token=***"),
            ("https://h/?a=1;sig=LEAK", "https://h/?a=1;sig=***"),
            ("https://h/#access_token=LEAK", "https://h/#access_token=***"),
            ("?clientSecret=LEAK", "?clientSecret=***"),
        ];
        for (text, expected) in cases {
            let told = masked(text);
            assert_eq!(told.as_deref(), Some(expected), "{text}");
            assert!(is_masked(expected), "{expected}");
            assert_eq!(masked(expected), None, "{expected}");
        }
    }

    #[test]
    fn ordinary_texts_stay_as_they_are() {
        for text in [
            "",
            "https://api.example.com/v1",
            "https://h:8443/@scope/x?page=2&keys_only=1",
            "http://[::1]:80/a@b",
            "https://@h",
            "https://h/?key",
            "https://h/?key=&a=b",
            "https://h/a?mail=a@b",
            "me@project.example.com",
            "accounts.example.com",
        ] {
            assert_eq!(masked(text), None, "{text}");
            assert!(!is_masked(text), "{text}");
        }
    }
}
