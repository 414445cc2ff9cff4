//! Swaps of codecs.

use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::config::CodecNames;
use crate::serve::access::Role;
use crate::serve::http::call::Call;
use crate::serve::http::entries::respond_json;
use crate::serve::http::query::{Query, invalid};
use crate::serve::http::reading::failed;
use crate::serve::http::writing::audit;
use crate::serve::problem::Problem;
use crate::serve::swap::{self, CodecPart, Gate, NewCodecs};
use crate::serve::swaps::{SwapReport, SwapState};

/// How many bytes the names of codecs may have.
const MAX_NAMES_BYTES: usize = 4 << 10;

/// How logs and metrics name a component if its sender does not, and how long a name may be.
const DEFAULT_NAME: &str = "uploaded";
const MAX_NAME_BYTES: usize = 64;

/// Begins a swap.
pub(super) async fn start(
    call: Call,
    Path(table): Path<String>,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Admin, &table)?;
    let query = call.query(&["codec", "name", "dry_run", "max_new_rejects", "max_changed", "yes"])?;
    if table.codec_error.is_some() {
        return Err(failed(&table));
    }
    let gate = Gate {
        is_trial: query.flag("dry_run", false)?,
        is_forced: query.flag("yes", false)?,
        max_new_rejects: query.number("max_new_rejects")?.unwrap_or(0),
        max_changed: query.number("max_changed")?,
    };
    if gate.is_trial && table.swaps.back_until().is_some() {
        let detail = "a trial would end the way back to the codecs before the last swap: go back, or wait until it has \
                      expired (server.swap_back)";
        return Err(Problem::new(StatusCode::CONFLICT, "way-back-kept", "There is a way back", detail));
    }
    let new = read_codecs(&call, &query, body).await?;
    let (catalog, keep) = (call.server.catalog.load_full(), call.server.settings.swap_back);
    let what = new.describe();
    let report = SwapReport::new(SwapState::Loading, table.codecs().fingerprint());
    let served = table.clone();
    let is_begun = table
        .swaps
        .begin(report, || tokio::spawn(swap::run(catalog, served, new, gate, keep)).abort_handle());
    if !is_begun {
        return Err(running());
    }
    audit(&call, &table.name, &format!("began to swap to {what}"));
    let location = format!(
        "/v1/tables/{}/swap",
        percent_encoding::utf8_percent_encode(&table.name, percent_encoding::NON_ALPHANUMERIC)
    );
    let mut response = respond_json(HeaderMap::new(), json!({ "location": location }).to_string());
    *response.status_mut() = StatusCode::ACCEPTED;
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Reads the new codecs: a component, or names of codecs of the configuration.
async fn read_codecs(call: &Call, query: &Query, body: Body) -> Result<NewCodecs, Problem> {
    let content_type = call.header(CONTENT_TYPE).unwrap_or_default();
    if content_type.starts_with("application/wasm") {
        let part = match query.get("codec").unwrap_or("value") {
            "key" => CodecPart::Key,
            "value" => CodecPart::Value,
            "group" => CodecPart::Group,
            _ => return Err(invalid("codec", "key, value or group")),
        };
        // Before the name is checked: a client that is still sending may not see an earlier answer.
        let bytes = call.read_body(body, call.server.settings.max_component).await?;
        let name = query.get("name").unwrap_or(DEFAULT_NAME).to_owned();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(invalid("name", "1 to 64 letters, digits, `-`, `_` and `.`"));
        }
        return Ok(NewCodecs::Component { part, name, bytes: bytes.into() });
    }
    let body = call.read_body(body, MAX_NAMES_BYTES).await?;
    let names: CodecNames = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad_request(format!(
            "the body must be a component with the content type application/wasm, or {{\"value\": \"NAME\"}} with the \
             name of a codec of the configuration: {error}"
        ))
    })?;
    if names == CodecNames::default() {
        return Err(Problem::bad_request("which codec? Name one as `key`, `value` or `group`"));
    }
    Ok(NewCodecs::Named(names))
}

/// Returns the report of the last swap.
pub(super) async fn status(call: Call, Path(table): Path<String>) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Admin, &table)?;
    call.query(&[])?;
    let Some(report) = table.swaps.report() else {
        let detail = "no swap has begun since the server was started";
        return Err(Problem::not_found("no-swap", "There is no swap", detail));
    };
    // OK because texts and numbers always serialize.
    let mut answer = serde_json::to_value(&report).expect("serializes");
    if report.state == SwapState::Loading {
        answer["progress"] = table.table.stats().loading.map(|loading| loading.fraction()).into();
    }
    if !call.caller.may(Role::Read, &table.name)
        && let Some(difference) = answer["difference"].as_object_mut()
    {
        // The examples are contents of the table.
        difference.insert("samples".to_owned(), json!([]));
    }
    answer["can_go_back"] = table.swaps.back_until().is_some().into();
    Ok(respond_json(HeaderMap::new(), answer.to_string()))
}

/// Cancels the swap that is running.
pub(super) async fn cancel(call: Call, Path(table): Path<String>) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Admin, &table)?;
    call.query(&[])?;
    if !table.swaps.cancel() {
        return Err(Problem::not_found("no-swap", "There is no swap", "no swap is running"));
    }
    audit(&call, &table.name, "cancelled the swap of the codecs");
    Ok(respond_json(HeaderMap::new(), json!({ "state": "cancelled" }).to_string()))
}

/// Serves the codecs again that were served before the last swap.
pub(super) async fn back(call: Call, Path(table): Path<String>) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Admin, &table)?;
    call.query(&[])?;
    if table.swaps.back_until().is_none() {
        let detail = "no swap has been made, or the codecs before it are no longer kept: server.swap_back limits how long";
        return Err(Problem::new(StatusCode::CONFLICT, "no-way-back", "There is no way back", detail));
    }
    let report = SwapReport::new(SwapState::Committing, table.codecs().fingerprint());
    let (served, keep) = (table.clone(), call.server.settings.swap_back);
    let (done, is_done) = tokio::sync::oneshot::channel();
    let is_begun = table.swaps.begin(report, || {
        // It goes on if the caller goes away.
        let back = tokio::spawn(async move {
            swap::go_back(served, keep).await;
            // OK to ignore: the caller has gone away.
            let _ = done.send(());
        });
        back.abort_handle()
    });
    if !is_begun {
        return Err(running());
    }
    // OK to ignore an error: the report says that it has failed.
    let _ = is_done.await;
    let report = table.swaps.report();
    let reason = report.as_ref().and_then(|report| report.reason.clone());
    match report.map(|report| report.state) {
        Some(SwapState::Done) => {
            audit(&call, &table.name, "went back to the codecs before");
            let fingerprint = table.codecs().fingerprint();
            Ok(respond_json(HeaderMap::new(), json!({ "fingerprint": fingerprint }).to_string()))
        }
        _ => {
            let reason = reason.unwrap_or_else(|| "another swap has begun".to_owned());
            audit(&call, &table.name, &format!("could not go back to the codecs before: {reason}"));
            Err(Problem::unavailable("swap-failed", "The swap failed", reason))
        }
    }
}

fn running() -> Problem {
    let detail = "GET …/swap shows it, and DELETE …/swap cancels it";
    Problem::new(StatusCode::CONFLICT, "swap-running", "A swap is running", detail)
}
