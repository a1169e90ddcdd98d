//! TOML with positions.

use serde_json::Number;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Data, MAX_DEPTH, Node, Origin, ParseError};

/// Parses a text.
pub(crate) fn parse(text: &str) -> Result<Node, ParseError> {
    let table = DeTable::parse(text).map_err(|error| {
        // The error's own display quotes the source, which may hold a secret.
        let line = error.span().map_or(1, |span| line(text, span.start));
        ParseError::new(format!("{} at line {line}", error.message()))
    })?;
    members(text, table.get_ref(), 0).map(|data| Node::new(Origin::Line(1), data))
}

fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

fn members(text: &str, table: &DeTable<'_>, depth: usize) -> Result<Data, ParseError> {
    let mut members = Vec::new();
    for (key, value) in table.iter() {
        let name = key.get_ref().to_string();
        members.push((name, node(text, value, line(text, key.span().start), depth)?));
    }
    Ok(Data::Map(members))
}

fn node(text: &str, value: &Spanned<DeValue<'_>>, at: usize, depth: usize) -> Result<Node, ParseError> {
    let fail = |why: &str| ParseError::new(format!("{why} at line {at}"));
    if depth > MAX_DEPTH {
        return Err(fail("nested too deeply"));
    }
    let data = match value.get_ref() {
        DeValue::String(string) => Data::String(string.to_string()),
        DeValue::Boolean(flag) => Data::Bool(*flag),
        DeValue::Integer(integer) => {
            let digits = integer.as_str();
            let signed = i64::from_str_radix(digits, integer.radix()).map(Number::from);
            let number = signed.or_else(|_| u64::from_str_radix(digits, integer.radix()).map(Number::from));
            Data::Number(number.map_err(|_| fail("the integer is too large"))?)
        }
        DeValue::Float(float) => {
            let number = float.as_str().parse().ok().and_then(Number::from_f64);
            Data::Number(number.ok_or_else(|| fail("numbers must be finite"))?)
        }
        DeValue::Datetime(_) => {
            return Err(fail("a date must be written as text, in quotes"));
        }
        DeValue::Array(array) => {
            let items = array.iter().map(|item| {
                let at = line(text, item.span().start);
                node(text, item, at, depth + 1)
            });
            Data::Seq(items.collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => members(text, table, depth + 1)?,
    };
    Ok(Node::new(Origin::Line(at), data))
}
