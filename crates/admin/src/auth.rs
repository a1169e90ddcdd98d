//! Admin keys: what counts as presenting one, how it is compared, and what it opens.

use aisix_config::Role;
use http::{HeaderMap, HeaderName, header};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A key that opens `/admin/v1/*`. The key itself is not kept.
#[derive(Clone, Debug)]
pub struct AdminKey {
    /// What the audit log calls its holder.
    pub name: String,
    /// SHA-256 of the key.
    pub digest: [u8; 32],
    /// What it opens.
    pub role: Role,
}

impl From<&aisix_config::AdminKey> for AdminKey {
    fn from(key: &aisix_config::AdminKey) -> Self {
        Self { name: key.name.clone(), digest: digest(key.key.expose().as_bytes()), role: key.role }
    }
}

/// The key that the request carries.
///
/// Digests of equal length are compared, each with all of its bytes and
/// without stopping at a match, so the time taken tells nothing about how
/// close a guess came or which key it was.
pub(crate) fn admit<'k>(keys: &'k [AdminKey], headers: &HeaderMap) -> Option<&'k AdminKey> {
    let presented = digest(presented(headers)?);
    let mut found = u64::MAX;
    for (at, key) in (0_u64..).zip(keys) {
        found.conditional_assign(&at, key.digest.ct_eq(&presented));
    }
    keys.get(usize::try_from(found).ok()?)
}

/// What a role is called.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::ReadOnly => "read_only",
        Role::Editor => "editor",
        Role::Owner => "owner",
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

    fn key(name: &str, role: Role) -> AdminKey {
        AdminKey { name: name.to_owned(), digest: digest(name.as_bytes()), role }
    }

    fn who(headers: &[(&'static str, &'static str)]) -> Option<(String, Role)> {
        let keys = [key("first-key", Role::Owner), key("second-key", Role::ReadOnly)];
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        admit(&keys, &map).map(|key| (key.name.clone(), key.role))
    }

    fn admitted(headers: &[(&'static str, &'static str)]) -> bool {
        who(headers).is_some()
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
        assert!(admit(&[], &map).is_none());
    }

    #[test]
    fn each_key_has_its_name_and_role() {
        let first = who(&[("x-api-key", "first-key")]);
        assert_eq!(first, Some(("first-key".to_owned(), Role::Owner)));
        let second = who(&[("x-api-key", "second-key")]);
        assert_eq!(second, Some(("second-key".to_owned(), Role::ReadOnly)));
    }
}
