//! The HTTP API. `docs/openapi.json` is its contract.

mod answer_body;
mod bulk_write;
mod call;
#[cfg(feature = "bench")]
mod constant;
mod decode_rejects;
mod entries;
mod entry;
mod entry_name;
mod groups;
mod guard;
mod health;
mod metrics;
mod ndjson;
mod path;
mod query;
mod reading;
mod record;
mod reload;
mod swap;
mod tables;
mod watch;
mod writing;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;

use crate::escape::escape_name;
use crate::serve::problem::Problem;
use crate::serve::server::Server;

/// The contract of the API.
const OPENAPI: &str = include_str!("../../../docs/openapi.json");

/// Returns the router of the whole API.
pub(super) fn router(server: Arc<Server>) -> Router {
    let table = "/v1/tables/{table}";
    let at = |rest: &str| format!("{table}{rest}");
    // Only answers that may be large, and never streams of events, which compression would hold back.
    let compressed = Router::new()
        .route(&at("/entries"), get(entries::list))
        .route(&at("/entries:batch"), post(entries::batch))
        .route(&at("/snapshot"), get(entries::snapshot))
        .layer(CompressionLayer::new());
    let router = health_routes()
        .merge(compressed)
        .route("/v1/tables", get(tables::list))
        .route(table, get(tables::status))
        .route(&at("/entry"), get(entry::get).put(entry::put).delete(entry::delete))
        .route(
            &at("/entries/{*key}"),
            get(entry::get_by_path).put(entry::put_by_path).delete(entry::delete_by_path),
        )
        .route(&at("/entries:write"), post(bulk_write::write))
        .route(&at("/entry/record"), get(record::record))
        .route(&at("/entry/history"), get(record::history))
        .route(&at("/groups"), get(groups::list))
        .route(&at("/groups/{group}"), get(groups::members))
        .route(&at("/groups/{group}/{member}"), get(groups::member))
        .route(&at("/rejects"), get(tables::rejects))
        .route(&at("/rejects:decode"), post(decode_rejects::decode))
        .route(&at("/barrier"), post(tables::barrier))
        .route(&at("/swap"), get(swap::status).post(swap::start).delete(swap::cancel))
        .route(&at("/swap/back"), post(swap::back))
        .route(&at("/watch"), get(watch::one))
        .route("/v1/reload", post(reload::reload))
        .route("/v1/watch", get(watch::many).post(watch::many_of_body));
    #[cfg(feature = "bench")]
    let router = constant::add_to(router);
    finish(router, server)
}

/// Returns the router of the health checks alone.
pub(super) fn health_router(server: Arc<Server>) -> Router {
    finish(health_routes(), server)
}

fn health_routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/readyz/{table}", get(health::table_ready))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi))
}

/// Adds what all routes have in common.
fn finish(router: Router<Arc<Server>>, server: Arc<Server>) -> Router {
    let origins = server.settings.cors_origins.clone();
    let router = router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(from_fn_with_state(server.clone(), guard::guard))
        .with_state(server);
    if origins.is_empty() { router } else { router.layer(cors(&origins)) }
}

/// Lets browsers call the API from these origins.
fn cors(origins: &[String]) -> CorsLayer {
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    let headers = ["authorization", "content-type", "if-none-match", "last-event-id", "request-id"];
    let exposed = [
        "etag",
        "ktables-fingerprint",
        "ktables-notice",
        "ktables-offset",
        "ktables-partition",
        "ktables-positions",
        "ktables-staleness",
        "ktables-status",
        "ktables-timestamp",
        "request-id",
    ];
    CorsLayer::new()
        .allow_origin(origins.collect::<Vec<_>>())
        .allow_methods([Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::DELETE])
        .allow_headers(headers.map(HeaderName::from_static))
        .expose_headers(exposed.map(HeaderName::from_static))
}

async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], OPENAPI)
}

async fn unknown_path(uri: Uri) -> Problem {
    let detail =
        format!("there is nothing at `{}`: GET /openapi.json describes the API", escape_name(uri.path()));
    Problem::not_found("unknown-path", "There is no such path", detail)
}

async fn wrong_method() -> Problem {
    let detail = "this path does not have this method: GET /openapi.json describes the API";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", "The method is not allowed here", detail)
}

/// Answers a request whose endpoint panicked. The panic was logged already.
fn answer_panic(_: Box<dyn std::any::Any + Send>) -> Response<Body> {
    let detail = "this is a defect of ktables: its log has the details";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The server failed", detail).into_response()
}
