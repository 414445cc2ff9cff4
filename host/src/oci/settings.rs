//! The settings of a registry, and the HTTP client for it.

use std::path::PathBuf;
use std::time::Duration;

use openssl::x509::X509;
use reqwest::tls::TlsInfo;
use reqwest::{Certificate, Client, ClientBuilder, Url};

use crate::escape::one_line_within;
use crate::file::{FileError, read_bounded};
use crate::oci::OciError;
use crate::oci::reference::host_name;

/// The largest file with certificates that is read, in bytes.
const MAX_CA_BYTES: usize = 4 << 20;

/// The most headers of an answer, and the most bytes in them.
const MAX_HEADERS: usize = 100;
pub(crate) const MAX_HEADER_BYTES: usize = 64 << 10;

/// How much of what a certificate says an error repeats, in bytes.
const SHOWN: usize = 200;

/// How long a registry may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NetworkLimits {
    /// To accept a connection.
    pub(crate) connect: Duration,
    /// To send the first byte of an answer, and each of the next parts.
    pub(crate) read: Duration,
    /// For an artifact as a whole.
    pub(crate) artifact: Duration,
    /// For a credential helper.
    pub(crate) helper: Duration,
    /// The first pause before a request is sent again. The next one is longer.
    pub(crate) pause: Duration,
}

impl Default for NetworkLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            read: Duration::from_secs(15),
            artifact: Duration::from_secs(120),
            helper: Duration::from_secs(10),
            pause: Duration::from_millis(300),
        }
    }
}

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transfer {
    Download,
    Upload,
}

/// How to reach a registry with codecs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RegistrySettings {
    /// A file with certificates of authorities, which are trusted beside those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// The file with the credentials, in the format of docker's config.json.
    pub(crate) auth_file: Option<PathBuf>,
    /// Where to look first, by digest only: oci-layout:DIR, or oci://HOST/REPO.
    pub(crate) mirrors: Vec<String>,
    /// Other hosts that may receive credentials to issue a token.
    pub(crate) auth_hosts: Vec<String>,
    /// Whether to use HTTP without TLS. By default, only registries on this machine may, if they do not use TLS.
    pub(crate) plain_http: Option<bool>,
    /// The largest component that is fetched, in bytes.
    pub(crate) max_size: Option<usize>,
}

impl RegistrySettings {
    /// Creates the client for the registry.
    pub(crate) fn client(
        &self,
        limits: NetworkLimits,
        transfer: Transfer,
        is_loopback: bool,
    ) -> Result<Client, OciError> {
        let mut builder = self.builder(limits)?;
        builder = match transfer {
            Transfer::Download => builder.read_timeout(limits.read),
            // The time until the answer includes that for the body.
            Transfer::Upload => builder.timeout(limits.artifact),
        };
        if is_loopback {
            builder = builder.no_proxy();
        }
        builder.build().map_err(|error| OciError::Failed(format!("cannot create a client: {error}")))
    }

    fn builder(&self, limits: NetworkLimits) -> Result<ClientBuilder, OciError> {
        // OK to ignore: it was installed before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("ktables/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect)
            .http1_max_headers(MAX_HEADERS)
            .http2_max_header_list_size(MAX_HEADER_BYTES as u32)
            // Redirects are checked before they are followed.
            .redirect(reqwest::redirect::Policy::none());
        if let Some(file) = &self.ca {
            let pem =
                read_bounded(file, MAX_CA_BYTES).map_err(FileError::of::<OciError>("read `ca`", file))?;
            let unusable = |reason: &str| {
                OciError::Usage(format!(
                    "cannot use `ca` {}: {reason}. Write certificates in PEM.",
                    file.display()
                ))
            };
            let certificates =
                Certificate::from_pem_bundle(&pem).map_err(|error| unusable(&error.to_string()))?;
            if certificates.is_empty() {
                return Err(unusable("it has no certificate"));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        Ok(builder)
    }

    /// Returns the error of a registry whose certificate is not trusted. Connects once more, without credentials, to find out
    /// who issued it.
    pub(crate) async fn explain_certificate(
        &self,
        host: &str,
        reason: &str,
        limits: NetworkLimits,
    ) -> OciError {
        let bundle = openssl_probe::probe().cert_file;
        let system = bundle.map_or_else(|| "none found".to_owned(), |file| file.display().to_string());
        let issuer = self.find_issuer(host, limits).await;
        let issuer = issuer.map_or_else(
            || format!("is not trusted ({reason})"),
            |issuer| format!("was issued by \"{issuer}\""),
        );
        let name = host_name(host);
        if reason.contains("UnknownIssuer") || reason.contains("unknown issuer") {
            let own = self.ca.as_ref().map_or_else(String::new, |ca| format!(" or in {}", ca.display()));
            return OciError::Failed(format!(
                "cannot connect to {host}: its certificate {issuer}, which is not among the system's CAs ({system}){own}. If \
                 you trust this CA, set `ca = \"FILE\"` for this registry."
            ));
        }
        OciError::Failed(format!(
            "cannot connect to {host}: its certificate cannot be used for {name} ({reason}). Check the name in the \
             reference, the clock, and the certificate."
        ))
    }

    async fn find_issuer(&self, host: &str, limits: NetworkLimits) -> Option<String> {
        let builder = self.builder(limits).ok()?;
        let client = builder.tls_danger_accept_invalid_certs(true).tls_info(true).build().ok()?;
        let url = Url::parse(&format!("https://{host}/v2/")).ok()?;
        let response = tokio::time::timeout(limits.read, client.get(url).send()).await.ok()?.ok()?;
        let certificate = response.extensions().get::<TlsInfo>()?.peer_certificate()?.to_vec();
        let certificate = X509::from_der(&certificate).ok()?;
        let names: Vec<String> = certificate
            .issuer_name()
            .entries()
            .filter_map(|entry| Some((entry.object().nid(), entry.data().to_string().ok()?)))
            .filter(|(nid, _)| {
                [openssl::nid::Nid::COMMONNAME, openssl::nid::Nid::ORGANIZATIONNAME].contains(nid)
            })
            .map(|(_, name)| name)
            .collect();
        // The common name is the last of the two.
        names.last().map(|name| one_line_within(name, SHOWN).to_string())
    }
}
