//! The entries of one collection on their way from the file to typed resources.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::interpolate::fill;
use super::{Env, ErrorKind, Rejection, hex, line_suffix};
use crate::resource::{Kind, ProviderKey, Stored, derived_id};
use crate::schema::{self, Fault, Path, Problem};
use crate::tree::{Data, Node, Origin};

/// The field that names an entry, in every collection that is built.
const IDENTITY: &str = "display_name";

/// The most names that a message lists.
const MAX_LISTED: usize = 30;

const UNKNOWN_ID: &str = "`provider_key_id` references unknown provider key: it must be the id \
                          made from a name of this file; write `provider_key: <display_name>`";

/// One entry and what was found wrong with it so far.
pub(super) struct Entry {
    index: usize,
    node: Node,
    identity: Option<String>,
    /// Texts that could not be filled in: nothing more is said about them.
    unfilled: Vec<Path>,
    faults: Vec<(ErrorKind, String)>,
    /// The credential, once known to be well-formed.
    key_hash: Option<String>,
}

/// One collection.
pub(super) struct Collection<K> {
    pub(super) entries: Vec<Entry>,
    kind: PhantomData<K>,
}

/// The names of a collection, for references to it.
pub(super) struct Names {
    kind: &'static str,
    /// In the order of the file, for messages.
    listed: Vec<String>,
    known: HashSet<String>,
    ids: OnceCell<HashSet<String>>,
    /// An entry has no usable name, so an unknown name may well be its.
    open: bool,
}

impl<K: Kind> Collection<K> {
    /// Fills in the environment and finds the names.
    pub(super) fn open(nodes: Vec<Node>, env: Env<'_>) -> Self {
        let entries = nodes.into_iter().enumerate();
        let mut entries: Vec<_> = entries.map(|(i, node)| Entry::open(i, node, env)).collect();
        let mut seen: HashMap<String, usize> = HashMap::new();
        for entry in &mut entries {
            let Some(identity) = entry.identity.clone() else {
                continue;
            };
            if let Some(first) = seen.get(&identity) {
                let kind = K::NAME;
                entry.fault(format!(
                    "duplicate {kind} entry: {IDENTITY} {identity:?} is already defined at \
                     {kind}[{first}]"
                ));
            } else {
                seen.insert(identity, entry.index);
            }
        }
        Self { entries, kind: PhantomData }
    }

    pub(super) fn names(&self) -> Names {
        let names = self.entries.iter().filter_map(|e| e.identity.clone());
        let known: HashSet<String> = names.clone().collect();
        Names {
            kind: K::NAME,
            listed: names.take(MAX_LISTED).collect(),
            known,
            ids: OnceCell::new(),
            open: self.entries.iter().any(|entry| entry.identity.is_none()),
        }
    }

    /// Checks and types every entry; `more` adds faults of its own.
    pub(super) fn check(&mut self, more: impl Fn(&mut Entry, &Value)) -> Vec<Stored<K>> {
        let mut stored = Vec::new();
        for entry in &mut self.entries {
            if entry.node.as_map().is_none() {
                continue;
            }
            let document = entry.check::<K>();
            more(entry, &document);
            let (true, Some(identity)) = (entry.faults.is_empty(), &entry.identity) else {
                continue;
            };
            match K::store(identity, document) {
                Ok(resource) => stored.push(resource),
                // The text of the error could quote the document.
                Err(_) => entry.faults.push((
                    ErrorKind::Parse,
                    "cannot decode canonical document: a field has an unexpected form".into(),
                )),
            }
        }
        stored
    }

    /// Two keys must not have the same secret.
    pub(super) fn unique_credentials(&mut self) {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for entry in &mut self.entries {
            let Some(hash) = entry.key_hash.clone() else {
                continue;
            };
            if let Some(first) = seen.get(&hash) {
                let first = format!("{}[{first}]", K::NAME);
                entry.fault(format!("duplicate api key credential: the same key as {first}"));
            } else {
                seen.insert(hash, entry.index);
            }
        }
    }

    /// One rejection per entry with faults.
    pub(super) fn rejections(self) -> impl Iterator<Item = Rejection> {
        let faulty = self.entries.into_iter().filter(|e| !e.faults.is_empty());
        faulty.map(|entry| entry.rejection(K::NAME))
    }
}

impl Entry {
    fn open(index: usize, mut node: Node, env: Env<'_>) -> Self {
        let failed = fill(&mut node, env);
        let (unfilled, reasons): (Vec<_>, Vec<_>) = failed.into_iter().unzip();
        let faults = reasons.into_iter().map(|why| (ErrorKind::Schema, why));
        let mut entry =
            Self { index, identity: None, unfilled, faults: faults.collect(), key_hash: None, node };
        if entry.node.as_map().is_none() {
            entry.fault("entry must be a mapping".into());
        } else if !entry.is_unfilled(IDENTITY) {
            let name = entry.node.get(IDENTITY).and_then(Node::as_str);
            entry.identity = name.filter(|name| !name.is_empty()).map(str::to_owned);
            if entry.identity.is_none() {
                entry.fault(format!("{IDENTITY} is required and must be a non-empty string"));
            }
        }
        if entry.node.take("id").is_some() {
            let why = "the resources file does not accept `id` (ids are made from names)";
            entry.fault(why.into());
        }
        entry
    }

    fn fault(&mut self, why: String) {
        self.faults.push((ErrorKind::Schema, why));
    }

    fn is_unfilled(&self, field: &str) -> bool {
        self.unfilled.contains(&Path::of(field))
    }

    /// `provider_key: <name>` becomes `provider_key_id`.
    pub(super) fn provider_key(&mut self, keys: &Names) {
        let unfilled = self.is_unfilled("provider_key");
        let explicit = self.node.get("provider_key_id").map(|node| node.as_str().map(str::to_owned));
        match (self.node.take("provider_key"), explicit) {
            (Some(_), Some(_)) => {
                self.fault("`provider_key` and `provider_key_id` are mutually exclusive".into());
            }
            (Some(node), None) => {
                let name = node.as_str().filter(|name| !name.is_empty());
                match name {
                    _ if unfilled => {}
                    None => self.fault("`provider_key` must be the name of a provider key".into()),
                    Some(name) => {
                        if let Some(why) = keys.unknown(name) {
                            self.fault(format!("`provider_key` references {why}"));
                        }
                    }
                }
                let id = derived_id(ProviderKey::NAME, name.unwrap_or_default());
                let id = Node::new(node.origin.clone(), Data::String(id));
                self.node.set("provider_key_id", id);
            }
            (None, Some(Some(id))) if !self.is_unfilled("provider_key_id") => {
                // The schema speaks about an empty id.
                let known = id.is_empty() || keys.open || keys.has_id(&id);
                if !known {
                    self.fault(UNKNOWN_ID.into());
                }
            }
            _ => {}
        }
    }

    /// `key_env: <variable>` becomes `key_hash`.
    pub(super) fn key_env(&mut self, env: Env<'_>) {
        let unfilled = self.is_unfilled("key_env");
        let hash = self.node.get("key_hash").is_some_and(|node| !node.is_null());
        let Some(node) = self.node.take("key_env").filter(|node| !node.is_null()) else {
            if !hash && self.node.as_map().is_some() {
                self.fault("`key_env` or `key_hash` is required".into());
            }
            return;
        };
        if hash {
            self.fault("`key_env` and `key_hash` are mutually exclusive".into());
            return;
        }
        let digest = match node.as_str() {
            _ if unfilled => None,
            None | Some("") => {
                self.fault("`key_env` must be the name of an environment variable".into());
                None
            }
            Some(name) => match env(name).filter(|value| !value.is_empty()) {
                None => {
                    let shown = shown(name);
                    self.fault(format!("field `key_env`: {shown} is unset or empty"));
                    None
                }
                Some(value) if value.contains("${") => {
                    let shown = shown(name);
                    self.fault(format!("field `key_env`: {shown} holds an uninterpolated `${{`"));
                    None
                }
                Some(value) => Some(hex(&Sha256::digest(value.as_bytes()))),
            },
        };
        // A missing hash has been explained; the schema need not ask for it.
        self.unfilled.extend(digest.is_none().then(|| Path::of("key_hash")));
        let digest = Data::String(digest.unwrap_or_default());
        self.node.set("key_hash", Node::new(node.origin, digest));
    }

    fn check<K: Kind>(&mut self) -> Value {
        let (document, mut problems) = schema::check(K::TABLE, &self.node, K::NULLS);
        K::rules(&self.node, &document, &mut problems);
        problems.retain(|problem| !self.explained(problem));
        for problem in &problems {
            let error = match problem.fault {
                Fault::Decode(_) => ErrorKind::Parse,
                _ => ErrorKind::Schema,
            };
            let mut text = problem.resource_text();
            if problem.origin != self.node.origin {
                text.push_str(&line_suffix(&problem.origin));
            }
            self.faults.push((error, text));
        }
        let hash = document["key_hash"].as_str().filter(|hash| hash.len() == 64);
        self.key_hash = hash.map(str::to_owned);
        document
    }

    /// Whether an earlier stage has said it.
    fn explained(&self, problem: &Problem) -> bool {
        let field = problem.path.0.first();
        let identity = field == Path::of(IDENTITY).0.first() && self.identity.is_none();
        let missing = match problem.fault {
            Fault::Required(name) => problem.path.0.is_empty() && (name == IDENTITY || name == "key_hash"),
            _ => false,
        };
        identity || missing || self.unfilled.contains(&problem.path)
    }

    /// Every plain name that a key allows must be a model.
    pub(super) fn known_models(&mut self, document: &Value, models: &Names) {
        let allowed = document["allowed_models"].as_array();
        for (index, name) in allowed.into_iter().flatten().enumerate() {
            let path = format!("allowed_models[{index}]");
            let unfilled = self.unfilled.iter().any(|unfilled| unfilled.dotted() == path);
            if let Some(name) = name.as_str()
                && !name.contains('*')
                && !unfilled
                && let Some(why) = models.unknown(name)
            {
                self.fault(format!("`{path}` references {why}"));
            }
        }
    }

    fn rejection(self, kind: &'static str) -> Rejection {
        let parse_only = self.faults.iter().all(|(kind, _)| *kind == ErrorKind::Parse);
        let messages: Vec<_> = self.faults.into_iter().map(|(_, why)| why).collect();
        let mut scope = format!("{kind}[{}]", self.index);
        if let Some(identity) = &self.identity {
            scope.push_str(&format!(" ({identity:?})"));
        }
        if let Origin::Line(line) = self.node.origin {
            scope.push_str(&format!(" at line {line}"));
        }
        Rejection {
            kind,
            id: self.identity.unwrap_or_default(),
            error: if parse_only { ErrorKind::Parse } else { ErrorKind::Schema },
            scope,
            message: messages.join("; "),
        }
    }
}

impl Names {
    /// Whether an id is made from one of these names.
    fn has_id(&self, id: &str) -> bool {
        let made = || self.known.iter().map(|name| derived_id(self.kind, name));
        self.ids.get_or_init(|| made().collect()).contains(id)
    }

    /// Why a name is not among these, for a message.
    fn unknown(&self, name: &str) -> Option<String> {
        if self.open || self.known.contains(name) {
            return None;
        }
        let kind = self.kind;
        let what = kind.trim_end_matches('s').replace('_', " ");
        let defined = match self.listed.join(", ") {
            listed if listed.is_empty() => format!("no {kind} are defined in this file"),
            listed if self.known.len() > self.listed.len() => {
                format!("defined {kind}: {listed}, ...")
            }
            listed => format!("defined {kind}: {listed}"),
        };
        Some(format!("unknown {what} {name:?} ({defined})"))
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
