//! Contradictory body framing, seen before the HTTP library resolves it
//! silently.
//!
//! RFC 9112, 6.1 and 6.3: several lengths, or a length beside a transfer
//! coding, may be an attempt to smuggle a request. The header that contradicts
//! is renamed in place, so that the request reaches the pipeline, is refused
//! there like any other bad request, and leaves the usual traces.

use aisix_proxy::CONFLICTING_LENGTH;

const LENGTH: &[u8] = b"content-length";
const CODING: &[u8] = b"transfer-encoding";

/// Longest name worth remembering when the network cuts it in two.
const MAX_NAME: usize = 32;

/// What was seen of the current request head. It may arrive in any number of
/// pieces.
#[derive(Debug, Default)]
pub(super) struct Framing {
    lengths: u32,
    codings: u32,
    /// A line has come; blank ones before the request line do not count (RFC 9112, 2.2).
    begun: bool,
    /// The head is over; what follows is body.
    over: bool,
    /// The start of the current line's name, when an earlier piece ended in it.
    carried: Vec<u8>,
    /// Bytes of the current line so far, and the first of them.
    length: usize,
    first: u8,
    /// Whether the name of the current line is known or of no interest.
    settled: bool,
}

impl Framing {
    /// Looks through bytes of a request head and spoils what contradicts.
    pub(super) fn inspect(&mut self, bytes: &mut [u8]) {
        let mut start = 0;
        while !self.over {
            let end = memchr::memchr(b'\n', &bytes[start..]).map(|end| start + end);
            let part = match end {
                Some(end) => &mut bytes[start..end],
                None => &mut bytes[start..],
            };
            self.piece(part);
            let Some(end) = end else { return };
            let blank = self.length == 0 || (self.length == 1 && self.first == b'\r');
            self.over = self.begun && blank;
            self.begun |= !blank;
            self.carried.clear();
            (self.length, self.settled) = (0, false);
            start = end + 1;
        }
    }

    /// A line, or the part of one that this read brought.
    fn piece(&mut self, part: &mut [u8]) {
        if self.length == 0 {
            self.first = part.first().copied().unwrap_or_default();
        }
        self.length += part.len();
        if self.settled {
            return;
        }
        if self.carried.is_empty() && !matches!(part.first(), None | Some(b'c' | b'C' | b't' | b'T')) {
            self.settled = true;
            return;
        }
        let Some(colon) = memchr::memchr(b':', part) else {
            self.carried.extend_from_slice(part);
            self.settled = self.carried.len() > MAX_NAME;
            return;
        };
        self.settled = true;
        let whole = self.carried.is_empty();
        self.carried.extend_from_slice(&part[..colon]);
        let name = self.carried.trim_ascii_end().to_ascii_lowercase();
        let Some(spoiled) = self.contradiction(&name) else { return };
        if whole {
            part[..spoiled.len()].copy_from_slice(spoiled);
        } else {
            // Part of the name is gone by already; without its colon the line is no header,
            // and the head is refused.
            part[colon] = b'(';
        }
    }

    /// Counts a header; what to put in place of its name when it contradicts.
    fn contradiction(&mut self, name: &[u8]) -> Option<&'static [u8]> {
        match name {
            LENGTH => self.lengths += 1,
            CODING => self.codings += 1,
            _ => return None,
        }
        if self.lengths + self.codings.min(1) < 2 {
            return None;
        }
        Some(if name == LENGTH { CONFLICTING_LENGTH.as_bytes() } else { SPOILED_CODING })
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
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nHost: x\r\n\r\ncontent-length: 7\r\ncontent-length: 8\r\n",
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

    proptest! {
        #[test]
        fn cuts_change_nothing_of_an_ordinary_head(cuts in prop::collection::vec(0usize..120, 0..6)) {
            let head = b"POST /v1/c: HTTP/1.1\r\nHost: x\r\nCookie: a\r\nTE: trailers\r\nContent-Length: 5\r\n\r\ncontent-length: 7\r\n";
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
