//! Server-sent events: splits a byte stream into events.
//!
//! Source: WHATWG HTML, "Server-sent events", event stream interpretation.
//! Lines end in LF, CRLF or CR; several `data:` lines of an event are joined
//! with LF; comments and `id:`/`retry:` are skipped.

use std::borrow::Cow;

/// One event, borrowed from the decoder's buffer where it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event:` field.
    pub name: Option<Cow<'a, str>>,
    /// The `data:` field.
    pub data: Cow<'a, [u8]>,
}

/// Longest event accepted. A single frame beyond it is refused, so that an
/// upstream cannot make the gateway buffer without bound.
const MAX_EVENT: usize = 16 * 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Incremental decoder. Any split of the same bytes gives the same events.
#[derive(Debug, Default)]
pub struct SseDecoder {
    buffer: Vec<u8>,
    /// Where the first event not yet given out begins.
    start: usize,
    /// Where the search for its end goes on.
    searched: usize,
    checked_mark: bool,
}

impl SseDecoder {
    /// An empty decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes as they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
        } else if self.start > 0 {
            self.buffer.drain(..self.start);
        }
        self.searched -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
        let undecided =
            self.buffer.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(&self.buffer);
        if !self.checked_mark && !undecided {
            self.checked_mark = true;
            if self.buffer.starts_with(BYTE_ORDER_MARK) {
                self.start = BYTE_ORDER_MARK.len();
                self.searched = self.start;
            }
        }
    }

    /// The next complete event that has data.
    pub fn next_event(&mut self) -> Option<Event<'_>> {
        loop {
            let (end, rest) = self.event_end()?;
            let block = self.start..end;
            self.start = rest;
            self.searched = rest;
            // Looked at twice because a borrow cannot be returned from a loop conditionally.
            if parse(&self.buffer[block.clone()]).is_some() {
                return parse(&self.buffer[block]);
            }
        }
    }

    /// The last event when the stream ended without a blank line after it.
    pub fn last_event(&mut self) -> Option<Event<'_>> {
        let block = self.start..self.buffer.len();
        self.start = block.end;
        self.searched = block.end;
        parse(&self.buffer[block])
    }

    /// Whether an unfinished event has grown beyond the limit.
    pub fn overflowed(&self) -> bool {
        self.buffer.len() - self.start > MAX_EVENT
    }

    /// Finds the blank line that ends the first event: where the event ends
    /// and where the next one begins.
    fn event_end(&mut self) -> Option<(usize, usize)> {
        let text = &self.buffer[..];
        let mut from = self.searched;
        while let Some(at) = memchr::memchr2(b'\n', b'\r', &text[from..]).map(|at| from + at) {
            let line_end = after_newline(text, at)?;
            let Some(&next) = text.get(line_end) else {
                self.searched = at;
                return None;
            };
            if next == b'\n' || next == b'\r' {
                // A trailing lone CR may be the first half of CRLF.
                let Some(rest) = after_newline(text, line_end) else {
                    self.searched = at;
                    return None;
                };
                return Some((at, rest));
            }
            if at == self.start {
                // A blank line in front of the event.
                return Some((at, line_end));
            }
            from = line_end;
        }
        self.searched = text.len();
        None
    }
}

/// Where the line after the newline at `at` begins; `None` when a CR is the last byte.
fn after_newline(text: &[u8], at: usize) -> Option<usize> {
    match (text[at], text.get(at + 1)) {
        (b'\n', _) => Some(at + 1),
        (_, Some(b'\n')) => Some(at + 2),
        (_, Some(_)) => Some(at + 1),
        (_, None) => None,
    }
}

fn parse(block: &[u8]) -> Option<Event<'_>> {
    if let Some(data) = single_data_line(block) {
        return Some(Event { name: None, data: Cow::Borrowed(data) });
    }
    let (mut name, mut data, mut has_data) = (None, Vec::new(), false);
    for line in lines(block) {
        let (field, value) = match memchr::memchr(b':', line) {
            Some(0) => continue,
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..])),
            None => (line, &b""[..]),
        };
        match field {
            b"event" => name = Some(String::from_utf8_lossy(value)),
            b"data" => {
                if has_data {
                    data.push(b'\n');
                }
                has_data = true;
                data.extend_from_slice(value);
            }
            _ => {}
        }
    }
    has_data.then_some(Event { name, data: Cow::Owned(data) })
}

fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    // CRLF yields an extra empty line here, which no field starts with.
    block.split(|&byte| byte == b'\n' || byte == b'\r').filter(|line| !line.is_empty())
}

/// The common shape, taken without a copy: one `data:` line and nothing else.
fn single_data_line(block: &[u8]) -> Option<&[u8]> {
    let value = block.strip_prefix(b"data:")?;
    if memchr::memchr2(b'\n', b'\r', value).is_some() {
        return None;
    }
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Owned = (Option<String>, String);

    fn own(event: Event<'_>) -> Owned {
        (event.name.map(Cow::into_owned), String::from_utf8_lossy(&event.data).into_owned())
    }

    fn all(parts: &[&[u8]]) -> Vec<Owned> {
        let mut decoder = SseDecoder::new();
        let mut events = Vec::new();
        for part in parts {
            decoder.push(part);
            while let Some(event) = decoder.next_event() {
                events.push(own(event));
            }
        }
        events.extend(decoder.last_event().map(own));
        events
    }

    fn data(text: &str) -> Owned {
        (None, text.to_owned())
    }

    #[test]
    fn all_newlines_end_lines() {
        for newline in ["\n", "\r\n", "\r"] {
            let text = "data: a\n\n: note\n\nevent: x\ndata:b\ndata: c\nid: 1\n\n".replace('\n', newline);
            let named = (Some("x".to_owned()), "b\nc".to_owned());
            assert_eq!(all(&[text.as_bytes()]), [data("a"), named], "{newline:?}");
        }
    }

    #[test]
    fn the_last_event_needs_no_blank_line() {
        assert_eq!(all(&[b"data: a\n\ndata: [DONE]"]), [data("a"), data("[DONE]")]);
        assert_eq!(all(&[b"data: a\n"]), [data("a")]);
    }

    #[test]
    fn byte_order_mark_and_leading_blank_lines_are_skipped() {
        assert_eq!(all(&[b"\xef\xbb\xbf\n\n\ndata: a\n\n"]), [data("a")]);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            lines in prop::collection::vec(prop_oneof![
                Just("data: x".to_string()), Just(String::new()), Just(": c".to_string()),
                Just("event: e".to_string()), "data: [a-zé]{0,6}", "[a-z:]{0,5}",
            ], 0..30),
            newline in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let text = lines.join(newline).into_bytes();
            let whole = all(&[&text]);
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let parts: Vec<&[u8]> = at.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            prop_assert_eq!(all(&parts), whole);
        }
    }
}
