//! The process configuration: a file in YAML, TOML or JSON, overlaid by the
//! environment, checked as a whole, and typed.

mod decode;
mod env;
mod rules;
mod table;
mod types;

use std::fmt;
use std::path::{Path, PathBuf};

pub(crate) use table::PROCESS;
pub use types::{
    AdminConfig, AdminKey, Buckets, ClientTypeRule, DownstreamConfig, EtcdConfig, EtcdTls, LogFormat,
    Observability, ProcessConfig, Prometheus, ProxyConfig, RealIp, Role, ShutdownConfig, Source, StoreKey,
    TcpKeepalive, TlsFiles, UpstreamConfig, UpstreamTls, UrlRewrite,
};

use crate::schema::{self, Checked, Kind, Mode, Nulls, Problem};
use crate::tree::{Data, Document, Node, Origin, ParseError, parse_json, parse_toml, parse_yaml};

/// All problems of a process configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    path: PathBuf,
    problems: Vec<String>,
}

impl ConfigErrors {
    /// One line per problem.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("config load failed: failed to load configuration: ")?;
        if let [problem] = self.problems.as_slice() {
            return f.write_str(problem);
        }
        write!(f, "{} problems in {}:", self.problems.len(), self.path.display())?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// What holds without a file: everything on this machine only.
const WITHOUT_FILE: &str = r#"{
    "proxy": {"addr": "127.0.0.1:3000"},
    "admin": {"addr": "127.0.0.1:3001"},
    "observability": {"metrics": {"prometheus": {"addr": "127.0.0.1:9090"}}}
}"#;

/// Loads the process configuration: defaults, then the file, then `env`.
/// Without a file everything listens on the loopback address only.
pub fn load_process_config(
    path: Option<&Path>,
    env: &[(String, String)],
) -> Result<ProcessConfig, ConfigErrors> {
    let shown = path.unwrap_or(Path::new("the environment"));
    let fail = |problems| ConfigErrors { path: shown.to_owned(), problems };
    let read = match path {
        Some(path) => read(path),
        None => parse_json(WITHOUT_FILE).map_err(|error| error.message),
    };
    let mut root = read.map_err(|why| {
        let problem = format!("build: {}: {why}", shown.display());
        fail(vec![problem])
    })?;
    let mut problems = env::overlay(&mut root, env);
    let variable = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let Checked { document, problems: found, .. } =
        schema::check(&Kind::Object(PROCESS), &root, Nulls::Anywhere, Mode::Process);
    problems.extend(found);
    rules::check(&root, &document, &variable, &mut problems);
    if !problems.is_empty() {
        return Err(fail(problems.iter().map(Problem::process_text).collect()));
    }
    decode::decode(document, &variable).map_err(|error| fail(vec![format!("deserialize: {error}")]))
}

fn read(path: &Path) -> Result<Node, String> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let parse: fn(&str) -> Result<Node, ParseError> = match extension {
        Some("yaml" | "yml") => yaml,
        Some("toml") => parse_toml,
        Some("json") => parse_json,
        _ => return Err("unknown file extension: expected .yaml, .yml, .toml or .json".into()),
    };
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read file: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned())?;
    parse(text.trim_start_matches('\u{feff}')).map_err(|error| error.message)
}

fn yaml(text: &str) -> Result<Node, ParseError> {
    match parse_yaml(text)? {
        Document::Empty => Ok(Node::new(Origin::Unknown, Data::Map(Vec::new()))),
        Document::One(node) if node.is_null() => Ok(Node::new(node.origin, Data::Map(Vec::new()))),
        Document::One(node) => Ok(node),
        Document::Many(count) => {
            Err(ParseError { message: format!("expected a single YAML document, found {count}") })
        }
    }
}

#[cfg(test)]
mod tests;
