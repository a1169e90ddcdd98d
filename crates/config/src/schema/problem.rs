//! Problems, and their two wordings: for process settings and for resources.
//! No wording ever quotes a value of the document.

use std::fmt::Write as _;

use crate::tree::Origin;

/// One step into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seg {
    Key(String),
    Index(usize),
}

/// The way to a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path(pub(crate) Vec<Seg>);

impl Path {
    /// The path of these member names, separated by dots.
    pub(crate) fn of(dotted: &str) -> Self {
        Self(dotted.split('.').map(|key| Seg::Key(key.into())).collect())
    }

    pub(crate) fn with(&self, seg: Seg) -> Self {
        let mut path = self.clone();
        path.0.push(seg);
        path
    }

    /// `a.b[0].c`
    pub(crate) fn dotted(&self) -> String {
        dotted(&self.0)
    }

    /// `a.b.[].c`: the same for every item of a list.
    pub(crate) fn generic(&self) -> String {
        let segs = self.0.iter().map(|seg| match seg {
            Seg::Key(key) => key.as_str(),
            Seg::Index(_) => "[]",
        });
        segs.collect::<Vec<_>>().join(".")
    }

    /// `/a/b/0/c`
    pub(crate) fn pointer(&self) -> String {
        self.0.iter().fold(String::new(), |mut out, seg| {
            out.push('/');
            match seg {
                Seg::Key(key) => out.push_str(&key.replace('~', "~0").replace('/', "~1")),
                Seg::Index(index) => out.push_str(&index.to_string()),
            }
            out
        })
    }
}

fn dotted(segs: &[Seg]) -> String {
    segs.iter().fold(String::new(), |mut out, seg| {
        match seg {
            Seg::Key(key) if out.is_empty() => out.push_str(key),
            Seg::Key(key) => {
                out.push('.');
                out.push_str(key);
            }
            Seg::Index(index) => {
                // Writing to a String cannot fail.
                let _ = write!(out, "[{index}]");
            }
        }
        out
    })
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Another JSON type is expected.
    Type(&'static str),
    /// A member is missing.
    Required(&'static str),
    /// A member is not known.
    Unknown {
        name: String,
        near: Option<&'static str>,
    },
    Min(f64),
    Max(f64),
    Short(usize),
    Long(usize),
    ManyItems(usize),
    FewItems(usize),
    /// None of several JSON types.
    Types(Vec<&'static str>),
    OneOf(Vec<&'static str>),
    /// A rule about the content; the text follows the path.
    Rule(String),
    /// A rule that a stored document may break.
    Advice(String),
    /// The value fits the schema but not the field.
    Decode(String),
    /// The capability is not built.
    NotSupported,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    pub(crate) path: Path,
    pub(crate) origin: Origin,
    pub(crate) fault: Fault,
}

impl Problem {
    /// Wording for the process configuration, with the position.
    pub(crate) fn process_text(&self) -> String {
        let path = self.path.dotted();
        let shape = |text: String| {
            let colon = if path.is_empty() { "" } else { ": " };
            format!("deserialize: {path}{colon}{text}")
        };
        let mut text = match &self.fault {
            Fault::Type(expected) => shape(format!("invalid type, expected {}", article(expected))),
            Fault::Required(name) => shape(format!("missing field `{name}`")),
            Fault::Unknown { name, near } => shape(format!("unknown field `{name}`{}", did_you_mean(*near))),
            Fault::Decode(text) => shape(text.clone()),
            Fault::OneOf(names) => shape(format!("expected {}", one_of(names))),
            Fault::Min(min) => format!("{path} must be at least {min}"),
            Fault::Max(max) => format!("{path} must be at most {max}"),
            Fault::Short(_) => format!("{path} must not be empty"),
            Fault::Long(max) => format!("{path} must have at most {max} characters"),
            Fault::ManyItems(max) => format!("{path} must list at most {max}"),
            Fault::FewItems(min) => format!("{path} must list at least {min}"),
            Fault::Types(types) => shape(format!("invalid type, expected {}", one_of(types))),
            Fault::NotSupported => format!("{path}: not supported yet"),
            Fault::Rule(rule) | Fault::Advice(rule) => match self.path.0.split_last() {
                // The list is what users look for, so the item comes last.
                Some((Seg::Index(index), list)) => {
                    format!("{} {rule} (item {})", dotted(list), index + 1)
                }
                _ => format!("{path} {rule}"),
            },
        };
        match &self.origin {
            Origin::Unknown => {}
            Origin::Line(line) => {
                let _ = write!(text, " (line {line})");
            }
            Origin::Env(name) => {
                let _ = write!(text, " (environment variable {name})");
            }
        }
        text
    }

    /// Wording for resource documents, without the position.
    pub(crate) fn resource_text(&self) -> String {
        let pointer = self.path.pointer();
        let schema = |reason: String| format!("schema validation failed at `{pointer}`: {reason}");
        match &self.fault {
            Fault::Type(expected) => schema(format!("value is not of type \"{expected}\"")),
            Fault::Required(name) => schema(format!("\"{name}\" is a required property")),
            Fault::Unknown { name, near } => schema(format!(
                "Additional properties are not allowed ('{name}' was unexpected){}",
                did_you_mean(*near)
            )),
            Fault::Min(min) => schema(format!("value is less than the minimum of {min:?}")),
            Fault::Max(max) => schema(format!("value is greater than the maximum of {max:?}")),
            Fault::Short(min) => schema(format!("value is shorter than {}", count(*min, "character"))),
            Fault::Long(max) => schema(format!("value is longer than {}", count(*max, "character"))),
            Fault::ManyItems(max) => schema(format!("value has more than {}", count(*max, "item"))),
            Fault::FewItems(min) => schema(format!("value has fewer than {}", count(*min, "item"))),
            Fault::Types(types) => schema(format!("value is not of type {}", one_of(types))),
            Fault::OneOf(names) => schema(format!("value is not {}", one_of(names))),
            Fault::Rule(rule) | Fault::Advice(rule) => schema(rule.clone()),
            Fault::Decode(text) => format!("cannot decode canonical document: {text} at `{pointer}`"),
            Fault::NotSupported => format!("{}: not supported yet", self.path.dotted()),
        }
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn article(kind: &str) -> String {
    let an = matches!(kind, "array" | "integer" | "object");
    format!("{} {kind}", if an { "an" } else { "a" })
}

fn one_of(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => {
            format!("one of {} or {last}", rest.join(", "))
        }
        _ => quoted.join(""),
    }
}

/// `, did you mean ...?` when there is something near.
fn did_you_mean(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!(", did you mean `{near}`?"))
}

/// The known name that a misspelt one is closest to, if it is close.
pub(crate) fn near(known: impl Iterator<Item = &'static str>, name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    known
        .map(|known| (strsim::osa_distance(known, &name), known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| *distance <= 1.max(known.len() / 3))
        .map(|(_, known)| known)
}
