//! The endpoint table. A row is the whole definition of an endpoint.

use std::sync::LazyLock;

use aisix_core::{Dialect, Operation};
use aisix_telemetry::EndpointInfo;
use http::Method;
use matchit::Router;

/// A row.
#[derive(Debug)]
pub struct Endpoint {
    /// Name of its fixture folder.
    pub name: &'static str,
    /// The method it takes; `GET` rows answer `HEAD` too.
    pub method: Method,
    /// Path in `matchit` syntax.
    pub path: &'static str,
    /// How it is answered.
    pub answer: Answer,
    /// The format callers speak, which also shapes errors.
    pub dialect: Dialect,
    /// What telemetry records.
    pub info: EndpointInfo,
}

/// How an endpoint is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Liveness of the process; needs no key.
    Livez,
    /// Readiness of the process; needs no key.
    Readyz,
    /// From the snapshot, for an authenticated caller.
    Models,
    /// By an upstream, through all stages.
    Upstream(Operation),
}

const fn local(label: &'static str) -> EndpointInfo {
    EndpointInfo {
        label,
        protocol: "openai",
        handler: "local",
        counted: false,
        llm: false,
        tokens: false,
        e2e: false,
        ttft: false,
    }
}

/// All endpoints.
pub static ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        name: "livez",
        method: Method::GET,
        path: "/livez",
        answer: Answer::Livez,
        dialect: Dialect::OpenAi,
        info: local("/livez"),
    },
    Endpoint {
        name: "readyz",
        method: Method::GET,
        path: "/readyz",
        answer: Answer::Readyz,
        dialect: Dialect::OpenAi,
        info: local("/readyz"),
    },
    Endpoint {
        name: "models",
        method: Method::GET,
        path: "/v1/models",
        answer: Answer::Models,
        dialect: Dialect::OpenAi,
        info: local("/v1/models"),
    },
    Endpoint {
        name: "chat_completions",
        method: Method::POST,
        path: "/v1/chat/completions",
        answer: Answer::Upstream(Operation::Chat),
        dialect: Dialect::OpenAi,
        info: EndpointInfo {
            label: "/v1/chat/completions",
            protocol: "openai",
            handler: "chat",
            counted: true,
            llm: true,
            tokens: true,
            e2e: true,
            ttft: true,
        },
    },
];

/// What telemetry records of a request that no row answers.
static UNMATCHED: EndpointInfo = local("other");

static PATHS: LazyLock<Router<Vec<&'static Endpoint>>> = LazyLock::new(|| {
    let mut paths = Router::new();
    let mut seen: Vec<&str> = Vec::new();
    for row in ENDPOINTS {
        if !seen.contains(&row.path) {
            seen.push(row.path);
            let rows = ENDPOINTS.iter().filter(|other| other.path == row.path).collect();
            // Two rows with overlapping patterns are a mistake of the table, found by its test.
            let _ = paths.insert(row.path, rows);
        }
    }
    paths
});

/// What a method and path lead to.
pub(crate) enum Found {
    /// A row.
    Row(&'static Endpoint),
    /// The path is known, the method is not; the methods that are.
    WrongMethod(&'static Endpoint, String),
    /// No row has the path.
    Nothing,
}

impl Found {
    /// What telemetry records.
    pub(crate) fn info(&self) -> &'static EndpointInfo {
        match self {
            Self::Row(row) => &row.info,
            Self::WrongMethod(..) | Self::Nothing => &UNMATCHED,
        }
    }

    /// The dialect of errors.
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Row(row) | Self::WrongMethod(row, _) => row.dialect,
            Self::Nothing => Dialect::OpenAi,
        }
    }
}

/// Looks a request up.
pub(crate) fn find(method: &Method, path: &str) -> Found {
    let Ok(matched) = PATHS.at(path) else {
        return Found::Nothing;
    };
    let rows = matched.value;
    let wanted = if *method == Method::HEAD { &Method::GET } else { method };
    match rows.iter().find(|row| row.method == *wanted) {
        Some(row) => Found::Row(row),
        None => {
            let mut methods: Vec<&str> = rows.iter().map(|row| row.method.as_str()).collect();
            if methods.contains(&"GET") {
                methods.push("HEAD");
            }
            Found::WrongMethod(rows[0], methods.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_reached() {
        for row in ENDPOINTS {
            assert!(
                matches!(find(&row.method, row.path), Found::Row(found) if std::ptr::eq(found, row)),
                "{}",
                row.name
            );
        }
    }

    #[test]
    fn methods_and_paths_are_told_apart() {
        assert!(matches!(find(&Method::HEAD, "/v1/models"), Found::Row(_)));
        assert!(matches!(find(&Method::GET, "/nope"), Found::Nothing));
        assert!(matches!(find(&Method::POST, "/v1/chat/completions/"), Found::Nothing));
        let Found::WrongMethod(_, allow) = find(&Method::DELETE, "/v1/models") else {
            panic!("wrong method")
        };
        assert_eq!(allow, "GET, HEAD");
    }
}
