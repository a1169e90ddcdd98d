//! Admin keys: what counts as presenting one and how it is compared.

use aisix_core::Secret;
use http::{HeaderMap, HeaderName, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The digests of the configured admin keys. The keys themselves are not kept.
pub(crate) struct AdminKeys(Vec<[u8; 32]>);

impl AdminKeys {
    pub(crate) fn new(keys: &[Secret<String>]) -> Self {
        Self(keys.iter().map(|key| digest(key.expose().as_bytes())).collect())
    }

    /// Whether the request carries one of the keys.
    ///
    /// Digests of equal length are compared, each with all of its bytes and
    /// without stopping at a match, so the time taken tells nothing about how
    /// close a guess came or which key it was.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(presented) = presented(headers) else {
            return false;
        };
        let presented = digest(presented);
        let mut matched = Choice::from(0);
        for key in &self.0 {
            matched |= key.ct_eq(&presented);
        }
        matched.into()
    }
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// The key a request presents. An `Authorization` header that is not a bearer
/// token hides `x-api-key`, and a repeated header is ambiguous: both fail.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let key = if headers.contains_key(header::AUTHORIZATION) {
        let (scheme, token) = only(headers, &header::AUTHORIZATION)?.split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"Bearer ") {
            return None;
        }
        token.trim_ascii()
    } else {
        only(headers, &API_KEY)?.trim_ascii()
    };
    (!key.is_empty()).then_some(key)
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.as_bytes();
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(headers: &[(&'static str, &'static str)]) -> bool {
        let keys = ["first-key", "second-key"].map(|key| Secret::new(key.to_owned()));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        AdminKeys::new(&keys).admit(&map)
    }

    #[test]
    fn keys_are_taken_from_either_header() {
        assert!(admitted(&[("authorization", "Bearer first-key")]));
        assert!(admitted(&[("authorization", "bearer second-key")]));
        assert!(admitted(&[("authorization", "BEARER   first-key  ")]));
        assert!(admitted(&[("x-api-key", "second-key")]));
        assert!(admitted(&[("x-api-key", "other"), ("authorization", "Bearer first-key")]));
    }

    #[test]
    fn everything_else_is_refused() {
        assert!(!admitted(&[]));
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer  ",
            "Basic first-key",
            "first-key",
            "Bearerfirst-key",
            "Bearer nope",
            "Bearer first-keyx",
            "Bearer first-ke",
        ] {
            assert!(!admitted(&[("authorization", value)]), "{value:?}");
            assert!(
                !admitted(&[("authorization", value), ("x-api-key", "first-key")]),
                "{value:?} hides x-api-key"
            );
        }
        assert!(!admitted(&[("x-api-key", "")]));
        assert!(!admitted(&[("x-api-key", "first-key"), ("x-api-key", "first-key")]));
        assert!(!admitted(&[("authorization", "Bearer first-key"), ("authorization", "Bearer first-key")]));
    }

    #[test]
    fn no_configured_key_admits_nobody() {
        let mut map = HeaderMap::new();
        map.insert("x-api-key", "anything".parse().unwrap());
        assert!(!AdminKeys::new(&[]).admit(&map));
    }
}
