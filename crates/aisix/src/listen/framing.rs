//! Contradictory body framing, seen before the HTTP library resolves it
//! silently.
//!
//! RFC 9112, 6.1 and 6.3: several lengths, or a length beside a transfer
//! coding, may be an attempt to smuggle a request. The header that contradicts
//! is renamed in place, so that the request reaches the pipeline, is refused
//! there like any other bad request, and leaves the usual traces.
//!
//! A connection carries one request after the other, and a client may send the
//! next before it has the answer (RFC 9112, 9.3.2). So the boundaries of the
//! bodies are followed too, and every head is looked at, wherever it starts.

use aisix_proxy::CONFLICTING_LENGTH;

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
    Trailer,
    /// The library refuses what came and closes the connection.
    Lost,
}

/// What was seen of a connection's requests. They may arrive in any number of
/// pieces.
#[derive(Debug, Default)]
pub(super) struct Framing {
    place: Place,
    head: Head,
    line: Line,
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
    /// Looks through the bytes that came next and spoils what contradicts.
    pub(super) fn inspect(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            bytes = match self.place {
                Place::Lost => return,
                Place::Body { left, chunked } => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    self.passed(left - taken as u64, chunked);
                    &mut bytes[taken..]
                }
                Place::Head | Place::ChunkSize | Place::Trailer => self.line(bytes),
            };
        }
    }

    fn passed(&mut self, left: u64, chunked: bool) {
        self.place = match left {
            0 if chunked => Place::ChunkSize,
            0 => Place::Head,
            left => Place::Body { left, chunked },
        };
    }

    /// Takes a line, or the part of one that has come; what is left after it.
    fn line<'a>(&mut self, bytes: &'a mut [u8]) -> &'a mut [u8] {
        let end = memchr::memchr(b'\n', bytes);
        let (part, rest) = bytes.split_at_mut(end.unwrap_or(bytes.len()));
        if self.line.length == 0 {
            self.line.first = part.first().copied().unwrap_or_default();
        }
        self.line.length += part.len();
        match self.place {
            Place::Head => self.header(part),
            Place::ChunkSize => self.line.carried.extend_from_slice(part),
            _ => {}
        }
        if end.is_none() {
            return rest;
        }
        let line = std::mem::take(&mut self.line);
        match self.place {
            Place::Head => self.head_line(&line),
            Place::ChunkSize => self.place = chunk(&line.carried),
            // A blank line ends the trailer section.
            _ if line.is_blank() => self.place = Place::Head,
            _ => {}
        }
        &mut rest[1..]
    }

    /// A line of the head is complete.
    fn head_line(&mut self, line: &Line) {
        let value = line.carried.trim_ascii();
        match line.header {
            Some(LENGTH) => self.head.body = length(value),
            Some(_) => self.head.body = coding(value),
            None => {}
        }
        if line.is_blank() && self.head.begun {
            self.place = std::mem::take(&mut self.head).body;
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
        if self.lengths + self.codings.min(1) < 2 {
            return None;
        }
        Some(if name == LENGTH { CONFLICTING_LENGTH.as_bytes() } else { SPOILED_CODING })
    }
}

/// A body of a declared length.
fn length(value: &[u8]) -> Place {
    let digits =
        std::str::from_utf8(value).ok().filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(0) => Place::Head,
        Some(left) => Place::Body { left, chunked: false },
        None => Place::Lost,
    }
}

/// A body in a transfer coding. The last one has to be `chunked` (RFC 9112, 6.3).
fn coding(value: &[u8]) -> Place {
    let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
    if last.trim_ascii().eq_ignore_ascii_case(b"chunked") { Place::ChunkSize } else { Place::Lost }
}

/// What follows the line that gives a chunk's length.
fn chunk(line: &[u8]) -> Place {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let size = std::str::from_utf8(&line[..digits]).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
    match size.map(|size| (size, size.checked_add(2))) {
        Some((0, _)) => Place::Trailer,
        Some((_, Some(left))) => Place::Body { left, chunked: true },
        _ => Place::Lost,
    }
}

/// As long as `transfer-encoding`, and no name that means anything.
const SPOILED_CODING: &[u8] = b"x-bad-framing-:\t\t";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn inspected(head: &str) -> String {
        let mut bytes = head.as_bytes().to_vec();
        Framing::default().inspect(&mut bytes);
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
    fn cuts_do_not_hide_contradictions() {
        for head in [
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            "\r\n\nPOST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        ] {
            for cut in 0..head.len() {
                let (mut first, mut second) =
                    (head.as_bytes()[..cut].to_vec(), head.as_bytes()[cut..].to_vec());
                let mut framing = Framing::default();
                framing.inspect(&mut first);
                framing.inspect(&mut second);
                let seen = [first, second].concat();
                let spoiled = memchr::memmem::find(&seen, CONFLICTING_LENGTH.as_bytes()).is_some()
                    || seen.contains(&b'(');
                assert!(spoiled, "cut at {cut}: {}", String::from_utf8_lossy(&seen));
            }
        }
    }

    /// Requests that may stand before another on a connection.
    const BEFORE: [&str; 4] = [
        "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 22\r\n\r\nContent-Length: 1\r\n\r\n ",
        "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n3;a=b\r\n\n\n\n\r\n1A\r\nContent-Length: 1\r\n: 2\r\n\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
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
                framing.inspect(&mut bytes[window[0]..window[1]]);
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
                framing.inspect(&mut bytes[window[0]..window[1]]);
            }
            prop_assert_eq!(&bytes[..], &head[..]);
        }

        #[test]
        fn the_length_never_changes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut copy = bytes.clone();
            Framing::default().inspect(&mut copy);
            prop_assert_eq!(copy.len(), bytes.len());
        }
    }
}
