//! Progress on standard error while a table loads.

use std::future::Future;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::table::Table;

/// How often progress is drawn on a terminal.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// How often progress is logged if standard error is not a terminal.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Shows the progress of a table that loads, until `wait` resolves. Returns its result.
pub(super) async fn show_until<T>(table: &Table, wait: impl Future<Output = T>) -> T {
    let bar = ProgressBar::new(0).with_style(progress_style());
    let is_terminal = stderr().is_terminal();
    let mut ticks = tokio::time::interval(if is_terminal { DRAW_INTERVAL } else { LOG_INTERVAL });
    // The first tick is immediate, when there is nothing to show yet.
    ticks.tick().await;
    let mut wait = std::pin::pin!(wait);
    loop {
        tokio::select! {
            result = &mut wait => {
                bar.finish_and_clear();
                return result;
            }
            _ = ticks.tick() => {
                if let Some(loading) = table.stats().loading {
                    if is_terminal {
                        bar.set_length(loading.total);
                        bar.set_position(loading.done);
                    } else {
                        tracing::warn!("loading {}: {loading}", table.topic().name);
                    }
                }
            }
        }
    }
}

fn progress_style() -> ProgressStyle {
    // OK because the template is a constant: a test would panic if it were invalid.
    ProgressStyle::with_template(
        "loading {bar:30} {pos} of {len} offsets, {percent} %, {per_sec}, {eta} to go",
    )
    .expect("a valid template")
}
