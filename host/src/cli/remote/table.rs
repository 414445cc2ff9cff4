//! A table of a server.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;

use crate::cli::args::TableArgs;
use crate::cli::remote::client::{Remote, Reply, SERVER_VARIABLE};
use crate::cli::remote::problem::RemoteProblem;
use crate::cli::{CliError, Exit};

/// The longest time for which a server lets a request wait.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a read waits for what was acknowledged before. A table that is degraded may never have it.
const FRESH_TIMEOUT: Duration = Duration::from_secs(5);

/// A table of a server.
#[derive(Debug)]
pub(in crate::cli) struct RemoteTable {
    pub(super) remote: Remote,
    name: String,
    /// How long the server waits until the table is fresh, or a write is visible.
    timeout: Duration,
}

/// An answer about a table.
pub(super) struct TableReply {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Whether the table was fresh: what was acknowledged before the request is in the answer.
    pub(super) is_fresh: bool,
}

impl RemoteTable {
    /// Returns the table of a server that the arguments name; `None` if they name a table that the command loads itself.
    pub(in crate::cli) fn of(args: &TableArgs) -> Result<Option<Self>, CliError> {
        let is_local = args.log.is_some() || args.config.is_some();
        let by_variable = || !is_local && std::env::var(SERVER_VARIABLE).is_ok_and(|url| !url.is_empty());
        if args.server.server.is_none() && !by_variable() {
            return Ok(None);
        }
        let own: Vec<&str> = args.own_settings().collect();
        if !own.is_empty() {
            return Err(CliError::Usage(format!(
                "the table is on a server (--server or KTABLES_SERVER), which decides how it is read and written: leave out \
                 {}, or name the topic with --log and --topic",
                own.join(", ")
            )));
        }
        let Some(name) = args.table.clone() else {
            return Err(CliError::Usage(
                "which table of the server? Name it with -t NAME: /v1/tables of the server lists them"
                    .to_owned(),
            ));
        };
        let timeout = args.catchup_timeout.min(MAX_TIMEOUT);
        Ok(Some(Self { remote: Remote::new(&args.server, timeout)?, name, timeout }))
    }

    /// Begins a request to a path below the table.
    pub(super) fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let query = query.iter().map(|(name, value)| format!("{name}={}", encode(value)));
        let query = query.collect::<Vec<_>>().join("&");
        let path = [&["v1", "tables", &self.name], path].concat();
        self.remote.request_with_query(method, &path, &query)
    }

    /// The time that the server waits, as a parameter.
    pub(super) fn timeout(&self) -> String {
        format!("{}ms", self.timeout.as_millis())
    }

    /// Reads after everything that was acknowledged before is visible. If that takes too long, warns, and reads what the
    /// table has: the second value is false then.
    pub(super) async fn open(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> (Result<Response, RemoteProblem>, bool) {
        let timeout = format!("{}ms", self.timeout.min(FRESH_TIMEOUT).as_millis());
        let fresh = [query, &[("fresh", "true"), ("timeout", &timeout)]].concat();
        match self.remote.open(self.request(Method::GET, path, &fresh)).await {
            Err(RemoteProblem::Answered { kind, detail, .. }) if kind == "stale" => {
                tracing::warn!("the answer may be old: {detail}");
                (self.remote.open(self.request(Method::GET, path, query)).await, false)
            }
            opened => (opened, true),
        }
    }

    /// Reads as [`RemoteTable::open`] does, and returns the whole answer.
    pub(super) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> (Result<TableReply, RemoteProblem>, bool) {
        let (opened, is_fresh) = self.open(path, query).await;
        let read = async {
            let mut response = opened?;
            let headers = std::mem::take(response.headers_mut());
            Ok(TableReply { headers, body: self.remote.read(response).await?, is_fresh })
        };
        (read.await, is_fresh)
    }

    /// Reads what the table has now. `is_fresh` says whether it is known to be fresh.
    pub(super) async fn get_now(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        is_fresh: bool,
    ) -> Result<TableReply, RemoteProblem> {
        let Reply { headers, body } = self.remote.reply(self.request(Method::GET, path, query)).await?;
        Ok(TableReply { headers, body, is_fresh })
    }

    /// Sends a request that changes the table.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Reply, RemoteProblem> {
        self.remote.reply(request).await
    }

    /// Parses an answer.
    pub(super) fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, CliError> {
        serde_json::from_slice(body)
            .map_err(|error| self.remote.failed(&format!("its answer cannot be read: {error}")))
    }
}

impl TableReply {
    /// Returns the exit code of a command with this answer. Warns unless the table is caught up.
    ///
    /// # Errors
    ///
    /// If the table has failed or was stopped.
    pub(super) fn exit(&self, found: bool) -> Result<Exit, CliError> {
        exit(&self.headers, self.is_fresh, found)
    }
}

/// Returns the exit code of a command with an answer with these headers. Warns unless the table is caught up.
///
/// # Errors
///
/// If the table has failed or was stopped.
pub(super) fn exit(headers: &HeaderMap, is_fresh: bool, found: bool) -> Result<Exit, CliError> {
    let status = headers.get("ktables-status").and_then(|status| status.to_str().ok()).unwrap_or_default();
    if status != "caught_up" {
        match status {
            "failed" | "stopped" => {
                return Err(CliError::Server(format!(
                    "the table is {status}: the log of the server says why"
                )));
            }
            "" => tracing::warn!("the server is still opening its tables: try again"),
            status => tracing::warn!("the table is {status}: the answer may be incomplete"),
        }
        return Ok(Exit::Degraded);
    }
    Ok(match (is_fresh, found) {
        (false, _) => Exit::Degraded,
        (true, true) => Exit::Done,
        (true, false) => Exit::No,
    })
}
