//! A streamed answer does not depend on how its bytes are cut, nor on which
//! shortcut rewrote a frame, and never looks complete when it is not.
//!
//! Input: one byte of flags, one that fixes the split, then the stream.

#![no_main]

use std::sync::Arc;

use aisix_fuzz::{bytes, pieces};
use aisix_wire::{Document, ReplyContext, ReplyError, ReplyFacts, SseDecoder, formats::OPENAI_CHAT};
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

fn context(flags: u8) -> ReplyContext {
    let path = |names: &[&str]| -> Option<Arc<[String]>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    };
    ReplyContext {
        model: if flags & 2 == 0 { "alias" } else { "a\"<aisix:text>" }.into(),
        stream_usage: flags & 1 == 1,
        reasoning_field: match flags >> 2 & 3 {
            1 => path(&["thoughts"]),
            2 => path(&["thoughts", "text"]),
            3 => path(&["content"]),
            _ => None,
        },
        fallback_id: "chatcmpl-x".into(),
        created: 7,
    }
}

type Outcome = (Bytes, Result<(), ReplyError>, ReplyFacts);

fn relay(flags: u8, pieces: &[&[u8]]) -> Outcome {
    let mut relay = OPENAI_CHAT.relay_stream(context(flags));
    let mut out = BytesMut::new();
    let mut run = || {
        for piece in pieces {
            relay.push(piece, &mut out)?;
        }
        relay.finish(&mut out)
    };
    let result = run();
    (out.freeze(), result, relay.facts().clone())
}

/// The same stream with each frame rewritten by a relay that has seen no other.
fn frame_by_frame(flags: u8, text: &[u8]) -> Vec<u8> {
    let mut decoder = SseDecoder::new();
    decoder.push(text);
    let mut frames: Vec<Vec<u8>> = Vec::new();
    while let Some(event) = decoder.next_event() {
        frames.push(event.data.into_owned());
    }
    frames.extend(decoder.last_event().map(|event| event.data.into_owned()));
    let mut out = BytesMut::new();
    for data in frames {
        let mut frame = Vec::new();
        for line in data.split(|byte| *byte == b'\n') {
            frame.extend_from_slice(b"data: ");
            frame.extend_from_slice(line);
            frame.push(b'\n');
        }
        frame.push(b'\n');
        let mut relay = OPENAI_CHAT.relay_stream(context(flags));
        if relay.push(&frame, &mut out).is_err() || relay.ended() {
            break;
        }
    }
    out.to_vec()
}

fuzz_target!(|input: &[u8]| {
    let [flags, seed, text @ ..] = input else { return };
    let whole = relay(*flags, &[text]);
    assert_eq!(relay(*flags, &pieces(text, *seed)), whole);
    assert_eq!(relay(*flags, &bytes(text)), whole);

    let (out, result, _) = whole;
    let done = b"data: [DONE]\n\n";
    let frames = match &result {
        Ok(()) => out.strip_suffix(done).expect("a complete answer ends with [DONE]"),
        Err(_) => &out[..],
    };
    assert_eq!(String::from_utf8_lossy(frames), String::from_utf8_lossy(&frame_by_frame(*flags, text)));
    let mut decoder = SseDecoder::new();
    decoder.push(frames);
    while let Some(event) = decoder.next_event() {
        let chunk = Document::parse(Bytes::copy_from_slice(&event.data)).expect("a frame is a document");
        assert_eq!(chunk.get_str("model").as_deref(), Some(&*context(*flags).model));
        assert!(chunk.has("id") && chunk.has("object") && chunk.has("created"));
    }
    assert!(decoder.last_event().is_none(), "the last frame is closed");
});
