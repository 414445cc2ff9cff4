//! Certificates: they are read again when their files change.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::config::{ConfigError, TlsConfig};

/// How often the files are checked.
pub(in crate::serve) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The configuration of TLS that new connections use.
pub(in crate::serve) type TlsState = Arc<ArcSwap<ServerConfig>>;

/// The files of a certificate, which are checked for changes.
#[derive(Debug)]
pub(in crate::serve) struct TlsFiles {
    config: TlsConfig,
    state: TlsState,
    seen: Vec<Option<SystemTime>>,
}

impl TlsFiles {
    /// Reads the files.
    pub(in crate::serve) fn open(config: TlsConfig) -> Result<Self, ConfigError> {
        let seen = modified(&config);
        let state = read(&config).map_err(ConfigError::Invalid)?;
        Ok(Self { config, state: Arc::new(ArcSwap::from_pointee(state)), seen })
    }

    pub(in crate::serve) fn state(&self) -> TlsState {
        self.state.clone()
    }

    /// Reads the files again whenever they have changed. If they cannot be used, keeps what was read before, and
    /// logs why.
    pub(in crate::serve) async fn follow(mut self) {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let modified = modified(&self.config);
            if modified == self.seen {
                continue;
            }
            self.seen = modified;
            match read(&self.config) {
                Ok(state) => {
                    self.state.store(Arc::new(state));
                    tracing::info!("read the certificate of the server again");
                }
                Err(reason) => tracing::warn!("keeping the certificate that was read before: {reason}"),
            }
        }
    }
}

/// Returns when the files were changed.
fn modified(config: &TlsConfig) -> Vec<Option<SystemTime>> {
    let files = [Some(&config.certificate), Some(&config.key), config.client_ca.as_ref()];
    let time =
        |path: &std::path::PathBuf| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    files.into_iter().flatten().map(time).collect()
}

fn read(config: &TlsConfig) -> Result<ServerConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = read_certificates("server.tls.certificate", &config.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&config.key)
        .map_err(|error| describe("server.tls.key", &config.key, &error))?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("server.tls: {error}"))?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in read_certificates("server.tls.client_ca", path)? {
                roots.add(certificate).map_err(|error| describe("server.tls.client_ca", path, &error))?;
            }
            // Clients without a certificate may have a token.
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                .allow_unauthenticated()
                .build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| describe("server.tls.client_ca", path, &error))?,
            )
        }
    };
    let mut tls = builder
        .with_single_cert(chain, key)
        .map_err(|error| describe("server.tls.certificate", &config.certificate, &error))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

fn read_certificates(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(format!("{setting}: {} has no certificate: it must be a PEM file", path.display()))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(describe(setting, path, &error)),
    }
}

fn describe(setting: &str, path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{setting}: cannot use {}: {error}", path.display())
}
