//! A running gateway, by its admin listener.

use std::{fmt, sync::Arc, time::Duration};

use aisix_config::{
    Document, KINDS, kind_of,
    plan::{Action, Broken, FieldChange, Plan, Planned},
};
use aisix_core::Secret;
use aisix_proxy::upstream::{KeyTrust, Origin, ProxyEnv, RequestBody, Upstream, UpstreamSettings};
use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Access, Place};

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(60);
/// Entries that are read at once.
const PAGE: usize = 1000;
/// Answers are as large as what the gateway holds.
const MAX_ANSWER: usize = 256 << 20;
/// The longest text of an answer that is told.
const MAX_TEXT: usize = 2000;

/// A running gateway.
pub(crate) struct Gateway {
    upstream: Upstream,
    origin: Arc<Origin>,
    /// For people and for `Host`.
    url: String,
    key: Secret<String>,
    /// The variable that the key is from.
    variable: String,
}

impl Gateway {
    /// Nothing is connected yet.
    pub(super) fn new(https: bool, host: &str, port: u16, access: &Access) -> Result<Self> {
        let (key, variable) = access.admin_key()?;
        let settings = UpstreamSettings {
            connect_timeout: Some(CONNECT),
            tcp_keepalive: (None, None, None),
            pool_idle_timeout: None,
            pool_max_idle: None,
        };
        let upstream = Upstream::new(&settings, Arc::new(access.trust()?), &ProxyEnv::default());
        let url = Place::Gateway { https, host: host.to_owned(), port }.to_string();
        let trust = KeyTrust::default();
        let origin = Arc::new(Origin { https, host: host.to_owned(), port, trust });
        Ok(Self { upstream, origin, url, key, variable })
    }

    /// Everything the gateway shows; `***` stands for its secrets.
    pub(super) async fn read(&self) -> Result<Vec<Document>> {
        let mut documents = Vec::new();
        for kind in KINDS.iter().copied() {
            let mut after = String::new();
            loop {
                let target = format!("/admin/v1/{}?limit={PAGE}{after}", kind.name);
                let answer = self.call(Method::GET, &target, None).await?;
                let entries = answer.as_array().with_context(|| self.strange())?;
                for entry in entries {
                    let id = entry["id"].as_str().with_context(|| self.strange())?;
                    after = format!("&after={}", encoded(id));
                    documents.push(Document { kind, id: id.to_owned(), value: entry["value"].clone() });
                }
                if entries.len() < PAGE {
                    break;
                }
            }
        }
        Ok(documents)
    }

    pub(super) async fn apply(
        &self,
        documents: &[Document],
        prune: bool,
        dry_run: bool,
    ) -> Result<(Plan, u64)> {
        let documents = documents
            .iter()
            .map(|document| json!({"kind": document.kind.name, "id": document.id, "value": document.value}));
        let body = json!({"documents": documents.collect::<Vec<_>>()});
        let target = format!("/admin/v1/apply?dry_run={dry_run}&prune={prune}");
        let answer = self.call(Method::POST, &target, Some(&body)).await?;
        self.planned(&answer)
    }

    pub(super) async fn rollback(&self, revision: u64, dry_run: bool) -> Result<(Plan, u64)> {
        let target = format!("/admin/v1/rollback?dry_run={dry_run}");
        let answer = self.call(Method::POST, &target, Some(&json!({"revision": revision}))).await?;
        self.planned(&answer)
    }

    /// The plan of an answer, and the revision that it made; 0 for none.
    fn planned(&self, answer: &Value) -> Result<(Plan, u64)> {
        let plan = plan_of(answer).with_context(|| self.strange())?;
        let revision = if plan.is_empty() { 0 } else { answer["revision"].as_u64().unwrap_or(0) };
        Ok((plan, revision))
    }

    async fn call(&self, method: Method, target: &str, body: Option<&Value>) -> Result<Value> {
        let request = self.request(method, target, body)?;
        let answered = async {
            let response =
                self.upstream.send(&self.origin, request).await.map_err(|error| anyhow!("{error}"))?;
            let status = response.head.status;
            let (bytes, complete) =
                response.body.collect(MAX_ANSWER).await.map_err(|error| anyhow!(error))?;
            if !complete {
                bail!("the answer is larger than {} MiB", MAX_ANSWER >> 20);
            }
            Ok((status, bytes))
        };
        let answered = timeout(ANSWER, answered).await;
        let answered = answered.map_err(|_| anyhow!("no answer within {} s", ANSWER.as_secs()));
        let (status, bytes) = answered.flatten().with_context(|| self.url.clone())?;
        let answer: Option<Value> = serde_json::from_slice(&bytes).ok();
        match (status, answer) {
            (status, Some(answer)) if status.is_success() => Ok(answer),
            (StatusCode::UNAUTHORIZED, _) => {
                bail!(
                    "{} does not accept the admin key of the environment variable {}",
                    self.url,
                    self.variable
                )
            }
            (status, Some(answer)) if answer["error_msg"].is_string() => {
                let text = answer["error_msg"].as_str().unwrap_or_default();
                bail!("{} answered {}: {}", self.url, status.as_u16(), one_line(text))
            }
            (status, _) => bail!("{} (status {})", self.strange(), status.as_u16()),
        }
    }

    fn request(&self, method: Method, target: &str, body: Option<&Value>) -> Result<Request<RequestBody>> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", self.key.expose()))
            .map_err(|_| anyhow!("the admin key in {} has characters that no key has", self.variable))?;
        bearer.set_sensitive(true);
        let host = self.url.split_once("://").map_or(self.url.as_str(), |(_, host)| host);
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, bearer)
            .header(header::ACCEPT, "application/json");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        Ok(request.body(Bytes::from(body).into())?)
    }

    fn strange(&self) -> String {
        format!("{} does not answer as the admin listener of a gateway of this version", self.url)
    }
}

/// A plan as the admin listener tells it.
pub(super) fn plan_of(answer: &Value) -> Option<Plan> {
    let text = |value: &Value, name: &str| value[name].as_str().map(str::to_owned);
    let kind = |value: &Value, name: &str| Some(kind_of(value[name].as_str()?)?.name);
    let field = |value: &Value| {
        Some(FieldChange {
            path: text(value, "path")?,
            before: value.get("before").cloned(),
            after: value.get("after").cloned(),
            secret: value["secret"].as_bool().unwrap_or(false),
        })
    };
    let planned = |value: &Value| {
        let action = match value["action"].as_str()? {
            "add" => Action::Add,
            "change" => Action::Change,
            "remove" => Action::Remove,
            _ => return None,
        };
        Some(Planned {
            kind: kind(value, "kind")?,
            name: text(value, "name")?,
            id: text(value, "id")?,
            action,
            fields: value["fields"].as_array().into_iter().flatten().map(field).collect::<Option<_>>()?,
            document: None,
        })
    };
    let broken = |value: &Value| {
        Some(Broken {
            kind: kind(value, "kind")?,
            name: text(value, "name")?,
            path: text(value, "path")?,
            target_kind: kind(value, "target_kind")?,
            target: text(value, "target")?,
        })
    };
    Some(Plan {
        changes: answer["changes"].as_array()?.iter().map(planned).collect::<Option<_>>()?,
        broken: answer["broken"].as_array()?.iter().map(broken).collect::<Option<_>>()?,
    })
}

/// A text of a server that cannot disturb a terminal.
fn one_line(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A text as a value of a query.
pub(super) fn encoded(text: &str) -> impl fmt::Display + '_ {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
}
