//! A JSON object that is edited in place.
//!
//! Only the top level is indexed: where each key and value stands in the
//! original text. Edits replace, rename, remove or append whole fields; all
//! other bytes leave as they came, so unknown fields, key order and number
//! spelling survive.

use std::{borrow::Cow, collections::HashSet, fmt, ops::Range};

use bytes::Bytes;

use crate::scan::{Flaw, MAX_DEPTH, Scanner, Span};

/// Why a text is not a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// There is no text.
    Empty,
    /// The text is not UTF-8; the offset of the first bad byte.
    NotUtf8(usize),
    /// Arrays and objects nest too deeply.
    TooDeep,
    /// A key stands twice at the top level.
    Duplicate(String),
    /// The text is JSON but not an object.
    NotAnObject,
    /// The text is not JSON.
    Syntax {
        /// 1-based line of the problem.
        line: usize,
        /// 1-based column of the problem.
        column: usize,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the body is empty"),
            Self::NotUtf8(at) => write!(f, "not UTF-8 at byte {at}"),
            Self::TooDeep => write!(f, "nested deeper than {MAX_DEPTH} levels"),
            Self::Duplicate(key) => write!(f, "field `{key}` appears twice"),
            Self::NotAnObject => f.write_str("expected an object"),
            Self::Syntax { line, column } => {
                write!(f, "syntax error at line {line} column {column}")
            }
        }
    }
}

impl std::error::Error for ParseError {}

#[derive(Clone, Debug)]
struct Field {
    /// The key with its quotes.
    key: Range<usize>,
    value: Range<usize>,
    /// The name, where the bytes of the key do not spell it: escaped, renamed
    /// or appended.
    name: Option<Box<str>>,
    /// Whether `name` has to be written in place of the key.
    new_key: bool,
    new_value: Option<String>,
}

/// An editable JSON object.
#[derive(Clone, Debug)]
pub struct Document {
    text: String,
    fields: Vec<Field>,
    original_fields: usize,
    removed: bool,
    edited: bool,
}

impl Document {
    /// Indexes the top level of a JSON object.
    pub fn parse(text: Bytes) -> Result<Self, ParseError> {
        // Without a copy when nobody else holds the bytes.
        let text =
            String::from_utf8(text.into()).map_err(|e| ParseError::NotUtf8(e.utf8_error().valid_up_to()))?;
        Self::parse_text(text)
    }

    /// As [`Document::parse`], for a text.
    pub(crate) fn parse_text(text: String) -> Result<Self, ParseError> {
        let fields = index(&text)?;
        Ok(Self { original_fields: fields.len(), fields, text, removed: false, edited: false })
    }

    /// The raw JSON of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.position(name).map(|at| self.raw(&self.fields[at]))
    }

    /// Whether the field is there and not `null`.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some_and(|raw| raw != "null")
    }

    /// A field that is a JSON string, decoded. `None` for anything else.
    pub fn get_str(&self, name: &str) -> Option<Cow<'_, str>> {
        decode_string(self.get(name)?)
    }

    /// A field that is `true` or `false`. `None` for anything else.
    pub fn get_bool(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// The names of all fields in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| self.name(field))
    }

    /// Sets a field to raw JSON, in its place or at the end.
    pub fn set(&mut self, name: &str, raw: impl Into<String>) {
        self.edited = true;
        if let Some(at) = self.position(name) {
            self.fields[at].new_value = Some(raw.into());
        } else {
            self.fields.push(Field {
                key: 0..0,
                value: 0..0,
                name: Some(name.into()),
                new_key: true,
                new_value: Some(raw.into()),
            });
        }
    }

    /// Sets a field to a JSON string.
    pub fn set_str(&mut self, name: &str, value: &str) {
        self.set(name, encode_string(value));
    }

    /// Removes a field.
    pub fn remove(&mut self, name: &str) {
        if let Some(at) = self.position(name) {
            self.fields.remove(at);
            self.edited = true;
            self.removed = true;
        }
    }

    /// Renames a field in its place. An existing field of the new name gives
    /// way; a missing source changes nothing.
    pub fn rename(&mut self, from: &str, to: &str) {
        if from == to || self.position(from).is_none() {
            return;
        }
        self.remove(to);
        if let Some(at) = self.position(from) {
            self.fields[at].name = Some(to.into());
            self.fields[at].new_key = true;
            self.edited = true;
        }
    }

    /// The text with all edits.
    pub fn to_bytes(&self) -> Bytes {
        if self.edited { self.write().into() } else { Bytes::copy_from_slice(self.text.as_bytes()) }
    }

    /// As [`Document::to_bytes`], without a copy when there are no edits.
    pub fn into_bytes(self) -> Bytes {
        if self.edited { self.write().into() } else { self.text.into() }
    }

    /// The text with all edits.
    pub(crate) fn into_text(self) -> String {
        // Edits are texts too, so what is written is one.
        if self.edited { String::from_utf8(self.write()).unwrap_or_default() } else { self.text }
    }

    /// The original text, without edits.
    pub(crate) fn original(&self) -> &str {
        &self.text
    }

    /// Whether anything was edited.
    pub(crate) fn is_edited(&self) -> bool {
        self.edited
    }

    fn write(&self) -> Vec<u8> {
        let grown: usize = self.fields.iter().map(|f| f.new_value.as_ref().map_or(0, String::len)).sum();
        let mut out = Vec::with_capacity(self.text.len() + grown + 64);
        if self.removed || self.original_fields == 0 {
            self.write_compact(&mut out);
        } else {
            self.write_in_place(&mut out);
        }
        out
    }

    fn write_in_place(&self, out: &mut Vec<u8>) {
        let mut copied = 0;
        for field in &self.fields[..self.original_fields] {
            if field.new_key {
                out.extend_from_slice(&self.text.as_bytes()[copied..field.key.start]);
                out.extend_from_slice(encode_string(self.name(field)).as_bytes());
                copied = field.key.end;
            }
            if let Some(value) = &field.new_value {
                out.extend_from_slice(&self.text.as_bytes()[copied..field.value.start]);
                out.extend_from_slice(value.as_bytes());
                copied = field.value.end;
            }
        }
        let end = self.fields[self.original_fields - 1].value.end;
        out.extend_from_slice(&self.text.as_bytes()[copied..end]);
        for field in &self.fields[self.original_fields..] {
            out.push(b',');
            self.write_field(field, out);
        }
        out.extend_from_slice(&self.text.as_bytes()[end..]);
    }

    fn write_compact(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (at, field) in self.fields.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            self.write_field(field, out);
        }
        out.push(b'}');
    }

    fn write_field(&self, field: &Field, out: &mut Vec<u8>) {
        if field.new_key {
            out.extend_from_slice(encode_string(self.name(field)).as_bytes());
        } else {
            out.extend_from_slice(&self.text.as_bytes()[field.key.clone()]);
        }
        out.push(b':');
        out.extend_from_slice(self.raw(field).as_bytes());
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| self.name(field) == name)
    }

    fn name<'a>(&'a self, field: &'a Field) -> &'a str {
        match &field.name {
            Some(name) => name,
            None => &self.text[field.key.start + 1..field.key.end - 1],
        }
    }

    fn raw<'a>(&'a self, field: &'a Field) -> &'a str {
        match &field.new_value {
            Some(value) => value,
            None => &self.text[field.value.clone()],
        }
    }
}

fn index(text: &str) -> Result<Vec<Field>, ParseError> {
    let mut fields = Vec::with_capacity(12);
    let mut scanner = Scanner::new(text.as_bytes());
    let scanned = scanner.object(|span| fields.push(field(text, span))).and_then(|()| scanner.end());
    if let Err(flaw) = scanned {
        return Err(explain(text, flaw));
    }
    match duplicate(text, &fields) {
        Some(name) => Err(ParseError::Duplicate(name)),
        None => Ok(fields),
    }
}

fn field(text: &str, span: Span) -> Field {
    let key = span.key.0..span.key.1;
    let name = span.escaped.then(|| serde_json::from_str::<String>(&text[key.clone()]).ok()).flatten();
    Field {
        key,
        value: span.value.0..span.value.1,
        name: name.map(String::into_boxed_str),
        new_key: false,
        new_value: None,
    }
}

fn duplicate(text: &str, fields: &[Field]) -> Option<String> {
    let name = |field: &'_ Field| match &field.name {
        Some(name) => name.to_string(),
        None => text[field.key.start + 1..field.key.end - 1].to_owned(),
    };
    // Without escapes the raw keys tell; a linear look is cheapest for the usual handful.
    if fields.len() <= 32 && fields.iter().all(|field| field.name.is_none()) {
        let again =
            |at: usize| fields[..at].iter().any(|f| text[f.key.clone()] == text[fields[at].key.clone()]);
        return (1..fields.len()).find(|at| again(*at)).map(|at| name(&fields[at]));
    }
    let mut seen = HashSet::with_capacity(fields.len());
    fields.iter().map(name).find(|name| !seen.insert(name.clone()))
}

/// Puts a flaw into words.
fn explain(text: &str, flaw: Flaw) -> ParseError {
    if text.trim_ascii().is_empty() {
        return ParseError::Empty;
    }
    let at = match flaw {
        Flaw::TooDeep => return ParseError::TooDeep,
        Flaw::Syntax(at) => at,
    };
    if !text.trim_ascii_start().starts_with('{')
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    {
        return ParseError::NotAnObject;
    }
    let before = &text.as_bytes()[..at.min(text.len())];
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    ParseError::Syntax { line, column: before.len() - line_start + 1 }
}

/// Decodes raw JSON that is a string.
pub(crate) fn decode_string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(raw).ok().map(Cow::Owned)
}

/// Encodes a text as a JSON string with quotes.
pub(crate) fn encode_string(text: &str) -> String {
    // Serialising a string cannot fail.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests;
