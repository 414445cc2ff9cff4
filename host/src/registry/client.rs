//! Requests to a schema registry: to any of its addresses, again after failures that may pass, within limits of time and
//! bytes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::escape::one_line;
use crate::registry::{Reference, RegistryError, RegistryOptions};
use crate::sync::lock;

/// The largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// How much of a message of a registry is repeated.
const MAX_MESSAGE_CHARS: usize = 500;

/// The pauses between attempts.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The media type of the API.
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// What is percent-encoded in a part of a path: everything but letters, digits and `-._~`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A schema registry.
#[derive(Debug)]
pub(crate) struct Registry {
    options: RegistryOptions,
    urls: Vec<Url>,
    client: Client,
    /// Which address answered last.
    preferred: AtomicUsize,
    /// Whether requests are sent again after failures that may pass.
    is_patient: bool,
}

/// A request: the parts of its path, its parameters, which are encoded already, and its body.
#[derive(Debug, Clone)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) path: &'a [&'a str],
    pub(super) query: String,
    pub(super) body: Option<Value>,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: Method, path: &'a [&'a str]) -> Self {
        Self { method, path, query: String::new(), body: None }
    }

    pub(super) fn get(path: &'a [&'a str]) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn with_body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    /// Adds a parameter.
    pub(super) fn with_parameter(mut self, name: &str, value: &str) -> Self {
        let separator = if self.query.is_empty() { "" } else { "&" };
        self.query.push_str(&format!("{separator}{name}={}", utf8_percent_encode(value, ENCODED)));
        self
    }
}

/// What a registry answers if it does not do something.
#[derive(Debug, Deserialize)]
struct Failure {
    error_code: u32,
    #[serde(default)]
    message: String,
}

impl Registry {
    pub(crate) fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        let (urls, client) = (options.parse_urls()?, options.client()?);
        Ok(Self { options, urls, client, preferred: AtomicUsize::new(0), is_patient: true })
    }

    /// Sends each request to each address once, for callers that try again themselves.
    pub(super) fn with_one_attempt(self) -> Self {
        Self { is_patient: false, ..self }
    }

    /// Returns its first address, for messages.
    pub(crate) fn name(&self) -> &str {
        // OK because there is at least one address.
        self.urls[0].as_str().trim_end_matches('/')
    }

    /// Sends a request until it is answered, and returns the answer. Requests of this API can be repeated.
    pub(super) async fn send<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T, RegistryError> {
        if request.path.iter().any(|part| matches!(*part, "" | "." | "..")) {
            return Err(RegistryError::Options("a subject is not empty, `.` or `..`".to_owned()));
        }
        if !self.is_patient {
            return self.try_all(&request).await;
        }
        let pauses = ExponentialBuilder::default()
            .with_min_delay(MIN_PAUSE)
            .with_max_delay(MAX_PAUSE)
            .with_jitter()
            .without_max_times();
        let last_error = Mutex::new(None);
        let note = |error: &RegistryError, _| {
            if lock(&last_error).replace(error.clone()).is_none() {
                tracing::warn!("{error}; trying again for {:?}", self.options.timeout);
            }
        };
        let attempts = (|| self.try_all(&request))
            .retry(pauses)
            .when(RegistryError::is_temporary)
            .adjust(|error, pause| pause.map(|pause| pause.max(error.retry_after().unwrap_or_default())))
            .notify(note);
        match tokio::time::timeout(self.options.timeout, attempts).await {
            Ok(answer) => answer,
            Err(_) => Err(lock(&last_error).take().unwrap_or_else(|| self.late())),
        }
    }

    /// The error of a request that takes too long.
    pub(super) fn late(&self) -> RegistryError {
        unavailable(&self.urls[0], "it does not answer in time".to_owned())
    }

    /// The error of a schema whose references cannot be followed.
    pub(super) fn refuse_references(&self, reference: &Reference, why: &str) -> RegistryError {
        let Reference { name, subject, version } = reference;
        let reason =
            format!("the schema that it refers to as `{name}`, version {version} of `{subject}`, {why}");
        RegistryError::BadSchema { registry: self.name().to_owned(), reason: shorten(&reason) }
    }

    /// Returns how long a request may take.
    pub(super) fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// Sends a request to each address, until one does what it asks for. Otherwise, one that answers that it does not have it
    /// knows more than those that do not answer.
    async fn try_all<T: DeserializeOwned>(&self, request: &Request<'_>) -> Result<T, RegistryError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut best: Option<RegistryError> = None;
        for turn in 0..self.urls.len() {
            let index = (first + turn) % self.urls.len();
            let base = &self.urls[index];
            let answer =
                self.try_one(base, request).await.and_then(|(status, body)| parse(base, status, &body));
            match answer {
                Ok(answer) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                // Another address may be up to date, or work.
                Err(error) if error.is_not_found() || error.is_temporary() || error.is_of_registry() => {
                    if best.is_none() || error.is_not_found() {
                        best = Some(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        // OK because there is at least one address.
        Err(best.expect("an error"))
    }

    async fn try_one(
        &self,
        base: &Url,
        request: &Request<'_>,
    ) -> Result<(StatusCode, Vec<u8>), RegistryError> {
        let encode = |part: &&str| utf8_percent_encode(part, ENCODED).to_string();
        let path = request.path.iter().map(encode).collect::<Vec<_>>().join("/");
        // OK because the path has only such characters.
        let mut url = base.join(&path).expect("a path");
        url.set_query((!request.query.is_empty()).then_some(&*request.query));
        let mut builder = self.client.request(request.method.clone(), url).header(ACCEPT, MEDIA_TYPE);
        if let Some(body) = &request.body {
            builder = builder.header(CONTENT_TYPE, MEDIA_TYPE).body(body.to_string());
        }
        if let Some(token) = self.options.token()? {
            builder = builder.bearer_auth(token);
        } else if let Some(username) = &self.options.username {
            builder = builder.basic_auth(username, self.options.password.as_ref());
        }
        let response = builder.send().await.map_err(|error| failed(base, &error))?;
        read(base, response).await
    }
}

fn parse<T: DeserializeOwned>(base: &Url, status: StatusCode, body: &[u8]) -> Result<T, RegistryError> {
    serde_json::from_slice(body).map_err(|error| bad_answer(base, status, &error.to_string()))
}

/// Reads an answer.
async fn read(base: &Url, mut response: Response) -> Result<(StatusCode, Vec<u8>), RegistryError> {
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(base, &error))? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            let reason = format!("the answer has more than {MAX_ANSWER_BYTES} bytes");
            return Err(RegistryError::BadSchema { registry: name(base), reason });
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        return Ok((status, body));
    }
    let failure = serde_json::from_slice::<Failure>(&body).ok();
    let reason = failure.as_ref().map(|failure| shorten(&failure.message));
    let plain = || format!("it answers {status}");
    let registry = name(base);
    Err(match (status, failure) {
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
            let reason = reason.unwrap_or_else(plain);
            RegistryError::Forbidden { registry, status: status.as_u16(), reason }
        }
        (
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE,
            _,
        ) => {
            let after = response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok());
            let retry_after = after.and_then(|after| after.parse().ok()).map(Duration::from_secs);
            RegistryError::Unavailable { registry, reason: plain(), retry_after, is_of_request: false }
        }
        (status, _) if status.is_server_error() => RegistryError::Unavailable {
            registry,
            reason: reason.unwrap_or_else(plain),
            retry_after: None,
            is_of_request: status == StatusCode::INTERNAL_SERVER_ERROR,
        },
        (status, _) if status.is_redirection() => bad_answer(
            base,
            status,
            &format!("{}, and redirects are not followed: name the address that it leads to", plain()),
        ),
        // Another code is that of a wrong path.
        (StatusCode::NOT_FOUND, Some(Failure { error_code: 40_400..=40_499, message })) => {
            RegistryError::NotFound { registry, reason: shorten(&message) }
        }
        (status, Some(failure)) if status != StatusCode::NOT_FOUND => {
            RegistryError::Refused { registry, status: status.as_u16(), reason: shorten(&failure.message) }
        }
        _ => bad_answer(
            base,
            status,
            &format!("{}; check the path of the address, which is /apis/ccompat/v7 for Apicurio", plain()),
        ),
    })
}

/// The error of a request that was not answered.
fn failed(base: &Url, error: &reqwest::Error) -> RegistryError {
    let mut reason = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let separator = if reason.is_empty() { "" } else { ": " };
        reason = format!("{reason}{separator}{cause}");
        source = cause.source();
    }
    if error.is_builder() {
        return RegistryError::Options(format!("the request cannot be sent: {}", shorten(&reason)));
    }
    let what = if error.is_timeout() { "it does not answer in time" } else { "the connection failed" };
    unavailable(base, if reason.is_empty() { what.to_owned() } else { shorten(&reason) })
}

fn unavailable(base: &Url, reason: String) -> RegistryError {
    RegistryError::Unavailable { registry: name(base), reason, retry_after: None, is_of_request: false }
}

fn bad_answer(base: &Url, status: StatusCode, reason: &str) -> RegistryError {
    RegistryError::BadAnswer { registry: name(base), status: status.as_u16(), reason: shorten(reason) }
}

fn name(base: &Url) -> String {
    base.as_str().trim_end_matches('/').to_owned()
}

/// Escapes and shortens what a server said.
fn shorten(text: &str) -> String {
    let end = text.char_indices().nth(MAX_MESSAGE_CHARS).map_or(text.len(), |(end, _)| end);
    one_line(&text[..end]).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::registry::{Schema, SchemaType};

    const GOOD: &str = r#"{"schemaType": "JSON", "schema": "{}"}"#;

    /// Answers each connection with the next of these answers, and the last one again and again. Returns the address, and
    /// how many requests were received.
    async fn serve(answers: Vec<(u16, String)>) -> (String, Arc<AtomicU32>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicU32::new(0));
        let received = requests.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let number = received.fetch_add(1, Ordering::Relaxed) as usize;
                let (status, body) = answers[number.min(answers.len() - 1)].clone();
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).await;
                    let head = format!(
                        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                        body.len()
                    );
                    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                });
            }
        });
        (url, requests)
    }

    async fn schema(urls: Vec<String>) -> Result<Schema, RegistryError> {
        let options = RegistryOptions { urls, timeout: Duration::from_secs(2), ..RegistryOptions::new("") };
        Registry::new(options).unwrap().schema(1).await
    }

    fn failure(code: u32) -> String {
        format!(r#"{{"error_code": {code}, "message": "why"}}"#)
    }

    #[tokio::test]
    async fn failures_that_may_pass_are_tried_again() {
        for (status, body) in [(500, "<html>".to_owned()), (503, failure(50301)), (429, String::new())] {
            let (url, requests) =
                serve(vec![(status, body.clone()), (status, body), (200, GOOD.to_owned())]).await;
            assert_eq!(schema(vec![url]).await.unwrap().schema_type, SchemaType::Json, "{status}");
            assert_eq!(requests.load(Ordering::Relaxed), 3);
        }
        let (url, requests) = serve(vec![(500, "no".to_owned())]).await;
        let error = schema(vec![url]).await.unwrap_err();
        assert!(
            matches!(&error, RegistryError::Unavailable { reason, .. } if reason.contains("500")),
            "{error}"
        );
        assert!((2..40).contains(&requests.load(Ordering::Relaxed)), "with pauses");
    }

    #[tokio::test]
    async fn another_address_is_used_while_one_fails() {
        let (bad, _) = serve(vec![(500, String::new())]).await;
        let (good, requests) = serve(vec![(200, GOOD.to_owned())]).await;
        let unused = "http://127.0.0.1:1".to_owned();
        assert!(schema(vec![unused, bad, good]).await.is_ok());
        assert_eq!(requests.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn an_address_that_hangs_leaves_time_for_another_one() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (good, _) = serve(vec![(200, GOOD.to_owned())]).await;
        assert!(schema(vec![format!("http://{}", silent.local_addr().unwrap()), good]).await.is_ok());
    }

    #[tokio::test]
    async fn other_failures_are_not_tried_again() {
        type Check = fn(&RegistryError) -> bool;
        let cases: [(u16, String, Check); 8] = [
            (404, failure(40403), |error| error.is_not_found()),
            (404, "<html>".to_owned(), |error| matches!(error, RegistryError::BadAnswer { .. })),
            (401, String::new(), |error| matches!(error, RegistryError::Forbidden { status: 401, .. })),
            (403, failure(40301), |error| matches!(error, RegistryError::Forbidden { status: 403, .. })),
            (409, failure(409), |error| matches!(error, RegistryError::Refused { status: 409, .. })),
            (422, failure(42201), |error| matches!(error, RegistryError::Refused { status: 422, .. })),
            (302, String::new(), |error| matches!(error, RegistryError::BadAnswer { .. })),
            (200, "<html>".to_owned(), |error| matches!(error, RegistryError::BadAnswer { .. })),
        ];
        for (status, body, is_expected) in cases {
            let (url, requests) = serve(vec![(status, body)]).await;
            let error = schema(vec![url]).await.unwrap_err();
            assert!(is_expected(&error), "{status}: {error:?}");
            assert_eq!(requests.load(Ordering::Relaxed), 1, "{error:?}");
        }
        let (url, _) = serve(vec![(200, "x".repeat(MAX_ANSWER_BYTES + 1))]).await;
        let error = schema(vec![url]).await.unwrap_err();
        assert!(
            matches!(&error, RegistryError::BadSchema { reason, .. } if reason.contains("bytes")),
            "{error}"
        );
        let message = format!(r#"{{"error_code": 42201, "message": "{}\u001b[31m"}}"#, "é".repeat(1_000));
        let (url, _) = serve(vec![(422, message)]).await;
        let error = schema(vec![url]).await.unwrap_err().to_string();
        assert!(error.chars().count() < 700 && !error.contains('\u{1b}'), "{error}");
    }

    #[test]
    fn an_address_has_no_credentials_and_a_known_scheme() {
        for url in
            ["localhost:8081", "ftp://user:secret@a", "http://user:secret@host:99999", "http://a?b", ""]
        {
            let error = Registry::new(RegistryOptions::new(url)).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(Registry::new(RegistryOptions { urls: Vec::new(), ..RegistryOptions::new("") }).is_err());
    }
}
