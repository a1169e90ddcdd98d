//! Checks a tree against a table and makes the canonical document of it:
//! canonical names, defaults written out, absent members left out.

use serde_json::Value;

use super::{Fault, Field, Fields, Kind, List, Map, Need, Path, Problem, Seg, near};
use crate::tree::{Data, Node, Origin, parse_embedded_json};

/// Where an explicit `null` means "absent".
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nulls {
    /// Nowhere: it is a type error.
    Never,
    /// On optional fields without a default.
    Optional,
    /// On every field that is not required.
    Anywhere,
}

/// Checks a mapping. All problems are reported; the document holds whatever
/// is in order and is complete when there is no problem.
pub(crate) fn check(fields: Fields, node: &Node, nulls: Nulls) -> (Value, Vec<Problem>) {
    let mut checker = Checker { nulls, path: Path::default(), problems: Vec::new() };
    let value = checker.object(fields, node);
    (value, checker.problems)
}

struct Checker {
    nulls: Nulls,
    path: Path,
    problems: Vec<Problem>,
}

impl Checker {
    fn fault(&mut self, node: &Node, fault: Fault) {
        self.problems.push(Problem { path: self.path.clone(), origin: node.origin.clone(), fault });
    }

    fn inside<T>(&mut self, seg: Seg, check: impl FnOnce(&mut Self) -> T) -> T {
        self.path.0.push(seg);
        let result = check(self);
        self.path.0.pop();
        result
    }

    fn object(&mut self, fields: Fields, node: &Node) -> Value {
        let Some(members) = node.as_map() else {
            self.fault(node, Fault::Type("object"));
            return Value::Null;
        };
        for (name, value) in members {
            if !fields.iter().any(|f| f.name == name || f.alias == Some(name)) {
                let near = near(fields.iter().map(|field| field.name), name);
                let name = name.clone();
                let fault = Fault::Unknown { name, near };
                // The member itself is the place to look at.
                let at = Node::new(value.origin.clone(), Data::Null);
                self.unknown(&at, fault);
            }
        }
        let mut out = serde_json::Map::new();
        for field in fields {
            let value = self.field(field, node);
            if !value.is_null() {
                out.insert(field.name.into(), value);
            }
        }
        Value::Object(out)
    }

    /// Process settings name the unknown field by its full path, resources by
    /// the path of the mapping that holds it.
    fn unknown(&mut self, at: &Node, fault: Fault) {
        match (&fault, self.nulls) {
            (Fault::Unknown { name, .. }, Nulls::Anywhere) => {
                let seg = Seg::Key(name.clone());
                self.inside(seg, |checker| checker.fault(at, fault));
            }
            _ => self.fault(at, fault),
        }
    }

    fn field(&mut self, field: &Field, parent: &Node) -> Value {
        let canonical = parent.get(field.name);
        let alias = field.alias.and_then(|alias| parent.get(alias));
        if let (Some(_), Some(alias)) = (canonical, alias) {
            let text = format!("duplicate field `{}`", field.name);
            self.fault(alias, Fault::Decode(text));
        }
        let name = match (canonical, field.alias) {
            (None, Some(alias_name)) if alias.is_some() => alias_name,
            _ => field.name,
        };
        let node = canonical.or(alias).filter(|node| {
            !(node.is_null()
                && match field.need {
                    Need::Required => false,
                    Need::Optional => self.nulls != Nulls::Never,
                    Need::Default(_) => self.nulls == Nulls::Anywhere,
                })
        });
        let Some(node) = node else {
            return self.absent(field, parent);
        };
        let before = self.problems.len();
        self.inside(Seg::Key(name.to_owned()), |checker| {
            let value = checker.value(&field.kind, node);
            if let Some(off) = field.later
                && checker.problems.len() == before
                && !off.holds(&value, &field.need)
            {
                checker.fault(node, Fault::NotSupported);
            }
            value
        })
    }

    fn absent(&mut self, field: &Field, parent: &Node) -> Value {
        match (field.need, &field.kind) {
            (Need::Required, _) => {
                self.fault(parent, Fault::Required(field.name));
                Value::Null
            }
            (Need::Optional, _) => Value::Null,
            (Need::Default(_), Kind::Object(fields)) => {
                let empty = Node::new(Origin::Unknown, Data::Map(Vec::new()));
                let seg = Seg::Key(field.name.to_owned());
                self.inside(seg, |checker| checker.object(fields, &empty))
            }
            // Every default of the tables is parsed by a test.
            (Need::Default(json), _) => serde_json::from_str(json).unwrap_or_default(),
        }
    }

    fn value(&mut self, kind: &Kind, node: &Node) -> Value {
        match (kind, &node.data) {
            (Kind::Bool, Data::Bool(flag)) => Value::Bool(*flag),
            (Kind::Int { min, max }, Data::Number(number)) => self.int(node, number, *min, *max),
            (Kind::Number { min, max }, Data::Number(number)) => {
                let float = number.as_f64().unwrap_or(f64::NAN);
                if float < *min {
                    self.fault(node, Fault::Min(*min));
                } else if float > *max {
                    self.fault(node, Fault::Max(*max));
                }
                Value::Number(number.clone())
            }
            (Kind::Text { min, max, format }, Data::String(text)) => {
                let length = text.chars().count();
                if length < *min {
                    self.fault(node, Fault::Short(*min));
                } else if length > *max {
                    self.fault(node, Fault::Long(*max));
                } else if let Err(rule) = format.check(text) {
                    self.fault(node, Fault::Rule(rule));
                }
                Value::String(text.clone())
            }
            (Kind::Secret, Data::String(text)) => {
                if text.is_empty() {
                    self.fault(node, Fault::Short(1));
                }
                Value::String(text.clone())
            }
            (Kind::Enum(names), Data::String(text)) => {
                if !names.contains(&text.as_str()) {
                    self.fault(node, Fault::OneOf(names));
                }
                Value::String(text.clone())
            }
            (Kind::List(list), _) => self.list(list, node),
            (Kind::Map(map), Data::Map(members)) => self.map(map, members),
            (Kind::Object(fields), _) => self.object(fields, node),
            (Kind::Anything { .. }, Data::Map(_)) => node.to_json(),
            _ => {
                self.fault(node, Fault::Type(kind.json_type()));
                Value::Null
            }
        }
    }

    fn int(&mut self, node: &Node, number: &serde_json::Number, min: u64, max: u64) -> Value {
        let fault = match (number.as_u64(), number.as_i64()) {
            (Some(int), _) if int < min => Fault::Min(min as f64),
            // The edge of the field's width is not a rule of the schema.
            (Some(int), _) if int > max && max >= u64::from(u32::MAX) => {
                Fault::Decode(format!("the number is greater than {max}"))
            }
            (Some(int), _) if int > max => Fault::Max(max as f64),
            (Some(_), _) => return Value::Number(number.clone()),
            (None, Some(_)) => Fault::Min(min as f64),
            (None, None) => match number.as_f64() {
                Some(float) if float.fract() == 0.0 => {
                    Fault::Decode("expected an integer, written without a fraction".into())
                }
                _ => Fault::Type("integer"),
            },
        };
        self.fault(node, fault);
        Value::Null
    }

    fn list(&mut self, list: &List, node: &Node) -> Value {
        let parsed;
        let items = match &node.data {
            Data::Seq(items) => items,
            Data::String(text) if list.json && text.trim().is_empty() => {
                return Value::Array(Vec::new());
            }
            Data::String(text) if list.json => match parse_embedded_json(text, &node.origin) {
                Ok(Node { data: Data::Seq(items), .. }) => {
                    parsed = items;
                    &parsed
                }
                result => {
                    let name = match self.path.0.last() {
                        Some(Seg::Key(key)) => key.clone(),
                        _ => String::new(),
                    };
                    let why = result.err().map_or("expected an array".into(), |e| e.message);
                    let text = format!("{name} JSON string: {why}");
                    self.fault(node, Fault::Decode(text));
                    return Value::Null;
                }
            },
            _ => {
                self.fault(node, Fault::Type("array"));
                return Value::Null;
            }
        };
        if items.len() > list.max {
            self.fault(node, Fault::ManyItems(list.max));
        }
        let before = self.problems.len();
        let mut values = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let value = self.inside(Seg::Index(index), |c| c.value(&list.item, item));
            values.push(value);
        }
        if let Some(rule) = list.rule
            && self.problems.len() == before
            && let Err(text) = rule(&values)
        {
            self.fault(node, Fault::Rule(text));
        }
        Value::Array(values)
    }

    fn map(&mut self, map: &Map, members: &[(String, Node)]) -> Value {
        let mut out = serde_json::Map::new();
        for (key, node) in members {
            let value = self.inside(Seg::Key(key.clone()), |checker| {
                if let Err(rule) = map.key.check(key) {
                    checker.fault(node, Fault::Rule(rule));
                }
                checker.value(&map.value, node)
            });
            out.insert(key.clone(), value);
        }
        Value::Object(out)
    }
}

/// Replaces every secret of a canonical document by `***`.
pub(crate) fn mask(fields: Fields, document: &mut Value) {
    for field in fields {
        if let Some(value) = document.get_mut(field.name) {
            mask_kind(&field.kind, value);
        }
    }
}

fn mask_kind(kind: &Kind, value: &mut Value) {
    match kind {
        Kind::Secret => hide(value),
        Kind::Object(fields) => mask(fields, value),
        Kind::Map(Map { secret: true, .. }) | Kind::Anything { secret: true } => hide(value),
        Kind::List(list) => {
            for item in value.as_array_mut().into_iter().flatten() {
                mask_kind(&list.item, item);
            }
        }
        _ => {}
    }
}

/// Hides every text inside.
fn hide(value: &mut Value) {
    match value {
        Value::String(text) => *text = "***".into(),
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(members) => members.values_mut().for_each(hide),
        _ => {}
    }
}
