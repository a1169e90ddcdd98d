//! A request head that contradicts itself never gets through, however it is cut.
//!
//! Input: one byte that fixes the split, then what a client sends.

#![no_main]

#[path = "../../crates/aisix/src/listen/framing.rs"]
mod framing;

use aisix_fuzz::{bytes, pieces};
use framing::Framing;
use libfuzzer_sys::fuzz_target;

fn inspect(pieces: &[&[u8]]) -> Vec<u8> {
    let mut framing = Framing::default();
    let mut out = Vec::new();
    for piece in pieces {
        let mut copy = piece.to_vec();
        let mut rest = &mut copy[..];
        while !rest.is_empty() {
            let taken = framing.inspect(rest);
            rest = &mut rest[taken..];
        }
        out.extend_from_slice(&copy);
    }
    out
}

/// How many headers of a head have the name.
fn count(text: &[u8], wanted: &str) -> usize {
    let lines = text.split(|byte| *byte == b'\n').skip(1);
    let head = lines.take_while(|line| !line.is_empty() && *line != b"\r");
    head.filter(|line| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        name.len() < line.len() && name.eq_ignore_ascii_case(wanted.as_bytes())
    })
    .count()
}

fn check(out: &[u8], text: &[u8]) {
    assert_eq!(out.len(), text.len());
    let head_is_whole =
        text.windows(2).any(|pair| pair == b"\n\n") || text.windows(3).any(|t| t == b"\n\r\n");
    // A line end that became NUL makes the head one that the library refuses.
    let refused = out.iter().zip(text).any(|(out, text)| *out == 0 && *text == b'\n');
    if head_is_whole && !refused && !text.starts_with(b"\n") && !text.starts_with(b"\r\n") {
        let (lengths, codings) = (count(out, "content-length"), count(out, "transfer-encoding"));
        assert!(lengths < 2, "two lengths: {}", String::from_utf8_lossy(out));
        assert!(codings < 2, "two codings: {}", String::from_utf8_lossy(out));
        assert!(lengths == 0 || codings == 0, "length and coding: {}", String::from_utf8_lossy(out));
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&seed, text)) = input.split_first() else { return };
    check(&inspect(&[text]), text);
    check(&inspect(&pieces(text, seed)), text);
    check(&inspect(&bytes(text)), text);
});
