//! What happens to every request before its endpoint sees it: it is identified, checked, limited and counted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::IntoResponse;
use rand::Rng as _;

use crate::escape::escape_name;
use crate::serve::access::Caller;
use crate::serve::http::answer_body::{AnswerBody, EndlessBody};
use crate::serve::http::call::{InUse, RequestId};
use crate::serve::http::path::is_plain;
use crate::serve::net::Peer;
use crate::serve::problem::Problem;
use crate::serve::server::Server;

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A body of this size at most is read before its request is answered.
const SMALL_BODY_BYTES: usize = 64 << 10;

/// The longest id of a request that a caller may choose.
const MAX_ID_BYTES: usize = 64;

/// Checks a request, and passes it on to its endpoint.
pub(super) async fn guard(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response<Body> {
    let began = Instant::now();
    let (mut parts, body) = request.into_parts();
    let peer = parts.extensions.get::<Arc<Peer>>().cloned();
    let open = peer.as_ref().map(Peer::begin);
    let id = request_id(&parts.headers);
    let method = parts.method.clone();
    // A client of HTTP/2 may miss an answer that comes before its body was read.
    let body = read_small_body(&parts, body, server.settings.header_timeout).await;
    let admitted = body.and_then(|body| Ok((body, admit(&server, &parts)?)));
    let mut response = match admitted {
        Ok((body, (caller, in_use))) => {
            parts.extensions.insert(caller);
            parts.extensions.insert(id.clone());
            let in_use = in_use.map(Arc::new);
            if let Some(in_use) = &in_use {
                parts.extensions.insert(in_use.clone());
            }
            let mut response = next.run(Request::from_parts(parts, body)).await;
            let is_endless = response.extensions_mut().remove::<EndlessBody>().is_some();
            // A watch is counted as one, and not as a request.
            let in_use = if is_endless { None } else { in_use };
            let timeout = server.settings.stalled_timeout;
            response.map(|body| AnswerBody::wrap(body, peer.as_ref(), timeout, (in_use, open)))
        }
        Err(problem) => problem.into_response(),
    };
    server.http.count(&method, response.status(), began.elapsed());
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id.id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// Reads a body of a known and small size, and returns any other one as it is.
async fn read_small_body(parts: &Parts, body: Body, timeout: Duration) -> Result<Body, Problem> {
    let length =
        parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if !length.is_some_and(|length| (1..=SMALL_BODY_BYTES).contains(&length)) {
        return Ok(body);
    }
    let read = tokio::time::timeout(timeout, axum::body::to_bytes(body, SMALL_BODY_BYTES)).await;
    let read = read.map_err(|_| {
        let detail = "the body did not arrive in time: server.header_timeout limits that for a small one";
        Problem::new(StatusCode::REQUEST_TIMEOUT, "slow-request", "The request took too long", detail)
    })?;
    read.map(Body::from).map_err(|_| Problem::bad_request("the body ended early"))
}

/// Identifies the caller, and takes what the request uses; nothing for health checks, which must be answered when there
/// are too many requests.
fn admit(server: &Server, parts: &Parts) -> Result<(Caller, Option<InUse>), Problem> {
    let path = parts.uri.path();
    if !is_plain(path) {
        return Err(Problem::bad_request(
            "proxies and clients rewrite such a path, which has empty parts, parts of dots, an encoded slash, or is not UTF-8: name a \
             key in a parameter instead, with …/entry?key=KEY in percent encoding",
        ));
    }
    let caller = identify(server, parts)?;
    if is_health(path) {
        return Ok((caller, None));
    }
    let Ok(permit) = server.requests.clone().try_acquire_owned() else {
        server.http.limited.inc();
        let detail = "server.max_requests are being answered";
        return Err(Problem::unavailable("overloaded", "There are too many requests", detail));
    };
    let Some(share) = server.client_requests.take(&caller.name) else {
        server.http.limited.inc();
        let title = "The client sends too many requests";
        let detail = "server.max_requests_per_client are being answered";
        return Err(
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", title, detail).retry_after(1)
        );
    };
    Ok((caller, Some((permit, share))))
}

/// Whether a path is one of the health checks.
fn is_health(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/metrics") || path.starts_with("/readyz/")
}

/// Returns who sent a request.
fn identify(server: &Server, parts: &Parts) -> Result<Caller, Problem> {
    let peer: Option<&Arc<Peer>> = parts.extensions.get();
    let access = server.access.load();
    let address = peer.and_then(|peer| peer.address);
    if access.anonymous().is_some() {
        check_local(parts, address)?;
    }
    if let Some(header) = parts.headers.get(AUTHORIZATION) {
        let token = header.to_str().ok().and_then(|header| header.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        if let Some(caller) = token.and_then(|(_, token)| access.find_token(token.trim().as_bytes())) {
            return Ok(caller.clone());
        }
        return Err(refuse_proof(server, address, &parts.uri, "the token is not known"));
    }
    let certificate = peer.and_then(|peer| peer.certificate.as_ref());
    if let Some(certificate) = certificate {
        return match access.find_certificate(certificate) {
            Some(caller) => Ok(caller.clone()),
            None => {
                Err(refuse_proof(server, address, &parts.uri, "no client has the name of the certificate"))
            }
        };
    }
    if let Some(caller) = access.anonymous() {
        return Ok(caller.clone());
    }
    if is_public(parts.uri.path()) {
        return Ok(Caller::nobody());
    }
    Err(unauthorized("send a token in the header `Authorization: Bearer TOKEN`"))
}

/// Whether a path says nothing about tables, so that probes need no token.
fn is_public(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/openapi.json")
}

/// Fails for requests that a web page may have caused, on a server without access control.
fn check_local(parts: &Parts, address: Option<IpAddr>) -> Result<(), Problem> {
    let forbidden = |detail: &str| {
        Problem::new(
            StatusCode::FORBIDDEN,
            "not-local",
            "Without access control, only local programs have access",
            detail,
        )
    };
    if parts.headers.contains_key(ORIGIN) {
        return Err(forbidden(
            "a web page sent the request: `[access]` in the configuration controls access",
        ));
    }
    // A web page cannot connect to a Unix socket.
    if address.is_none() {
        return Ok(());
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    let host = authority.or_else(|| parts.headers.get(HOST).and_then(|host| host.to_str().ok()));
    if host.is_some_and(is_loopback) {
        return Ok(());
    }
    Err(forbidden("the header Host is not the name of this machine: use localhost, 127.0.0.1 or [::1]"))
}

/// Whether a host, with or without a port, is a name of this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(name, _)| name),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Counts and logs a proof that is not valid.
fn refuse_proof(server: &Server, address: Option<IpAddr>, uri: &Uri, reason: &str) -> Problem {
    if !server.failed_attempts.add(address) {
        let detail = "too many tokens or certificates of this address were not valid";
        return Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-attempts",
            "Too many attempts failed",
            detail,
        )
        .retry_after(10);
    }
    let address = address.map_or_else(|| "a local socket".to_owned(), |address| address.to_string());
    tracing::warn!(target: "ktables::audit", "refused a request from {address} for {}: {reason}", escape_name(uri.path()));
    unauthorized(reason)
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "The caller is not known", detail)
        .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// Returns the id that a caller chose for its request, or a new one, and the trace that the request belongs to.
fn request_id(headers: &HeaderMap) -> RequestId {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let is_plain = |id: &&str| {
        (1..=MAX_ID_BYTES).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let id = match text(&REQUEST_ID).filter(is_plain) {
        Some(id) => id.to_owned(),
        None => format!("{:016x}", rand::rng().next_u64()),
    };
    RequestId { id, trace: text(&TRACEPARENT).and_then(trace_id) }
}

/// Returns the trace of a header `traceparent` of the W3C.
fn trace_id(header: &str) -> Option<String> {
    let trace = header.split('-').nth(1)?;
    let is_valid = trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_valid.then(|| trace.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_host_has_any_port() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1", "127.1.2.3:7470", "[::1]", "[::1]:80"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["", "example.com", "localhost.example.com", "10.0.0.1", "[::2]:1", "[::1", "127.0.0.1.nip.io"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_trace_is_taken_from_its_header() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(&format!("00-{trace}-00f067aa0ba902b7-01")).as_deref(), Some(trace));
        for header in ["", "00", "00-xyz-1-01", &format!("00-{}-1-01", "g".repeat(32))] {
            assert_eq!(trace_id(header), None, "{header}");
        }
    }
}
