//! The options that say how places are reached.

use std::{fs, path::PathBuf};

use aisix_core::Secret;
use aisix_proxy::upstream::{Trust, TrustFiles};
use aisix_store::{
    embedded::KeySource,
    etcd::{Settings, Tls},
};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;

use super::Place;

const ADMIN_KEY: &str = "AISIX_ADMIN_KEY";

/// How places are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Reaching places")]
pub(crate) struct Access {
    /// Gateway: environment variable that holds the admin key [default: AISIX_ADMIN_KEY]
    #[arg(long, value_name = "VAR")]
    pub(crate) admin_key_env: Option<String>,

    /// Gateway: certificates to trust besides those of the system (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// etcd: user
    #[arg(long, value_name = "NAME", requires = "etcd_password_env")]
    pub(crate) etcd_user: Option<String>,

    /// etcd: environment variable that holds the password
    #[arg(long, value_name = "VAR", requires = "etcd_user")]
    pub(crate) etcd_password_env: Option<String>,

    /// etcd: speak TLS and trust these certificates (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_ca: Option<PathBuf>,

    /// etcd: certificate to show (PEM)
    #[arg(long, value_name = "FILE", requires_all = ["etcd_key", "etcd_ca"])]
    pub(crate) etcd_cert: Option<PathBuf>,

    /// etcd: key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd_cert")]
    pub(crate) etcd_key: Option<PathBuf>,

    /// Embedded store: file with its key, unless that is DIR/store.key
    #[arg(long, value_name = "FILE", conflicts_with = "store_key_env")]
    pub(crate) store_key_file: Option<PathBuf>,

    /// Embedded store: environment variable that holds its key
    #[arg(long, value_name = "VAR")]
    pub(crate) store_key_env: Option<String>,
}

impl Access {
    /// An option that has no effect on any of the places.
    pub(crate) fn without_effect(&self, places: &[&Place]) -> Option<String> {
        let any = |fits: fn(&Place) -> bool| places.iter().any(|place| fits(place));
        let gateway = any(|place| matches!(place, Place::Gateway { .. }));
        let https = any(|place| matches!(place, Place::Gateway { https: true, .. }));
        let etcd = any(|place| matches!(place, Place::Etcd { .. }));
        let store = any(|place| matches!(place, Place::Store(_)));
        let options = [
            ("--admin-key-env", self.admin_key_env.is_some(), gateway, "http(s)://"),
            ("--ca", self.ca.is_some(), https, "https://"),
            ("--etcd-user", self.etcd_user.is_some(), etcd, "etcd://"),
            ("--etcd-ca", self.etcd_ca.is_some(), etcd, "etcd://"),
            ("--store-key-file", self.store_key_file.is_some(), store, "store:"),
            ("--store-key-env", self.store_key_env.is_some(), store, "store:"),
        ];
        let (option, _, _, scheme) = options.into_iter().find(|(_, given, used, _)| *given && !used)?;
        Some(format!("{option} has no effect without a place that begins with {scheme}"))
    }

    /// The admin key, and the variable that holds it.
    pub(super) fn admin_key(&self) -> Result<(Secret<String>, String)> {
        let variable = self.admin_key_env.as_deref().unwrap_or(ADMIN_KEY);
        let key = secret("--admin-key-env", variable, "an admin key of the gateway")?;
        Ok((key, variable.to_owned()))
    }

    pub(super) fn trust(&self) -> Result<Trust> {
        let files = TrustFiles { ca_file: self.ca.clone(), ..TrustFiles::default() };
        Trust::load(&files).map_err(|error| {
            let text = error.to_string();
            anyhow!("--ca: {}", text.strip_prefix("upstream.tls.ca_file: ").unwrap_or(&text))
        })
    }

    pub(super) fn etcd(&self, endpoints: &[String], prefix: &str) -> Result<Settings> {
        let read = |option: &str, path: &PathBuf| {
            fs::read(path).with_context(|| format!("{option}: {} cannot be read", path.display()))
        };
        let user = match (&self.etcd_user, &self.etcd_password_env) {
            (Some(user), Some(variable)) => {
                let password = secret("--etcd-password-env", variable, "the password of the etcd user")?;
                Some((user.clone(), password))
            }
            _ => None,
        };
        let client = match (&self.etcd_cert, &self.etcd_key) {
            (Some(cert), Some(key)) => {
                Some((read("--etcd-cert", cert)?, Secret::new(read("--etcd-key", key)?)))
            }
            _ => None,
        };
        let tls = match &self.etcd_ca {
            Some(ca) => Some(Tls { ca: read("--etcd-ca", ca)?, client, domain_name: None }),
            None => None,
        };
        let (endpoints, prefix) = (endpoints.to_vec(), prefix.to_owned());
        Ok(Settings { endpoints, prefix, user, tls, ..Settings::default() })
    }

    pub(crate) fn store_key(&self) -> Result<KeySource> {
        key_source(("--store-key-env", self.store_key_env.as_deref()), self.store_key_file.clone())
    }
}

/// Where the key of an embedded store is, by the option for a variable and the
/// one for a file.
pub(crate) fn key_source(variable: (&str, Option<&str>), file: Option<PathBuf>) -> Result<KeySource> {
    Ok(match (variable, file) {
        ((option, Some(name)), _) => {
            KeySource::Env { variable: name.to_owned(), value: secret(option, name, "the key of the store")? }
        }
        (_, Some(path)) => KeySource::File(path),
        (_, None) => KeySource::Generated,
    })
}

/// A secret of the environment. Whoever gives the secret in the place of the
/// name does not see it repeated.
pub(crate) fn secret(option: &str, variable: &str, what: &str) -> Result<Secret<String>> {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !variable.starts_with(letter) || !variable.chars().all(|c| letter(c) || c.is_ascii_digit()) {
        bail!("{option} takes the name of an environment variable");
    }
    match std::env::var(variable) {
        Ok(value) if !value.is_empty() => Ok(Secret::new(value)),
        _ => bail!("the environment variable {variable} must hold {what} ({option} names another one)"),
    }
}
