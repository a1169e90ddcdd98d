//! Settings from the environment: `AISIX_<SECTION>__<FIELD>`, typed by the
//! field that they set.

use std::sync::Arc;

use serde_json::Number;

use super::table::{PROCESS, find};
use crate::schema::{Fault, Fields, Kind, Path, Problem, Seg, near};
use crate::tree::{Data, Node, Origin};

/// Lays the variables over the document.
pub(super) fn overlay(root: &mut Node, env: &[(String, String)]) -> Vec<Problem> {
    let mut settings: Vec<_> =
        env.iter().filter_map(|(name, value)| Some((setting(name, value)?, name, value))).collect();
    settings.sort();
    let mut problems = Vec::new();
    for (path, name, value) in settings {
        let origin = Origin::Env(Arc::from(name.as_str()));
        let segs: Vec<_> = path.split("__").collect();
        match find(segs.iter().copied()) {
            Ok(field) => {
                let node = Node::new(origin, typed(&field.kind, value, name));
                insert(root, &segs, node);
            }
            Err(depth) => problems.push(unknown(&segs, depth, origin)),
        }
    }
    problems
}

/// The path that a variable sets, in lower case, if it is a setting at all.
fn setting(name: &str, value: &str) -> Option<String> {
    let prefix = name.get(..6)?;
    let path = name[6..].to_ascii_lowercase();
    let ours = prefix.eq_ignore_ascii_case("AISIX_") && !reserved(&path, value);
    ours.then_some(path)
}

/// Names that belong to somebody else: the command line, the container
/// entrypoint, and what Kubernetes sets for services called `aisix` or
/// `aisix-...`.
fn reserved(name: &str, value: &str) -> bool {
    matches!(name, "config" | "config_path" | "admin_key")
        || (!name.contains("__") && of_a_service(name, value))
}

fn of_a_service(name: &str, value: &str) -> bool {
    // Seen from the end of the prefix, a service called `aisix` has an empty name.
    let name = format!("_{name}");
    let numbered = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    name.ends_with("_service_host")
        || name.ends_with("_service_port")
        || name.contains("_service_port_")
        || name.ends_with("_port") && value.contains("://")
        || name.split("_port_").skip(1).any(numbered)
}

fn unknown(segs: &[&str], depth: usize, origin: Origin) -> Problem {
    let fields: Fields = match find(segs[..depth].iter().copied()).map(|field| field.kind) {
        Ok(Kind::Object(fields)) => fields,
        Ok(_) => &[],
        Err(_) => PROCESS,
    };
    let name = segs[depth].to_owned();
    let near = near(fields.iter().map(|field| field.name), &name);
    Problem {
        path: Path(segs.iter().map(|seg| Seg::Key((*seg).into())).collect()),
        origin,
        fault: Fault::Unknown { name, near },
    }
}

/// The value by the type of its field. What does not fit stays text, which the
/// check then refuses.
fn typed(kind: &Kind, text: &str, name: &str) -> Data {
    let word = text.trim();
    let number = |number: Option<Number>| number.map(Data::Number);
    let data = match kind {
        Kind::Bool if word.eq_ignore_ascii_case("true") => Some(Data::Bool(true)),
        Kind::Bool if word.eq_ignore_ascii_case("false") => Some(Data::Bool(false)),
        Kind::Int { .. } => {
            let negative = || word.parse::<i64>().map(Number::from).ok();
            number(word.parse::<u64>().map(Number::from).ok().or_else(negative))
        }
        Kind::Number { .. } => number(word.parse().ok().and_then(Number::from_f64)),
        Kind::List(list) if !list.json => {
            let origin = Origin::Env(Arc::from(name));
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            let item = |item| Node::new(origin.clone(), typed(&list.item, item, name));
            Some(Data::Seq(items.map(item).collect()))
        }
        _ => None,
    };
    data.unwrap_or_else(|| Data::String(text.to_owned()))
}

fn insert(root: &mut Node, segs: &[&str], value: Node) {
    let Some((last, parents)) = segs.split_last() else {
        return;
    };
    let mut node = root;
    for name in parents {
        if node.get(name).is_none_or(Node::is_null) {
            let empty = Node::new(value.origin.clone(), Data::Map(Vec::new()));
            node.set(name, empty);
        }
        match node.get_mut(name) {
            Some(inner) => node = inner,
            // Not a mapping: the check reports it.
            None => return,
        }
    }
    node.set(last, value);
}
