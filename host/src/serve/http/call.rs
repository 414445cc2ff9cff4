//! A request from a known caller, and what every endpoint does with it first.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use tokio::sync::OwnedSemaphorePermit;

use crate::escape::escape_name;
use crate::serve::access::{Caller, Role};
use crate::serve::http::query::Query;
use crate::serve::problem::Problem;
use crate::serve::server::Server;
use crate::serve::shares::Share;
use crate::serve::tables::ServedTable;

/// What identifies a request in logs.
#[derive(Debug, Clone)]
pub(super) struct RequestId {
    /// The value of the header `Request-Id`.
    pub(super) id: String,
    /// The trace that the caller named with `traceparent`.
    pub(super) trace: Option<String>,
}

/// A request from a known caller.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) server: Arc<Server>,
    pub(super) caller: Caller,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) id: RequestId,
    /// Held while the request is worked on, also if its caller has gone away.
    _in_use: Option<Arc<InUse>>,
}

/// What a request uses until its answer has been taken.
pub(super) type InUse = (OwnedSemaphorePermit, Share<Arc<str>>);

impl FromRequestParts<Arc<Server>> for Call {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Infallible> {
        let (server, uri) = (server.clone(), parts.uri.clone());
        // OK because the guard of all routes adds both.
        let caller = parts.extensions.remove().expect("a caller");
        let id = parts.extensions.remove().expect("a request id");
        let in_use = parts.extensions.remove();
        Ok(Self { server, caller, uri, headers: std::mem::take(&mut parts.headers), id, _in_use: in_use })
    }
}

impl Call {
    /// Parses the parameters of the address.
    pub(super) fn query(&self, known: &[&str]) -> Result<Query, Problem> {
        Query::parse(&self.uri, known)
    }

    /// Fails unless the caller has a role for a table, whether or not there is such a table.
    pub(super) fn require(&self, role: Role, table: &str) -> Result<(), Problem> {
        if self.caller.may(role, table) {
            return Ok(());
        }
        let is_local = self.server.access.load().anonymous().is_some();
        let hint = if is_local {
            ": send the token that the server has written to its file (server.admin_token_file)"
        } else {
            ""
        };
        let name = escape_name(&self.caller.name);
        let detail = format!("`{name}` does not have the role `{role}` for this table{hint}");
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", "The caller may not do this", detail))
    }

    /// Returns a table for which the caller has a role.
    pub(super) fn table(&self, role: Role, name: &str) -> Result<Arc<ServedTable>, Problem> {
        self.require(role, name)?;
        let tables = self.server.tables.load();
        let table = (**tables).as_ref().and_then(|tables| tables.get(name).cloned());
        if table.is_none() && (tables.is_none() || self.server.opening.load().contains(name)) {
            let detail = "the server has just started, and loads the codecs of the table";
            return Err(Problem::unavailable("loading", "The table is loading", detail));
        }
        table.ok_or_else(|| {
            Problem::not_found(
                "unknown-table",
                "There is no such table",
                format!("there is no table `{}`: GET /v1/tables lists them", escape_name(name)),
            )
        })
    }

    /// Returns a header as text.
    pub(super) fn header(&self, name: impl axum::http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Reads the body of a request, up to `limit` bytes, within the time for a request.
    pub(super) async fn read_body(&self, body: Body, limit: usize) -> Result<Bytes, Problem> {
        let too_large = || {
            let detail = format!("the body has more than {limit} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large", detail)
        };
        let announced =
            self.header(axum::http::header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > limit as u64) {
            return Err(too_large());
        }
        let read = axum::body::to_bytes(body, limit);
        match tokio::time::timeout(self.server.settings.request_timeout, read).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) if is_too_large(&error) => Err(too_large()),
            Ok(Err(_)) => Err(Problem::bad_request("the body ended early")),
            Err(_) => {
                let detail = "the body did not arrive in time: server.request_timeout limits that";
                Err(Problem::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "slow-request",
                    "The request took too long",
                    detail,
                ))
            }
        }
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}
