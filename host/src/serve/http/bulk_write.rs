//! Many writes in one request.

use axum::body::Body;
use axum::extract::Path;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use tokio::time::Instant;

use crate::log::Ack;
use crate::serve::access::Role;
use crate::serve::http::call::Call;
use crate::serve::http::reading::MAX_TIMEOUT;
use crate::serve::http::writing::{audit, open_writer, unknown_outcome, write_problem};
use crate::serve::problem::Problem;
use crate::serve::tables::ServedTable;
use crate::table::Freshness;
use crate::wire::{WriteLine, parse_write_line};
use crate::writer::Write;

/// How many records one request writes at most.
const MAX_LINES: usize = 100_000;

/// The outcome of a line.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    /// The number of the line, from 1.
    line: usize,
    /// `written`, `skipped`, or the kind of the problem.
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Writes one record for each line, or with `atomic=true` all of them or none. Answers with one line for each.
pub(super) async fn write(
    call: Call,
    Path(table): Path<String>,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let table = call.table(Role::Write, &table)?;
    let query = call.query(&["atomic", "visible", "timeout"])?;
    let (is_atomic, is_visible) = (query.flag("atomic", false)?, query.flag("visible", false)?);
    let timeout = query.duration("timeout", MAX_TIMEOUT)?.unwrap_or(call.server.settings.request_timeout);
    let body = call.read_body(body, call.server.settings.max_body).await?;
    // The writes go on if the caller goes away, so that the audit log has their outcome.
    let written = tokio::spawn(async move {
        let deadline = Instant::now() + timeout;
        let result = match parse(&body) {
            Err(problem) => Err(problem),
            Ok(lines) if is_atomic => write_all(&table, lines, is_visible, deadline).await,
            Ok(lines) => write_each(&table, lines, is_visible, deadline).await,
        };
        let outcome = match &result {
            Ok(outcomes) => {
                let written = outcomes.iter().filter(|outcome| outcome.outcome == "written").count();
                format!("{written} of {} lines written", outcomes.len())
            }
            Err(problem) => problem.summary(),
        };
        audit(&call, &table.name, &format!("write many: {outcome}"));
        result
    });
    // OK because the task is never cancelled: the error is a panic, which continues here.
    let outcomes = written.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    let mut text = String::new();
    for outcome in outcomes {
        // OK because texts and numbers always serialize.
        text.push_str(&serde_json::to_string(&outcome).expect("serializes"));
        text.push('\n');
    }
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

/// A line that is not blank, by its number.
type Line = (usize, Result<WriteLine, String>);

/// Parses the lines that are not blank.
fn parse(body: &[u8]) -> Result<Vec<Line>, Problem> {
    let mut lines = Vec::new();
    for (index, line) in body.split(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if lines.len() == MAX_LINES {
            let detail =
                format!("a request writes {MAX_LINES} records at most: send the rest in another one");
            let title = "The request is too large";
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", title, detail));
        }
        lines.push((index + 1, parse_write_line(line)));
    }
    Ok(lines)
}

/// Lines by what becomes of them.
#[derive(Default)]
struct Sorted {
    writes: Vec<Write>,
    /// The numbers of the lines with these writes.
    numbers: Vec<usize>,
    /// The outcomes of the lines that are skipped.
    outcomes: Vec<Outcome<'static>>,
    /// The lines that cannot be parsed, and why.
    errors: Vec<(usize, String)>,
}

impl Sorted {
    fn new(lines: Vec<Line>) -> Self {
        let mut sorted = Self::default();
        for (number, line) in lines {
            match line {
                Ok(WriteLine::Write(write)) => {
                    sorted.writes.push(write);
                    sorted.numbers.push(number);
                }
                Ok(WriteLine::Expired(_)) => {
                    sorted.outcomes.push(Outcome::other(number, "skipped", "it has expired"));
                }
                Ok(WriteLine::Blank) => {}
                Err(reason) => sorted.errors.push((number, reason)),
            }
        }
        sorted
    }
}

/// Writes the lines one by one: a line that is refused does not affect the others.
async fn write_each(
    table: &ServedTable,
    lines: Vec<Line>,
    is_visible: bool,
    deadline: Instant,
) -> Result<Vec<Outcome<'static>>, Problem> {
    let Sorted { writes, numbers, mut outcomes, errors } = Sorted::new(lines);
    outcomes.extend(errors.into_iter().map(|(number, reason)| Outcome::other(number, "bad-request", reason)));
    let writing = async {
        let writer = open_writer(table).await?;
        Ok(writer.set_many(writes).await)
    };
    let results = tokio::time::timeout_at(deadline, writing).await.unwrap_or_else(|_| Err(late()))?;
    let acks: Vec<Ack> = results.iter().flatten().copied().collect();
    let freshness = wait_until_visible(table, &acks, is_visible, deadline).await;
    outcomes.extend(numbers.into_iter().zip(results).map(|(number, result)| match result {
        Ok(ack) => Outcome::written(number, ack, &freshness),
        Err(error) => Outcome::problem(number, &write_problem(&error)),
    }));
    outcomes.sort_by_key(|outcome| outcome.line);
    Ok(outcomes)
}

/// Writes all lines or none.
async fn write_all(
    table: &ServedTable,
    lines: Vec<Line>,
    is_visible: bool,
    deadline: Instant,
) -> Result<Vec<Outcome<'static>>, Problem> {
    let Sorted { writes, numbers, mut outcomes, errors } = Sorted::new(lines);
    if let Some((number, reason)) = errors.first() {
        return Err(Problem::bad_request(format!("nothing was written: line {number}: {reason}")));
    }
    let writing = async {
        let writer = open_writer(table).await?;
        writer.set_many(writes).atomic().await.map_err(|error| write_problem(&error))
    };
    let acks = tokio::time::timeout_at(deadline, writing).await.unwrap_or_else(|_| Err(late()))?;
    let freshness = wait_until_visible(table, &acks, is_visible, deadline).await;
    outcomes
        .extend(numbers.into_iter().zip(acks).map(|(number, ack)| Outcome::written(number, ack, &freshness)));
    outcomes.sort_by_key(|outcome| outcome.line);
    Ok(outcomes)
}

fn late() -> Problem {
    unknown_outcome("the log did not acknowledge the writes in time")
}

/// Waits until records are visible, if the caller asks for that.
async fn wait_until_visible(
    table: &ServedTable,
    acks: &[Ack],
    is_visible: bool,
    deadline: Instant,
) -> Freshness {
    if !is_visible {
        return Freshness::Fresh;
    }
    table.table.wait_for(acks, deadline.saturating_duration_since(Instant::now())).await
}

impl Outcome<'static> {
    fn written(line: usize, ack: Ack, freshness: &Freshness) -> Self {
        let (outcome, detail) = match freshness {
            Freshness::Fresh => ("written", None),
            Freshness::Stale(reason) => ("not-visible", Some(reason.to_string())),
        };
        Self { line, outcome, partition: Some(ack.partition), offset: ack.offset, detail }
    }

    fn other(line: usize, outcome: &'static str, detail: impl Into<String>) -> Self {
        Self { line, outcome, partition: None, offset: None, detail: Some(detail.into()) }
    }

    fn problem(line: usize, problem: &Problem) -> Self {
        Self::other(line, problem.kind(), problem.detail())
    }
}
