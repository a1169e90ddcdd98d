//! TLS of a listener; its certificate can be replaced while it serves.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use anyhow::{Context, Result, ensure};
use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// Certificate and key of a listener.
pub(crate) struct Tls {
    section: &'static str,
    cert_file: PathBuf,
    key_file: PathBuf,
    config: ArcSwap<ServerConfig>,
}

/// When the files were last written.
pub(crate) type Stamp = (Option<SystemTime>, Option<SystemTime>);

impl Tls {
    /// Reads both files.
    pub(crate) fn load(section: &'static str, cert_file: &Path, key_file: &Path) -> Result<Self> {
        let config = read(cert_file, key_file).with_context(|| {
            format!(
                "{section}: failed to load cert_file={} / key_file={}",
                cert_file.display(),
                key_file.display()
            )
        })?;
        Ok(Self {
            section,
            cert_file: cert_file.to_owned(),
            key_file: key_file.to_owned(),
            config: ArcSwap::from_pointee(config),
        })
    }

    /// What new connections use.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Reads the files again. What cannot be read leaves the old certificate in use.
    pub(crate) fn reload(&self) {
        let section = self.section;
        match read(&self.cert_file, &self.key_file) {
            Ok(config) => {
                self.config.store(Arc::new(config));
                tracing::info!(section, "certificate reloaded");
            }
            Err(error) => {
                tracing::warn!(section, error = %format!("{error:#}"), "certificate reload failed; the old one stays");
            }
        }
    }

    /// Changes when a file is replaced.
    pub(crate) fn stamp(&self) -> Stamp {
        let modified = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
        (modified(&self.cert_file), modified(&self.key_file))
    }
}

fn read(cert_file: &Path, key_file: &Path) -> Result<ServerConfig> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert_file)
        .and_then(Iterator::collect)
        .with_context(|| format!("cert_file {}", cert_file.display()))?;
    ensure!(!chain.is_empty(), "no certificate in {}", cert_file.display());
    let key = PrivateKeyDer::from_pem_file(key_file).with_context(|| match std::fs::read(key_file) {
        Ok(_) => format!("no private key in {}", key_file.display()),
        Err(_) => format!("key_file {}", key_file.display()),
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
