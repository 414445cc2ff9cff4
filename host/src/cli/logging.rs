//! Messages on standard error. Each message is one line, with its line breaks escaped; the reason of a failure
//! may have several, of which all but the first are indented. So a component, a record or a file cannot forge a
//! message. If standard error is closed or its disk is full, messages are lost, and the command does not fail.

use std::fmt;
use std::io::{self, IsTerminal, Write, stderr};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::args::LogFormat;
use crate::escape::{message, one_line};

/// Starts logging to standard error. The environment variable `KTABLES_LOG` filters by level and target. What
/// it does not name is logged from `level` on.
pub fn start_logging((level, format): (&'static str, LogFormat)) {
    // The messages of guests are not logged: a rejected record already carries the message of its fault.
    let default = || EnvFilter::new(format!("{level},ktables::guest=off"));
    let (filter, error) = match std::env::var("KTABLES_LOG") {
        // A later directive replaces an earlier one of the same target.
        Ok(directives) => match EnvFilter::try_new(format!("{level},{directives}")) {
            Ok(filter) => (filter, None),
            Err(error) => (default(), Some(error)),
        },
        Err(_) => (default(), None),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| LossyStderr)
        .with_ansi(format == LogFormat::Text && stderr().is_terminal())
        .log_internal_errors(false);
    match format {
        LogFormat::Text => subscriber.event_format(OneLineFormat).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).with_current_span(false).init(),
    }
    if let Some(error) = error {
        tracing::warn!(
            "KTABLES_LOG is not valid, and is ignored: {error}; write LEVEL or TARGET=LEVEL, separated by commas"
        );
    }
}

/// Writes to standard error why the command failed.
pub fn log_failure(reason: &str) {
    // OK to ignore: the writer never fails.
    let _ = writeln!(LossyStderr, "error: {}", message(reason));
}

/// A writer to standard error that never fails: output that cannot be written is lost.
struct LossyStderr;

impl Write for LossyStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Formats an event as one line: its level and its fields.
struct OneLineFormat;

impl<S, N> FormatEvent<S, N> for OneLineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        let level = *event.metadata().level();
        let color = match level {
            _ if !writer.has_ansi_escapes() => None,
            Level::ERROR => Some(31),
            Level::WARN => Some(33),
            Level::INFO => Some(32),
            Level::DEBUG => Some(34),
            Level::TRACE => Some(35),
        };
        let name = match level {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        match color {
            Some(color) => write!(writer, "\x1b[{color}m{name}\x1b[0m:")?,
            None => write!(writer, "{name}:")?,
        }
        writeln!(writer, " {}", one_line(&text))
    }
}
