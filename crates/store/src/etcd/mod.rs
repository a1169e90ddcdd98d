//! An etcd cluster as a store: [`EtcdStore`] follows the rows under a prefix
//! and makes commits.
//!
//! Rows are `<prefix>/<kind>/<id>`. What commits need beside them lies outside
//! the prefix, under `/_aisix/<prefix>/`, so that other readers of the prefix
//! never see it: `commit`, written by every commit, and `audit/`.

mod client;
mod follow;
mod proto;
mod write;

use std::sync::Arc;
use std::time::Duration;

use aisix_core::Secret;
use aisix_core::rows::RawRow;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use client::{Client, Failure, header, revision, signed};
use proto::{KeyValue, RangeRequest, RangeResponse, path};

/// Rows that are read at once: at the largest size that etcd takes by default
/// (1.5 MiB), a page still fits into a message.
const PAGE: i64 = 250;

/// How a cluster is reached and which rows of it are ours.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port`, `http://…` or `https://…`; tried in turn.
    pub endpoints: Vec<String>,
    /// The prefix of all rows, as [`effective_prefix`] makes it.
    pub prefix: String,
    /// Name and password.
    pub user: Option<(String, Secret<String>)>,
    /// Trust and identity; without it, `https://` trusts what the system trusts.
    pub tls: Option<Tls>,
    /// The longest time for a connection.
    pub dial_timeout: Duration,
    /// The longest time for a call.
    pub request_timeout: Duration,
}

/// Trust and identity of connections.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The trusted authorities, PEM.
    pub ca: Vec<u8>,
    /// Certificate and key that the gateway shows, PEM.
    pub client: Option<(Vec<u8>, Secret<Vec<u8>>)>,
    /// The name expected in the certificate of the server; by default, the
    /// host of the first endpoint.
    pub domain_name: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            prefix: effective_prefix("/aisix", ""),
            user: None,
            tls: None,
            dial_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
        }
    }
}

/// The prefix of all rows of an environment: ends in exactly one slash, so
/// that `/aisix` does not cover `/aisix-b`.
pub fn effective_prefix(prefix: &str, env_id: &str) -> String {
    let prefix = prefix.trim_end_matches('/');
    match env_id.trim_matches('/') {
        "" => format!("{prefix}/"),
        env_id => format!("{prefix}/{env_id}/"),
    }
}

/// A cluster.
pub struct EtcdStore {
    client: Client,
    /// Ends in a slash.
    prefix: String,
    /// Beside the rows; ends in a slash.
    side: String,
    /// The highest revision that somebody waits for.
    wanted: watch::Sender<u64>,
}

/// Rows at a revision.
struct Listing {
    rows: Vec<RawRow>,
    revision: u64,
    cluster: u64,
    /// Keys under the prefix.
    count: i64,
}

impl EtcdStore {
    /// A store of these settings. Nothing is connected yet; settings that
    /// cannot be used are refused.
    pub fn new(settings: Settings) -> Result<Arc<Self>, String> {
        let prefix = effective_prefix(&settings.prefix, "");
        let probe = RangeRequest { limit: 1, keys_only: true, ..range(&prefix) };
        let client = Client::new(&settings, probe)?;
        let side = side(&prefix);
        Ok(Arc::new(Self { client, prefix, side, wanted: watch::Sender::new(0) }))
    }

    /// Connects, with the credentials if there are any, and reads. The text
    /// says what the last attempt met.
    pub async fn check(&self, attempts: u32, delay: Duration) -> Result<(), String> {
        let mut left = attempts.max(1);
        loop {
            left -= 1;
            match self.client.session().await {
                Ok(_) => return Ok(()),
                Err(failure) if left == 0 => return Err(failure.to_string()),
                Err(_) => sleep(delay).await,
            }
        }
    }

    /// Every row as of now, and the revision.
    pub async fn read(&self) -> Result<(Vec<RawRow>, u64), String> {
        let listing = self.list(0).await.map_err(|failure| failure.to_string())?;
        Ok((listing.rows, listing.revision))
    }

    /// The revision of the cluster as of now, and soon a
    /// [`confirm`](aisix_core::rows::Sink::confirm) or
    /// [`change`](aisix_core::rows::Sink::change) that reaches it. `None` when
    /// the cluster does not answer in time.
    pub async fn barrier(&self) -> Option<u64> {
        let probe = RangeRequest { limit: 1, keys_only: true, ..range(&self.prefix) };
        let call = self.client.call(path::RANGE, probe);
        let answer: RangeResponse = timeout(self.client.request_timeout(), call).await.ok()?.ok()?;
        let (_, revision) = header(answer.header.as_ref());
        self.wanted.send_modify(|wanted| *wanted = revision);
        Some(revision)
    }

    /// All rows, in pages of one and the same revision; 0 is the current one.
    async fn list(&self, at: u64) -> Result<Listing, Failure> {
        let mut listing = Listing { rows: Vec::new(), revision: at, cluster: 0, count: 0 };
        let mut request = RangeRequest { limit: PAGE, revision: signed(at), ..range(&self.prefix) };
        loop {
            let page: RangeResponse = self.client.call(path::RANGE, request.clone()).await?;
            if listing.revision == 0 || listing.cluster == 0 {
                let (cluster, revision) = header(page.header.as_ref());
                listing.cluster = cluster;
                listing.count = page.count;
                listing.revision = if at == 0 { revision } else { at };
            }
            let last = page.kvs.last().map(|row| row.key.clone());
            listing.rows.extend(page.kvs.into_iter().filter_map(|row| self.row(row)));
            match last {
                Some(mut key) if page.more => {
                    key.push(0);
                    request.key = key;
                    request.revision = signed(listing.revision);
                }
                _ => return Ok(listing),
            }
        }
    }

    /// A key relative to the prefix; `None` if it is not a row of ours.
    fn relative(&self, key: &[u8]) -> Option<String> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?;
        // Within the prefix only if that is a bare slash.
        let beside = key.starts_with(b"/_aisix/");
        (!beside || self.prefix.starts_with("/_aisix/")).then(|| String::from_utf8_lossy(rest).into_owned())
    }

    fn row(&self, row: KeyValue) -> Option<RawRow> {
        let key = self.relative(&row.key)?;
        Some(RawRow { key, revision: revision(row.mod_revision), value: row.value.into() })
    }
}

/// What lies beside the rows of a prefix. `/aisix/` and `aisix/` are two.
fn side(prefix: &str) -> String {
    match prefix.strip_prefix('/') {
        Some("") => "/_aisix//".to_owned(),
        Some(rest) => format!("/_aisix/{rest}"),
        None => format!("/_aisix//{prefix}"),
    }
}

/// Everything under a prefix that ends in a slash.
fn range(prefix: &str) -> RangeRequest {
    RangeRequest { key: prefix.into(), range_end: end_of(prefix), ..RangeRequest::default() }
}

/// The first key behind everything that begins with a text ending in a slash.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::{effective_prefix, side};

    #[test]
    fn prefixes_have_sides_of_their_own() {
        let sides = [
            ("/aisix", "", "/_aisix/aisix/"),
            ("/aisix/", "blue", "/_aisix/aisix/blue/"),
            ("aisix", "", "/_aisix//aisix/"),
            ("/", "", "/_aisix//"),
        ];
        for (prefix, env_id, expected) in sides {
            assert_eq!(side(&effective_prefix(prefix, env_id)), expected, "{prefix} {env_id}");
        }
    }
}
