//! What several targets share: ways to cut an input into pieces.

/// Pieces of pseudo-random lengths from 1 to 32, fixed by the seed.
pub fn pieces(mut text: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut state = u32::from(seed) | 0x100;
    let mut pieces = Vec::new();
    while !text.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = ((state >> 27) as usize + 1).min(text.len());
        let (piece, rest) = text.split_at(length);
        pieces.push(piece);
        text = rest;
    }
    pieces
}

/// One piece for each byte.
pub fn bytes(text: &[u8]) -> Vec<&[u8]> {
    text.chunks(1).collect()
}
