//! Progress on standard error while a table loads.

use std::future::Future;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::table::Table;

/// How often progress is drawn on a terminal.
const DRAW: Duration = Duration::from_millis(100);

/// How often a line is logged where there is no terminal.
const LOG: Duration = Duration::from_secs(5);

/// Waits, and shows how far the table is meanwhile.
pub(super) async fn shown<T>(table: &Table, wait: impl Future<Output = T>) -> T {
    let bar = ProgressBar::new(0).with_style(style());
    let terminal = stderr().is_terminal();
    let mut ticks = tokio::time::interval(if terminal { DRAW } else { LOG });
    // The first tick is at once, when there is nothing to show.
    ticks.tick().await;
    let mut wait = std::pin::pin!(wait);
    loop {
        tokio::select! {
            done = &mut wait => {
                bar.finish_and_clear();
                return done;
            }
            _ = ticks.tick() => {
                if let Some(loading) = table.stats().loading {
                    if terminal {
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

fn style() -> ProgressStyle {
    // OK because the template is a constant that a test would see fail.
    ProgressStyle::with_template(
        "loading {bar:30} {pos} of {len} records, {percent} %, {per_sec}, {eta} to go",
    )
    .expect("a valid template")
}
