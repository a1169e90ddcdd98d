//! Counting tokens where the upstream reported none.
//!
//! A [`Format`](crate::Format) says which texts of a request and of a reply
//! count; here they are turned into numbers. A vocabulary is loaded when it is
//! first needed and then kept (13 MB for `cl100k`, 25 MB for `o200k`, and as
//! much again while it is loaded). Counting takes 20 ms for 1 MB of prose and up
//! to half a second for 1 MB of one endless word, so it is no work for a thread
//! that serves requests.

#[cfg(test)]
mod tests;

/// Bytes that are counted token by token; what is beyond is guessed.
const EXACT: usize = 1024 * 1024;
/// Bytes of an average token.
const TOKEN_BYTES: u64 = 4;
/// Room for the text of a short answer.
const FIRST_RESERVE: usize = 1024;

/// Which byte pairs make a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// `cl100k_base`.
    Cl100k,
    /// `o200k_base`.
    O200k,
}

impl Vocabulary {
    /// The vocabulary of a model by the name that its upstream knows.
    pub fn of_model(name: &str) -> Self {
        // Resellers put the vendor in front, fine-tuned models begin with `ft:`.
        let name = name.rsplit('/').next().unwrap_or_default();
        let name = name.strip_prefix("ft:").unwrap_or(name);
        let name = name.strip_prefix("chat").unwrap_or(name);
        let newer = ["gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "gpt-oss"];
        let reasoning = matches!(name.as_bytes(), [b'o', b'1'..=b'9', rest @ ..] if !rest.first().is_some_and(u8::is_ascii_alphanumeric));
        if reasoning || newer.iter().any(|prefix| name.starts_with(prefix)) {
            Self::O200k
        } else {
            Self::Cl100k
        }
    }

    fn count(self, text: &str) -> u64 {
        if text.is_empty() {
            return 0;
        }
        let name = match self {
            Self::Cl100k => "cl100k_base",
            Self::O200k => "o200k_base",
        };
        match tiktoken::get_encoding(name) {
            Some(encoding) => encoding.count(text) as u64,
            None => text.len() as u64 / TOKEN_BYTES,
        }
    }
}

/// Adds up the tokens of texts.
#[derive(Debug)]
pub struct Counter {
    vocabulary: Vocabulary,
    /// Bytes that may still be counted exactly.
    exact: usize,
    total: u64,
}

impl Counter {
    /// Counts the first MiB exactly.
    pub fn new(vocabulary: Vocabulary) -> Self {
        Self { vocabulary, exact: EXACT, total: 0 }
    }

    /// Guesses everything, which takes next to no time.
    pub fn rough(vocabulary: Vocabulary) -> Self {
        Self { exact: 0, ..Self::new(vocabulary) }
    }

    /// Adds tokens that are not made of text.
    pub fn add(&mut self, tokens: u64) {
        self.total += tokens;
    }

    /// Adds the tokens of a text.
    pub fn text(&mut self, text: &str) {
        let (exact, beyond) = text.split_at(text.floor_char_boundary(self.exact));
        self.exact -= exact.len();
        self.total += self.vocabulary.count(exact);
        self.bytes(beyond.len() as u64);
    }

    /// Adds tokens for bytes that are not looked at.
    pub fn bytes(&mut self, bytes: u64) {
        self.total += bytes / TOKEN_BYTES;
    }

    /// The tokens so far.
    pub fn total(&self) -> u64 {
        self.total
    }
}

/// The text that a model wrote, collected to be counted. Of what is beyond the
/// first MiB only the length is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputText {
    text: Vec<u8>,
    beyond: u64,
}

impl OutputText {
    /// Appends decoded text.
    pub fn push(&mut self, text: &[u8]) {
        if self.text.capacity() == 0 {
            self.text.reserve(FIRST_RESERVE);
        }
        let kept = text.len().min(EXACT - self.text.len());
        self.text.extend_from_slice(&text[..kept]);
        self.beyond += (text.len() - kept) as u64;
    }

    /// How many bytes were appended.
    pub fn len(&self) -> u64 {
        self.text.len() as u64 + self.beyond
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what was appended after the first `len` bytes.
    pub fn truncate(&mut self, len: u64) {
        self.beyond = self.beyond.min(len.saturating_sub(self.text.len() as u64));
        self.text.truncate(usize::try_from(len).unwrap_or(usize::MAX));
    }

    /// Adds the tokens of the text.
    pub fn count(&self, counter: &mut Counter) {
        counter.text(&String::from_utf8_lossy(&self.text));
        counter.bytes(self.beyond);
    }
}
