//! Checks a tree against a table and makes the canonical document of it:
//! canonical names, defaults written out, absent members left out.

use serde_json::Value;

use super::{
    Fault, Field, Fields, Format, Forms, Kind, List, Map, Need, Path, Problem, Seg, Union, near, req,
};
use crate::tree::{Data, Node, Origin, parse_embedded_json};

/// Where an explicit `null` means "absent".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nulls {
    /// Nowhere: it is a type error.
    Never,
    /// On optional fields without a default.
    Optional,
    /// On every field that is not required.
    Anywhere,
}

/// How much is forgiven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Process settings: capabilities that are not built are refused.
    Process,
    /// A resource that is being written: nothing is forgiven.
    Strict,
    /// A resource that is stored already, perhaps by another version: unknown
    /// fields and advice are told, not refused.
    Lenient,
}

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Whatever is in order; complete when there is no problem.
    pub(crate) document: Value,
    pub(crate) problems: Vec<Problem>,
    /// Fields that a lenient check passed over, as `a.b.[].c`.
    pub(crate) ignored: Vec<String>,
    /// Fields whose capability is not built.
    pub(crate) unenforced: Vec<&'static str>,
}

/// Checks a value. All problems are reported.
pub(crate) fn check(kind: &Kind, node: &Node, nulls: Nulls, mode: Mode) -> Checked {
    let mut checker = Checker { nulls, mode, path: Path::default(), found: Checked::default() };
    let document = checker.value(kind, node);
    Checked { document, ..checker.found }
}

struct Checker {
    nulls: Nulls,
    mode: Mode,
    path: Path,
    found: Checked,
}

impl Checker {
    fn fault(&mut self, node: &Node, fault: Fault) {
        self.found.problems.push(Problem { path: self.path.clone(), origin: node.origin.clone(), fault });
    }

    fn inside<T>(&mut self, seg: Seg, check: impl FnOnce(&mut Self) -> T) -> T {
        self.path.0.push(seg);
        let result = check(self);
        self.path.0.pop();
        result
    }

    fn object(&mut self, groups: &[&[Field]], node: &Node) -> Value {
        let Some(members) = node.as_map() else {
            self.fault(node, Fault::Type("object"));
            return Value::Null;
        };
        let strict = self.mode == Mode::Strict;
        let fields = || groups.iter().copied().flatten().filter(move |f| !(strict && f.is_gone()));
        for (name, value) in members {
            if !fields().any(|field| field.is_called(name)) {
                self.unknown(value, name, near(fields().map(|field| field.name), name));
            }
        }
        let mut out = serde_json::Map::new();
        for field in fields().filter(|field| !field.is_gone()) {
            let value = self.field(field, node);
            if !value.is_null() {
                out.insert(field.name.into(), value);
            }
        }
        Value::Object(out)
    }

    /// Process settings name the unknown field by its full path, resources by
    /// the path of the mapping that holds it.
    fn unknown(&mut self, value: &Node, name: &str, near: Option<&'static str>) {
        let fault = Fault::Unknown { name: name.to_owned(), near };
        // The member itself is the place to look at.
        let at = Node::new(value.origin.clone(), Data::Null);
        let seg = Seg::Key(name.to_owned());
        match self.mode {
            Mode::Process => self.inside(seg, |checker| checker.fault(&at, fault)),
            Mode::Strict => self.fault(&at, fault),
            Mode::Lenient => {
                let path = self.inside(seg, |checker| checker.path.generic());
                self.found.ignored.push(path);
            }
        }
    }

    fn union(&mut self, union: &Union, node: &Node) -> Value {
        let Some(tag) = node.get(union.tag) else {
            if node.as_map().is_none() {
                return self.object(&[], node);
            }
            self.fault(node, Fault::Required(union.tag));
            // Which other fields there may be, nobody can say.
            for field in union.common {
                self.field(field, node);
            }
            return Value::Null;
        };
        let Some(fields) = tag.as_str().and_then(|name| union.variant(name)) else {
            let fault = match tag.as_str() {
                Some(_) => Fault::OneOf(union.variants.iter().map(|(name, _)| *name).collect()),
                None => Fault::Type("string"),
            };
            self.inside(Seg::Key(union.tag.into()), |checker| checker.fault(tag, fault));
            return Value::Null;
        };
        self.object(&[&[req(union.tag, Kind::TEXT, "")], union.common, fields], node)
    }

    fn forms(&mut self, forms: &Forms, node: &Node) -> Value {
        let has = |fields: Fields| {
            let members = node.as_map().unwrap_or_default();
            members.iter().any(|(name, _)| fields.iter().any(|field| field.is_called(name)))
        };
        let mut own = forms.forms.iter().map(|(_, fields)| *fields).filter(|fields| has(fields));
        let form = own.next().or(forms.forms.first().map(|(_, fields)| *fields));
        if own.next().is_some() {
            self.fault(node, Fault::Rule(forms.mixed.into()));
            return Value::Null;
        }
        self.object(&[forms.common, form.unwrap_or_default()], node)
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
                    Need::Required | Need::Written(_) => false,
                    _ if field.nullable => true,
                    Need::Optional => self.nulls != Nulls::Never,
                    Need::Default(_) | Need::Gone => self.nulls == Nulls::Anywhere,
                })
        });
        let Some(node) = node else {
            return self.absent(field, parent);
        };
        let before = self.found.problems.len();
        self.inside(Seg::Key(name.to_owned()), |checker| {
            let value = checker.value(&field.kind, node);
            if let Some(off) = field.later
                && checker.found.problems.len() == before
                && !off.holds(&value, &field.need)
            {
                match checker.mode {
                    Mode::Process => checker.fault(node, Fault::NotSupported),
                    Mode::Strict | Mode::Lenient => checker.found.unenforced.push(field.name),
                }
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
            (Need::Written(_), _) if self.mode != Mode::Lenient => {
                self.fault(parent, Fault::Required(field.name));
                Value::Null
            }
            (Need::Optional | Need::Gone, _) => Value::Null,
            (Need::Default(_), Kind::Object(fields)) => {
                let empty = Node::new(Origin::Unknown, Data::Map(Vec::new()));
                let seg = Seg::Key(field.name.to_owned());
                self.inside(seg, |checker| checker.object(&[fields], &empty))
            }
            // Every default of the tables is parsed by a test.
            (Need::Default(json) | Need::Written(json), _) => serde_json::from_str(json).unwrap_or_default(),
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
                } else {
                    self.format(*format, text, node);
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
                    self.fault(node, Fault::OneOf(names.to_vec()));
                    return Value::Null;
                }
                Value::String(text.clone())
            }
            (Kind::List(list), _) => self.list(list, node),
            (Kind::Map(map), Data::Map(members)) => self.map(map, members),
            (Kind::Object(fields), _) => self.object(&[fields], node),
            (Kind::Union(union), _) => self.union(union, node),
            (Kind::Forms(forms), _) => self.forms(forms, node),
            (Kind::Either(kinds), _) => self.either(kinds, node),
            (Kind::Signed { min, max }, Data::Number(number)) => self.signed(node, number, *min, *max),
            (Kind::Anything { .. }, Data::Map(_)) => node.to_json(),
            _ => {
                self.fault(node, Fault::Type(kind.json_type()));
                Value::Null
            }
        }
    }

    fn format(&mut self, format: Format, text: &str, node: &Node) {
        if self.mode == Mode::Strict && format.is_url() && super::url::is_masked(text) {
            let why = "value holds `***` in place of a credential; write the URL as it is";
            return self.fault(node, Fault::Rule(why.into()));
        }
        if let Err(rule) = format.check(text) {
            let advice = format.is_advice() && self.mode == Mode::Lenient;
            self.fault(node, if advice { Fault::Advice(rule) } else { Fault::Rule(rule) });
        }
    }

    /// The alternative of the value's own type, or a complaint about all.
    fn either(&mut self, kinds: &[Kind], node: &Node) -> Value {
        let own = node.json_type();
        match kinds.iter().find(|kind| kind.json_type() == own) {
            Some(kind) => self.value(kind, node),
            None => {
                let types: Vec<_> = kinds.iter().map(Kind::json_type).collect();
                self.fault(node, Fault::Types(types));
                Value::Null
            }
        }
    }

    fn signed(&mut self, node: &Node, number: &serde_json::Number, min: i64, max: i64) -> Value {
        let fault = match number.as_i64() {
            Some(int) if int < min => Fault::Min(min as f64),
            Some(int) if int > max => Fault::Max(max as f64),
            Some(_) => return Value::Number(number.clone()),
            None if number.as_u64().is_some() => Fault::Max(max as f64),
            None => no_integer(number),
        };
        self.fault(node, fault);
        Value::Null
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
            (None, None) => no_integer(number),
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
        if items.len() < list.min {
            self.fault(node, Fault::FewItems(list.min));
        }
        let before = self.found.problems.len();
        let mut values = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let value = self.inside(Seg::Index(index), |c| c.value(&list.item, item));
            values.push(value);
        }
        if let Some(rule) = list.rule
            && self.found.problems.len() == before
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
                checker.format(map.key, key, node);
                checker.value(&map.value, node)
            });
            out.insert(key.clone(), value);
        }
        Value::Object(out)
    }
}

fn no_integer(number: &serde_json::Number) -> Fault {
    match number.as_f64() {
        Some(float) if float.fract() == 0.0 => {
            Fault::Decode("expected an integer, written without a fraction".into())
        }
        _ => Fault::Type("integer"),
    }
}

/// Replaces every secret of a canonical document by `***`, and credentials
/// inside URLs.
pub(crate) fn mask(kind: &Kind, value: &mut Value) {
    let fields = |fields: Fields, value: &mut Value| {
        for field in fields {
            if let Some(value) = value.get_mut(field.name) {
                mask(&field.kind, value);
            }
        }
    };
    match kind {
        Kind::Secret | Kind::Text { format: Format::Secret, .. } => hide(value),
        Kind::Text { format, .. } if format.is_url() => {
            if let Some(masked) = value.as_str().and_then(super::masked_url) {
                *value = masked.into();
            }
        }
        Kind::Object(own) => fields(own, value),
        Kind::Union(union) => {
            let variant = value[union.tag].as_str().and_then(|name| union.variant(name));
            fields(union.common, value);
            fields(variant.unwrap_or_default(), value);
        }
        Kind::Forms(forms) => {
            fields(forms.common, value);
            forms.forms.iter().for_each(|(_, own)| fields(own, value));
        }
        Kind::Either(kinds) => {
            for kind in *kinds {
                mask(kind, value);
            }
        }
        Kind::Map(Map { secret: true, .. }) | Kind::Anything { secret: true } => hide(value),
        Kind::Map(map) => {
            for value in value.as_object_mut().into_iter().flat_map(|members| members.values_mut()) {
                mask(&map.value, value);
            }
        }
        Kind::List(list) => {
            for item in value.as_array_mut().into_iter().flatten() {
                mask(&list.item, item);
            }
        }
        _ => {}
    }
}

/// Hides every text inside; nothing is not hidden.
fn hide(value: &mut Value) {
    match value {
        Value::String(text) if !text.is_empty() => *text = "***".into(),
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(members) => members.values_mut().for_each(hide),
        _ => {}
    }
}
