//! A stored document is taken or refused: what may be written is read the same,
//! and a canonical document stays as it is.
//!
//! Input: a byte that picks the kind, then JSON.

#![no_main]

use aisix_config::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((pick, text)) = input.split_first() else { return };
    if let Ok(text) = std::str::from_utf8(text) {
        fuzzing::document(*pick, text);
    }
});
