//! A server that a command talks to.

use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, Client, Identity, Method, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::cli::CliError;
use crate::cli::args::ServerArgs;
use crate::escape::one_line;
use crate::file::{FileError, read_text};

/// The server that commands talk to by default.
const DEFAULT_SERVER: &str = "http://127.0.0.1:7470";

/// How long connecting may take, and the server may say nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The largest file with a token or certificates that is read, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;

/// The largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A server.
#[derive(Debug)]
pub(super) struct Remote {
    client: Client,
    base: String,
    token: Option<String>,
}

impl Remote {
    pub(super) fn new(args: &ServerArgs) -> Result<Self, CliError> {
        // OK to ignore: it was installed before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = args.server.clone().or_else(|| std::env::var("KTABLES_SERVER").ok());
        let base = base.unwrap_or_else(|| DEFAULT_SERVER.to_owned()).trim_end_matches('/').to_owned();
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(CliError::Usage(format!(
                "`{}` is not the address of a server: write for example {DEFAULT_SERVER}",
                one_line(&base)
            )));
        }
        let token = match &args.token_file {
            Some(file) => Some(read(file, "read the token")?.trim().to_owned()),
            None => std::env::var("KTABLES_TOKEN").ok().filter(|token| !token.is_empty()),
        };
        let mut builder = Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT);
        if let Some(file) = &args.ca {
            let pem = read(file, "read the certificates")?;
            let certificates =
                Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| unusable(file, &error))?;
            builder = builder.tls_certs_only(certificates);
        }
        if let (Some(cert), Some(key)) = (&args.cert, &args.key_file) {
            let pem = format!("{}\n{}", read(cert, "read the certificate")?, read(key, "read the key")?);
            builder =
                builder.identity(Identity::from_pem(pem.as_bytes()).map_err(|error| unusable(cert, &error))?);
        }
        let client = builder.build().map_err(|error| CliError::Server(describe(&error)))?;
        Ok(Self { client, base, token })
    }

    /// Begins a request. The parts of the path are encoded.
    pub(super) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.request_with_query(method, path, "")
    }

    /// Begins a request with parameters, which are encoded already.
    pub(super) fn request_with_query(&self, method: Method, path: &[&str], query: &str) -> RequestBuilder {
        let encode = |part: &&str| {
            percent_encoding::utf8_percent_encode(part, percent_encoding::NON_ALPHANUMERIC).to_string()
        };
        let path = path.iter().map(encode).collect::<Vec<_>>().join("/");
        let request = self.client.request(method, format!("{}/{path}?{query}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request, and returns the answer. A problem is an error.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Value, CliError> {
        let mut response = request.send().await.map_err(|error| CliError::Server(describe(&error)))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| CliError::Server(describe(&error)))? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER_BYTES {
                return Err(CliError::Server(format!("the answer has more than {MAX_ANSWER_BYTES} bytes")));
            }
        }
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        let detail = answer["detail"].as_str().unwrap_or("it gave no reason");
        let reason = format!("the server answered {status}: {}", one_line(detail));
        Err(match status {
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => CliError::Usage(reason),
            _ => CliError::Server(reason),
        })
    }
}

fn read(file: &Path, action: &'static str) -> Result<String, CliError> {
    read_text(file, MAX_FILE_BYTES).map_err(FileError::of::<CliError>(action, file))
}

fn unusable(file: &Path, error: &reqwest::Error) -> CliError {
    CliError::Usage(format!("{} cannot be used: {}", file.display(), describe(error)))
}

/// Describes an error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    one_line(&text).to_string()
}
