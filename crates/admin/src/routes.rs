//! The table of everything the admin listener serves. The router, the reading
//! of requests and the OpenAPI document are all made from it.

use aisix_config::{KINDS, ResourceKind, Role, kind_of};
use http::Method;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody.
    Open,
    /// Holders of an admin key of this role or a higher one.
    Admin(Role),
    /// Callers of the gateway; the proxy decides.
    CallerKey,
}

/// What a route does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    Livez,
    Readyz,
    OpenApi,
    Viewer,
    Playground,
    Health,
    ModelsStatus,
    List(&'static ResourceKind),
    Get(&'static ResourceKind),
    Create(&'static ResourceKind),
    Replace(&'static ResourceKind),
    Patch(&'static ResourceKind),
    Delete(&'static ResourceKind),
    Rotate,
    Batch,
    Apply,
    Export,
    Audit,
    Revisions,
    Rollback,
}

/// What a request carries besides its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A body is not looked at.
    None,
    /// JSON.
    Json,
    /// JSON, or a JSON merge patch.
    Patch,
    /// JSON or nothing.
    Maybe,
}

/// A query parameter.
pub(crate) struct Param {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    pub(crate) about: &'static str,
}

/// What a query parameter holds.
pub(crate) enum Form {
    Text,
    /// The name of a collection.
    Kind,
    Flag {
        default: bool,
    },
    Count {
        min: u64,
        max: u64,
    },
}

const fn param(name: &'static str, form: Form, about: &'static str) -> Param {
    Param { name, form, about }
}

/// The most entries or records in one answer.
pub(crate) const MAX_LIMIT: u64 = 1000;

const LIMIT: Form = Form::Count { min: 1, max: MAX_LIMIT };
const BEFORE: Form = Form::Count { min: 0, max: u64::MAX };
const DRY_RUN: Param = param(
    "dry_run",
    Form::Flag { default: false },
    "Checks everything and answers as if it were done, but writes nothing.",
);

static LIST: &[Param] = &[
    param("name", Form::Text, "Only the entry that is called so."),
    param("limit", LIMIT, "At most so many entries; without it, all."),
    param("after", Form::Text, "Only entries whose id comes after this one."),
];
static WRITE: &[Param] = &[DRY_RUN];
static APPLY: &[Param] =
    &[DRY_RUN, param("prune", Form::Flag { default: true }, "Removes what the documents do not hold.")];
static AUDIT: &[Param] = &[
    param("kind", Form::Kind, "Only writes to this collection."),
    param("id", Form::Text, "Only writes to the resource of this id."),
    param("actor", Form::Text, "Only writes by the admin key or command of this name."),
    param("before", BEFORE, "Only writes older than this revision."),
    param("limit", LIMIT, "At most so many; without it, 100."),
];
static REVISIONS: &[Param] = &[
    param("before", BEFORE, "Only revisions older than this one."),
    param("limit", LIMIT, "At most so many; without it, 100."),
];

impl Action {
    /// The method of the route; `HEAD` comes with `GET`.
    pub(crate) fn method(self) -> Method {
        match self {
            Self::Replace(_) => Method::PUT,
            Self::Patch(_) => Method::PATCH,
            Self::Delete(_) => Method::DELETE,
            Self::Create(_)
            | Self::Rotate
            | Self::Batch
            | Self::Apply
            | Self::Rollback
            | Self::Playground => Method::POST,
            _ => Method::GET,
        }
    }

    pub(crate) fn access(self) -> Access {
        match self {
            Self::Livez | Self::Readyz | Self::OpenApi | Self::Viewer => Access::Open,
            Self::Playground => Access::CallerKey,
            Self::Audit | Self::Rollback => Access::Admin(Role::Owner),
            _ if self.writes() => Access::Admin(Role::Editor),
            _ => Access::Admin(Role::ReadOnly),
        }
    }

    /// Whether it changes the configuration.
    pub(crate) fn writes(self) -> bool {
        self.method() != Method::GET && !matches!(self, Self::Playground)
    }

    /// The query parameters; any other is refused. `None`: the query is not looked at.
    pub(crate) fn query(self) -> Option<&'static [Param]> {
        match self {
            Self::List(_) => Some(LIST),
            Self::Get(_) | Self::Export => Some(&[]),
            Self::Audit => Some(AUDIT),
            Self::Revisions => Some(REVISIONS),
            Self::Apply => Some(APPLY),
            _ if self.writes() => Some(WRITE),
            _ => None,
        }
    }

    pub(crate) fn content(self) -> Content {
        match self {
            Self::Create(_) | Self::Replace(_) | Self::Batch | Self::Apply | Self::Rollback => Content::Json,
            Self::Patch(_) => Content::Patch,
            Self::Rotate => Content::Maybe,
            _ => Content::None,
        }
    }

    /// Whether `If-Match` says which revision it applies to.
    pub(crate) fn conditional(self) -> bool {
        matches!(self, Self::Replace(_) | Self::Patch(_) | Self::Delete(_) | Self::Rotate)
    }
}

/// A row of the table.
pub(crate) struct Route {
    pub(crate) path: String,
    pub(crate) action: Action,
}

/// Where the proxy takes what the playground sends.
pub(crate) const PLAYGROUND_TARGET: &str = "/v1/chat/completions";

/// The collection of caller keys, which can be rotated.
pub(crate) const CALLER_KEYS: &str = "api_keys";

/// Other spellings of collections in paths.
const ALIASES: &[(&str, &str)] = &[("apikeys", CALLER_KEYS)];

/// The kind of a collection, by any of its spellings.
pub(crate) fn kind_named(name: &str) -> Option<&'static ResourceKind> {
    let canonical = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
    kind_of(canonical)
}

/// What the source of the configuration can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// It takes writes.
    pub(crate) writable: bool,
    /// It can list its revisions.
    pub(crate) revisions: bool,
}

/// Every route of the admin listener.
pub(crate) fn table(source: Source) -> Vec<Route> {
    let fixed = [
        ("/livez", Action::Livez),
        ("/readyz", Action::Readyz),
        ("/admin/openapi.json", Action::OpenApi),
        ("/admin/openapi-scalar", Action::Viewer),
        ("/admin/v1/health", Action::Health),
        ("/admin/v1/models/status", Action::ModelsStatus),
        ("/admin/v1/export", Action::Export),
        ("/admin/v1/batch", Action::Batch),
        ("/admin/v1/apply", Action::Apply),
        ("/admin/v1/audit", Action::Audit),
        ("/admin/v1/revisions", Action::Revisions),
        ("/admin/v1/rollback", Action::Rollback),
        ("/playground/chat/completions", Action::Playground),
    ];
    let mut routes: Vec<Route> =
        fixed.into_iter().map(|(path, action)| Route { path: path.to_owned(), action }).collect();
    for kind in KINDS.iter().copied() {
        let aliases = ALIASES.iter().filter(|(_, name)| *name == kind.name).map(|(alias, _)| *alias);
        for name in std::iter::once(kind.name).chain(aliases) {
            let collection = format!("/admin/v1/{name}");
            for action in [Action::List(kind), Action::Create(kind)] {
                routes.push(Route { path: collection.clone(), action });
            }
            let item = [Action::Get(kind), Action::Replace(kind), Action::Patch(kind), Action::Delete(kind)];
            for action in item {
                routes.push(Route { path: format!("{collection}/{{id}}"), action });
            }
            if kind.name == CALLER_KEYS {
                let path = format!("{collection}/{{id}}/rotate");
                routes.push(Route { path, action: Action::Rotate });
            }
        }
    }
    routes.retain(|route| match route.action {
        Action::Revisions => source.revisions,
        Action::Audit => source.writable,
        action => source.writable || !action.writes(),
    });
    routes
}

/// Paths that take writes when the source does. Where it does not, the writes
/// are told why.
pub(crate) fn refused_writes() -> Vec<Route> {
    let writable = table(Source { writable: true, revisions: false });
    let told = |route: &Route| route.action.writes() && !matches!(route.action, Action::Rotate);
    writable.into_iter().filter(told).collect()
}
