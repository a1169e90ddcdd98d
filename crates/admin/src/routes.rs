//! The table of everything the admin listener serves. The router and the
//! OpenAPI document are both made from it.

use http::Method;

use crate::kinds::{KINDS, Kind};

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody.
    Open,
    /// Holders of an admin key.
    AdminKey,
    /// Callers of the gateway; the proxy decides.
    CallerKey,
}

/// What a route does.
#[derive(Clone, Copy)]
pub(crate) enum Action {
    Livez,
    Readyz,
    OpenApi,
    Viewer,
    Health,
    ModelsStatus,
    List(&'static Kind),
    Get(&'static Kind),
    Playground,
}

impl Action {
    /// The one method of the route; `HEAD` comes with `GET`.
    pub(crate) fn method(self) -> Method {
        match self {
            Action::Playground => Method::POST,
            _ => Method::GET,
        }
    }

    pub(crate) fn access(self) -> Access {
        match self {
            Action::Livez | Action::Readyz | Action::OpenApi | Action::Viewer => Access::Open,
            Action::Health | Action::ModelsStatus | Action::List(_) | Action::Get(_) => Access::AdminKey,
            Action::Playground => Access::CallerKey,
        }
    }
}

/// A row of the table.
pub(crate) struct Route {
    pub(crate) path: String,
    pub(crate) action: Action,
}

/// Where the proxy takes what the playground sends.
pub(crate) const PLAYGROUND_TARGET: &str = "/v1/chat/completions";

/// Every route of the admin listener.
pub(crate) fn table() -> Vec<Route> {
    let fixed = [
        ("/livez", Action::Livez),
        ("/readyz", Action::Readyz),
        ("/admin/openapi.json", Action::OpenApi),
        ("/admin/openapi-scalar", Action::Viewer),
        ("/admin/v1/health", Action::Health),
        ("/admin/v1/models/status", Action::ModelsStatus),
        ("/playground/chat/completions", Action::Playground),
    ];
    let mut routes: Vec<Route> =
        fixed.into_iter().map(|(path, action)| Route { path: path.to_owned(), action }).collect();
    for kind in KINDS {
        for name in std::iter::once(&kind.name).chain(kind.aliases) {
            let collection = format!("/admin/v1/{name}");
            let item = format!("{collection}/{{id}}");
            routes.push(Route { path: collection, action: Action::List(kind) });
            routes.push(Route { path: item, action: Action::Get(kind) });
        }
    }
    routes
}
