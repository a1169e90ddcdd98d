//! The id that follows a request through headers, logs and telemetry.

use std::{fmt, sync::Arc};

/// A request id: 1 to 256 visible ASCII bytes. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Longest accepted id in bytes.
    pub const MAX_LEN: usize = 256;

    /// A fresh lower-case UUID v4.
    pub fn mint() -> Self {
        let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
        let text: &str = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
        Self(text.into())
    }

    /// Takes an id that a client sent, if it is acceptable: 1 to 256 bytes,
    /// each in `0x21..=0x7E`.
    pub fn accept(value: &[u8]) -> Option<Self> {
        let fits = (1..=Self::MAX_LEN).contains(&value.len());
        let text = std::str::from_utf8(value).ok()?;
        (fits && value.iter().all(u8::is_ascii_graphic)).then(|| Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minted_ids_are_acceptable() {
        let id = RequestId::mint();
        assert_eq!(RequestId::accept(id.as_str().as_bytes()), Some(id));
    }

    #[test]
    fn unusable_ids_are_refused() {
        for bad in [&b""[..], b"a b", b"a\n", b"\x7f", "é".as_bytes(), &[b'a'; 257]] {
            assert_eq!(RequestId::accept(bad), None, "{bad:?}");
        }
        assert!(RequestId::accept(&[b'~'; 256]).is_some());
    }
}
