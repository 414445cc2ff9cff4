//! A server, and requests to it.

use std::path::Path;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderMap;
use reqwest::{Certificate, Client, Identity, Method, RequestBuilder, Response};
use serde_json::Value;

use crate::cli::CliError;
use crate::cli::args::ServerArgs;
use crate::cli::remote::problem::RemoteProblem;
use crate::escape::one_line;
use crate::file::{FileError, read_text};

/// The server that `swap` talks to if nothing names another one.
const DEFAULT_SERVER: &str = "http://127.0.0.1:7470";

/// What is percent-encoded in a path: everything but letters, digits, `-._~`, and `:`, which paths such as
/// `entries:batch` contain.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b':').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The environment variable with the address of a server.
pub(super) const SERVER_VARIABLE: &str = "KTABLES_SERVER";

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server may send nothing, in addition to the time that requests ask it to wait.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The largest file with a token or certificates that is read, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;

/// The largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// The answer of a server.
pub(super) struct Reply {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// A server.
#[derive(Debug)]
pub(in crate::cli) struct Remote {
    client: Client,
    base: String,
    token: Option<String>,
}

impl Remote {
    /// The server of the arguments. `wait_time` is how long requests ask it to wait.
    pub(in crate::cli) fn new(args: &ServerArgs, wait_time: Duration) -> Result<Self, CliError> {
        // OK to ignore: it was installed before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let variable = || std::env::var(SERVER_VARIABLE).ok().filter(|url| !url.is_empty());
        let base = args.server.clone().or_else(variable);
        let base = base.unwrap_or_else(|| DEFAULT_SERVER.to_owned()).trim_end_matches('/').to_owned();
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(CliError::Usage(format!(
                "`{}` is not the address of a server: write for example {DEFAULT_SERVER}",
                one_line(&base)
            )));
        }
        if base.contains('@') {
            return Err(CliError::Usage(
                "the address of a server has no user and no password: set KTABLES_TOKEN, or --token-file"
                    .to_owned(),
            ));
        }
        let token = match &args.token_file {
            Some(file) => Some(read_token(file)?),
            None => std::env::var("KTABLES_TOKEN").ok().filter(|token| !token.is_empty()),
        };
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT.saturating_add(wait_time));
        if let Some(file) = &args.ca {
            let pem = read(file, "read the certificates")?;
            let certificates =
                Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| unusable(file, &error))?;
            if certificates.is_empty() {
                return Err(CliError::Usage(format!(
                    "{} has no certificate: it must be a PEM file",
                    file.display()
                )));
            }
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
    pub(in crate::cli) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.request_with_query(method, path, "")
    }

    /// Begins a request with parameters, which are encoded already.
    pub(in crate::cli) fn request_with_query(
        &self,
        method: Method,
        path: &[&str],
        query: &str,
    ) -> RequestBuilder {
        let encode = |part: &&str| utf8_percent_encode(part, ENCODED).to_string();
        let path = path.iter().map(encode).collect::<Vec<_>>().join("/");
        let request = self.client.request(method, format!("{}/{path}?{query}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request, and returns the answer as JSON. A problem is an error.
    pub(in crate::cli) async fn send(&self, request: RequestBuilder) -> Result<Value, CliError> {
        let reply = self.reply(request).await?;
        serde_json::from_slice(&reply.body)
            .map_err(|error| self.failed(&format!("its answer is not JSON: {error}")))
    }

    /// Sends a request, and returns the whole answer. A problem is an error.
    pub(super) async fn reply(&self, request: RequestBuilder) -> Result<Reply, RemoteProblem> {
        let mut response = self.open(request).await?;
        let headers = std::mem::take(response.headers_mut());
        Ok(Reply { headers, body: self.read(response).await? })
    }

    /// Sends a request, and returns the answer, whose body was not read yet. A problem is an error.
    pub(super) async fn open(&self, request: RequestBuilder) -> Result<Response, RemoteProblem> {
        let mut response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let headers = std::mem::take(response.headers_mut());
        Err(RemoteProblem::new(status, &self.read(response).await?, headers))
    }

    pub(super) async fn read(&self, mut response: Response) -> Result<Vec<u8>, RemoteProblem> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER_BYTES {
                return Err(self
                    .failed(&format!(
                        "its answer has more than {MAX_ANSWER_BYTES} bytes: is it a ktables server?"
                    ))
                    .into());
            }
        }
        Ok(body)
    }

    /// The error of a request that was not answered.
    fn unreachable(&self, error: reqwest::Error) -> CliError {
        if error.is_builder() {
            return CliError::Usage(
                "the address of the request would be too long: a server takes keys of up to about 20,000 bytes from this \
                 command, so name the topic with --log and --topic"
                    .to_owned(),
            );
        }
        let reason = describe(&error.without_url());
        // It may have answered and closed the connection while the body was sent.
        let advice = match reason.contains("error writing a body") {
            true => {
                "; it may have refused a large body before it was sent, because the caller may not do this, or because \
                     it is larger than server.max_body or server.max_component"
            }
            false => "",
        };
        self.failed(&format!("{reason}{advice}"))
    }

    /// The error of a server that cannot be reached, or whose answer is not one of a ktables server.
    pub(super) fn failed(&self, reason: &str) -> CliError {
        CliError::Server(format!("the server {}: {reason}", one_line(&self.base)))
    }
}

fn read_token(file: &Path) -> Result<String, CliError> {
    let text = read(file, "read the token")?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CliError::Usage(format!(
            "{} has no token: a token is one line without blanks",
            file.display()
        )));
    }
    Ok(token.to_owned())
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
