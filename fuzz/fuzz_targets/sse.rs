//! Any split of the same bytes gives the same events.
//!
//! Input: one byte that fixes the split, then the stream.

#![no_main]

use aisix_fuzz::{bytes, pieces};
use aisix_wire::SseDecoder;
use libfuzzer_sys::fuzz_target;

type Events = Vec<(Option<String>, Vec<u8>)>;

fn decode(pieces: &[&[u8]]) -> Events {
    let mut decoder = SseDecoder::new();
    let mut events = Events::new();
    for piece in pieces {
        decoder.push(piece);
        while let Some(event) = decoder.next_event() {
            events.push((event.name.map(Into::into), event.data.into()));
        }
        assert!(!decoder.overflowed());
    }
    events.extend(decoder.last_event().map(|event| (event.name.map(Into::into), event.data.into())));
    assert!(decoder.last_event().is_none(), "the last event is given out once");
    events
}

fuzz_target!(|input: &[u8]| {
    let Some((&seed, text)) = input.split_first() else { return };
    let whole = decode(&[text]);
    assert_eq!(decode(&pieces(text, seed)), whole);
    assert_eq!(decode(&bytes(text)), whole);
    for (_, data) in whole {
        assert!(!data.contains(&b'\r'));
    }
});
