//! JSON. Nodes carry no position; syntax errors do. Duplicate keys are refused.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::{Data, MAX_DEPTH, Node, Origin, ParseError};

/// Parses a text.
pub(crate) fn parse(text: &str) -> Result<Node, ParseError> {
    parse_embedded(text, &Origin::Unknown)
}

/// Parses a text that stands inside another document or variable.
pub(crate) fn parse_embedded(text: &str, origin: &Origin) -> Result<Node, ParseError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let seed = Seed { origin, depth: MAX_DEPTH };
    let node = seed.deserialize(&mut json).and_then(|node| json.end().map(|()| node));
    node.map_err(|error| ParseError::new(error.to_string()))
}

#[derive(Clone, Copy)]
struct Seed<'o> {
    origin: &'o Origin,
    depth: usize,
}

impl Seed<'_> {
    fn node(self, data: Data) -> Node {
        Node::new(self.origin.clone(), data)
    }

    fn deeper<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1);
        let depth = depth.ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(self.node(Data::Null))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        Ok(self.node(Data::Bool(flag)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(self.node(Data::Number(number.into())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(self.node(Data::Number(number.into())))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Node, E> {
        let number = Number::from_f64(number);
        let number = number.ok_or_else(|| E::custom("numbers must be finite"))?;
        Ok(self.node(Data::Number(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(self.node(Data::String(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let inner = self.deeper()?;
        let mut nodes = Vec::new();
        while let Some(node) = items.next_element_seed(inner)? {
            nodes.push(node);
        }
        Ok(self.node(Data::Seq(nodes)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let inner = self.deeper()?;
        let mut seen = HashSet::new();
        let mut members = Vec::new();
        while let Some(Key(key)) = map.next_key()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("duplicate key `{key}`")));
            }
            members.push((key, map.next_value_seed(inner)?));
        }
        Ok(self.node(Data::Map(members)))
    }
}

struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}
