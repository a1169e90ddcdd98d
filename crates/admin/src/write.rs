//! Changes of single resources.

use std::time::Duration;

use aisix_config::{
    ResourceKind,
    edit::{Done, EditError, Editor, FieldError, Operation, Outcome, Refusal, Request},
};
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde_json::Value;

use crate::{
    batch::Members,
    call::{Call, Precondition},
    failure::Failure,
    respond::{self, Entry, Made},
};

/// `POST` on a collection.
pub(crate) async fn create(
    editor: &Editor,
    kind: &'static ResourceKind,
    mut call: Call,
) -> Result<Response, Failure> {
    let value = call.body.take();
    let done = one(editor, &call, Operation::Create { kind, id: None, value }).await?;
    let mut response = respond::json_with(StatusCode::CREATED, &Made::from(&done));
    tag(response.headers_mut(), &done);
    if let Done::Written { id, .. } = &done {
        let location = format!("{}/{}", call.path, respond::encoded(id));
        respond::set(response.headers_mut(), header::LOCATION, &location);
    }
    Ok(response)
}

/// `PUT`, `PATCH` and `DELETE` on a resource.
pub(crate) async fn change(
    editor: &Editor,
    call: Call,
    operation: impl FnOnce(String, Value) -> Operation,
) -> Result<Response, Failure> {
    let mut call = call;
    let value = call.body.take();
    let operation = operation(call.id()?.to_owned(), value);
    let done = one(editor, &call, operation).await?;
    let mut response = respond::json(&Made::from(&done));
    tag(response.headers_mut(), &done);
    Ok(response)
}

#[derive(Serialize)]
struct Rotated<'a> {
    entry: Entry<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<&'a str>,
}

/// A new secret for a caller key.
pub(crate) async fn rotate(editor: &Editor, mut call: Call) -> Result<Response, Failure> {
    let grace = grace(call.body.take())?;
    let operation = Operation::Rotate { id: call.id()?.to_owned(), grace };
    let done = one(editor, &call, operation).await?;
    let Done::Written { id, document, revision, plaintext, .. } = &done else {
        return Err(Failure::not_found());
    };
    let entry = Entry { id, value: document, revision: *revision, plaintext: None };
    let mut response = respond::json(&Rotated { entry, plaintext: plaintext.as_deref() });
    tag(response.headers_mut(), &done);
    Ok(response)
}

fn grace(body: Value) -> Result<Duration, Failure> {
    if body.is_null() {
        return Ok(Duration::ZERO);
    }
    let mut errors = Vec::new();
    let mut members = Members::of(body, String::new(), &mut errors);
    let grace = members.number("grace_seconds", &mut errors);
    members.end(&mut errors);
    if errors.is_empty() {
        Ok(Duration::from_secs(grace.unwrap_or(0)))
    } else {
        Err(Failure::invalid(errors))
    }
}

/// Makes one change.
async fn one(editor: &Editor, call: &Call, operation: Operation) -> Result<Done, Failure> {
    let action = operation.name();
    let expected: Vec<Option<u64>> = match &call.precondition {
        Precondition::None => vec![None],
        // No resource has this revision: one that is not there is told first.
        Precondition::OneOf(revisions) if revisions.is_empty() => vec![Some(u64::MAX)],
        Precondition::OneOf(revisions) => revisions.iter().copied().map(Some).collect(),
    };
    let mut changed = EditError { at: 0, refusal: Refusal::Changed };
    for if_match in expected {
        let request = Request { operation: operation.clone(), if_match };
        match editor.run(&[request], &call.actor, action, call.dry_run()).await {
            Ok(mut outcome) => {
                settle(&mut outcome, call, action);
                return outcome.done.pop().ok_or_else(Failure::not_found);
            }
            Err(error) if error.refusal == Refusal::Changed => changed = error,
            Err(error) => return Err(error.into()),
        }
    }
    Err(changed.into())
}

/// Notes a change in the log. A secret that would be made is not the one that
/// will be: a dry run shows none.
pub(crate) fn settle(outcome: &mut Outcome, call: &Call, action: &str) {
    if call.dry_run() {
        for done in &mut outcome.done {
            if let Done::Written { plaintext, .. } = done {
                *plaintext = None;
            }
        }
    } else if outcome.revision > 0 {
        tracing::info!(actor = call.actor.name, action, revision = outcome.revision, "configuration changed");
    }
}

fn tag(headers: &mut HeaderMap, done: &Done) {
    if let Done::Written { revision, plaintext, .. } = done {
        respond::set_tag(headers, *revision);
        if plaintext.is_some() {
            respond::set_private(headers);
        }
    }
}

/// A problem of a body.
pub(crate) fn problem(path: impl Into<String>, message: impl Into<String>) -> FieldError {
    FieldError { path: path.into(), message: message.into() }
}
