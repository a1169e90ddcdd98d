//! Where configurations are: a file, a running gateway, an etcd cluster, an
//! embedded store. Commands read all of them and write all but files.

mod access;
mod gateway;
mod store;
#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf};

use aisix_config::{Document, load_resources, plan::Plan};
use anyhow::{Result, bail};

pub(crate) use access::{Access, key_source, secret};
use gateway::Gateway;
pub(crate) use store::Store;

/// The prefix of the rows in etcd unless another one is given.
pub(crate) const DEFAULT_PREFIX: &str = "/aisix";

/// What a place looks like, for those who gave something else.
const EXPECTED: &str = "a place is a resources file, http(s)://HOST:PORT (the admin listener of a running gateway), \
                        etcd://HOST:PORT[,HOST:PORT]/PREFIX or store:DIR (the data_dir of an embedded store)";

/// Where a configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A resources file.
    File(PathBuf),
    /// The admin listener of a running gateway.
    Gateway { https: bool, host: String, port: u16 },
    /// The rows under a prefix of an etcd cluster.
    Etcd { endpoints: Vec<String>, prefix: String },
    /// The folder of an embedded store.
    Store(PathBuf),
}

impl Place {
    /// Reads a place of the command line. The refusal quotes nothing that could
    /// be a credential.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let unfit = |why: &str| Err(format!("{why}; {EXPECTED}"));
        match text.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => Self::gateway(scheme == "https", rest),
            Some(("etcd", rest)) => {
                let (hosts, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let prefix = if prefix.is_empty() { DEFAULT_PREFIX } else { prefix };
                Self::etcd(hosts.split(','), prefix)
            }
            Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
                unfit(&format!("there are no places of the scheme {scheme:?}"))
            }
            _ => match text.strip_prefix("store:") {
                Some("") => unfit("store: names no folder"),
                Some(folder) => Ok(Self::Store(folder.into())),
                None if text.is_empty() => unfit("the place is empty"),
                None => Ok(Self::File(text.into())),
            },
        }
    }

    fn gateway(https: bool, rest: &str) -> Result<Self, String> {
        if rest.contains('@') {
            return Err("an address holds no credentials: the admin key is read from the environment".into());
        }
        let unfit = || format!("{rest:?} is not HOST:PORT; {EXPECTED}");
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let authority: http::uri::Authority = authority.parse().map_err(|_| unfit())?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str().ends_with(authority.host()) => {
                if https {
                    443
                } else {
                    80
                }
            }
            None => return Err(unfit()),
        };
        if host.is_empty() { Err(unfit()) } else { Ok(Self::Gateway { https, host, port }) }
    }

    /// A cluster; each endpoint `HOST:PORT`, with or without `http://` or `https://`.
    pub(crate) fn etcd<'e>(
        endpoints: impl IntoIterator<Item = &'e str>,
        prefix: &str,
    ) -> Result<Self, String> {
        let endpoints: Vec<String> = endpoints.into_iter().map(|host| host.trim().to_owned()).collect();
        if endpoints.iter().any(|host| host.contains('@')) {
            return Err("an address holds no credentials: use --etcd-user and --etcd-password-env".into());
        }
        if endpoints.iter().any(String::is_empty) {
            return Err(format!("an etcd endpoint is empty; {EXPECTED}"));
        }
        if !prefix.starts_with('/') {
            return Err(format!("the prefix {prefix:?} does not begin with a slash"));
        }
        Ok(Self::Etcd { endpoints, prefix: aisix_store::etcd::effective_prefix(prefix, "") })
    }

    /// Connects to the place for a write, which may be the first one.
    pub(crate) async fn open_or_make(&self, access: &Access) -> Result<Open> {
        match self {
            Self::Store(folder) => {
                Ok(Open::Store(Store::new_or_embedded(folder, access.store_key()?).await?))
            }
            other => other.open(access).await,
        }
    }

    /// Connects to the place; a file is only read when it is asked for.
    pub(crate) async fn open(&self, access: &Access) -> Result<Open> {
        Ok(match self {
            Self::File(path) => Open::File(path.clone()),
            Self::Gateway { https, host, port } => {
                Open::Gateway(Box::new(Gateway::new(*https, host, *port, access)?))
            }
            Self::Etcd { endpoints, prefix } => {
                Open::Store(Store::etcd(access.etcd(endpoints, prefix)?).await?)
            }
            Self::Store(folder) => Open::Store(Store::embedded(folder, access.store_key()?).await?),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Gateway { https, host, port } => {
                let scheme = if *https { "https" } else { "http" };
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "{scheme}://{open}{host}{close}:{port}")
            }
            Self::Etcd { endpoints, prefix } => {
                write!(f, "etcd://{}{}", endpoints.join(","), prefix.trim_end_matches('/'))
            }
            Self::Store(folder) => write!(f, "store:{}", folder.display()),
        }
    }
}

/// A place that is connected to.
pub(crate) enum Open {
    File(PathBuf),
    Gateway(Box<Gateway>),
    Store(Store),
}

/// What a place holds.
pub(crate) struct Contents {
    pub(crate) documents: Vec<Document>,
    /// The rows that a gateway would not act on, one line each.
    pub(crate) refused: Vec<String>,
    /// Whether `***` stands for the secrets.
    pub(crate) masked: bool,
}

impl Open {
    /// Everything that is there.
    pub(crate) async fn read(&self) -> Result<Contents> {
        match self {
            Self::File(path) => {
                let loaded = load_resources(path, &|name| std::env::var(name).ok())?;
                Ok(Contents { documents: loaded.documents, refused: Vec::new(), masked: false })
            }
            Self::Gateway(gateway) => {
                let documents = gateway.read().await?;
                Ok(Contents { documents, refused: Vec::new(), masked: true })
            }
            Self::Store(store) => Ok(store.contents()),
        }
    }

    /// Makes the place hold the documents, and with `prune` nothing else. A plan
    /// that breaks references is given back and not carried out. The revision is
    /// 0 when nothing was written.
    pub(crate) async fn apply(
        &self,
        documents: &[Document],
        prune: bool,
        dry_run: bool,
    ) -> Result<(Plan, u64)> {
        match self {
            Self::File(path) => bail!("{} is a file: it is changed by editing it", path.display()),
            Self::Gateway(gateway) => gateway.apply(documents, prune, dry_run).await,
            Self::Store(store) => store.apply(documents, prune, dry_run).await,
        }
    }

    /// Brings back what the place held at a revision: what that changes, and
    /// the revision that it made; 0 when nothing was written.
    pub(crate) async fn rollback(&self, revision: u64, dry_run: bool) -> Result<(Plan, u64)> {
        match self {
            Self::File(path) => bail!("{} is a file: it has no revisions", path.display()),
            Self::Gateway(gateway) => gateway.rollback(revision, dry_run).await,
            Self::Store(store) => store.rollback(revision, dry_run).await,
        }
    }
}

/// The folder of the embedded store of a gateway without configuration.
pub(crate) fn default_data_dir() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    match (set("AISIX_DATA_DIR"), set("XDG_DATA_HOME"), set("HOME")) {
        (Some(folder), ..) => folder,
        (None, Some(data), _) => data.join("aisix"),
        (None, None, Some(home)) => home.join(".local/share/aisix"),
        (None, None, None) => PathBuf::from("aisix-data"),
    }
}
