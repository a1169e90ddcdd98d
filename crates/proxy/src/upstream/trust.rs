//! Which certificates upstreams are trusted by.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

/// TLS settings of a provider key on top of the deployment's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyTrust {
    /// PEM bundle added to the roots.
    pub ca_cert: Option<Arc<str>>,
    /// Accept any certificate.
    pub insecure: bool,
}

/// TLS settings of the deployment.
#[derive(Clone, Debug, Default)]
pub struct TrustFiles {
    /// PEM bundle added to the built-in and platform roots.
    pub ca_file: Option<PathBuf>,
    /// Certificate chain and key for mutual TLS.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Accept any certificate.
    pub insecure: bool,
}

/// A TLS file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("upstream.tls.{field}: {path}: {what}", path = path.display())]
pub struct TrustError {
    field: &'static str,
    path: PathBuf,
    what: String,
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Roots and client identity, and the TLS configurations made of them.
pub struct Trust {
    roots: RootCertStore,
    identity: Option<Identity>,
    insecure: bool,
    provider: Arc<CryptoProvider>,
    clients: Mutex<HashMap<KeyTrust, Arc<ClientConfig>>>,
}

impl Trust {
    /// Loads the built-in roots, the platform's (`SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` are honoured) and the configured files.
    pub fn load(files: &TrustFiles) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::warn!(%error, "platform certificates could not be read");
        }
        roots.add_parsable_certificates(native.certs);
        if let Some(path) = &files.ca_file {
            for certificate in read_certificates("ca_file", path)? {
                roots.add(certificate).map_err(|e| refuse("ca_file", path, e.to_string()))?;
            }
        }
        let identity = files.client.as_ref().map(|(cert, key)| read_identity(cert, key)).transpose()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = Self { roots, identity, insecure: files.insecure, provider, clients: Mutex::default() };
        if let Err(what) = trust.client(&KeyTrust::default()) {
            let path = files.client.as_ref().map(|(cert, _)| cert.clone()).unwrap_or_default();
            return Err(TrustError { field: "client_cert_file", path, what });
        }
        Ok(trust)
    }

    /// The TLS configuration for a provider key. A CA bundle that cannot be
    /// read is refused: the deployment's trust is no substitute for it.
    pub(super) fn client(&self, key: &KeyTrust) -> Result<Arc<ClientConfig>, String> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = clients.get(key) {
            return Ok(config.clone());
        }
        let config = Arc::new(self.build(key)?);
        clients.insert(key.clone(), config.clone());
        Ok(config)
    }

    fn build(&self, key: &KeyTrust) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        let builder = if self.insecure || key.insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(self.provider.clone())))
        } else {
            let mut roots = self.roots.clone();
            for certificate in
                key.ca_cert.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes()))
            {
                let added =
                    certificate.map_err(|e| e.to_string()).map(|c| roots.add(c).map_err(|e| e.to_string()));
                added.and_then(|r| r).map_err(|e| format!("certificate bundle of the provider key: {e}"))?;
            }
            builder.with_root_certificates(roots)
        };
        let mut config = match &self.identity {
            Some((chain, private)) => builder
                .with_client_auth_cert(chain.clone(), private.clone_key())
                .map_err(|e| e.to_string())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn refuse(field: &'static str, path: &Path, what: String) -> TrustError {
    TrustError { field, path: path.to_owned(), what }
}

fn read_certificates(field: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let pem = std::fs::read(path).map_err(|e| refuse(field, path, e.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => {
            Err(refuse(field, path, "contains no CERTIFICATE block".into()))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(refuse(field, path, error.to_string())),
    }
}

fn read_identity(cert: &Path, key: &Path) -> Result<Identity, TrustError> {
    let chain = read_certificates("client_cert_file", cert)?;
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|e| refuse("client_key_file", key, e.to_string()))?;
    Ok((chain, private))
}

/// A TLS failure without the names a certificate carries.
pub(super) fn describe(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(cause)) => {
            let cause = format!("{cause:?}");
            let word = cause.split([' ', '(', '{']).next().unwrap_or_default();
            format!("invalid peer certificate: {word}")
        }
        _ => format!("TLS handshake failed: {error}"),
    }
}

/// Accepts every certificate; signatures are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
