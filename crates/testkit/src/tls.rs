//! A throw-away certificate authority for listener and upstream tests.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::LazyConfigAcceptor;

/// A private authority that signs certificates for `localhost` and `127.0.0.1`.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM.
pub struct Identity {
    /// Certificate chain.
    pub cert: String,
    /// Private key.
    pub key: String,
}

impl Identity {
    /// Writes both files and returns their paths.
    pub fn write(&self, dir: &Path) -> (PathBuf, PathBuf) {
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&key, &self.key).expect("write key");
        std::fs::write(&cert, &self.cert).expect("write certificate");
        (cert, key)
    }
}

impl Authority {
    /// A new authority.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("self-signed authority");
        Self { issuer }
    }

    /// A server certificate signed by this authority.
    pub fn issue(&self) -> Identity {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).expect("names");
        let key = KeyPair::generate().expect("key");
        let cert = params.signed_by(&key, &self.issuer).expect("certificate");
        Identity { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// The authority's own certificate, PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A client configuration that trusts only this authority.
    pub fn client_config(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_slice(self.pem().as_bytes()).expect("own PEM");
        roots.add(der).expect("own certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// The protocols that one client named in its handshake.
type Offer = Vec<String>;

/// A TLS listener that hands the decrypted bytes to a plain address, such as a fake provider.
pub struct TlsFront {
    addr: SocketAddr,
    accept: AbortHandle,
    offers: Arc<Mutex<Vec<Offer>>>,
}

impl TlsFront {
    /// Listens on a free port with this identity; knows nothing of ALPN.
    pub async fn start(identity: &Identity, target: SocketAddr) -> Self {
        Self::start_with_alpn(identity, target, &[]).await
    }

    /// The same, and takes the first of these protocols that the client offers.
    pub async fn start_with_alpn(identity: &Identity, target: SocketAddr, alpn: &[&str]) -> Self {
        let config = server_config(identity, alpn);
        let offers: Arc<Mutex<Vec<Offer>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind a loopback port");
        let addr = listener.local_addr().expect("bound address");
        let seen = offers.clone();
        let accept = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (config, seen) = (config.clone(), seen.clone());
                tokio::spawn(async move {
                    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), socket).await;
                    let Ok(hello) = hello else { return };
                    let offered = hello.client_hello().alpn().into_iter().flatten();
                    let offered = offered.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(offered);
                    let Ok(mut client) = hello.into_stream(config).await else { return };
                    let Ok(mut server) = TcpStream::connect(target).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { addr, accept: accept.abort_handle(), offers }
    }

    /// What each client so far offered in ALPN.
    pub fn offers(&self) -> Vec<Offer> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `https://127.0.0.1:port/v1`.
    pub fn base(&self) -> String {
        format!("https://{}/v1", self.addr)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

fn server_config(identity: &Identity, alpn: &[&str]) -> Arc<ServerConfig> {
    let cert = CertificateDer::from_pem_slice(identity.cert.as_bytes()).expect("own PEM");
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("own PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .expect("own identity");
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Arc::new(config)
}
