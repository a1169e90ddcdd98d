//! Field tables: one row says a field's name, type, need, default and meaning.
//! Validation, defaults, masking, typing of environment variables and the
//! reference are all made from these rows.

mod check;
mod format;
mod json_schema;
mod problem;
mod text;
mod url;

use std::fmt;
use std::ops::Deref;

use serde_json::Value;

pub(crate) use check::{Checked, Mode, Nulls, check, mask};
pub use format::FORBIDDEN_HEADERS;
pub(crate) use format::{Format, compile, parse_net, parse_time};
pub use json_schema::json_schema;
pub(crate) use problem::{Fault, Path, Problem, Seg, near};
pub(crate) use url::masked as masked_url;

/// A table.
pub(crate) type Fields = &'static [Field];

/// One row.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    /// An older spelling that is still accepted.
    pub(crate) alias: Option<&'static str>,
    pub(crate) kind: Kind,
    pub(crate) need: Need,
    /// Set when the capability is not built: the values that leave it off.
    pub(crate) later: Option<Off>,
    /// `null` means the default, wherever the kind stands on nulls.
    pub(crate) nullable: bool,
    pub(crate) doc: &'static str,
}

/// What a field holds.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Bool,
    Int {
        min: u64,
        max: u64,
    },
    /// A whole number that may be negative.
    Signed {
        min: i64,
        max: i64,
    },
    Number {
        min: f64,
        max: f64,
    },
    /// Text of at least `min` and at most `max` characters.
    Text {
        min: usize,
        max: usize,
        format: Format,
    },
    /// Text that is never shown.
    Secret,
    Enum(&'static [&'static str]),
    List(&'static List),
    Map(&'static Map),
    Object(Fields),
    /// An object whose fields depend on the value of one of them.
    Union(&'static Union),
    /// An object in one of several forms, told apart by the fields it has.
    Forms(&'static Forms),
    /// A value of one of these, which differ in their JSON type.
    Either(&'static [Kind]),
    /// Any JSON object; shown masked when `secret`.
    Anything {
        secret: bool,
    },
}

/// A rule about all items together.
pub(crate) type ListRule = fn(&[Value]) -> Result<(), String>;

/// An object in several variants.
pub(crate) struct Union {
    /// The field that tells the variant.
    pub(crate) tag: &'static str,
    /// What the tag means.
    pub(crate) doc: &'static str,
    /// Fields of every variant.
    pub(crate) common: Fields,
    /// The values of the tag, each with its own fields.
    pub(crate) variants: &'static [(&'static str, Fields)],
}

impl Union {
    /// The fields of a variant besides the common ones.
    pub(crate) fn variant(&self, name: &str) -> Option<Fields> {
        self.variants.iter().find_map(|(known, fields)| (*known == name).then_some(*fields))
    }
}

/// An object in one of several forms.
pub(crate) struct Forms {
    /// What it is called in JSON Schemas.
    pub(crate) name: &'static str,
    /// Fields of every form.
    pub(crate) common: Fields,
    /// The forms and their own fields. An object without any of them has the
    /// first form.
    pub(crate) forms: &'static [(&'static str, Fields)],
    /// The complaint about an object with fields of several forms.
    pub(crate) mixed: &'static str,
}

/// A list and its rules.
pub(crate) struct List {
    pub(crate) item: Kind,
    pub(crate) min: usize,
    pub(crate) max: usize,
    /// The list may also be written as a JSON text.
    pub(crate) json: bool,
    pub(crate) rule: Option<ListRule>,
}

/// A mapping with free keys.
pub(crate) struct Map {
    pub(crate) key: Format,
    pub(crate) value: Kind,
    pub(crate) secret: bool,
}

/// Whether a field must be given.
#[derive(Clone, Copy)]
pub(crate) enum Need {
    Required,
    Optional,
    /// The default as JSON text; `{}` of an object means the defaults of its fields.
    Default(&'static str),
    /// It must be given when written; a stored document has this default.
    Written(&'static str),
    /// It is not a field any more; stored documents may still have it.
    Gone,
}

/// Longest duration of any setting.
pub(crate) const TEN_YEARS_SECS: u64 = 315_360_000;
/// The same in milliseconds.
pub(crate) const TEN_YEARS_MS: u64 = TEN_YEARS_SECS * 1000;

/// Which values of a capability that is not built leave it off.
#[derive(Clone, Copy)]
pub(crate) enum Off {
    /// None: only absence does.
    Never,
    /// Values without content: `false`, blank text, empty lists and objects.
    Hollow,
    /// An object whose `enabled` is not true.
    Disabled,
    /// This text.
    Is(&'static str),
    /// The default of the field.
    Default,
}

impl Off {
    fn holds(self, value: &Value, need: &Need) -> bool {
        match self {
            Self::Never => value.is_null(),
            Self::Hollow => hollow(value),
            Self::Disabled => value.get("enabled") != Some(&Value::Bool(true)),
            Self::Is(text) => value.as_str() == Some(text),
            Self::Default => match need {
                Need::Default(text) => {
                    serde_json::from_str::<Value>(text).is_ok_and(|default| default == *value)
                }
                _ => value.is_null(),
            },
        }
    }
}

fn hollow(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(hollow),
        _ => false,
    }
}

impl Field {
    const fn new(name: &'static str, kind: Kind, need: Need, doc: &'static str) -> Self {
        Self { name, alias: None, kind, need, later: None, nullable: false, doc }
    }

    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alias == Some(name)
    }

    fn is_gone(&self) -> bool {
        matches!(self.need, Need::Gone)
    }

    /// Accepts an older spelling too.
    pub(crate) const fn alias(mut self, alias: &'static str) -> Self {
        self.alias = Some(alias);
        self
    }

    /// Takes `null` for the default.
    pub(crate) const fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// Marks a capability that is not built: a process setting refuses every
    /// value that would switch it on, a resource is told as not enforced.
    pub(crate) const fn later(mut self, off: Off) -> Self {
        self.later = Some(off);
        self
    }
}

/// A field that must be given.
pub(crate) const fn req(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field::new(name, kind, Need::Required, doc)
}

/// A field that may be left out.
pub(crate) const fn opt(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field::new(name, kind, Need::Optional, doc)
}

/// A field with a default, given as JSON text.
pub(crate) const fn def(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Field {
    Field::new(name, kind, Need::Default(default), doc)
}

/// A field that must be given, but has a default in stored documents.
pub(crate) const fn written(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Field {
    Field::new(name, kind, Need::Written(default), doc)
}

/// A field of older documents.
pub(crate) const fn gone(name: &'static str) -> Field {
    Field::new(name, Kind::Anything { secret: true }, Need::Gone, "")
}

impl Kind {
    pub(crate) const TEXT: Self = Self::text(0, Format::Any);
    pub(crate) const NAME: Self = Self::text(1, Format::Any);
    /// What people call a resource.
    pub(crate) const LABEL: Self = Self::text(1, Format::Name);
    /// Text that an older store may hold empty.
    pub(crate) const FILLED: Self = Self::text(0, Format::Filled);
    pub(crate) const PATH: Self = Self::text(1, Format::Path);
    pub(crate) const UINT: Self = Self::int(0, u64::MAX);
    /// A duration in seconds, at most ten years: clocks overflow somewhere beyond.
    pub(crate) const SECS: Self = Self::int(0, TEN_YEARS_SECS);
    /// A duration in milliseconds, at most ten years.
    pub(crate) const MS: Self = Self::int(0, TEN_YEARS_MS);
    pub(crate) const U32: Self = Self::int(0, u32::MAX as u64);
    pub(crate) const I32: Self = Self::Signed { min: i32::MIN as i64, max: i32::MAX as i64 };
    pub(crate) const NUMBER: Self = Self::Number { min: f64::NEG_INFINITY, max: f64::INFINITY };
    /// A number from 0 to 1.
    pub(crate) const SHARE: Self = Self::Number { min: 0.0, max: 1.0 };

    pub(crate) const fn text(min: usize, format: Format) -> Self {
        let max = usize::MAX;
        Self::Text { min, max, format }
    }

    pub(crate) const fn int(min: u64, max: u64) -> Self {
        Self::Int { min, max }
    }

    /// The JSON type, as schema messages name it.
    pub(crate) fn json_type(&self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Int { .. } | Self::Signed { .. } => "integer",
            Self::Number { .. } => "number",
            Self::Text { .. } | Self::Secret | Self::Enum(_) => "string",
            Self::List(_) => "array",
            Self::Map(_) | Self::Object(_) | Self::Union(_) | Self::Forms(_) | Self::Anything { .. } => {
                "object"
            }
            Self::Either(kinds) => kinds.first().map_or("value", Self::json_type),
        }
    }
}

impl List {
    pub(crate) const fn of(item: Kind) -> Self {
        Self { item, min: 0, max: usize::MAX, json: false, rule: None }
    }

    /// A list with at least so many items.
    pub(crate) const fn at_least(item: Kind, min: usize) -> Self {
        Self { min, ..Self::of(item) }
    }
}

impl Map {
    /// A mapping from any text.
    pub(crate) const fn to(value: Kind) -> Self {
        Self { key: Format::Any, value, secret: false }
    }
}

/// Lists of free text.
pub(crate) const TEXTS: Kind = Kind::List(&List::of(Kind::TEXT));
/// Lists of text that is not empty.
pub(crate) const NAMES: Kind = Kind::List(&List::of(Kind::NAME));

/// A value that `Debug` does not show.
#[derive(Clone, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(transparent)]
pub struct Hidden<T>(pub T);

impl<T> Deref for Hidden<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(***)")
    }
}

#[cfg(test)]
mod tests;
