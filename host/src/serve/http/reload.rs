//! Reloads of the configuration.

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode};

use crate::serve::access::Role;
use crate::serve::error::ServeError;
use crate::serve::http::call::Call;
use crate::serve::http::entries::respond_json;
use crate::serve::http::writing::audit;
use crate::serve::problem::Problem;
use crate::serve::reload;

/// Reloads the configuration.
pub(super) async fn reload(call: Call) -> Result<Response<Body>, Problem> {
    call.query(&[])?;
    if !call.caller.may_everywhere(Role::Admin) {
        let detail = "reloading needs the role `admin` for all tables: admin = [\"*\"]";
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", "The caller may not do this", detail));
    }
    // It goes on if the caller goes away, so that the tables are never half changed.
    let reloaded = tokio::spawn(async move {
        let result = reload::reload(&call.server).await;
        let outcome = match &result {
            Ok(reloaded) => format!("reloaded the configuration: {}", reloaded.describe()),
            Err(error) => format!("could not reload the configuration: {error}"),
        };
        audit(&call, "*", &outcome);
        result
    });
    // OK because the task is never cancelled: the error is a panic, which continues here.
    match reloaded.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) {
        Ok(reloaded) => {
            // OK because texts and numbers always serialize.
            let text = serde_json::to_string(&reloaded).expect("serializes");
            Ok(respond_json(HeaderMap::new(), text))
        }
        Err(ServeError::NotNow(reason)) => {
            Err(Problem::unavailable("not-now", "The configuration cannot be reloaded now", reason))
        }
        Err(error) => {
            let title = "The configuration cannot be used, and nothing has changed";
            Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-configuration",
                title,
                error.to_string(),
            ))
        }
    }
}
