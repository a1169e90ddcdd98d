//! Several changes at once: made together, or none of them.

use std::collections::{BTreeMap, BTreeSet};

use aisix_config::{
    Document, ResourceKind,
    edit::{EditError, Editor, FieldError, Operation, Request},
    plan::{self, Plan},
};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    call::Call,
    failure::Failure,
    respond::{self, Made},
    routes::{CALLER_KEYS, kind_named},
    write::{problem, settle},
};

/// The longest id that a client may choose.
const MAX_ID: usize = 128;
/// The longest id that documents of another store may bring.
const MAX_FOREIGN_ID: usize = 1024;

/// What became of several changes.
#[derive(Serialize)]
pub(crate) struct Results<'a> {
    pub(crate) revision: u64,
    pub(crate) results: Vec<Made<'a>>,
}

/// `POST /admin/v1/batch`
pub(crate) async fn batch(editor: &Editor, mut call: Call, now: u64) -> Result<Response, Failure> {
    let requests = operations(call.body.take())?;
    let outcome = editor.run(&requests, &call.actor, "batch", call.dry_run()).await;
    let mut outcome = outcome.map_err(|error| {
        Failure::of_several(error, |at| (format!("operations[{at}]"), format!("/operations/{at}/value")))
    })?;
    settle(&mut outcome, &call, "batch");
    let revision = made(outcome.revision, &call, now);
    let mut response =
        respond::json(&Results { revision, results: outcome.done.iter().map(Made::from).collect() });
    respond::set_private(response.headers_mut());
    Ok(response)
}

/// The revision that answers tell: where nothing had to be written, the one in
/// force.
pub(crate) fn made(revision: u64, call: &Call, now: u64) -> u64 {
    if revision == 0 && !call.dry_run() { now } else { revision }
}

fn operations(body: Value) -> Result<Vec<Request>, Failure> {
    let mut errors = Vec::new();
    let mut body = Members::of(body, String::new(), &mut errors);
    let mut requests = Vec::new();
    for (at, value) in body.list("operations", &mut errors).into_iter().enumerate() {
        let members = Members::of(value, format!("/operations/{at}"), &mut errors);
        requests.extend(request(members, &mut errors));
    }
    body.end(&mut errors);
    if errors.is_empty() { Ok(requests) } else { Err(Failure::invalid(errors)) }
}

fn request(mut members: Members, errors: &mut Vec<FieldError>) -> Option<Request> {
    let before = errors.len();
    let op = members.text("op", errors);
    let kind = members.kind(errors);
    let operation = match op.as_deref() {
        Some("create") => {
            let id = members.id(errors);
            let value = members.value(errors);
            let reserved = id.as_deref() == Some("status") && kind.is_some_and(|kind| kind.name == "models");
            if let Some(id) = &id
                && (!good_id(id) || reserved)
            {
                let rule = format!("must be 1 to {MAX_ID} letters, digits, `.`, `_` and `-`");
                errors
                    .push(problem(members.at("id"), if reserved { "is reserved".to_owned() } else { rule }));
            }
            kind.zip(value).map(|(kind, value)| Operation::Create { kind, id, value })
        }
        Some("replace") => {
            let id = members.text("id", errors);
            let value = members.value(errors);
            both(kind, id, value).map(|(kind, id, value)| Operation::Replace { kind, id, value })
        }
        Some("patch") => {
            let id = members.text("id", errors);
            let value = members.value(errors);
            both(kind, id, value).map(|(kind, id, patch)| Operation::Patch { kind, id, patch })
        }
        Some("delete") => {
            let id = members.text("id", errors);
            kind.zip(id).map(|(kind, id)| Operation::Delete { kind, id })
        }
        Some(_) => {
            errors
                .push(problem(members.at("op"), "must be \"create\", \"replace\", \"patch\" or \"delete\""));
            return None;
        }
        None => return None,
    };
    let creates = matches!(operation, Some(Operation::Create { .. }));
    let if_match = if creates { None } else { members.number("if_match", errors) };
    members.end(errors);
    if errors.len() > before { None } else { operation.map(|operation| Request { operation, if_match }) }
}

fn both(
    kind: Option<&'static ResourceKind>,
    id: Option<String>,
    value: Option<Value>,
) -> Option<(&'static ResourceKind, String, Value)> {
    Some((kind?, id?, value?))
}

fn good_id(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(fits) && !matches!(id, "." | "..")
}

#[derive(Serialize)]
struct Applied<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
}

/// `POST /admin/v1/apply`
pub(crate) async fn apply(editor: &Editor, mut call: Call, now: u64) -> Result<Response, Failure> {
    let documents = documents(call.body.take())?;
    let prune = call.query.flag("prune", true);
    let outcome = editor.apply(&documents, prune, &call.actor, call.dry_run()).await;
    let (plan, revision) = outcome.map_err(|error| blamed(editor, &documents, prune, error))?;
    if !call.dry_run() && !plan.broken.is_empty() {
        return Err(Failure::broken(plan));
    }
    Ok(carried_out(&plan, revision, &call, "apply", now))
}

/// Says what a plan has changed, or in a dry run would change.
pub(crate) fn carried_out(plan: &Plan, revision: u64, call: &Call, action: &str, now: u64) -> Response {
    if call.dry_run() {
        return respond::json(&Applied { plan, revision: None });
    }
    if revision > 0 {
        tracing::info!(actor = call.actor.name, action, revision, "configuration changed");
    }
    respond::json(&Applied { plan, revision: Some(made(revision, call, now)) })
}

/// Finds out which of the documents is not in order: the error counts the
/// changes of the plan.
fn blamed(editor: &Editor, documents: &[Document], prune: bool, error: EditError) -> Failure {
    let plan = plan::plan(&editor.documents(), documents, prune);
    Failure::of_several(error, |at| {
        let Some(planned) = plan.changes.get(at) else { return ("the plan".to_owned(), String::new()) };
        let same = |document: &Document| {
            let name = document.identity().unwrap_or_else(|| document.id.clone());
            document.kind.name == planned.kind && name == planned.name
        };
        let pointer = documents.iter().position(same).map(|at| format!("/documents/{at}/value"));
        let title = kind_named(planned.kind).map_or(planned.kind, |kind| kind.title);
        (format!("{title} {:?}", planned.name), pointer.unwrap_or_default())
    })
}

fn documents(body: Value) -> Result<Vec<Document>, Failure> {
    let mut errors = Vec::new();
    let mut body = Members::of(body, String::new(), &mut errors);
    let mut documents = Vec::new();
    for (at, value) in body.list("documents", &mut errors).into_iter().enumerate() {
        let mut members = Members::of(value, format!("/documents/{at}"), &mut errors);
        let kind = members.kind(&mut errors);
        let id = members.text("id", &mut errors);
        let value = members.value(&mut errors);
        let good = |id: &String| {
            (1..=MAX_FOREIGN_ID).contains(&id.chars().count()) && !id.contains(char::is_control)
        };
        if id.as_ref().is_some_and(|id| !good(id)) {
            let rule = format!("must have 1 to {MAX_FOREIGN_ID} characters and no control character");
            errors.push(problem(members.at("id"), rule));
        }
        members.end(&mut errors);
        if let Some((kind, id, value)) = both(kind, id, value) {
            // A secret that the server makes would be shown to nobody.
            if kind.name == CALLER_KEYS && value["key_hash"].is_null() {
                errors.push(problem(format!("/documents/{at}/value"), "`key_hash` is missing"));
            }
            documents.push(Document { kind, id, value });
        }
    }
    body.end(&mut errors);
    if errors.is_empty() {
        errors.extend(twice(&documents));
    }
    if errors.is_empty() { Ok(documents) } else { Err(Failure::invalid(errors)) }
}

/// Which of two of the same would win is nobody's guess.
fn twice(documents: &[Document]) -> Vec<FieldError> {
    let mut ids = BTreeSet::new();
    let mut names = BTreeMap::new();
    let mut errors = Vec::new();
    for (at, document) in documents.iter().enumerate() {
        if !ids.insert((document.kind.name, &document.id)) {
            errors.push(problem(format!("/documents/{at}/id"), "is the id of an earlier document too"));
        }
        if let Some(name) = document.identity()
            && names.insert((document.kind.name, name), at).is_some()
        {
            errors.push(problem(format!("/documents/{at}/value"), "has the name of an earlier document"));
        }
    }
    errors
}

/// The members of an object, each taken once.
pub(crate) struct Members {
    path: String,
    /// `None` when it is no object, which is told already.
    members: Option<Map<String, Value>>,
}

impl Members {
    pub(crate) fn of(value: Value, path: String, errors: &mut Vec<FieldError>) -> Self {
        let members = match value {
            Value::Object(members) => Some(members),
            _ => {
                errors.push(problem(path.clone(), "must be an object"));
                None
            }
        };
        Self { path, members }
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// A member; one that is missing is told.
    fn take(&mut self, name: &str, errors: &mut Vec<FieldError>) -> Option<Value> {
        let members = self.members.as_mut()?;
        let value = members.remove(name);
        if value.is_none() {
            errors.push(problem(self.path.clone(), format!("`{name}` is missing")));
        }
        value
    }

    fn text(&mut self, name: &str, errors: &mut Vec<FieldError>) -> Option<String> {
        match self.take(name, errors)? {
            Value::String(text) => Some(text),
            _ => {
                errors.push(problem(self.at(name), "must be a string"));
                None
            }
        }
    }

    /// The id that a client may choose.
    fn id(&mut self, errors: &mut Vec<FieldError>) -> Option<String> {
        if !self.members.as_ref()?.contains_key("id") {
            return None;
        }
        self.text("id", errors)
    }

    fn kind(&mut self, errors: &mut Vec<FieldError>) -> Option<&'static ResourceKind> {
        let name = self.text("kind", errors)?;
        let kind = kind_named(&name);
        if kind.is_none() {
            errors.push(problem(self.at("kind"), "must be a collection"));
        }
        kind
    }

    fn value(&mut self, errors: &mut Vec<FieldError>) -> Option<Value> {
        let value = self.take("value", errors)?;
        if !value.is_object() {
            errors.push(problem(self.at("value"), "must be an object"));
            return None;
        }
        Some(value)
    }

    fn list(&mut self, name: &str, errors: &mut Vec<FieldError>) -> Vec<Value> {
        match self.take(name, errors) {
            Some(Value::Array(items)) => items,
            Some(_) => {
                errors.push(problem(self.at(name), "must be a list"));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// A whole number that may be missing.
    pub(crate) fn number(&mut self, name: &str, errors: &mut Vec<FieldError>) -> Option<u64> {
        let value = self.members.as_mut()?.remove(name)?;
        let number = value.as_u64();
        if number.is_none() {
            errors.push(problem(self.at(name), "must be a whole number, not below 0"));
        }
        number
    }

    /// Whatever was not taken is not known.
    pub(crate) fn end(self, errors: &mut Vec<FieldError>) {
        for name in self.members.into_iter().flatten().map(|(name, _)| name) {
            errors.push(problem(self.path.clone(), format!("`{name}` is not known")));
        }
    }
}
