//! Values at rest: AES-256-GCM under named keys.
//!
//! A sealed value is `01`, the length of the key's id, the id, 12 random bytes,
//! the ciphertext and its tag. The key of the row and its revision are
//! authenticated with it, so a value that was moved to another row or revision
//! does not open. They stay readable, as do the ids of the keys.

use std::fmt::Write as _;
use std::sync::Arc;

use aisix_core::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroize as _;

use super::error::Fault;

const FORMAT: u8 = 1;
const KEY_LEN: usize = 32;
const ID_MAX: usize = 64;

/// A key and its name.
pub(super) struct Key {
    id: String,
    bytes: Secret<[u8; KEY_LEN]>,
    cipher: LessSafeKey,
}

impl Key {
    fn new(id: Option<&str>, bytes: [u8; KEY_LEN]) -> Result<Self, String> {
        let id = match id {
            Some(id) => id.to_owned(),
            None => fingerprint(&bytes),
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if id.is_empty() || id.len() > ID_MAX || !id.chars().all(fits) {
            return Err(format!("the id of a key is 1 to {ID_MAX} letters, digits, `.`, `_` or `-`"));
        }
        let cipher = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| "the key is unfit".to_owned())?;
        Ok(Self { id, bytes: Secret::new(bytes), cipher: LessSafeKey::new(cipher) })
    }

    pub(super) fn generate() -> Result<Self, Fault> {
        Self::new(None, random()?).map_err(Fault::Key)
    }

    /// `<id> <base64>`, or base64 alone, which is named after its fingerprint.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let (id, text) = match (words.next(), words.next(), words.next()) {
            (Some(text), None, _) => (None, text),
            (Some(id), Some(text), None) => (Some(id), text),
            _ => return Err("a key is `<id> <base64 of 32 bytes>`".to_owned()),
        };
        let engine = if text.ends_with('=') { STANDARD } else { STANDARD_NO_PAD };
        let mut bytes = engine.decode(text).map_err(|_| "a key is not base64".to_owned())?;
        let fixed = <[u8; KEY_LEN]>::try_from(bytes.as_slice());
        bytes.zeroize();
        Self::new(id, fixed.map_err(|_| format!("a key is not {KEY_LEN} bytes"))?)
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// As [`Key::parse`] reads it.
    pub(super) fn line(&self) -> Secret<String> {
        Secret::new(format!("{} {}\n", self.id, STANDARD.encode(self.bytes.expose())))
    }

    pub(super) fn same_bytes(&self, other: &Self) -> bool {
        self.bytes.expose() == other.bytes.expose()
    }

    /// Encrypts a value of a row as of a revision.
    pub(super) fn seal(&self, row: &str, revision: u64, value: &[u8]) -> Result<Vec<u8>, Fault> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let head = 2 + self.id.len() + NONCE_LEN;
        let mut blob = Vec::with_capacity(head + value.len() + AES_256_GCM.tag_len());
        // The length fits: an id has at most `ID_MAX` bytes.
        blob.extend_from_slice(&[FORMAT, self.id.len() as u8]);
        blob.extend_from_slice(self.id.as_bytes());
        let bound = bound_to(&blob, row, revision);
        blob.extend_from_slice(&nonce);
        blob.extend_from_slice(value);
        let tag = self
            .cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound),
                &mut blob[head..],
            )
            .map_err(|_| Fault::Unavailable("the value could not be encrypted".to_owned()))?;
        blob.extend_from_slice(tag.as_ref());
        Ok(blob)
    }
}

/// The keys that are known; the first is for writing.
pub(super) struct Ring(Vec<Arc<Key>>);

impl Ring {
    /// One key or more, each on a line or between commas.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let lines = text.split(['\n', ',']).map(str::trim).filter(|line| !line.is_empty());
        let mut keys: Vec<Arc<Key>> = Vec::new();
        for line in lines {
            let key = Key::parse(line)?;
            if keys.iter().any(|known| known.id == key.id) {
                return Err(format!("the key `{}` is there twice", key.id));
            }
            keys.push(Arc::new(key));
        }
        if keys.is_empty() { Err("there is no key".to_owned()) } else { Ok(Self(keys)) }
    }

    /// This ring with a key in front, which takes the place of one with its id.
    pub(super) fn with_first(&self, first: Arc<Key>) -> Self {
        let others = self.0.iter().filter(|key| key.id != first.id).cloned();
        Self(std::iter::once(first.clone()).chain(others).collect())
    }

    pub(super) fn only(key: Arc<Key>) -> Self {
        Self(vec![key])
    }

    /// A ring is never empty.
    pub(super) fn first(&self) -> &Arc<Key> {
        &self.0[0]
    }

    pub(super) fn get(&self, id: &str) -> Option<&Arc<Key>> {
        self.0.iter().find(|key| key.id == id)
    }

    pub(super) fn keys(&self) -> &[Arc<Key>] {
        &self.0
    }

    /// The ids, for people.
    pub(super) fn ids(&self) -> String {
        let ids: Vec<_> = self.0.iter().map(|key| format!("`{}`", key.id)).collect();
        ids.join(", ")
    }

    /// Decrypts what [`Key::seal`] made for this row and revision.
    pub(super) fn open(&self, row: &str, revision: u64, blob: &[u8]) -> Result<Vec<u8>, Fault> {
        let damaged = || Fault::Damaged(format!("the value of `{row}` at revision {revision} does not open"));
        let id = key_id(blob).ok_or_else(damaged)?;
        let (header, rest) = blob.split_at(2 + id.len());
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or_else(damaged)?;
        let key = self.get(id).ok_or_else(|| Fault::UnknownKey(id.to_owned()))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let mut value = sealed.to_vec();
        let bound = Aad::from(bound_to(header, row, revision));
        let len = key.cipher.open_in_place(nonce, bound, &mut value).map_err(|_| damaged())?.len();
        value.truncate(len);
        Ok(value)
    }
}

/// The id of the key that a value was sealed with.
pub(super) fn key_id(blob: &[u8]) -> Option<&str> {
    let [FORMAT, len, rest @ ..] = blob else { return None };
    std::str::from_utf8(rest.get(..usize::from(*len))?).ok()
}

fn bound_to(header: &[u8], row: &str, revision: u64) -> Vec<u8> {
    [header, &revision.to_be_bytes(), row.as_bytes()].concat()
}

/// Tells keys apart; four bytes of a hash say nothing of use about 32 random ones.
fn fingerprint(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref()[..4].iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn random<const N: usize>() -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(Fault::Unavailable("the system gives no random numbers".to_owned())),
    }
}
