//! YAML 1.2 (core schema) with positions. Duplicate keys, foreign tags and
//! documents that grow out of all proportion through aliases are refused.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::iter::Peekable;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::Number;

use super::{Data, MAX_DEPTH, Node, Origin, ParseError};

/// The most nodes a document may have once its aliases are expanded.
const MAX_NODES: usize = 1_000_000;

/// What a YAML text holds.
pub(crate) enum Document {
    /// Nothing but white space and comments.
    Empty,
    /// One document.
    One(Node),
    /// More than one document.
    Many(usize),
}

/// Parses a text.
pub(crate) fn parse(text: &str) -> Result<Document, ParseError> {
    let mut loader =
        Loader { text, events: Parser::new_from_str(text).peekable(), anchors: HashMap::new(), nodes: 0 };
    let mut first = None;
    let mut count = 0;
    while let Some((event, span)) = loader.next()? {
        match event {
            Event::DocumentStart(_) => {
                let node = loader.node(0)?;
                count += 1;
                first.get_or_insert(node);
            }
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Nothing => {}
            _ => return Err(loader.error(&span, "unexpected content")),
        }
    }
    Ok(match first {
        None => Document::Empty,
        Some(node) if count == 1 => Document::One(node),
        Some(_) => Document::Many(count),
    })
}

struct Loader<'t> {
    text: &'t str,
    events: Peekable<Parser<'t, StrInput<'t>>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'t> Loader<'t> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, ParseError> {
        match self.events.next() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) => Err(self.scan_error(&error)),
        }
    }

    fn required(&mut self) -> Result<(Event<'t>, Span), ParseError> {
        self.next()?.ok_or_else(|| ParseError::new("unexpected end of the document"))
    }

    fn node(&mut self, depth: usize) -> Result<Node, ParseError> {
        let (event, span) = self.required()?;
        if depth > MAX_DEPTH {
            return Err(self.error(&span, "nested too deeply"));
        }
        let origin = Origin::Line(span.start.line());
        let (anchor, data) = match event {
            Event::Alias(id) => {
                let node = self.anchors.get(&id).cloned();
                let node = node.ok_or_else(|| self.error(&span, "unknown alias"))?;
                self.count(size(&node), &span)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, &span)?;
                let data = scalar(text, style, tag.as_deref());
                (anchor, data.map_err(|why| self.error(&span, why))?)
            }
            Event::SequenceStart(anchor, tag) => {
                self.collection_tag(tag.as_ref(), "seq", &span)?;
                (anchor, self.sequence(depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                self.collection_tag(tag.as_ref(), "map", &span)?;
                (anchor, self.mapping(depth)?)
            }
            _ => return Err(self.error(&span, "unexpected end of a value")),
        };
        let node = Node::new(origin, data);
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<Data, ParseError> {
        let mut items = Vec::new();
        while !self.ends(|event| matches!(event, Event::SequenceEnd))? {
            items.push(self.node(depth + 1)?);
        }
        Ok(Data::Seq(items))
    }

    fn mapping(&mut self, depth: usize) -> Result<Data, ParseError> {
        let mut members = Vec::new();
        let mut seen = HashSet::new();
        while !self.ends(|event| matches!(event, Event::MappingEnd))? {
            let (event, span) = self.required()?;
            let Event::Scalar(key, ..) = event else {
                return Err(self.error(&span, "a mapping key must be plain text"));
            };
            self.count(1, &span)?;
            if !seen.insert(key.to_string()) {
                return Err(self.error(&span, &format!("duplicate mapping key `{key}`")));
            }
            members.push((key.into_owned(), self.node(depth + 1)?));
        }
        Ok(Data::Map(members))
    }

    /// Consumes the event when it is the awaited end.
    fn ends(&mut self, end: impl Fn(&Event<'_>) -> bool) -> Result<bool, ParseError> {
        let found = matches!(self.events.peek(), Some(Ok((event, _))) if end(event));
        if found {
            self.required()?;
        }
        Ok(found)
    }

    fn collection_tag(&self, tag: Option<&Cow<'_, Tag>>, name: &str, span: &Span) -> Result<(), ParseError> {
        match tag {
            Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == name) => {
                Err(self.error(span, "this tag is not supported here"))
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), ParseError> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(self.error(span, "the document is too large"));
        }
        Ok(())
    }

    fn error(&self, span: &Span, message: &str) -> ParseError {
        self.at(message, span.start.index(), span.start.line(), span.start.col())
    }

    fn scan_error(&self, error: &ScanError) -> ParseError {
        let mark = error.marker();
        self.at(error.info(), mark.index(), mark.line(), mark.col())
    }

    fn at(&self, message: &str, index: usize, line: usize, col: usize) -> ParseError {
        let byte = self.text.char_indices().nth(index).map_or(self.text.len(), |(at, _)| at);
        ParseError::new(format!("{message} at byte {byte} line {line} column {}", col + 1))
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.data {
        Data::Seq(items) => items.iter().map(size).sum(),
        Data::Map(members) => members.iter().map(|(_, value)| 1 + size(value)).sum(),
        _ => 0,
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Result<Data, &'static str> {
    match tag {
        None if style == ScalarStyle::Plain => plain(&text),
        None => Ok(Data::String(text.into_owned())),
        Some(tag) if tag.is_yaml_core_schema() || tag.handle == "!" && tag.suffix.is_empty() => {
            let plain = match tag.suffix.as_str() {
                "str" | "" => return Ok(Data::String(text.into_owned())),
                _ => plain(&text)?,
            };
            match (tag.suffix.as_str(), &plain) {
                ("null", Data::Null) | ("bool", Data::Bool(_)) => Ok(plain),
                ("int" | "float", Data::Number(_)) => Ok(plain),
                _ => Err("the value does not fit its tag"),
            }
        }
        Some(_) => Err("this tag is not supported here"),
    }
}

/// Resolves an unquoted scalar by the rules of the core schema.
fn plain(text: &str) -> Result<Data, &'static str> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Data::Null,
        "true" | "True" | "TRUE" => Data::Bool(true),
        "false" | "False" | "FALSE" => Data::Bool(false),
        _ => match number(text)? {
            Some(number) => Data::Number(number),
            None => Data::String(text.to_owned()),
        },
    })
}

fn number(text: &str) -> Result<Option<Number>, &'static str> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN" = unsigned {
        return Err("numbers must be finite");
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let legal = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
            return Ok(legal.then(|| u64::from_str_radix(digits, radix).ok()).flatten().map(Number::from));
        }
    }
    // Rust reads more as a float than YAML does ("inf", "1e", "_"), so look first.
    let digits = unsigned.bytes().any(|b| b.is_ascii_digit());
    let shape = unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'));
    if !digits || !shape {
        return Ok(None);
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    if let Ok(number) = text.parse::<u64>() {
        return Ok(Some(number.into()));
    }
    if let Ok(number) = text.parse::<i64>() {
        return Ok(Some(number.into()));
    }
    match text.parse::<f64>() {
        Err(_) => Ok(None),
        Ok(number) => Number::from_f64(number).map(Some).ok_or("numbers must be finite"),
    }
}
