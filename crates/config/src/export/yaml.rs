//! Writes YAML that every reader reads alike.

use serde_json::Value;

/// A longer key needs the explicit form.
const MAX_SIMPLE_KEY: usize = 120;

/// Words that some reader takes for something else than text.
const WORDS: [&str; 10] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan"];

/// Writes a member of the document: a list.
pub(super) fn collection(out: &mut String, name: &str, items: Vec<Value>) {
    out.push('\n');
    key(out, name, 0);
    inside(out, &Value::Array(items), 0);
}

/// Writes what stands behind `key:` or `-` at that indentation.
fn inside(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            out.push('\n');
            pad(out, indent + 2);
            block(out, value, indent + 2);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            pad(out, indent + 2);
            block(out, value, indent + 2);
        }
        _ => {
            out.push(' ');
            scalar(out, value, indent + 2);
        }
    }
}

/// Writes a list or mapping that is not empty, from where its first line begins.
fn block(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(members) => {
            for (index, (name, value)) in members.iter().enumerate() {
                if index > 0 {
                    pad(out, indent);
                }
                key(out, name, indent);
                inside(out, value, indent);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    pad(out, indent);
                }
                let nested = match item {
                    Value::Object(members) => !members.is_empty(),
                    Value::Array(items) => !items.is_empty(),
                    _ => false,
                };
                out.push_str("- ");
                if nested {
                    block(out, item, indent + 2);
                } else {
                    scalar(out, item, indent + 2);
                }
            }
        }
        _ => scalar(out, value, indent),
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// The key and its colon.
fn key(out: &mut String, name: &str, indent: usize) {
    let written = if is_plain(name) { name.to_owned() } else { quoted(name) };
    if written.len() > MAX_SIMPLE_KEY {
        out.push_str("? ");
        out.push_str(&written);
        out.push('\n');
        pad(out, indent);
    } else {
        out.push_str(&written);
    }
    out.push(':');
}

/// The rest of a line, or a block of lines.
fn scalar(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::String(text) if is_plain(text) => out.push_str(text),
        Value::String(text) if is_lines(text) => {
            out.push_str(if text.ends_with('\n') { "|" } else { "|-" });
            for line in text.lines() {
                out.push('\n');
                if !line.is_empty() {
                    pad(out, indent);
                    out.push_str(line);
                }
            }
        }
        Value::String(text) => out.push_str(&quoted(text)),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
        Value::Null | Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
    }
    out.push('\n');
}

/// Whether a text needs no quotes for any reader.
fn is_plain(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '/' | '$');
    let inner = |c: char| c.is_ascii_alphanumeric() || "_-./ :*@+=,()${}".contains(c);
    text.starts_with(first)
        && text.chars().all(inner)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// Whether a text reads well, and safely, as lines.
fn is_lines(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && !body.starts_with([' ', '\n'])
        && !body.ends_with('\n')
        && body.chars().all(|c| c == '\n' || c == ' ' || c.is_ascii_graphic())
}

/// The text in double quotes; what is not plainly visible is escaped.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if c.escape_debug().len() == 1 || c == '\'' => out.push(c),
            _ => out.push_str(&match u32::from(c) {
                code @ ..=0xff => format!("\\x{code:02X}"),
                code @ ..=0xffff => format!("\\u{code:04X}"),
                code => format!("\\U{code:08X}"),
            }),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    use crate::testing;
    use crate::tree::{Document, parse_yaml};

    fn read(text: &str) -> Value {
        match parse_yaml(text) {
            Ok(Document::One(node)) => node.to_json(),
            Ok(_) => panic!("not one document"),
            Err(error) => panic!("{}: {text}", error.message),
        }
    }

    #[test]
    fn a_file_reads_well() {
        let mut out = String::new();
        let pem = "-----BEGIN CERTIFICATE-----\n\nMIIB\n-----END CERTIFICATE-----\n";
        let items = vec![
            json!({
                "name": "a b", "base": "https://x.example/v1", "empty": {}, "none": [], "pem": pem,
                "inner": {"list": [1, -0.5, true, null, "${VAR}"], "deep": [[["x"], []], {"k": "v"}]},
            }),
            json!("yes"),
            json!("12"),
            json!("a: b"),
            json!("# no comment"),
            json!("\u{202e}x\u{0}\u{7f}\u{85}\u{feff}ä\u{1f600}"),
        ];
        collection(&mut out, "things", items.clone());
        let expected = r##"
things:
  - name: a b
    base: https://x.example/v1
    empty: {}
    none: []
    pem: |
      -----BEGIN CERTIFICATE-----

      MIIB
      -----END CERTIFICATE-----
    inner:
      list:
        - 1
        - -0.5
        - true
        - null
        - ${VAR}
      deep:
        - - - x
          - []
        - k: v
  - "yes"
  - "12"
  - "a: b"
  - "# no comment"
  - "\u202Ex\x00\x7F\x85\uFEFFä😀"
"##;
        assert_eq!(out, expected);
        assert_eq!(read(&out), json!({"things": items}));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(values in prop::collection::vec(testing::json(), 1..4)) {
            let mut out = String::new();
            collection(&mut out, "things", values.clone());
            prop_assert_eq!(read(&out), json!({"things": values}));
        }
    }
}
