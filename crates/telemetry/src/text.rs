//! Makes text from outside fit for one line of a log or one label.

use std::borrow::Cow;

/// Whether a character could break a line or drive a terminal.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control() || c == '\u{2028}' || c == '\u{2029}'
}

/// Whether the text is printable ASCII.
pub(crate) fn is_printable(text: &str) -> bool {
    !any_word(text.as_bytes(), unprintable)
}

/// Whether the text is printable ASCII that needs no escapes between quotes,
/// neither as a Rust nor as a JSON string.
// Inlined for each field of each line it would be most of their code.
#[inline(never)]
pub(crate) fn is_plain(text: &str) -> bool {
    !any_word(text.as_bytes(), |word| unprintable(word) | has(word, b'"') | has(word, b'\\'))
}

/// Whether a test finds something in any eight bytes of these. A word at a
/// time, because it is asked about every value that is logged.
fn any_word(bytes: &[u8], found: impl Fn(u64) -> u64) -> bool {
    const HIGH: u64 = each(0x80);
    let (words, _) = bytes.as_chunks();
    let last = match (bytes.last_chunk(), bytes.first_chunk(), bytes.last_chunk()) {
        // Bytes that are looked at twice do no harm.
        (Some(last), ..) => u64::from_le_bytes(*last),
        (None, Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
        }
        _ => bytes.iter().fold(each(b'a'), |word, b| word << 8 | u64::from(*b)),
    };
    let bits = words.iter().fold(found(last), |bits, word| bits | found(u64::from_le_bytes(*word)));
    bits & HIGH != 0
}

/// A word of this byte.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The high bit of some byte is set when some byte is not in `0x20..0x7F`:
/// from ASCII, a borrow only comes out of a lower byte, and no carry at all.
fn unprintable(word: u64) -> u64 {
    word | word.wrapping_sub(each(0x20)) | word.wrapping_add(each(1))
}

/// The high bit of some byte is set when some byte of these, if all are ASCII,
/// is this one.
fn has(word: u64, byte: u8) -> u64 {
    (word ^ each(byte)).wrapping_sub(each(1))
}

/// The text without control characters and line separators, at most `max`
/// characters long.
pub(crate) fn clean(text: &str, max: usize) -> Cow<'_, str> {
    // Printable ASCII that is short enough is the common case.
    let plain = text.len() <= max && is_printable(text);
    if plain {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().filter(|c| !is_unsafe(*c)).take(max).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_looked_at() {
        for len in 0..40 {
            let good = "aZ~ 0#[]!"[..].repeat(5)[..len].to_owned();
            assert!(is_printable(&good) && is_plain(&good));
            for at in 0..len {
                for c in '\0'..='\u{ff}' {
                    let mut text = good.clone();
                    text.replace_range(at..=at, c.encode_utf8(&mut [0; 4]));
                    let printable = (' '..='~').contains(&c);
                    assert_eq!(is_printable(&text), printable, "{text:?}");
                    assert_eq!(is_plain(&text), printable && c != '"' && c != '\\', "{text:?}");
                }
            }
        }
    }

    #[test]
    fn unsafe_characters_vanish_and_length_is_bounded() {
        assert_eq!(clean("a\nb\u{2028}c\u{1b}[0m", 10), "abc[0m");
        assert_eq!(clean("äöü", 2), "äö");
        assert!(matches!(clean("plain", 5), Cow::Borrowed("plain")));
        assert_eq!(clean("plain", 4), "plai");
    }
}
