//! The commands below codecs: topics and raw records.

use std::path::Path;

use serde::Serialize;

use crate::cli::args::{DescribeArgs, EnsureArgs, ProduceArgs};
use crate::cli::output::Output;
use crate::cli::write::print_ack;
use crate::cli::{CliError, Exit};
use crate::log::{self, Header, Log, LogError, NewRecord, NewTopic, TopicDescription};

pub(super) async fn produce(args: ProduceArgs, output: Output) -> Result<Exit, CliError> {
    let record = NewRecord {
        key: bytes(args.key, args.key_file.as_deref())?,
        value: bytes(args.value, args.value_file.as_deref())?,
        headers: args.header.iter().map(|header| parse_header(header)).collect::<Result<_, _>>()?,
        partition: args.partition,
    };
    let log = log::open(&args.log)?;
    let topic = log.describe(&args.topic).await?;
    let delivery = log.send(&topic, record).await?;
    print_ack(delivery.await?, output)?;
    Ok(Exit::Done)
}

/// The bytes given as text or in a file; `None` where neither is: a null.
fn bytes(text: Option<String>, file: Option<&Path>) -> Result<Option<Vec<u8>>, CliError> {
    match (text, file) {
        (Some(text), _) => Ok(Some(text.into_bytes())),
        (None, Some(path)) => std::fs::read(path).map(Some).map_err(CliError::file("read", path)),
        (None, None) => Ok(None),
    }
}

fn parse_header(text: &str) -> Result<Header, CliError> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| CliError::Usage(format!("--header {text}: write NAME=VALUE")))?;
    Ok(Header { name: name.to_owned(), value: Some(value.as_bytes().to_vec()) })
}

pub(super) async fn ensure(args: EnsureArgs, output: Output) -> Result<Exit, CliError> {
    let log = log::open(&args.log)?;
    let settings = NewTopic { partitions: args.partitions };
    let (outcome, topic) = match log.create(&args.topic, settings).await {
        Ok(topic) => ("created", topic),
        Err(LogError::TopicExists { .. }) => ("verified", log.describe(&args.topic).await?),
        Err(error) => return Err(error.into()),
    };
    if outcome == "verified" && topic.partitions != args.partitions {
        tracing::warn!("topic `{}` has {} partitions and stays as it is", topic.name, topic.partitions);
    }
    print_topic(log.as_ref(), Some(outcome), &topic, output).await
}

pub(super) async fn describe(args: DescribeArgs, output: Output) -> Result<Exit, CliError> {
    let log = log::open(&args.log)?;
    let topic = log.describe(&args.topic).await?;
    print_topic(log.as_ref(), None, &topic, output).await
}

async fn print_topic(
    log: &dyn Log,
    outcome: Option<&str>,
    topic: &TopicDescription,
    output: Output,
) -> Result<Exit, CliError> {
    #[derive(Serialize)]
    struct TopicLine<'a> {
        log: &'a str,
        topic: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        outcome: Option<&'a str>,
        id: &'a str,
        cleanup_policy: &'a str,
        partitions: Vec<OffsetsLine>,
    }
    #[derive(Serialize)]
    struct OffsetsLine {
        partition: i32,
        start: i64,
        end: i64,
    }
    let ranges = log.offsets(topic).await?;
    let line = |range: log::OffsetRange| OffsetsLine {
        partition: range.partition,
        start: range.start,
        end: range.end,
    };
    output.object(&TopicLine {
        log: log.url(),
        topic: &topic.name,
        outcome,
        id: &topic.id,
        cleanup_policy: &topic.cleanup_policy,
        partitions: ranges.into_iter().map(line).collect(),
    })?;
    Ok(Exit::Done)
}
