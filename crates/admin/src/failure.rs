//! Requests that are not carried out, and how that is told.

use aisix_config::{
    edit::{Dependant, EditError, FieldError, Refusal},
    kind_of,
    plan::Plan,
};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;

use crate::respond;

/// Why a request is not carried out.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    text: String,
    errors: Vec<FieldError>,
    dependants: Vec<Dependant>,
    plan: Option<Box<Plan>>,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), errors: Vec::new(), dependants: Vec::new(), plan: None }
    }

    /// The head of the request is not in order.
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// The body is not in order.
    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        Self { errors: errors.clone(), ..Self::of(Refusal::Invalid(errors)) }
    }

    pub(crate) fn not_found() -> Self {
        Self::of(Refusal::NotFound)
    }

    /// A plan after which references would lead nowhere.
    pub(crate) fn broken(plan: Plan) -> Self {
        let title = |kind| kind_of(kind).map_or(kind, |kind| kind.title);
        let told = plan.broken.iter().take(10).map(|broken| {
            let (from, to) = (title(broken.kind), title(broken.target_kind));
            format!("{from} {:?} references unknown {to} {:?} ({})", broken.name, broken.target, broken.path)
        });
        let told: Vec<String> = told.collect();
        let more = plan.broken.len().saturating_sub(told.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let text = format!("nothing was applied: {}{more}", told.join("; "));
        Self { plan: Some(Box::new(plan)), ..Self::new(StatusCode::CONFLICT, text) }
    }

    fn of(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::NotFound | Refusal::NotKept(_) => StatusCode::NOT_FOUND,
            Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
            Refusal::Taken(_) | Refusal::Referenced { .. } => StatusCode::CONFLICT,
            Refusal::Changed => StatusCode::PRECONDITION_FAILED,
            Refusal::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut failure = Self::new(status, refusal.to_string());
        match refusal {
            Refusal::Invalid(errors) => failure.errors = errors,
            Refusal::Referenced { dependants, .. } => failure.dependants = dependants,
            _ => {}
        }
        failure
    }

    /// The failure of one of several changes: `named` tells which, and where
    /// its document is in the body. A store that fails is to blame on none.
    pub(crate) fn of_several(error: EditError, named: impl FnOnce(usize) -> (String, String)) -> Self {
        let nobody =
            matches!(error.refusal, Refusal::Unavailable(_) | Refusal::TooLarge(_) | Refusal::NotKept(_));
        let at = error.at;
        let mut failure = Self::of(error.refusal);
        if !nobody {
            let (name, pointer) = named(at);
            failure.text = format!("{name}: {}", failure.text);
            for error in &mut failure.errors {
                error.path.insert_str(0, &pointer);
            }
        }
        failure
    }
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Self {
        Self::of(error.refusal)
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error_msg: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Field<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dependants: Vec<Referrer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'a Plan>,
}

#[derive(Serialize)]
struct Field<'a> {
    path: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
struct Referrer<'a> {
    kind: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    field: &'a str,
}

impl<'a> From<&'a FieldError> for Field<'a> {
    fn from(FieldError { path, message }: &'a FieldError) -> Self {
        Self { path, message }
    }
}

impl<'a> From<&'a Dependant> for Referrer<'a> {
    fn from(Dependant { kind, id, name, field }: &'a Dependant) -> Self {
        Self { kind: kind.name, id, name: name.as_deref(), field }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = Body {
            error_msg: &self.text,
            errors: self.errors.iter().map(Field::from).collect(),
            dependants: self.dependants.iter().map(Referrer::from).collect(),
            plan: self.plan.as_deref(),
        };
        respond::json_with(self.status, &body)
    }
}
