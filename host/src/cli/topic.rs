//! The `topic` commands, which use no codecs.

use serde::Serialize;

use crate::cli::args::{DeleteTopicArgs, DescribeArgs, EnsureArgs, ListArgs};
use crate::cli::output::Output;
use crate::cli::{CliError, Exit, logs};
use crate::escape::escape_name;
use crate::log::{
    self, CLEANUP_POLICY, EnsureOutcome, EnsureTopic, Ensured, Log, NewTopic, TopicDescription,
};

pub(super) async fn ensure(args: EnsureArgs, output: Output) -> Result<Exit, CliError> {
    let log = logs::open(&args.target.log)?;
    let new = NewTopic {
        partitions: args.partitions,
        replication_factor: args.replication_factor,
        settings: args.setting.iter().map(|setting| parse_setting(setting)).collect::<Result<_, _>>()?,
    };
    let options = EnsureTopic { new, on_policy_mismatch: args.on_policy_mismatch };
    let ensured = log::ensure_topic(log.as_ref(), &args.target.topic, &options).await?;
    let topic = &ensured.topic;
    if ensured.outcome != EnsureOutcome::Created {
        warn_of_differences(log.as_ref(), &ensured, &options.new).await;
    }
    print_topic(log.as_ref(), Some(ensured.outcome.name()), topic, output).await
}

/// Warns of options for a new topic that were not applied, because the topic exists.
async fn warn_of_differences(log: &dyn Log, ensured: &Ensured, wanted: &NewTopic) {
    let topic = &ensured.topic;
    let name = escape_name(&topic.name);
    if wanted.partitions.is_some_and(|partitions| partitions != topic.partitions) {
        tracing::warn!(
            "topic `{name}` exists with {} partitions; their number was not changed",
            topic.partitions
        );
    }
    if wanted.replication_factor.is_some() {
        tracing::warn!("topic `{name}` exists; its replication factor was neither checked nor changed");
    }
    for (setting, wanted) in &wanted.settings {
        // Otherwise the outcome says what was done about the policy.
        if setting == CLEANUP_POLICY && ensured.outcome != EnsureOutcome::Skipped {
            continue;
        }
        match log.setting(&topic.name, setting).await {
            Ok(value) if value == *wanted => {}
            Ok(value) => tracing::warn!(
                "topic `{name}` exists with `{}={}`; it was not changed to `{}`",
                escape_name(setting),
                escape_name(&value),
                escape_name(wanted)
            ),
            Err(error) => tracing::warn!(
                "topic `{name}` exists; its setting `{}` was neither checked nor changed: {error}",
                escape_name(setting)
            ),
        }
    }
}

fn parse_setting(text: &str) -> Result<(String, String), CliError> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| CliError::Usage(format!("--setting {text} has no `=`: write NAME=VALUE")))?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) async fn describe(args: DescribeArgs, output: Output) -> Result<Exit, CliError> {
    let log = logs::open(&args.target.log)?;
    let topic = log.describe(&args.target.topic).await?;
    print_topic(log.as_ref(), None, &topic, output).await
}

pub(super) async fn list(args: ListArgs, output: Output) -> Result<Exit, CliError> {
    #[derive(Serialize)]
    struct TopicName {
        topic: String,
    }
    let names = logs::open(&args.log)?.topics().await?;
    output.print_rows(names.into_iter().map(|topic| TopicName { topic }))?;
    Ok(Exit::Done)
}

pub(super) async fn delete(args: DeleteTopicArgs) -> Result<Exit, CliError> {
    let topic = &args.target.topic;
    if !args.yes {
        return Err(CliError::Usage(format!(
            "all records of topic `{}` would be deleted: add --yes to confirm that",
            escape_name(topic)
        )));
    }
    logs::open(&args.target.log)?.delete(topic).await?;
    Ok(Exit::Done)
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
        cleanup_policy: Option<String>,
        partitions: Vec<PartitionOffsets>,
    }
    #[derive(Serialize)]
    struct PartitionOffsets {
        partition: i32,
        start: i64,
        end: i64,
    }
    let ranges = log.offsets(topic).await?;
    // OK to ignore: reading the policy requires a right (DESCRIBE_CONFIGS) that describing does not.
    let cleanup_policy = log.setting(&topic.name, "cleanup.policy").await.ok();
    let offsets = |range: log::OffsetRange| PartitionOffsets {
        partition: range.partition,
        start: range.start,
        end: range.end,
    };
    output.print_object(&TopicLine {
        log: log.url(),
        topic: &topic.name,
        outcome,
        id: &topic.id,
        cleanup_policy,
        partitions: ranges.into_iter().map(offsets).collect(),
    })?;
    Ok(Exit::Done)
}
