//! The command `watch` for a table of a server.

use std::io::Write as _;
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::ACCEPT;
use tokio::io::AsyncBufRead;

use crate::cli::args::WatchArgs;
use crate::cli::lines::{LineReader, MAX_LINE_BYTES, NextLine};
use crate::cli::output::{Output, StdoutWriter, wait_for_stdout_close, write_json_line};
use crate::cli::remote::problem::RemoteProblem;
use crate::cli::remote::read::lines_of;
use crate::cli::remote::table::RemoteTable;
use crate::cli::stop::wait_for_stop;
use crate::cli::token_file::TokenFile;
use crate::cli::{CliError, Exit, StopRequests};
use crate::table::WatchToken;
use crate::wire::ServerEvent;

/// How long to wait before the server is tried again. Each time is twice as long as the one before.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const MAX_RETRY: Duration = Duration::from_secs(10);

/// Prints the events of a table, and connects again whenever the stream ends, until the command is asked to stop.
pub(in crate::cli) async fn watch(
    table: &RemoteTable,
    args: WatchArgs,
    output: Output,
    mut stop_requests: StopRequests,
) -> Result<Exit, CliError> {
    let token_file = args.resume.clone().map(TokenFile::new);
    let token = token_file.as_ref().map(TokenFile::read).transpose()?.flatten();
    if let Some(token_file) = &token_file {
        token_file.check_writable()?;
    }
    let token = token.map(|token| token.to_string());
    let mut watch = RemoteWatch {
        table,
        args: &args,
        out: output.writer(),
        token_file,
        token,
        has_connected: false,
        is_begun: false,
        expects_synced: false,
        status: None,
    };
    let mut closed = std::pin::pin!(wait_for_stdout_close());
    let ended = tokio::select! {
        ended = watch.run() => ended,
        () = &mut closed => return Ok(Exit::Done),
        () = wait_for_stop(&mut stop_requests, 1) => Ok(()),
    };
    watch.out.flush()?;
    watch.store_token()?;
    ended.map(|()| Exit::Done)
}

/// A watch of a table of a server.
struct RemoteWatch<'a> {
    table: &'a RemoteTable,
    args: &'a WatchArgs,
    out: StdoutWriter,
    token_file: Option<TokenFile>,
    /// Where to resume after the last event; `None` in the middle of a list of entries.
    token: Option<String>,
    /// Whether the server has been reached.
    has_connected: bool,
    /// Whether anything was printed.
    is_begun: bool,
    /// Whether `synced` ends a list of entries. A server sends it on each connection.
    expects_synced: bool,
    /// The status that the server has told last, with its reason. It tells its status on each connection.
    status: Option<(String, Option<String>)>,
}

impl RemoteWatch<'_> {
    async fn run(&mut self) -> Result<(), CliError> {
        let mut retry = FIRST_RETRY;
        loop {
            self.expects_synced = self.token.is_none() && (self.is_begun || !self.args.from_now);
            match self.connect().await {
                Ok(mut lines) => {
                    self.has_connected = true;
                    let began = Instant::now();
                    self.print_all(&mut lines).await?;
                    if let Some((status, reason)) = self.status.take_if(|(status, _)| status == "failed") {
                        let reason = reason.unwrap_or_default();
                        return Err(self.table.remote.failed(&format!("the table has {status}: {reason}")));
                    }
                    // A stream that ends at once must not be opened again and again.
                    if began.elapsed() > MAX_RETRY {
                        retry = FIRST_RETRY;
                    }
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(MAX_RETRY);
                }
                // The first attempt must succeed. A later one fails while the server is started again, for example.
                Err(problem) if !self.has_connected || is_final(&problem) => return Err(problem.into()),
                Err(problem) => {
                    let reason = CliError::from(problem);
                    tracing::warn!("{reason}; trying again in {retry:?}");
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(MAX_RETRY);
                }
            }
        }
    }

    async fn connect(&self) -> Result<LineReader<impl AsyncBufRead + Unpin + use<>>, RemoteProblem> {
        let args = self.args;
        let mut query = Vec::new();
        for (name, value) in [("key", &args.key), ("prefix", &args.prefix), ("group", &args.group)] {
            query.extend(value.as_deref().map(|value| (name, value)));
        }
        if args.every {
            query.push(("mode", "every"));
        }
        match &self.token {
            Some(token) => query.push(("since", token)),
            None if args.from_now && !self.is_begun => query.push(("snapshot", "false")),
            None => {}
        }
        let request = self.table.request(Method::GET, &["watch"], &query);
        let response = self.table.remote.open(request.header(ACCEPT, "application/x-ndjson")).await?;
        Ok(lines_of(response))
    }

    /// Prints the events of a connection until it ends.
    async fn print_all(&mut self, lines: &mut LineReader<impl AsyncBufRead + Unpin>) -> Result<(), CliError> {
        if self.is_begun && self.token.is_none() {
            // A list of entries was cut off, and begins again.
            self.out.write_all(b"{\"event\":\"restarted\"}\n")?;
        }
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                () = wait_for_write_time(self.token_file.as_ref()) => {
                    self.store_token()?;
                    continue;
                }
            };
            match line {
                Ok(NextLine::Line(line)) => self.print(&line)?,
                Ok(NextLine::TooLong) => {
                    let reason = format!(
                        "it has sent an event of more than {MAX_LINE_BYTES} bytes: leave it out with a filter"
                    );
                    return Err(self.table.remote.failed(&reason));
                }
                Ok(NextLine::End) => return Ok(()),
                Err(error) => {
                    tracing::debug!("the watch was cut off: {error}");
                    return Ok(());
                }
            }
        }
    }

    fn print(&mut self, line: &[u8]) -> Result<(), CliError> {
        let event: ServerEvent = self.table.parse(line)?;
        if let Some(json) = event.to_json().filter(|_| self.is_news(&event)) {
            self.is_begun = true;
            write_json_line(&mut self.out, &json)?;
            // Between the entries of a list, there is no place to continue. A status says nothing about the place.
            if event.status().is_none() || event.id.is_some() {
                self.token.clone_from(&event.id);
            }
            if let Some(file) = &mut self.token_file {
                file.note_event();
            }
            if !event.is_entry() {
                self.out.flush()?;
            }
        } else if event.id.is_some() {
            self.token.clone_from(&event.id);
        }
        if let Some(status) = event.status() {
            self.status = Some(status);
        }
        self.expects_synced = (self.expects_synced || event.is_restarted()) && !event.is_synced();
        Ok(())
    }

    /// Whether an event says something new. That the table is caught up is not new at first.
    fn is_news(&self, event: &ServerEvent) -> bool {
        match (event.status(), &self.status) {
            (None, _) => !event.is_synced() || self.expects_synced,
            (Some((status, _)), None) => status != "caught_up",
            (Some(status), Some(before)) => status != *before,
        }
    }

    /// Stores the token, unless the output is closed: then nobody has received the last events.
    fn store_token(&mut self) -> Result<(), CliError> {
        match &mut self.token_file {
            Some(file) if !self.out.is_closed() => {
                // The id of `restarted` is no token: whoever continues from it starts again.
                let token = self.token.as_deref().filter(|token| token.parse::<WatchToken>().is_ok());
                file.write(token)
            }
            _ => Ok(()),
        }
    }
}

async fn wait_for_write_time(file: Option<&TokenFile>) {
    match file {
        Some(file) => file.wait_for_write_time().await,
        None => std::future::pending().await,
    }
}

/// Whether trying again will not help.
fn is_final(problem: &RemoteProblem) -> bool {
    match problem {
        RemoteProblem::Answered { status, kind, .. } => {
            kind == "failed" || status.is_client_error() && status.as_u16() != 429
        }
        RemoteProblem::Failed(_) => false,
    }
}
