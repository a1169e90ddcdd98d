//! The resources file: read, parse, interpolate, expand, check, type.
//!
//! A file is taken as a whole or not at all, and all its problems are
//! reported together. What a file may hold follows from the table of kinds.

mod entry;
mod interpolate;
mod names;
mod report;
mod sugar;

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::resource::{Document, Identity, KINDS, ResourceKind, ResourceSet};
use crate::schema::{Field, Fields, Format, Kind, Need};
use crate::tree::{self, Data, Node, Origin, parse_yaml};

use entry::Collection;
use names::Book;
pub use report::ResourceErrors;
pub(crate) use report::{ErrorKind, Rejection};

pub(crate) const VERSION_KEY: &str = "_format_version";
pub(crate) const VERSION: &str = "1";

/// A variable of the environment, if it is set.
pub(crate) type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// A file that is in order.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it holds, as revision 1.
    pub set: ResourceSet,
    /// The same as documents, in the order of the file.
    pub documents: Vec<Document>,
    /// SHA-256 of its bytes, hexadecimal.
    pub hash: String,
    /// How many resources it holds.
    pub count: usize,
    /// What the gateway does not act on yet, and how many resources have it:
    /// the kind, and the field unless it is the whole kind.
    pub unenforced: BTreeMap<(&'static str, Option<&'static str>), usize>,
}

/// Loads a file. `env` answers for `${VAR}` and `key_env`.
pub fn load_resources(path: &Path, env: Env<'_>) -> Result<Loaded, ResourceErrors> {
    let bytes = std::fs::read(path).map_err(|error| ResourceErrors::unreadable(path, &error))?;
    load_text(bytes, env).map_err(|errors| errors.at(path))
}

/// Loads what would stand in a file.
pub fn load_text(text: impl AsRef<[u8]>, env: Env<'_>) -> Result<Loaded, ResourceErrors> {
    let bytes = text.as_ref();
    let hash = hex(&Sha256::digest(bytes));
    match load_bytes(bytes, env) {
        Ok(loaded) => Ok(Loaded { hash, ..loaded }),
        Err(rejections) => Err(ResourceErrors::rejected(hash, rejections)),
    }
}

/// A line that tells what is in order but without effect.
pub fn unenforced_note(loaded: &Loaded) -> Option<String> {
    let place = |kind: &str| KINDS.iter().position(|known| known.name == kind);
    let mut told: Vec<_> = loaded.unenforced.iter().collect();
    told.sort_by_key(|((kind, field), _)| (place(kind), *field));
    let told = told.into_iter().map(|((kind, field), count)| match field {
        Some(field) => format!("{kind}.{field} ({count})"),
        None => format!("{kind} ({count})"),
    });
    let told: Vec<_> = told.collect();
    (!told.is_empty()).then(|| format!("note: accepted but not enforced yet: {}", told.join(", ")))
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn load_bytes(bytes: &[u8], env: Env<'_>) -> Result<Loaded, Vec<Rejection>> {
    let root = parse(bytes).map_err(|(kind, message)| vec![Rejection::file(kind, message)])?;
    let Data::Map(members) = root.data else {
        let message = "top level must be a mapping".to_owned();
        return Err(vec![Rejection::file(ErrorKind::Schema, message)]);
    };
    let mut rejections = Vec::new();
    let raw = top_level(members, &mut rejections).into_iter();
    let mut collections: Vec<_> = raw.map(|(kind, nodes)| Collection::open(kind, nodes, env)).collect();
    let book = Book::new(collections.iter().map(Collection::names));
    for collection in &mut collections {
        collection.expand(&book, env);
        collection.check(&book);
    }
    let mut set = ResourceSet::default();
    set.revision = 1;
    let mut loaded =
        Loaded { set, documents: Vec::new(), hash: String::new(), count: 0, unenforced: BTreeMap::new() };
    for collection in collections {
        rejections.extend(collection.finish(&mut loaded));
    }
    loaded.count = loaded.documents.len();
    if rejections.is_empty() { Ok(loaded) } else { Err(rejections) }
}

fn parse(bytes: &[u8]) -> Result<Node, (ErrorKind, String)> {
    let syntax = |why: String| (ErrorKind::NonJson, format!("YAML parse error: {why}"));
    let schema = |why: String| (ErrorKind::Schema, why);
    let text = std::str::from_utf8(bytes)
        .map_err(|error| syntax(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
    let text = text.trim_start_matches('\u{feff}');
    match parse_yaml(text).map_err(|error| syntax(error.message))? {
        tree::Document::One(node) if node.is_null() => Err(schema("file is empty".into())),
        tree::Document::One(node) => Ok(node),
        tree::Document::Empty => Err(schema("file is empty".into())),
        tree::Document::Many(count) => Err(schema(format!("expected a single YAML document, found {count}"))),
    }
}

/// Checks what stands at the top; gives the entries of every kind.
fn top_level(
    members: Vec<(String, Node)>,
    rejections: &mut Vec<Rejection>,
) -> Vec<(&'static ResourceKind, Vec<Node>)> {
    let mut add = |message: String, origin: &Origin| {
        rejections.push(Rejection::file(ErrorKind::Schema, format!("{message}{}", line_suffix(origin))));
    };
    let version = members.iter().find(|(name, _)| name == VERSION_KEY);
    match version.map(|(_, node)| (node, node.as_str())) {
        None => add(
            format!("missing mandatory {VERSION_KEY} (write `{VERSION_KEY}: \"{VERSION}\"`)"),
            &Origin::Unknown,
        ),
        Some((_, Some(VERSION))) => {}
        Some((node, Some(other))) => {
            add(format!("unrecognized {VERSION_KEY} {other:?} (supported: \"{VERSION}\")"), &node.origin)
        }
        Some((node, None)) => {
            add(format!("{VERSION_KEY} must be the string \"{VERSION}\" (quote it)"), &node.origin)
        }
    }
    let mut collections: Vec<_> = KINDS.iter().map(|kind| (*kind, Vec::new())).collect();
    for (name, node) in members {
        if name == VERSION_KEY {
            continue;
        }
        let origin = node.origin.clone();
        let Some(collection) = collections.iter_mut().find(|(kind, _)| kind.name == name) else {
            let known: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
            let (name, known) = (name.escape_debug(), known.join(", "));
            let message = format!("unknown top-level key `{name}` (collections: {known})");
            add(message, &origin);
            continue;
        };
        match node.data {
            Data::Null => {}
            Data::Seq(items) => collection.1 = items,
            _ => add(format!("`{name}` must be a sequence of maps"), &origin),
        }
    }
    collections
}

/// The fields that every document of a kind has.
pub(crate) fn common_fields(kind: &ResourceKind) -> Fields {
    match &kind.shape {
        Kind::Object(fields) => fields,
        Kind::Union(union) => union.common,
        Kind::Forms(forms) => forms.common,
        _ => &[],
    }
}

fn field_of(kind: &ResourceKind, name: &str) -> Option<&'static Field> {
    common_fields(kind).iter().find(|field| field.name == name)
}

/// The field that holds the hash of a credential, in kinds that have one, and
/// the field of a file that names an environment variable with the credential.
pub(crate) fn hash_field(kind: &ResourceKind) -> Option<(&'static str, String)> {
    let hashed = |field: &&Field| {
        matches!(field.kind, Kind::Text { format: Format::KeyHash, .. })
            && matches!(field.need, Need::Required)
    };
    let field = common_fields(kind).iter().find(hashed)?;
    let stem = field.name.strip_suffix("_hash").unwrap_or(field.name);
    Some((field.name, format!("{stem}_env")))
}

/// The field that names a resource of the kind, where there is one.
pub(crate) fn name_field(kind: &ResourceKind) -> Option<&'static str> {
    match kind.identity {
        Identity::Field(field) => Some(field),
        Identity::Singleton | Identity::Made(_) => None,
    }
}

/// The name of a kind for one of it, such as `provider key`.
pub(crate) fn singular(kind: &str) -> String {
    let stem = match kind.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => kind.strip_suffix('s').unwrap_or(kind).to_owned(),
    };
    stem.replace('_', " ")
}

/// ` (line N)` when the line is known.
fn line_suffix(origin: &Origin) -> String {
    match origin {
        Origin::Line(line) => format!(" (line {line})"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
