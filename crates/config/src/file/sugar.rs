//! What is written in a file in place of something else: names for ids, and a
//! variable for the hash of its value.

use sha2::{Digest, Sha256};

use super::entry::Entry;
use super::names::{Book, Names};
use super::{Env, hash_field, hex, singular};
use crate::resource::{Ref, ResourceKind, derived_id};
use crate::schema::{Nulls, Path, Seg};
use crate::tree::{Data, Node, Origin};

impl Entry {
    /// Replaces everything that a file spells in its own way.
    pub(super) fn expand(&mut self, kind: &'static ResourceKind, book: &Book, env: Env<'_>) {
        let mut node = std::mem::replace(&mut self.node, Node::new(Origin::Unknown, Data::Null));
        for reference in kind.refs {
            let (Some(sugar), Some(names)) = (reference.sugar, book.of(reference.kind)) else {
                continue;
            };
            let nullable = kind.nulls != Nulls::Never;
            holders(&mut node, reference.path, Path::default(), &mut |holder, at| {
                if nullable && holder.get(sugar).is_some_and(Node::is_null) {
                    holder.take(sugar);
                }
                self.name_to_id(holder, &at, (reference, sugar), names);
            });
        }
        for (sugar, field) in kind.sugar {
            let Some(named) = node.take(sugar) else {
                continue;
            };
            if node.get(field).is_some_and(|id| !id.is_null()) {
                self.fault(format!("`{sugar}` and `{field}` are mutually exclusive"));
                self.settled.push(Path::of(field));
                continue;
            }
            if self.settled.contains(&Path::of(sugar)) {
                self.settled.push(Path::of(field));
            }
            self.spelt.push((sugar, field));
            node.set(field, named);
        }
        if let Some((hash, variable)) = hash_field(kind)
            && node.as_map().is_some()
        {
            self.hash_of_variable(&mut node, hash, &variable, env);
        }
        self.node = node;
    }

    /// `provider_key: <name>` becomes `provider_key_id`.
    fn name_to_id(&mut self, holder: &mut Node, at: &Path, (reference, sugar): (&Ref, &str), names: &Names) {
        let Some(node) = holder.take(sugar) else {
            return;
        };
        let field = last(reference.path);
        let (by_name, by_id) = (at.with(Seg::Key(sugar.into())), at.with(Seg::Key(field.into())));
        let label = by_name.dotted();
        if holder.get(field).is_some_and(|id| !id.is_null()) {
            self.fault(format!("`{label}` and `{}` are mutually exclusive", by_id.dotted()));
            self.settled.push(by_id);
            return;
        }
        let name = node.as_str().filter(|name| !name.is_empty());
        let wrong = match name {
            _ if self.settled.contains(&by_name) => true,
            None => {
                let what = singular(reference.kind);
                let article = if what.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
                self.fault(format!("`{label}` must be the name of {article} {what}"));
                true
            }
            Some(name) => match names.unknown(name) {
                Some(why) => {
                    self.fault(format!("`{label}` references {why}"));
                    true
                }
                None => false,
            },
        };
        if wrong {
            self.settled.push(by_id);
        }
        let id = derived_id(reference.kind, name.unwrap_or_default());
        holder.set(field, Node::new(node.origin, Data::String(id)));
    }

    /// `key_env: <variable>` becomes `key_hash`.
    fn hash_of_variable(&mut self, node: &mut Node, hash: &'static str, variable: &str, env: Env<'_>) {
        let given = node.get(hash).is_some_and(|node| !node.is_null());
        let Some(named) = node.take(variable).filter(|node| !node.is_null()) else {
            if !given {
                self.fault(format!("`{variable}` or `{hash}` is required"));
            }
            return;
        };
        if given {
            self.fault(format!("`{variable}` and `{hash}` are mutually exclusive"));
            return;
        }
        let digest = match named.as_str() {
            _ if self.settled.contains(&Path::of(variable)) => None,
            None | Some("") => {
                self.fault(format!("`{variable}` must be the name of an environment variable"));
                None
            }
            Some(name) => match env(name).filter(|value| !value.is_empty()) {
                None => {
                    self.fault(format!("field `{variable}`: {} is unset or empty", shown(name)));
                    None
                }
                Some(value) if value.contains("${") => {
                    let shown = shown(name);
                    self.fault(format!("field `{variable}`: {shown} holds an uninterpolated `${{`"));
                    None
                }
                Some(value) => Some(hex(&Sha256::digest(value.as_bytes()))),
            },
        };
        // A missing hash has been explained; the schema need not ask for it.
        self.settled.extend(digest.is_none().then(|| Path::of(hash)));
        let digest = Data::String(digest.unwrap_or_default());
        node.set(hash, Node::new(named.origin, digest));
    }
}

/// The last name of a path.
fn last(path: &str) -> &str {
    path.rsplit(['.', ']']).next().unwrap_or(path)
}

/// Goes to every mapping that holds, or may hold, the last name of a path.
fn holders(node: &mut Node, path: &str, at: Path, found: &mut dyn FnMut(&mut Node, Path)) {
    if let Some(rest) = path.strip_prefix("[]") {
        if let Data::Seq(items) = &mut node.data {
            for (index, item) in items.iter_mut().enumerate() {
                holders(item, rest.trim_start_matches('.'), at.with(Seg::Index(index)), found);
            }
        }
        return;
    }
    let Some(end) = path.find(['.', '[']) else {
        return found(node, at);
    };
    let (name, rest) = path.split_at(end);
    if let Some(node) = node.get_mut(name) {
        holders(node, rest.trim_start_matches('.'), at.with(Seg::Key(name.into())), found);
    }
}

/// The name of a variable, unless it looks like the secret itself, pasted in
/// the place of the name.
fn shown(name: &str) -> String {
    let word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let mixed = name.bytes().any(|b| b.is_ascii_lowercase()) && name.bytes().any(|b| b.is_ascii_digit());
    if word && !mixed {
        format!("environment variable `{name}`")
    } else {
        "the environment variable that it names".into()
    }
}
