//! Errors as clients receive them: problem documents of RFC 9457.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

/// An error of a request. Its `type` is stable: clients match on it.
#[derive(Debug)]
pub(super) struct Problem(Box<Content>);

#[derive(Debug)]
struct Content {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    /// Further members of the document.
    members: Map<String, Value>,
    /// Further headers of the response.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// Creates a problem. `kind` is the end of its `type`, and `title` says the same in words.
    pub(super) fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let (detail, members, headers) = (detail.into(), Map::new(), Vec::new());
        Self(Box::new(Content { status, kind, title, detail, members, headers }))
    }

    /// A parameter, a header or a body cannot be used.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request is malformed", detail)
    }

    /// The server does not have what was asked for.
    pub(super) fn not_found(kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, kind, title, detail)
    }

    /// The server cannot answer now, and may be able to later.
    pub(super) fn unavailable(kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, title, detail).retry_after(1)
    }

    /// Asks the client to wait this many seconds before it tries again.
    pub(super) fn retry_after(self, seconds: u32) -> Self {
        self.with_header(RETRY_AFTER, seconds.into())
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Adds headers that every answer about a table has.
    pub(super) fn with_headers(mut self, headers: &axum::http::HeaderMap) -> Self {
        self.0.headers.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        self
    }

    pub(super) fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// Describes the problem in a log.
    pub(super) fn summary(&self) -> String {
        format!("{}: {}", self.0.kind, self.0.detail)
    }

    /// The name of the problem, which is the end of its `type`.
    pub(super) fn kind(&self) -> &'static str {
        self.0.kind
    }

    pub(super) fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Returns the document.
    pub(super) fn to_json(&self) -> Value {
        let mut document = json!({
            "type": format!("urn:ktables:problem:{}", self.0.kind),
            "title": self.0.title,
            "status": self.0.status.as_u16(),
            "detail": self.0.detail,
        });
        if let Value::Object(document) = &mut document {
            document.extend(self.0.members.clone());
        }
        document
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = self.0.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in self.0.headers {
            headers.insert(name, value);
        }
        response
    }
}
