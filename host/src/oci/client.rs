//! Requests to a registry: with credentials, again after failures that may pass, within limits of time and bytes.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION,
    RETRY_AFTER,
};
use reqwest::{Body, Client, Method, Response, StatusCode, Url};
use tokio::sync::OnceCell;

use crate::escape::one_line_within;
use crate::oci::auth::{Challenge, TOKEN_AGE, TokenRequest, describe, is_forbidden_address};
use crate::oci::credentials::{self, Credentials};
use crate::oci::settings::{MAX_HEADER_BYTES, NetworkLimits, RegistrySettings, Transfer};
use crate::oci::{OciError, Repository};
use crate::sync::lock;

/// How often a request is sent at most.
const TRIES: usize = 3;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;

/// The longest pause that a registry may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// How much of what a registry says an error repeats, in bytes.
const SHOWN: usize = 200;

/// What a request may do, as registries name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Actions {
    Pull,
    Push,
}

impl Actions {
    fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        }
    }
}

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<bytes::Bytes>,
    pub(super) actions: Actions,
    /// The origin of the registry, which alone receives credentials.
    pub(super) own: String,
}

impl Request {
    /// Whether an address is that of the registry.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        url.origin().ascii_serialization() == self.own
    }

    fn is_read(&self) -> bool {
        [Method::GET, Method::HEAD].contains(&self.method)
    }

    /// Whether redirects are followed: manifests and blobs have digests, so it does not matter who sends them.
    fn may_be_redirected(&self) -> bool {
        ["/manifests/", "/blobs/"].iter().any(|part| self.url.path().contains(part))
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        // OK because callers pass media types and numbers.
        self.headers.insert(name, HeaderValue::from_str(value).expect("a header"));
        self
    }

    pub(super) fn with_body(mut self, media_type: &str, body: impl Into<bytes::Bytes>) -> Self {
        self.body = Some(body.into());
        self.with_header(CONTENT_TYPE, media_type)
    }
}

/// An answer that is neither a redirect nor a failure of the registry, and where it came from.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) url: Url,
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}

/// A header `Authorization`, for some actions, and when it was obtained.
#[derive(Debug, Clone)]
struct Authorization {
    actions: Actions,
    header: HeaderValue,
    obtained: Instant,
}

/// A client for one repository.
#[derive(Debug)]
pub(crate) struct RegistryClient {
    repository: Repository,
    settings: RegistrySettings,
    limits: NetworkLimits,
    http: Client,
    /// The client for requests with a body, which take as long as the body needs.
    uploads: Client,
    /// `https` or `http`.
    scheme: OnceCell<&'static str>,
    credentials: OnceCell<Credentials>,
    /// A std lock: held to read or replace it.
    authorization: Mutex<Option<Authorization>>,
}

impl RegistryClient {
    pub(crate) fn new(
        repository: &Repository,
        settings: &RegistrySettings,
        limits: NetworkLimits,
    ) -> Result<Self, OciError> {
        Ok(Self {
            repository: repository.clone(),
            settings: settings.clone(),
            limits,
            http: settings.client(limits, Transfer::Download, repository.is_loopback())?,
            uploads: settings.client(limits, Transfer::Upload, repository.is_loopback())?,
            scheme: OnceCell::new(),
            credentials: OnceCell::new(),
            authorization: Mutex::new(None),
        })
    }

    pub(crate) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Returns the host with its port.
    pub(crate) fn host(&self) -> &str {
        &self.repository.host
    }

    pub(super) fn limits(&self) -> NetworkLimits {
        self.limits
    }

    /// Creates a request for a path of the repository, for example `manifests/1.0.0`.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        actions: Actions,
    ) -> Result<Request, OciError> {
        // The name by which Docker's own registry is known is not the address of its API.
        let host = if self.host() == "docker.io" { "registry-1.docker.io" } else { self.host() };
        let scheme = self.scheme.get_or_try_init(|| self.find_scheme(host)).await?;
        let text = format!("{scheme}://{host}/v2/{}/{path}", self.repository.name);
        let url = Url::parse(&text).map_err(|error| {
            OciError::Usage(format!("cannot connect to {host}: {error}. Check the host in the reference."))
        })?;
        let own = url.origin().ascii_serialization();
        Ok(Request { method, url, headers: HeaderMap::new(), body: None, actions, own })
    }

    /// Finds out whether a registry on this machine uses TLS. All others do, unless a setting says otherwise.
    async fn find_scheme(&self, host: &str) -> Result<&'static str, OciError> {
        match self.settings.plain_http {
            Some(true) => return Ok("http"),
            Some(false) => return Ok("https"),
            None if !self.repository.is_loopback() || self.settings.ca.is_some() => return Ok("https"),
            None => {}
        }
        // A server with TLS answers plain HTTP with an error of its own, or with something that is no HTTP.
        match self.http.get(format!("http://{host}/v2/")).send().await {
            Ok(response) if response.status() == StatusCode::BAD_REQUEST => Ok("https"),
            Ok(_) => Ok("http"),
            Err(error) if error.is_connect() || error.is_timeout() => Ok("http"),
            Err(_) => Ok(match self.http.get(format!("https://{host}/v2/")).send().await {
                Err(error) if !is_certificate_error(&error) => "http",
                _ => "https",
            }),
        }
    }

    /// Sends a request. Returns answers of success, and those that say that something is not there or not possible.
    pub(super) async fn send(&self, request: Request) -> Result<Answer, OciError> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(self.limits.pause)
            .with_max_times(TRIES - 1)
            .with_jitter()
            .build();
        loop {
            let (error, retry_after) = match self.send_authorized(&request).await? {
                Outcome::Answer(answer) => return Ok(answer),
                Outcome::Temporary { error, retry_after } => (error, retry_after),
            };
            let Some(pause) = pauses.next() else { return Err(error) };
            tracing::debug!("{error}; trying again");
            let asked = retry_after.filter(|after| *after <= MAX_RETRY_AFTER).unwrap_or_default();
            tokio::time::sleep(pause.max(asked)).await;
        }
    }

    /// Sends a request, with credentials if the registry asks for some.
    async fn send_authorized(&self, request: &Request) -> Result<Outcome, OciError> {
        let known = self.authorization(request.actions);
        let outcome = self.send_with(request, known.as_ref()).await?;
        let Outcome::Answer(answer) = outcome else { return Ok(outcome) };
        let is_own = request.is_own(&answer.url);
        if !is_own || answer.status() != StatusCode::UNAUTHORIZED {
            return self.check(request, answer);
        }
        // A token that was used before may have expired: it is renewed once.
        let Some(challenge) = Challenge::find(answer.response.headers()) else {
            return self.check(request, answer);
        };
        let Some(header) = self.authorize(&challenge, request.actions).await? else {
            return self.check(request, answer);
        };
        match self.send_with(request, Some(&header)).await? {
            Outcome::Answer(answer) => self.check(request, answer),
            outcome @ Outcome::Temporary { .. } => Ok(outcome),
        }
    }

    fn authorization(&self, actions: Actions) -> Option<HeaderValue> {
        let known = lock(&self.authorization).clone()?;
        let is_enough = known.actions == actions || known.actions == Actions::Push;
        (is_enough && known.obtained.elapsed() < TOKEN_AGE).then_some(known.header)
    }

    /// Answers a challenge, and remembers the answer for later requests.
    async fn authorize(
        &self,
        challenge: &Challenge,
        actions: Actions,
    ) -> Result<Option<HeaderValue>, OciError> {
        let credentials = self.credentials().await?;
        let request = TokenRequest {
            repository: &self.repository,
            is_plain: self.scheme.get() == Some(&"http"),
            auth_hosts: &self.settings.auth_hosts,
            credentials,
            actions: actions.name(),
            http: &self.http,
            limits: self.limits,
        };
        let header = request.answer(challenge).await?;
        if let Some(header) = &header {
            let authorization = Authorization { actions, header: header.clone(), obtained: Instant::now() };
            *lock(&self.authorization) = Some(authorization);
        }
        Ok(header)
    }

    async fn credentials(&self) -> Result<&Credentials, OciError> {
        let file = self.settings.auth_file.as_deref();
        self.credentials
            .get_or_try_init(|| credentials::find(&self.repository, file, self.limits.helper))
            .await
    }

    /// Sends a request, and follows redirects of requests that only read.
    async fn send_with(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Outcome, OciError> {
        let mut url = request.url.clone();
        let mut hops = vec![url.host_str().unwrap_or_default().to_owned()];
        loop {
            let is_own = request.is_own(&url);
            let mut headers = request.headers.clone();
            if let Some(header) = authorization.filter(|_| is_own) {
                headers.insert(AUTHORIZATION, header.clone());
            }
            let http = if request.body.is_some() { &self.uploads } else { &self.http };
            let mut builder = http.request(request.method.clone(), url.clone()).headers(headers);
            if let Some(body) = &request.body {
                builder = builder.body(Body::from(body.clone()));
            }
            let response = match builder.send().await {
                Ok(response) => response,
                Err(error) => return self.explain(&url, &error).await,
            };
            check_headers(self.host(), response.headers())?;
            if !(request.is_read() && response.status().is_redirection()) {
                return Ok(Outcome::Answer(Answer { response, url }));
            }
            let target = response.headers().get(LOCATION).and_then(|target| target.to_str().ok());
            let target = target.and_then(|target| url.join(target).ok());
            let Some(target) = target else {
                return Err(self.refuse_redirect("the registry redirects to no address"));
            };
            hops.push(target.host_str().unwrap_or_default().to_owned());
            if hops.len() > MAX_REDIRECTS + 1 {
                let hops = one_line_within(&hops.join(" → "), SHOWN).to_string();
                return Err(OciError::Failed(format!(
                    "cannot fetch the codec: the registry redirected {MAX_REDIRECTS} times ({hops}), which is the limit. Check \
                     the registry's configuration."
                )));
            }
            if !request.may_be_redirected() {
                return Err(self.refuse_redirect("the registry redirects a request for a list"));
            }
            self.check_redirect(&url, &target)?;
            url = target;
        }
    }

    fn refuse_redirect(&self, what: &str) -> OciError {
        OciError::Failed(format!(
            "cannot fetch the codec: {what}, and ktables refuses that. Check the registry's configuration."
        ))
    }

    fn check_redirect(&self, from: &Url, to: &Url) -> Result<(), OciError> {
        let shown = one_line_within(to.as_str(), SHOWN);
        match to.scheme() {
            "https" => {}
            "http" if from.scheme() == "http" => {}
            "http" => return Err(self.refuse_redirect("the registry redirects from https to http")),
            _ => return Err(self.refuse_redirect(&format!("the registry redirects to {shown}"))),
        }
        if !to.username().is_empty() || to.password().is_some() {
            return Err(self.refuse_redirect("the registry redirects to an address with a user name"));
        }
        // A registry with a domain name may not send its clients into the network of the machine.
        let host = to.host_str().unwrap_or_default();
        if is_forbidden_address(host) {
            return Err(self.refuse_redirect(&format!("the registry redirects to {shown}")));
        }
        Ok(())
    }

    /// Tells failures that may pass, and those that do not, from answers.
    fn check(&self, request: &Request, answer: Answer) -> Result<Outcome, OciError> {
        let (status, host) = (answer.status(), self.host());
        let verb = if request.actions == Actions::Push { "push to" } else { "pull from" };
        let retry_after = answer.header(RETRY_AFTER).and_then(parse_retry_after);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.denied(status)),
            StatusCode::TOO_MANY_REQUESTS => {
                let after = retry_after
                    .map_or_else(String::new, |after| format!(", retry after {} s", after.as_secs()));
                let error = OciError::Failed(format!(
                    "cannot {verb} {host}: it limits the rate of requests (429{after}), and ktables gave up after {TRIES} \
                     tries. Pull with credentials, pull from a mirror, or ship the codecs in the image."
                ));
                Ok(Outcome::Temporary { error, retry_after })
            }
            status if status == StatusCode::REQUEST_TIMEOUT || status.is_server_error() => {
                let error = OciError::Failed(format!(
                    "cannot {verb} {host}: it answered with an error ({} from {host}), and ktables gave up after {TRIES} \
                     tries. Try again later, or pull from a mirror.",
                    status.as_u16()
                ));
                Ok(Outcome::Temporary { error, retry_after })
            }
            status if status.is_success() && answer.response.headers().contains_key(CONTENT_ENCODING) => {
                Err(OciError::Failed(format!(
                    "cannot {verb} {host}: it answered with an encoding that ktables did not ask for. Check for a proxy that \
                 changes responses."
                )))
            }
            _ => Ok(Outcome::Answer(answer)),
        }
    }

    fn denied(&self, status: StatusCode) -> OciError {
        let (host, status) = (self.host(), status.as_u16());
        match self.credentials.get() {
            Some(credentials) => credentials.denied(host, status),
            None => OciError::Failed(format!(
                "cannot access {host}: it denied access ({status}), and did not say how to authenticate. Check the address, and \
                 the registry's configuration."
            )),
        }
    }

    /// Turns the failure of a connection into an error.
    async fn explain(&self, url: &Url, error: &reqwest::Error) -> Result<Outcome, OciError> {
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let host = format!("{}{port}", url.host_str().unwrap_or_default());
        if is_certificate_error(error) {
            let reason = root_cause(error);
            return Err(self.settings.explain_certificate(&host, &reason, self.limits).await);
        }
        let error = OciError::Failed(format!(
            "cannot connect to {host}: it {}. Check the address and the network, or pull from a mirror.",
            describe(error)
        ));
        Ok(Outcome::Temporary { error, retry_after: None })
    }

    /// Accepts these media types as an answer.
    pub(super) fn accept(request: Request, types: &[&str]) -> Request {
        request.with_header(ACCEPT, &types.join(", "))
    }
}

/// What became of a request.
enum Outcome {
    Answer(Answer),
    /// It failed in a way that may pass.
    Temporary {
        error: OciError,
        retry_after: Option<Duration>,
    },
}

/// Refuses an answer whose headers are too long together.
fn check_headers(host: &str, headers: &HeaderMap) -> Result<(), OciError> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes <= MAX_HEADER_BYTES {
        return Ok(());
    }
    Err(OciError::Failed(format!(
        "cannot pull from {host}: the headers of its answer have {bytes} bytes, and the limit is {MAX_HEADER_BYTES}. Check the \
         registry."
    )))
}

/// Parses the header `Retry-After`: seconds, or a date.
fn parse_retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(std::time::SystemTime::now()).unwrap_or_default())
}

/// Whether the certificate of the server is the reason of a failure.
fn is_certificate_error(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return matches!(
                tls,
                rustls::Error::InvalidCertificate(_) | rustls::Error::InvalidCertRevocationList(_)
            );
        }
        // The source of an I/O error is that of the error which it wraps, and not this error itself.
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next =
            wrapped.map(|wrapped| wrapped as &(dyn std::error::Error + 'static)).or_else(|| cause.source());
    }
    false
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    one_line_within(&cause.to_string(), SHOWN).to_string()
}
