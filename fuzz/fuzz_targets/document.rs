//! A document takes exactly the objects that `serde_json` takes; edits do what
//! they say and touch nothing else.
//!
//! Input: JSON text, the byte 0xFF, then edits of three bytes each.

#![no_main]

use aisix_wire::{Document, ParseError};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, value::RawValue};

const NAMES: &[&str] = &["model", "stream", "", "é\"\\\n", "a"];
const VALUES: &[&str] = &["null", "1.0", "\"x\"", "{\"k\":[1e3,{}]}", "[]", "true"];

/// The deepest nesting of arrays and objects.
fn depth(text: &str) -> usize {
    let (mut now, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => now += 1,
            b']' | b'}' if !in_string => now = now.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(now);
    }
    deepest
}

fn check_parse(text: &[u8], parsed: &Result<Document, ParseError>) {
    let utf8 = std::str::from_utf8(text).ok();
    // The value is skipped, not built: lone surrogates are nobody's business here.
    let json = utf8.filter(|text| serde_json::from_str::<&RawValue>(text).is_ok());
    let object = json.filter(|text| text.trim_ascii_start().starts_with('{'));
    match parsed {
        Ok(_) => assert!(object.is_some_and(|text| depth(text) <= 128), "taken"),
        Err(ParseError::Duplicate(_)) => assert!(object.is_some()),
        Err(ParseError::TooDeep) => assert!(utf8.is_some_and(|text| depth(text) > 128)),
        Err(ParseError::NotAnObject) => assert!(json.is_some() && object.is_none()),
        Err(ParseError::NotUtf8(at)) => assert!(utf8.is_none() && *at < text.len()),
        Err(ParseError::Empty) => assert!(text.trim_ascii().is_empty()),
        Err(ParseError::Syntax { .. }) => assert!(utf8.is_some() && json.is_none(), "refused"),
    }
}

/// Names and raw values in order: what the document should hold.
type Mirror = Vec<(String, String)>;

fn fields(document: &Document) -> Mirror {
    let names = document.names().map(str::to_owned);
    names.map(|name| (name.clone(), document.get(&name).expect("a listed field").to_owned())).collect()
}

fn set(mirror: &mut Mirror, name: &str, raw: &str) {
    match mirror.iter_mut().find(|(known, _)| known == name) {
        Some((_, value)) => raw.clone_into(value),
        None => mirror.push((name.to_owned(), raw.to_owned())),
    }
}

fn rename(mirror: &mut Mirror, from: &str, to: &str) {
    if from == to || !mirror.iter().any(|(name, _)| name == from) {
        return;
    }
    mirror.retain(|(name, _)| name != to);
    for (name, _) in mirror.iter_mut().filter(|(name, _)| name == from) {
        to.clone_into(name);
    }
}

fn edit(document: &mut Document, mirror: &mut Mirror, [kind, a, b]: [u8; 3]) {
    let name = |pick: u8, mirror: &Mirror| {
        let pick = usize::from(pick) % (NAMES.len() + mirror.len());
        NAMES.get(pick).map_or_else(|| mirror[pick - NAMES.len()].0.clone(), |name| (*name).to_owned())
    };
    let first = name(a, mirror);
    match kind % 4 {
        0 => {
            let raw = VALUES[usize::from(b) % VALUES.len()];
            document.set(&first, raw);
            set(mirror, &first, raw);
        }
        1 => {
            let text = name(b, mirror);
            document.set_str(&first, &text);
            set(mirror, &first, &Value::from(text).to_string());
        }
        2 => {
            document.remove(&first);
            mirror.retain(|(known, _)| *known != first);
        }
        _ => {
            let second = name(b, mirror);
            document.rename(&first, &second);
            rename(mirror, &first, &second);
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut halves = input.splitn(2, |byte| *byte == 0xff);
    let text = Bytes::copy_from_slice(halves.next().unwrap_or_default());
    let edits = halves.next().unwrap_or_default();
    let parsed = Document::parse(text.clone());
    check_parse(&text, &parsed);
    let Ok(mut document) = parsed else { return };
    assert_eq!(document.to_bytes(), text, "an unedited document is its text");
    let mut mirror = fields(&document);
    for edit_bytes in edits.chunks_exact(3) {
        edit(&mut document, &mut mirror, [edit_bytes[0], edit_bytes[1], edit_bytes[2]]);
        assert_eq!(fields(&document), mirror);
        let again = Document::parse(document.to_bytes()).expect("an edited document parses");
        assert_eq!(fields(&again), mirror);
    }
    for (name, raw) in &mirror {
        let value = serde_json::from_str::<Value>(raw).ok();
        let text = value.as_ref().and_then(Value::as_str);
        assert_eq!(document.get_str(name).as_deref(), text, "{raw}");
        assert_eq!(document.get_bool(name), value.as_ref().and_then(Value::as_bool));
        assert_eq!(document.has(name), raw != "null");
    }
});
