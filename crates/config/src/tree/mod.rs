//! A document of any format as a tree whose nodes know where they came from.

mod json;
mod toml;
mod yaml;

use std::sync::Arc;

use serde_json::Number;

pub(crate) use json::{parse as parse_json, parse_embedded as parse_embedded_json};
pub(crate) use toml::parse as parse_toml;
pub(crate) use yaml::{Document, parse as parse_yaml};

/// Deeper documents are refused: no schema of ours needs more.
const MAX_DEPTH: usize = 64;

/// Where a node was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The parser gives no position.
    Unknown,
    /// A line of the file, from 1.
    Line(usize),
    /// An environment variable.
    Env(Arc<str>),
}

/// One value of a document.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) origin: Origin,
    pub(crate) data: Data,
}

/// What a node holds. Mappings keep their order; their keys are unique.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Seq(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// A parser's complaint; the text never quotes values of the document.
#[derive(Debug)]
pub(crate) struct ParseError {
    pub(crate) message: String,
}

impl ParseError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl Node {
    pub(crate) fn new(origin: Origin, data: Data) -> Self {
        Self { origin, data }
    }

    /// A node of a plain JSON value.
    pub(crate) fn of_json(value: serde_json::Value) -> Self {
        use serde_json::Value;
        let data = match value {
            Value::Null => Data::Null,
            Value::Bool(flag) => Data::Bool(flag),
            Value::Number(number) => Data::Number(number),
            Value::String(text) => Data::String(text),
            Value::Array(items) => Data::Seq(items.into_iter().map(Self::of_json).collect()),
            Value::Object(members) => {
                Data::Map(members.into_iter().map(|(key, value)| (key, Self::of_json(value))).collect())
            }
        };
        Self::new(Origin::Unknown, data)
    }

    /// The JSON type, as schema messages name it.
    pub(crate) fn json_type(&self) -> &'static str {
        match &self.data {
            Data::Null => "null",
            Data::Bool(_) => "boolean",
            Data::Number(number) if number.is_f64() => "number",
            Data::Number(_) => "integer",
            Data::String(_) => "string",
            Data::Seq(_) => "array",
            Data::Map(_) => "object",
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.data, Data::Null)
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.data {
            Data::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_map(&self) -> Option<&[(String, Node)]> {
        match &self.data {
            Data::Map(members) => Some(members),
            _ => None,
        }
    }

    pub(crate) fn as_seq(&self) -> Option<&[Node]> {
        match &self.data {
            Data::Seq(items) => Some(items),
            _ => None,
        }
    }

    /// The member of a mapping; `None` for other nodes.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        let members = self.as_map()?;
        members.iter().find_map(|(k, v)| (k == key).then_some(v))
    }

    /// The member of a mapping, to change.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        let Data::Map(members) = &mut self.data else {
            return None;
        };
        members.iter_mut().find_map(|(k, v)| (k == key).then_some(v))
    }

    /// The member of a mapping, taken out.
    pub(crate) fn take(&mut self, key: &str) -> Option<Node> {
        let Data::Map(members) = &mut self.data else {
            return None;
        };
        let at = members.iter().position(|(k, _)| k == key)?;
        Some(members.remove(at).1)
    }

    /// Sets a member of a mapping; does nothing to other nodes.
    pub(crate) fn set(&mut self, key: &str, value: Node) {
        let Data::Map(members) = &mut self.data else {
            return;
        };
        match members.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => members.push((key.to_owned(), value)),
        }
    }

    /// The node at a dotted path of member names, as far as it exists.
    pub(crate) fn at(&self, path: &str) -> Option<&Node> {
        path.split('.').try_fold(self, |node, key| node.get(key))
    }

    /// The plain JSON value.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(flag) => Value::Bool(*flag),
            Data::Number(number) => Value::Number(number.clone()),
            Data::String(text) => Value::String(text.clone()),
            Data::Seq(items) => items.iter().map(Node::to_json).collect(),
            Data::Map(members) => {
                let members = members.iter().map(|(k, v)| (k.clone(), v.to_json()));
                Value::Object(members.collect())
            }
        }
    }
}

#[cfg(test)]
mod tests;
