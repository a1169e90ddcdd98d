//! Caller keys: reading a credential from a request and finding its key.
//!
//! Only SHA-256 digests of secrets are stored and compared, so the time a
//! look-up takes tells nothing about a secret.

use std::{sync::Arc, time::SystemTime};

use aisix_core::{Error, Glob, Reason};
use foldhash::HashMap;
use http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest, Sha256};

/// A SHA-256 digest.
pub type Digest256 = [u8; 32];

/// The digest of a secret.
pub fn digest(secret: &str) -> Digest256 {
    Sha256::digest(secret.as_bytes()).into()
}

/// A caller-facing key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Resource id.
    pub id: Arc<str>,
    /// Digest of the secret.
    pub digest: Digest256,
    /// Digest of the secret it had before, and the last instant at which that works.
    pub previous: Option<(Digest256, SystemTime)>,
    /// Names and patterns of the models it may use; none means no model.
    pub allowed_models: Vec<Glob>,
    /// Last instant at which the key is valid.
    pub expires_at: Option<SystemTime>,
    /// A disabled key is refused whatever else holds.
    pub disabled: bool,
}

impl Key {
    /// Every digest that may open it.
    fn digests(&self) -> impl Iterator<Item = Digest256> + use<> {
        let replaced = self.previous.map(|(digest, _)| digest).filter(|digest| *digest != self.digest);
        [Some(self.digest), replaced].into_iter().flatten()
    }

    /// Whether a secret of this digest opens it: its own, or the replaced one for a while.
    fn accepts(&self, presented: &Digest256, now: SystemTime) -> bool {
        *presented == self.digest
            || self.previous.is_some_and(|(digest, end)| *presented == digest && now <= end)
    }

    /// Whether the key may use a model, by the name the caller sent.
    pub fn may_use(&self, model: &str) -> bool {
        self.allowed_models.iter().any(|pattern| pattern.matches(model))
    }
}

/// A key together with what its user keeps beside it.
#[derive(Debug)]
pub struct Entry<T> {
    /// The key.
    pub key: Key,
    /// What belongs to it.
    pub extra: T,
}

/// A refusal: what the caller reads and what telemetry counts.
#[derive(Debug)]
pub struct Denial {
    /// The error.
    pub error: Error,
    /// Credential kind: `api_key`, or `none` when there was no credential.
    pub method: &'static str,
    /// Why, as a bounded word.
    pub reason: &'static str,
    /// Id of the key, when one was found.
    pub key_id: Option<Arc<str>>,
}

/// How many parts a table has: a change copies one or two of them.
const PARTS: usize = 256;

/// All keys by digest. Cloning shares the parts that do not change.
#[derive(Debug)]
pub struct KeyTable<T> {
    /// By the first byte of the digest.
    parts: Vec<Arc<HashMap<Digest256, Slot<T>>>>,
}

/// The keys of one digest, the one that is reached first.
#[derive(Debug)]
struct Slot<T> {
    first: Arc<Entry<T>>,
    others: Vec<Arc<Entry<T>>>,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self { first: self.first.clone(), others: self.others.clone() }
    }
}

impl<T> Clone for KeyTable<T> {
    fn clone(&self) -> Self {
        Self { parts: self.parts.clone() }
    }
}

impl<T> Default for KeyTable<T> {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| Arc::default()).collect() }
    }
}

impl<T> KeyTable<T> {
    /// Builds the table. Of two keys with one secret the lowest id wins, and a
    /// secret in use wins over a replaced one.
    pub fn new(entries: impl IntoIterator<Item = Arc<Entry<T>>>) -> Self {
        let mut table = Self::default();
        for entry in entries {
            table.insert(&entry);
        }
        table
    }

    /// Adds a key.
    pub fn insert(&mut self, entry: &Arc<Entry<T>>) {
        for digest in entry.key.digests() {
            let part = Arc::make_mut(&mut self.parts[usize::from(digest[0])]);
            match part.get_mut(&digest) {
                None => {
                    part.insert(digest, Slot { first: entry.clone(), others: Vec::new() });
                }
                Some(slot) => {
                    slot.others.push(entry.clone());
                    slot.order(&digest);
                }
            }
        }
    }

    /// Removes a key that was added.
    pub fn remove(&mut self, entry: &Arc<Entry<T>>) {
        for digest in entry.key.digests() {
            let part = Arc::make_mut(&mut self.parts[usize::from(digest[0])]);
            let Some(slot) = part.get_mut(&digest) else { continue };
            slot.others.retain(|other| !Arc::ptr_eq(other, entry));
            if Arc::ptr_eq(&slot.first, entry) {
                match slot.others.pop() {
                    Some(other) => {
                        slot.first = other;
                        slot.order(&digest);
                    }
                    None => {
                        part.remove(&digest);
                    }
                }
            }
        }
    }

    /// The keys of a digest.
    pub fn with(&self, digest: &Digest256) -> impl Iterator<Item = &Arc<Entry<T>>> {
        let slot = self.parts[usize::from(digest[0])].get(digest);
        slot.into_iter().flat_map(|slot| std::iter::once(&slot.first).chain(&slot.others))
    }

    /// Finds the key of a request, or says why there is none.
    pub fn identify(&self, headers: &HeaderMap, now: SystemTime) -> Result<Arc<Entry<T>>, Denial> {
        let token = credential(headers).ok_or_else(|| Denial {
            error: Error::new(Reason::MissingCredential, "missing or malformed Authorization header"),
            method: "none",
            reason: "missing_credentials",
            key_id: None,
        })?;
        let presented = digest(token);
        let entry = self
            .with(&presented)
            .find(|entry| entry.key.accepts(&presented, now))
            .ok_or_else(|| denied(Error::new(Reason::UnknownKey, "invalid API key"), "unknown_key", None))?;
        let id = || Some(entry.key.id.clone());
        if entry.key.disabled {
            let error = Error::new(Reason::KeyDisabled, "API key has been disabled");
            return Err(denied(error, "key_disabled", id()));
        }
        if entry.key.expires_at.is_some_and(|end| now > end) {
            return Err(denied(Error::new(Reason::KeyExpired, "API key has expired"), "key_expired", id()));
        }
        Ok(entry.clone())
    }
}

impl<T> Slot<T> {
    /// Puts the key first that is reached by the digest.
    fn order(&mut self, digest: &Digest256) {
        let mut all = std::mem::take(&mut self.others);
        all.push(self.first.clone());
        all.sort_by(|a, b| (a.key.digest != *digest, &a.key.id).cmp(&(b.key.digest != *digest, &b.key.id)));
        self.first = all.remove(0);
        self.others = all;
    }
}

fn denied(error: Error, reason: &'static str, key_id: Option<Arc<str>>) -> Denial {
    Denial { error, method: "api_key", reason, key_id }
}

/// The scheme of the token; its case does not matter (RFC 9110, 11.1).
const SCHEME: &str = "Bearer ";

/// The token of a request. `Authorization` decides alone when it is present;
/// `x-api-key` is read only without it.
pub fn credential(headers: &HeaderMap) -> Option<&str> {
    let token = match headers.get(AUTHORIZATION) {
        Some(value) => {
            let (scheme, token) = value.to_str().ok()?.split_at_checked(SCHEME.len())?;
            scheme.eq_ignore_ascii_case(SCHEME).then_some(token)?
        }
        None => headers.get("x-api-key")?.to_str().ok()?,
    };
    let token = token.trim();
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_bytes(value).expect("header"))
            })
            .collect()
    }

    fn key(id: &str, secret: &str) -> Entry<()> {
        let key = Key {
            id: id.into(),
            digest: digest(secret),
            previous: None,
            allowed_models: vec![Glob::new("gpt-*")],
            expires_at: None,
            disabled: false,
        };
        Entry { key, extra: () }
    }

    #[test]
    fn credentials_are_found_where_they_may_be() {
        for (pairs, token) in [
            (&[("authorization", &b"Bearer  k "[..])][..], Some("k")),
            (&[("x-api-key", b" k ")], Some("k")),
            (&[("authorization", b"Bearer k"), ("x-api-key", b"other")], Some("k")),
            (&[("authorization", b"Basic k"), ("x-api-key", b"other")], None),
            (&[("authorization", b"bearer k")], Some("k")),
            (&[("authorization", b"BEARER k")], Some("k")),
            (&[("authorization", b"Bearerk")], None),
            (&[("authorization", b"Bearer")], None),
            (&[("authorization", b"Bearer ")], None),
            (&[("authorization", b"Bearer \xe9")], None),
            (&[("authorization", b"k")], None),
            (&[("x-api-key", b"  ")], None),
            (&[], None),
        ] {
            assert_eq!(credential(&headers(pairs)), token, "{pairs:?}");
        }
    }

    #[test]
    fn denials_say_why() {
        let now = SystemTime::now();
        let mut expired = key("b", "old");
        expired.key.expires_at = Some(now);
        let mut both = key("c", "off");
        both.key.disabled = true;
        both.key.expires_at = Some(now);
        let table = KeyTable::new([key("a", "good"), expired, both].map(Arc::new));
        let ask = |secret: &str, now| {
            let bearer = format!("Bearer {secret}");
            table
                .identify(&headers(&[("authorization", bearer.as_bytes())]), now)
                .map(|e| e.key.id.to_string())
                .map_err(|d| d.reason)
        };
        let later = now + Duration::from_nanos(1);
        assert_eq!(ask("good", now), Ok("a".into()));
        assert_eq!(ask("nope", now), Err("unknown_key"));
        assert_eq!(ask("old", now), Ok("b".into()));
        assert_eq!(ask("old", later), Err("key_expired"));
        assert_eq!(ask("off", later), Err("key_disabled"));
        assert_eq!(table.identify(&headers(&[]), now).expect_err("none").method, "none");
    }

    #[test]
    fn the_lowest_id_wins() {
        for ids in [["a", "b"], ["b", "a"]] {
            let table = KeyTable::new(ids.map(|id| Arc::new(key(id, "same"))));
            let found = table.identify(&headers(&[("x-api-key", b"same")]), SystemTime::now()).expect("key");
            assert_eq!(&*found.key.id, "a");
        }
    }

    #[test]
    fn access_goes_by_the_name_sent() {
        let entry = key("a", "s");
        assert!(entry.key.may_use("gpt-4o") && !entry.key.may_use("claude"));
    }

    #[test]
    fn a_replaced_secret_works_until_its_end() {
        let now = SystemTime::now();
        let mut rotated = key("a", "new");
        rotated.key.previous = Some((digest("old"), now));
        let reused = key("b", "old");
        let table = KeyTable::new([Arc::new(rotated)]);
        let id = |table: &KeyTable<()>, secret: &'static [u8], now| {
            table.identify(&headers(&[("x-api-key", secret)]), now).map(|entry| entry.key.id.to_string()).ok()
        };
        assert_eq!(id(&table, b"new", now).as_deref(), Some("a"));
        assert_eq!(id(&table, b"old", now).as_deref(), Some("a"));
        assert_eq!(id(&table, b"old", now + Duration::from_secs(1)), None);
        let mut rotated = key("a", "new");
        rotated.key.previous = Some((digest("old"), now));
        let entries = [rotated, reused].map(Arc::new);
        let table = KeyTable::new(entries.clone());
        assert_eq!(id(&table, b"old", now).as_deref(), Some("b"), "a secret in use wins");
        let table = KeyTable::new(entries.into_iter().rev());
        assert_eq!(id(&table, b"old", now).as_deref(), Some("b"), "in any order");
    }

    #[test]
    fn a_table_that_changes_equals_one_that_is_built() {
        let mut rotated = key("c", "two");
        rotated.key.previous = Some((digest("one"), SystemTime::now() + Duration::from_secs(60)));
        let all = [key("b", "one"), key("a", "one"), rotated, key("d", "two")].map(Arc::new);
        let found = |table: &KeyTable<()>, secret: &'static [u8]| {
            let found = table.identify(&headers(&[("x-api-key", secret)]), SystemTime::now());
            found.map(|entry| entry.key.id.to_string()).ok()
        };
        for kept in 0..1_u8 << all.len() {
            let wanted =
                all.iter().enumerate().filter(|(at, _)| kept & (1 << at) != 0).map(|(_, entry)| entry);
            let built = KeyTable::new(wanted.clone().cloned());
            let mut changed = KeyTable::new(all.iter().cloned());
            let before = changed.clone();
            for (at, entry) in all.iter().enumerate() {
                if kept & (1 << at) == 0 {
                    changed.remove(entry);
                }
            }
            for secret in [b"one", b"two"] {
                assert_eq!(found(&changed, secret), found(&built, secret), "{kept:04b}");
            }
            assert_eq!(found(&before, b"one").as_deref(), Some("a"), "what was shared is as it was");
        }
    }
}
