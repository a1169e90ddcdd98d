//! What was: the audit log, the revisions, and the way back; and everything as
//! a file.

use aisix_config::{ConfigState, Document, ExportOptions, KINDS, edit::Editor, export};
use aisix_core::rows::AuditQuery;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::{
    admin::Revisions,
    batch::{self, Members},
    call::Call,
    failure::Failure,
    respond,
    routes::kind_named,
    write::problem,
};

/// How many records are shown when nothing else is asked for.
const DEFAULT_LIMIT: usize = 100;

/// `GET /admin/v1/audit`
pub(crate) async fn audit(editor: &Editor, call: Call) -> Result<Response, Failure> {
    let text = |name| call.query.text(name).map(str::to_owned);
    let kind = call.query.text("kind").and_then(kind_named).map(|kind| kind.name.to_owned());
    let limit = call.query.limit().unwrap_or(DEFAULT_LIMIT);
    let (id, actor, before) = (text("id"), text("actor"), call.query.count("before"));
    // One more tells whether there is another page.
    let mut records = editor.audit(AuditQuery { kind, id, actor, before, limit: limit + 1 }).await?;
    let more = records.len() > limit;
    records.truncate(limit);
    let mut response = respond::json(&records);
    if let Some(last) = records.last().filter(|_| more) {
        let (before, limit) = (last.revision.to_string(), limit.to_string());
        let mut next: Vec<(&str, &str)> = Vec::new();
        for name in ["kind", "id", "actor"] {
            next.extend(call.query.text(name).map(|value| (name, value)));
        }
        next.extend([("before", before.as_str()), ("limit", limit.as_str())]);
        respond::set_next(response.headers_mut(), &call.path, &next);
    }
    respond::set_private(response.headers_mut());
    Ok(response)
}

/// `GET /admin/v1/revisions`
pub(crate) async fn revisions(source: &Revisions, call: Call) -> Result<Response, Failure> {
    let limit = call.query.limit().unwrap_or(DEFAULT_LIMIT);
    match source(limit, call.query.count("before")).await {
        Ok(list) => Ok(respond::json(&list)),
        Err(why) => Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, format!("store error: {why}"))),
    }
}

/// `POST /admin/v1/rollback`
pub(crate) async fn rollback(editor: &Editor, mut call: Call, now: u64) -> Result<Response, Failure> {
    let mut errors = Vec::new();
    let mut members = Members::of(call.body.take(), String::new(), &mut errors);
    let revision = members.number("revision", &mut errors);
    members.end(&mut errors);
    if errors.is_empty() && revision.is_none() {
        errors.push(problem("", "`revision` is missing"));
    }
    let Some(revision) = revision.filter(|_| errors.is_empty()) else {
        return Err(Failure::invalid(errors));
    };
    let (plan, revision) = editor.rollback(revision, &call.actor, call.dry_run()).await?;
    Ok(batch::carried_out(&plan, revision, &call, "rollback", now))
}

/// `GET /admin/v1/export`
pub(crate) fn export_file(state: &ConfigState, editor: Option<&Editor>) -> Response {
    let documents = match editor {
        Some(editor) => editor.documents(),
        None => shown(state),
    };
    let yaml = export(&documents, ExportOptions { reveal_secrets: false }).yaml;
    let mut response =
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/yaml"))], yaml).into_response();
    respond::set_private(response.headers_mut());
    response
}

/// What a file holds, as far as operators may see it.
fn shown(state: &ConfigState) -> Vec<Document> {
    let set = state.current();
    let of = |kind| {
        let views = set.views(kind).into_iter();
        views.map(move |view| Document { kind, id: view.id.to_string(), value: (*view.document).clone() })
    };
    KINDS.iter().copied().flat_map(of).collect()
}
