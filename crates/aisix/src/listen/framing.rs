//! Contradictory body framing, seen before the HTTP library resolves it
//! silently.
//!
//! RFC 9112, 6.1 and 6.3: several lengths, or a length beside a transfer
//! coding, may be an attempt to smuggle a request. The header that contradicts
//! is renamed in place, so that the request reaches the pipeline, is refused
//! there like any other bad request, and leaves the usual traces.
//!
//! The same happens to a transfer coding other than one `chunked`.
//!
//! A connection carries one request after the other, and a client may send the
//! next before it has the answer (RFC 9112, 9.3.2). So the boundaries of the
//! bodies are followed too, and every head is looked at, wherever it starts.

use aisix_proxy::{CONFLICTING_LENGTH, UNSUPPORTED_CODING};

const LENGTH: &[u8] = b"content-length";
const CODING: &[u8] = b"transfer-encoding";

/// Longest name worth remembering when the network cuts it in two.
const MAX_NAME: usize = 32;

/// Where in the connection's bytes the next one stands.
#[derive(Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Head,
    /// In a body, or a chunk with the line end behind it, of which so many bytes are to come.
    Body { left: u64, chunked: bool },
    /// In the line that gives the length of a chunk (RFC 9112, 7.1).
    ChunkSize,
    /// Behind the last chunk.
    Trailer(Trailer),
    /// The library refuses what came and closes the connection.
    Lost,
}

/// Where in the trailer section. Only CRLF ends its lines for the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trailer {
    LineStart,
    Line,
    LineCr,
    LastCr,
}

/// What was seen of a connection's requests. They may arrive in any number of
/// pieces.
#[derive(Debug, Default)]
pub(super) struct Framing {
    place: Place,
    head: Head,
    line: Line,
    /// A request has just ended.
    ended: bool,
}

/// What was seen of the current request head.
#[derive(Debug, Default)]
struct Head {
    lengths: u32,
    codings: u32,
    /// A line has come; blank ones before the request line do not count (RFC 9112, 2.2).
    begun: bool,
    /// How the library will read the body.
    body: Place,
}

/// What was seen of the current line.
#[derive(Debug, Default)]
struct Line {
    /// Bytes so far, and the first of them.
    length: usize,
    first: u8,
    /// The start of the name, when an earlier piece ended in it; then the value, if it matters.
    carried: Vec<u8>,
    /// Whether the name is known or of no interest.
    settled: bool,
    /// The header whose value is being read.
    header: Option<&'static [u8]>,
}

impl Line {
    fn is_blank(&self) -> bool {
        self.length == 0 || (self.length == 1 && self.first == b'\r')
    }
}

impl Framing {
    /// Looks through the bytes that came next, up to the end of the request
    /// that they belong to, and spoils what contradicts. Says how many they are.
    pub(super) fn inspect(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && !std::mem::take(&mut self.ended) {
            at += match self.place {
                Place::Lost => bytes.len() - at,
                Place::Body { left, chunked } => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    self.passed(left - taken as u64, chunked);
                    taken
                }
                Place::Trailer(place) => {
                    self.trailer(place, bytes[at]);
                    1
                }
                Place::Head | Place::ChunkSize => self.line(&mut bytes[at..]),
            };
        }
        self.ended = false;
        at
    }

    /// Whether nothing of the next request has come.
    pub(super) fn between(&self) -> bool {
        self.place == Place::Head && !self.head.begun && self.line.length == 0
    }

    /// Whether the library cannot have understood how long the body is.
    pub(super) fn lost(&self) -> bool {
        self.place == Place::Lost
    }

    fn enter(&mut self, place: Place) {
        self.ended = place == Place::Head;
        self.place = place;
    }

    fn passed(&mut self, left: u64, chunked: bool) {
        self.enter(match left {
            0 if chunked => Place::ChunkSize,
            0 => Place::Head,
            left => Place::Body { left, chunked },
        });
    }

    fn trailer(&mut self, place: Trailer, byte: u8) {
        self.enter(match (place, byte) {
            (Trailer::LineStart, b'\r') => Place::Trailer(Trailer::LastCr),
            (Trailer::Line, b'\r') => Place::Trailer(Trailer::LineCr),
            (Trailer::LineStart | Trailer::Line, _) => Place::Trailer(Trailer::Line),
            (Trailer::LineCr, b'\n') => Place::Trailer(Trailer::LineStart),
            (Trailer::LastCr, b'\n') => Place::Head,
            (Trailer::LineCr | Trailer::LastCr, _) => Place::Lost,
        });
    }

    /// Takes a line, or the part of one that has come, and says how long it is.
    fn line(&mut self, bytes: &mut [u8]) -> usize {
        let end = memchr::memchr(b'\n', bytes);
        let (part, rest) = bytes.split_at_mut(end.unwrap_or(bytes.len()));
        if self.line.length == 0 {
            self.line.first = part.first().copied().unwrap_or_default();
        }
        self.line.length += part.len();
        match self.place {
            Place::Head => self.header(part),
            _ => self.line.carried.extend_from_slice(part),
        }
        let Some(newline) = rest.first_mut() else { return part.len() };
        let line = std::mem::take(&mut self.line);
        match self.place {
            Place::Head => self.head_line(&line, part, newline),
            _ => self.place = chunk(&line.carried),
        }
        part.len() + 1
    }

    /// A line of the head is complete; this is the part of it that came last.
    fn head_line(&mut self, line: &Line, part: &mut [u8], newline: &mut u8) {
        let value = line.carried.trim_ascii();
        match line.header {
            Some(LENGTH) => self.head.body = length(value),
            Some(_) if value.eq_ignore_ascii_case(b"chunked") => self.head.body = Place::ChunkSize,
            Some(_) if part.len() == line.length => part[..CODING.len()].copy_from_slice(OTHER_CODING),
            // The name is gone by already; this is no legal value, and the head is refused.
            Some(_) => *newline = 0,
            None => {}
        }
        if line.is_blank() && self.head.begun {
            let body = std::mem::take(&mut self.head).body;
            self.enter(body);
        } else {
            self.head.begun |= !line.is_blank();
        }
    }

    /// A line of the head, or the part of one that this read brought.
    fn header(&mut self, part: &mut [u8]) {
        let line = &mut self.line;
        if line.settled {
            if line.header.is_some() {
                line.carried.extend_from_slice(part);
            }
            return;
        }
        if line.carried.is_empty() && !matches!(part.first(), None | Some(b'c' | b'C' | b't' | b'T')) {
            line.settled = true;
            return;
        }
        let Some(colon) = memchr::memchr(b':', part) else {
            line.carried.extend_from_slice(part);
            line.settled = line.carried.len() > MAX_NAME;
            return;
        };
        line.settled = true;
        let whole = line.carried.is_empty();
        let mut name = std::mem::take(&mut line.carried);
        name.extend_from_slice(&part[..colon]);
        let name = match name.trim_ascii_end().to_ascii_lowercase().as_slice() {
            LENGTH => LENGTH,
            CODING => CODING,
            _ => return,
        };
        match self.head.contradiction(name) {
            None => {
                line.header = Some(name);
                line.carried.extend_from_slice(&part[colon + 1..]);
            }
            Some(spoiled) if whole => part[..spoiled.len()].copy_from_slice(spoiled),
            // Part of the name is gone by already; without its colon the line is no header,
            // and the head is refused.
            Some(_) => part[colon] = b'(',
        }
    }
}

impl Head {
    /// Counts a header; what to put in place of its name when it contradicts.
    fn contradiction(&mut self, name: &[u8]) -> Option<&'static [u8]> {
        *if name == LENGTH { &mut self.lengths } else { &mut self.codings } += 1;
        if self.lengths + self.codings < 2 {
            return None;
        }
        Some(match (name, self.lengths) {
            (LENGTH, _) => CONFLICTING_LENGTH.as_bytes(),
            (_, 0) => OTHER_CODING,
            _ => SPOILED_CODING,
        })
    }
}

/// A body of a declared length.
fn length(value: &[u8]) -> Place {
    let digits =
        std::str::from_utf8(value).ok().filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(0) => Place::Head,
        // The library has other uses for the last two numbers.
        Some(left) if left < u64::MAX - 1 => Place::Body { left, chunked: false },
        _ => Place::Lost,
    }
}

/// What follows the line that gives a chunk's length.
fn chunk(line: &[u8]) -> Place {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let size = std::str::from_utf8(&line[..digits]).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
    match size.map(|size| (size, size.checked_add(2))) {
        Some((0, _)) => Place::Trailer(Trailer::LineStart),
        Some((_, Some(left))) => Place::Body { left, chunked: true },
        _ => Place::Lost,
    }
}

/// In place of `transfer-encoding`, and as long, beside a length.
const SPOILED_CODING: &[u8] = b"x-bad-framing-:\t\t";
/// The same for a coding that is refused for itself; a value that begins with
/// [`UNSUPPORTED_CODING`].
const OTHER_CODING: &[u8] = b"x-bad-framing-:?\t";
const _: () = assert!(OTHER_CODING[15] == UNSUPPORTED_CODING && OTHER_CODING.len() == CODING.len());

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Looks through all of the bytes.
    fn inspect(framing: &mut Framing, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = framing.inspect(bytes);
            bytes = &mut bytes[taken..];
        }
    }

    fn inspected(head: &str) -> String {
        let mut bytes = head.as_bytes().to_vec();
        inspect(&mut Framing::default(), &mut bytes);
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn ordinary_heads_stay_as_they_are() {
        for head in [
            "POST / HTTP/1.1\r\nContent-Length: 38\r\nHost: x\r\n\r\ncontent-length: 7\r\ncontent-length: 8\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nx-content-length: 1\r\nx: content-length: 2\r\n\r\n",
        ] {
            assert_eq!(inspected(head), head);
        }
    }

    #[test]
    fn contradictions_are_renamed() {
        let twice = inspected("POST / HTTP/1.1\r\ncontent-length: 5\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(twice, "POST / HTTP/1.1\r\ncontent-length: 5\r\nx-bad-framing-: 5\r\n\r\n");
        let coded = inspected("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(coded, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nx-bad-framing-: 5\r\n\r\n");
        let late = inspected("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(late, "POST / HTTP/1.1\r\nContent-Length: 5\r\nx-bad-framing-:\t\t: chunked\r\n\r\n");
    }

    #[test]
    fn codings_that_are_not_understood_are_renamed() {
        for coding in ["gzip, chunked", "gzip", "chunked, chunked", "chunked;q=1", "identity", ""] {
            let seen = inspected(&format!("POST / HTTP/1.1\r\nTransfer-Encoding:{coding}\r\n\r\n"));
            assert_eq!(seen, format!("POST / HTTP/1.1\r\nx-bad-framing-:?\t:{coding}\r\n\r\n"));
        }
        let twice =
            inspected("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(
            twice,
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nx-bad-framing-:?\t: chunked\r\n\r\n"
        );
    }

    #[test]
    fn a_request_ends_where_the_next_one_may_begin() {
        for request in BEFORE {
            for behind in ["\r\n", "GET / HTTP/1.1\r\n\r\n", "G", "0\r\n\r\n"] {
                let mut framing = Framing::default();
                let mut bytes = format!("{request}{behind}").into_bytes();
                assert!(framing.between());
                assert_eq!(framing.inspect(&mut bytes), request.len(), "{request:?}{behind:?}");
                assert!(framing.between());
                for at in 1..request.len() {
                    let mut framing = Framing::default();
                    let mut bytes = request.as_bytes().to_vec();
                    assert_eq!(framing.inspect(&mut bytes[..at]), at);
                    assert!(!framing.between(), "{request:?} at {at}");
                    assert_eq!(framing.inspect(&mut bytes[at..]), request.len() - at);
                    assert!(framing.between());
                }
            }
        }
    }

    #[test]
    fn cuts_do_not_hide_contradictions() {
        for head in [
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            "\r\n\nPOST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\nTransfer-Encoding:\n\n",
        ] {
            for cut in 0..head.len() {
                let (mut first, mut second) =
                    (head.as_bytes()[..cut].to_vec(), head.as_bytes()[cut..].to_vec());
                let mut framing = Framing::default();
                inspect(&mut framing, &mut first);
                inspect(&mut framing, &mut second);
                let seen = [first, second].concat();
                let spoiled = memchr::memmem::find(&seen, CONFLICTING_LENGTH.as_bytes()).is_some()
                    || seen.contains(&b'(')
                    || seen.contains(&0);
                assert!(spoiled, "cut at {cut}: {}", String::from_utf8_lossy(&seen));
            }
        }
    }

    /// Requests that may stand before another on a connection.
    const BEFORE: [&str; 4] = [
        "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 22\r\n\r\nContent-Length: 1\r\n\r\n ",
        "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding:  Chunked \r\n\r\n3;a=b\r\n\n\n\n\r\n1A\r\nContent-Length: 1\r\n: 2\r\n\r\n\r\n0\r\n\n\nContent-Length: 5\n\n\r\n\r\n",
    ];

    proptest! {
        #[test]
        fn every_head_of_a_connection_is_looked_at(
            before in prop::collection::vec(prop::sample::select(&BEFORE[..]), 0..4),
            cuts in prop::collection::vec(0usize..600, 0..6),
        ) {
            let good = before.concat();
            let bad = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n";
            let mut bytes = format!("{good}{bad}").into_bytes();
            let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let mut framing = Framing::default();
            for window in at.windows(2) {
                inspect(&mut framing, &mut bytes[window[0]..window[1]]);
            }
            let (first, second) = bytes.split_at(good.len());
            prop_assert_eq!(String::from_utf8_lossy(first), good);
            let spoiled = memchr::memmem::find(second, CONFLICTING_LENGTH.as_bytes()).is_some()
                || second.contains(&b'(');
            prop_assert!(spoiled, "{}", String::from_utf8_lossy(second));
        }

        #[test]
        fn cuts_change_nothing_of_an_ordinary_head(cuts in prop::collection::vec(0usize..120, 0..6)) {
            let head = b"POST /v1/c: HTTP/1.1\r\nHost: x\r\nCookie: a\r\nTE: trailers\r\nContent-Length: 19\r\n\r\ncontent-length: 7\r\n";
            let mut bytes = head.to_vec();
            let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(head.len())).collect();
            at.extend([0, head.len()]);
            at.sort_unstable();
            let mut framing = Framing::default();
            for window in at.windows(2) {
                inspect(&mut framing, &mut bytes[window[0]..window[1]]);
            }
            prop_assert_eq!(&bytes[..], &head[..]);
        }

        #[test]
        fn the_length_never_changes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut copy = bytes.clone();
            inspect(&mut Framing::default(), &mut copy);
            prop_assert_eq!(copy.len(), bytes.len());
        }
    }
}
