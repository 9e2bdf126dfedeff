//! TLS for the public listener: versions 1.2 and 1.3, one certificate, read again without dropping a connection.

use crate::config::Config;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use tokio_rustls::TlsAcceptor;

/// Why there is no certificate, or no new one. **The one before stays.**
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
pub struct TlsError {
    /// Which file.
    path: String,
    /// What is wrong with it.
    why: String,
}

/// See the module.
#[derive(Debug)]
pub struct Tls {
    current: Arc<Current>,
    config: Arc<rustls::ServerConfig>,
}

/// The certificate that new connections are shown.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    /// As configured; `None`: in the clear.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(config: &Config) -> Result<Option<Self>, TlsError> {
        if !config.has_tls() {
            return Ok(None);
        }
        let certificate = PathBuf::from(&config.server.tls_cert_file);
        let key = PathBuf::from(&config.server.tls_key_file);
        let current = Arc::new(Current(RwLock::new(read(&certificate, &key)?)));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&certificate, &error))?;
        let mut server = builder
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        // No sessions to resume: neither memory for strangers nor keys of tickets to keep.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        Ok(Some(Self {
            current,
            config: Arc::new(server),
        }))
    }

    /// Reads certificate and key, perhaps from other files. What comes back makes them count: connections that are open
    /// keep theirs, new ones get the new.
    ///
    /// # Errors
    /// Says what is wrong; the certificate stays as it was.
    pub(crate) fn prepare(&self, config: &Config) -> Result<impl FnOnce() + Send + use<>, TlsError> {
        let new = read(
            config.server.tls_cert_file.as_ref(),
            config.server.tls_key_file.as_ref(),
        )?;
        let current = Arc::clone(&self.current);
        Ok(move || *current.0.write().unwrap_or_else(PoisonError::into_inner) = new)
    }

    /// What makes connections of sockets.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

fn wrong(path: &std::path::Path, why: &dyn std::fmt::Display) -> TlsError {
    TlsError {
        path: path.display().to_string(),
        why: why.to_string(),
    }
}

fn read(certificate: &std::path::Path, key: &std::path::Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = CertificateDer::pem_file_iter(certificate).map_err(|error| wrong(certificate, &error))?;
    let chain: Vec<_> = chain
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(certificate, &error))?;
    if chain.is_empty() {
        return Err(wrong(certificate, &"there is no certificate in it"));
    }
    // Never the error's own text: it might quote the file.
    let own = PrivateKeyDer::from_pem_file(key).map_err(|_| wrong(key, &"there is no private key in PEM in it"))?;
    let signer =
        aws_lc_rs::sign::any_supported_type(&own).map_err(|_| wrong(key, &"its kind of key is not supported"))?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(error) => Err(wrong(key, &format!("it does not belong to the certificate: {error}"))),
    }
}
