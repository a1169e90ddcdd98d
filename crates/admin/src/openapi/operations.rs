//! What each operation takes and answers.

use aisix_config::{KINDS, ResourceKind, Role};
use serde_json::{Map, Value, json};

use super::{
    ADMIN_SCHEME, CALLER_SCHEME, array_of,
    kinds::{CREATED_API_KEY, document_name, entry_name, new_name},
    schema_ref,
};
use crate::{
    auth::role_name,
    routes::{Access, Action, CALLER_KEYS, Content, Form, PLAYGROUND_TARGET, Route},
};

const JSON: &str = "application/json";

/// What one action says about itself.
struct About {
    id: String,
    tag: &'static str,
    summary: String,
    /// The schema of the body.
    body: Option<Value>,
    responses: Map<String, Value>,
}

impl About {
    fn new(id: impl Into<String>, tag: &'static str, summary: impl Into<String>) -> Self {
        Self { id: id.into(), tag, summary: summary.into(), body: None, responses: Map::new() }
    }

    fn takes(mut self, schema: Value) -> Self {
        self.body = Some(schema);
        self
    }

    fn answers(mut self, status: u16, response: Value) -> Self {
        self.responses.insert(status.to_string(), response);
        self
    }

    fn answers_json(self, status: u16, about: &str, schema: Value) -> Self {
        self.answers(status, content(about, JSON, schema))
    }

    fn fails(self, status: u16, about: &str) -> Self {
        self.answers_json(status, about, schema_ref("AdminError"))
    }

    /// A header of the answers of a status.
    fn header(mut self, status: u16, name: &str, required: bool, about: &str) -> Self {
        if let Some(response) = self.responses.get_mut(&status.to_string()) {
            let schema = if name == "X-Total-Count" {
                json!({ "type": "integer", "minimum": 0 })
            } else {
                json!({ "type": "string" })
            };
            response["headers"][name] =
                json!({ "description": about, "required": required, "schema": schema });
        }
        self
    }

    /// What can be done with what was created in a collection.
    fn leads_to(mut self, status: u16, collection: &str, verbs: &[&str]) -> Self {
        if let Some(response) = self.responses.get_mut(&status.to_string()) {
            for verb in verbs {
                response["links"][verb] = json!({
                    "operationId": format!("{verb}_{collection}"),
                    "parameters": { "id": "$response.body#/id" },
                });
            }
        }
        self
    }

    fn tagged(self, status: u16) -> Self {
        self.header(status, "ETag", true, "The revision, for `If-Match`.")
    }
}

/// The operation object of a route.
pub(super) fn operation(route: &Route) -> Value {
    let action = route.action;
    let mut about = general(action, about(route));
    let mut operation = json!({
        "operationId": about.id,
        "tags": [about.tag],
        "summary": about.summary,
    });
    match action.access() {
        Access::Open => operation["security"] = json!([]),
        Access::CallerKey => operation["security"] = json!([{ CALLER_SCHEME: [] }]),
        Access::Admin(role) => {
            about = about.fails(401, "The admin key is missing or wrong.");
            operation["description"] = json!(format!("Needs the role `{}`.", role_name(role)));
            operation["security"] = json!([{ ADMIN_SCHEME: [] }]);
            if role > Role::ReadOnly {
                about = about.fails(403, "The role of the admin key is too low.");
            }
        }
    }
    let parameters = parameters(route);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(schema) = about.body {
        let media: &[&str] = match action.content() {
            Content::Patch => &["application/merge-patch+json", JSON],
            _ => &[JSON],
        };
        let content: Map<String, Value> =
            media.iter().map(|media| ((*media).to_owned(), json!({ "schema": schema }))).collect();
        let required = action.content() != Content::Maybe;
        operation["requestBody"] = json!({ "required": required, "content": content });
    }
    about.responses.sort_keys();
    operation["responses"] = about.responses.into();
    operation
}

/// What follows from the table: how requests fail that are not in order.
fn general(action: Action, mut about: About) -> About {
    if action.query().is_some() {
        let what = if action.writes() {
            "The query, the headers or the body are not in order."
        } else {
            "The query is not in order."
        };
        about = about.fails(400, what);
    }
    if action.conditional() {
        about = about.fails(412, "The resource was changed meanwhile.");
    }
    if action.content() != Content::None {
        about = about.fails(413, "The body, or what it writes, is too large.");
    }
    if action.content() != Content::None && action.writes() {
        about = about.fails(415, "The body is said to be something else.");
    }
    if action.writes() {
        about = about.fails(503, "The store cannot be written.");
        for status in [200, 201] {
            about = about.header(status, "x-aisix-dry-run", false, "`true`: nothing was written.");
        }
    }
    about
}

fn parameters(route: &Route) -> Vec<Value> {
    let action = route.action;
    let mut parameters = Vec::new();
    if route.path.contains("{id}") {
        parameters.push(json!({
            "name": "id", "in": "path", "required": true,
            "description": "The id as shown in the list.",
            "schema": { "type": "string", "minLength": 1 },
        }));
    }
    if action.conditional() {
        parameters.push(json!({
            "name": "If-Match", "in": "header", "required": false,
            "description": "Entity tags of the revisions that the resource may have, or `*`.",
            "schema": { "type": "string", "pattern": r#"^(\*|"[0-9]{1,19}"(, "[0-9]{1,19}"){0,15})$"# },
        }));
    }
    if matches!(action, Action::Livez | Action::Readyz) {
        parameters.push(json!({
            "name": "verbose", "in": "query", "required": false,
            "description": "With any value, or none: one line a check.",
            "schema": { "type": "string" }, "allowEmptyValue": true,
        }));
    }
    for param in action.query().unwrap_or_default() {
        let schema = match param.form {
            Form::Text => json!({ "type": "string" }),
            Form::Kind => {
                json!({ "type": "string", "enum": KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>() })
            }
            Form::Flag { default } => json!({ "type": "boolean", "default": default }),
            Form::Count { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        };
        parameters.push(json!({
            "name": param.name, "in": "query", "required": false,
            "description": param.about, "schema": schema,
        }));
    }
    parameters
}

fn about(route: &Route) -> About {
    match route.action {
        Action::Livez => probe("livez", "Whether the process lives and is not shutting down.", 500),
        Action::Readyz => {
            probe("readyz", "Whether a configuration is applied and the process is not draining.", 503)
        }
        Action::OpenApi => About::new("openapi", "description", "This document.").answers_json(
            200,
            "The OpenAPI document.",
            json!({ "type": "object" }),
        ),
        Action::Viewer => {
            let summary = "A page that shows this document. It needs no network beyond this listener.";
            let page = content("The page.", "text/html", json!({ "type": "string" }));
            About::new("viewer", "description", summary).answers(200, page)
        }
        Action::Playground => playground(),
        Action::Health => {
            let summary = "Health level of every model, counted on real traffic, and how current the \
                           configuration is. Answered from memory.";
            About::new("health", "health", summary).answers_json(
                200,
                "The levels.",
                schema_ref("HealthResponse"),
            )
        }
        Action::ModelsStatus => About::new(
            "modelsStatus",
            "health",
            "Whether each model is cooling down, and why.",
        )
        .answers_json(200, "One object a model.", array_of("ModelStatusView")),
        Action::List(kind)
        | Action::Get(kind)
        | Action::Create(kind)
        | Action::Replace(kind)
        | Action::Patch(kind)
        | Action::Delete(kind) => of_kind(route, kind),
        Action::Rotate => rotate(route),
        Action::Batch
        | Action::Apply
        | Action::Export
        | Action::Audit
        | Action::Revisions
        | Action::Rollback => of_store(route.action),
    }
}

fn probe(id: &str, summary: &str, failing: u16) -> About {
    let text = json!({ "type": "string" });
    About::new(id, "probes", summary)
        .answers(200, content("It does.", "text/plain", text.clone()))
        .answers(failing, content("It does not; one line a check.", "text/plain", text))
}

fn of_kind(route: &Route, kind: &'static ResourceKind) -> About {
    let mut segments = route.path.split('/').skip(3);
    let collection = segments.next().unwrap_or_default();
    let about = |verb: &str, summary: String| About::new(format!("{verb}_{collection}"), kind.name, summary);
    let title = kind.title;
    let document = || schema_ref(&document_name(kind));
    let entry = || schema_ref(&entry_name(kind));
    let missing = "Nothing has this id.";
    let taken = "The name is taken, or resources refer to a name that would be gone.";
    match route.action {
        Action::List(_) => about("list", format!("Every {title}, ordered by id."))
            .answers_json(200, "The entries.", array_of(&entry_name(kind)))
            .header(200, "X-Total-Count", true, "How many there are, on all pages.")
            .header(200, "Link", false, "The next page, if there is one (`rel=\"next\"`)."),
        Action::Get(_) => about("get", format!("One {title}."))
            .answers_json(200, "The entry.", entry())
            .tagged(200)
            .fails(404, missing),
        Action::Create(_) => {
            let (made, more) = if kind.name == CALLER_KEYS {
                (schema_ref(CREATED_API_KEY), &["rotate"][..])
            } else {
                (entry(), &[][..])
            };
            about("create", format!("Adds a {title}; the server chooses the id."))
                .takes(schema_ref(&new_name(kind)))
                .answers_json(201, "The new entry.", made)
                .tagged(201)
                .header(201, "Location", true, "Where it is.")
                .leads_to(201, collection, &["get", "replace", "patch", "delete"])
                .leads_to(201, collection, more)
                .fails(409, "The name is taken.")
        }
        Action::Replace(_) => about("replace", format!("Replaces a {title}: fields left out are gone."))
            .takes(document())
            .answers_json(200, "The entry as it is now.", entry())
            .tagged(200)
            .fails(404, missing)
            .fails(409, taken),
        Action::Patch(_) => about("patch", format!("Changes fields of a {title} (RFC 7396)."))
            .takes(json!({ "type": "object", "description": "`null` removes a field." }))
            .answers_json(200, "The entry as it is now.", entry())
            .tagged(200)
            .fails(404, missing)
            .fails(409, taken),
        _ => about("delete", format!("Removes a {title} that no other resource refers to."))
            .answers_json(200, "It is gone.", schema_ref("Deleted"))
            .fails(404, missing)
            .fails(409, "Other resources refer to it."),
    }
}

fn rotate(route: &Route) -> About {
    let collection = route.path.split('/').nth(3).unwrap_or_default();
    let summary = "Gives a caller key a new secret. During the grace time the old one works too.";
    About::new(format!("rotate_{collection}"), CALLER_KEYS, summary)
        .takes(schema_ref("RotationRequest"))
        .answers_json(200, "The key and its secret, which is shown this once.", schema_ref("RotatedApiKey"))
        .tagged(200)
        .fails(404, "Nothing has this id.")
        .fails(409, "The secret is taken.")
}

/// What concerns all kinds at once.
fn of_store(action: Action) -> About {
    let results = || schema_ref("ChangeResults");
    let next = "The next page, if there is one (`rel=\"next\"`).";
    match action {
        Action::Batch => About::new("batch", "store", "Makes several changes, all or none of them.")
            .takes(schema_ref("BatchRequest"))
            .answers_json(200, "What became of each.", results())
            .fails(404, "An operation names a resource that is not there.")
            .fails(409, "A name is taken, or a resource that others refer to would be gone.")
            .fails(412, "A resource was changed meanwhile."),
        Action::Apply => About::new("apply", "store", "Makes the store hold these documents, in one step.")
            .takes(schema_ref("ApplyRequest"))
            .answers_json(200, "What has changed, or would.", schema_ref("AppliedPlan"))
            .fails(404, "A resource went away meanwhile.")
            .fails(409, "References would lead nowhere."),
        Action::Export => {
            let yaml = content("The file.", "application/yaml", json!({ "type": "object" }));
            let summary = "Every resource as a resources file; variables stand for secrets.";
            About::new("export", "store", summary).answers(200, yaml)
        }
        Action::Audit => About::new("audit", "store", "Who changed what, newest first.")
            .answers_json(200, "The records.", array_of("AuditRecord"))
            .header(200, "Link", false, next)
            .fails(503, "The store cannot be read."),
        Action::Revisions => About::new("revisions", "store", "The revisions of the store, newest first.")
            .answers_json(200, "The revisions.", array_of("Revision"))
            .fails(503, "The store cannot be read."),
        _ => About::new("rollback", "store", "Brings back what the store held at a revision.")
            .takes(schema_ref("RollbackRequest"))
            .answers_json(200, "What has changed, or would.", schema_ref("AppliedPlan"))
            .fails(404, "The store does not keep this revision."),
    }
}

fn playground() -> About {
    let object = json!({ "type": "object" });
    let mut request = object.clone();
    request["examples"] =
        json!([{ "model": "my-model", "messages": [{ "role": "user", "content": "Hello" }] }]);
    let summary = format!(
        "Sends a chat completion through the gateway, as `POST {PLAYGROUND_TARGET}` on the proxy listener \
         would: same keys, limits, headers and errors."
    );
    let mut about = About::new("playground", "playground", summary).takes(request).answers(
        200,
        json!({
            "description": "The completion, or its events when `stream` is true.",
            "content": {
                JSON: { "schema": object },
                "text/event-stream": { "schema": { "type": "string" } },
            },
        }),
    );
    let failure = content("An error in the envelope of the proxy.", JSON, object);
    about.responses.insert("default".to_owned(), failure);
    about
}

fn content(description: &str, media_type: &str, schema: Value) -> Value {
    json!({ "description": description, "content": { media_type: { "schema": schema } } })
}
