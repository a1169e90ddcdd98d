//! Validating JSON scanner: finds where values begin and end without building
//! anything.
//!
//! Source: RFC 8259. Accepts exactly what `serde_json` accepts when it skips a
//! value, which a property test holds, but bounds the nesting and looks at each
//! byte of a string only once.

/// How deeply arrays and objects may nest.
pub(crate) const MAX_DEPTH: u32 = 128;

/// Why a text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Nothing that JSON allows stands at this offset.
    Syntax(usize),
    /// Arrays and objects nest too deeply.
    TooDeep,
}

/// Where a field of an object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The key with its quotes.
    pub(crate) key: (usize, usize),
    /// Whether the key holds escapes.
    pub(crate) escaped: bool,
    /// The value.
    pub(crate) value: (usize, usize),
}

/// A position in a text.
pub(crate) struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
}

/// Containers being read, one bit each: set for an object.
#[derive(Default)]
struct Nesting {
    bits: u128,
    depth: u32,
}

impl Nesting {
    fn push(&mut self, object: bool) -> Result<(), Flaw> {
        if self.depth == MAX_DEPTH {
            return Err(Flaw::TooDeep);
        }
        self.bits = self.bits << 1 | u128::from(object);
        self.depth += 1;
        Ok(())
    }

    fn pop(&mut self) {
        self.bits >>= 1;
        self.depth -= 1;
    }

    fn in_object(&self) -> bool {
        self.bits & 1 == 1
    }
}

/// Bytes of a word (first byte lowest) before the first quote, backslash or
/// control character.
fn first_special(word: u64) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let quote = has_zero(word ^ (ONES * b'"' as u64));
    let backslash = has_zero(word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    let stop = quote | backslash | control;
    // The lowest mark is exact; borrows can only mark bytes above it.
    (stop != 0).then(|| (stop.trailing_zeros() / 8) as usize)
}

impl<'t> Scanner<'t> {
    pub(crate) fn new(text: &'t [u8]) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// The byte after white space.
    fn next_token(&mut self) -> Option<u8> {
        while let Some(byte) = self.peek() {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    fn flaw<T>(&self) -> Result<T, Flaw> {
        Err(Flaw::Syntax(self.at))
    }

    fn expect(&mut self, byte: u8) -> Result<(), Flaw> {
        if self.next_token() != Some(byte) {
            return self.flaw();
        }
        self.at += 1;
        Ok(())
    }

    /// White space up to the end of the text.
    pub(crate) fn end(&mut self) -> Result<(), Flaw> {
        if self.next_token().is_some() { self.flaw() } else { Ok(()) }
    }

    /// Reads an object and gives the span of each field.
    pub(crate) fn object(&mut self, mut field: impl FnMut(Span)) -> Result<(), Flaw> {
        self.expect(b'{')?;
        if self.next_token() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let (key, escaped) = self.key()?;
            self.next_token();
            let start = self.at;
            // The object itself is one level.
            self.skip(Nesting { bits: 0, depth: 1 })?;
            field(Span { key, escaped, value: (start, self.at) });
            match self.next_token() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.flaw(),
            }
        }
    }

    /// Reads an array and gives the span of each item.
    pub(crate) fn array(&mut self, mut item: impl FnMut(usize, usize)) -> Result<(), Flaw> {
        self.expect(b'[')?;
        if self.next_token() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.next_token();
            let start = self.at;
            self.skip(Nesting { bits: 0, depth: 1 })?;
            item(start, self.at);
            match self.next_token() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.flaw(),
            }
        }
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<((usize, usize), bool), Flaw> {
        if self.next_token() != Some(b'"') {
            return self.flaw();
        }
        let start = self.at;
        let escaped = self.string()?;
        let key = (start, self.at);
        self.expect(b':')?;
        Ok((key, escaped))
    }

    /// Passes over one value.
    fn skip(&mut self, mut open: Nesting) -> Result<(), Flaw> {
        let outside = open.depth;
        loop {
            match self.next_token() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'{') => {
                    open.push(true)?;
                    self.at += 1;
                    if self.next_token() != Some(b'}') {
                        self.key()?;
                        continue;
                    }
                    self.at += 1;
                    open.pop();
                }
                Some(b'[') => {
                    open.push(false)?;
                    self.at += 1;
                    if self.next_token() != Some(b']') {
                        continue;
                    }
                    self.at += 1;
                    open.pop();
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                _ => return self.flaw(),
            }
            if !self.another(&mut open, outside)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes containers until another value must follow
    /// (`true`) or the outermost one is closed.
    fn another(&mut self, open: &mut Nesting, outside: u32) -> Result<bool, Flaw> {
        while open.depth > outside {
            match (self.next_token(), open.in_object()) {
                (Some(b','), object) => {
                    self.at += 1;
                    if object {
                        self.key()?;
                    }
                    return Ok(true);
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.at += 1;
                    open.pop();
                }
                _ => return self.flaw(),
            }
        }
        Ok(false)
    }

    /// A string from its opening quote to behind the closing one. Says whether
    /// it holds escapes.
    fn string(&mut self) -> Result<bool, Flaw> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.plain();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                // A control character, or the end of the text.
                _ => return self.flaw(),
            }
        }
    }

    /// Passes over bytes that stand for themselves inside a string: the first few
    /// eight at a time, as most strings are short, and the rest in vectors.
    fn plain(&mut self) {
        for _ in 0..2 {
            let Some(chunk) = self.text[self.at..].first_chunk::<8>() else { break };
            match first_special(u64::from_le_bytes(*chunk)) {
                Some(clean) => {
                    self.at += clean;
                    return;
                }
                None => self.at += 8,
            }
        }
        let rest = &self.text[self.at..];
        let end = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        // The minimum compiles to vector code, which a search for a range does not.
        if rest[..end].iter().fold(u8::MAX, |least, &byte| least.min(byte)) >= 0x20 {
            self.at += end;
        } else {
            self.at += rest[..end].iter().position(|&byte| byte < 0x20).unwrap_or(end);
        }
    }

    fn escape(&mut self) -> Result<(), Flaw> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let digits = self.text.get(self.at + 1..self.at + 5);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return self.flaw();
                }
                self.at += 5;
            }
            _ => return self.flaw(),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Flaw> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Flaw> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { self.flaw() } else { Ok(()) }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Flaw> {
        if !self.text[self.at..].starts_with(word) {
            return self.flaw();
        }
        self.at += word.len();
        Ok(())
    }

    /// Passes over one value of any kind.
    #[cfg(test)]
    pub(crate) fn any(&mut self) -> Result<(), Flaw> {
        self.skip(Nesting::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    fn accepts(text: &[u8]) -> bool {
        let mut scanner = Scanner::new(text);
        scanner.any().and_then(|()| scanner.end()).is_ok()
    }

    #[test]
    fn texts_and_near_misses() {
        for (text, valid) in [
            ("{}", true),
            ("[]", true),
            (" [1 , {\"a\" : null } ] ", true),
            ("-0.5e+10", true),
            ("\"\\u00e9\\n\"", true),
            ("", false),
            ("[1,]", false),
            ("{\"a\":1,}", false),
            ("{\"a\"}", false),
            ("{a:1}", false),
            ("01", false),
            ("1.", false),
            ("-", false),
            ("\"a", false),
            ("\"\\x\"", false),
            ("\"\\u12g4\"", false),
            ("nul", false),
            ("\"a\nb\"", false),
            ("[}", false),
            ("{]", false),
            ("[1}", false),
            ("1 2", false),
            ("\"0123456\u{7}89\"", false),
        ] {
            assert_eq!(accepts(text.as_bytes()), valid, "{text:?}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(accepts(nested(128).as_bytes()));
        assert_eq!(Scanner::new(nested(129).as_bytes()).any(), Err(Flaw::TooDeep));
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in "[\\[\\]{}:,\"\\\\ 0-9eE.+\\-a-fnrtuls\u{1}é]{0,24}") {
            prop_assert_eq!(accepts(text.as_bytes()), serde_json::from_str::<IgnoredAny>(&text).is_ok());
        }

        #[test]
        fn agrees_on_long_strings(text in "[ -~é]{0,90}[ -~é\u{1}]{0,9}") {
            let text = format!("[\"{text}\"]");
            prop_assert_eq!(accepts(text.as_bytes()), serde_json::from_str::<IgnoredAny>(&text).is_ok());
        }
    }
}
