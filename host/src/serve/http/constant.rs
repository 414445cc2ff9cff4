//! An endpoint that answers with constants, behind the same accept loop and layers as all others. The benchmark of this
//! project compares reads of entries with it; nothing that ships has it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Response;
use axum::routing::get;

use crate::serve::server::Server;

/// The headers of an answer to a read of an entry.
const HEADERS: [(&str, &str); 9] = [
    ("ktables-status", "caught_up"),
    ("ktables-staleness", "0"),
    ("ktables-positions", "0:1000"),
    ("ktables-fingerprint", "0123456789abcdef"),
    ("cache-control", "no-cache"),
    ("etag", "\"01234567-0123-0123-0123-0123456789ab-0-999-0123456789abcdef\""),
    ("ktables-partition", "0"),
    ("ktables-offset", "999"),
    ("ktables-timestamp", "1700000000000"),
];

/// A value of 200 bytes.
const VALUE: [u8; 200] = {
    let mut value = [b'v'; 200];
    (value[0], value[199]) = (b'"', b'"');
    value
};

/// Adds the endpoint.
pub(super) fn add_to(router: Router<Arc<Server>>) -> Router<Arc<Server>> {
    router.route("/bench/constant", get(answer))
}

async fn answer() -> Response<Body> {
    let mut response = Response::builder().header("content-type", "application/json");
    for (name, value) in HEADERS {
        response = response.header(name, value);
    }
    // OK because all headers are valid.
    response.body(Body::from(&VALUE[..])).expect("a response")
}
